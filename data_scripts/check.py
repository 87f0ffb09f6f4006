"""``python -m data_scripts check DIR``: tell in plain words what a data set holds and what is wrong with it.

Ends with 0 when nothing is wrong, 1 when something is (and says all of it), 2 when it could not look.
"""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import tyro

from data_scripts.chores import in_parallel, named
from data_scripts.findings import FolderReport, Layout, Report, describe
from ganvas.errors import UserError

if TYPE_CHECKING:
    import numpy as np

    from data_scripts.duplicates import NearDuplicates, Sample
    from ganvas.data.legend import Colour

SPLITS = ("train", "val", "test")
TARGETS = ("B", "/b")  # what a training makes, by domain
ANY_VALUES = (float("-inf"), float("inf"))  # that are numbers
OWN_RANGES = {"uint8": "0:255", "uint16": "0:65535", "float32": "0:1"}
EXPECTED = "train/ with A|B pictures, trainA/ and trainB/, train/a and b, or the idx files of MNIST"


@dataclass(frozen=True)
class CheckOptions:
    """Tell what a data set holds and what is wrong with it."""

    data: tyro.conf.Positional[Path]
    """The data set's folder."""
    json: bool = False
    """Print one JSON object instead of words."""


@dataclass(frozen=True)
class Place:
    """Where a picture lies, and where its views do.

    Attributes:
        folder: Name of its folder: "trainA".
        path: The file.
        views: Rows of its small views: one, or one of each half of an A|B picture.
    """

    folder: str
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
        low: Least value, in the file's own units, as is the following.
        high: Greatest value.
        conversion: What is converted when it is read: "palette", "CMYK", "transparency".
        has_colour: Whether any pixel's channels differ.
        digest: Of the pixels.
        is_drawn: Whether it, or one of its halves, is in flat colours of the legend.
        error: Empty where it could be read.
    """

    place: Place
    width: int = 0
    height: int = 0
    channels: int = 0
    depth: str = ""
    low: float = 0.0
    high: float = 0.0
    conversion: str = ""
    has_colour: bool = False
    digest: str = ""
    is_drawn: bool = False
    error: str = ""


def main(argv: Sequence[str]) -> int:
    """Check a data set; give the exit code.

    Raises:
        UserError: There is no folder, or no data set in it.
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
    """Decode every picture of a data set and look for what would hurt a training.

    Raises:
        UserError: There is no folder, or no data set in it.
    """
    if not root.is_dir():
        raise UserError(f"{root}: there is no such folder. Give the folder of a data set.")
    from data_scripts.check_digits import find_digits, inspect_digits

    digits = find_digits(root)
    if digits:
        return inspect_digits(digits)
    folders = _folders(root)
    if not folders:
        raise UserError(f"{root}: holds no data set{_shards(root)}. Expected {EXPECTED}.")
    return _inspect_pictures(root, folders)


def _inspect_pictures(root: Path, folders: Mapping[str, Path]) -> Report:
    import numpy as np

    from data_scripts.duplicates import SIDE, find_near_duplicates

    legend, not_described = _legend(root)
    partners = _partners(folders)
    layout = _layout(folders, partners)
    places = _places(folders)
    rows = sum(len(place.views) for place in places)
    # Views of a million pictures would crowd the memory; a file's pages give way.
    with tempfile.TemporaryFile() as file:
        views = np.memmap(file, np.uint8, "w+", shape=(max(1, rows), SIDE, SIDE))
        looked = list(in_parallel(lambda place: _look(place, views, list(legend.values())), places, "decoding"))
        pictures = {name: [picture for picture in looked if picture.place.folder == name] for name in folders}
        samples = list(_samples(root, layout, partners, pictures))
        near = find_near_duplicates(samples, views)
    identical = _identical(samples)
    problems = [
        *not_described,
        *(f"{name}: holds no pictures" for name, files in pictures.items() if not files),
        *_both_ways(folders),
        *_unreadable(root, looked),
        *(_same_names(pictures) if layout != "unpaired folders" else []),
        *_partner_problems(layout, partners, pictures),
        *_odd_widths(root, pictures),
        *_mixed_kinds(pictures),
        *_kinds_apart(pictures),
        *_identical_problems(identical),
        *_near_words([each for each in near if each.across_splits], "across splits"),
    ]
    notes = [
        *_legend_notes(legend, looked),
        *_conversions(pictures),
        *_colourless(pictures),
        *_float_ranges(layout, pictures),
        *_near_words([each for each in near if not each.across_splits], "within a split"),
    ]
    groups = [[sample.name for sample in group] for group in identical]
    return Report(layout, {name: _summary(files) for name, files in pictures.items()}, problems, notes, groups, near)


