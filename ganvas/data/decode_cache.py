"""Decoded images in a temporary folder that all processes of a machine share.

Decoding and resizing take most of the time in which an image is loaded, and have the same result in every epoch. The
training and validation set, data loading workers and the processes of several devices fill the cache together. Frequent
images stay in the operating system's page cache, which shrinks when memory is short. (A cache in each process would
hold every image as often as there are processes; shared memory is limited to 64 MB in many containers.)

Each key has a file, which is renamed into place once it is complete. A key contains the source file's size and
modification time, so a changed file is another image. The cache is removed with the run; what a killed run left behind
is removed by the next one.
"""

import contextlib
import hashlib
import json
import math
import shutil
import tempfile
import uuid
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
from filelock import FileLock, Timeout

from ganvas.files import HOST, OWNER_LOCK, is_private_folder, remove_abandoned

ALIGNMENT = 64  # bytes; more than any dtype needs
PREFIX = "ganvas-images-"
LOCK, USED = "lock", "used"


class DecodeCache:
    """Images by key.

    On a full disk, or without its folder, the cache stops keeping images; nothing else fails.

    Args:
        folder: Folder of the files; see `temporary_decode_cache`. None keeps nothing.
        capacity: Most bytes of all files.
    """

    def __init__(self, folder: Path | None, capacity: int) -> None:
        self._folder = folder
        self._capacity = capacity

    def get(self, key: str) -> list[np.ndarray] | None:
        """Return the images of a key as read-only arrays, or None."""
        try:
            content = (self._folder / _file_name(key)).read_bytes() if self._folder else b""
        except OSError:
            return None
        if not content:
            return None
        header = content[: content.index(b"\n")]
        images, offset = [], _padded(len(header) + 1)
        for dtype, shape in json.loads(header):
            images.append(np.frombuffer(content, dtype, math.prod(shape), offset).reshape(shape))
            offset += _padded(images[-1].nbytes)
        return images

    def add(self, key: str, images: Sequence[np.ndarray]) -> None:
        """Store the images of a key, unless they are stored already or do not fit.

        Args:
            key: Identifies them.
            images: [H, W, C] of any dtypes.
        """
        if self._folder is None:
            return
        header = json.dumps([(image.dtype.str, image.shape) for image in images]).encode() + b"\n"
        parts = (header, *(image.tobytes() for image in images))
        content = b"".join(part.ljust(_padded(len(part)), b"\0") for part in parts)
        file, counter = self._folder / _file_name(key), self._folder / USED
        try:
            with FileLock(self._folder / LOCK).acquire(poll_interval=0.001):
                used = int(counter.read_bytes()) + len(content)
                if used <= self._capacity and not file.exists():
                    _write(counter, str(used).encode())
                    _write(file, content)
        except OSError:
            self._folder = None


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


def _file_name(key: str) -> str:
    return hashlib.blake2b(key.encode(), digest_size=16).hexdigest()


def _padded(size: int) -> int:
    return -(-size // ALIGNMENT) * ALIGNMENT


def _write(file: Path, content: bytes) -> None:
    """Write a file that appears complete; the caller holds the lock."""
    temporary = file.with_name("new")
    temporary.write_bytes(content)
    temporary.replace(file)


@contextlib.contextmanager
def temporary_decode_cache(capacity: int, agree: Callable[[str], str] = str) -> Iterator[DecodeCache]:
    """Create a cache for the duration of a run, or join that of another process of the run.

    Args:
        capacity: Most bytes of the files. They never take more than half of the free disk space, so that the run can
            write its own files.
        agree: Maps a name to the one that all processes of the run use.
    """
    temporary = Path(tempfile.gettempdir())
    remove_abandoned(temporary.glob(f"{PREFIX}*"))
    folder = temporary / agree(f"{PREFIX}{HOST}-{uuid.uuid4().hex}")
    owner = FileLock(folder / OWNER_LOCK)
    cache = DecodeCache(None, 0)
    with contextlib.suppress(OSError):
        folder.mkdir(mode=0o700, exist_ok=True)
        if not is_private_folder(folder):  # anyone may create folders there
            raise FileExistsError(folder)
        with contextlib.suppress(Timeout):
            owner.acquire(timeout=0)
        with FileLock(folder / LOCK), contextlib.suppress(FileExistsError), (folder / USED).open("xb") as counter:
            counter.write(b"0")
        cache = DecodeCache(folder, min(capacity, shutil.disk_usage(folder).free // 2))
    try:
        yield cache
    finally:
        if owner.is_locked:
            owner.release()
            shutil.rmtree(folder, ignore_errors=True)
