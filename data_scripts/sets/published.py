"""``python -m data_scripts NAME --out DIR`` for published datasets: download, check, unpack, put in place.

The folder appears whole or not at all. Until then what there is lies beside it, in ``.DIR.download``, and the same
command continues from there, however the last one ended. Several at once take turns.
"""

from __future__ import annotations

import shlex
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

import tyro

from data_scripts.sets.catalog import FOLDERS, SETS, PublishedSet, for_people
from data_scripts.sets.download import USUAL, Patience, digest_of, download
from data_scripts.sets.unpack import BadArchive, unpack
from ganvas.errors import UserError
from ganvas.files import cannot_write, new_folder, read_json, recover_folder, write_json

if TYPE_CHECKING:
    from rich.progress import Progress

PICTURES = frozenset({".jpg", ".jpeg", ".png"})  # published sets hold no others

Say = Callable[[str], None]


@dataclass(frozen=True)
class FetchOptions:
    """Download a published dataset, unless it is there; a download that broke off is continued."""

    out: Path
    """Folder to write; must be new or empty, or hold the set."""
    archive: Path | None = None
    """The archive, where it is at hand already; nothing is downloaded."""
    mirror: str | None = None
    """Address to try before the usual ones: of the archive, or with a / at the end of the folder it lies in."""
    allow_http: bool = False
    """Download unencrypted where https fails, also a set without a published digest, which nothing vouches for then."""


def main(name: str, argv: Sequence[str]) -> int:
    """Fetch a published set; give the exit code.

    Raises:
        UserError: As `fetch`.
    """
    options = tyro.cli(FetchOptions, prog=f"python -m data_scripts {name}", args=list(argv))
    wanted = SETS[name]
    was_there = find_counts(wanted, options.out) is not None
    counts = fetch(wanted, options.out, archive=options.archive, mirror=options.mirror, allow_http=options.allow_http)
    listed = ", ".join(f"{count} {folder}" for folder, count in counts.items())
    print(f"{options.out}: {listed} images{', already there' if was_there else ''}")
    print(f"A: {wanted.domains[0]}; B: {wanted.domains[1]}")
    if any(folder.startswith("train") for folder in counts):
        command = "pix2pix" if wanted.layout == "paired" else "cyclegan"
        print(f"{command} train --data {shlex.quote(str(options.out))} --out RUN")
    return 0


def fetch(
    wanted: PublishedSet,
    out: Path,
    *,
    archive: Path | None = None,
    mirror: str | None = None,
    patience: Patience = USUAL,
    allow_http: bool = False,
) -> dict[str, int]:
    """Put a published set into a folder, unless it is there.

    Args:
        wanted: The set.
        out: The folder.
        archive: The archive, where it is at hand; by default it is downloaded.
        mirror: An address to try before the set's own.
        patience: Of the download.
        allow_http: Whether an archive without a digest may come unencrypted from the set's own addresses.

    Returns:
        How many images each of its folders holds.

    Raises:
        UserError: The folder holds something else or cannot be written, the disk has no room, no address has the right
            archive, or the archive does not hold the set.
    """
    if archive is not None and not archive.is_file():
        raise UserError(f"--archive {archive}: there is no such file.")
    out = out.resolve()
    aside = out.with_name(f".{out.name}.download")
    there = None if aside.exists() else find_counts(wanted, out)
    if there is not None:
        return there
    with progress_bar() as progress:
        say = partial(progress.console.print, markup=False, highlight=False, soft_wrap=True)
        with alone(aside, say):
            recover_folder(out)
            counts = find_counts(wanted, out)
            if counts is None:
                say(f"{wanted.name}, {for_people(wanted.size)}: {wanted.licence}")
                ready = archive or _downloaded(wanted, aside, mirror, patience, progress, say, allow_http)
                counts = _put(wanted, ready, out, progress, is_ours=archive is None)
        shutil.rmtree(aside, ignore_errors=True)  # whoever waits in there will find the set complete
    return counts


def find_counts(wanted: PublishedSet, out: Path) -> dict[str, int] | None:
    """Count the images of a set that is there already; None where there is room for it.

    Raises:
        UserError: Something else is there, or the set is not whole.
    """
    if out.is_file():
        raise UserError(f"--out {out} is a file. Name a folder that is new or empty.")
    if not out.exists() or not any(out.iterdir()):
        return None
    description = out / "dataset.json"
    found = read_json(description, "a description of the dataset") if description.is_file() else {}
    counts = found.get("pictures")
    if (
        found.get("name") != wanted.name
        or not isinstance(counts, dict)
        or not counts.keys() <= {*FOLDERS[wanted.layout]}
        or any(type(count) is not int for count in counts.values())
    ):
        raise UserError(
            f"--out {out} is not empty and does not hold {wanted.name}. Name a folder that is new or empty."
        )
    for folder, count in counts.items():
        there = sum(not file.name.startswith(".") for file in (out / folder).glob("*"))
        if there < count:
            raise UserError(f"{out / folder} holds {there} of its {count} images. Remove {out} and run this again.")
    return counts


