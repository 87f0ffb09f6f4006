"""``python -m data_scripts combine A B --out DIR``: two folders of pictures become A|B pictures, side by side.

Training needs no such step, since it takes both folders as they are; other tools do. ``split`` is the way back.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import tyro

from data_scripts.chores import (
    Format,
    Output,
    by_name,
    find_pictures,
    named,
    read_description,
    require_room,
    suffix_for,
    write_folder,
)
from ganvas.errors import UserError

if TYPE_CHECKING:
    import numpy as np


@dataclass(frozen=True)
class CombineOptions:
    """Put pictures of equal names side by side, A left and B right."""

    folders: tyro.conf.Positional[tuple[Path, ...]]
    """Two folders, A and B, with the same subfolders if any; or one data set with trainA and trainB, or train/a and
    train/b, and so on."""
    out: Path
    """Folder to write: the pictures, or train, val and test with them."""
    format: Format = "png"
    """Of the pictures; what it does not hold in full depth becomes .tif. jpg and webp lose a little."""
    overwrite: bool = False
    """Replace all pictures in the folder."""


@dataclass(frozen=True)
class Pair:
    """Two pictures that belong together, and where they go: "train/x"."""

    name: str
    a: Path
    b: Path


def main(argv: Sequence[str]) -> int:
    """Combine two folders, or a data set; give the exit code.

    Raises:
        UserError: Folders that are missing, empty or not alike; an output that is in the way or cannot be written; or,
            when all others are written, pictures that could not be combined.
    """
    options = tyro.cli(
        CombineOptions, prog="python -m data_scripts combine", args=list(argv), config=(tyro.conf.FlagCreatePairsOff,)
    )
    out = require_room(options.out, options.folders, overwrite=options.overwrite)
    pairs = find_pairs(options.folders)
    description = read_description(options.folders[0]) if len(options.folders) == 1 else None

    def make(pair: Pair) -> Iterable[Output]:
        both = side_by_side(pair.a, pair.b)
        yield f"{pair.name}{suffix_for(both, f'.{options.format}')}", both

    write_folder(out, pairs, make, doing="combining", description=description)
    print(f"{out}: {len(pairs)} pairs, A left and B right")
    return 0


def find_pairs(folders: Sequence[Path]) -> list[Pair]:
    """List the pairs of two folders, or of one data set.

    Raises:
        UserError: A folder is missing or empty, is no data set in two folders, or a picture has no partner.
    """
    if len(folders) == 2:
        return match(folders[0], folders[1], "")
    if len(folders) != 1:
        raise UserError(f"combine was given {len(folders)} folders; expected two, A and B, or one data set.")
    from ganvas.data.paired import SPLITS

    root = folders[0]
    if not root.is_dir():
        raise UserError(f"{root}: there is no such folder.")
    halves = [
        (split, a, b)
        for split in SPLITS
        for a, b in ((root / f"{split}A", root / f"{split}B"), (root / split / "a", root / split / "b"))
        if a.is_dir() or b.is_dir()
    ]
    if not halves:
        raise UserError(f"{root}: has no trainA and trainB, nor train/a and train/b. Give two folders, or such a set.")
    if len({split for split, _, _ in halves}) < len(halves):
        raise UserError(f"{root}: has a split both ways, as in trainA and train/a. Remove one of them.")
    return [pair for split, a, b in halves for pair in match(a, b, f"{split}/")]


def match(a: Path, b: Path, prefix: str) -> list[Pair]:
    """Pair the pictures of two folders that lie in the same place under the same name, whatever the suffix.

    Args:
        a: Folder of the left pictures.
        b: Folder of the right ones.
        prefix: Comes before their names.

    Raises:
        UserError: A folder is missing or empty, a picture has no partner, or two of one folder have one name.
    """
    first, second = (by_name(folder, find_pictures(folder)) for folder in (a, b))
    alone = [(a, sorted(first.keys() - second.keys())), (b, sorted(second.keys() - first.keys()))]
    found = "; ".join(f"only in {folder}: {named(names)}" for folder, names in alone if names)
    if found:
        raise UserError(f"Pictures without a partner of the same name ({found}). Add, rename or remove them.")
    return [Pair(f"{prefix}{name}", first[name], second[name]) for name in sorted(first)]


def side_by_side(a: Path, b: Path) -> np.ndarray:
    """Read two pictures and give [H, 2W, C]; where one is in colour, a gray partner gets its channels, too.

    Raises:
        UserError: One cannot be read, or they differ in size, depth or channels.
    """
    import numpy as np

    from ganvas.data.images import read_image

    pictures = [read_image(path) for path in (a, b)]
    if {picture.shape[2] for picture in pictures} == {1, 3}:
        pictures = [np.broadcast_to(picture, (*picture.shape[:2], 3)) for picture in pictures]
    if len({(picture.shape, picture.dtype.name) for picture in pictures}) > 1:
        kinds = " and ".join(f"{p.shape[1]}x{p.shape[0]}, {p.shape[2]} channels of {p.dtype}" for p in pictures)
        raise UserError(f"{a} and {b}: differ ({kinds}); side by side, they have to be alike.")
    return np.hstack(pictures)
