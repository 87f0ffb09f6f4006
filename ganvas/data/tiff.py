"""TIFF of any depth and number of channels, with the tags that say where its pixels lie and how large they are.

Geo-reference, projection and no-data value (GeoTIFF 1.1, and two tags of GDAL's) are copied as they stand, so that no
geographic library is needed to keep them.
"""

import io
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any, Literal

import numpy as np
import tifffile
from PIL import Image

DESCRIPTION, X_RESOLUTION, Y_RESOLUTION, UNIT, SOFTWARE, DATE, ORIENTATION = 270, 282, 283, 296, 305, 306, 274
GDAL_METADATA, NO_DATA = 42112, 42113
STATISTICS = re.compile(r'\s*<Item name="STATISTICS_[^>]*>[^<]*</Item>')  # in GDAL_METADATA
RESOLUTION = {X_RESOLUTION, Y_RESOLUTION, UNIT}  # written together
BASELINE = RESOLUTION | {DESCRIPTION, SOFTWARE}  # the writer has arguments for them
PIXEL_SCALE, TIEPOINTS, TRANSFORMATION, GEO_KEYS = 33550, 33922, 34264, 34735
CAMERA = 50844  # GeoTIFF's rational polynomial coefficients, by columns and rows
RASTER_TYPE, PIXEL_IS_POINT = 1025, 2  # a key and a value in GEO_KEYS
PLACE = {PIXEL_SCALE, TIEPOINTS, TRANSFORMATION, GEO_KEYS, 34736, 34737}  # GeoTIFF's
# Date, whose argument takes but one form; maker, model, artist, host, copyright; XMP, IPTC and the colour profile.
COPIED = {DATE, 271, 272, 315, 316, 33432, 700, 33723, 34675} | PLACE | {CAMERA, GDAL_METADATA, NO_DATA}
# Descriptions that say which axes the pixels of their file have: ImageJ's and its like's, tifffile's, OME's.
LAYOUT = re.compile(r'\A(ImageJ=|SCIFIO=|shape=|\{.*"shape":)|OME>\s*\Z', re.DOTALL)
CHANNEL_AXES = {"S", "C", "Q", "I"}  # samples, channels, and pages that the file does not name otherwise

Alpha = Literal["none", "straight", "premultiplied"]
EXTRA_SAMPLE = {"straight": tifffile.EXTRASAMPLE.UNASSALPHA, "premultiplied": tifffile.EXTRASAMPLE.ASSOCALPHA}


