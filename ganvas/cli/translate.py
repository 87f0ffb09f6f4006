"""The command ``translate`` of the modules. Nothing heavy is imported before the options are parsed."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import tyro


@dataclass(frozen=True)
class TranslateOptions:
    """How every model translates."""

    model: tyro.conf.Positional[Path]
    """A run, a checkpoint or a model folder; or hub:OWNER/NAME."""
    input: tyro.conf.Positional[Path]
    """A image or a folder of images."""
    output: tyro.conf.Positional[Path]
    """A folder; or a file's name, for one image."""
    size: Literal["trained", "native"] = "trained"
    """trained scales to the size of the training images and back, where the training did; native never scales."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """auto computes in bf16 where the CPU does so natively and images have 8 bits, else in fp32."""
    overwrite: bool = False
    """Translate also what is there already in the output folder; by default it is skipped."""
    tile: int | None = None
    """Translate in tiles of so many pixels a side, blended, at the image's own scale; for images of any size."""
    overlap: int = 64
    """Pixels that neighboring tiles share at least; less than a tile."""
    exact: bool = False
    """With --tile: gather the norm layers' statistics from all tiles, in many passes, not from a sample."""
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    """Where to compute."""
    json: bool = False
    """Print one JSON object on standard output and nothing else there."""


def run_translate(
    options: TranslateOptions,
    *,
    kind: str,
    direction: str | None = None,
    paper: bool = False,
    seed: int = 0,
) -> int:
    """Translate a file or a folder; all good images are done before a bad one is complained of.

    Args:
        options: What the command was given.
        kind: What the model has to be: "pix2pix" or "cyclegan".
        direction: Which way, of a model that translates both.
        paper: As `Translator` takes it.
        seed: As `Translator` takes it.

    Raises:
        UserError: No model, one of another kind, another direction than the model has, no images, or images that
            could not be read or written.
    """
    from ganvas.device import choose_device
    from ganvas.inference.tiling.plan import Tiling
    from ganvas.inference.translate_files import translate_files
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
        translator,
        options.input,
        options.output,
        as_json=options.json,
        overwrite=options.overwrite,
        tiling=tiling,
    )
