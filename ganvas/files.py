"""Files and folders that appear whole or not at all, and JSON that is read with plain errors."""

import contextlib
import errno
import glob
import hashlib
import json
import os
import shutil
import stat
import tempfile
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from io import BufferedReader
from pathlib import Path
from typing import Any

from ganvas.errors import UserError, WriteError

OWNER_LOCK = "owner.lock"
YOUNG = 60  # seconds in which a new temporary folder may have no owner yet


@contextlib.contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """Fill a folder aside, then put it in its place in one rename; an older folder there is replaced.

    Yields:
        An empty folder beside ``path``. When the block ends well, its files are flushed to the disk and it becomes
        ``path``; when it raises, it is removed and ``path`` stays as it was.

    Raises:
        UserError: The disk is full, or the place is not writable.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        aside = Path(tempfile.mkdtemp(prefix=f".{path.name}.new-", dir=path.parent))
    except OSError as error:
        raise cannot_write(path, error) from None
    try:
        yield aside
        aside.chmod(0o755)  # mkdtemp's folders are private
        with ThreadPoolExecutor(8) as pool:  # a disk takes many at once in the time of one
            list(pool.map(_flush, aside.rglob("*")))
        _flush(aside)
        _swap(aside, path)
        _flush(path.parent)
    except OSError as error:
        raise cannot_write(path, error) from None
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def _swap(aside: Path, path: Path) -> None:
    if not path.exists():
        aside.rename(path)
        return
    # Folders cannot be exchanged in one step everywhere; `recover_folder` mends a death between the two renames.
    old = _old(path)
    shutil.rmtree(old, ignore_errors=True)
    path.rename(old)
    aside.rename(path)
    shutil.rmtree(old, ignore_errors=True)


def recover_folder(path: Path) -> None:
    """Clean up after a process that was killed while it replaced ``path``."""
    if not path.exists() and _old(path).exists():
        _old(path).rename(path)
    for leftover in path.parent.glob(f".{glob.escape(path.name)}.new-*"):
        shutil.rmtree(leftover, ignore_errors=True)


def _old(path: Path) -> Path:
    return path.with_name(f".{path.name}.old")


@contextlib.contextmanager
def new_file(path: Path) -> Iterator[Path]:
    """Write a file aside, then put it in its place in one rename.

    Yields:
        A place beside ``path``, with its suffix. When the block ends well, what lies there becomes ``path``; when it
        raises, it is removed and ``path`` stays as it was.

    Raises:
        UserError: The disk is full, or the place is not writable.
    """
    # A name of its own for each file, and short: the file's own may be as long as the disk allows.
    name = hashlib.blake2b(os.fsencode(path.name), digest_size=8).hexdigest()
    aside = path.with_name(f".new-{os.getpid()}-{name}{path.suffix}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield aside
        aside.replace(path)
    except OSError as error:
        raise cannot_write(path, error) from None
    finally:
        with contextlib.suppress(OSError):
            aside.unlink(missing_ok=True)


def open_regular(path: Path) -> BufferedReader:
    """Open a file that a user named, for reading bytes.

    Nothing but a regular file is opened: reading a named pipe, a device or a socket may wait forever.

    Raises:
        OSError: There is no such file, it is something else, or it cannot be opened.
    """
    _require_regular(path, path.stat().st_mode)
    return open(path, "rb", opener=_open_regular)


def _open_regular(path: str, flags: int) -> int:
    """Open a file without waiting for a writer, should it have become a pipe since it was looked at."""
    descriptor = os.open(path, flags | getattr(os, "O_NONBLOCK", 0))
    try:
        _require_regular(Path(path), os.fstat(descriptor).st_mode)
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


def read_regular(path: Path) -> bytes:
    """Read all of a file that a user named; errors are those of `open_regular`."""
    with open_regular(path) as file:
        return file.read()


def _require_regular(path: Path, mode: int) -> None:
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, "it is a folder", str(path))
    if not stat.S_ISREG(mode):
        raise OSError(errno.EINVAL, "it is a pipe, a device or a socket, not a file", str(path))


def write_file(path: Path, content: bytes) -> None:
    """Write a file aside, flush it to the disk, and rename it into place.

    Raises:
        UserError: The disk is full, or the place is not writable.
    """
    with new_file(path) as aside:
        aside.write_bytes(content)
        _flush(aside)


def write_json(path: Path, values: object) -> None:
    """Write JSON for people and programs: indented, whole or not at all."""
    write_file(path, (json.dumps(values, indent=2, ensure_ascii=False, allow_nan=False) + "\n").encode())


def require_writable(path: Path, *, is_folder: bool = False) -> None:
    """Refuse a place that cannot be written; ask this before the work whose result is to lie there.

    A disk that is full or becomes so is not noticed.

    Args:
        path: The file, or the folder to fill. It need not exist.
        is_folder: Which of them.

    Raises:
        UserError: Something else is there, or the folder around it is read-only.
    """
    if path.exists() and path.is_dir() != is_folder:
        there, wanted = ("file", "folder") if is_folder else ("folder", "file")
        raise UserError(f"{path}: is a {there}. Give the name of a {wanted}.")
    around = next(each for each in (path if is_folder else path.parent, *path.absolute().parents) if each.exists())
    reason = errno.EACCES if around.is_dir() else errno.ENOTDIR
    if not around.is_dir() or not os.access(around, os.W_OK | os.X_OK):
        raise cannot_write(path, OSError(reason, os.strerror(reason)))


def read_json(path: Path, what: str) -> dict[str, Any]:
    """Read a JSON object.

    Args:
        path: The file.
        what: What the file is, for messages: "a run's config".

    Raises:
        UserError: It is missing, unreadable, or no JSON object.
    """
    try:
        values = json.loads(read_regular(path).decode("utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        raise UserError(f"{path}: there is no such file; expected {what}.") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); expected {what}.") from None
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise UserError(f"{path}: is no JSON ({error}); expected {what}.") from None
    if not isinstance(values, dict):
        raise UserError(f"{path}: is no JSON object but {type(values).__name__}; expected {what}.")
    return values


def sha256(path: Path) -> str:
    """Give a file's digest as hexadecimal digits."""
    with open_regular(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def remove_abandoned(folders: Iterable[Path]) -> None:
    """Remove temporary folders whose processes were killed: a living one holds the lock `OWNER_LOCK` in its folder."""
    from filelock import FileLock, Timeout

    for folder in folders:
        with contextlib.suppress(OSError, Timeout):
            if time.time() - folder.stat().st_mtime > YOUNG:
                with FileLock(folder / OWNER_LOCK).acquire(timeout=0):
                    shutil.rmtree(folder, ignore_errors=True)


def cannot_write(path: Path, error: OSError) -> WriteError:
    """Make the message for a write that failed."""
    reason = error.strerror or str(error)
    return WriteError(f"{path}: cannot be written ({reason}). Make room or choose another place; nothing was damaged.")


def _flush(path: Path) -> None:
    """Wait until a file or folder is on the disk; Windows cannot do that for folders and needs no more."""
    if os.name == "nt" and path.is_dir():
        return
    descriptor = os.open(path, os.O_RDWR if os.name == "nt" else os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
