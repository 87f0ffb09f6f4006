"""The part of ``check`` for digits: the four idx files of MNIST and similar datasets."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np

from data_scripts.tools.check.report import FolderReport, Report
from ganvas.data.digits import CLASSES, FILES, SIDE, TORCHVISION_FOLDERS, read_idx
from ganvas.errors import UserError
from ganvas.messages import join_first

UNBALANCED = 2  # ratio of the largest to the smallest class: our choice

Split = tuple[np.ndarray, np.ndarray]  # images [N, 28, 28] and labels [N], uint8


def find_digits(root: Path) -> dict[str, Path]:
    """Find idx files, gzipped or not.

    Args:
        root: Folder with the files, or with them in root/raw, root/MNIST/raw or root/FashionMNIST/raw.

    Returns:
        The files of the first folder that has any, by name without ".gz".
    """
    names = [name for pair in FILES.values() for name in pair]
    for folder in (root, root / "raw", *(root / name / "raw" for name in TORCHVISION_FOLDERS.values())):
        found = {name: path for name in names for path in (folder / f"{name}.gz", folder / name) if path.is_file()}
        if found:
            return found
    return {}


def inspect_digits(files: Mapping[str, Path]) -> Report:
    """Read all files, and look for what would harm training.

    Args:
        files: Files from `find_digits`.
    """
    problems: list[str] = []
    splits: dict[str, Split] = {}
    for split, (images, labels) in FILES.items():
        splits[split] = (_read(files, images, (0, SIDE, SIDE), problems), _read(files, labels, (0,), problems))
    identical = _group_identical(splits)
    for split, values in splits.items():
        problems += _split_problems(split, *values)
    problems += _identical_problems(identical, splits)
    notes = [note for split, (_, labels) in splits.items() for note in _balance_notes(split, labels)]
    notes.append("Near-duplicates are not searched: digits of 28 pixels are similar without being copies.")
    groups = [[f"{split} {index}" for split, index in group] for group in identical]
    return Report("digits", {split: _summarize(*both) for split, both in splits.items()}, problems, notes, groups)


def _read(files: Mapping[str, Path], name: str, empty: tuple[int, ...], problems: list[str]) -> np.ndarray:
    """Read a file, or report the problem and return an empty array."""
    try:
        if name in files:
            return read_idx(files[name], len(empty))
        problems.append(f"{name}: is missing")
    except UserError as error:
        problems.append(str(error))
    return np.empty(empty, np.uint8)


def _split_problems(split: str, images: np.ndarray, labels: np.ndarray) -> Iterator[str]:
    N, H, W = images.shape
    if len(labels) and N and len(labels) != N:
        yield f"{split}: there are {len(labels)} labels for {N} images"
    if (H, W) != (SIDE, SIDE):
        yield f"{split}: images are {W}x{H}; dcgan expects {SIDE}x{SIDE}"
    outside = np.flatnonzero(labels >= CLASSES)
    if len(outside):
        examples = [f"label {index} is {labels[index]}" for index in outside]
        yield f"{split}: {len(outside)} labels are outside 0 to {CLASSES - 1} ({join_first(examples)})"
    missing = sorted(set(range(CLASSES)) - set(labels.tolist()))
    if missing and len(labels):
        yield f"{split}: has no image of {', '.join(map(str, missing))}"
    blank = np.flatnonzero((images == images[:, :1, :1]).all(axis=(1, 2)))
    if len(blank):
        yield f"{split}: {len(blank)} images are blank ({join_first([str(index) for index in blank])})"


def _balance_notes(split: str, labels: np.ndarray) -> Iterator[str]:
    counts = np.bincount(labels, minlength=CLASSES)[:CLASSES]
    least, most = int(counts.argmin()), int(counts.argmax())
    if 0 < counts[least] * UNBALANCED < counts[most]:
        yield f"{split}: classes are unbalanced, {counts[most]} of {most} and {counts[least]} of {least}"


def _group_identical(splits: Mapping[str, Split]) -> list[list[tuple[str, int]]]:
    groups: dict[bytes, list[tuple[str, int]]] = defaultdict(list)
    for split, (images, _) in splits.items():
        for index, image in enumerate(images):
            groups[image.tobytes()].append((split, index))
    return [group for group in groups.values() if len(group) > 1]


def _identical_problems(identical: list[list[tuple[str, int]]], splits: Mapping[str, Split]) -> Iterator[str]:
    found: dict[str, list[str]] = {"across splits": [], "within a split": []}
    conflicts = []
    for group in identical:
        names = " = ".join(f"{split} {index}" for split, index in group)
        is_across = len({split for split, _ in group}) > 1
        found["across splits" if is_across else "within a split"].append(names)
        labels = {int(splits[split][1][index]) for split, index in group if index < len(splits[split][1])}
        if len(labels) > 1:
            conflicts.append(f"{names} as {' and '.join(map(str, sorted(labels)))}")
    for where, examples in found.items():
        if examples:
            yield f"{len(examples)} groups of images with the same content {where} ({join_first(examples)})"
    if conflicts:
        yield f"{len(conflicts)} groups of images with the same content have different labels ({join_first(conflicts)})"


def _summarize(images: np.ndarray, labels: np.ndarray) -> FolderReport:
    N, H, W = images.shape
    sizes, kinds = ({f"{W}x{H}": N}, {"8-bit grayscale": N}) if N else ({}, {})
    counts = np.bincount(labels, minlength=CLASSES).tolist() if len(labels) else []
    return FolderReport(N, sizes, kinds, classes={str(number): count for number, count in enumerate(counts)})
