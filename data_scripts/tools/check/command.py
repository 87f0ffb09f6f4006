"""``python -m data_scripts check DIR``: tell in plain words what a dataset holds and what is wrong with it.

Ends with 0 when nothing is wrong, 1 when something is (and says all of it), 2 when it could not look.
"""

from __future__ import annotations

import hashlib
import json
import os
import shlex
import tempfile
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import tyro

from data_scripts.tools.check.report import FolderReport, Layouts, Report, describe
from data_scripts.tools.folder_ops import in_parallel
from ganvas.data.layout import (
    ANY_LAYOUT,
    SPLITS,
    Layout,
    find_layout,
    find_shards,
    layouts_of,
    require_both,
    split_folder,
    splits,
    subfolders,
)
from ganvas.data.listing import Listing, describe_empty, describe_unread, holds_images, list_folder, stem
from ganvas.errors import UserError
from ganvas.messages import describe_missing, join_first

if TYPE_CHECKING:
    import numpy as np

    from data_scripts.tools.check.duplicates import NearDuplicates, Sample
    from ganvas.data.palette import Color

ANY_VALUES = (float("-inf"), float("inf"))  # that are numbers
NO_VALUES = (float("inf"), float("-inf"))
OWN_RANGES = {"uint8": "0:255", "uint16": "0:65535", "float32": "0:1"}


@dataclass(frozen=True)
class CheckOptions:
    """Tell what a dataset holds and what is wrong with it."""

    data: tyro.conf.Positional[Path]
    """The dataset's folder."""
    json: bool = False
    """Print one JSON object instead of words."""


@dataclass(frozen=True)
class Folder:
    """A folder of images.

    Attributes:
        name: Its place in the dataset: "trainA", "train/a".
        split: "train", "val" or "test".
        domain: "a" or "b"; the name of one of several sources; "" of A|B images.
        listing: What it holds.
    """

    name: str
    split: str
    domain: str
    listing: Listing


@dataclass(frozen=True)
class Found:
    """The folders of a dataset.

    Attributes:
        folders: By name.
        problems: What is wrong with where they lie.
        notes: What is worth knowing about it.
        sources: Of several sources, the options that a training needs: their folders, and the target's last.
    """

    folders: dict[str, Folder]
    problems: list[str]
    notes: list[str]
    sources: tuple[str, ...] = ()


@dataclass(frozen=True)
class Place:
    """Where a image lies, and where its views do.

    Attributes:
        folder: Its folder.
        path: The file.
        views: Rows of its small views: one, or one of each half of an A|B image.
    """

    folder: Folder
    path: Path
    views: tuple[int, ...]


@dataclass(frozen=True)
class Picture:
    """One file, decoded; or why it could not be read.

    Attributes:
        place: Where it lies.
        width: In pixels, as are the following.
        height: Its height.
        channels: Of the pixels, after conversions.
        depth: Type of the values.
        low: Least value but for sentinels, in the file's own units, as is the following. Above ``high`` if there is
            none.
        high: Greatest value.
        conversions: What is converted or left out when it is read: see `ganvas.data.raster.Raster`; and "profile".
        has_colour: Whether any pixel's channels differ.
        digest: Of the pixels.
        is_drawn: Whether it, or one of its halves, is in flat colors of the legend.
        error: Empty where it could be read.
        sentinels: Values that look like marks of missing data, with their pixels.
    """

    place: Place
    width: int = 0
    height: int = 0
    channels: int = 0
    depth: str = ""
    low: float = 0.0
    high: float = 0.0
    conversions: tuple[str, ...] = ()
    has_colour: bool = False
    digest: str = ""
    is_drawn: bool = False
    error: str = ""
    sentinels: Mapping[float, int] = field(default_factory=dict)


def main(argv: Sequence[str]) -> int:
    """Check a dataset; give the exit code.

    Raises:
        UserError: There is no folder, or no dataset in it.
    """
    options = tyro.cli(
        CheckOptions, prog="python -m data_scripts check", args=list(argv), config=(tyro.conf.FlagCreatePairsOff,)
    )
    report = inspect(options.data)
    if options.json:
        print(json.dumps(asdict(report)))
    else:
        print("\n".join(describe(options.data, report)))
    return 1 if report.problems else 0