def _downloaded(
    wanted: PublishedSet,
    aside: Path,
    mirror: str | None,
    patience: Patience,
    progress: Progress,
    say: Say,
    allow_http: bool,
) -> Path:
    """Give the archive, downloaded if it is not there from an earlier run."""
    archive = aside / wanted.archive_name
    if archive.exists():
        return archive
    arrived = sum(file.stat().st_size for file in aside.iterdir())
    _require_room(aside, 2 * wanted.size - arrived)  # for the archive and its images, which hardly shrink
    task = progress.add_task("downloading", total=wanted.size)
    # Without a digest, nothing but encryption vouches for what comes; a mirror is the user's own choice.
    trusted = [each for each in wanted.addresses if allow_http or wanted.digest or each.startswith("https:")]
    try:
        came_from = download(
            trusted if mirror is None else [_address(mirror, wanted), *trusted],
            archive,
            size=None if wanted.rounded else wanted.size,
            digest=wanted.digest,
            patience=patience,
            arrived=lambda done, total: progress.update(task, completed=done, total=total or wanted.size),
            say=say,
            allow_http=allow_http,
        )
    except UserError as error:
        hint = "Run this again to continue; or get the archive by other means and give it as --archive FILE."
        if len(trusted) < len(wanted.addresses):
            hint += " --allow-http also tries unencrypted addresses."
        raise UserError(f"{error}\n{hint}") from None
    if wanted.digest is None and not came_from.startswith("https:"):
        say(
            f"{came_from}: came unencrypted, and no digest of it was published, so nothing vouches for what it holds. "
            f"Compare it with another source, if you can: {digest_of(archive, 'sha256')}"
        )
    return archive


def _address(mirror: str, wanted: PublishedSet) -> str:
    if not mirror.startswith(("https://", "http://")):
        raise UserError(f"--mirror is {mirror!r}; expected an address that begins with https:// or http://.")
    return mirror + wanted.archive_name if mirror.endswith("/") else mirror


def _require_room(folder: Path, size: int) -> None:
    free = shutil.disk_usage(folder).free
    if free < size:
        raise UserError(
            f"{folder.parent}: has {for_people(free)} free, and {for_people(size)} are needed for an archive and its "
            "images. Make room or choose another place."
        )


def _put(wanted: PublishedSet, archive: Path, out: Path, progress: Progress, *, is_ours: bool) -> dict[str, int]:
    """Unpack an archive; the folder gets its name if it holds what it should, else an archive of ours is removed."""
    task = progress.add_task("unpacking", total=archive.stat().st_size)
    try:
        with new_folder(out) as folder:
            counts = unpack(
                archive, folder, _place(wanted), came_to=lambda place: progress.update(task, completed=place)
            )
            counts = {name: counts[name] for name in FOLDERS[wanted.layout] if name in counts}
            _require_counts(wanted, archive, counts)
            write_json(folder / "dataset.json", _description(wanted, archive, counts))
    except BadArchive as bad:
        if not is_ours:
            raise
        archive.unlink()
        raise BadArchive(f"{bad} It was removed; run this again to download it again.") from None
    return counts


def _place(wanted: PublishedSet) -> Callable[[PurePosixPath], PurePosixPath | None]:
    """Tell where the images go: into the folder of the same name, whatever it lies in."""

    def place(path: PurePosixPath) -> PurePosixPath | None:
        if path.suffix.lower() not in PICTURES or path.name.startswith(".") or "__MACOSX" in path.parts:
            return None
        folder = path.parent.name if path.parent.name in FOLDERS[wanted.layout] else wanted.stray
        return PurePosixPath(folder, path.name) if folder else None

    return place


def _require_counts(wanted: PublishedSet, archive: Path, counts: dict[str, int]) -> None:
    wrong = [
        f"{counts.get(folder, 0)} instead of {count} images for {folder}"
        for folder, count in wanted.pictures.items()
        if counts.get(folder) != count
    ]
    if wrong or not counts:
        raise BadArchive(f"{archive}: is not {wanted.name}; it holds {', '.join(wrong) or 'no pictures'}.")


def _description(wanted: PublishedSet, archive: Path, counts: dict[str, int]) -> dict[str, object]:
    return {
        "name": wanted.name,
        "domains": dict(zip("ab", wanted.domains, strict=True)),
        "licence": wanted.licence,
        "source": wanted.addresses[0],
        "archive": {"size": archive.stat().st_size, "digest": digest_of(archive, "sha256")},
        "pictures": counts,
    }


@contextmanager
def alone(aside: Path, say: Say) -> Iterator[None]:
    """Make the folder ``aside`` and keep other processes out of it; the system lets them in when this one dies."""
    from filelock import FileLock, Timeout

    lock = FileLock(aside / "lock")
    waits = False
    while not lock.is_locked:
        try:
            aside.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise cannot_write(aside, error) from None
        # The other process removes the folder when it is done.
        with suppress(FileNotFoundError):
            try:
                lock.acquire(timeout=-1 if waits else 0)
            except Timeout:
                say(f"{aside}: another process is at work there; waiting for it")
                waits = True
    try:
        yield
    finally:
        # Another process may have removed the folder; and Windows removes a lock only when it is let go.
        with suppress(OSError):
            if [each.name for each in aside.iterdir()] == ["lock"]:  # nothing that a next run could continue
                (aside / "lock").unlink()
        lock.release()
        with suppress(OSError):
            aside.rmdir()


@contextmanager
def progress_bar() -> Iterator[Progress]:
    """Show progress on standard error."""
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, TimeRemainingColumn(), console=Console(stderr=True)) as progress:
        yield progress
