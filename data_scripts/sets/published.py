"""``python -m data_scripts NAME --out DIR`` for published datasets: download, check and unpack.

The folder appears complete or not at all. Until then, downloads are next to it in ``.DIR.download``, from where
the same command continues, however the last one ended. Concurrent commands wait for one another.
"""

from __future__ import annotations

import shlex
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from data_scripts.arguments import parse_arguments
from data_scripts.sets.catalog import FOLDERS, SETS, PublishedSet, format_size
from data_scripts.sets.download import DEFAULT_RETRY, RetryPolicy, digest_of, download
from data_scripts.sets.unpack import BadArchive, unpack
from ganvas.errors import UserError
from ganvas.files import new_folder, recover_folder, write_error
from ganvas.json_files import read_json, write_json
from ganvas.log import logger

SUFFIXES = frozenset({".jpg", ".jpeg", ".png"})  # of all images in published datasets


@dataclass(frozen=True)
class FetchOptions:
    """Download a published dataset unless it is present; an interrupted download is resumed."""

    out: Path
    """Folder to write; must be new or empty, or hold the dataset."""
    archive: Path | None = None
    """Use this local archive and download nothing."""
    mirror: str | None = None
    """URL to try first: of the archive, or of its folder if it ends with a slash."""
    allow_http: bool = False
    """Download unencrypted where https fails, even datasets without a published digest, which cannot be verified."""


def main(name: str, argv: Sequence[str]) -> int:
    """Run ``python -m data_scripts NAME`` and return the exit code.

    Raises:
        UserError: See `fetch`.
    """
    options = parse_arguments(name, FetchOptions, argv)
    dataset = SETS[name]
    present = find_counts(dataset, options.out) is not None
    counts = fetch(dataset, options.out, archive=options.archive, mirror=options.mirror, allow_http=options.allow_http)
    listed = ", ".join(f"{count} {folder}" for folder, count in counts.items())
    print(f"{options.out}: {listed} images{', already there' if present else ''}")
    print(f"A: {dataset.domains[0]}; B: {dataset.domains[1]}")
    if any(folder.startswith("train") for folder in counts):
        command = "pix2pix" if dataset.layout == "paired" else "cyclegan"
        print(f"{command} train --data {shlex.quote(str(options.out))} --out RUN")
    return 0


def fetch(
    dataset: PublishedSet,
    out: Path,
    *,
    archive: Path | None = None,
    mirror: str | None = None,
    retry: RetryPolicy = DEFAULT_RETRY,
    allow_http: bool = False,
) -> dict[str, int]:
    """Download and unpack a published dataset, unless it is present.

    Args:
        dataset: The dataset.
        out: The folder to write.
        archive: A local archive; by default it is downloaded.
        mirror: A URL to try before the dataset's own.
        retry: When the download is retried.
        allow_http: Accept an archive without a digest from an unencrypted address of the dataset.

    Returns:
        The number of images by folder.

    Raises:
        UserError: The folder holds something else or cannot be written, the disk is full, no address has the archive,
            or the archive does not hold the dataset.
    """
    if archive is not None and not archive.is_file():
        raise UserError(f"--archive {archive}: there is no such file.")
    out = out.resolve()
    aside = out.with_name(f".{out.name}.download")
    counts = None if aside.exists() else find_counts(dataset, out)
    if counts is not None:
        return counts
    with _exclusive(aside):
        recover_folder(out)
        counts = find_counts(dataset, out)
        if counts is None:
            logger.info("%s, %s: %s", dataset.name, format_size(dataset.size), dataset.license)
            ready = archive or _download_archive(dataset, aside, mirror, retry, allow_http)
            counts = _unpack(dataset, ready, out, is_downloaded=archive is None)
        shutil.rmtree(aside, ignore_errors=True)  # a process that waits for the lock will find the dataset complete
    return counts


def find_counts(dataset: PublishedSet, out: Path) -> dict[str, int] | None:
    """Return the number of images by folder of a dataset that is present; None if the folder is new or empty.

    Raises:
        UserError: The folder holds something else, or images are missing.
    """
    if out.is_file():
        raise UserError(f"--out {out} is a file. Choose a new or empty folder.")
    if not out.exists() or not any(out.iterdir()):
        return None
    description = out / "dataset.json"
    found = read_json(description, "a description of the dataset") if description.is_file() else {}
    counts = found.get("pictures")
    if (
        found.get("name") != dataset.name
        or not isinstance(counts, dict)
        or not counts.keys() <= {*FOLDERS[dataset.layout]}
        or any(type(count) is not int for count in counts.values())
    ):
        raise UserError(f"--out {out} is not empty and does not hold {dataset.name}. Choose a new or empty folder.")
    for folder, count in counts.items():
        present = sum(not file.name.startswith(".") for file in (out / folder).glob("*"))
        if present < count:
            raise UserError(f"{out / folder} holds {present} of its {count} images. Remove {out} and run this again.")
    return counts