def inspect(root: Path) -> Report:
    """Decode every image of a dataset and look for what would hurt a training.

    Raises:
        UserError: There is no folder, or no dataset in it.
    """
    if not root.is_dir():
        raise UserError(f"{root}: {describe_missing(root, 'folder')}. Give the folder of a dataset.")
    from data_scripts.tools.check.digits import find_digits, inspect_digits

    digits = find_digits(root)
    if digits:
        return inspect_digits(digits)
    found = find_folders(root)
    if not found.folders and not found.problems:
        raise UserError(f"{root}: holds no dataset{_shards(root)}. Expected {ANY_LAYOUT}, or the idx files of MNIST.")
    return _inspect_pictures(root, found)


def _inspect_pictures(root: Path, found: Found) -> Report:
    import numpy as np

    from data_scripts.tools.check.duplicates import SIDE, find_near_duplicates

    legend, not_described = _legend(root)
    folders = found.folders
    partners = _partners(folders.values())
    layout = _layout(found, partners)
    places = _places(folders.values())
    rows = sum(len(place.views) for place in places)
    # Views of a million images would crowd the memory; a file's pages give way.
    with tempfile.TemporaryFile() as file:
        views = np.memmap(file, np.uint8, "w+", shape=(max(1, rows), SIDE, SIDE))
        looked = list(in_parallel(lambda place: _look(place, views, list(legend.values())), places, "decoding"))
        pictures: dict[str, list[Picture]] = {name: [] for name in folders}
        for picture in looked:
            pictures[picture.place.folder.name].append(picture)
        samples = list(_samples(root, layout, folders.values(), pictures))
        near = find_near_duplicates(samples, views)
    identical = _identical(samples)
    sentinels = _sentinels(pictures)
    problems = [
        *not_described,
        *found.problems,
        *(f"{name}: {describe_empty(folder.listing.unread)}" for name, folder in folders.items() if not pictures[name]),
        *_unreadable(root, looked),
        *(_same_names(pictures) if layout != "unpaired folders" else []),
        *(_partner_problems(partners, pictures) if layout == "paired folders" else []),
        *(_not_sources(found) if layout == "unpaired folders" else []),
        *_odd_widths(root, looked),
        *_mixed_kinds(pictures),
        *_kinds_apart(folders.values(), pictures),
        *_identical_problems(identical),
        *_near_words([each for each in near if each.across_splits], "across splits"),
        *_sentinel_words(sentinels, known=True),
    ]
    notes = [
        *found.notes,
        *_sentinel_words(sentinels, known=False),
        *_unread_notes(folders.values()),
        *_legend_notes(legend, looked),
        *_conversions(pictures),
        *_colourless(pictures),
        *_float_ranges(layout, folders.values(), pictures),
        *_near_words([each for each in near if not each.across_splits], "within a split"),
    ]
    groups = [[sample.name for sample in group] for group in identical]
    return Report(
        layout,
        {name: _summary(files) for name, files in pictures.items()},
        problems,
        notes,
        groups,
        near,
        list(found.sources),
    )


def _legend(root: Path) -> tuple[Mapping[str, Color], list[str]]:
    """Give the legend in dataset.json, and what is wrong with that file."""
    from ganvas.data.paired import dataset_info
    from ganvas.data.palette import parse_palette

    try:
        return parse_palette(dataset_info(root)), []
    except UserError as error:
        return {}, [_within(root, error)]


# --- folders ---------------------------------------------------------------------------------------------------------


def find_folders(root: Path) -> Found:
    """Find the folders of images as a training does, and the folders of several sources, which it is told of."""
    found = Found({}, [], [])
    stacks: dict[str, tuple[str, ...]] = {}  # by split
    present = splits(root)
    for split in present:
        layouts = layouts_of(root, split)
        stack = _stack(root, split, layouts)
        if stack:
            stacks[split] = stack
            target = len(stack) - 1
            sources = [(split_folder(root, split, name), name if i < target else "b") for i, name in enumerate(stack)]
            _add(found, root, split, sources)
            continue
        try:
            layout = find_layout(root, split)
            if layout.kind == "two folders":
                require_both(*layout.paths)
                _note_other_folders(found, root, split, layout)
        except UserError as error:
            found.problems.append(_within(root, error))
        for layout in layouts:
            if layout.kind == "shards":
                found.notes.append(f"{split}: shards are not looked into; check the folder that they were packed from")
            else:
                domains = "ab" if layout.kind == "two folders" else [""]
                _add(found, root, split, zip(layout.paths, domains, strict=True))
    if not stacks:
        return found
    first, stack = next(iter(stacks.items()))
    apart = [split for split in present if stacks.get(split) != stack]
    names = " ".join([*(f"--source {name}" for name in stack[:-1]), f"--target {stack[-1]}"])
    found.notes.append(f"several sources: train with {names}")
    for split in apart:
        found.problems.append(f"{split}: has other folders than {first}; {names} needs the same in every split")
    return Found(found.folders, found.problems, found.notes, stack)


