"""The command ``translate``. Nothing heavy is imported before the options are parsed."""

import json
import math
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from ganvas.errors import UserError
from ganvas.log import logger
from ganvas.options import optional

if TYPE_CHECKING:
    from ganvas.inference.jobs import FolderResult
    from ganvas.inference.tiling.plan import Tiling
    from ganvas.inference.tiling.tiles import TiledResult
    from ganvas.inference.translator import Translator


@dataclass(frozen=True)
class TranslateOptions:
    """Options of every translator.

    Attributes:
        model: A run, a checkpoint or a model folder; earth, which comes with ganvas; or hub:OWNER/NAME.
        input: An image or a folder of images.
        output: A folder; or a file, for a single image.
        size: trained scales images to the training size and back, if the training scaled; native never scales.
        precision: auto computes in bf16 if the CPU does so natively and images have 8 bits, otherwise in fp32.
        overwrite: Translate images again whose translations exist; by default they are skipped.
        tile: Translate in blended tiles of this side, at the image's own scale; for images of any size.
        overlap: Overlap of neighboring tiles in pixels.
        exact: With --tile: compute the statistics of norm layers from all tiles, in several passes, not from a sample.
        device: Device to compute on.
        json: Print one JSON object on standard output and nothing else there.
    """

    model: tyro.conf.Positional[Annotated[Path, tyro.conf.arg(metavar="MODEL")]]
    input: tyro.conf.Positional[Annotated[Path, tyro.conf.arg(metavar="INPUT")]]
    output: tyro.conf.Positional[Annotated[Path, tyro.conf.arg(metavar="OUTPUT")]]
    size: Literal["trained", "native"] = "trained"
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    overwrite: bool = False
    tile: Annotated[int | None, optional("PIXELS")] = None
    overlap: int = 64
    exact: bool = False
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    json: bool = False


def run_translate(
    options: TranslateOptions, *, kind: str, direction: str | None = None, paper: bool = False, seed: int = 0
) -> int:
    """Translate a file or a folder; return the exit code.

    Args:
        options: The options.
        kind: The kind that the model must have.
        direction: The direction, for a bidirectional model.
        paper: As in `Translator`.
        seed: As in `Translator`.

    Raises:
        UserError: The model is missing, of another kind or does not have the direction; or images are missing or
            failed (raised after all others are done).
    """
    from ganvas.device import choose_device
    from ganvas.inference.tiling.plan import Tiling
    from ganvas.inference.translator import load

    translator = load(
        options.model,
        kinds=(kind,),
        direction=direction,
        device=choose_device(options.device),
        size="native" if options.tile else options.size,
        precision=options.precision,
        paper=paper,
        seed=seed,
    )
    tiling = None if options.tile is None else Tiling(options.tile, options.overlap, options.exact)
    return translate_files(
        translator, options.input, options.output, as_json=options.json, overwrite=options.overwrite, tiling=tiling
    )


def translate_files(
    translator: "Translator",
    source: Path,
    target: Path,
    *,
    as_json: bool,
    overwrite: bool = False,
    tiling: "Tiling | None" = None,
) -> int:
    """Translate files and print a summary; return the exit code.

    Args:
        translator: The model; for tiles, loaded with size "native".
        source: An image or a folder of images.
        target: A folder, where names and subfolders are kept; or a file, for a single image.
        as_json: Print one JSON object on standard output.
        overwrite: Translate images again whose translations exist.
        tiling: Translate in tiles.

    Raises:
        UserError: There are no images, some failed, or the tiles do not suit the translator.
    """
    from ganvas.data.listing import describe_unread
    from ganvas.inference.folder import translate_jobs
    from ganvas.inference.tiling.tiles import translate_jobs_tiled

    if tiling is not None:
        tiling.check(translator.network)
        if translator.precision == "bf16":
            raise UserError("--precision bf16: tiles are computed in fp32. Leave out --precision or --tile.")
        if translator.paper:
            raise UserError("--paper: all tiles would get the same dropout. Leave out --paper or --tile.")
    start = time.perf_counter()
    jobs = translator.find_jobs(source, target, overwrite=overwrite)
    tiled: list[TiledResult] = []
    if tiling is None:
        result = translate_jobs(translator, jobs)
    else:
        result, tiled = translate_jobs_tiled(translator, jobs, tiling)
    if as_json:
        summary = _summary(result, time.perf_counter() - start) | {"unread": jobs.unread}
        print(json.dumps(summary | ({"tiled": _tiled_json(tiled)} if tiling else {}), allow_nan=False))
    else:
        for each in tiled:
            logger.info(each.describe())
        if unread := describe_unread(jobs.unread):
            logger.info(unread)
        skipped = f"; {len(result.existing)} existed already (--overwrite translates them again)"
        logger.info(f"{len(result.written)} images written to {target}{skipped if result.existing else ''}")
    result.raise_failures()
    return 0


def _summary(result: "FolderResult", seconds: float) -> dict[str, object]:
    return {
        "written": [str(path) for path in result.written],
        "skipped": [str(path) for path in result.existing],
        "failed": result.failed,
        "left": result.left,
        "seconds": round(seconds, 3),
    }


def _tiled_json(tiled: "Sequence[TiledResult]") -> list[dict[str, object]]:
    """Convert results to JSON values, which know no infinite numbers: null stands for them."""
    return [
        {
            name: None if isinstance(value, float) and not math.isfinite(value) else value
            for name, value in (asdict(each) | {"path": str(each.path)}).items()
        }
        for each in tiled
    ]
