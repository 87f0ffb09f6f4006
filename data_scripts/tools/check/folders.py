"""The folders of a dataset, found as training finds them."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from data_scripts.tools.check.report import DatasetLayout
from ganvas.data.layout import (
    Layout,
    find_layout,
    layouts_of,
    require_both,
    split_folder,
    splits,
    subfolders,
)
from ganvas.data.listing import Listing, holds_images, list_folder, stem
from ganvas.errors import UserError
from ganvas.messages import join_first


@dataclass(frozen=True)
class Folder:
    """A folder of images.

    Attributes:
        name: Its path in the dataset: "trainA", "train/a".
        split: "train", "val" or "test".
        domain: "a" or "b"; the name of one of several sources; "" of A|B images.
        listing: Its files.
    """

    name: str
    split: str
    domain: str
    listing: Listing


@dataclass
class FolderSearch:
    """What `find_folders` found.

    Attributes:
        folders: Folders by name.
        problems: What is wrong with the layout.
        notes: What is worth knowing about it.
        sources: Of several sources, their folders and the target's last, as training takes them.
    """

    folders: dict[str, Folder] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    sources: tuple[str, ...] = ()

    def add(self, root: Path, split: str, path: Path, domain: str) -> None:
        """Add a folder if it exists."""
        if path.is_dir():
            name = path.relative_to(root).as_posix()
            self.folders[name] = Folder(name, split, domain, list_folder(path))


def find_folders(root: Path) -> FolderSearch:
    """Find a dataset's folders as training does, and the folders of several sources, which training is passed."""
    found = FolderSearch()
    stacks: dict[str, tuple[str, ...]] = {}  # sources and target by split
    present = splits(root)
    for split in present:
        layouts = layouts_of(root, split)
        stack = _find_sources(root, split, layouts)
        if stack:
            stacks[split] = stack
            for index, name in enumerate(stack):
                domain = name if index < len(stack) - 1 else "b"
                found.add(root, split, split_folder(root, split, name), domain)
            continue
        try:
            layout = find_layout(root, split)
            if layout.kind == "two folders":
                require_both(*layout.paths)
                _note_other_folders(found, root, layout)
        except UserError as error:
            found.problems.append(relative_message(root, error))
        for layout in layouts:
            if layout.kind == "shards":
                found.notes.append(f"{split}: shards are not checked; check the folder that they were packed from")
                continue
            for path, domain in zip(layout.paths, "ab" if layout.kind == "two folders" else [""], strict=True):
                found.add(root, split, path, domain)
    if stacks:
        first, found.sources = next(iter(stacks.items()))
        options = " ".join([*(f"--source {name}" for name in found.sources[:-1]), f"--target {found.sources[-1]}"])
        found.notes.append(f"several sources: train with {options}")
        found.problems += [
            f"{split}: has other folders than {first}; {options} needs the same in every split"
            for split in present
            if stacks.get(split) != found.sources
        ]
    return found


def _find_sources(root: Path, split: str, layouts: Sequence[Layout]) -> tuple[str, ...]:
    """Return the folders of several sources in a split and the target's last; empty if there are none.

    They are DIR/train/NAME, with DIR/train/b or else the last one as the target.
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


def _note_other_folders(found: FolderSearch, root: Path, layout: Layout) -> None:
    outer = layout.paths[0].parent
    if outer != root and outer == layout.paths[1].parent:
        others = [folder.name for folder in subfolders(outer) if folder not in layout.paths]
        if others:
            where = outer.relative_to(root).as_posix()
            found.notes.append(f"{where}: {join_first(others)} are read only if training names them (--source)")


def relative_message(root: Path, error: UserError) -> str:
    """Return an error's message with paths relative to the dataset, and without its period."""
    return str(error).replace(f"{root}{os.sep}", "").removesuffix(".")


def pair_folders(folders: Iterable[Folder]) -> list[tuple[Folder, Folder]]:
    """Pair the folders of each split: a with b, or the first of several with each of the others."""
    by_split: dict[str, list[Folder]] = defaultdict(list)
    for folder in folders:
        if folder.domain:
            by_split[folder.split].append(folder)
    return [(first, other) for first, *others in by_split.values() for other in others]


def layout_of(found: FolderSearch, pairs: Sequence[tuple[Folder, Folder]]) -> DatasetLayout:
    """Classify a dataset.

    Two folders are paired if most names of the smaller one are in the other; always if there are A|B images, too, or
    several sources and a target b.
    """
    has_halves = any(not folder.domain for folder in found.folders.values())
    if all(not folder.domain for folder in found.folders.values()):
        return "side by side"
    stems = [[{stem(path.name) for path in folder.listing.images} for folder in pair] for pair in pairs]
    shared = sum(len(a & b) for a, b in stems)
    smaller = sum(min(len(a), len(b)) for a, b in stems)
    is_paired = has_halves or found.sources[-1:] == ("b",) or smaller == 0 or shared * 2 > smaller
    return "paired folders" if is_paired else "unpaired folders"
