"""Translation in overlapping tiles of images that may be larger than memory: windows in, bands of rows out.

Letters in shape comments: C channels, H rows, W columns.
"""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from ganvas.data.encode import format_supports, write_image
from ganvas.data.formats import TIFF_SUFFIXES
from ganvas.data.nodata import apply_nodata
from ganvas.data.tensors import to_tensor
from ganvas.data.tiff_tags import Tags
from ganvas.data.windows import LoadedRaster, TiffWindows, open_windows, write_bands
from ganvas.errors import UserError, WriteError
from ganvas.inference.jobs import FolderResult, Job, Jobs
from ganvas.inference.tiling.blend import Band, Tile, blend
from ganvas.inference.tiling.plan import Plan, Tiling, Window
from ganvas.inference.tiling.seams import Borders, SeamMeter
from ganvas.inference.tiling.shared_norms import compute_statistics, shared_norms
from ganvas.inference.translator import Translator
from ganvas.log import progress_bar

SAMPLES = 16  # tiles for approximate statistics: our choice
TOLERANCE, EXACT_TOLERANCE = 1e-2, 1e-5  # of the statistics, as in `compute_statistics`
ROWS = 32  # measured at a time

Source = TiffWindows | LoadedRaster
Advance = Callable[[int, int], None]
ApplyNodata = Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, Tags]]


@dataclass(frozen=True)
class TiledResult:
    """The result of a translation in tiles.

    Attributes:
        path: The file written.
        tiles: Number of tiles.
        tile: Height and width of a tile in pixels.
        passes: Passes over the tiles to compute statistics; 0 if the network needs none.
        sampled: Number of tiles that the statistics come from.
        exact: Whether these were all tiles, in passes until convergence.
        uncertainty: Root mean square difference of the channel means of two halves of those tiles, in deviations.
        seam: Mean difference of pixels across tile borders over that elsewhere.
        seam_on_grid: The same over differences at the same phase of the network's grid.
        trained_at: Side of the training images in pixels if the training scaled, else None. Tiles are never scaled.
    """

    path: Path
    tiles: int
    tile: tuple[int, int]
    passes: int
    sampled: int
    exact: bool
    uncertainty: float
    seam: float
    seam_on_grid: float
    trained_at: int | None

    def describe(self) -> str:
        """Describe the result in one line."""
        text = (
            f"{self.path}: {self.tiles} tiles, seam measure {self.seam:.3f} "
            f"({self.seam_on_grid:.3f} at the same phase of the network's grid)"
        )
        if self.passes:
            exact = f"norm statistics from all {self.tiles} tiles"
            approximate = f"approximate norm statistics, from {self.sampled} of {self.tiles} tiles"
            text += (
                f"; {exact if self.exact else approximate} in {self.passes} passes, "
                f"whose halves differ by {self.uncertainty:.3f} standard deviations"
            )
        if self.trained_at is not None:
            text += f"; at the image's own scale, while the training scaled images to {self.trained_at} pixels"
        return text


def translate_jobs_tiled(translator: Translator, jobs: Jobs, tiling: Tiling) -> tuple[FolderResult, list[TiledResult]]:
    """Translate images in tiles. Unreadable images are skipped; a write error stops the translation."""
    tiled: list[TiledResult] = []
    failed = list(jobs.failed)
    for job in jobs.todo:
        try:
            tiled.append(_translate_job(translator, job, tiling))
        except UserError as error:
            failed.append(str(error))
            if isinstance(error, WriteError):
                break
    left = len(jobs.todo) - len(tiled) - (len(failed) - len(jobs.failed))
    return FolderResult([each.path for each in tiled], jobs.existing, failed, left), tiled


def _translate_job(translator: Translator, job: Job, tiling: Tiling) -> TiledResult:
    with progress_bar() as bar:
        task = bar.add_task(job.source.name, total=None)
        return translate_tiled(
            translator,
            job.source,
            job.target,
            tiling,
            lambda done, total: bar.update(task, completed=done, total=total),
        )


def translate_tiled(
    translator: Translator,
    source: Path,
    target: Path,
    tiling: Tiling,
    advance: Advance = lambda done, total: None,
) -> TiledResult:
    """Translate a file in tiles, at its own scale.

    Args:
        translator: The model, loaded with ``size="native"``.
        source: The image.
        target: The file to write; a TIFF with that name if the format of ``target`` cannot hold the image.
        tiling: The tiles.
        advance: Called with the numbers of finished tiles and of all tiles; each pass for statistics counts its tiles.

    Raises:
        UserError: The translator scales images, the tile does not suit, or an image cannot be read or written.
    """
    how, network = translator.preprocessing, translator.network
    if translator.resizes:
        raise UserError(
            f"this model was loaded to scale images to {how.image_size} pixels, which tiles cannot. Load it with "
            "size='native', or translate without tiles."
        )
    with (
        open_source(source, translator, tiling.side(network)) as pixels,
        shared_norms(network if tiling.shared else torch.nn.Identity()) as norms,
    ):
        plan = Plan.of(pixels.height, pixels.width, tiling, network)
        dtype = pixels.read(0, 0, 1, 1).array.dtype if how.target_range is None else np.dtype(how.target_type)
        target = _suitable_file(target, pixels, dtype, translator)
        sample = plan.sample(plan.tiles if tiling.exact else SAMPLES) if norms else []
        translate = partial(_translate_tile, translator, pixels, plan, source)
        counted = _Counter(translate, advance, len(sample) * len(norms) + plan.tiles)
        tolerance = EXACT_TOLERANCE if tiling.exact else TOLERANCE
        passes, uncertainty = compute_statistics(norms, sample, counted, tolerance)
        counted.skip(len(sample) * (len(norms) - passes))
        meter = SeamMeter(*(Borders(axis.borders, axis.grid.step) for axis in (plan.rows, plan.columns)))
        bands = blend(plan, how.target_channels, counted, partial(translator.to_image, source_dtype=dtype))
        _write(target, bands, meter, (pixels.height, pixels.width, how.target_channels), dtype, pixels.tags)
    return TiledResult(
        target,
        plan.tiles,
        (plan.rows.size, plan.columns.size),
        passes,
        len(sample),
        tiling.exact,
        uncertainty,
        meter.ratio(),
        meter.ratio_on_grid(),
        how.image_size if how.resized else None,
    )


