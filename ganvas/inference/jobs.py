"""Which files of a folder to translate into which files, and the result. Works without torch."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from ganvas.data.formats import IMAGE_SUFFIXES, require_file_name, require_output_folder
from ganvas.data.listing import describe_empty, list_folder
from ganvas.errors import UserError
from ganvas.files import require_writable

PossibleFiles = Callable[[Path], list[Path]]


@dataclass(frozen=True)
class Job:
    """An image file and the file for its translation."""

    source: Path
    target: Path


@dataclass(frozen=True)
class Jobs:
    """The images of a folder.

    Attributes:
        todo: Images to translate.
        existing: Translations that exist already.
        failed: Error messages of images that cannot be translated.
        unread: Number of files by suffix, in formats that are not supported.
    """

    todo: list[Job]
    existing: list[Path] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    unread: Counter[str] = field(default_factory=Counter)


@dataclass(frozen=True)
class FolderResult:
    """The result of translating a folder.

    Attributes:
        written: The translations, in the order of their sources.
        existing: Translations that existed already.
        failed: Error messages of images that failed.
        left: Number of images that were not tried after a write error.
    """

    written: list[Path]
    existing: list[Path]
    failed: list[str]
    left: int = 0

    @property
    def files(self) -> list[Path]:
        """All translations, sorted by name."""
        return sorted([*self.written, *self.existing])

    def raise_failures(self) -> None:
        """Raise one UserError that lists all images that failed, if there are any."""
        if not self.failed:
            return
        total = len(self.written) + len(self.existing) + len(self.failed) + self.left
        rest = f"\n{self.left} more were not tried. Run the command again to continue." if self.left else ""
        raise UserError(f"{len(self.failed)} of {total} images failed:\n  " + "\n  ".join(self.failed) + rest)


def find_jobs(
    source: Path,
    target: Path,
    possible_files: PossibleFiles = lambda target: [target],
    *,
    source_folders: Sequence[str] = (),
    overwrite: bool = False,
) -> Jobs:
    """Pair inputs with outputs. A folder keeps names and subfolders; a single image may be given a new name.

    Args:
        source: An image or a folder of images.
        target: A folder; or a file, for a single image.
        possible_files: Returns the files that a translation with a given target may be written to.
        source_folders: Folders of images that are stacked to one source; the first one has the names.
        overwrite: Translate images again whose translations exist. A single image is always translated.

    Raises:
        UserError: There are no images, or results would be written among the sources.
    """
    if source_folders and not (source / source_folders[0]).is_dir():
        raise UserError(
            f"{source}: the model takes {len(source_folders)} images at once. Give the folder that contains "
            f"{', '.join(source_folders)}."
        )
    if source.is_file():
        job = Job(source, target if require_file_name(target, IMAGE_SUFFIXES) else target / source.name)
        if any(path.exists() and path.samefile(source) for path in possible_files(job.target)):
            raise UserError(f"{job.target}: is the source image. Give another name, so that it is not overwritten.")
        require_writable(job.target.parent, is_folder=True)
        return Jobs([job])
    inputs = [source / folder for folder in source_folders] or [source]
    listing = list_folder(inputs[0], recursive=not source_folders)
    if not listing.images:
        expected = ", ".join(sorted(IMAGE_SUFFIXES))
        raise UserError(f"{source}: {describe_empty(listing.unread)} Expected images ({expected}).")
    jobs = [Job(file, target / file.relative_to(inputs[0])) for file in listing.images]
    for folder in inputs:
        _require_separate(folder, target, jobs)
    require_output_folder(target)
    return replace(_sort_jobs(jobs, possible_files, overwrite), unread=listing.unread)


def _require_separate(source: Path, target: Path, jobs: list[Job]) -> None:
    """Refuse outputs in the input folder: they would overwrite sources, or be translated the next time."""
    if target.exists() and target.samefile(source):
        raise UserError(f"{target}: is the input folder. Give another one, so that no source is overwritten.")
    if any(folder.exists() and folder.samefile(source) for folder in target.resolve().parents):
        raise UserError(f"{target}: is inside the input folder {source}. Give a folder outside of it.")
    inner = source.resolve()
    for job in jobs if target.resolve() in inner.parents else ():
        if inner in job.target.resolve().parents:
            raise UserError(f"{job.target}: would be inside the input folder {source}. Give another output folder.")


def _sort_jobs(jobs: list[Job], possible_files: PossibleFiles, overwrite: bool) -> Jobs:
    """Split jobs into those to do, those that are done, and those that would overwrite the result of another."""
    found = Jobs([])
    owners: dict[Path, Path] = {}
    for job in jobs:
        files = possible_files(job.target)
        owner = next((owners[file] for file in files if file in owners), None)
        owners |= dict.fromkeys(files, owners.get(files[0], job.source))
        existing = next((file for file in files if file.is_file()), None)
        if owner is not None:
            found.failed.append(f"{job.source}: its result would have the same name as that of {owner}. Rename one.")
        elif existing is not None and not overwrite:
            found.existing.append(existing)
        else:
            found.todo.append(job)
    return found