def _add(found: Found, root: Path, split: str, folders: Iterable[tuple[Path, str]]) -> None:
    for path, domain in folders:
        if path.is_dir():
            name = path.relative_to(root).as_posix()
            found.folders[name] = Folder(name, split, domain, list_folder(path))


def _stack(root: Path, split: str, layouts: Sequence[Layout]) -> tuple[str, ...]:
    """Find the folders of several sources in a split, and the target's last; none where there are no such folders.

    They are DIR/train/NAME, with DIR/train/b or, of other names, the last one as the target.
    """
    if len(layouts) != 1 or layouts[0].kind == "shards":
        return ()
    (layout,) = layouts
    outer = layout.paths[-1].parent if layout.kind == "two folders" else layout.paths[0]
    if outer.parent != root or outer.name.casefold() != split:
        return ()
    names = [folder.name for folder in subfolders(outer)]
    if layout.kind == "side by side":
        return tuple(names) if len(names) > 1 and not holds_images(outer) else ()
    a, b = layout.paths
    sources = [name for name in names if name != b.name]
    return (*sources, b.name) if sources and b.is_dir() and not a.is_dir() else ()


def _note_other_folders(found: Found, root: Path, split: str, layout: Layout) -> None:
    outer = layout.paths[0].parent
    if outer != root and outer == layout.paths[1].parent:
        others = [folder.name for folder in subfolders(outer) if folder not in layout.paths]
        if others:
            where = outer.relative_to(root).as_posix()
            found.notes.append(f"{where}: {join_first(others)} are read only by a training that names them (--source)")


def _not_sources(found: Found) -> Iterable[str]:
    if found.sources:
        yield (
            f"the folders {join_first(found.sources)} are neither a and b, nor several sources, whose images share "
            "names; only dcgan reads folders of other names, as classes"
        )


def _within(root: Path, error: UserError) -> str:
    """Return a message with paths as they are inside of the dataset, and without its period."""
    return str(error).replace(f"{root}{os.sep}", "").removesuffix(".")


def _places(folders: Iterable[Folder]) -> list[Place]:
    places, row = [], 0
    for folder in folders:
        views = 1 if folder.domain else 2
        for path in folder.listing.images:
            places.append(Place(folder, path, tuple(range(row, row + views))))
            row += views
    return places


def _shards(root: Path) -> str:
    there = any(find_shards(root, split) for split in SPLITS)
    return " but shards; check the folder that they were packed from" if there else ""


def _partners(folders: Iterable[Folder]) -> list[tuple[Folder, Folder]]:
    """Pair the folders of a split: those of a and b, or the first of several with each other one."""
    by_split: dict[str, list[Folder]] = defaultdict(list)
    for folder in folders:
        if folder.domain:
            by_split[folder.split].append(folder)
    return [(first, other) for first, *others in by_split.values() for other in others]


def _layout(found: Found, partners: Sequence[tuple[Folder, Folder]]) -> Layouts:
    """Take two folders for pairs when most of the smaller one's names are in the other, too.

    Beside A|B images, and with several sources and a target b, they can be nothing else.
    """
    if not any(folder.domain for folder in found.folders.values()):
        return "side by side"
    stems = [[{stem(path.name) for path in folder.listing.images} for folder in pair] for pair in partners]
    shared = sum(len(a & b) for a, b in stems)
    smaller = sum(min(len(a), len(b)) for a, b in stems)
    must_be_pairs = found.sources[-1:] == ("b",) or any(not folder.domain for folder in found.folders.values())
    return "paired folders" if must_be_pairs or smaller == 0 or shared * 2 > smaller else "unpaired folders"


# --- images --------------------------------------------------------------------------------------------------------