def _download_archive(
    dataset: PublishedSet, aside: Path, mirror: str | None, retry: RetryPolicy, allow_http: bool
) -> Path:
    archive = aside / dataset.archive_name
    if archive.exists():  # an earlier run was killed after the download
        return archive
    received = sum(file.stat().st_size for file in aside.iterdir())
    _require_space(aside, 2 * dataset.size - received)  # for the archive and its images, which hardly compress
    # Without a digest, only encryption authenticates an archive; a mirror is the user's own choice.
    trusted = [each for each in dataset.addresses if allow_http or dataset.digest or each.startswith("https:")]
    try:
        origin = download(
            trusted if mirror is None else [_mirror_address(mirror, dataset), *trusted],
            archive,
            size=None if dataset.rounded else dataset.size,
            digest=dataset.digest,
            retry=retry,
            allow_http=allow_http,
        )
    except UserError as error:
        hint = "Run this again to continue, or download the archive by other means and pass it as --archive FILE."
        if len(trusted) < len(dataset.addresses):
            hint += " --allow-http also tries unencrypted addresses."
        raise UserError(f"{error}\n{hint}") from None
    if dataset.digest is None and not origin.startswith("https:"):
        logger.warning(
            "%s: the archive came unencrypted and has no published digest, so its content cannot be verified. "
            "If possible, compare it with another source: %s",
            origin,
            digest_of(archive, "sha256"),
        )
    return archive


def _mirror_address(mirror: str, dataset: PublishedSet) -> str:
    if not mirror.startswith(("https://", "http://")):
        raise UserError(f"--mirror is {mirror!r}; expected a URL that begins with https:// or http://.")
    return mirror + dataset.archive_name if mirror.endswith("/") else mirror


def _require_space(folder: Path, size: int) -> None:
    free = shutil.disk_usage(folder).free
    if free < size:
        raise UserError(
            f"{folder.parent}: {format_size(size)} are needed for the archive and its images, and {format_size(free)} "
            "are free. Make room or choose another place."
        )


def _unpack(dataset: PublishedSet, archive: Path, out: Path, *, is_downloaded: bool) -> dict[str, int]:
    """Unpack an archive into ``out`` if it holds the dataset; remove a bad archive that we downloaded."""
    try:
        with new_folder(out) as folder:
            counts = unpack(archive, folder, _placement(dataset))
            counts = {name: counts[name] for name in FOLDERS[dataset.layout] if name in counts}
            _check_counts(dataset, archive, counts)
            description = {
                "name": dataset.name,
                "domains": dict(zip("ab", dataset.domains, strict=True)),
                "license": dataset.license,
                "source": dataset.addresses[0],
                "archive": {"size": archive.stat().st_size, "digest": digest_of(archive, "sha256")},
                "pictures": counts,
            }
            write_json(folder / "dataset.json", description)
    except BadArchive as error:
        if not is_downloaded:
            raise
        archive.unlink()
        raise BadArchive(f"{error} It was removed; run this again to download it again.") from None
    return counts


def _placement(dataset: PublishedSet) -> Callable[[PurePosixPath], PurePosixPath | None]:
    """Return a function that maps an image's path in the archive to a folder of the layout, wherever that lies."""

    def place(path: PurePosixPath) -> PurePosixPath | None:
        if path.suffix.lower() not in SUFFIXES or path.name.startswith(".") or "__MACOSX" in path.parts:
            return None
        folder = path.parent.name if path.parent.name in FOLDERS[dataset.layout] else dataset.stray
        return PurePosixPath(folder, path.name) if folder else None

    return place


def _check_counts(dataset: PublishedSet, archive: Path, counts: dict[str, int]) -> None:
    wrong = [
        f"{counts.get(folder, 0)} instead of {count} images for {folder}"
        for folder, count in dataset.images.items()
        if counts.get(folder) != count
    ]
    if wrong or not counts:
        raise BadArchive(f"{archive}: is not {dataset.name}; it holds {', '.join(wrong) or 'no images'}.")


@contextmanager
def _exclusive(aside: Path) -> Iterator[None]:
    """Make a folder and keep other processes out of it; the lock ends with the process."""
    from filelock import FileLock, Timeout

    lock = FileLock(aside / "lock")
    waiting = False
    while not lock.is_locked:
        try:
            aside.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise write_error(aside, error) from None
        with suppress(FileNotFoundError):  # the other process removed the folder when it was done
            try:
                lock.acquire(timeout=-1 if waiting else 0)
            except Timeout:
                logger.info("%s: another process is working there; waiting for it", aside)
                waiting = True
    try:
        yield
    finally:
        with suppress(OSError):  # another process may have removed the folder
            if [each.name for each in aside.iterdir()] == ["lock"]:  # nothing to resume
                (aside / "lock").unlink()
        lock.release()
        with suppress(OSError):  # not empty; or Windows, which removes the lock only on release
            aside.rmdir()
