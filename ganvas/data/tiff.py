"""TIFF of any depth and number of channels, with the tags that say where its pixels lie and how large they are.

Geo-reference, projection and no-data value (GeoTIFF 1.1, and two tags of GDAL's) are copied as they stand, so that no
geographic library is needed to keep them.
"""

import contextlib
import io
import logging
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import tifffile
from PIL import Image

from ganvas.data.arrays import FULL_RANGE, Alpha, apply_orientation, invert, to_supported_dtype
from ganvas.data.decode import FormatError, profile_fits, too_many_pages
from ganvas.data.tiff_check import BOUNDED, Directory, check_segment, check_tiff

DESCRIPTION, X_RESOLUTION, Y_RESOLUTION, UNIT, SOFTWARE, DATE, ORIENTATION = 270, 282, 283, 296, 305, 306, 274
GDAL_METADATA, NO_DATA = 42112, 42113
# In GDAL_METADATA. Patterns for a file's text stop at the next "<", so that none is read to the end again and again.
STATISTICS = re.compile(r'<Item name="STATISTICS_[^<>]*>[^<]*</Item>\s*')
RESOLUTION = {X_RESOLUTION, Y_RESOLUTION, UNIT}  # written together
BASELINE = RESOLUTION | {DESCRIPTION, SOFTWARE}  # the writer has arguments for them
PIXEL_SCALE, TIEPOINTS, TRANSFORMATION, GEO_KEYS = 33550, 33922, 34264, 34735
CAMERA = 50844  # GeoTIFF's rational polynomial coefficients, by columns and rows
RASTER_TYPE, PIXEL_IS_POINT = 1025, 2  # a key and a value in GEO_KEYS
PLACE = {PIXEL_SCALE, TIEPOINTS, TRANSFORMATION, GEO_KEYS, 34736, 34737}  # GeoTIFF's
PROFILE = 34675  # of ICC
# Date, whose argument takes but one form; maker, model, artist, host, copyright; XMP, IPTC and the color profile.
COPIED = {DATE, 271, 272, 315, 316, 33432, 700, 33723, PROFILE} | PLACE | {CAMERA, GDAL_METADATA, NO_DATA}
# Descriptions that say which axes the pixels of their file have: ImageJ's and its like's, tifffile's, OME's.
LAYOUT = re.compile(r'\A(ImageJ=|SCIFIO=|shape=|\{.*"shape":)|OME>\s*\Z', re.DOTALL)
CHANNEL_AXES = {"S", "C", "Q", "I"}  # samples, channels, and pages that the file does not name otherwise
SRGB = (b"sRGB", "sRGB".encode("utf-16-be"))  # in the descriptions of profiles
LONGEST_TAG = 2**24  # bytes; longer ones are not kept
# Descriptions of the pages' axes that are heeded. Other dialects may name files to be opened, or counts without end.
DIALECTS = {"shaped", "imagej"}
IGNORED: Any = {f"is_{name}": False for name in tifffile.TIFF.FILE_FLAGS - DIALECTS - {"multipage"}}

EXTRA_SAMPLE = {"straight": tifffile.EXTRASAMPLE.UNASSALPHA, "premultiplied": tifffile.EXTRASAMPLE.ASSOCALPHA}


