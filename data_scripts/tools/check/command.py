"""``python -m data_scripts check DIR``: describe a dataset and report problems.

The exit code is 0 without problems, 1 with problems, and 2 if the check could not run.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import tyro

from data_scripts.arguments import parse_arguments
from data_scripts.tools.check import findings
from data_scripts.tools.check.folders import FolderSearch, find_folders, layout_of, pair_folders, relative_message
from data_scripts.tools.check.report import Report, describe, to_json
from ganvas.data.layout import ANY_LAYOUT, SPLITS, find_shards
from ganvas.errors import UserError
from ganvas.messages import describe_missing

if TYPE_CHECKING:
    from ganvas.data.palette import Color


@dataclass(frozen=True)
class CheckOptions:
    """Check a dataset: decode every image, and report what would harm training."""

    data: tyro.conf.Positional[Path]
    """Folder of the dataset."""
    json: bool = False
    """Print one JSON object."""


def main(argv: Sequence[str]) -> int:
    """Run ``python -m data_scripts check`` and return the exit code.

    Raises:
        UserError: See `inspect`.
    """
    options = parse_arguments("check", CheckOptions, argv)
    report = inspect(options.data)
    print(json.dumps(to_json(report)) if options.json else "\n".join(describe(options.data, report)))
    return 1 if report.problems else 0


def inspect(root: Path) -> Report:
    """Decode every image of a dataset, and look for what would harm training.

    Raises:
        UserError: There is no folder, or no dataset in it.
    """
    if not root.is_dir():
        raise UserError(f"{root}: {describe_missing(root, 'folder')}. Pass the folder of a dataset.")
    from data_scripts.tools.check.digits import find_digits, inspect_digits

    digits = find_digits(root)
    if digits:
        return inspect_digits(digits)
    found = find_folders(root)
    if not found.folders and not found.problems:
        shards = any(find_shards(root, split) for split in SPLITS)
        but = " but shards; check the folder that they were packed from" if shards else ""
        raise UserError(f"{root}: holds no dataset{but}. Expected {ANY_LAYOUT}, or the idx files of MNIST.")
    return _inspect_images(root, found)


def _inspect_images(root: Path, found: FolderSearch) -> Report:
    import numpy as np

    from data_scripts.tools.check.duplicates import SIDE, find_near_duplicates
    from data_scripts.tools.check.images import ImageInfo, decode, group_samples, list_files
    from data_scripts.tools.folder_ops import in_parallel

    palette, palette_problems = _read_palette(root)
    folders = list(found.folders.values())
    pairs = pair_folders(folders)
    layout = layout_of(found, pairs)
    files = list_files(folders)
    colors = list(palette.values())
    with tempfile.TemporaryFile() as file:  # the thumbnails of a million images are paged out, unlike an array
        shape = (max(1, sum(len(each.rows) for each in files)), SIDE, SIDE)
        thumbnails = np.memmap(file, np.uint8, "w+", shape=shape)
        decoded = list(in_parallel(lambda each: decode(each, thumbnails, colors), files, "decoding"))
        images: dict[str, list[ImageInfo]] = {name: [] for name in found.folders}
        for image in decoded:
            images[image.file.folder.name].append(image)
        samples = list(group_samples(root, layout, folders, images))
        near = find_near_duplicates(samples, thumbnails)
    identical = findings.group_identical(samples)
    missing_data, zero_borders = findings.missing_data(images)
    is_paired = layout != "unpaired folders"
    problems = [
        *palette_problems,
        *found.problems,
        *findings.empty_folders(folders),
        *findings.unreadable(root, decoded),
        *(findings.repeated_names(images) if is_paired else findings.unmatched_sources(found)),
        *(findings.partners(pairs, images) if layout == "paired folders" else []),
        *findings.odd_widths(images),
        *findings.mixed_kinds(images),
        *findings.changed_kinds(folders, images),
        *findings.identical_samples(identical),
        *findings.near_duplicates([each for each in near if each.across_splits], "across splits"),
        *missing_data,
    ]
    notes = [
        *found.notes,
        *zero_borders,
        *findings.unread_files(folders),
        *findings.palette_use(palette, decoded),
        *findings.conversions(images),
        *findings.colorless(images),
        *findings.float_ranges(layout, decoded),
        *findings.near_duplicates([each for each in near if not each.across_splits], "within a split"),
    ]
    summaries = {name: findings.summarize(each) for name, each in images.items()}
    groups = [[sample.name for sample in group] for group in identical]
    return Report(layout, summaries, problems, notes, groups, near, list(found.sources))


def _read_palette(root: Path) -> tuple[Mapping[str, Color], list[str]]:
    """Return the palette of dataset.json, and what is wrong with that file."""
    from ganvas.data.dataset_info import dataset_info
    from ganvas.data.palette import parse_palette

    try:
        return parse_palette(dataset_info(root)), []
    except UserError as error:
        return {}, [relative_message(root, error)]
