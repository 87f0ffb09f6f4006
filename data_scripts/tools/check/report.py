"""What `check` finds out about a dataset, and how it is put into words."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from ganvas.messages import join_first

if TYPE_CHECKING:
    from data_scripts.tools.check.duplicates import NearDuplicates

Layouts = Literal["side by side", "paired folders", "unpaired folders", "digits"]


@dataclass(frozen=True)
class FolderReport:
    """What one folder of images, or one split of digits, holds; each kind with its count.

    Attributes:
        images: How many there are, readable or not.
        sizes: "256x256" and so on.
        kinds: Depth and colors: "8-bit color".
        converted: What is converted when it is read: palettes, CMYK, transparency.
        classes: Digits alone: images of each class.
    """

    pictures: int
    sizes: dict[str, int]
    kinds: dict[str, int]
    converted: dict[str, int] = field(default_factory=dict)
    classes: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Report:
    """What a dataset holds.

    Attributes:
        layout: How it lies on the disk.
        folders: By name.
        problems: What is wrong, in one sentence each.
        notes: What is worth knowing and need not be wrong.
        identical: Groups of images of exactly the same pixels, by name.
        near_duplicates: Images that show the same, with how sure that is.
        sources: Of several sources, their folders, and the target's last.
    """

    layout: Layouts
    folders: dict[str, FolderReport]
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    identical: list[list[str]] = field(default_factory=list)
    near_duplicates: list[NearDuplicates] = field(default_factory=list)
    sources: list[str] = field(default_factory=list)


def describe(root: Path, report: Report) -> list[str]:
    """Put a report into words, a line each."""
    lines = [f"{root}: {report.layout}"]
    for name, folder in report.folders.items():
        parts = [counted(part) for part in (folder.sizes, folder.kinds) if part]
        lines.append("; ".join([f"  {name}: {folder.pictures} images", *parts]))
        if folder.classes:
            lines.append("    of each class: " + ", ".join(f"{name} {count}" for name, count in folder.classes.items()))
    if report.notes:
        lines += ["Worth knowing:", *(f"  {note}" for note in report.notes)]
    if not report.problems:
        return [*lines, "Nothing is wrong."]
    return [*lines, f"{len(report.problems)} problems:", *(f"  {problem}" for problem in report.problems)]


def counted(counts: Mapping[str, int]) -> str:
    """Name the commonest: "all 256x256", or "256x256 (90), 128x128 (3) and 4 more"."""
    if len(counts) == 1:
        return f"all {next(iter(counts))}"
    return join_first([f"{name} ({count})" for name, count in counts.items()])