@dataclass(frozen=True)
class Tags:
    """What a TIFF says beside its pixels; empty for other images.

    Attributes:
        values: Number of the tag to (type, count, value), as in TIFF 6.0, Sec. 2.
        nodata: The value of pixels without data; None where the file names none.
    """

    values: Mapping[int, tuple[int, int, Any]] = field(default_factory=dict)
    nodata: float | None = None

    def nodata_mask(self, picture: np.ndarray) -> np.ndarray:
        """Tell which pixels of [H, W, C] have no data: [H, W] bool, true where any channel has that value."""
        if self.nodata is None:
            return np.zeros(picture.shape[:2], dtype=bool)
        with np.errstate(over="ignore"):  # a double too large for the image's floats was infinite there, and is here
            alike = np.isnan(picture) if math.isnan(self.nodata) else picture == self.nodata
        return alike.any(axis=2)

    def apply_nodata(
        self, picture: np.ndarray, nodata_mask: np.ndarray, alpha: "Alpha" = "none", *, is_told: bool = True
    ) -> tuple[np.ndarray, "Tags"]:
        """Mark pixels as without data, in a image and in the tags that are written with it.

        Args:
            image: [H, W, C] of any type; where it cannot hold the value that the tags name, NaN takes its place, or 0
                in whole numbers.
            nodata_mask: [H, W] bool.
            alpha: Whether the last channel is alpha, which stays as it is.
            is_told: Whether the file will have the tags. A value elsewhere that would read as the mark is moved to the
                next that does not, then.
        """
        if self.nodata is None:
            return picture, self
        value, tags = self.nodata, self
        if not _holds(picture.dtype, value):
            text = "nan" if picture.dtype.kind == "f" else "0"
            value = float(text)
            tags = Tags({**self.values, NO_DATA: (2, len(text) + 1, text)}, value)
        marked = picture.copy()
        colours = marked[:, :, : picture.shape[2] - (alpha != "none")]
        if is_told:
            _move_away(colours, value)
        colours[nodata_mask] = value
        return marked, tags

    def scaled(self, x: float, y: float) -> "Tags":
        """Give the tags of the same image at another scale: geo-reference and resolution follow, a camera's does not.

        Args:
            x: New width by old width.
            y: New height by old height.

        Reference:
            GeoTIFF 1.1 (OGC 19-008r4), Sec. 7.1 and Annex B: where pixels are points, they count from their middle.
        """
        return self.sound()._scaled(x, y)

    def _scaled(self, x: float, y: float) -> "Tags":
        middle = 0.5 if self._pixels_are_points() else 0.0
        old_of_new = np.diag([1 / x, 1 / y, 1, 1])  # makes the old image's column and row of the new one's
        old_of_new[:2, 3] = middle / x - middle, middle / y - middle
        values = {code: tag for code, tag in self.values.items() if code != CAMERA or x == y == 1}
        for code, (kind, count, value) in self.values.items():
            if code in (PIXEL_SCALE, TIEPOINTS, TRANSFORMATION):
                values[code] = (kind, count, tuple(_georeference(code, value, old_of_new).ravel().tolist()))
            elif code in (X_RESOLUTION, Y_RESOLUTION):
                pixels, length = value
                scaled = Fraction(pixels, length) * Fraction(x if code == X_RESOLUTION else y)
                values[code] = (kind, count, scaled.limit_denominator(2**16).as_integer_ratio())
        return Tags(values, self.nodata)

    def sound(self) -> "Tags":
        """Leave out what cannot be written or scaled: the tags of a damaged file may say anything."""
        if self._is_sound():
            return self
        parts = [RESOLUTION & self.values.keys(), *({code} for code in self.values.keys() - RESOLUTION)]
        alone = (Tags({code: self.values[code] for code in part}) for part in parts)
        kept = {code for part in alone if part._is_sound() for code in part.values}
        return Tags({code: tag for code, tag in self.values.items() if code in kept}, self.nodata)

    def _is_sound(self) -> bool:
        try:
            values = self._scaled(1, 1).values
            with tifffile.TiffWriter(io.BytesIO()) as file:
                file.write(np.zeros((1, 1), np.uint8), **_writing(values, 1))
        except Exception:  # what the writer stumbles over has no limits
            return False
        return True

    def nodata_only(self) -> "Tags":
        """Give the no-data value without all else, for a image that lies elsewhere."""
        return Tags({code: value for code, value in self.values.items() if code == NO_DATA}, self.nodata)

    def _pixels_are_points(self) -> bool:
        _, _, keys = self.values.get(GEO_KEYS, (0, 0, ()))
        return any(tuple(keys[i : i + 4]) == (RASTER_TYPE, 0, 1, PIXEL_IS_POINT) for i in range(4, len(keys), 4))


