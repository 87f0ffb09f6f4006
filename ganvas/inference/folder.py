"""Translation of a folder of images, which reads ahead and writes in threads while the network computes.

A few images are held in memory at a time. The results do not depend on the timing of the threads.
"""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from ganvas.data.raster import Raster
from ganvas.data.tiff_tags import Tags
from ganvas.errors import UserError, WriteError
from ganvas.inference.batches import Source, in_batches
from ganvas.inference.jobs import FolderResult, Jobs
from ganvas.log import progress_bar

READERS = WRITERS = 2  # threads
MAX_PENDING = 8  # images that are read ahead, and images that wait to be written


class FileTranslator(Protocol):
    """The methods of `ganvas.inference.translator.Translator` that are needed here."""

    def read(self, source: Path) -> Raster:
        """Read a source image."""

    def prepare(self, image: np.ndarray, path: Path | None = None) -> Source:
        """Preprocess an image [H, W, C] of a file."""

    def max_batch_size(self, source: Source) -> int:
        """Return the size of a full batch of such sources."""

    def translate_sources(self, sources: Sequence[Source]) -> list[np.ndarray]:
        """Translate one batch; return [H, W, C] each."""

    def write(self, target: Path, output: np.ndarray, tags: Tags, nodata_mask: np.ndarray) -> Path:
        """Write a translation and return its file."""


def translate_jobs(translator: FileTranslator, jobs: Jobs) -> FolderResult:
    """Translate images. Unreadable images are skipped; a write error stops the translation."""
    with progress_bar() as bar:
        task = bar.add_task("translating", total=len(jobs.todo))
        pipeline = _Pipeline(translator, jobs, lambda: bar.advance(task))
        try:
            for batch in in_batches(pipeline.read_all(), lambda item: item.source, translator.max_batch_size):
                outputs = translator.translate_sources([item.source for item in batch])
                for item, output in zip(batch, outputs, strict=True):
                    pipeline.write(item, output)
                if pipeline.is_stopped:
                    break
        finally:
            pipeline.close()
    return pipeline.result()


@dataclass(frozen=True)
class _Item:
    """A source image between its file and the network."""

    number: int  # of its job
    source: Source
    tags: Tags
    nodata_mask: np.ndarray


class _Pipeline:
    """The threads that read and write, and the result of each job."""

    def __init__(self, translator: FileTranslator, jobs: Jobs, advance: Callable[[], None]) -> None:
        self._translator, self._jobs, self._advance = translator, jobs, advance
        self._readers, self._writers = ThreadPoolExecutor(READERS), ThreadPoolExecutor(WRITERS)
        self._writing: deque[tuple[int, Future[Path]]] = deque()
        self._written: dict[int, Path] = {}
        self._failed: dict[int, str] = {}
        self.is_stopped = False

    def read_all(self) -> Iterator[_Item]:
        """Read ahead; yield the readable images in order."""
        reading: deque[tuple[int, Future[Raster]]] = deque()
        for number, job in enumerate(self._jobs.todo):
            reading.append((number, self._readers.submit(self._translator.read, job.source)))
            if len(reading) > MAX_PENDING:
                yield from self._receive(*reading.popleft())
        while reading:
            yield from self._receive(*reading.popleft())

    def _receive(self, number: int, future: Future[Raster]) -> Iterator[_Item]:
        try:
            image = future.result()
        except UserError as error:
            self._fail(number, error)
            return
        yield _Item(
            number, self._translator.prepare(image.array, self._jobs.todo[number].source), image.tags, image.nodata_mask
        )

    def write(self, item: _Item, output: np.ndarray) -> None:
        """Queue a translation to be written; wait while the queue is full."""
        target = self._jobs.todo[item.number].target
        future = self._writers.submit(self._translator.write, target, output, item.tags, item.nodata_mask)
        self._writing.append((item.number, future))
        while self._writing and (len(self._writing) > MAX_PENDING or self._writing[0][1].done()):
            self._settle(*self._writing.popleft())

    def _settle(self, number: int, future: Future[Path]) -> None:
        try:
            self._written[number] = future.result()
            self._advance()
        except UserError as error:
            is_write_error = isinstance(error, WriteError)  # the next write would fail, too
            if not (self.is_stopped and is_write_error):  # report only the first one
                self._fail(number, error)
            self.is_stopped |= is_write_error

    def _fail(self, number: int, error: UserError) -> None:
        self._failed[number] = str(error)
        self._advance()

    def close(self) -> None:
        """Wait for the threads to finish what they began."""
        self._readers.shutdown(cancel_futures=True)
        self._writers.shutdown(cancel_futures=self.is_stopped)
        for number, future in self._writing:
            if not future.cancelled():
                self._settle(number, future)

    def result(self) -> FolderResult:
        """Return the result of all jobs."""
        failed = [*self._jobs.failed, *(self._failed[number] for number in sorted(self._failed))]
        written = [self._written[number] for number in sorted(self._written)]
        left = len(self._jobs.todo) - len(written) - len(self._failed)
        return FolderResult(written, self._jobs.existing, failed, left)
