"""Images larger than memory: translated in overlapping tiles, read by windows, blended, written by bands of rows.

The plan of the tiles is in `tile_plan`, what their norm layers share in `shared_norms`, how they become rows in
`tile_blend`, how seams are measured in `seams`; files by windows are `ganvas.data.windows`.

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
from ganvas.data.raster import Raster
from ganvas.data.tensors import to_tensor
from ganvas.data.tiff_tags import Tags
from ganvas.data.windows import LoadedRaster, TiffWindows, open_windows, write_bands
from ganvas.errors import UserError
from ganvas.inference.tiling.blend import Band, Tile, blend
from ganvas.inference.tiling.plan import Plan, Tiling, Window
from ganvas.inference.tiling.seams import Borders, SeamMeter
from ganvas.inference.tiling.shared_norms import gather, shared_norms
from ganvas.inference.translator import Translator

SAMPLES = 16  # tiles that the approximate statistics come from: our choice
SETTLED, EXACTLY_SETTLED = 1e-2, 1e-5  # largest move of a channel's mean or deviation, in its deviations
ROWS = 32  # measured at a time

Source = TiffWindows | LoadedRaster
Advance = Callable[[int, int], None]
Mark = Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, Tags]]  # pixels without data, in rows of a image


@dataclass(frozen=True)
class TiledResult:
    """What came of a translation in tiles.

    Attributes:
        path: The file written.
        tiles: How many it took.
        tile: Pixels of a tile, down and across.
        passes: Passes over the tiles that gathered statistics; 0 where the network needs none.
        sampled: Tiles that they were gathered from.
        exact: Whether these were all tiles, and passes went on until nothing moved any more.
        uncertainty: Root mean square difference of the channel means of two halves of those tiles, in deviations.
        seam: Mean step across tile borders over the mean step elsewhere.
        seam_on_grid: The same over steps at the same places of the network's grid.
        trained_at: Pixels a side that the training scaled images to; None where it did not. Tiles are never scaled.
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
        """Say it in one line."""
        text = (
            f"{self.path}: {self.tiles} tiles, seam measure {self.seam:.3f} "
            f"({self.seam_on_grid:.3f} against like places of the network's grid)"
        )
        if self.passes:
            exactly = f"norm statistics from all {self.tiles} tiles"
            roughly = f"approximate norm statistics, from {self.sampled} of {self.tiles} tiles"
            text += (
                f"; {exactly if self.exact else roughly} in {self.passes} passes, "
                f"whose halves differ by {self.uncertainty:.3f} standard deviations"
            )
        if self.trained_at is not None:
            text += f"; at the image's own scale, while the training scaled images to {self.trained_at} pixels"
        return text


