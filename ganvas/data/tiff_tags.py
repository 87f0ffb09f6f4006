"""TIFF tags that are kept from a source image to the image made from it.

Geo-reference, projection and nodata value (GeoTIFF 1.1, and two tags of GDAL's) are copied as they are, so no
geographic library is needed.
"""

import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

import numpy as np
import tifffile

from ganvas.data.arrays import Alpha, invert
from ganvas.data.decode_basic import profile_fits

DESCRIPTION, X_RESOLUTION, Y_RESOLUTION, UNIT, SOFTWARE, DATE = 270, 282, 283, 296, 305, 306
GDAL_METADATA, NODATA = 42112, 42113
# Statistics in GDAL_METADATA. The pattern stops at the next "<", so that no text is searched to its end repeatedly.
STATISTICS = re.compile(r'<Item name="STATISTICS_[^<>]*>[^<]*</Item>\s*')
RESOLUTION = {X_RESOLUTION, Y_RESOLUTION, UNIT}  # written together
BASELINE = RESOLUTION | {DESCRIPTION, SOFTWARE}  # tifffile has arguments for them
PIXEL_SCALE, TIEPOINTS, TRANSFORMATION, GEO_KEYS = 33550, 33922, 34264, 34735
CAMERA = 50844  # GeoTIFF's rational polynomial coefficients
RASTER_TYPE, PIXEL_IS_POINT = 1025, 2  # a key and its value in GEO_KEYS
GEO_REFERENCE = {PIXEL_SCALE, TIEPOINTS, TRANSFORMATION, GEO_KEYS, 34736, 34737}
PROFILE = 34675  # ICC
# Date (tifffile's own argument accepts one format only), maker, model, artist, host, copyright, XMP, IPTC.
COPIED = {DATE, 271, 272, 315, 316, 33432, 700, 33723, PROFILE} | GEO_REFERENCE | {CAMERA, GDAL_METADATA, NODATA}
# Descriptions that define the axes of their own file: ImageJ's, SCIFIO's, tifffile's, OME's.
LAYOUT = re.compile(r'\A(ImageJ=|SCIFIO=|shape=|\{.*"shape":)|OME>\s*\Z', re.DOTALL)
SRGB = (b"sRGB", "sRGB".encode("utf-16-be"))  # in the descriptions of profiles
MAX_TAG_BYTES = 2**24  # longer ones are not kept
EXTRA_SAMPLE = {"straight": tifffile.EXTRASAMPLE.UNASSALPHA, "premultiplied": tifffile.EXTRASAMPLE.ASSOCALPHA}

TagValues = Mapping[int, tuple[int, int, Any]]


@dataclass(frozen=True)
class Tags:
    """The kept tags of a TIFF; empty for other images.

    Attributes:
        values: (type, count, value) by the number of the tag, as in TIFF 6.0, Sec. 2.
        nodata: The value of pixels without data; None where the file defines none.
    """

    values: TagValues = field(default_factory=dict)
    nodata: float | None = None

    def scaled(self, x: float, y: float) -> "Tags":
        """Return the tags of the image at another scale: geo-reference and resolution change, camera tags are dropped.

        Args:
            x: New width / old width.
            y: New height / old height.

        Reference:
            GeoTIFF 1.1 (OGC 19-008r4), Sec. 7.1 and Annex B: where pixels are points, they count from their middle.
        """
        return self.writable()._scaled(x, y)

    def _scaled(self, x: float, y: float) -> "Tags":
        middle = 0.5 if self._pixels_are_points() else 0.0
        old_of_new = np.diag([1 / x, 1 / y, 1, 1])  # [4, 4], from new to old column and row
        old_of_new[:2, 3] = middle / x - middle, middle / y - middle
        values = {code: tag for code, tag in self.values.items() if code != CAMERA or x == y == 1}
        for code, (dtype, count, value) in self.values.items():
            if code in (PIXEL_SCALE, TIEPOINTS, TRANSFORMATION):
                values[code] = (dtype, count, tuple(_scaled_georeference(code, value, old_of_new).ravel().tolist()))
            elif code in (X_RESOLUTION, Y_RESOLUTION):
                pixels, length = value
                scaled = Fraction(pixels, length) * Fraction(x if code == X_RESOLUTION else y)
                values[code] = (dtype, count, scaled.limit_denominator(2**16).as_integer_ratio())
        return Tags(values, self.nodata)

    def writable(self) -> "Tags":
        """Return the tags without those that cannot be written or scaled: a damaged file may hold any values."""
        if self._is_writable():
            return self
        groups = [RESOLUTION & self.values.keys(), *({code} for code in self.values.keys() - RESOLUTION)]
        subsets = (Tags({code: self.values[code] for code in group}) for group in groups)
        kept = {code for subset in subsets if subset._is_writable() for code in subset.values}
        return Tags({code: tag for code, tag in self.values.items() if code in kept}, self.nodata)

    def _is_writable(self) -> bool:
        try:
            values = self._scaled(1, 1).values
            with tifffile.TiffWriter(io.BytesIO()) as file:
                file.write(np.zeros((1, 1), np.uint8), **_tifffile_options(values, 1))
        except Exception:  # the writer may fail with anything
            return False
        return True

    def nodata_only(self) -> "Tags":
        """Return the nodata value alone, for an image of another place."""
        return Tags({code: value for code, value in self.values.items() if code == NODATA}, self.nodata)

    def with_nodata(self, value: float) -> "Tags":
        """Return the tags with another nodata value."""
        text = f"{value:.17g}"
        return Tags({**self.values, NODATA: (2, len(text) + 1, text)}, value)

    def _pixels_are_points(self) -> bool:
        _, _, keys = self.values.get(GEO_KEYS, (0, 0, ()))
        return any(tuple(keys[i : i + 4]) == (RASTER_TYPE, 0, 1, PIXEL_IS_POINT) for i in range(4, len(keys), 4))


