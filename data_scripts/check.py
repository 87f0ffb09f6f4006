"""``python -m data_scripts check DIR``: tell in plain words what a data set holds and what is wrong with it.

Ends with 0 when nothing is wrong, 1 when something is (and says all of it), 2 when it could not look.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Literal

import tyro

from ganvas.errors import UserError

SPLITS = ("train", "val", "test")
NAMED = 3  # examples that a problem names
Layout = Literal["side by side", "paired folders", "unpaired folders"]


@dataclass(frozen=True)
class CheckOptions:
    """Tell what a data set holds and what is wrong with it."""

    data: tyro.conf.Positional[Path]
    """The data set's folder."""
    json: bool = False
    """Print one JSON object instead of words."""


@dataclass(frozen=True)
class Picture:
    """One file, decoded: its size, channels, depth and content; or why it could not be read."""

    path: Path
    width: int = 0
    height: int = 0
    channels: int = 0
    depth: str = ""
    digest: str = ""
    error: str = ""


@dataclass(frozen=True)
class FolderReport:
    """What one folder of pictures holds, each kind with its count."""

    pictures: int
    sizes: dict[str, int]
    kinds: dict[str, int]


@dataclass(frozen=True)
class Report:
    """What a data set holds, and everything that is wrong with it in one sentence each."""

    layout: Layout
    folders: dict[str, FolderReport]
    problems: list[str] = field(default_factory=list)


def main(argv: Sequence[str]) -> int:
    """Check a data set; give the exit code.

    Raises:
        UserError: There is no folder, or no data set in it.
    """
    options = tyro.cli(CheckOptions, prog="python -m data_scripts check", args=list(argv))
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
    folders = _folders(root)
    if not folders:
        raise UserError(
            f"{root}: holds no data set. Expected train/ with A|B pictures, trainA/ and trainB/, or train/a and b."
        )
    pictures = _decode_all(folders)
    partners = _partners(folders)
    layout = _layout(folders, partners)
    problems = [
        *(f"{name}: holds no pictures" for name, files in pictures.items() if not files),
        *_unreadable(root, pictures),
        *(_same_names(pictures) if layout != "unpaired folders" else []),
        *_partner_problems(layout, partners, pictures),
        *(_odd_widths(root, pictures) if layout == "side by side" else []),
        *_mixed_kinds(pictures),
        *_duplicates(root, pictures),
    ]
    return Report(layout, {name: _summary(files) for name, files in pictures.items()}, problems)


def describe(root: Path, report: Report) -> list[str]:
    """Put a report into words, a line each."""
    lines = [f"{root}: {report.layout}"]
    for name, folder in report.folders.items():
        sizes = _counted(folder.sizes)
        lines.append(f"  {name}: {folder.pictures} pictures; {sizes}; {_counted(folder.kinds)}")
    if not report.problems:
        return [*lines, "Nothing is wrong."]
    return [*lines, f"{len(report.problems)} problems:", *(f"  {problem}" for problem in report.problems)]


def _folders(root: Path) -> dict[str, Path]:
    """Find the folders of pictures by name: "train", or "trainA" and "trainB", or "train/a" and "train/b"."""
    found = {}
    for split in SPLITS:
        for name in (f"{split}A", f"{split}B", f"{split}/a", f"{split}/b"):
            if (root / name).is_dir():
                found[name] = root / name
        if (root / split).is_dir() and f"{split}/a" not in found and f"{split}/b" not in found:
            found[split] = root / split
    return found


def _decode_all(folders: Mapping[str, Path]) -> dict[str, list[Picture]]:
    """Decode all pictures, several at a time, with a progress bar on standard error."""
    from rich.console import Console
    from rich.progress import Progress

    from ganvas.data.images import list_images

    files = {name: list_images(folder) for name, folder in folders.items()}
    total = sum(len(each) for each in files.values())
    with (
        Progress(console=Console(stderr=True), transient=True) as progress,
        ThreadPoolExecutor(os.cpu_count()) as pool,
    ):
        task = progress.add_task("decoding", total=total)

        def look(path: Path) -> Picture:
            picture = _decode(path)
            progress.advance(task)
            return picture

        return {name: list(pool.map(look, each)) for name, each in files.items()}


def _decode(path: Path) -> Picture:
    from ganvas.data.images import read_image

    try:
        array = read_image(path)
    except UserError as error:
        return Picture(path, error=str(error).removeprefix(f"{path}: "))
    H, W, C = array.shape
    digest = hashlib.sha256(f"{array.shape}{array.dtype}".encode() + array.tobytes()).hexdigest()
    return Picture(path, W, H, C, str(array.dtype), digest)


def _partners(folders: Mapping[str, Path]) -> list[tuple[str, str]]:
    """Pair the folders of two domains: ("trainA", "trainB"); a missing one is named all the same."""
    pairs = []
    for split in SPLITS:
        for a, b in ((f"{split}A", f"{split}B"), (f"{split}/a", f"{split}/b")):
            if a in folders or b in folders:
                pairs.append((a, b))
    return pairs


