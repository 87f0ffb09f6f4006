"""The images of a dataset, decoded once and reduced to what the checks compare."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from data_scripts.tools.check.duplicates import Sample, thumbnail
from data_scripts.tools.check.folders import Folder
from data_scripts.tools.check.report import DatasetLayout
from ganvas.data.decode import read_raster
from ganvas.data.listing import stem
from ganvas.data.palette import Color, is_flat
from ganvas.data.sentinels import find_sentinels, range_without
from ganvas.data.tensors import require_range
from ganvas.data.tiff_tags import is_color_managed
from ganvas.errors import UserError

ANY_VALUES = (float("-inf"), float("inf"))  # finite ones
NO_VALUES = (float("inf"), float("-inf"))
COLORS = {1: "grayscale", 3: "color"}  # by channels
DEPTHS = {"uint8": "8-bit", "uint16": "16-bit", "float32": "float"}


@dataclass(frozen=True)
class ImageFile:
    """A file to decode.

    Attributes:
        folder: Its folder.
        path: The file.
        rows: Rows of its thumbnails: one, or one of each half of an A|B image.
    """

    folder: Folder
    path: Path
    rows: tuple[int, ...]

    @property
    def stem(self) -> str:
        """The name that the images of a pair share."""
        return stem(self.path.name)


@dataclass(frozen=True)
class ImageInfo:
    """A decoded file, or why it could not be decoded.

    Attributes:
        file: The file.
        width: Width in pixels.
        height: Height in pixels.
        channels: After conversions.
        dtype: Type of the values.
        low: Least value except for sentinels, in the file's own units; above ``high`` if there is none.
        high: Greatest such value.
        conversions: What is converted or left out on reading, see `ganvas.data.raster.Raster`; and "profile".
        has_color: Whether any pixel's channels differ.
        digest: Digest of the pixels.
        uses_palette: Whether it, or one of its halves, consists of the palette's colors.
        sentinels: Values that look like marks of missing data, with their numbers of pixels.
        error: Why it could not be decoded; empty otherwise.
    """

    file: ImageFile
    width: int = 0
    height: int = 0
    channels: int = 0
    dtype: str = ""
    low: float = 0.0
    high: float = 0.0
    conversions: tuple[str, ...] = ()
    has_color: bool = False
    digest: str = ""
    uses_palette: bool = False
    sentinels: Mapping[float, int] = field(default_factory=dict)
    error: str = ""

    @property
    def name(self) -> str:
        """The file's name."""
        return self.file.path.name

    @property
    def kind(self) -> str:
        """Depth and colors: "8-bit color"."""
        return f"{DEPTHS[self.dtype]} {COLORS.get(self.channels, f'{self.channels} channels')}"


def list_files(folders: Iterable[Folder]) -> list[ImageFile]:
    """List the images of all folders, with consecutive rows for their thumbnails."""
    files, row = [], 0
    for folder in folders:
        parts = 1 if folder.domain else 2
        for path in folder.listing.images:
            files.append(ImageFile(folder, path, tuple(range(row, row + parts))))
            row += parts
    return files


def decode(file: ImageFile, thumbnails: np.ndarray, palette: Sequence[Color]) -> ImageInfo:
    """Decode an image, and write its thumbnails.

    Args:
        file: The file.
        thumbnails: [N, 64, 64] uint8; the file's rows are written.
        palette: The dataset's flat colors.
    """
    try:
        raster = read_raster(file.path)
        array = require_range(raster.array, ANY_VALUES, f"{file.path}:")
    except UserError as error:
        return ImageInfo(file, error=str(error).removeprefix(f"{file.path}: "))
    H, W, C = array.shape
    parts = [] if W % len(file.rows) else np.split(array, len(file.rows), axis=1)
    for row, part in zip(file.rows, parts, strict=False):
        thumbnails[row] = thumbnail(part)
    sentinels = find_sentinels(array)
    low, high = range_without(array, sentinels) or NO_VALUES
    return ImageInfo(
        file,
        width=W,
        height=H,
        channels=C,
        dtype=str(array.dtype),
        low=low,
        high=high,
        conversions=(*raster.conversions, "profile") if is_color_managed(raster.tags) else raster.conversions,
        has_color=C > 1 and bool((array != array[:, :, :1]).any()),
        digest=hashlib.sha256(f"{array.shape}{array.dtype}".encode() + array.tobytes()).hexdigest(),
        uses_palette=any(is_flat(part, palette) for part in parts),
        sentinels=sentinels,
    )


def group_samples(
    root: Path, layout: DatasetLayout, folders: Iterable[Folder], images: Mapping[str, Sequence[ImageInfo]]
) -> Iterator[Sample]:
    """Yield the images that training reads together: both halves, those of one name in all folders, or one image."""
    together: dict[str, list[Folder]] = defaultdict(list)
    for folder in folders:
        together[folder.split if layout == "paired folders" and folder.domain else folder.name].append(folder)
    for group in together.values():
        by_key: dict[object, list[ImageInfo]] = defaultdict(list)
        for image in (image for folder in group for image in images[folder.name] if not image.error):
            by_key[image.file.stem if len(group) > 1 else image.file.path].append(image)
        for partners in by_key.values():
            if len(partners) == len(group):
                yield Sample(
                    name=partners[0].file.path.relative_to(root).as_posix(),
                    split=partners[0].file.folder.split,
                    content=tuple(image.digest for image in partners),
                    rows=tuple(row for image in partners for row in image.file.rows),
                )