def _look(place: Place, views: np.ndarray, legend: Sequence[Color]) -> Picture:
    """Decode a image, and put what is compared of it into its rows of ``views``."""
    import numpy as np

    from data_scripts.tools.check.duplicates import view
    from ganvas.data.decode import read_raster
    from ganvas.data.palette import is_flat
    from ganvas.data.sentinels import find_sentinels, range_without
    from ganvas.data.tensors import require_range
    from ganvas.data.tiff_tags import is_color_managed

    try:
        picture = read_raster(place.path)
        array = require_range(picture.array, ANY_VALUES, f"{place.path}:")
    except UserError as error:
        return Picture(place, error=str(error).removeprefix(f"{place.path}: "))
    H, W, C = array.shape
    parts = [] if W % len(place.views) else np.split(array, len(place.views), axis=1)
    for row, part in zip(place.views, parts, strict=False):
        views[row] = view(part)
    digest = hashlib.sha256(f"{array.shape}{array.dtype}".encode() + array.tobytes()).hexdigest()
    has_colour = C > 1 and bool((array != array[:, :, :1]).any())
    is_drawn = any(is_flat(part, legend) for part in parts)
    sentinels = find_sentinels(array)
    low, high = range_without(array, sentinels) or NO_VALUES
    conversions = (*picture.conversions, "profile") if is_color_managed(picture.tags) else picture.conversions
    kind = str(array.dtype)
    return Picture(place, W, H, C, kind, low, high, conversions, has_colour, digest, is_drawn, sentinels=sentinels)


def _samples(
    root: Path, layout: Layouts, folders: Iterable[Folder], pictures: Mapping[str, Sequence[Picture]]
) -> Iterable[Sample]:
    """Yield what a training takes together: both halves, the images of one name in all folders, or one image."""
    together: dict[object, list[Folder]] = defaultdict(list)
    for folder in folders:
        together[folder.split if layout == "paired folders" and folder.domain else folder.name].append(folder)
    for group in together.values():
        by_key: dict[object, list[Picture]] = defaultdict(list)
        for picture in (picture for folder in group for picture in pictures[folder.name] if not picture.error):
            by_key[stem(picture.place.path.name) if len(group) > 1 else picture.place.path].append(picture)
        yield from (_sample(root, alike) for alike in by_key.values() if len(alike) == len(group))


def _sample(root: Path, pictures: Sequence[Picture]) -> Sample:
    from data_scripts.tools.check.duplicates import Sample

    return Sample(
        name=pictures[0].place.path.relative_to(root).as_posix(),
        split=pictures[0].place.folder.split,
        content=tuple(picture.digest for picture in pictures),
        views=tuple(row for picture in pictures for row in picture.place.views),
    )


# --- problems --------------------------------------------------------------------------------------------------------


def _unreadable(root: Path, pictures: Iterable[Picture]) -> Iterable[str]:
    for picture in pictures:
        if picture.error:
            yield f"{picture.place.path.relative_to(root).as_posix()}: {picture.error}"


def _same_names(pictures: Mapping[str, list[Picture]]) -> Iterable[str]:
    """Find x.jpg beside x.png: a pair is known by its name without suffix."""
    for name, files in pictures.items():
        counts = Counter(stem(picture.place.path.name) for picture in files)
        twice = sorted(name for name, count in counts.items() if count > 1)
        if twice:
            how = "different suffixes or encodings of accents"
            yield f"{name}: {len(twice)} names are used twice, with {how} ({join_first(twice)})"


def _partner_problems(
    partners: Iterable[tuple[Folder, Folder]], pictures: Mapping[str, list[Picture]]
) -> Iterable[str]:
    for a, b in partners:
        sides = [{stem(p.place.path.name): p for p in pictures[folder.name]} for folder in (a, b)]
        for name, other, mine, theirs in ((a.name, b.name, sides[0], sides[1]), (b.name, a.name, sides[1], sides[0])):
            alone = sorted(mine.keys() - theirs.keys())
            if alone:
                yield f"{name}: {len(alone)} images have no partner in {other} ({join_first(alone)})"
        shared = {key: (sides[0][key], sides[1][key]) for key in sorted(sides[0].keys() & sides[1].keys())}
        differ = [
            key
            for key, (one, two) in shared.items()
            if not (one.error or two.error) and (one.width, one.height) != (two.width, two.height)
        ]
        if differ:
            yield f"{a.name} and {b.name}: {len(differ)} pairs differ in size ({join_first(differ)})"


def _odd_widths(root: Path, pictures: Iterable[Picture]) -> Iterable[str]:
    odd: dict[str, list[str]] = defaultdict(list)
    for picture in pictures:
        if picture.width % 2 and not picture.place.folder.domain:
            odd[picture.place.folder.name].append(picture.place.path.relative_to(root).as_posix())
    for name, paths in odd.items():
        yield f"{name}: {len(paths)} images have an odd width and do not split into A and B ({join_first(paths)})"