def _holds(kind: np.dtype, value: float) -> bool:
    """Tell whether a type has a value; of floats, one that is as good as equal."""
    if kind.kind != "f":
        return value.is_integer() and 0 <= value <= np.iinfo(kind).max
    with np.errstate(over="ignore"):
        nearest = float(kind.type(value))
    return math.isnan(value) or math.isclose(nearest, value, rel_tol=float(np.finfo(kind).eps))


def _move_away(picture: np.ndarray, value: float) -> None:
    """Change, in place, what reads as a value to the nearest that does not."""
    kind = picture.dtype
    if kind.kind != "f":
        picture[picture == value] = value + 1 if value < np.iinfo(kind).max else value - 1
    elif math.isfinite(value):
        # Programs take floats for equal that are two steps apart. Towards 0, so that nothing becomes infinite.
        eps = float(np.finfo(kind).eps)
        moved = value * (1 - 8 * eps) or float(np.finfo(kind).tiny)
        picture[np.isclose(picture, value, rtol=4 * eps, atol=0)] = moved


def _georeference(code: int, value: Sequence[float], old_of_new: np.ndarray) -> np.ndarray:
    """Give a tag of the geo-reference for a scaled image.

    Args:
        code: Pixel scale, tie points (column, row, 0, and where that is), or a matrix from columns and rows to places.
        value: What it says of the old image.
        old_of_new: [4, 4], from the new image's column and row to the old one's.
    """
    if code == PIXEL_SCALE:
        return np.asarray(value) * np.diag(old_of_new)[:3]
    if code == TRANSFORMATION:
        return np.reshape(value, (4, 4)) @ old_of_new
    points = np.reshape(value, (-1, 6)).astype(float)
    pixels = np.c_[points[:, :3], np.ones(len(points))] @ np.linalg.inv(old_of_new).T
    return np.c_[pixels[:, :3], points[:, 3:]]


@dataclass(frozen=True)
class Tiff:
    """A decoded TIFF.

    Attributes:
        image: [H, W, C] uint8, uint16 or float32, upright.
        alpha: Whether the last channel is alpha, and whether the others were multiplied by it.
        tags: What else the file says.
        is_cmyk: Whether its colors were made of CMYK.
    """

    picture: np.ndarray
    alpha: Alpha
    tags: Tags
    is_cmyk: bool


_reading: ContextVar[bool] = ContextVar("reading", default=False)


class _Quiet(logging.Filter):
    """Passes over what tifffile remarks about files that ganvas reads; what others read with it is not touched."""

    def filter(self, record: logging.LogRecord) -> bool:
        return not _reading.get()


logging.getLogger("tifffile").addFilter(_Quiet())


@contextlib.contextmanager
def open_tiff(file: BinaryIO) -> Iterator[tifffile.TiffFile]:
    """Open a TIFF that `check_tiff` accepted, in a way in which it can open no other file."""
    token = _reading.set(True)
    try:
        file.seek(0)
        with tifffile.TiffFile(file, _multifile=False, **IGNORED) as tiff:
            yield tiff
    finally:
        _reading.reset(token)


def read_tiff(file: BinaryIO, max_pixels: int | None) -> Tiff | None:
    """Decode grayscale, RGB, CMYK and many-channel TIFF of 8 bits and more; gray pages of one size are channels.

    Args:
        file: The file, open for reading.
        max_pixels: Larger images are refused before anything is decoded; None refuses none. Four channels beyond the
            first four count as a pixel.

    Returns:
        None for what is of another kind, such as a palette or one bit a pixel.

    Raises:
        Image.DecompressionBombError: It has more than ``max_pixels``.
        ValueError: It is damaged or hostile, a stack in time or depth, or has pages that are different images.
    """
    pages = check_tiff(file)
    with open_tiff(file) as tiff:
        return _decode(tiff, pages, max_pixels) if is_supported_page(tiff.pages.first) else None