def _legend(root: Path) -> tuple[Mapping[str, Colour], list[str]]:
    """Give the legend in dataset.json, and what is wrong with that file."""
    from ganvas.data.legend import legend_of
    from ganvas.data.paired import dataset_info

    try:
        return legend_of(dataset_info(root)), []
    except UserError as error:
        return {}, [str(error).removeprefix(f"{root}/").removeprefix(f"{root}\\")]


# --- folders ---------------------------------------------------------------------------------------------------------


def _folders(root: Path) -> dict[str, Path]:
    """Find the folders of pictures by name: "train", or "trainA" and "trainB", or "train/a" and "train/b".

    Folders of other names in a split count when there is no picture beside them: they are several sources.
    """
    found: dict[str, Path] = {}
    for split in SPLITS:
        found |= {name: root / name for name in (f"{split}A", f"{split}B") if (root / name).is_dir()}
        if not (root / split).is_dir():
            continue
        inside = [path.name for path in sorted((root / split).iterdir()) if path.is_dir() and path.name[0] != "."]
        has_pictures = bool(_list(root / split))
        if {"a", "b"} & set(inside) or not has_pictures:
            found |= {f"{split}/{name}": root / split / name for name in inside}
        if has_pictures or not inside:
            found[split] = root / split
    return found


def _list(folder: Path) -> list[Path]:
    from ganvas.data.images import list_images

    return list_images(folder)


def _places(folders: Mapping[str, Path]) -> list[Place]:
    places, row = [], 0
    for name, folder in folders.items():
        views = 2 if name in SPLITS else 1
        for path in _list(folder):
            places.append(Place(name, path, tuple(range(row, row + views))))
            row += views
    return places


def _shards(root: Path) -> str:
    from ganvas.data.shards import find_shards

    there = any(find_shards(root, split) for split in SPLITS)
    return " but shards; check the folder that they were packed from" if there else ""


def _split(folder: str) -> str:
    return next(split for split in SPLITS if folder.startswith(split))


def _domain(folder: str) -> str:
    """Tell whose pictures a folder holds: "A" of "trainA", "/a" of "train/a", "" of "train"."""
    return folder.removeprefix(_split(folder))


def _partners(folders: Mapping[str, Path]) -> list[tuple[str, str]]:
    """Pair the folders of a split: ("trainA", "trainB"), or the first of several with each other one.

    Of a and b, a missing one is named all the same.
    """
    pairs = []
    for split in SPLITS:
        if f"{split}A" in folders or f"{split}B" in folders:
            pairs.append((f"{split}A", f"{split}B"))
        inside = [name for name in folders if name.startswith(f"{split}/")]
        if inside in ([f"{split}/a"], [f"{split}/b"]):
            inside = [f"{split}/a", f"{split}/b"]
        pairs += [(inside[0], other) for other in inside[1:]]
    return pairs