def _mixed_kinds(pictures: Mapping[str, list[Picture]]) -> Iterable[str]:
    """A few grayscale files among color ones, or other depths, are worth a look before a long training."""
    for name, files in pictures.items():
        kinds = defaultdict(list)
        for picture in files:
            if not picture.error:
                kinds[_kind(picture)].append(picture.place.path.name)
        usual = _usual_kind(files)
        for kind, names in kinds.items():
            if kind != usual:
                yield f"{name}: {len(names)} images are {kind} among {usual} ({join_first(names)})"


def _kinds_apart(folders: Iterable[Folder], pictures: Mapping[str, list[Picture]]) -> Iterable[str]:
    """Find splits whose images are of another kind than the same domain's in the first split."""
    first: dict[str, tuple[str, str]] = {}  # of each domain: folder and kind
    for folder in folders:
        kind = _usual_kind(pictures[folder.name])
        if kind:
            other, usual = first.setdefault(folder.domain, (folder.name, kind))
            if kind != usual:
                yield f"{folder.name}: images are {kind}, while those of {other} are {usual}"


def _identical(samples: Iterable[Sample]) -> list[list[Sample]]:
    """Group samples of the same pixels; across splits they make a test score a lie."""
    groups: dict[tuple[str, ...], list[Sample]] = defaultdict(list)
    for sample in samples:
        groups[sample.content].append(sample)
    return [group for group in groups.values() if len(group) > 1]


def _identical_problems(identical: Iterable[Sequence[Sample]]) -> Iterable[str]:
    found: dict[str, list[str]] = {"across splits": [], "within a split": []}
    for group in identical:
        across = len({sample.split for sample in group}) > 1
        found["across splits" if across else "within a split"].append(" = ".join(sample.name for sample in group))
    for where, examples in found.items():
        if examples:
            yield f"{len(examples)} groups of images with the same content {where} ({join_first(examples)})"


def _near_words(near: Sequence[NearDuplicates], where: str) -> Iterable[str]:
    if near:
        examples = [f"{e.first} ~ {e.second}, {e.bits} of 64 bits differ, likeness {e.likeness:.2f}" for e in near]
        yield f"{len(near)} pairs of near-duplicates {where} ({join_first(examples, '; ')})"


def _unread_notes(folders: Iterable[Folder]) -> Iterable[str]:
    for folder in folders:
        if folder.listing.images and folder.listing.unread.total():
            yield f"{folder.name}: {describe_unread(folder.listing.unread).removesuffix('.')}"


def _legend_notes(legend: Mapping[str, Color], pictures: Sequence[Picture]) -> Iterable[str]:
    """Tell what a legend does: strong heeds it in images that show its colors exactly, which no JPEG does."""
    drawn = sum(picture.is_drawn for picture in pictures)
    if legend and drawn:
        yield f"dataset.json has a legend; {drawn} of {len(pictures)} images are drawn in its colors"
    elif legend:
        yield "dataset.json has a legend, but no image is drawn in exactly its colors, so all are interpolated"


def _conversions(pictures: Mapping[str, list[Picture]]) -> Iterable[str]:
    said = {
        "transparency": "are transparent, and composed over white unless a training asks for their channels",
        "CMYK": "are CMYK, and become RGB",
        "palette": "have a palette, and become RGB",
        "animation": "are animations, of which only the first frame is read",
        "profile": "have an ICC color profile other than sRGB; values are used as they are, and translate copies the "
        "profile to its results",
    }
    for name, files in pictures.items():
        for conversion, words in said.items():
            names = [picture.place.path.name for picture in files if conversion in picture.conversions]
            if names:
                yield f"{name}: {len(names)} images {words} ({join_first(names)})"


def _colourless(pictures: Mapping[str, list[Picture]]) -> Iterable[str]:
    """Find color files that show no color, where most images do."""
    for name, files in pictures.items():
        files = [picture for picture in files if picture.channels == 3]
        gray = [picture.place.path.name for picture in files if not picture.has_colour]
        if 0 < 2 * len(gray) < len(files):
            yield f"{name}: {len(gray)} color files show no color ({join_first(gray)})"


@dataclass(frozen=True)
class Sentinel:
    """A value that looks like a mark of missing data in images of a folder.

    Attributes:
        folder: The folder's name.
        value: The value.
        pixels: How many pixels have it, and of how many in these images.
        files: The images.
    """

    folder: str
    value: float
    pixels: tuple[int, int]
    files: list[Path]