def is_supported_page(page: tifffile.TiffPage) -> bool:
    """Check whether tifffile decodes a page in full depth; the rest is Pillow's."""
    kinds = tifffile.PHOTOMETRIC
    plain = (kinds.MINISWHITE, kinds.MINISBLACK, kinds.RGB)
    is_cmyk = page.photometric == kinds.SEPARATED and page.compression not in (6, 7) and page.samplesperpixel >= 4
    if 262 not in page.tags or not (page.photometric in plain or (is_cmyk and page.tags.valueof(332, default=1) == 1)):
        return False
    if page.dtype is None or page.dtype.itemsize * 8 != page.bitspersample:
        return False
    return not is_cmyk or np.dtype(page.dtype) in (np.uint8, np.uint16)


def _decode(file: tifffile.TiffFile, pages: Sequence[Directory], max_pixels: int | None) -> Tiff:
    page = file.pages.first
    parts = [one for one in file.series if not (one.keyframe.is_reduced or one.keyframe.is_mask)] or file.series[:1]
    sizes = [dict(zip(part.axes, part.shape, strict=True)) for part in parts]
    _require_channels(page, parts, sizes, pages)
    fours = sum(math.prod(size.values()) for size in sizes) // 4  # as many values as a pixel of others has at most
    if max_pixels is not None and (pixels := max(sizes[0]["Y"] * sizes[0]["X"], fours)) > max_pixels:
        raise Image.DecompressionBombError(f"{pixels} pixels of up to four channels, the limit is {max_pixels}")
    for part in parts:
        _require_data(file, part)
    array = np.concatenate([_channels_last(part) for part in parts], axis=2)
    array = apply_orientation(
        to_supported_dtype(as_colors(array, page)), int(page.tags.valueof(ORIENTATION, default=1))
    )
    return Tiff(array, alpha_of(page), tags_of(page), page.photometric == tifffile.PHOTOMETRIC.SEPARATED)


def _require_channels(
    page: tifffile.TiffPage,
    parts: Sequence[tifffile.TiffPageSeries],
    sizes: Sequence[Mapping[str, int]],
    pages: Sequence[Directory],
) -> None:
    """Refuse pages that are not the channels of one image.

    Raises:
        ValueError: They are of different sizes or types or in color, or a stack in time or depth.
    """
    for part, size in zip(parts, sizes, strict=True):
        others = set(size) - {"Y", "X"}
        if not others <= CHANNEL_AXES or (len(pages) > 1 and _is_ome_stack(page)):
            raise ValueError(f"it is a stack with the axes {part.axes}; only channels may be stacked")
        if len(others) > 1 or (len(parts) > 1 and "S" in others):
            raise FormatError(too_many_pages([one.size for one in pages]))
    kinds = {
        (size["Y"], size["X"], part.dtype, part.keyframe.photometric) for part, size in zip(parts, sizes, strict=True)
    }
    if len(kinds) > 1:
        raise FormatError(too_many_pages([one.size for one in pages]))


def _is_ome_stack(page: tifffile.TiffPage) -> bool:
    """Check whether a description as OME-XML tells of several planes in depth or time; nothing else of it is heeded."""
    text = str(page.description)
    start = text.find("Pixels ") if text.rstrip().endswith("OME>") else -1
    if start < 0:
        return False
    element = text[start : text.find(">", start)]
    return any(int(count) > 1 for count in re.findall(r'\bSize[ZT]="(\d{1,9})"', element))