def _layout(folders: Mapping[str, Path], partners: Sequence[tuple[str, str]]) -> Layout:
    """Take two folders for pairs when most of the smaller one's names are in the other, too."""
    if not partners:
        return "side by side"
    stems = [
        [{file.stem for file in _list(folders[name])} if name in folders else set() for name in pair]
        for pair in partners
    ]
    shared = sum(len(a & b) for a, b in stems)
    smaller = sum(min(len(a), len(b)) for a, b in stems)
    return "paired folders" if smaller == 0 or shared * 2 > smaller else "unpaired folders"


# --- pictures --------------------------------------------------------------------------------------------------------


def _look(place: Place, views: np.ndarray, legend: Sequence[Colour]) -> Picture:
    """Decode a picture, and put what is compared of it into its rows of ``views``."""
    import numpy as np

    from data_scripts.duplicates import view
    from ganvas.data.images import read_image, require_range
    from ganvas.data.legend import is_flat

    try:
        array = require_range(read_image(place.path), ANY_VALUES, f"{place.path}:")
        conversion = _conversion(place.path)
    except UserError as error:
        return Picture(place, error=str(error).removeprefix(f"{place.path}: "))
    H, W, C = array.shape
    parts = [] if W % len(place.views) else np.split(array, len(place.views), axis=1)
    for row, part in zip(place.views, parts, strict=False):
        views[row] = view(part)
    digest = hashlib.sha256(f"{array.shape}{array.dtype}".encode() + array.tobytes()).hexdigest()
    has_colour = C > 1 and bool((array != array[:, :, :1]).any())
    is_drawn = any(is_flat(part, legend) for part in parts)
    low, high = float(array.min()), float(array.max())
    return Picture(place, W, H, C, str(array.dtype), low, high, conversion, has_colour, digest, is_drawn)


def _conversion(path: Path) -> str:
    """Name what is converted when a picture is read, which it can be."""
    from PIL import Image, UnidentifiedImageError

    from ganvas.data.images import TIFF_SUFFIXES
    from ganvas.data.tiff import has_alpha

    try:
        with Image.open(path) as file:
            if file.has_transparency_data:
                return "transparency"
            return {"P": "palette", "CMYK": "CMYK"}.get(file.mode, "")
    except UnidentifiedImageError:  # deep, or of many channels
        return "transparency" if path.suffix.lower() in TIFF_SUFFIXES and has_alpha(path) else ""


def _samples(
    root: Path, layout: Layout, partners: Sequence[tuple[str, str]], pictures: Mapping[str, Sequence[Picture]]
) -> Iterable[Sample]:
    """Give what a training takes together: both halves, the pictures of one name in all folders, or one picture."""
    together: dict[str, list[str]] = {}
    if layout == "paired folders":
        for pair in partners:
            names = together.setdefault(_split(pair[0]), [])
            names += [name for name in pair if name in pictures and name not in names]
    alone = [name for name in pictures if not any(name in names for names in together.values())]
    for names in (*together.values(), *([name] for name in alone)):
        by_key: dict[object, list[Picture]] = defaultdict(list)
        for picture in (picture for name in names for picture in pictures[name] if not picture.error):
            by_key[picture.place.path.stem if len(names) > 1 else picture.place.path].append(picture)
        yield from (_sample(root, names[0], group) for group in by_key.values() if len(group) == len(names))


def _sample(root: Path, folder: str, pictures: Sequence[Picture]) -> Sample:
    from data_scripts.duplicates import Sample

    return Sample(
        name=pictures[0].place.path.relative_to(root).as_posix(),
        split=_split(folder),
        content=tuple(picture.digest for picture in pictures),
        views=tuple(row for picture in pictures for row in picture.place.views),
    )


# --- problems --------------------------------------------------------------------------------------------------------


def _both_ways(folders: Iterable[str]) -> Iterable[str]:
    for split in SPLITS:
        names = [name for name in folders if _split(name) == split]
        ways = {f"{split}/a" if "/" in name else split if name == split else f"{split}A" for name in names}
        if len(ways) > 1:
            yield f"{split}: is there in more than one layout ({', '.join(sorted(ways))})"


