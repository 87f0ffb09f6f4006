"""Decoded images in one memory-mapped file that all processes of a machine share.

Decoding and resizing take most of the time in which an image is loaded, and have the same result in every epoch. The
training and validation set, data loading workers and the processes of several devices fill the cache together. Frequent
images stay in the operating system's page cache, which shrinks when memory is short. (A cache in each process would
hold every image as often as there are processes; shared memory is limited to 64 MB in many containers.)

The file is a log: records are appended under a lock and never changed, and its head is the offset where the last
complete one ends. A process that misses an image first reads the new records. A key contains the source file's size and
modification time, so a changed file is another image. The cache is removed with the run; what a killed run left behind
is removed by the next one.
"""

import contextlib
import hashlib
import json
import math
import mmap
import shutil
import struct
import tempfile
import uuid
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from filelock import FileLock, Timeout

from ganvas.files import HOST, OWNER_LOCK, is_private_folder, remove_abandoned

HEAD = struct.Struct("<q")  # offset of the end of the last record
RECORD = struct.Struct("<q")  # bytes before the images: this number and a description in JSON
ALIGNMENT = 64  # of records and images; more than any dtype needs
PREFIX = "ganvas-images-"
LOG, LOG_LOCK = "log", "log.lock"


class _Entry(NamedTuple):
    """An image in the log."""

    offset: int
    dtype: str
    shape: tuple[int, ...]


class DecodeCache:
    """Images by key.

    On a full disk, or without its folder, the cache stops keeping images; nothing else fails.

    Args:
        folder: Folder of the log; see `temporary_decode_cache`.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._entries: dict[bytes, list[_Entry]] = {}
        self._end = ALIGNMENT  # this process has read the log up to here
        self._broken = False
        self._map: mmap.mmap | None = None

    def __getstate__(self) -> dict[str, Any]:
        """Pickle the folder alone; a new process maps the log itself."""
        return {"folder": self._folder}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(**state)  # type: ignore[misc]

    def get(self, key: str) -> list[np.ndarray] | None:
        """Return the images of a key as read-only arrays, or None."""
        digest = _digest(key)
        if digest not in self._entries and not self._broken:
            self._refresh()
        if digest not in self._entries:
            return None
        log = self._mapped()
        return [np.ndarray(entry.shape, entry.dtype, log, entry.offset) for entry in self._entries[digest]]

    def add(self, key: str, images: Sequence[np.ndarray]) -> None:
        """Store the images of a key, unless they are stored already or do not fit.

        Args:
            key: Identifies them.
            images: [H, W, C] of any dtypes.
        """
        if self._broken:
            return
        digest = _digest(key)
        header = _header(digest, images)
        size = len(header) + sum(_padded(image.nbytes) for image in images)
        try:
            with self._lock():
                self._read_records()
                if digest not in self._entries and self._end + size <= len(self._mapped()):
                    self._append(header, images)
                    self._read_records()
        except OSError:
            self._broken = True

    def _refresh(self) -> None:
        try:
            if self._log_end() != self._end:
                with self._lock():
                    self._read_records()
        except OSError:
            self._broken = True

    def _append(self, header: bytes, images: Sequence[np.ndarray]) -> None:
        with (self._folder / LOG).open("r+b") as log:
            log.seek(self._end)
            log.write(header)
            for image in images:
                log.write(np.ascontiguousarray(image).data)
                log.write(bytes(_padded(image.nbytes) - image.nbytes))
            end = log.tell()
            log.flush()
            log.seek(0)
            log.write(HEAD.pack(end))

    def _read_records(self) -> None:
        """Read the records added since the last time; the caller holds the lock."""
        log, end = self._mapped(), self._log_end()
        while self._end < end:
            (length,) = RECORD.unpack_from(log, self._end)
            offset = self._end + length
            record = json.loads(log[self._end + RECORD.size : offset])
            entries = []
            for dtype, shape in record["images"]:
                entries.append(_Entry(offset, dtype, tuple(shape)))
                offset += _padded(np.dtype(dtype).itemsize * math.prod(shape))
            self._entries[bytes.fromhex(record["key"])] = entries
            self._end = offset

    def _log_end(self) -> int:
        """Return where the log ends; without the lock, only a hint."""
        (end,) = HEAD.unpack_from(self._mapped())
        return int(end)

    def _mapped(self) -> mmap.mmap:
        if self._map is None:
            with (self._folder / LOG).open("rb") as log:
                self._map = mmap.mmap(log.fileno(), 0, access=mmap.ACCESS_READ)
        return self._map

    def _lock(self) -> contextlib.AbstractContextManager[object]:
        return FileLock(self._folder / LOG_LOCK).acquire(poll_interval=0.001)


def get_or_decode(cache: DecodeCache | None, key: str, decode: Callable[[], list[np.ndarray]]) -> list[np.ndarray]:
    """Return the cached images of a key, or decode and cache them; without a cache, decode them."""
    if cache is None:
        return decode()
    images = cache.get(key)
    if images is None:
        images = decode()
        cache.add(key, images)
    return images


def file_key(file: Path) -> tuple[str, int, int]:
    """Return what identifies a file in its present state: path, size and modification time; -1 for a missing file."""
    try:
        status = file.stat()
    except OSError:  # reading it will report the error
        return str(file), -1, -1
    return str(file), status.st_size, status.st_mtime_ns


def _digest(key: str) -> bytes:
    return hashlib.blake2b(key.encode(), digest_size=16).digest()


def _header(digest: bytes, images: Sequence[np.ndarray]) -> bytes:
    """Return the bytes of a record that precede its images."""
    kinds = [(image.dtype.str, image.shape) for image in images]
    description = json.dumps({"key": digest.hex(), "images": kinds}).encode()
    length = _padded(RECORD.size + len(description))
    return RECORD.pack(length) + description.ljust(length - RECORD.size)


def _padded(size: int) -> int:
    return -(-size // ALIGNMENT) * ALIGNMENT


@contextlib.contextmanager
def temporary_decode_cache(capacity: int, agree: Callable[[str], str] = str) -> Iterator[DecodeCache]:
    """Create a cache for the duration of a run, or join that of another process of the run.

    Args:
        capacity: Most bytes of the file. It never takes more than half of the free disk space, so that the run can
            write its own files.
        agree: Maps a name to the one that all processes of the run use.
    """
    temporary = Path(tempfile.gettempdir())
    remove_abandoned(temporary.glob(f"{PREFIX}*"))
    folder = temporary / agree(f"{PREFIX}{HOST}-{uuid.uuid4().hex}")
    owner = FileLock(folder / OWNER_LOCK)
    with contextlib.suppress(OSError):  # a cache without a log keeps nothing
        folder.mkdir(mode=0o700, exist_ok=True)
        if not is_private_folder(folder):  # anyone may create folders there
            raise FileExistsError(folder)
        with contextlib.suppress(Timeout):
            owner.acquire(timeout=0)
        _create_log(folder, max(ALIGNMENT, min(capacity, shutil.disk_usage(folder).free // 2)))
    try:
        yield DecodeCache(folder)
    finally:
        if owner.is_locked:
            owner.release()
            shutil.rmtree(folder, ignore_errors=True)


def _create_log(folder: Path, capacity: int) -> None:
    with FileLock(folder / LOG_LOCK), contextlib.suppress(FileExistsError), (folder / LOG).open("xb") as log:
        log.write(HEAD.pack(ALIGNMENT))
        log.truncate(capacity)
