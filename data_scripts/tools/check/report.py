"""The findings of `check`, as text and as JSON."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from ganvas.messages import join_first

if TYPE_CHECKING:
    from data_scripts.tools.check.duplicates import NearDuplicates

DatasetLayout = Literal["side by side", "paired folders", "unpaired folders", "digits"]


@dataclass(frozen=True)
class FolderReport:
    """The images of one folder, or of one split of digits, counted.

    Attributes:
        images: All images, readable or not.
        sizes: Number of images by size, such as "256x256".
        kinds: Number by depth and colors, such as "8-bit color".
        converted: Number by conversion on reading: palettes, CMYK, transparency.
        classes: Number by class, for digits only.
    """

    images: int
    sizes: dict[str, int]
    kinds: dict[str, int]
    converted: dict[str, int] = field(default_factory=dict)
    classes: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Report:
    """The findings about a dataset.

    Attributes:
        layout: How it is stored.
        folders: Folders by name.
        problems: What is wrong, in one sentence each.
        notes: What is worth knowing, and need not be wrong.
        identical: Groups of images of the same pixels, by name.
        near_duplicates: Images that show the same, with measures of how similar they are.
        sources: Of several sources, their folders and the target's last.
    """

    layout: DatasetLayout
    folders: dict[str, FolderReport]
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    identical: list[list[str]] = field(default_factory=list)
    near_duplicates: list[NearDuplicates] = field(default_factory=list)
    sources: list[str] = field(default_factory=list)


def to_json(report: Report) -> dict[str, Any]:
    """Return a report as JSON values."""
    values = asdict(report)
    for folder in values["folders"].values():
        folder["pictures"] = folder.pop("images")  # the key is part of the format
    return values


def describe(root: Path, report: Report) -> list[str]:
    """Return a report as lines of text."""
    lines = [f"{root}: {report.layout}"]
    for name, folder in report.folders.items():
        parts = [_describe_counts(counts) for counts in (folder.sizes, folder.kinds) if counts]
        lines.append("; ".join([f"  {name}: {folder.images} images", *parts]))
        if folder.classes:
            lines.append("    of each class: " + ", ".join(f"{name} {count}" for name, count in folder.classes.items()))
    if report.notes:
        lines += ["Worth knowing:", *(f"  {note}" for note in report.notes)]
    if not report.problems:
        return [*lines, "Nothing is wrong."]
    return [*lines, f"{len(report.problems)} problems:", *(f"  {problem}" for problem in report.problems)]


def _describe_counts(counts: Mapping[str, int]) -> str:
    """Describe the most common: "all 256x256", or "256x256 (90), 128x128 (3) and 4 more"."""
    if len(counts) == 1:
        return f"all {next(iter(counts))}"
    return join_first([f"{name} ({count})" for name, count in counts.items()])
