"""TIFF of any depth and number of channels, decoded by tifffile."""

import contextlib
import logging
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import tifffile
from PIL import Image

from ganvas.data.arrays import FULL_RANGE, Alpha, apply_orientation, invert, to_supported_dtype
from ganvas.data.decode_errors import FormatError, describe_pages
from ganvas.data.tiff_check import BOUNDED, Directory, check_segment, check_tiff
from ganvas.data.tiff_tags import Tags, tags_of, tifffile_options

PHOTOMETRIC, ORIENTATION, INK_SET = 262, 274, 332
CHANNEL_AXES = {"S", "C", "Q", "I"}  # samples, channels, and pages whose axis has no name
# Of the descriptions that name the axes of pages, only these are used: others may name files to open, or huge counts.
DIALECTS = {"shaped", "imagej"}
IGNORED: Any = {f"is_{name}": False for name in tifffile.TIFF.FILE_FLAGS - DIALECTS - {"multipage"}}


@dataclass(frozen=True)
class Tiff:
    """A decoded TIFF.

    Attributes:
        array: [H, W, C] uint8, uint16 or float32, upright.
        alpha: Whether the last channel is alpha, and whether the others are multiplied by it.
        tags: The kept tags.
        is_cmyk: Whether its colors were converted from CMYK.
    """

    array: np.ndarray
    alpha: Alpha
    tags: Tags
    is_cmyk: bool


_reading: ContextVar[bool] = ContextVar("reading", default=False)


class _Quiet(logging.Filter):
    """Drops tifffile's remarks about files that ganvas reads, not about those that the caller reads."""

    def filter(self, record: logging.LogRecord) -> bool:
        return not _reading.get()


logging.getLogger("tifffile").addFilter(_Quiet())


@contextlib.contextmanager
def open_tiff(file: BinaryIO) -> Iterator[tifffile.TiffFile]:
    """Open a TIFF that passed `check_tiff`, such that it cannot make tifffile open other files."""
    token = _reading.set(True)
    try:
        file.seek(0)
        with tifffile.TiffFile(file, _multifile=False, **IGNORED) as tiff:
            yield tiff
    finally:
        _reading.reset(token)


def read_tiff(file: BinaryIO, max_pixels: int | None) -> Tiff | None:
    """Decode grayscale, RGB, CMYK and many-channel TIFF of 8 bits and more; gray pages of one size become channels.

    Args:
        file: The file, open for reading.
        max_pixels: Larger images are refused before anything is decoded; None for no limit. Beyond the first four,
            every four channels count as a pixel.

    Returns:
        None for other kinds, such as palettes or one bit a pixel, which are left to Pillow.

    Raises:
        Image.DecompressionBombError: It has more than ``max_pixels``.
        ValueError: It is damaged or malicious, a stack in time or depth, or its pages are different images.
    """
    pages = check_tiff(file)
    with open_tiff(file) as tiff:
        return _decode(tiff, pages, max_pixels) if is_supported_page(tiff.pages.first) else None


def is_supported_page(page: tifffile.TiffPage) -> bool:
    """Return whether tifffile decodes a page at full depth; other pages are left to Pillow."""
    kinds = tifffile.PHOTOMETRIC
    plain = (kinds.MINISWHITE, kinds.MINISBLACK, kinds.RGB)
    is_cmyk = page.photometric == kinds.SEPARATED and page.compression not in (6, 7) and page.samplesperpixel >= 4
    is_cmyk = is_cmyk and page.tags.valueof(INK_SET, default=1) == 1
    if PHOTOMETRIC not in page.tags or not (page.photometric in plain or is_cmyk):
        return False
    if page.dtype is None or page.dtype.itemsize * 8 != page.bitspersample:
        return False
    return not is_cmyk or np.dtype(page.dtype) in (np.uint8, np.uint16)


