"""Files in, files out, as the command ``translate`` does it."""

import json
import math
import time
from dataclasses import asdict
from functools import partial
from pathlib import Path

from rich.console import Console
from rich.progress import Progress

from ganvas.data.listing import describe_unread
from ganvas.errors import UserError, WriteError
from ganvas.inference.folder import FolderResult, Jobs, find_jobs, progress_bar, translate_jobs
from ganvas.inference.tiling.plan import Tiling
from ganvas.inference.tiling.tiles import TiledResult, translate_tiled
from ganvas.inference.translator import Translator


def translate_files(
    translator: Translator,
    source: Path,
    target: Path,
    *,
    as_json: bool,
    overwrite: bool = False,
    tiling: Tiling | None = None,
) -> int:
    """Translate a file or a folder; all good images are done before a bad one is complained of.

    Args:
        translator: The model.
        source: A image or a folder of images.
        target: A folder, where names and subfolders are kept; or a file's name, for one image.
        as_json: Print one JSON object on standard output.
        overwrite: Translate also what is there already.
        tiling: Translate in tiles, cut like this; the translator's size has to be native.

    Raises:
        UserError: No images, images that could not be read or written, or tiles that do not suit the translator.
    """
    if tiling is not None:
        tiling.check(translator.network)
        if translator.precision == "bf16":
            raise UserError("--precision bf16: tiles are computed in fp32. Leave it out, or --tile.")
        if translator.paper:
            raise UserError("--paper: its noise would be the same in every tile. Leave it out, or --tile.")
    began = time.perf_counter()
    jobs = find_jobs(translator, source, target, overwrite=overwrite)
    tiled: list[TiledResult] = []
    if tiling is None:
        result = translate_jobs(translator, jobs, progress=True)
    else:
        result, tiled = _translate_in_tiles(translator, jobs, tiling)
    if as_json:
        summary = _summary(result, tiled if tiling else None, time.perf_counter() - began)
        print(json.dumps(summary | {"unread": jobs.unread}, allow_nan=False))
    else:
        console = Console(stderr=True, soft_wrap=True, highlight=False, markup=False)
        for one in tiled:
            console.print(one.describe())
        there = f"; {len(result.there)} were there already (--overwrite redoes them)" if result.there else ""
        if unread := describe_unread(jobs.unread):
            console.print(unread)
        console.print(f"{len(result.written)} images written to {target}{there}")
    result.complain()
    return 0


def _translate_in_tiles(translator: Translator, jobs: Jobs, tiling: Tiling) -> tuple[FolderResult, list[TiledResult]]:
    tiled: list[TiledResult] = []
    failed = list(jobs.failed)
    for job in jobs.todo:
        try:
            with progress_bar(None, doing=job.source.name) as bar:
                advance = partial(_show_tiles, bar)
                tiled.append(translate_tiled(translator, job.source, job.target, tiling, advance))
        except UserError as error:
            failed.append(str(error))
            if isinstance(error, WriteError):
                break
    left = len(jobs.todo) - len(tiled) - (len(failed) - len(jobs.failed))
    return FolderResult([one.path for one in tiled], jobs.there, failed, left), tiled


def _show_tiles(bar: Progress, done: int, total: int) -> None:
    bar.update(bar.task_ids[0], completed=done, total=total)


def _summary(result: FolderResult, tiled: list[TiledResult] | None, seconds: float) -> dict[str, object]:
    summary: dict[str, object] = {
        "written": [str(path) for path in result.written],
        "skipped": [str(path) for path in result.there],
        "failed": result.failed,
        "left": result.left,
        "seconds": round(seconds, 3),
    }
    if tiled is not None:
        summary["tiled"] = [_as_json(one) for one in tiled]
    return summary


def _as_json(one: TiledResult) -> dict[str, object]:
    """Give a result as JSON has it, which knows no infinite numbers: null stands for them."""
    values = asdict(one) | {"path": str(one.path)}
    return {
        name: None if isinstance(value, float) and not math.isfinite(value) else value for name, value in values.items()
    }
