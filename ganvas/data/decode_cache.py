"""Decoded images in one file that all processes of a machine share.

Decoding and scaling take most of the time in which a image is loaded, and give the same in every epoch. A cache holds
the result. It is one file, which every process maps into its memory: training and validation set, loading processes and
the processes of several devices fill it together, and none decodes what another has decoded. What is read often stays
in memory, and gives way when memory is short. (A cache of each process's own would hold every image as often as there
are processes; shared memory by another name is 64 MB in many containers.)

The file is a log: records are appended under a lock and never changed, and its head tells where the last whole one
ends. A process that misses a image first reads on in the log. The key of a record tells the source file's size and
time of change, so that a changed file is another image. The cache goes with the run that made it; what a killed run
left behind is removed by the next one.
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

HEAD = struct.Struct("<q")  # where the last record ends
RECORD = struct.Struct("<q")  # how many bytes, this number and a description in JSON, come before the images
ALIGNMENT = 64  # of records and images: more than any type needs
PREFIX = "ganvas-pictures-"
LOG, LOG_LOCK = "log", "log.lock"


class _Place(NamedTuple):
    """Where a image lies in the log, and what it is."""

    offset: int
    dtype: str
    shape: tuple[int, ...]


class DecodeCache:
    """Images by key.

    A disk that is full, or a folder that is gone, ends nothing but the keeping of images.

    Args:
        folder: Holds the log; see `temporary_decode_cache`.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._known: dict[bytes, list[_Place]] = {}
        self._end = ALIGNMENT  # this process knows the log up to here
        self._broken = False
        self._map: mmap.mmap | None = None

    def __getstate__(self) -> dict[str, Any]:
        """Send a new process the place alone: it opens the log on its own."""
        return {"folder": self._folder}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(**state)  # type: ignore[misc]

    def get(self, key: str) -> list[np.ndarray] | None:
        """Give the images of a key, which nobody can change, or None if they are not kept."""
        digest = _digest(key)
        if digest not in self._known and not self._broken:
            self._look_for_news()
        if digest not in self._known:
            return None
        log = self._mapped()
        return [np.ndarray(place.shape, place.dtype, log, place.offset) for place in self._known[digest]]

    def add(self, key: str, pictures: Sequence[np.ndarray]) -> None:
        """Keep the images of a key, [H, W, C] of any types, unless they are kept already or do not fit."""
        if self._broken:
            return
        digest = _digest(key)
        record = _header(digest, pictures)
        size = len(record) + sum(_padded(picture.nbytes) for picture in pictures)
        try:
            with self._lock():
                self._read_on()
                if digest not in self._known and self._end + size <= len(self._mapped()):
                    self._append(record, pictures)
                    self._read_on()
        except OSError:
            self._broken = True

    def _look_for_news(self) -> None:
        try:
            if self._log_end() != self._end:
                with self._lock():
                    self._read_on()
        except OSError:
            self._broken = True

    def _append(self, record: bytes, pictures: Sequence[np.ndarray]) -> None:
        with (self._folder / LOG).open("r+b") as log:
            log.seek(self._end)
            log.write(record)
            for picture in pictures:
                log.write(np.ascontiguousarray(picture).data)
                log.write(bytes(_padded(picture.nbytes) - picture.nbytes))
            end = log.tell()
            log.flush()
            log.seek(0)
            log.write(HEAD.pack(end))

    def _read_on(self) -> None:
        """Learn of the records that have been added since the last time; the lock is held."""
        log, end = self._mapped(), self._log_end()
        while self._end < end:
            (length,) = RECORD.unpack_from(log, self._end)
            offset = self._end + length
            record = json.loads(log[self._end + RECORD.size : offset])
            places = []
            for dtype, shape in record["pictures"]:
                places.append(_Place(offset, dtype, tuple(shape)))
                offset += _padded(np.dtype(dtype).itemsize * math.prod(shape))
            self._known[bytes.fromhex(record["key"])] = places
            self._end = offset

    def _log_end(self) -> int:
        """Tell where the log ends; without the lock, a hint."""
        (end,) = HEAD.unpack_from(self._mapped())
        return int(end)

    def _mapped(self) -> mmap.mmap:
        if self._map is None:
            with (self._folder / LOG).open("rb") as log:
                self._map = mmap.mmap(log.fileno(), 0, access=mmap.ACCESS_READ)
        return self._map

    def _lock(self) -> contextlib.AbstractContextManager[object]:
        return FileLock(self._folder / LOG_LOCK).acquire(poll_interval=0.001)


def get_or_decode(cache: DecodeCache | None, key: str, make: Callable[[], list[np.ndarray]]) -> list[np.ndarray]:
    """Give what a cache has by a key; or make it, and let the cache keep it. Without a cache it is made each time."""
    if cache is None:
        return make()
    pictures = cache.get(key)
    if pictures is None:
        pictures = make()
        cache.add(key, pictures)
    return pictures


def file_key(file: Path) -> tuple[str, int, int]:
    """Name a file in its present state, for a key; one that is gone is another than it was."""
    try:
        status = file.stat()
    except OSError:  # whoever reads it will say what is wrong
        return str(file), -1, -1
    return str(file), status.st_size, status.st_mtime_ns


def _digest(key: str) -> bytes:
    return hashlib.blake2b(key.encode(), digest_size=16).digest()


def _header(digest: bytes, pictures: Sequence[np.ndarray]) -> bytes:
    """Describe a record: its key, and the images that follow."""
    kinds = [(picture.dtype.str, picture.shape) for picture in pictures]
    description = json.dumps({"key": digest.hex(), "pictures": kinds}).encode()
    length = _padded(RECORD.size + len(description))
    return RECORD.pack(length) + description.ljust(length - RECORD.size)


def _padded(size: int) -> int:
    return -(-size // ALIGNMENT) * ALIGNMENT


@contextlib.contextmanager
def temporary_decode_cache(capacity: int, agree: Callable[[str], str] = str) -> Iterator[DecodeCache]:
    """Make a cache, or join that of another process, for the time of a run.

    Args:
        capacity: Bytes that the file may take. It never takes more than half of what is free, so that the run has room
            for its own files.
        agree: Takes a name and gives the one that all processes of the run use.
    """
    remove_abandoned(Path(tempfile.gettempdir()).glob(f"{PREFIX}*"))
    folder = Path(tempfile.gettempdir()) / agree(f"{PREFIX}{HOST}-{uuid.uuid4().hex}")
    owner = FileLock(folder / OWNER_LOCK)
    with contextlib.suppress(OSError):  # a cache without a log keeps nothing
        folder.mkdir(mode=0o700, exist_ok=True)
        if not is_private_folder(folder):  # anyone may make folders there
            raise FileExistsError(folder)
        with contextlib.suppress(Timeout):
            owner.acquire(timeout=0)
        _make_log(folder, max(ALIGNMENT, min(capacity, shutil.disk_usage(folder).free // 2)))
    try:
        yield DecodeCache(folder)
    finally:
        if owner.is_locked:
            owner.release()
            shutil.rmtree(folder, ignore_errors=True)


def _make_log(folder: Path, capacity: int) -> None:
    with FileLock(folder / LOG_LOCK), contextlib.suppress(FileExistsError), (folder / LOG).open("xb") as log:
        log.write(HEAD.pack(ALIGNMENT))
        log.truncate(capacity)