@dataclass(frozen=True)
class Tags:
    """What a TIFF says beside its pixels; empty for other pictures.

    Attributes:
        values: Number of the tag to (type, count, value), as in TIFF 6.0, Sec. 2.
        no_data: The value of pixels without data; None where the file names none.
    """

    values: Mapping[int, tuple[int, int, Any]] = field(default_factory=dict)
    no_data: float | None = None

    def holes(self, picture: np.ndarray) -> np.ndarray:
        """Tell which pixels of [H, W, C] have no data: [H, W] bool, true where any channel has that value."""
        if self.no_data is None:
            return np.zeros(picture.shape[:2], dtype=bool)
        with np.errstate(over="ignore"):  # a double too large for the picture's floats was infinite there, and is here
            alike = np.isnan(picture) if math.isnan(self.no_data) else picture == self.no_data
        return alike.any(axis=2)

    def punched(
        self, picture: np.ndarray, holes: np.ndarray, alpha: "Alpha" = "none", *, is_told: bool = True
    ) -> tuple[np.ndarray, "Tags"]:
        """Mark pixels as without data, in a picture and in the tags that are written with it.

        Args:
            picture: [H, W, C] of any type; where it cannot hold the value that the tags name, NaN takes its place, or 0
                in whole numbers.
            holes: [H, W] bool.
            alpha: Whether the last channel is alpha, which stays as it is.
            is_told: Whether the file will have the tags. A value elsewhere that would read as the mark is moved to the
                next that does not, then.
        """
        if self.no_data is None:
            return picture, self
        value, tags = self.no_data, self
        if not _holds(picture.dtype, value):
            text = "nan" if picture.dtype.kind == "f" else "0"
            value = float(text)
            tags = Tags({**self.values, NO_DATA: (2, len(text) + 1, text)}, value)
        marked = picture.copy()
        colours = marked[:, :, : picture.shape[2] - (alpha != "none")]
        if is_told:
            _move_away(colours, value)
        colours[holes] = value
        return marked, tags

    def scaled(self, x: float, y: float) -> "Tags":
        """Give the tags of the same picture at another scale: geo-reference and resolution follow, a camera's does not.

        Args:
            x: New width by old width.
            y: New height by old height.

        Reference:
            GeoTIFF 1.1 (OGC 19-008r4), Sec. 7.1 and Annex B: where pixels are points, they count from their middle.
        """
        return self.sound()._scaled(x, y)

    def _scaled(self, x: float, y: float) -> "Tags":
        middle = 0.5 if self._pixels_are_points() else 0.0
        old_of_new = np.diag([1 / x, 1 / y, 1, 1])  # makes the old picture's column and row of the new one's
        old_of_new[:2, 3] = middle / x - middle, middle / y - middle
        values = {code: tag for code, tag in self.values.items() if code != CAMERA or x == y == 1}
        for code, (kind, count, value) in self.values.items():
            if code in (PIXEL_SCALE, TIEPOINTS, TRANSFORMATION):
                values[code] = (kind, count, tuple(_georeference(code, value, old_of_new).ravel().tolist()))
            elif code in (X_RESOLUTION, Y_RESOLUTION):
                pixels, length = value
                scaled = Fraction(pixels, length) * Fraction(x if code == X_RESOLUTION else y)
                values[code] = (kind, count, scaled.limit_denominator(2**16).as_integer_ratio())
        return Tags(values, self.no_data)

    def sound(self) -> "Tags":
        """Leave out what cannot be written or scaled: the tags of a damaged file may say anything."""
        if self._is_sound():
            return self
        parts = [RESOLUTION & self.values.keys(), *({code} for code in self.values.keys() - RESOLUTION)]
        alone = (Tags({code: self.values[code] for code in part}) for part in parts)
        kept = {code for part in alone if part._is_sound() for code in part.values}
        return Tags({code: tag for code, tag in self.values.items() if code in kept}, self.no_data)

    def _is_sound(self) -> bool:
        try:
            values = self._scaled(1, 1).values
            with tifffile.TiffWriter(io.BytesIO()) as file:
                file.write(np.zeros((1, 1), np.uint8), **_writing(values, 1))
        except Exception:  # what the writer stumbles over has no limits
            return False
        return True

    def no_data_alone(self) -> "Tags":
        """Give the no-data value without all else, for a picture that lies elsewhere."""
        return Tags({code: value for code, value in self.values.items() if code == NO_DATA}, self.no_data)

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
    """Give a tag of the geo-reference for a scaled picture.

    Args:
        code: Pixel scale, tie points (column, row, 0, and where that is), or a matrix from columns and rows to places.
        value: What it says of the old picture.
        old_of_new: [4, 4], from the new picture's column and row to the old one's.
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
        picture: [H, W, C], of the file's own type.
        alpha: Whether the last channel is alpha, and whether the others were multiplied by it.
        orientation: As EXIF's, 1 to 8; not yet applied.
        tags: What else the file says.
    """

    picture: np.ndarray
    alpha: Alpha
    orientation: int
    tags: Tags


def read_tiff(path: Path, max_pixels: int | None) -> Tiff | None:
    """Decode grayscale, RGB and many-channel TIFF of 8 bits and more; pages of one size are channels.

    Args:
        path: The file.
        max_pixels: Larger pictures are refused before anything is decoded; None refuses none. Four channels beyond the
            first four count as a pixel.

    Returns:
        None for what is of another kind: a palette, CMYK, one bit a pixel, or no TIFF.

    Raises:
        FileNotFoundError: There is no file.
        Image.DecompressionBombError: It has more than ``max_pixels``.
        ValueError: It is damaged, or a stack in time or depth.
    """
    try:
        with tifffile.TiffFile(path) as file:
            return _decode(file, max_pixels) if _is_ours(file) else None
    except (OSError, tifffile.TiffFileError):
        if not path.exists():
            raise
        return None
    except (ValueError, Image.DecompressionBombError):
        raise
    except Exception as error:  # a damaged file makes the decoder stumble anywhere
        raise ValueError(f"damaged: {type(error).__name__}: {error}") from None