def _layout(folders: Mapping[str, Path], partners: Sequence[tuple[str, str]]) -> Layout:
    """Take two folders for pairs when most of the smaller one's names are in the other, too."""
    if not partners:
        return "side by side"
    from ganvas.data.images import list_images

    stems = [
        [{file.stem for file in list_images(folders[name])} if name in folders else set() for name in pair]
        for pair in partners
    ]
    shared = sum(len(a & b) for a, b in stems)
    smaller = sum(min(len(a), len(b)) for a, b in stems)
    return "paired folders" if smaller == 0 or shared * 2 > smaller else "unpaired folders"


def _unreadable(root: Path, pictures: Mapping[str, list[Picture]]) -> Iterable[str]:
    for files in pictures.values():
        for picture in files:
            if picture.error:
                yield f"{picture.path.relative_to(root)}: {picture.error}"


def _same_names(pictures: Mapping[str, list[Picture]]) -> Iterable[str]:
    """Find x.jpg beside x.png: a pair is known by its name without suffix."""
    for name, files in pictures.items():
        counts = Counter(picture.path.stem for picture in files)
        twice = sorted(stem for stem, count in counts.items() if count > 1)
        if twice:
            yield f"{name}: {len(twice)} names are used twice, with different suffixes ({_named(twice)})"


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
    sides = {picture.path.stem: picture for picture in first}, {picture.path.stem: picture for picture in second}
    for name, other, mine, theirs in ((a, b, *sides), (b, a, sides[1], sides[0])):
        alone = sorted(mine.keys() - theirs.keys())
        if alone:
            yield f"{name}: {len(alone)} pictures have no partner in {other} ({_named(alone)})"
    differ = [
        stem
        for stem in sorted(sides[0].keys() & sides[1].keys())
        if not (sides[0][stem].error or sides[1][stem].error)
        and (sides[0][stem].width, sides[0][stem].height) != (sides[1][stem].width, sides[1][stem].height)
    ]
    if differ:
        yield f"{a} and {b}: {len(differ)} pairs differ in size ({_named(differ)})"


def _odd_widths(root: Path, pictures: Mapping[str, list[Picture]]) -> Iterable[str]:
    for name, files in pictures.items():
        odd = [str(picture.path.relative_to(root)) for picture in files if picture.width % 2]
        if odd:
            yield f"{name}: {len(odd)} pictures have an odd width and do not split into A and B ({_named(odd)})"


def _mixed_kinds(pictures: Mapping[str, list[Picture]]) -> Iterable[str]:
    """A few grayscale files among colour ones, or other depths, are worth a look before a long training."""
    for name, files in pictures.items():
        kinds = defaultdict(list)
        for picture in files:
            if not picture.error:
                kinds[_kind(picture)].append(picture.path.name)
        usual = max(kinds, key=lambda kind: len(kinds[kind]), default="")
        for kind, names in kinds.items():
            if kind != usual:
                yield f"{name}: {len(names)} pictures are {kind} among {usual} ({_named(names)})"


def _duplicates(root: Path, pictures: Mapping[str, list[Picture]]) -> Iterable[str]:
    """Find pictures of the same content; across splits they make a test score a lie."""
    places: dict[str, list[tuple[str, Path]]] = defaultdict(list)
    for name, files in pictures.items():
        for picture in files:
            if picture.digest:
                places[picture.digest].append((name, picture.path.relative_to(root)))
    groups = [group for group in places.values() if len(group) > 1]
    across = [group for group in groups if len({_split(name) for name, _ in group}) > 1]
    within = [group for group in groups if len({_split(name) for name, _ in group}) == 1]
    for found, where in ((across, "across splits"), (within, "within a split")):
        if found:
            examples = [" = ".join(path.as_posix() for _, path in group) for group in found]
            yield f"{len(found)} groups of pictures with the same content {where} ({_named(examples)})"


def _split(folder: str) -> str:
    return next(split for split in SPLITS if folder.startswith(split))


def _summary(files: Sequence[Picture]) -> FolderReport:
    good = [picture for picture in files if not picture.error]
    sizes = Counter(f"{picture.width}x{picture.height}" for picture in good)
    return FolderReport(len(files), dict(sizes.most_common()), dict(Counter(map(_kind, good)).most_common()))


def _kind(picture: Picture) -> str:
    colours = {1: "grayscale", 3: "colour"}.get(picture.channels, f"{picture.channels} channels")
    depth = {"uint8": "8-bit", "uint16": "16-bit", "float32": "float"}[picture.depth]
    return f"{depth} {colours}"


def _counted(counts: Mapping[str, int]) -> str:
    """Name the commonest: "all 256x256", or "256x256 (90), 128x128 (3), …"."""
    if len(counts) == 1:
        return f"all {next(iter(counts))}"
    named = [f"{name} ({count})" for name, count in list(counts.items())[:NAMED]]
    return ", ".join(named) + (f" and {len(counts) - NAMED} more" if len(counts) > NAMED else "")


def _named(names: Sequence[str]) -> str:
    return ", ".join(names[:NAMED]) + (f" and {len(names) - NAMED} more" if len(names) > NAMED else "")
