"""The checks: functions of decoded images that return what they found, one sentence each."""

from __future__ import annotations

import shlex
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from data_scripts.tools.check.folders import Folder, FolderSearch
from data_scripts.tools.check.report import DatasetLayout, FolderReport
from ganvas.data.listing import describe_empty, describe_unread
from ganvas.messages import join_first

if TYPE_CHECKING:
    from data_scripts.tools.check.duplicates import NearDuplicates, Sample
    from data_scripts.tools.check.images import ImageInfo
    from ganvas.data.palette import Color

    Images = Mapping[str, Sequence[ImageInfo]]  # by folder

OWN_RANGES = {"uint8": "0:255", "uint16": "0:65535", "float32": "0:1"}
CONVERSIONS = {
    "transparency": "are transparent, and composed over white unless training asks for their channels",
    "CMYK": "are CMYK, and become RGB",
    "palette": "have a palette, and become RGB",
    "animation": "are animations, of which only the first frame is read",
    "profile": "have an ICC color profile other than sRGB; values are used as they are, and translate copies the "
    "profile to its results",
}


def summarize(images: Sequence[ImageInfo]) -> FolderReport:
    """Count a folder's images by size, kind and conversion."""
    good = [image for image in images if not image.error]
    sizes = Counter(f"{image.width}x{image.height}" for image in good)
    kinds = Counter(image.kind for image in good)
    converted = Counter(conversion for image in good for conversion in image.conversions)
    return FolderReport(len(images), dict(sizes.most_common()), dict(kinds.most_common()), dict(converted))


def _found(images: Images, is_found: Callable[[ImageInfo], bool], what: str) -> Iterator[str]:
    """Yield a sentence for each folder that has such images."""
    for folder, each in images.items():
        names = [image.name for image in each if is_found(image)]
        if names:
            yield f"{folder}: {len(names)} images {what} ({join_first(names)})"


def empty_folders(folders: Iterable[Folder]) -> Iterator[str]:
    """Find folders without images."""
    for folder in folders:
        if not folder.listing.images:
            yield f"{folder.name}: {describe_empty(folder.listing.unread)}"


def unread_files(folders: Iterable[Folder]) -> Iterator[str]:
    """Find files in formats that are not read, next to images."""
    for folder in folders:
        if folder.listing.images and folder.listing.unread.total():
            yield f"{folder.name}: {describe_unread(folder.listing.unread).removesuffix('.')}"


def unreadable(root: Path, images: Iterable[ImageInfo]) -> Iterator[str]:
    """Find images that cannot be decoded."""
    for image in images:
        if image.error:
            yield f"{image.file.path.relative_to(root).as_posix()}: {image.error}"


def repeated_names(images: Images) -> Iterator[str]:
    """Find x.jpg next to x.png: the images of a pair share a name without suffix."""
    for folder, each in images.items():
        counts = Counter(image.file.stem for image in each)
        repeated = sorted(name for name, count in counts.items() if count > 1)
        if repeated:
            how = "different suffixes or encodings of accents"
            yield f"{folder}: {len(repeated)} names are used twice, with {how} ({join_first(repeated)})"


def unmatched_sources(found: FolderSearch) -> Iterator[str]:
    """Find subfolders that are neither two domains nor several sources."""
    if found.sources:
        yield (
            f"the folders {join_first(found.sources)} are neither a and b, nor several sources, whose images share "
            "names; only dcgan reads other folders, as classes"
        )


def partners(pairs: Iterable[tuple[Folder, Folder]], images: Images) -> Iterator[str]:
    """Find images without a partner, and pairs of different sizes."""
    for a, b in pairs:
        in_a, in_b = ({image.file.stem: image for image in images[folder.name]} for folder in (a, b))
        for folder, other, mine, theirs in ((a, b, in_a, in_b), (b, a, in_b, in_a)):
            alone = sorted(mine.keys() - theirs.keys())
            if alone:
                yield f"{folder.name}: {len(alone)} images have no partner in {other.name} ({join_first(alone)})"
        both = [(name, in_a[name], in_b[name]) for name in sorted(in_a.keys() & in_b.keys())]
        differ = [
            name
            for name, one, two in both
            if not (one.error or two.error) and (one.width, one.height) != (two.width, two.height)
        ]
        if differ:
            yield f"{a.name} and {b.name}: {len(differ)} pairs differ in size ({join_first(differ)})"


def odd_widths(images: Images) -> Iterator[str]:
    """Find A|B images that cannot be split."""
    what = "have an odd width and do not split into A and B"
    return _found(images, lambda image: not image.file.folder.domain and image.width % 2 == 1, what)


def _usual_kind(images: Iterable[ImageInfo]) -> str:
    kinds = Counter(image.kind for image in images if not image.error).most_common(1)
    return kinds[0][0] if kinds else ""


def mixed_kinds(images: Images) -> Iterator[str]:
    """Find images of another kind than most in their folder, such as grayscale among color."""
    for folder, each in images.items():
        usual = _usual_kind(each)
        for kind in dict.fromkeys(image.kind for image in each if not image.error and image.kind != usual):
            one_folder = {folder: [image for image in each if not image.error and image.kind == kind]}
            yield from _found(one_folder, lambda image: True, f"are {kind} among {usual}")


def changed_kinds(folders: Iterable[Folder], images: Images) -> Iterator[str]:
    """Find splits whose images are of another kind than those of the same domain in the first split."""
    first: dict[str, tuple[str, str]] = {}  # folder and kind by domain
    for folder in folders:
        kind = _usual_kind(images[folder.name])
        if kind:
            other, usual = first.setdefault(folder.domain, (folder.name, kind))
            if kind != usual:
                yield f"{folder.name}: images are {kind}, while those of {other} are {usual}"


