"""What a run learns from: written to RUN/data.json, and compared when the run is resumed.

Files are compared by name and size, so that a million images are recorded in seconds and a copy of a dataset counts as
the same, which times of change would not tell.
"""

import hashlib
import os
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

from ganvas.data.listing import Files
from ganvas.data.shards import Members
from ganvas.errors import UserError
from ganvas.json_files import read_json, write_json
from ganvas.log import logger
from ganvas.messages import MAX_REASON, join_first, shorten
from ganvas.options import from_json

FILE = "data.json"
LISTED = 10_000  # files of a part that are recorded by name; our choice: below a megabyte


@dataclass(frozen=True)
class DataPart:
    """A part of the data: the training images of one domain, for example.

    Attributes:
        training: Whether it is learned from; if not, it is held out.
        summary: Number and kind of the samples, in words.
        order: Digest of what says which sample has which number.
        content: Digest of the samples: of names and sizes, or of pixels and labels.
        sizes: Bytes by file name; empty where there are more than `LISTED` files, or none.
    """

    training: bool
    summary: str
    order: str
    content: str
    sizes: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class DataRecord:
    """All data of a run.

    Attributes:
        place: The folder or the name of the dataset.
        parts: Parts by name.
    """

    place: str
    parts: Mapping[str, DataPart]


def record_files(root: Path, splits: Mapping[str, Mapping[str, Files | Members]]) -> DataRecord:
    """Record the files of each split, by side of the split. The split "train" is learned from.

    Args:
        root: The dataset's folder.
        splits: For each split its files, such as {"train": {"a": files, "b": files}}.
    """
    parts = {
        f"{split} {side}": _files_part(files.listing(), training=split == "train")
        for split, sides in splits.items()
        for side, files in sides.items()
    }
    return DataRecord(str(root.resolve()), parts)


def _files_part(listing: Iterable[tuple[str, int]], *, training: bool) -> DataPart:
    order, content = hashlib.sha256(), hashlib.sha256()
    count, sizes = 0, {}
    for name, size in listing:
        encoded = os.fsencode(name)
        order.update(encoded + b"\0")
        content.update(encoded + b"\0%d\0" % size)
        count += 1
        if count <= LISTED:
            sizes[encoded.decode("utf-8", "backslashreplace")] = size
    if count > LISTED:
        sizes = {}
    return DataPart(training, f"{count} files", order.hexdigest(), content.hexdigest(), sizes)


def write_record(run: Path, record: DataRecord) -> None:
    """Write RUN/data.json.

    Raises:
        UserError: It cannot be written.
    """
    write_json(run / FILE, asdict(record))


def check_record(run: Path, record: DataRecord) -> None:
    """Check that a resumed run continues with the data that it learned from.

    In the same place, training samples may differ in content and held-out ones in any way, with a warning: a file may
    have been repaired. Data in another place has to be the same.

    Raises:
        UserError: The data differs, with what differs; or what the run learned from was not recorded.
    """
    before = _read_record(run)
    moved = before.place != record.place
    refused: list[str] = []
    changed: list[str] = []
    for name in {**before.parts, **record.parts}:
        was, now = before.parts.get(name), record.parts.get(name)
        difference = _difference(was, now)
        if difference:
            part = was or now
            assert part is not None
            same_order = was is not None and now is not None and (was.order, was.summary) == (now.order, now.summary)
            strict = moved or (part.training and not same_order)
            (refused if strict else changed).append(f"{shorten(name)}: {difference}")
    if refused:
        place = f" ({shorten(before.place, MAX_REASON)})" if moved else ""
        raise UserError(
            f"{record.place}: is not the data that {run} learned from{place}. {join_first(refused, '; ')}. "
            "Restore the data that it learned from, or start a new run with another --out."
        )
    if changed:
        logger.warning(
            "Warning: %s: changed since %s learned from it. %s. Training continues with the data as it is now.",
            record.place,
            run,
            "; ".join(changed),
        )


def _read_record(run: Path) -> DataRecord:
    path = run / FILE
    return from_json(DataRecord, read_json(path, "a record of what the run learned from"), str(path))


def _difference(was: DataPart | None, now: DataPart | None) -> str:
    """Return what differs between two states of a part, in words; empty if nothing does."""
    if was is None or now is None:
        before, after = (shorten(part.summary) if part else "nothing" for part in (was, now))
        return f"{before} then, {after} now"
    if was == now:
        return ""
    found = [] if was.summary == now.summary else [f"{shorten(was.summary)} then, {shorten(now.summary)} now"]
    if was.sizes and now.sizes:
        resized = [name for name, size in was.sizes.items() if now.sizes.get(name, size) != size]
        for what, names in (
            ("missing", [name for name in was.sizes if name not in now.sizes]),
            ("new", [name for name in now.sizes if name not in was.sizes]),
            ("of another size", resized),
        ):
            if names:
                found.append(f"{what}: {join_first([shorten(name) for name in names])}")
    return ", ".join(found) or "other content"
