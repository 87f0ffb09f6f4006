"""A folder of images into another folder: reading ahead, the network, and writing all go on at once.

Threads decode and encode while the network computes; a few images are held at a time. What comes out does not depend
on which thread is faster.
"""

from collections import Counter, deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from ganvas.data.formats import IMAGE_SUFFIXES, require_file_name, require_output_folder
from ganvas.data.listing import describe_empty, list_folder
from ganvas.data.raster import Raster
from ganvas.data.tiff_tags import Tags
from ganvas.errors import UserError, WriteError
from ganvas.files import require_writable
from ganvas.inference.batches import in_batches

if TYPE_CHECKING:
    from ganvas.inference.translator import Source, Translator

READERS = WRITERS = 2  # threads
AHEAD = 8  # images that are read before they are needed, and as many that wait to be written


@dataclass(frozen=True)
class Job:
    """One image: its file, and the file that its translation is to be."""

    source: Path
    target: Path


@dataclass(frozen=True)
class Jobs:
    """What there is to do in a folder.

    Attributes:
        todo: Images to translate.
        there: Translations that were there already.
        failed: What is wrong with other images, one message each.
        unread: Files in formats that are not read, counted by suffix.
    """

    todo: list[Job]
    there: list[Path] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    unread: Counter[str] = field(default_factory=Counter)


@dataclass(frozen=True)
class FolderResult:
    """What came of a folder.

    Attributes:
        written: Files of the translations, in the order of their sources.
        there: Translations that were there already.
        failed: What is wrong with other images, one message each.
        left: Images that were not tried, since nothing could be written any more.
    """

    written: list[Path]
    there: list[Path]
    failed: list[str]
    left: int = 0

    @property
    def files(self) -> list[Path]:
        """All translations, in the order of their names."""
        return sorted([*self.written, *self.there])

    def complain(self) -> None:
        """Name the images that failed, if any did.

        Raises:
            UserError: With one message for all.
        """
        if not self.failed:
            return
        done, count = len(self.written) + len(self.there), len(self.failed)
        rest = f"\n{self.left} more were not tried. What is done is kept; the same again goes on." if self.left else ""
        raise UserError(f"{count} of {done + count + self.left} images failed:\n  " + "\n  ".join(self.failed) + rest)


def find_jobs(translator: "Translator", source: Path, target: Path, *, overwrite: bool = False) -> Jobs:
    """Pair every input with its output: a folder keeps names and subfolders, a single image may be given a name.

    Args:
        translator: The model. Of one that takes several images at once, the first folder's names count.
        source: A image or a folder of images.
        target: A folder; or a file's name, for one image.
        overwrite: Translate also what is there already. One image on its own is always translated.

    Raises:
        UserError: No images, or results would lie among the sources.
    """
    folders = translator.preprocessing.source_folders
    if folders and not (source / folders[0]).is_dir():
        raise UserError(
            f"{source}: the model takes {len(folders)} images at once. Give the folder that holds their folders "
            f"{', '.join(folders)}."
        )
    if source.is_file():
        job = Job(source, target if require_file_name(target, IMAGE_SUFFIXES) else target / source.name)
        if any(path.exists() and path.samefile(source) for path in translator.possible_files(job.target)):
            raise UserError(f"{job.target}: is the image itself. Give another name, so that it is not overwritten.")
        require_writable(job.target.parent, is_folder=True)
        return Jobs([job])
    inputs = [source / folder for folder in folders] or [source]
    listing = list_folder(inputs[0], recursive=not folders)
    if not listing.images:
        expected = ", ".join(sorted(IMAGE_SUFFIXES))
        raise UserError(f"{source}: {describe_empty(listing.unread)} Expected images ({expected}).")
    jobs = [Job(file, target / file.relative_to(inputs[0])) for file in listing.images]
    for folder in inputs:
        _require_apart(folder, target, jobs)
    require_output_folder(target)
    return replace(_sorted_out(translator, jobs, overwrite), unread=listing.unread)


def _require_apart(source: Path, target: Path, jobs: list[Job]) -> None:
    """Refuse results among the sources, which they would overwrite, or be read as next time."""
    if target.exists() and target.samefile(source):
        raise UserError(f"{target}: is the input folder. Give another one, so that no source is overwritten.")
    inner = source.resolve()
    if any(folder.exists() and folder.samefile(source) for folder in target.resolve().parents):
        raise UserError(f"{target}: lies in the input folder {source}. Give one outside: results are no sources.")
    around = target.resolve() in inner.parents
    for job in jobs if around else ():
        if inner in job.target.resolve().parents:
            raise UserError(f"{job.target}: would lie in the input folder {source}. Give another output folder.")


