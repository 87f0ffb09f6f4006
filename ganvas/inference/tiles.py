"""Pictures larger than memory: translated in overlapping tiles, blended, read and written by bands of rows.

TIFF is read and written by tifffile, which is there in every installation and keeps all tags as they stand, GeoTIFF's
among them; other formats are read and written whole. Memory grows with the picture's width, not with its height.

Instance norm, and batch norm by each picture's own statistics, would normalise each tile differently. Here all tiles
share one mean and variance for each channel of each norm layer. They are a fixed point: what the layers see when they
normalise by them. Each pass over the tiles settles at least the first layer that is not settled yet, so that there are
never more passes than norm layers, and fewer where nothing moves any more.

Letters in shape comments: C channels, H rows, W columns.
"""

import math
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tifffile
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ganvas.data.images import (
    TIFF_SUFFIXES,
    Picture,
    _in_three_types,
    _over_white,
    fit_channels,
    holds,
    require_range,
    to_tensor,
    write_image,
)
from ganvas.data.tiff import (
    COPIED,
    DATE,
    DESCRIPTION,
    ORIENTATION,
    SOFTWARE,
    UNIT,
    X_RESOLUTION,
    Y_RESOLUTION,
    Tags,
    _alpha,
    _is_ours,
    _tags,
)
from ganvas.errors import UserError
from ganvas.files import cannot_write
from ganvas.inference.translator import Translator
from ganvas.nn.layers import BatchNorm2d, InstanceNorm2d
from ganvas.nn.resnet import ResNetGenerator
from ganvas.nn.unet import UNetGenerator

SAMPLES = 16  # tiles that the approximate statistics come from: our choice
SETTLED, EXACTLY_SETTLED = 1e-2, 1e-5  # largest move of a channel's mean or deviation, in its deviations
BLOCK = 256  # side of the tiles that TIFF is stored in
LARGEST_SEGMENT = 2**27  # bytes; a TIFF compressed in larger pieces cannot be read by windows
CLASSIC_BYTES = 2**32 - 2**26  # more needs BigTIFF; the rest is for tags


@dataclass(frozen=True)
class Tiling:
    """How a picture is cut.

    Attributes:
        tile: Pixels a side.
        overlap: Pixels that neighbours share at least.
        exact: Gather the norm layers' statistics from all tiles until they are settled, not from a sample.
    """

    tile: int = 512
    overlap: int = 64
    exact: bool = False

    def check(self, network: nn.Module) -> None:
        """Refuse a tile that the network or the overlap does not allow.

        Raises:
            UserError: It is smaller than the network's minimum or twice the overlap, or the overlap is negative.
        """
        if self.overlap < 0:
            raise UserError(f"--overlap is {self.overlap}; give 0 or more pixels.")
        least = smallest_tile(network)
        if self.tile < least:
            raise UserError(f"--tile is {self.tile}; this network needs {least} pixels or more.")
        if self.tile < 2 * self.overlap:
            raise UserError(f"--tile is {self.tile}, less than twice the overlap; give {2 * self.overlap} or more.")


@dataclass(frozen=True)
class TiledResult:
    """What came of a translation in tiles.

    Attributes:
        path: The file written.
        tiles: How many it took.
        passes: Passes over the tiles that gathered statistics; 0 where the network needs none.
        sampled: Tiles that they were gathered from.
        uncertainty: Root mean square difference of the channel means of two halves of those tiles, in deviations.
        seam: Mean step across tile borders over the mean step elsewhere.
    """

    path: Path
    tiles: int
    passes: int
    sampled: int
    uncertainty: float
    seam: float

    def describe(self) -> str:
        """Say it in one line."""
        text = f"{self.path}: {self.tiles} tiles, seam measure {self.seam:.3f}"
        if not self.passes:
            return text
        kind = "all" if self.sampled == self.tiles else "approximate:"
        return (
            f"{text}; norm statistics from {kind} {self.sampled} tiles in {self.passes} passes, "
            f"whose halves differ by {self.uncertainty:.3f} standard deviations"
        )