def group_identical(samples: Iterable[Sample]) -> list[list[Sample]]:
    """Group samples of the same pixels; across splits they invalidate test metrics."""
    groups: dict[tuple[str, ...], list[Sample]] = defaultdict(list)
    for sample in samples:
        groups[sample.content].append(sample)
    return [group for group in groups.values() if len(group) > 1]


def identical_samples(groups: Iterable[Sequence[Sample]]) -> Iterator[str]:
    """Describe groups of identical samples."""
    found: dict[str, list[str]] = {"across splits": [], "within a split": []}
    for group in groups:
        is_across = len({sample.split for sample in group}) > 1
        found["across splits" if is_across else "within a split"].append(" = ".join(sample.name for sample in group))
    for where, examples in found.items():
        if examples:
            yield f"{len(examples)} groups of images with the same content {where} ({join_first(examples)})"


def near_duplicates(near: Sequence[NearDuplicates], where: str) -> Iterator[str]:
    """Describe near-duplicates."""
    if near:
        examples = [f"{e.first} ~ {e.second}, {e.bits} of 64 bits differ, likeness {e.likeness:.2f}" for e in near]
        yield f"{len(near)} pairs of near-duplicates {where} ({join_first(examples, '; ')})"


def palette_use(palette: Mapping[str, Color], images: Sequence[ImageInfo]) -> Iterator[str]:
    """Count the images in the palette's exact colors, which augmentation then keeps; JPEGs never are."""
    count = sum(image.uses_palette for image in images)
    if count:
        yield f"dataset.json has a legend; {count} of {len(images)} images are drawn in its colors"
    elif palette:
        yield "dataset.json has a legend, but no image is drawn in exactly its colors, so all are interpolated"


def conversions(images: Images) -> Iterator[str]:
    """Find images that are converted on reading."""
    for folder, each in images.items():
        for conversion, what in CONVERSIONS.items():
            found = [image for image in each if conversion in image.conversions]
            yield from _found({folder: found}, lambda image: True, what)


def colorless(images: Images) -> Iterator[str]:
    """Find color files without color, in folders where most have some."""
    for folder, each in images.items():
        in_color = [image for image in each if image.channels == 3]
        gray = [image.name for image in in_color if not image.has_color]
        if 0 < 2 * len(gray) < len(in_color):
            yield f"{folder}: {len(gray)} color files show no color ({join_first(gray)})"


def missing_data(images: Images) -> tuple[list[str], list[str]]:
    """Find values that look like marks of missing data: known ones, and borders of zeros."""
    marks: list[str] = []
    borders: list[str] = []
    for folder, each in images.items():
        for value in sorted({value for image in each for value in image.sentinels}):
            # An image of nothing else has no border, but counts next to images that do.
            having = [x for x in each if value in x.sentinels or (not x.error and x.low == x.high == value)]
            (marks if value else borders).append(f"{folder}: {_describe_mark(value, having)}")
    return marks, borders


def _describe_mark(value: float, images: Sequence[ImageInfo]) -> str:
    """Describe a mark of missing data, and how to tag it in the files."""
    from ganvas.data.formats import TIFF_SUFFIXES
    from ganvas.data.sentinels import number

    marked = sum(image.sentinels.get(value, image.width * image.height) for image in images)
    fraction = marked / sum(image.width * image.height for image in images)
    looks = "looks like a mark of missing data" if value else "forms borders and may mark missing data"
    how = "only TIFF can tag it: convert them, or replace the value"
    tiffs = [image.file.path for image in images if image.file.path.suffix.lower() in TIFF_SUFFIXES]
    if tiffs:
        file = shlex.quote(str(tiffs[0]))
        how = (
            f"if so, tag it in each, as by gdal_edit.py -a_nodata {number(value)} {file} or (of rasterio) "
            f"rio edit-info --nodata={number(value)} {file}"
        )
    names = join_first([image.name for image in images])
    return f"{number(value)} {looks} in {len(images)} images, {fraction:.2g} of their pixels ({names}); {how}"


def float_ranges(layout: DatasetLayout, images: Iterable[ImageInfo]) -> Iterator[str]:
    """Name the options that floats outside 0 to 1 need; a target without a range of its own would take the source's."""
    sources: list[ImageInfo] = []
    targets: list[ImageInfo] = []
    for image in images:
        if not image.error:
            (targets if image.file.folder.domain == "b" else sources).append(image)
    source, target = _float_range(sources), _float_range(targets)
    options = [f"--value-range={source}"] if source else []
    if targets and target != source:
        own = OWN_RANGES[Counter(image.dtype for image in targets).most_common(1)[0][0]]
        option = "--value-range-b" if layout == "unpaired folders" else "--target-range"
        options.append(f"{option}={target or own}")
    if options:
        has_marks = any(image.sentinels for image in (*sources, *targets))
        without = ", without what looks like marks of missing data" if has_marks else ""
        yield f"floats reach beyond 0 to 1{without}; train (A to B) with {' '.join(options)}"


def _float_range(images: Iterable[ImageInfo]) -> str:
    """Return the range of float images as an option's value, such as "-670:1420"; empty within 0 to 1."""
    from ganvas.data.arrays import TOLERANCE
    from ganvas.data.sentinels import number

    floats = [image for image in images if image.dtype == "float32" and image.low <= image.high]
    low = min((image.low for image in floats), default=0.0)
    high = max((image.high for image in floats), default=1.0)
    if low >= -TOLERANCE and high <= 1 + TOLERANCE:
        return ""
    return f"{number(low)}:{number(high)}"