def translate_tiled(
    translator: Translator,
    source: Path,
    target: Path,
    tiling: Tiling,
    advance: Advance = lambda done, total: None,
) -> TiledResult:
    """Translate one file into another in tiles, at its own scale.

    Args:
        translator: The model, made with ``size="native"``.
        source: The image.
        target: The file to write; a TIFF of that name where its format does not hold the image.
        tiling: How it is cut.
        advance: Is told the tiles done and their number; those that statistics are gathered from count each time.

    Raises:
        UserError: The translator scales images, the tile does not suit, or a image cannot be read or written.
    """
    how = translator.preprocessing
    if translator.resizes:
        raise UserError(
            f"this model was loaded to scale images to {how.image_size} pixels, which tiles cannot. Load it with "
            "size='native', or translate the image whole."
        )
    with open_source(source, translator, tiling.side(translator.network)) as pixels:
        plan = Plan.of(pixels.height, pixels.width, tiling, translator.network)
        kind = pixels.read(0, 0, 1, 1).array.dtype if how.target_range is None else np.dtype(how.target_type)
        target = _suited(target, pixels, kind, translator)
        translate = partial(_translated, translator, pixels, plan, source)
        with shared_norms(translator.network if tiling.shared else torch.nn.Identity()) as norms:
            sample = plan.spread(plan.tiles if tiling.exact else SAMPLES) if norms else []
            total = len(sample) * len(norms) + plan.tiles
            counted = _Counter(translate, advance, total)
            passes, uncertainty = gather(norms, sample, counted, EXACTLY_SETTLED if tiling.exact else SETTLED)
            counted.skip(len(sample) * (len(norms) - passes))
            meter = SeamMeter(*(Borders(axis.borders, axis.grid.step) for axis in (plan.rows, plan.columns)))
            finish = partial(translator.as_picture, source_type=kind)
            mark = partial(apply_nodata, target.suffix, tags=pixels.tags)
            bands = _measured(blend(plan, how.target_channels, counted, finish), meter, mark)
            shape = pixels.height, pixels.width, how.target_channels
            _, tags = mark(np.zeros((1, 1, shape[2]), kind), np.zeros((1, 1), bool))
            if target.suffix.lower() in TIFF_SUFFIXES:
                write_bands(target, bands, shape, kind, tags)
            else:
                write_image(target, np.concatenate(list(bands)), tags)
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
    """Open a image for reading by windows; Pillow's limit of pixels holds only for what is decoded whole.

    Args:
        path: The file.
        translator: The model.
        rows: Most rows of a window.

    Raises:
        UserError: It cannot be read, is too large to be decoded whole where it has to be, or is not what the model
            takes.
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
        picture = translator.read(path)
    except UserError as error:
        if isinstance(error.__context__, Image.DecompressionBombWarning | Image.DecompressionBombError):
            raise UserError(
                f"{path}: has to be decoded whole, and is too large for that ({error.__context__}). Save it as TIFF in "
                "tiles, which is read by windows and may have any size."
            ) from None
        raise
    yield LoadedRaster(picture)


def _suited(target: Path, pixels: Source, kind: np.dtype, translator: Translator) -> Path:
    """Give the file to write: a TIFF where the format asked for does not hold the image.

    Raises:
        UserError: The image is too large to be encoded whole.
    """
    how = translator.preprocessing
    blank = np.broadcast_to(np.zeros((), kind), (pixels.height, pixels.width, how.target_channels))
    if not format_supports(target.suffix, blank, exactly=how.target_range is not None):
        target = target.with_suffix(".tif")
    limit = Image.MAX_IMAGE_PIXELS
    if target.suffix.lower() not in TIFF_SUFFIXES and limit is not None and pixels.height * pixels.width > limit:
        raise UserError(
            f"{target}: {pixels.width}x{pixels.height} pixels are written by bands, which only TIFF can. Give a name "
            "that ends in .tif."
        )
    return target


def _translated(translator: Translator, pixels: Source, plan: Plan, source: Path, window: Window) -> Tile:
    """Read a tile, mirrored where it lies outside of the image, and translate it."""
    picture = _read(pixels, plan.rows.pixels(window.top), plan.columns.pixels(window.left))
    translator.require_values(picture.array, source)
    values = to_tensor(picture.array, translator.preprocessing.source_range)
    return translator.translate_tensor(values[None])[0], picture.nodata_mask


def _read(pixels: Source, rows: np.ndarray, columns: np.ndarray) -> Raster:
    top, left = int(rows.min()), int(columns.min())
    found = pixels.read(top, left, int(rows.max()) + 1 - top, int(columns.max()) + 1 - left)
    place = np.ix_(rows - top, columns - left)
    return Raster(found.array[place], found.tags, found.nodata_mask[place])


class _Counter:
    """A way to translate tiles that tells of each."""

    def __init__(self, translate: Callable[[Window], Tile], advance: Advance, total: int) -> None:
        self._translate, self._advance, self._total, self._done = translate, advance, total, 0

    def __call__(self, window: Window) -> Tile:
        tile = self._translate(window)
        self.skip(1)
        return tile

    def skip(self, tiles: int) -> None:
        """Count tiles that need no more work."""
        self._done += tiles
        self._advance(self._done, self._total)


def _measured(bands: Iterator[Band], meter: SeamMeter, mark: Mark) -> Iterator[np.ndarray]:
    """Measure bands on their way, then mark what has no data; few rows at a time, since both take room."""
    for band, holes in bands:
        for top in range(0, len(band), ROWS):
            rows = slice(top, top + ROWS)
            meter.add(band[rows])
            yield mark(band[rows], holes[rows])[0]