def _unreadable(root: Path, pictures: Iterable[Picture]) -> Iterable[str]:
    for picture in pictures:
        if picture.error:
            yield f"{picture.place.path.relative_to(root).as_posix()}: {picture.error}"


def _same_names(pictures: Mapping[str, list[Picture]]) -> Iterable[str]:
    """Find x.jpg beside x.png: a pair is known by its name without suffix."""
    for name, files in pictures.items():
        counts = Counter(picture.place.path.stem for picture in files)
        twice = sorted(stem for stem, count in counts.items() if count > 1)
        if twice:
            yield f"{name}: {len(twice)} names are used twice, with different suffixes ({named(twice)})"


def _partner_problems(
    layout: Layout, partners: Sequence[tuple[str, str]], pictures: Mapping[str, list[Picture]]
) -> Iterable[str]:
    for a, b in partners:
        missing = [name for name in (a, b) if name not in pictures]
        if missing:
            yield f"{missing[0]}: is missing, while {b if missing[0] == a else a} is there"
        elif layout == "paired folders":
            yield from _unmatched(a, b, pictures[a], pictures[b])


def _unmatched(a: str, b: str, first: list[Picture], second: list[Picture]) -> Iterable[str]:
    sides = [{picture.place.path.stem: picture for picture in files} for files in (first, second)]
    for name, other, mine, theirs in ((a, b, sides[0], sides[1]), (b, a, sides[1], sides[0])):
        alone = sorted(mine.keys() - theirs.keys())
        if alone:
            yield f"{name}: {len(alone)} pictures have no partner in {other} ({named(alone)})"
    differ = [
        stem
        for stem in sorted(sides[0].keys() & sides[1].keys())
        if not (sides[0][stem].error or sides[1][stem].error)
        and (sides[0][stem].width, sides[0][stem].height) != (sides[1][stem].width, sides[1][stem].height)
    ]
    if differ:
        yield f"{a} and {b}: {len(differ)} pairs differ in size ({named(differ)})"


def _odd_widths(root: Path, pictures: Mapping[str, list[Picture]]) -> Iterable[str]:
    for name in SPLITS:
        odd = [p.place.path.relative_to(root).as_posix() for p in pictures.get(name, []) if p.width % 2]
        if odd:
            yield f"{name}: {len(odd)} pictures have an odd width and do not split into A and B ({named(odd)})"


def _mixed_kinds(pictures: Mapping[str, list[Picture]]) -> Iterable[str]:
    """A few grayscale files among colour ones, or other depths, are worth a look before a long training."""
    for name, files in pictures.items():
        kinds = defaultdict(list)
        for picture in files:
            if not picture.error:
                kinds[_kind(picture)].append(picture.place.path.name)
        usual = _usual_kind(files)
        for kind, names in kinds.items():
            if kind != usual:
                yield f"{name}: {len(names)} pictures are {kind} among {usual} ({named(names)})"


def _kinds_apart(pictures: Mapping[str, list[Picture]]) -> Iterable[str]:
    """Find splits whose pictures are of another kind than the same domain's in the first split."""
    first: dict[str, tuple[str, str]] = {}  # of each domain: folder and kind
    for name, files in pictures.items():
        kind = _usual_kind(files)
        if kind:
            other, usual = first.setdefault(_domain(name), (name, kind))
            if kind != usual:
                yield f"{name}: pictures are {kind}, while those of {other} are {usual}"


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
            yield f"{len(examples)} groups of pictures with the same content {where} ({named(examples)})"


def _near_words(near: Sequence[NearDuplicates], where: str) -> Iterable[str]:
    if near:
        examples = [f"{e.first} ~ {e.second}, {e.bits} of 64 bits differ, likeness {e.likeness:.2f}" for e in near]
        yield f"{len(near)} pairs of near-duplicates {where} ({named(examples, '; ')})"