def _require_data(file: tifffile.TiffFile, part: tifffile.TiffPageSeries) -> None:
    """Refuse a stack that its description makes longer than the file, and tiles that decode to more than they should.

    Raises:
        ValueError: It is one of them.
    """
    found = [page for page in part.pages if page is not None]
    in_pages = len(found) * math.prod(part.keyframe.shape)
    if math.prod(part.shape) > in_pages and part.nbytes > file.filehandle.size:
        raise ValueError("it is cut off, or describes more pages than it has")
    if part.keyframe.compression in BOUNDED:
        return
    for page in found:
        for index in range(len(page.dataoffsets)):
            read_segment(file, page, index)


def read_segment(file: tifffile.TiffFile, page: tifffile.TiffPage | tifffile.TiffFrame, index: int) -> bytes:
    """Read a tile or strip as it lies in the file.

    Raises:
        ValueError: It would decode to more than a tile or strip of the page holds.
    """
    layout, handle = page.keyframe, file.filehandle
    assert layout is not None  # the page's own, or its series' first
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


def as_colors(array: np.ndarray, page: tifffile.TiffPage) -> np.ndarray:
    """Bring pixels [H, W, C], as a file stores them, to what others mean by them: 0 is black, CMYK is RGB."""
    alpha = alpha_of(page)
    C = array.shape[2] - (alpha != "none")
    colors, rest = array[:, :, :C], array[:, :, C:]
    if page.photometric == tifffile.PHOTOMETRIC.MINISWHITE:
        return np.concatenate([invert(colors), rest], axis=2)
    if page.photometric == tifffile.PHOTOMETRIC.SEPARATED:
        return np.concatenate([_rgb(colors[:, :, :4], rest if alpha == "premultiplied" else None), rest], axis=2)
    return array


def _rgb(inks: np.ndarray, alpha: np.ndarray | None) -> np.ndarray:
    """Convert cyan, magenta, yellow and black [H, W, 4] to RGB as Pillow does, without color management.

    Args:
        inks: uint8 or uint16.
        alpha: [H, W, 1], by which inks are multiplied, and by which the colors are to be; None where they are not.
    """
    top, values = FULL_RANGE[inks.dtype], inks.astype(np.float64)
    share = None if alpha is None else alpha / top
    if share is not None:
        values = np.divide(values, share, out=np.zeros_like(values), where=share > 0).clip(0, top)
    colors = (top - values[:, :, :3]) * (top - values[:, :, 3:]) / top
    return np.rint(colors if share is None else colors * share).astype(inks.dtype)


def alpha_of(page: tifffile.TiffPage) -> Alpha:
    """Read ExtraSamples (TIFF 6.0, Sec. 18); 0 is a channel of unknown meaning, such as infrared."""
    last = page.extrasamples[-1] if page.extrasamples else tifffile.EXTRASAMPLE.UNSPECIFIED
    if last == tifffile.EXTRASAMPLE.ASSOCALPHA:
        return "premultiplied"
    return "straight" if last == tifffile.EXTRASAMPLE.UNASSALPHA else "none"


def tags_of(page: tifffile.TiffPage) -> Tags:
    """Return the tags that are kept; a value of pixels without data is that of the pixels as `as_colors` gives them."""
    values = {
        tag.code: (int(tag.dtype), tag.count, tag.value)
        for tag in page.tags
        if tag.code in BASELINE | COPIED
        and tag.valuebytecount <= LONGEST_TAG
        and not (tag.code == DESCRIPTION and LAYOUT.search(str(tag.value)))
    }
    if GDAL_METADATA in values:  # least and largest values, say, are not those of the image that is made of this one
        told = STATISTICS.sub("", str(values[GDAL_METADATA][2]))
        values[GDAL_METADATA] = (2, len(told.encode()) + 1, told)
    try:
        nodata = float(str(values[NO_DATA][2]).strip(" \0")) if NO_DATA in values else None
    except ValueError:
        nodata = None
    if nodata is not None and page.photometric == tifffile.PHOTOMETRIC.SEPARATED:
        del values[NO_DATA]
        nodata = None
    if nodata is not None and page.photometric == tifffile.PHOTOMETRIC.MINISWHITE:
        nodata = _inverted_value(nodata, np.dtype(page.dtype))
        text = f"{nodata:.17g}"
        values[NO_DATA] = (2, len(text) + 1, text)
    return Tags(values, nodata)