def _decode(file: tifffile.TiffFile, pages: Sequence[Directory], max_pixels: int | None) -> Tiff:
    page = file.pages.first
    parts = [part for part in file.series if not (part.keyframe.is_reduced or part.keyframe.is_mask)] or file.series[:1]
    sizes = [dict(zip(part.axes, part.shape, strict=True)) for part in parts]
    _require_channels(page, parts, sizes, pages)
    values = sum(math.prod(size.values()) for size in sizes)
    if max_pixels is not None and (pixels := max(sizes[0]["Y"] * sizes[0]["X"], values // 4)) > max_pixels:
        raise Image.DecompressionBombError(f"{pixels} pixels of up to four channels, the limit is {max_pixels}")
    for part in parts:
        _require_data(file, part)
    array = np.concatenate([_channels_last(part) for part in parts], axis=2)
    orientation = int(page.tags.valueof(ORIENTATION, default=1))
    array = apply_orientation(to_supported_dtype(convert_colors(array, page)), orientation)
    return Tiff(array, alpha_of(page), tags_of(page), page.photometric == tifffile.PHOTOMETRIC.SEPARATED)


def _require_channels(
    page: tifffile.TiffPage,
    parts: Sequence[tifffile.TiffPageSeries],
    sizes: Sequence[Mapping[str, int]],
    pages: Sequence[Directory],
) -> None:
    """Check that all pages are channels of one image.

    Raises:
        ValueError: They differ in size or dtype, are in color, or are a stack in time or depth.
    """
    for part, size in zip(parts, sizes, strict=True):
        others = set(size) - {"Y", "X"}
        if not others <= CHANNEL_AXES or (len(pages) > 1 and _is_ome_stack(page)):
            raise ValueError(f"it is a stack with the axes {part.axes}; only channels may be stacked")
        if len(others) > 1 or (len(parts) > 1 and "S" in others):
            raise FormatError(describe_pages([page.size for page in pages]))
    kinds = {
        (size["Y"], size["X"], part.dtype, part.keyframe.photometric) for part, size in zip(parts, sizes, strict=True)
    }
    if len(kinds) > 1:
        raise FormatError(describe_pages([page.size for page in pages]))


def _is_ome_stack(page: tifffile.TiffPage) -> bool:
    """Return whether an OME-XML description declares several planes in depth or time; the rest of it is ignored."""
    text = str(page.description)
    start = text.find("Pixels ") if text.rstrip().endswith("OME>") else -1
    if start < 0:
        return False
    element = text[start : text.find(">", start)]
    return any(int(count) > 1 for count in re.findall(r'\bSize[ZT]="(\d{1,9})"', element))


def _require_data(file: tifffile.TiffFile, part: tifffile.TiffPageSeries) -> None:
    """Check that a series is no longer than its file, and that its tiles decode to no more than their size.

    Raises:
        ValueError: One of them is wrong.
    """
    found = [page for page in part.pages if page is not None]
    in_pages = len(found) * math.prod(part.keyframe.shape)
    if math.prod(part.shape) > in_pages and part.nbytes > file.filehandle.size:
        raise ValueError("it is truncated, or describes more pages than it has")
    if part.keyframe.compression in BOUNDED:
        return
    for page in found:
        for index in range(len(page.dataoffsets)):
            read_segment(file, page, index)


def read_segment(file: tifffile.TiffFile, page: tifffile.TiffPage | tifffile.TiffFrame, index: int) -> bytes:
    """Read the compressed bytes of a tile or strip.

    Raises:
        ValueError: It would decode to more than a tile or strip of the page holds.
    """
    layout, handle = page.keyframe, file.filehandle
    assert layout is not None  # the page itself, or the first of its series
    handle.seek(page.dataoffsets[index])
    content: bytes = handle.read(page.databytecounts[index])
    width, height = (
        (layout.tilewidth, layout.tilelength) if layout.is_tiled else (layout.imagewidth, layout.rowsperstrip)
    )
    samples = layout.samplesperpixel if layout.planarconfig == 1 else 1
    if content:
        check_segment(content, int(layout.compression), width, height, samples)
    return content


def _channels_last(part: tifffile.TiffPageSeries) -> np.ndarray:
    """Decode a series of pages to [H, W, C]."""
    array, others = part.asarray(), set(part.axes) - {"Y", "X"}
    return np.moveaxis(array, part.axes.index(others.pop()), 2) if others else array[:, :, None]


def convert_colors(array: np.ndarray, page: tifffile.TiffPage) -> np.ndarray:
    """Convert the stored pixels [H, W, C] of a page such that 0 is black, and CMYK is RGB."""
    alpha = alpha_of(page)
    C = array.shape[2] - (alpha != "none")
    colors, rest = array[:, :, :C], array[:, :, C:]
    if page.photometric == tifffile.PHOTOMETRIC.MINISWHITE:
        return np.concatenate([invert(colors), rest], axis=2)
    if page.photometric == tifffile.PHOTOMETRIC.SEPARATED:
        return np.concatenate([_cmyk_to_rgb(colors[:, :, :4], rest if alpha == "premultiplied" else None), rest], 2)
    return array


def _cmyk_to_rgb(inks: np.ndarray, alpha: np.ndarray | None) -> np.ndarray:
    """Convert CMYK [H, W, 4] to RGB as Pillow does, without color management.

    Args:
        inks: uint8 or uint16.
        alpha: [H, W, 1] that the inks are multiplied by, and the result, too; None where they are not.
    """
    top, values = FULL_RANGE[inks.dtype], inks.astype(np.float64)
    opacity = None if alpha is None else alpha / top
    if opacity is not None:
        values = np.divide(values, opacity, out=np.zeros_like(values), where=opacity > 0).clip(0, top)
    colors = (top - values[:, :, :3]) * (top - values[:, :, 3:]) / top
    return np.rint(colors if opacity is None else colors * opacity).astype(inks.dtype)


def alpha_of(page: tifffile.TiffPage) -> Alpha:
    """Return what the last channel is, by ExtraSamples (TIFF 6.0, Sec. 18); 0 is an unknown one, such as infrared."""
    last = page.extrasamples[-1] if page.extrasamples else tifffile.EXTRASAMPLE.UNSPECIFIED
    if last == tifffile.EXTRASAMPLE.ASSOCALPHA:
        return "premultiplied"
    return "straight" if last == tifffile.EXTRASAMPLE.UNASSALPHA else "none"


def write_tiff(path: Path, image: np.ndarray, tags: Tags, alpha: Alpha = "none") -> None:
    """Write [H, W, C] of uint8, uint16 or float32 without loss.

    Args:
        path: The file.
        image: The image.
        tags: Tags of the source image.
        alpha: Whether the last channel is alpha, and whether the others are multiplied by it. Without, four channels
            are those of a multispectral image, not colors with alpha.

    Raises:
        OSError: The file cannot be written.
    """
    C = image.shape[2]
    tifffile.imwrite(path, image[:, :, 0] if C == 1 else image, **tifffile_options(tags, C, alpha))