def has_alpha(path: Path) -> bool:
    """Tell from the header of a TIFF whether its last channel is alpha.

    Raises:
        OSError: There is no file.
        tifffile.TiffFileError: It is no TIFF.
    """
    with tifffile.TiffFile(path) as file:
        return _alpha(file.pages.first.extrasamples) != "none"


def _is_ours(file: tifffile.TiffFile) -> bool:
    page = file.pages.first
    plain = page.photometric in (tifffile.PHOTOMETRIC.MINISBLACK, tifffile.PHOTOMETRIC.RGB)
    return plain and page.dtype is not None and page.dtype.itemsize * 8 == page.bitspersample


def _decode(file: tifffile.TiffFile, max_pixels: int | None) -> Tiff:
    page, series = file.pages.first, file.series[0]
    size = dict(zip(series.axes, series.shape, strict=True))
    others = set(size) - {"Y", "X"}
    if len(others) > 1 or not others <= CHANNEL_AXES:
        raise ValueError(f"it is a stack with the axes {series.axes}; only channels may be stacked")
    fours = math.prod(size.values()) // 4  # as many values as a pixel of other formats has at most
    if max_pixels is not None and (pixels := max(size["Y"] * size["X"], fours)) > max_pixels:
        raise Image.DecompressionBombError(f"{pixels} pixels of up to four channels, the limit is {max_pixels}")
    picture = series.asarray()
    picture = np.moveaxis(picture, series.axes.index(others.pop()), 2) if others else picture[:, :, None]
    orientation = page.tags.valueof(ORIENTATION, default=1)
    return Tiff(picture, _alpha(page.extrasamples), int(orientation), _tags(page.tags))


def _alpha(extra_samples: Sequence[int]) -> Alpha:
    """Read ExtraSamples (TIFF 6.0, Sec. 18); 0 is a channel of unknown meaning, such as infrared."""
    last = extra_samples[-1] if extra_samples else tifffile.EXTRASAMPLE.UNSPECIFIED
    if last == tifffile.EXTRASAMPLE.ASSOCALPHA:
        return "premultiplied"
    return "straight" if last == tifffile.EXTRASAMPLE.UNASSALPHA else "none"


def _tags(tags: tifffile.TiffTags) -> Tags:
    values = {
        tag.code: (int(tag.dtype), tag.count, tag.value)
        for tag in tags
        if tag.code in BASELINE | COPIED and not (tag.code == DESCRIPTION and LAYOUT.search(str(tag.value)))
    }
    if GDAL_METADATA in values:  # least and largest values, say, are not those of the picture that is made of this one
        told = STATISTICS.sub("", str(values[GDAL_METADATA][2]))
        values[GDAL_METADATA] = (2, len(told.encode()) + 1, told)
    try:
        no_data = float(str(values[NO_DATA][2]).strip(" \0")) if NO_DATA in values else None
    except ValueError:
        no_data = None
    return Tags(values, no_data)


def write_tiff(path: Path, picture: np.ndarray, tags: Tags, alpha: Alpha = "none") -> None:
    """Write [H, W, C] of uint8, uint16 or float32 without loss, with the tags of the picture that it was made from.

    Args:
        path: The file.
        picture: The picture.
        tags: What the file is to say beside its pixels.
        alpha: Whether the last channel is alpha, and whether the others are multiplied by it. Without, four channels
            are what they are in a multispectral picture, not colours with alpha.

    Raises:
        OSError: The place cannot be written.
    """
    C = picture.shape[2]
    tifffile.imwrite(path, picture[:, :, 0] if C == 1 else picture, **writing(tags, C, alpha))


def writing(tags: Tags, channels: int, alpha: Alpha = "none") -> dict[str, Any]:
    """Give tifffile's options for a picture that is written as by `write_tiff`; damaged tags are left out."""
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