def _inverted_value(value: float, kind: np.dtype) -> float:
    """Invert a value as the pixels of a type are; one that the type does not hold stays one that it does not hold."""
    if kind.kind == "f":
        with np.errstate(over="ignore"):
            return float(invert(np.array(value, kind)).astype(np.float32))
    return (-1 - value) if kind.kind == "i" else float(np.iinfo(kind).max) - value


def profile_tags(profile: bytes | None) -> Tags:
    """Return an ICC profile as tags, of an image that has no others."""
    return Tags() if profile is None else Tags({PROFILE: (7, len(profile), profile)})


def is_color_managed(tags: Tags) -> bool:
    """Check whether an image has an ICC profile of another color space than sRGB."""
    _, _, profile = tags.values.get(PROFILE, (7, 0, b""))
    return isinstance(profile, bytes) and bool(profile) and not any(name in profile for name in SRGB)


def fitting_profile(tags: Tags, channels: int, alpha: Alpha = "none") -> bytes | None:
    """Return the ICC profile in an image's tags if it describes an image of so many channels; else None."""
    _, _, profile = tags.values.get(PROFILE, (7, 0, b""))
    return profile if profile_fits(profile, channels - (alpha != "none")) else None


def write_tiff(path: Path, picture: np.ndarray, tags: Tags, alpha: Alpha = "none") -> None:
    """Write [H, W, C] of uint8, uint16 or float32 without loss, with the tags of the image that it was made from.

    Args:
        path: The file.
        image: The image.
        tags: What the file is to say beside its pixels.
        alpha: Whether the last channel is alpha, and whether the others are multiplied by it. Without, four channels
            are what they are in a multispectral image, not colors with alpha.

    Raises:
        OSError: The place cannot be written.
    """
    C = picture.shape[2]
    tifffile.imwrite(path, picture[:, :, 0] if C == 1 else picture, **writer_options(tags, C, alpha))


def writer_options(tags: Tags, channels: int, alpha: Alpha = "none") -> dict[str, Any]:
    """Give tifffile's options for a image that is written as by `write_tiff`; damaged tags are left out."""
    if fitting_profile(tags, channels, alpha) is None:
        tags = Tags({code: tag for code, tag in tags.values.items() if code != PROFILE}, tags.nodata)
    return _writing(tags.sound().values, channels, alpha)


def _writing(values: Mapping[int, tuple[int, int, Any]], channels: int, alpha: Alpha = "none") -> dict[str, Any]:
    given = {code: _encoded(value) for code, (_, _, value) in values.items()}
    resolution = (given[X_RESOLUTION], given[Y_RESOLUTION]) if {X_RESOLUTION, Y_RESOLUTION} <= given.keys() else None
    is_colour = channels == (3 if alpha == "none" else 4)
    extra = [tifffile.EXTRASAMPLE.UNSPECIFIED] * (channels - (3 if is_colour else 1))
    if alpha != "none":
        extra[-1] = EXTRA_SAMPLE[alpha]
    return {
        "photometric": "rgb" if is_colour else "minisblack",
        "planarconfig": None if channels == 1 else "contig",
        "extrasamples": extra or None,
        "compression": "adobe_deflate",
        "predictor": True,
        "metadata": None,
        "description": given.get(DESCRIPTION),
        "software": given.get(SOFTWARE, "ganvas"),
        "resolution": resolution,
        "resolutionunit": given.get(UNIT),
        "extratags": [(code, *values[code][:2], given[code], True) for code in sorted(given.keys() & COPIED)],
    }


def _encoded(value: Any) -> Any:
    """Give text as the bytes that most programs read and write, though TIFF 6.0, Sec. 2, knows ASCII alone."""
    return value.encode() if isinstance(value, str) else value
