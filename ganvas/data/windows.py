"""Images read by windows and written by bands of rows, so that no more than a part is ever in memory.

TIFF is read and written by tifffile, which is there in every installation and keeps all tags as they stand, GeoTIFF's
among them. Other formats are decoded whole.

Letters in shape comments: C channels, H rows, W columns.
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
from ganvas.data.decode import decoding, peek
from ganvas.data.images import Raster, fit_channels
from ganvas.data.tiff import (
    ORIENTATION,
    Tags,
    alpha_of,
    as_colors,
    is_supported_page,
    open_tiff,
    read_segment,
    tags_of,
    writer_options,
)
from ganvas.data.tiff_check import check_tiff, is_tiff
from ganvas.errors import UserError
from ganvas.files import new_file, open_regular

BLOCK = 256  # side of the squares that TIFF is stored in
LARGEST_SEGMENT = 2**27  # bytes; a TIFF compressed in larger pieces cannot be read by windows
MOST_KEPT = 2**28  # bytes of decoded segments
CLASSIC_BYTES = 2**32 - 2**26  # more needs BigTIFF; the rest is for tags


class LoadedRaster:
    """A decoded image with the manners of `TiffWindows`."""

    def __init__(self, picture: Raster) -> None:
        self._picture, self.tags = picture, picture.tags
        self.height, self.width = picture.array.shape[:2]

    def read(self, top: int, left: int, H: int, W: int) -> Raster:
        """Give a window."""
        place = np.s_[top : top + H, left : left + W]
        return Raster(self._picture.array[place], self.tags, self._picture.nodata_mask[place])


@contextmanager
def open_windows(path: Path, channels: int, rows: int) -> "Iterator[TiffWindows | None]":
    """Open a TIFF to be read by windows.

    Args:
        path: The file.
        channels: Channels wanted.
        rows: Most rows of a window; windows side by side decode each part of the file once.

    Yields:
        None where windows cannot read the file; reading it whole does it, or says what is wrong.

    Raises:
        UserError: Its header is sound, but pixels that have to be known at once cannot be decoded.
    """
    with ExitStack() as opened:
        try:
            file = opened.enter_context(open_regular(path))
            pages = check_tiff(file) if is_tiff(peek(file)) else []
            tiff = opened.enter_context(open_tiff(file)) if len(pages) == 1 else None
            windows = TiffWindows(path, tiff, channels, rows) if tiff and supports_windows(tiff) else None
        except UserError:
            raise
        except Exception:  # reading it whole says what is wrong
            windows = None
        yield windows


def supports_windows(file: tifffile.TiffFile) -> bool:
    """Tell whether `TiffWindows` reads this file; what it does not, `read_raster` may."""
    page = file.pages.first
    if not is_supported_page(page) or page.tags.valueof(ORIENTATION, default=1) != 1 or page.imagedepth > 1:
        return False
    if math.prod(file.series[0].shape) != math.prod(page.shape):
        return False  # its channels are pages
    return _is_plain(page) or _segment_bytes(page) <= LARGEST_SEGMENT


def _kind(page: tifffile.TiffPage) -> np.dtype:
    assert page.dtype is not None  # it is ours
    return np.dtype(page.dtype)


def _segment_bytes(page: tifffile.TiffPage) -> int:
    return math.prod(page.chunks) * _kind(page).itemsize


def _is_planar(page: tifffile.TiffPage) -> bool:
    """Tell whether each channel lies on its own."""
    return bool(page.planarconfig != 1 and page.samplesperpixel > 1)


def _is_plain(page: tifffile.TiffPage) -> bool:
    """Tell whether all rows lie in the file one after another, without compression."""
    return bool(page.is_contiguous) and not _is_planar(page)


class TiffWindows:
    """A TIFF read by windows; pixels without data get the least value elsewhere, as in `read_raster`.

    Args:
        path: The file.
        file: It, opened; `supports_windows`.
        channels: Channels wanted.
        rows: Most rows of a window.
    """

    def __init__(self, path: Path, file: tifffile.TiffFile, channels: int, rows: int) -> None:
        self._path, self._file, self._page, self._channels = path, file, file.pages.first, channels
        page = self._page
        self.height, self.width, self._rows = page.imagelength, page.imagewidth, rows
        self.tags, self._alpha = tags_of(page), alpha_of(page)
        high, wide = page.chunks[:2]
        down, across = -(-rows // high) + 1, -(-self.width // wide)  # segments that windows side by side lie on
        row = down * across * (page.samplesperpixel if _is_planar(page) else 1)
        kept = max(1, min(row, MOST_KEPT // _segment_bytes(page)))
        self._segment = lru_cache(maxsize=kept)(self._decode_segment)
        self._fill = self._least() if self.tags.nodata is not None else 0.0

    def read(self, top: int, left: int, H: int, W: int) -> Raster:
        """Decode a window.

        Raises:
            UserError: The file is damaged, or has other channels than are wanted.
        """
        array = self._raw(top, left, H, W)
        colours = self._colours(array)
        nodata_mask = self.tags.nodata_mask(array[:, :, :colours])
        if nodata_mask.any():
            array = array.copy()
            array[nodata_mask, :colours] = self._fill
        array, _ = composite_over_white(array, self._alpha, self._channels)
        return Raster(fit_channels(array, self._channels, self._path), self.tags, nodata_mask)

    def _colours(self, array: np.ndarray) -> int:
        return array.shape[2] - (self._alpha != "none")

    def _least(self) -> float:
        """Find the least value of pixels with data; 0 where there are none."""
        least = math.inf
        for top in range(0, self.height, self._rows):
            for left in range(0, self.width, BLOCK):
                window = self._raw(top, left, min(self._rows, self.height - top), min(BLOCK, self.width - left))
                values = window[:, :, : self._colours(window)]
                data = values[~self.tags.nodata_mask(values)]
                least = min(least, float(data.min())) if data.size else least
        return least if math.isfinite(least) else 0.0

    def _raw(self, top: int, left: int, H: int, W: int) -> np.ndarray:
        """Decode a window as it stands in the file, but for colors: [H, W, C] in one of three types."""
        decode = self._from_plain if _is_plain(self._page) else self._from_segments
        with decoding(self._path):
            return to_supported_dtype(as_colors(decode(top, left, H, W), self._page))

    def _from_plain(self, top: int, left: int, H: int, W: int) -> np.ndarray:
        """Read the pieces of rows where they lie."""
        C, handle = self._page.samplesperpixel, self._file.filehandle
        kind = _kind(self._page).newbyteorder(self._file.byteorder)
        rows = []
        for y in range(top, top + H):
            handle.seek(self._page.dataoffsets[0] + (y * self.width + left) * C * kind.itemsize)
            rows.append(handle.read(W * C * kind.itemsize))
        return np.frombuffer(b"".join(rows), kind).reshape(H, W, C).astype(kind.newbyteorder("="), copy=False)

    def _from_segments(self, top: int, left: int, H: int, W: int) -> np.ndarray:
        """Put a window together from the tiles or strips that the file is stored in."""
        page, C, planar = self._page, self._page.samplesperpixel, _is_planar(self._page)
        high, wide = page.chunks[:2]
        across = -(-self.width // wide)
        plane = across * -(-self.height // high)
        window = np.zeros((H, W, C), page.dtype)
        chosen = (
            first + y * across + x
            for first in range(0, plane * (C if planar else 1), plane)
            for y in range(top // high, -(-(top + H) // high))
            for x in range(left // wide, -(-(left + W) // wide))
        )
        for index in chosen:
            segment, (sample, _, y, x, _), (_, h, w, _) = self._segment(index)
            if segment is None:  # a gap in a sparse file
                continue
            y0, y1, x0, x1 = max(y, top), min(y + h, top + H), max(x, left), min(x + w, left + W)
            channels = slice(sample, sample + 1) if planar else slice(None)
            piece = segment[0, y0 - y : y1 - y, x0 - x : x1 - x]
            window[y0 - top : y1 - top, x0 - left : x1 - left, channels] = piece
        return window

    def _decode_segment(self, index: int) -> Any:
        page = self._page
        tables = {"jpegtables": page.jpegtables, "jpegheader": page.jpegheader} if page.compression in (6, 7) else {}
        return page.decode(read_segment(self._file, page, index) or None, index, **tables)


def write_bands(
    path: Path, bands: Iterable[np.ndarray], shape: tuple[int, int, int], kind: np.dtype, tags: Tags
) -> None:
    """Write a TIFF whose rows come in bands; it appears whole or not at all.

    Args:
        path: The file.
        bands: Its rows from above, [rows, W, C] each, of any number of rows.
        shape: Rows, columns and channels in all.
        kind: Type of the pixels.
        tags: What the file is to say beside them.

    Raises:
        UserError: The disk is full, or the place is not writable.
    """
    H, W, C = shape
    with new_file(path) as aside:
        tifffile.imwrite(
            aside,
            _squares(bands),
            shape=(H, W) if C == 1 else shape,
            dtype=kind,
            tile=(BLOCK, BLOCK),
            bigtiff=math.prod(shape) * kind.itemsize > CLASSIC_BYTES,
            maxworkers=1,  # more would take all squares into memory first
            **writer_options(tags, C),
        )


def _squares(bands: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
    """Cut bands of any height into the squares that TIFF stores, row by row; the last are filled up with zeros."""
    for rows in _of_height(bands, BLOCK):
        for left in range(0, rows.shape[1], BLOCK):
            square = rows[:, left : left + BLOCK]
            square = np.pad(square, [(0, BLOCK - square.shape[0]), (0, BLOCK - square.shape[1]), (0, 0)])
            yield square[:, :, 0] if square.shape[2] == 1 else square


def _of_height(bands: Iterable[np.ndarray], height: int) -> Iterator[np.ndarray]:
    """Cut bands again into bands of one height; the last may have fewer rows."""
    waiting: list[np.ndarray] = []
    for band in bands:
        waiting.append(band)
        if sum(map(len, waiting)) < height:
            continue
        rows = np.concatenate(waiting)
        whole = len(rows) // height * height
        yield from np.split(rows[:whole], whole // height)
        waiting = [rows[whole:]]
    rest = np.concatenate(waiting) if waiting else np.empty(0)
    if len(rest):
        yield rest