def _sorted_out(translator: "Translator", jobs: list[Job], overwrite: bool) -> Jobs:
    """Part jobs into what is to be done, what is there already, and what would overwrite another's result."""
    found = Jobs([])
    owners: dict[Path, Path] = {}
    for job in jobs:
        files = translator.possible_files(job.target)
        owner = next((owners[file] for file in files if file in owners), None)
        owners |= dict.fromkeys(files, owners.get(files[0], job.source))
        there = next((file for file in files if file.is_file()), None)
        if owner is not None:
            found.failed.append(f"{job.source}: its result would have the name of that of {owner}. Rename one.")
        elif there is not None and not overwrite:
            found.there.append(there)
        else:
            found.todo.append(job)
    return found


def progress_bar(total: int | None, *, doing: str = "translating", shown: bool = True) -> Progress:
    """Make a bar on standard error, with one task of ``total`` images or tiles; None is told later."""
    words = TextColumn("{task.description}", markup=False)
    columns = (words, BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    bar = Progress(*columns, console=Console(stderr=True), disable=not shown)
    bar.add_task(doing, total=total)
    return bar


def translate_jobs(translator: "Translator", jobs: Jobs, *, progress: bool = False) -> FolderResult:
    """Translate images; one that cannot be read is passed over, and a write that fails ends it.

    Args:
        translator: The model.
        jobs: As `find_jobs` gives them.
        progress: Show a bar on standard error.
    """
    with progress_bar(len(jobs.todo), shown=progress and len(jobs.todo) > 1) as bar:
        line = _Line(translator, jobs, bar)
        try:
            batches = in_batches(
                line.sources(), lambda one: one.source.batch_key, lambda one: translator.max_batch_size(one.source)
            )
            for batch in batches:
                outputs = translator.translate_sources([one.source for one in batch])
                for one, output in zip(batch, outputs, strict=True):
                    line.write(one, output)
                if line.is_stopped:
                    break
        finally:
            line.end()
    return line.result()


@dataclass(frozen=True)
class _Read:
    """A image between its file and the network: the number of its job, and what is needed of it."""

    number: int
    source: "Source"
    tags: Tags
    nodata_mask: np.ndarray


class _Line:
    """The threads that read and write, and the record of what became of each job."""

    def __init__(self, translator: "Translator", jobs: Jobs, bar: Progress) -> None:
        self._translator, self._jobs, self._bar = translator, jobs, bar
        self._readers, self._writers = ThreadPoolExecutor(READERS), ThreadPoolExecutor(WRITERS)
        self._writing: deque[tuple[int, Future[Path]]] = deque()
        self._written: dict[int, Path] = {}
        self._failed: dict[int, str] = {}
        self.is_stopped = False

    def sources(self) -> Iterator[_Read]:
        """Read ahead; yield what could be read, in order."""
        reading: deque[tuple[int, Future[Raster]]] = deque()
        for number, job in enumerate(self._jobs.todo):
            reading.append((number, self._readers.submit(self._translator.read, job.source)))
            if len(reading) > AHEAD:
                yield from self._received(*reading.popleft())
        while reading:
            yield from self._received(*reading.popleft())

    def _received(self, number: int, future: Future[Raster]) -> Iterator[_Read]:
        try:
            picture = future.result()
        except UserError as error:
            self._fail(number, error)
            return
        yield _Read(number, self._translator.prepare(picture.array), picture.tags, picture.nodata_mask)

    def write(self, one: _Read, output: np.ndarray) -> None:
        """Have a translation written; wait where too many wait for that."""
        target = self._jobs.todo[one.number].target
        task = self._writers.submit(self._translator.write, target, output, one.tags, one.nodata_mask)
        self._writing.append((one.number, task))
        while self._writing and (len(self._writing) > AHEAD or self._writing[0][1].done()):
            self._settle(*self._writing.popleft())

    def _settle(self, number: int, future: Future[Path]) -> None:
        try:
            self._written[number] = future.result()
            self._bar.advance(self._bar.task_ids[0])
        except UserError as error:
            of_the_place = isinstance(error, WriteError)  # where the next write will fail, too
            if not (self.is_stopped and of_the_place):  # the first says it for all
                self._fail(number, error)
            self.is_stopped |= of_the_place

    def _fail(self, number: int, error: UserError) -> None:
        self._failed[number] = str(error)
        self._bar.advance(self._bar.task_ids[0])

    def end(self) -> None:
        """Let the threads finish what they began."""
        self._readers.shutdown(cancel_futures=True)
        self._writers.shutdown(cancel_futures=self.is_stopped)
        for number, future in self._writing:
            if not future.cancelled():
                self._settle(number, future)

    def result(self) -> FolderResult:
        """Give the record."""
        failed = [*self._jobs.failed, *(self._failed[number] for number in sorted(self._failed))]
        written = [self._written[number] for number in sorted(self._written)]
        left = len(self._jobs.todo) - len(written) - len(self._failed)
        return FolderResult(written, self._jobs.there, failed, left)
