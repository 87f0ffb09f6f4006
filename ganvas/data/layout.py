"""Where the images of a dataset's splits are. Every command uses this file, so that all accept the same datasets.

    DIR/train                         A|B images, side by side
    DIR/trainA, DIR/trainB            two folders of one split
    DIR/train/a, DIR/train/b
    DIR/A/train, DIR/B/train          as pytorch-CycleGAN-and-pix2pix has them before it combines them
    DIR/train-000000.tar, …           shards; see `ganvas.data.shards`

Splits are train, val and test. The names may be in lower case, upper case or capitalized (Train/A), since many file
systems do not distinguish these.
"""

import os
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Literal

from ganvas.data.listing import holds_images
from ganvas.errors import UserError
from ganvas.messages import describe_missing

SPLITS = ("train", "val", "test")
TWO_FOLDERS = "DIR/trainA and DIR/trainB, DIR/train/a and DIR/train/b, or DIR/A/train and DIR/B/train"
ANY_LAYOUT = f"DIR/train with A|B images, {TWO_FOLDERS}, or shards DIR/train-*.tar"


@dataclass(frozen=True)
class Layout:
    """The layout of one split.

    Attributes:
        kind: What the paths are.
        paths: The folder of A|B images; or the folders of A and B, of which one may be missing; or the shards.
    """

    kind: Literal["side by side", "two folders", "shards"]
    paths: tuple[Path, ...]

    def describe(self, root: Path) -> str:
        """Return the names of the folders, or of the first shard, relative to the dataset."""
        shown = self.paths[:1] if self.kind == "shards" else self.paths
        return " and ".join(path.relative_to(root).as_posix() for path in shown)


def require_both(a: Path, b: Path) -> None:
    """Check that the folders of both domains exist.

    Raises:
        UserError: One of them is missing.
    """
    for folder, other in ((a, b), (b, a)):
        if not folder.is_dir():
            also = f", while {other} exists. Both are needed" if other.is_dir() else f", and no {other} either"
            raise UserError(f"{folder}: {describe_missing(folder, 'folder')}{also}.")


def find_shards(root: Path, split: str) -> list[Path]:
    """List the shards of a split, sorted by name."""
    return sorted(root.glob(f"{split}-*.tar"))


def layouts_of(root: Path, split: str) -> list[Layout]:
    """List all layouts of a split: none if the dataset lacks it, several if it is ambiguous.

    DIR/A/train counts only if there is nothing else, since the other tool writes its combined images next to it. The
    same holds for DIR/train without images, which may exist for its subfolders.
    """
    found = [*_two_folders(root, "AB", f"{split}{{}}"), *_two_folders(root, "ab", split, "{}")]
    shards = find_shards(root, split)
    if shards:
        found.append(Layout("shards", tuple(shards)))
    side_by_side = [Layout("side by side", (folder,)) for folder in _existing(root, split)]
    found += [layout for layout in side_by_side if holds_images(layout.paths[0])]
    return found or _two_folders(root, "AB", "{}", split) or side_by_side


def _two_folders(root: Path, domains: Literal["AB", "ab"], *parts: str) -> list[Layout]:
    """Find the folders of both domains below the root by patterns of their names; one of them may be missing."""
    a, b = (_existing(root, *(part.format(domain) for part in parts)) for domain in domains)
    pairs = product(a or [_other_domain(path, root) for path in b], b or [_other_domain(path, root) for path in a])
    return [Layout("two folders", pair) for pair in pairs]


def find_layout(root: Path, split: str, expected: str = ANY_LAYOUT) -> Layout:
    """Return the layout of a split.

    Args:
        root: The dataset's folder.
        split: "train", "val" or "test".
        expected: The layouts that the caller supports, for messages.

    Raises:
        UserError: The folder or the split is missing, or the split has more than one layout.
    """
    if not root.is_dir():
        reason = "is a file" if root.is_file() else describe_missing(root, "folder")
        raise UserError(f"{root}: {reason}. Give --data the folder of a dataset ({expected}).")
    layouts = layouts_of(root, split)
    if not layouts:
        existing = ", ".join(splits(root)) or "none"
        raise UserError(f"{root}: has no split {split!r} (it has: {existing}). Expected {expected}.")
    if len(layouts) > 1:
        found = "; ".join(layout.describe(root) for layout in layouts)
        raise UserError(f"{root}: {split} is there in more than one layout ({found}). Keep one of them.")
    return layouts[0]


def splits(root: Path) -> list[str]:
    """List which of train, val and test a dataset has."""
    return [split for split in SPLITS if layouts_of(root, split)]


def split_folder(root: Path, split: str, name: str) -> Path:
    """Return the folder DIR/SPLIT/NAME in the spelling that exists, if any."""
    return next(iter(_existing(root, split, name)), root / split / name)


def subfolders(folder: Path) -> list[Path]:
    """List the folders in a folder, sorted by name, without hidden ones."""
    with os.scandir(folder) as entries:
        return sorted(folder / entry.name for entry in entries if not entry.name.startswith(".") and entry.is_dir())


def _existing(root: Path, *names: str) -> list[Path]:
    """List the folders of a path below the root, in all spellings of its names."""
    folders = [root]
    for name in names:
        folders = [inner for folder in folders for inner in _spellings(folder, name)]
    return folders


def _spellings(folder: Path, name: str) -> list[Path]:
    """List the existing spellings of a folder's name; those that the system treats as equal count once."""
    title = name.capitalize()
    found: list[Path] = []
    for spelling in dict.fromkeys((name, name.lower(), name.upper(), title, title[:-1] + name[-1])):
        path = folder / spelling
        if path.is_dir() and not any(path.samefile(other) for other in found):
            found.append(path)
    return found


def _other_domain(path: Path, root: Path) -> Path:
    """Return where the folder of the other domain would be: B of A, in the same case."""
    *outer, last = path.relative_to(root).parts
    swap = str.maketrans("abAB", "baBA")
    if last.casefold() in ("a", "b") or not outer:  # train/a or trainA
        return path.with_name(last[:-1] + last[-1].translate(swap))
    return root / outer[0].translate(swap) / last
