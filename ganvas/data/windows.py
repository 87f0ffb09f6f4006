"""Reading images by windows and writing them by bands of rows, so that only a part is in memory at a time.

TIFF is read and written with tifffile; other formats are decoded at once.
"""

import math
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import tifffile

from ganvas.data.arrays import composite_over_white, to_supported_dtype
from ganvas.data.decode import fit_channels
from ganvas.data.decode_basic import peek
from ganvas.data.decode_errors import decoding
from ganvas.data.nodata import nodata_mask
from ganvas.data.raster import Raster
from ganvas.data.tiff import ORIENTATION, alpha_of, convert_colors, is_supported_page, open_tiff, read_segment
from ganvas.data.tiff_check import check_tiff, is_tiff
from ganvas.data.tiff_tags import Tags, tags_of, tifffile_options
from ganvas.errors import UserError
from ganvas.files import new_file, open_regular

BLOCK = 256  # side of the tiles of written TIFF
MAX_SEGMENT_BYTES = 2**27  # a TIFF compressed in larger tiles or strips cannot be read by windows
MAX_CACHED_BYTES = 2**28  # of decoded tiles and strips
MAX_CLASSIC_BYTES = 2**32 - 2**26  # more needs BigTIFF; the rest is for tags


class LoadedRaster:
    """A decoded image with the interface of `TiffWindows`."""

    def __init__(self, raster: Raster) -> None:
        self._raster, self.tags = raster, raster.tags
        self.height, self.width = raster.array.shape[:2]

    def read(self, top: int, left: int, H: int, W: int) -> Raster:
        """Return a window."""
        window = np.s_[top : top + H, left : left + W]
        return Raster(self._raster.array[window], self.tags, self._raster.nodata_mask[window])


@contextmanager
def open_windows(path: Path, channels: int, rows: int) -> "Iterator[TiffWindows | None]":
    """Open a TIFF to be read by windows.

    Args:
        path: The file.
        channels: Expected channels.
        rows: Most rows of a window; windows side by side decode each part of the file once.

    Yields:
        None where windows cannot read the file; `read_raster` does it, or reports what is wrong.

    Raises:
        UserError: Its header is sound, but pixels that have to be known at once cannot be decoded.
    """
    with ExitStack() as stack:
        try:
            file = stack.enter_context(open_regular(path))
            pages = check_tiff(file) if is_tiff(peek(file)) else []
            tiff = stack.enter_context(open_tiff(file)) if len(pages) == 1 else None
            windows = TiffWindows(path, tiff, channels, rows) if tiff and supports_windows(tiff) else None
        except UserError:
            raise
        except Exception:  # read_raster reports what is wrong
            windows = None
        yield windows


def supports_windows(file: tifffile.TiffFile) -> bool:
    """Return whether `TiffWindows` reads a file; `read_raster` reads more."""
    page = file.pages.first
    if not is_supported_page(page) or page.tags.valueof(ORIENTATION, default=1) != 1 or page.imagedepth > 1:
        return False
    if math.prod(file.series[0].shape) != math.prod(page.shape):
        return False  # its channels are pages
    return _is_plain(page) or _segment_bytes(page) <= MAX_SEGMENT_BYTES


def _segment_bytes(page: tifffile.TiffPage) -> int:
    return math.prod(page.chunks) * np.dtype(page.dtype).itemsize


def _is_planar(page: tifffile.TiffPage) -> bool:
    """Return whether each channel is stored on its own."""
    return bool(page.planarconfig != 1 and page.samplesperpixel > 1)


def _is_plain(page: tifffile.TiffPage) -> bool:
    """Return whether all rows are stored one after another, without compression."""
    return bool(page.is_contiguous) and not _is_planar(page)