def smallest_tile(network: nn.Module) -> int:
    """Give the least side that a network takes without padding."""
    if isinstance(network, UNetGenerator):
        return int(2**network.num_levels)
    return 8 if isinstance(network, ResNetGenerator) else 1


@dataclass(frozen=True)
class Axis:
    """Tiles along one side of a picture.

    Attributes:
        length: Pixels.
        tile: Pixels of each tile.
        overlap: Pixels that neighbours share at least; at most half a tile.
    """

    length: int
    tile: int
    overlap: int

    @property
    def starts(self) -> list[int]:
        """First pixels of the tiles; the last tile is shifted inwards so that it ends with the picture."""
        last = max(self.length - self.tile, 0)
        return [*range(0, last, self.tile - self.overlap), last]

    @property
    def size(self) -> int:
        """Pixels of each tile, where the picture may be smaller than one."""
        return min(self.tile, self.length)

    def weights(self) -> np.ndarray:
        """Weigh the pixels of each tile: [tiles, size], smooth, positive, of sum 1 at each pixel of the picture."""
        starts, size = self.starts, self.size
        ramp = np.ones(size)
        ramp[: self.overlap] = np.sin(np.pi / 2 * (np.arange(self.overlap) + 0.5) / max(self.overlap, 1))[:size] ** 2
        raw = np.stack(
            [
                (ramp if start > 0 else 1.0) * (ramp[::-1] if start < starts[-1] else 1.0) * np.ones(size)
                for start in starts
            ]
        )
        total = np.zeros(self.length)
        for start, row in zip(starts, raw, strict=True):
            total[start : start + size] += row
        return np.stack([row / total[start : start + size] for start, row in zip(starts, raw, strict=True)])

    def borders(self) -> list[int]:
        """Pixels at which a tile begins or has ended: where a seam would show."""
        inner = {edge for start in self.starts for edge in (start, start + self.size)}
        return sorted(inner - {0, self.length})


class SeamMeter:
    """Mean step across tile borders over the mean step elsewhere, of a picture that comes in bands of rows.

    Args:
        rows: Borders between rows: y stands for that between y - 1 and y.
        columns: Borders between columns.
    """

    def __init__(self, rows: Iterable[int], columns: Iterable[int]) -> None:
        self._rows, self._columns = np.array(sorted(rows), dtype=int), np.array(sorted(columns), dtype=int)
        self._sums, self._counts, self._top = np.zeros((2, 2)), np.zeros((2, 2)), 0
        self._last: np.ndarray | None = None

    def add(self, band: np.ndarray) -> None:
        """Take the next rows, [rows, W, C]."""
        values = band.astype(np.float32)
        self._count(
            np.abs(np.diff(values, axis=1)).sum(axis=(0, 2), dtype=float), self._columns - 1, values[:, 0].size, 1
        )
        joined = values if self._last is None else np.concatenate([self._last, values])
        first = self._top + len(values) - len(joined) + 1
        inside = self._rows[(self._rows >= first) & (self._rows < self._top + len(values))] - first
        self._count(np.abs(np.diff(joined, axis=0)).sum(axis=(1, 2), dtype=float), inside, values[0].size, 0)
        self._last, self._top = values[-1:], self._top + len(values)

    def _count(self, steps: np.ndarray, borders: np.ndarray, each: int, way: int) -> None:
        at_border = np.zeros(len(steps), dtype=bool)
        at_border[borders] = True
        for kind, chosen in enumerate((at_border, ~at_border)):
            self._sums[way, kind] += steps[chosen].sum()
            self._counts[way, kind] += each * chosen.sum()

    def ratio(self) -> float:
        """Give the measure: 1 where there is no seam, no border, or nothing but one flat colour."""
        border, elsewhere = self._sums.T
        at_border, others = self._counts.T
        expected = float((elsewhere / np.maximum(others, 1) * at_border).sum())  # each direction by its own steps
        found = float(border.sum())
        return found / expected if expected else (math.inf if found else 1.0)


def seam_measure(picture: np.ndarray, rows: Iterable[int], columns: Iterable[int]) -> float:
    """Measure the seams of a whole picture [H, W, C], as `SeamMeter` does."""
    meter = SeamMeter(rows, columns)
    meter.add(picture)
    return meter.ratio()