def _sentinels(pictures: Mapping[str, list[Picture]]) -> list[Sentinel]:
    found = []
    for name, files in pictures.items():
        for value in sorted({value for picture in files for value in picture.sentinels}):
            # An image of nothing else shows no border: beside those that do, it lies beyond the data.
            having = [p for p in files if value in p.sentinels or (not p.error and p.low == p.high == value)]
            pixels = sum(p.sentinels.get(value, p.width * p.height) for p in having)
            total = sum(p.width * p.height for p in having)
            found.append(Sentinel(name, value, (pixels, total), [p.place.path for p in having]))
    return found


def _sentinel_words(sentinels: Iterable[Sentinel], *, known: bool) -> Iterable[str]:
    """Describe marks of missing data, known ones or borders of zeros, and how to name them in the files."""
    from ganvas.data.formats import TIFF_SUFFIXES
    from ganvas.data.sentinels import number

    for each in sentinels:
        if (each.value != 0) != known:
            continue
        names = join_first([path.name for path in each.files])
        share = each.pixels[0] / each.pixels[1]
        value = number(each.value)
        looks = "looks like a mark of missing data" if known else "forms borders and may mark missing data"
        how = "only TIFF can tag it: convert them, or replace the value"
        tiffs = [path for path in each.files if path.suffix.lower() in TIFF_SUFFIXES]
        if tiffs:
            file = shlex.quote(str(tiffs[0]))
            how = (
                f"if so, tag it in each, as by gdal_edit.py -a_nodata {value} {file} or (of rasterio) "
                f"rio edit-info --nodata={value} {file}"
            )
        where = f"in {len(each.files)} images, {share:.2g} of their pixels ({names})"
        yield f"{each.folder}: {value} {looks} {where}; {how}"


def _float_ranges(layout: Layouts, folders: Iterable[Folder], pictures: Mapping[str, list[Picture]]) -> Iterable[str]:
    """Name the options that floats beyond 0 to 1 need; a target that is given no range would take the source's."""
    sources: list[Picture] = []
    targets: list[Picture] = []
    for folder in folders:
        (targets if folder.domain == "b" else sources).extend(p for p in pictures[folder.name] if not p.error)
    source, target = _float_range(sources), _float_range(targets)
    options = [f"--value-range={source}"] if source else []
    if targets and target != source:
        own = OWN_RANGES[Counter(picture.depth for picture in targets).most_common(1)[0][0]]
        option = "--value-range-b" if layout == "unpaired folders" else "--target-range"
        options.append(f"{option}={target or own}")
    if options:
        without = (
            ", without what looks like marks of missing data" if any(p.sentinels for p in [*sources, *targets]) else ""
        )
        yield f"floats reach beyond 0 to 1{without}; train (A to B) with {' '.join(options)}"


def _float_range(pictures: Iterable[Picture]) -> str:
    """Return the range of the floats as an option has it, "-670:1420"; empty where they lie in 0 to 1."""
    from ganvas.data.arrays import TOLERANCE
    from ganvas.data.sentinels import number

    floats = [picture for picture in pictures if picture.depth == "float32" and picture.low <= picture.high]
    low = min((picture.low for picture in floats), default=0.0)
    high = max((picture.high for picture in floats), default=1.0)
    if low >= -TOLERANCE and high <= 1 + TOLERANCE:
        return ""
    return f"{number(low)}:{number(high)}"


def _summary(files: Sequence[Picture]) -> FolderReport:
    good = [picture for picture in files if not picture.error]
    sizes = Counter(f"{picture.width}x{picture.height}" for picture in good)
    converted = Counter(conversion for picture in good for conversion in picture.conversions)
    kinds = Counter(map(_kind, good))
    return FolderReport(len(files), dict(sizes.most_common()), dict(kinds.most_common()), dict(converted))


def _usual_kind(files: Iterable[Picture]) -> str:
    kinds = Counter(_kind(picture) for picture in files if not picture.error).most_common(1)
    return kinds[0][0] if kinds else ""


def _kind(picture: Picture) -> str:
    colours = {1: "grayscale", 3: "color"}.get(picture.channels, f"{picture.channels} channels")
    depth = {"uint8": "8-bit", "uint16": "16-bit", "float32": "float"}[picture.depth]
    return f"{depth} {colours}"