def _legend_notes(legend: Mapping[str, Colour], pictures: Sequence[Picture]) -> Iterable[str]:
    """Tell what a legend does: strong heeds it in pictures that show its colours exactly, which no JPEG does."""
    drawn = sum(picture.is_drawn for picture in pictures)
    if legend and drawn:
        yield f"dataset.json has a legend; {drawn} of {len(pictures)} pictures are drawn in its colours"
    elif legend:
        yield "dataset.json has a legend, but no picture is drawn in exactly its colours, so all are interpolated"


def _conversions(pictures: Mapping[str, list[Picture]]) -> Iterable[str]:
    said = {
        "transparency": "are transparent, and composed over white unless a training asks for their channels",
        "CMYK": "are CMYK, and become RGB",
        "palette": "have a palette, and become RGB",
    }
    for name, files in pictures.items():
        for conversion, words in said.items():
            names = [picture.place.path.name for picture in files if picture.conversion == conversion]
            if names:
                yield f"{name}: {len(names)} pictures {words} ({named(names)})"


def _colourless(pictures: Mapping[str, list[Picture]]) -> Iterable[str]:
    """Find colour files that show no colour, where most pictures do."""
    for name, files in pictures.items():
        files = [picture for picture in files if picture.channels == 3]
        gray = [picture.place.path.name for picture in files if not picture.has_colour]
        if 0 < 2 * len(gray) < len(files):
            yield f"{name}: {len(gray)} colour files show no colour ({named(gray)})"


def _float_ranges(layout: Layout, pictures: Mapping[str, list[Picture]]) -> Iterable[str]:
    """Name the options that floats beyond 0 to 1 need; a target that is given no range would take the source's."""
    sources, targets = (
        [
            picture
            for name, files in pictures.items()
            if (_domain(name) in TARGETS) == is_target
            for picture in files
            if not picture.error
        ]
        for is_target in (False, True)
    )
    source, target = _float_range(sources), _float_range(targets)
    options = [f"--value-range={source}"] if source else []
    if targets and target != source:
        own = OWN_RANGES[Counter(picture.depth for picture in targets).most_common(1)[0][0]]
        option = "--value-range-b" if layout == "unpaired folders" else "--target-range"
        options.append(f"{option}={target or own}")
    if options:
        yield f"floats reach beyond 0 to 1; train (A to B) with {' '.join(options)}"


def _float_range(pictures: Iterable[Picture]) -> str:
    """Give the range of the floats as an option has it, "-670:1420"; empty where they lie in 0 to 1."""
    from ganvas.data.arrays import TOLERANCE

    floats = [picture for picture in pictures if picture.depth == "float32"]
    low = min((picture.low for picture in floats), default=0.0)
    high = max((picture.high for picture in floats), default=1.0)
    if low >= -TOLERANCE and high <= 1 + TOLERANCE:
        return ""
    return ":".join(_shortest(value) for value in (low, high))


def _shortest(value: float) -> str:
    """Write a float32 in as few digits as give it back."""
    import numpy as np

    return str(np.float32(value)).removesuffix(".0")


def _summary(files: Sequence[Picture]) -> FolderReport:
    good = [picture for picture in files if not picture.error]
    sizes = Counter(f"{picture.width}x{picture.height}" for picture in good)
    converted = Counter(picture.conversion for picture in good if picture.conversion)
    kinds = Counter(map(_kind, good))
    return FolderReport(len(files), dict(sizes.most_common()), dict(kinds.most_common()), dict(converted))


def _usual_kind(files: Iterable[Picture]) -> str:
    kinds = Counter(_kind(picture) for picture in files if not picture.error).most_common(1)
    return kinds[0][0] if kinds else ""


def _kind(picture: Picture) -> str:
    colours = {1: "grayscale", 3: "colour"}.get(picture.channels, f"{picture.channels} channels")
    depth = {"uint8": "8-bit", "uint16": "16-bit", "float32": "float"}[picture.depth]
    return f"{depth} {colours}"