class TiffWindows:
    """A TIFF read by windows; pixels without data get the smallest value elsewhere, as in `read_raster`.

    Args:
        path: The file, for messages.
        file: The open file, for which `supports_windows` is true.
        channels: Expected channels.
        rows: Most rows of a window.
    """

    def __init__(self, path: Path, file: tifffile.TiffFile, channels: int, rows: int) -> None:
        self._path, self._file, self._page, self._channels = path, file, file.pages.first, channels
        page = self._page
        self.height, self.width, self._rows = page.imagelength, page.imagewidth, rows
        self.tags, self._alpha = tags_of(page), alpha_of(page)
        chunk_rows, chunk_columns = page.chunks[:2]
        down, across = -(-rows // chunk_rows) + 1, -(-self.width // chunk_columns)  # segments under a row of windows
        needed = down * across * (page.samplesperpixel if _is_planar(page) else 1)
        cached = max(1, min(needed, MAX_CACHED_BYTES // _segment_bytes(page)))
        self._segment = lru_cache(maxsize=cached)(self._decode_segment)
        self._fill = self._smallest_value() if self.tags.nodata is not None else 0.0

    def read(self, top: int, left: int, H: int, W: int) -> Raster:
        """Decode a window.

        Raises:
            UserError: The file is damaged, or has other channels than expected.
        """
        array = self._read_colors(top, left, H, W)
        C = array.shape[2] - (self._alpha != "none")
        mask = nodata_mask(array[:, :, :C], self.tags)
        if mask.any():
            array = array.copy()
            array[mask, :C] = self._fill
        array, _ = composite_over_white(array, self._alpha, self._channels)
        return Raster(fit_channels(array, self._channels, self._path), self.tags, mask)

    def _smallest_value(self) -> float:
        """Return the smallest value of pixels with data; 0 where there are none."""
        smallest = math.inf
        for top in range(0, self.height, self._rows):
            for left in range(0, self.width, BLOCK):
                window = self._read_colors(top, left, min(self._rows, self.height - top), min(BLOCK, self.width - left))
                values = window[:, :, : window.shape[2] - (self._alpha != "none")]
                data = values[~nodata_mask(values, self.tags)]
                smallest = min(smallest, float(data.min())) if data.size else smallest
        return smallest if math.isfinite(smallest) else 0.0

    def _read_colors(self, top: int, left: int, H: int, W: int) -> np.ndarray:
        """Decode a window to [H, W, C], without compositing alpha or filling pixels without data."""
        read = self._read_plain if _is_plain(self._page) else self._read_segments
        with decoding(self._path):
            return to_supported_dtype(convert_colors(read(top, left, H, W), self._page))

    def _read_plain(self, top: int, left: int, H: int, W: int) -> np.ndarray:
        """Read parts of rows where they are in the file."""
        C, handle = self._page.samplesperpixel, self._file.filehandle
        dtype = np.dtype(self._page.dtype).newbyteorder(self._file.byteorder)
        rows = []
        for y in range(top, top + H):
            handle.seek(self._page.dataoffsets[0] + (y * self.width + left) * C * dtype.itemsize)
            rows.append(handle.read(W * C * dtype.itemsize))
        return np.frombuffer(b"".join(rows), dtype).reshape(H, W, C).astype(dtype.newbyteorder("="), copy=False)

    def _read_segments(self, top: int, left: int, H: int, W: int) -> np.ndarray:
        """Assemble a window from the tiles or strips of the file."""
        page, C, planar = self._page, self._page.samplesperpixel, _is_planar(self._page)
        chunk_rows, chunk_columns = page.chunks[:2]
        across = -(-self.width // chunk_columns)
        plane = across * -(-self.height // chunk_rows)
        window = np.zeros((H, W, C), page.dtype)
        indices = (
            first + y * across + x
            for first in range(0, plane * (C if planar else 1), plane)
            for y in range(top // chunk_rows, -(-(top + H) // chunk_rows))
            for x in range(left // chunk_columns, -(-(left + W) // chunk_columns))
        )
        for index in indices:
            segment, (sample, _, y, x, _), (_, h, w, _) = self._segment(index)
            if segment is None:  # a gap in a sparse file
                continue
            y0, y1, x0, x1 = max(y, top), min(y + h, top + H), max(x, left), min(x + w, left + W)
            channels = slice(sample, sample + 1) if planar else slice(None)
            window[y0 - top : y1 - top, x0 - left : x1 - left, channels] = segment[0, y0 - y : y1 - y, x0 - x : x1 - x]
        return window

    def _decode_segment(self, index: int) -> Any:
        page = self._page
        tables = {"jpegtables": page.jpegtables, "jpegheader": page.jpegheader} if page.compression in (6, 7) else {}
        return page.decode(read_segment(self._file, page, index) or None, index, **tables)


def write_bands(
    path: Path, bands: Iterable[np.ndarray], shape: tuple[int, int, int], dtype: np.dtype, tags: Tags
) -> None:
    """Write a TIFF from bands of rows; the file appears complete or not at all.

    Args:
        path: The file.
        bands: Its rows from the top, [rows, W, C] each, of any number of rows.
        shape: H, W and C of the image.
        dtype: Dtype of the pixels.
        tags: Tags of the source image.

    Raises:
        UserError: The disk is full, or the folder is not writable.
    """
    H, W, C = shape
    with new_file(path) as temporary:
        tifffile.imwrite(
            temporary,
            _tiles(bands),
            shape=(H, W) if C == 1 else shape,
            dtype=dtype,
            tile=(BLOCK, BLOCK),
            bigtiff=math.prod(shape) * dtype.itemsize > MAX_CLASSIC_BYTES,
            maxworkers=1,  # more would collect all tiles in memory first
            **tifffile_options(tags, C),
        )


def _tiles(bands: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
    """Cut bands of any height into TIFF tiles, row by row; the last are padded with zeros."""
    for rows in _rebatch(bands, BLOCK):
        for left in range(0, rows.shape[1], BLOCK):
            tile = rows[:, left : left + BLOCK]
            tile = np.pad(tile, [(0, BLOCK - tile.shape[0]), (0, BLOCK - tile.shape[1]), (0, 0)])
            yield tile[:, :, 0] if tile.shape[2] == 1 else tile


def _rebatch(bands: Iterable[np.ndarray], height: int) -> Iterator[np.ndarray]:
    """Cut bands into bands of one height; the last may have fewer rows."""
    waiting: list[np.ndarray] = []
    for band in bands:
        waiting.append(band)
        if sum(map(len, waiting)) < height:
            continue
        rows = np.concatenate(waiting)
        end = len(rows) // height * height
        yield from np.split(rows[:end], end // height)
        waiting = [rows[end:]]
    rest = np.concatenate(waiting) if waiting else np.empty(0)
    if len(rest):
        yield rest