def _scaled_georeference(code: int, value: Sequence[float], old_of_new: np.ndarray) -> np.ndarray:
    """Return a geo-reference tag of a scaled image.

    Args:
        code: Pixel scale, tie points (column, row, 0, and their place), or a matrix from columns and rows to places.
        value: Its value for the old image.
        old_of_new: [4, 4], from the new image's column and row to the old one's.
    """
    if code == PIXEL_SCALE:
        return np.asarray(value) * np.diag(old_of_new)[:3]
    if code == TRANSFORMATION:
        return np.reshape(value, (4, 4)) @ old_of_new
    points = np.reshape(value, (-1, 6)).astype(float)
    pixels = np.c_[points[:, :3], np.ones(len(points))] @ np.linalg.inv(old_of_new).T
    return np.c_[pixels[:, :3], points[:, 3:]]


def tags_of(page: tifffile.TiffPage) -> Tags:
    """Return the kept tags of a page; the nodata value is that of the decoded pixels, 0 being black."""
    values = {
        tag.code: (int(tag.dtype), tag.count, tag.value)
        for tag in page.tags
        if tag.code in BASELINE | COPIED
        and tag.valuebytecount <= MAX_TAG_BYTES
        and not (tag.code == DESCRIPTION and LAYOUT.search(str(tag.value)))
    }
    if GDAL_METADATA in values:  # statistics of the source are not those of an image made from it
        text = STATISTICS.sub("", str(values[GDAL_METADATA][2]))
        values[GDAL_METADATA] = (2, len(text.encode()) + 1, text)
    try:
        nodata = float(str(values[NODATA][2]).strip(" \0")) if NODATA in values else None
    except ValueError:
        nodata = None
    if nodata is not None and page.photometric == tifffile.PHOTOMETRIC.SEPARATED:
        del values[NODATA]
        nodata = None
    if nodata is not None and page.photometric == tifffile.PHOTOMETRIC.MINISWHITE:
        return Tags(values).with_nodata(_inverted_value(nodata, np.dtype(page.dtype)))
    return Tags(values, nodata)


def _inverted_value(value: float, dtype: np.dtype) -> float:
    """Invert a value as pixels of a dtype are; a value outside the dtype stays outside."""
    if dtype.kind == "f":
        with np.errstate(over="ignore"):
            return float(invert(np.array(value, dtype)).astype(np.float32))
    return (-1 - value) if dtype.kind == "i" else float(np.iinfo(dtype).max) - value


def profile_tags(profile: bytes | None) -> Tags:
    """Return an ICC profile as the only tag."""
    return Tags() if profile is None else Tags({PROFILE: (7, len(profile), profile)})


def is_color_managed(tags: Tags) -> bool:
    """Return whether an image has an ICC profile of another color space than sRGB."""
    _, _, profile = tags.values.get(PROFILE, (7, 0, b""))
    return isinstance(profile, bytes) and bool(profile) and not any(name in profile for name in SRGB)


def fitting_profile(tags: Tags, channels: int, alpha: Alpha = "none") -> bytes | None:
    """Return the ICC profile if it describes an image of this number of channels, else None."""
    _, _, profile = tags.values.get(PROFILE, (7, 0, b""))
    return profile if profile_fits(profile, channels - (alpha != "none")) else None


def tifffile_options(tags: Tags, channels: int, alpha: Alpha = "none") -> dict[str, Any]:
    """Return the arguments with which tifffile writes an image and its tags; damaged tags are left out."""
    if fitting_profile(tags, channels, alpha) is None:
        tags = Tags({code: tag for code, tag in tags.values.items() if code != PROFILE}, tags.nodata)
    return _tifffile_options(tags.writable().values, channels, alpha)


def _tifffile_options(values: TagValues, channels: int, alpha: Alpha = "none") -> dict[str, Any]:
    # UTF-8, which most programs read and write, although TIFF 6.0, Sec. 2, allows ASCII alone.
    encoded = {code: value.encode() if isinstance(value, str) else value for code, (_, _, value) in values.items()}
    has_resolution = {X_RESOLUTION, Y_RESOLUTION} <= encoded.keys()
    is_color = channels == (3 if alpha == "none" else 4)
    extra = [tifffile.EXTRASAMPLE.UNSPECIFIED] * (channels - (3 if is_color else 1))
    if alpha != "none":
        extra[-1] = EXTRA_SAMPLE[alpha]
    return {
        "photometric": "rgb" if is_color else "minisblack",
        "planarconfig": None if channels == 1 else "contig",
        "extrasamples": extra or None,
        "compression": "adobe_deflate",
        "predictor": True,
        "metadata": None,
        "description": encoded.get(DESCRIPTION),
        "software": encoded.get(SOFTWARE, "ganvas"),
        "resolution": (encoded[X_RESOLUTION], encoded[Y_RESOLUTION]) if has_resolution else None,
        "resolutionunit": encoded.get(UNIT),
        "extratags": [(code, *values[code][:2], encoded[code], True) for code in sorted(encoded.keys() & COPIED)],
    }
