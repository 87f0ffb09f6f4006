"""The part of ``check`` for digits: the four idx files of MNIST and its like."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np

from data_scripts.tools.check.report import FolderReport, Report
from ganvas.data.digits import CLASSES, FILES, SIDE, TORCHVISION_FOLDERS, read_idx
from ganvas.errors import UserError
from ganvas.messages import join_first

UNBALANCED = 2  # times as many images of one class as of another: our choice
EMPTY_PICTURES, EMPTY_LABELS = np.empty((0, SIDE, SIDE), np.uint8), np.empty(0, np.uint8)

Split = tuple[np.ndarray, np.ndarray]


def find_digits(root: Path) -> dict[str, Path]:
    """Find idx files where people and torchvision keep them, gzipped or not; give them by name without ".gz".

    Args:
        root: The files are in it, in root/raw, root/MNIST/raw or root/FashionMNIST/raw.

    Returns:
        Those that are there, of the first folder that has any.
    """
    names = [name for pair in FILES.values() for name in pair]
    for folder in (root, root / "raw", *(root / name / "raw" for name in TORCHVISION_FOLDERS.values())):
        found = {name: path for name in names for path in (folder / f"{name}.gz", folder / name) if path.is_file()}
        if found:
            return found
    return {}


def inspect_digits(files: Mapping[str, Path]) -> Report:
    """Read all files, and look for what would hurt a training.

    Args:
        files: From `find_digits`.
    """
    problems: list[str] = []
    splits: dict[str, Split] = {}
    for split, (pictures, labels) in FILES.items():
        read = [_read(files, name, dimensions, problems) for name, dimensions in ((pictures, 3), (labels, 1))]
        splits[split] = (
            EMPTY_PICTURES if read[0] is None else read[0],
            EMPTY_LABELS if read[1] is None else read[1],
        )
    identical = _identical(splits)
    for split, values in splits.items():
        problems += _split_problems(split, *values)
    problems += _identical_problems(identical, splits)
    notes = [note for split, (_, labels) in splits.items() for note in _balance_notes(split, labels)]
    notes.append("Near-duplicates are not looked for: digits of 28 pixels are alike without being copies.")
    groups = [[f"{split} {index}" for split, index in group] for group in identical]
    return Report("digits", {split: _summary(*both) for split, both in splits.items()}, problems, notes, groups)


def _read(files: Mapping[str, Path], name: str, dimensions: int, problems: list[str]) -> np.ndarray | None:
    if name not in files:
        problems.append(f"{name}: is missing")
        return None
    try:
        return read_idx(files[name], dimensions)
    except UserError as error:
        problems.append(str(error))
        return None


def _split_problems(split: str, pictures: np.ndarray, labels: np.ndarray) -> Iterator[str]:
    N, H, W = pictures.shape
    if len(labels) and N and len(labels) != N:
        yield f"{split}: there are {len(labels)} labels for {N} images"
    if (H, W) != (SIDE, SIDE):
        yield f"{split}: images are {W}x{H}; dcgan expects {SIDE}x{SIDE}"
    outside = np.flatnonzero(labels >= CLASSES)
    if len(outside):
        some = [f"label {index} is {labels[index]}" for index in outside]
        yield f"{split}: {len(outside)} labels are beyond 0 to {CLASSES - 1} ({join_first(some)})"
    missing = sorted(set(range(CLASSES)) - set(labels.tolist()))
    if missing and len(labels):
        yield f"{split}: has no image of {', '.join(map(str, missing))}"
    blank = np.flatnonzero((pictures == pictures[:, :1, :1]).all(axis=(1, 2)))
    if len(blank):
        yield f"{split}: {len(blank)} images are blank ({join_first([str(index) for index in blank])})"


def _balance_notes(split: str, labels: np.ndarray) -> Iterator[str]:
    counts = np.bincount(labels, minlength=CLASSES)[:CLASSES]
    least, most = int(counts.argmin()), int(counts.argmax())
    if 0 < counts[least] * UNBALANCED < counts[most]:
        yield f"{split}: classes are unbalanced, {counts[most]} of {most} and {counts[least]} of {least}"


def _identical(splits: Mapping[str, Split]) -> list[list[tuple[str, int]]]:
    """Group images of the same pixels."""
    places: dict[bytes, list[tuple[str, int]]] = defaultdict(list)
    for split, (pictures, _) in splits.items():
        for index, picture in enumerate(pictures):
            places[picture.tobytes()].append((split, index))
    return [group for group in places.values() if len(group) > 1]


def _identical_problems(identical: list[list[tuple[str, int]]], splits: Mapping[str, Split]) -> Iterator[str]:
    across = [group for group in identical if len({split for split, _ in group}) > 1]
    within = [group for group in identical if len({split for split, _ in group}) == 1]
    for found, where in ((across, "across splits"), (within, "within a split")):
        if found:
            examples = [" = ".join(f"{split} {index}" for split, index in group) for group in found]
            yield f"{len(found)} groups of images with the same content {where} ({join_first(examples)})"
    labelled = {
        f"{' = '.join(f'{split} {index}' for split, index in group)}": {
            int(splits[split][1][index]) for split, index in group if index < len(splits[split][1])
        }
        for group in identical
    }
    torn = [
        f"{names} as {' and '.join(map(str, sorted(labels)))}" for names, labels in labelled.items() if len(labels) > 1
    ]
    if torn:
        yield f"{len(torn)} groups of images with the same content have different labels ({join_first(torn)})"


def _summary(pictures: np.ndarray, labels: np.ndarray) -> FolderReport:
    N, H, W = pictures.shape
    sizes, kinds = ({f"{W}x{H}": N}, {"8-bit grayscale": N}) if N else ({}, {})
    counts = np.bincount(labels, minlength=CLASSES).tolist() if len(labels) else []
    return FolderReport(N, sizes, kinds, classes={str(number): count for number, count in enumerate(counts)})