class _SharedNorm(nn.Module):
    """Stands in for a norm: gathers what it sees and normalises by what an earlier pass gathered, if there was one."""

    def __init__(self, norm: nn.Module) -> None:
        super().__init__()
        self.norm = norm
        self.eps = float(norm.eps)  # type: ignore[arg-type]
        self.weights: Tensor | None = None  # [H, W] of the tile that is gathered; None gathers nothing
        self.side = 0
        self.mean: Tensor | None = None  # [C], as the next
        self.variance: Tensor | None = None
        self.sums: list[Tensor | float] = [0.0, 0.0]  # of each half of the tiles: [3, C], of w, w x and w x²

    def forward(self, x: Tensor) -> Tensor:
        """Normalise [1, C, H, W]."""
        if self.weights is not None:
            w = F.interpolate(self.weights[None, None], x.shape[-2:], mode="area")[0, 0].to(x)  # [H, W]
            sums = [torch.einsum("chw,hw->c", y, w) for y in (torch.ones_like(x[0]), x[0], x[0].square())]
            # Each map counts by its share of the picture, whatever its resolution.
            share = self.weights.numel() / w.numel()
            self.sums[self.side] = self.sums[self.side] + torch.stack(sums).double() * share
        if self.mean is None:
            return self.norm(x)
        scale, shift = getattr(self.norm, "weight", None), getattr(self.norm, "bias", None)
        return F.batch_norm(x, self.mean, self.variance, scale, shift, eps=self.eps)

    def settle(self) -> tuple[float, float]:
        """End a pass: take its statistics; give how far a channel moved, and how far the halves' means differ."""
        gathered = [half for half in self.sums if isinstance(half, Tensor)]
        mean, variance = _moments(torch.stack(gathered).sum(dim=0))
        deviation = (variance + self.eps).sqrt()
        moved = math.inf
        if self.mean is not None and self.variance is not None:
            before = (self.variance + self.eps).sqrt()
            moves = torch.maximum((mean - self.mean).abs(), (deviation - before).abs()) / deviation
            moved = float(moves.max())
        halves = [_moments(half)[0] for half in gathered]
        apart = float(((halves[0] - halves[-1]) / deviation).square().mean())
        self.mean, self.variance, self.sums = mean.float(), variance.float(), [0.0, 0.0]
        return moved, apart


def _moments(sums: Tensor) -> tuple[Tensor, Tensor]:
    mean = sums[1] / sums[0]
    return mean, (sums[2] / sums[0] - mean.square()).clamp(min=0)


@contextmanager
def shared_norms(network: nn.Module) -> Iterator[list[_SharedNorm]]:
    """Replace, while the block runs, the norms whose statistics would differ from tile to tile."""
    replaced = []
    for parent in list(network.modules()):
        for name, norm in list(parent.named_children()):
            own = isinstance(norm, BatchNorm2d) and norm.statistics == "picture"
            if own or isinstance(norm, InstanceNorm2d):
                shared = _SharedNorm(norm)
                setattr(parent, name, shared.eval())
                replaced.append((parent, name, shared))
    try:
        yield [shared for _, _, shared in replaced]
    finally:
        for parent, name, shared in replaced:
            setattr(parent, name, shared.norm)


@dataclass(frozen=True)
class Window:
    """A tile's place: rows from ``top``, columns from ``left``, and the weights of its rows and of its columns."""

    top: int
    left: int
    down: np.ndarray
    across: np.ndarray

    @property
    def weights(self) -> np.ndarray:
        """Weights of the pixels, [H, W] float32."""
        return np.outer(self.down, self.across).astype(np.float32)


def windows(rows: Axis, columns: Axis) -> list[Window]:
    """List all tiles of a picture, row by row."""
    return [
        Window(top, left, down, across)
        for top, down in zip(rows.starts, rows.weights(), strict=True)
        for left, across in zip(columns.starts, columns.weights(), strict=True)
    ]