@contextmanager
def open_source(path: Path, translator: Translator, rows: int) -> Iterator[Source]:
    """Open an image for reading by windows; Pillow's limit of pixels applies only to formats without windows.

    Raises:
        UserError: The file is unreadable, has no windows and is too large, or is not what the model takes.
    """
    how = translator.preprocessing
    opened: AbstractContextManager[TiffWindows | None] = nullcontext()
    if not how.source_folders:
        opened = open_windows(path, how.source_channels, rows)
    with opened as windows:
        if windows is not None:
            yield windows
            return
    try:
        image = translator.read(path)
    except UserError as error:
        if isinstance(error.__context__, Image.DecompressionBombWarning | Image.DecompressionBombError):
            raise UserError(
                f"{path}: this format cannot be read by windows, and the image is too large to decode at once "
                f"({error.__context__}). Save it as a tiled TIFF, which may have any size."
            ) from None
        raise
    yield LoadedRaster(image)


def _suitable_file(target: Path, pixels: Source, dtype: np.dtype, translator: Translator) -> Path:
    """Return the file to write: a TIFF if the format of ``target`` cannot hold the image.

    Raises:
        UserError: The image is too large to encode at once, as all formats but TIFF require.
    """
    how = translator.preprocessing
    blank = np.broadcast_to(np.zeros((), dtype), (pixels.height, pixels.width, how.target_channels))
    if not format_supports(target.suffix, blank, exactly=how.target_range is not None):
        target = target.with_suffix(".tif")
    limit = Image.MAX_IMAGE_PIXELS
    if target.suffix.lower() not in TIFF_SUFFIXES and limit is not None and pixels.height * pixels.width > limit:
        raise UserError(
            f"{target}: {pixels.width}x{pixels.height} pixels have to be written by bands, which only TIFF supports. "
            "Give a name that ends in .tif."
        )
    return target


def _translate_tile(translator: Translator, pixels: Source, plan: Plan, source: Path, window: Window) -> Tile:
    """Read and translate a tile, reflected outside of the image."""
    rows, columns = plan.rows.pixels(window.top), plan.columns.pixels(window.left)
    top, left = int(rows.min()), int(columns.min())
    image = pixels.read(top, left, int(rows.max()) + 1 - top, int(columns.max()) + 1 - left)
    place = np.ix_(rows - top, columns - left)
    translator.require_values(image.array[place], source)
    values = to_tensor(image.array[place], translator.preprocessing.source_range)
    return translator.translate_tensor(values[None])[0], image.nodata_mask[place]


class _Counter:
    """Translates tiles and reports each."""

    def __init__(self, translate: Callable[[Window], Tile], advance: Advance, total: int) -> None:
        self._translate, self._advance, self._total, self._done = translate, advance, total, 0

    def __call__(self, window: Window) -> Tile:
        tile = self._translate(window)
        self.skip(1)
        return tile

    def skip(self, tiles: int) -> None:
        """Count tiles as finished."""
        self._done += tiles
        self._advance(self._done, self._total)


def _write(
    target: Path, bands: Iterator[Band], meter: SeamMeter, shape: tuple[int, int, int], dtype: np.dtype, tags: Tags
) -> None:
    """Measure and write bands of an image of this shape [H, W, C]."""
    to_written = partial(apply_nodata, target.suffix, tags=tags)
    _, tags = to_written(np.zeros((1, 1, shape[2]), dtype), np.zeros((1, 1), bool))
    rows = _measured(bands, meter, to_written)
    if target.suffix.lower() in TIFF_SUFFIXES:
        write_bands(target, rows, shape, dtype, tags)
    else:
        write_image(target, np.concatenate(list(rows)), tags)


def _measured(bands: Iterator[Band], meter: SeamMeter, to_written: ApplyNodata) -> Iterator[np.ndarray]:
    """Measure the seams of bands, then apply their nodata masks, a few rows at a time to save memory."""
    for band, mask in bands:
        for top in range(0, len(band), ROWS):
            rows = slice(top, top + ROWS)
            meter.add(band[rows])
            yield to_written(band[rows], mask[rows])[0]