def gather(
    norms: list[_SharedNorm], tiles: list[Window], translate: Callable[[Window], object], tolerance: float
) -> tuple[int, float]:
    """Find statistics for the norms, by passes over some tiles; give the passes and the halves' difference."""
    passes, uncertainty = 0, 0.0
    for _ in norms:
        passes += 1
        for index, window in enumerate(tiles):
            for norm in norms:
                norm.weights, norm.side = torch.from_numpy(window.weights), index % 2
            translate(window)
        moved, apart = zip(*(norm.settle() for norm in norms), strict=True)
        uncertainty = math.sqrt(sum(apart) / len(apart))
        if max(moved) < tolerance:
            break
    for norm in norms:
        norm.weights = None
    return passes, uncertainty


class TiffRows:
    """A TIFF read by windows; pixels without data get the least value elsewhere, as in `read_picture`.

    Args:
        path: The file.
        file: It, opened.
        channels: Channels wanted.
    """

    def __init__(self, path: Path, file: tifffile.TiffFile, channels: int) -> None:
        self._path, self._file, self._page, self._channels = path, file, file.pages.first, channels
        self.height, self.width = self._page.imagelength, self._page.imagewidth
        self.tags, self._alpha = _tags(self._page.tags), _alpha(self._page.extrasamples)
        self._fill = self._least() if self.tags.no_data is not None else 0.0

    def _least(self) -> float:
        least = math.inf
        for top in range(0, self.height, BLOCK):
            rows = self._raw(top, min(BLOCK, self.height - top), 0, self.width)
            data = rows[~self.tags.holes(rows)]
            least = min(least, float(data.min())) if data.size else least
        return least if math.isfinite(least) else 0.0

    def read(self, top: int, left: int, H: int, W: int) -> Picture:
        """Decode a window."""
        array = self._raw(top, H, left, W)
        holes = self.tags.holes(array)
        array = np.where(holes[:, :, None], self._fill, array).astype(array.dtype)
        if self._alpha != "none" and array.shape[2] != self._channels:
            array = _over_white(array, premultiplied=self._alpha == "premultiplied")
        return Picture(fit_channels(array, self._channels, self._path), self.tags, holes)

    def _raw(self, top: int, H: int, left: int, W: int) -> np.ndarray:
        try:
            return _in_three_types(self._decoded(top, H, left, W))
        except Exception as error:  # a damaged file makes the decoder stumble anywhere
            raise UserError(f"{self._path}: cannot be decoded ({error}). Remove it, or save it anew.") from None

    def _decoded(self, top: int, H: int, left: int, W: int) -> np.ndarray:
        page = self._page
        contiguous, C = page.planarconfig == 1 or page.samplesperpixel == 1, page.samplesperpixel
        if page.is_contiguous and contiguous and page.dtype is not None:
            kind = np.dtype(self._file.byteorder + page.dtype.char)
            offset = page.dataoffsets[0] + top * self.width * C * kind.itemsize
            self._file.filehandle.seek(offset)
            rows = np.frombuffer(self._file.filehandle.read(H * self.width * C * kind.itemsize), kind)
            return rows.reshape(H, self.width, C)[:, left : left + W]
        high, wide = page.chunks[:2]
        across = -(-self.width // wide)
        plane = across * -(-self.height // high)
        picture = np.zeros((H, W, C), page.dtype)
        chosen = [
            first + y * across + x
            for first in range(0, plane * (1 if contiguous else C), plane)
            for y in range(top // high, -(-(top + H) // high))
            for x in range(left // wide, -(-(left + W) // wide))
        ]
        tables = {"jpegtables": page.jpegtables, "jpegheader": page.jpegheader} if page.compression in (6, 7) else {}
        for index in chosen:
            self._file.filehandle.seek(page.dataoffsets[index])
            data = self._file.filehandle.read(page.databytecounts[index]) or None
            segment, (sample, _, y, x, _), (_, h, w, _) = page.decode(data, index, **tables)
            if segment is None:
                continue
            y0, y1, x0, x1 = max(y, top), min(y + h, top + H), max(x, left), min(x + w, left + W)
            piece = segment[0, y0 - y : y1 - y, x0 - x : x1 - x]
            channels = slice(None) if contiguous else slice(sample, sample + 1)
            picture[y0 - top : y1 - top, x0 - left : x1 - left, channels] = piece
        return picture


class WholeRows:
    """A decoded picture with the manners of `TiffRows`."""

    def __init__(self, picture: Picture) -> None:
        self._picture, self.tags = picture, picture.tags
        self.height, self.width = picture.array.shape[:2]

    def read(self, top: int, left: int, H: int, W: int) -> Picture:
        """Give a window."""
        place = np.s_[top : top + H, left : left + W]
        return Picture(self._picture.array[place], self.tags, self._picture.holes[place])


@contextmanager
def open_rows(path: Path, translator: Translator) -> Iterator[TiffRows | WholeRows]:
    """Open a picture for reading by windows; Pillow's limit of pixels holds only for what is read whole.

    Raises:
        UserError: It cannot be read, or is not what the model takes.
    """
    how = translator.preprocessing
    if path.suffix.lower() in TIFF_SUFFIXES and not how.source_folders:
        try:
            file = tifffile.TiffFile(path)
        except (OSError, tifffile.TiffFileError):
            file = None  # reading it whole says why
        if file is not None:
            with file:
                if _by_windows(file):
                    yield TiffRows(path, file, how.source_channels)
                    return
    yield WholeRows(translator.read(path))


def _by_windows(file: tifffile.TiffFile) -> bool:
    page = file.pages.first
    if (
        not _is_ours(file)
        or page.dtype is None
        or page.tags.valueof(ORIENTATION, default=1) != 1
        or page.imagedepth > 1
    ):
        return False
    if math.prod(file.series[0].shape) != math.prod(page.shape):
        return False  # its channels are pages
    return page.is_contiguous or math.prod(page.chunks) * page.dtype.itemsize <= LARGEST_SEGMENT


def translate_tiled(
    translator: Translator,
    source: Path,
    target: Path,
    tiling: Tiling,
    advance: Callable[[int, int], None] = lambda done, total: None,
) -> TiledResult:
    """Translate one file into another in tiles, at its own scale.

    Args:
        translator: The model, made with ``size="native"``.
        source: The picture.
        target: The file to write; a TIFF of that name where its format does not hold the picture.
        tiling: How it is cut.
        advance: Is told the tiles done and their number.

    Raises:
        UserError: The tile does not suit, or a picture cannot be read or written.
    """
    tiling.check(translator.network)
    how = translator.preprocessing
    with open_rows(source, translator) as rows:
        down, across = (Axis(side, tiling.tile, tiling.overlap) for side in (rows.height, rows.width))
        tiles = windows(down, across)
        meter = SeamMeter(down.borders(), across.borders())

        def translated(window: Window) -> tuple[Tensor, np.dtype]:
            picture = rows.read(window.top, window.left, down.size, across.size).array
            return _translated(translator, picture, source)

        with shared_norms(translator.network) as norms:
            sample = tiles if tiling.exact else _sampled(tiles)
            tolerance = EXACTLY_SETTLED if tiling.exact else SETTLED
            passes, uncertainty = gather(norms, sample, translated, tolerance)
            kind = rows.read(0, 0, 1, 1).array.dtype if how.target_range is None else np.dtype(how.target_type)
            blank = np.zeros((1, 1, how.target_channels), kind)
            if not holds(target.suffix, blank, exactly=how.target_range is not None):
                target = target.with_suffix(".tif")
            _, tags = rows.tags.punched(blank, np.zeros((1, 1), bool))
            bands = _bands(translator, rows, down, across, translated, meter, advance)
            _write(target, bands, (rows.height, rows.width, how.target_channels), kind, tags)
    return TiledResult(target, len(tiles), passes, len(sample) if norms else 0, uncertainty, meter.ratio())


def _sampled(tiles: list[Window]) -> list[Window]:
    if len(tiles) <= SAMPLES:
        return tiles
    chosen = np.random.default_rng(0).choice(len(tiles), SAMPLES, replace=False)
    return [tiles[i] for i in chosen]


def _translated(translator: Translator, picture: np.ndarray, source: Path) -> tuple[Tensor, np.dtype]:
    value_range = translator.preprocessing.source_range
    require_range(picture, value_range, source)
    return translator.translate_tensor(to_tensor(picture, value_range)[None])[0], picture.dtype


def _bands(
    translator: Translator,
    rows: TiffRows | WholeRows,
    down: Axis,
    across: Axis,
    translated: Callable[[Window], tuple[Tensor, np.dtype]],
    meter: SeamMeter,
    advance: Callable[[int, int], None],
) -> Iterator[np.ndarray]:
    """Blend row of tiles by row of tiles; yield the rows [rows, W, C] that no later tile reaches."""
    C, tiles, done = translator.preprocessing.target_channels, windows(down, across), 0
    canvas, per_row = torch.zeros(C, down.size, across.length), len(across.starts)
    for i, top in enumerate(down.starts):
        for window in tiles[i * per_row : (i + 1) * per_row]:
            output, kind = translated(window)
            canvas[:, :, window.left : window.left + across.size] += output * torch.from_numpy(window.weights)
            done += 1
            advance(done, len(tiles))
        step = (down.starts[i + 1] if i + 1 < len(down.starts) else down.length) - top
        band = translator.as_picture(canvas[:, :step], kind)
        meter.add(band)
        yield rows.tags.punched(band, rows.read(top, 0, step, across.length).holes)[0]
        canvas = torch.cat([canvas[:, step:], torch.zeros(C, step, across.length)], dim=1)


def _write(path: Path, bands: Iterator[np.ndarray], shape: tuple[int, int, int], kind: np.dtype, tags: Tags) -> None:
    if path.suffix.lower() not in TIFF_SUFFIXES:
        write_image(path, np.concatenate(list(bands)), tags)
        return
    aside = path.with_name(f".{path.stem}.new-{os.getpid()}{path.suffix}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _write_tiff(aside, _blocks(bands), shape, kind, tags)
        aside.replace(path)
    except OSError as error:
        raise cannot_write(path, error) from None
    finally:
        with suppress(OSError):
            aside.unlink(missing_ok=True)


def _blocks(bands: Iterator[np.ndarray]) -> Iterator[np.ndarray]:
    """Cut bands of any height into the squares that TIFF stores, row by row."""
    kept: np.ndarray | None = None
    for band in bands:
        kept = band if kept is None else np.concatenate([kept, band])
        while len(kept) >= BLOCK:
            yield from _squares(kept[:BLOCK])
            kept = kept[BLOCK:]
    if kept is not None and len(kept):
        yield from _squares(kept)


def _squares(rows: np.ndarray) -> Iterator[np.ndarray]:
    for left in range(0, rows.shape[1], BLOCK):
        square = rows[:, left : left + BLOCK]
        missing = [(0, BLOCK - square.shape[0]), (0, BLOCK - square.shape[1]), (0, 0)]
        square = np.pad(square, missing)
        yield square[:, :, 0] if square.shape[2] == 1 else square


def _write_tiff(
    path: Path, blocks: Iterator[np.ndarray], shape: tuple[int, int, int], kind: np.dtype, tags: Tags
) -> None:
    given = {code: value for code, (_, _, value) in tags.values.items()}
    resolution = (given[X_RESOLUTION], given[Y_RESOLUTION]) if {X_RESOLUTION, Y_RESOLUTION} <= given.keys() else None
    tifffile.imwrite(
        path,
        blocks,
        shape=shape[:2] if shape[2] == 1 else shape,
        dtype=kind,
        tile=(BLOCK, BLOCK),
        bigtiff=math.prod(shape) * kind.itemsize > CLASSIC_BYTES,
        maxworkers=1,  # more would take all blocks into memory first
        photometric="rgb" if shape[2] == 3 else "minisblack",
        planarconfig=None if shape[2] == 1 else "contig",
        compression="adobe_deflate",
        predictor=True,
        metadata=None,
        description=given.get(DESCRIPTION),
        software=given.get(SOFTWARE, "ganvas"),
        datetime=given.get(DATE),
        resolution=resolution,
        resolutionunit=given.get(UNIT),
        extratags=[(code, *tags.values[code], True) for code in sorted(tags.values.keys() & COPIED)],
    )
