"""Files and folders that appear complete or not at all, and reading of files that users name."""

import contextlib
import errno
import glob
import hashlib
import os
import re
import shutil
import socket
import stat
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from io import BufferedReader
from pathlib import Path
from typing import TypeVar

from ganvas.errors import UserError, WriteError

OWNER_LOCK = "owner.lock"
NEW, OLD = "new", "old"  # in a temporary folder: what is being written, and what it replaces
YOUNG = 60  # seconds in which a new temporary folder may not be locked yet
DAY = 86_400  # seconds after which files of another machine, whose locks may not be visible here, are abandoned
REREAD_SECONDS = 20.0  # for which a folder is read again while it is being replaced

Read = TypeVar("Read")


def _host() -> str:
    """Return a name of this machine, or container: the scope of process IDs and locks."""
    try:
        namespace = str(Path("/proc/self/ns/pid").readlink())
    except OSError:
        namespace = ""
    return hashlib.blake2b(f"{socket.gethostname()} {namespace}".encode(), digest_size=4).hexdigest()


HOST = _host()
_TEMPORARY = re.compile(r"\.new-([0-9a-f]{8})-(\d{1,9})-[0-9a-f]{16}(\..*)?")  # names of `new_file`: host, process

_swept: set[tuple[Path, str]] = set()  # folders and prefixes where this process has removed leftovers


@contextlib.contextmanager
def temporary_folder(prefix: str, parent: Path | None = None) -> Iterator[Path]:
    """Create a private folder that is removed when the block ends.

    If this process is killed, the next one that uses the same prefix and parent removes the folder: a lock in it shows
    whether its owner is alive.

    Args:
        prefix: Beginning of its name.
        parent: Where it is created; by default the system's folder for temporary files.

    Raises:
        OSError: It cannot be created.
    """
    parent = Path(tempfile.gettempdir()) if parent is None else parent
    if (parent, prefix) not in _swept:
        _swept.add((parent, prefix))
        remove_abandoned(parent.glob(f"{glob.escape(prefix)}*"))
    folder = Path(tempfile.mkdtemp(prefix=f"{prefix}{HOST}-", dir=parent))
    try:
        with contextlib.ExitStack() as stack:
            # Without filelock, or on a file system without locks, the folder counts as abandoned after a day.
            with contextlib.suppress(ImportError, OSError, NotImplementedError):
                from filelock import FileLock

                stack.enter_context(FileLock(folder / OWNER_LOCK).acquire(timeout=0))
            yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def remove_abandoned(folders: Iterable[Path], *, young: float | None = None) -> None:
    """Remove temporary folders of this user whose processes were killed; those of living ones are locked.

    Args:
        folders: Candidates.
        young: Minimum age of a folder in seconds; by default `YOUNG`.
    """
    for folder in folders:
        with _try_lock(folder, young=YOUNG if young is None else young) as is_locked:
            if is_locked:
                shutil.rmtree(folder, ignore_errors=True)
        if is_locked:  # Windows removes a lock file only after it is released
            shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def _try_lock(folder: Path, young: float) -> Iterator[bool]:
    """Lock a temporary folder that has no owner; yield whether that succeeded.

    Folders of other users, links, and folders younger than ``young`` seconds are left alone. A folder without a lock,
    or of another machine, must be a day old.
    """
    with contextlib.ExitStack() as stack:
        is_locked = False
        with contextlib.suppress(ImportError, OSError, NotImplementedError):
            from filelock import FileLock, Timeout

            age = time.time() - folder.lstat().st_mtime
            has_lock = f"{HOST}-" in folder.name and (folder / OWNER_LOCK).is_file()
            if is_private_folder(folder) and age > (young if has_lock else max(DAY, young)):
                with contextlib.suppress(Timeout):
                    stack.enter_context(FileLock(folder / OWNER_LOCK).acquire(timeout=0))
                    is_locked = True
        yield is_locked


def is_private_folder(folder: Path) -> bool:
    """Return whether a path is a folder, not a link, that belongs to this user and that no other can write into."""
    try:
        status = folder.lstat()
    except OSError:
        return False
    if os.name == "nt":
        return stat.S_ISDIR(status.st_mode)
    return stat.S_ISDIR(status.st_mode) and status.st_uid == os.geteuid() and not status.st_mode & 0o022


@contextlib.contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """Fill a temporary folder, then rename it to ``path``; an older folder there is replaced.

    If ``path`` is a symbolic link, the folder that it points to is replaced and the link stays.

    Yields:
        An empty folder next to ``path``. When the block ends, its files are flushed to the disk and it becomes
        ``path``; if the block raises, it is removed and ``path`` stays as it was.

    Raises:
        UserError: The disk is full, or the parent folder is not writable.
    """
    path = Path(os.path.realpath(path))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary_folder(_prefix(path), path.parent) as temporary:
            new = temporary / NEW
            new.mkdir()  # follows the umask, unlike the temporary folder itself
            yield new
            with ThreadPoolExecutor(8) as pool:  # a disk flushes many at once in the time of one
                list(pool.map(_flush, new.rglob("*")))
            _flush(new)
            _replace_folder(temporary, path)
            _flush(path.parent)
    except OSError as error:
        raise write_error(path, error) from None


def _prefix(path: Path) -> str:
    return f".{path.name}.new-"


def _replace_folder(temporary: Path, path: Path) -> None:
    # Not every system exchanges folders in one step; `recover_folder` repairs a kill between the two renames.
    try:
        if path.exists():
            path.rename(temporary / OLD)
        (temporary / NEW).rename(path)
    except BaseException:
        _restore_old(temporary, path)
        raise


def _restore_old(temporary: Path, path: Path) -> None:
    if not path.exists() and (temporary / OLD).exists():
        (temporary / OLD).rename(path)


def recover_folder(path: Path) -> None:
    """Clean up after a process that was killed while it replaced ``path``."""
    path = Path(os.path.realpath(path))
    leftovers = list(path.parent.glob(f"{glob.escape(_prefix(path))}*"))
    if not path.exists():
        for leftover in leftovers:
            with _try_lock(leftover, young=0) as is_locked, contextlib.suppress(OSError):
                if is_locked:
                    _restore_old(leftover, path)
    remove_abandoned(leftovers, young=0)


def read_consistently(folders: Iterable[Path], read: Callable[[], Read]) -> Read:
    """Return the result of ``read`` on folders that `new_folder` may be replacing, all of one version.

    Args:
        folders: The folders; some may not exist.
        read: Reads them. It is called again if a folder was replaced during the call.

    Raises:
        UserError: As ``read``.
    """
    folders = [Path(os.path.realpath(folder)) for folder in folders]
    start = time.monotonic()
    while True:
        before = [_version(folder) for folder in folders]
        failure: Exception | None = None
        try:
            found = read()
        except (UserError, OSError) as error:
            failure = error
        waited = time.monotonic() - start
        if not _is_being_replaced(folders, before, waited) or waited > REREAD_SECONDS:
            if failure is not None:
                raise failure
            return found
        time.sleep(0.005)


def _is_being_replaced(folders: Iterable[Path], before: list[tuple[int, ...] | None], waited: float) -> bool:
    for folder in folders:
        if not folder.exists() and any(folder.parent.glob(f"{glob.escape(_prefix(folder))}*/{OLD}")):
            if waited > 1:  # its writer may have been killed
                recover_folder(folder)
            return True
    return [_version(folder) for folder in folders] != before


def _version(folder: Path) -> tuple[int, ...] | None:
    try:
        status = folder.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino, status.st_mtime_ns


@contextlib.contextmanager
def new_file(path: Path) -> Iterator[Path]:
    """Write a temporary file, then rename it to ``path``.

    Yields:
        A path next to ``path``, with its suffix. When the block ends, its file becomes ``path``; if the block raises,
        it is removed and ``path`` stays as it was.

    Raises:
        UserError: The disk is full, or the folder is not writable.
    """
    # Unique for each file and process, and short: the file's own name may be as long as the system allows.
    name = hashlib.blake2b(os.fsencode(path.name), digest_size=8).hexdigest()
    temporary = path.with_name(f".new-{HOST}-{os.getpid()}-{name}{path.suffix}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if (path.parent, ".new-") not in _swept:
            _swept.add((path.parent, ".new-"))
            _remove_abandoned_files(path.parent)
        yield temporary
        temporary.replace(path)
    except OSError as error:
        raise write_error(path, error) from None
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def _remove_abandoned_files(folder: Path) -> None:
    for path in folder.glob(".new-*"):
        name = _TEMPORARY.fullmatch(path.name)
        with contextlib.suppress(OSError):
            status = path.lstat()
            if name is None or not stat.S_ISREG(status.st_mode):
                continue
            age = time.time() - status.st_mtime
            # The process ID may have been reused: then the file stays for a day.
            if age > DAY or (age > YOUNG and name[1] == HOST and not _is_alive(int(name[2]))):
                path.unlink()


def _is_alive(process: int) -> bool:
    if os.name == "nt":  # os.kill would end the process
        return True
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:
        pass
    return True


def move_into_place(temporary: Path, path: Path) -> None:
    """Rename a file to ``path``, with content and name flushed to the disk.

    Raises:
        OSError: It cannot be renamed.
    """
    _flush(temporary)
    temporary.replace(path)
    _flush(path.parent)


def write_file(path: Path, content: bytes | str) -> None:
    """Write a file that appears complete or not at all, flushed to the disk.

    Args:
        path: The file.
        content: Bytes, or text for `encode_text`.

    Raises:
        UserError: The disk is full, or the folder is not writable.
    """
    with new_file(path) as temporary:
        temporary.write_bytes(encode_text(content) if isinstance(content, str) else content)
        _flush(temporary)
    with contextlib.suppress(OSError):  # the file exists; some file systems cannot flush folders
        _flush(path.parent)


def encode_text(text: str) -> bytes:
    """Encode text as UTF-8, with escapes such as ``\\udcff`` for the bytes of file names that are not UTF-8."""
    return text.encode("utf-8", "backslashreplace")


def _flush(path: Path) -> None:
    """Wait until a file or folder is on the disk; Windows cannot do that for folders."""
    if os.name == "nt" and path.is_dir():
        return
    descriptor = os.open(path, os.O_RDWR if os.name == "nt" else os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_error(path: Path, error: OSError) -> WriteError:
    """Return the error of a failed write."""
    reason = error.strerror or str(error)
    return WriteError(f"{path}: cannot be written ({reason}). Make room or choose another place; nothing was damaged.")


def require_writable(path: Path, *, is_folder: bool = False) -> None:
    """Check that a path can be written, before the result is computed; free space is not checked.

    Args:
        path: The file, or the folder to fill. It need not exist.
        is_folder: Whether it is a folder.

    Raises:
        UserError: It exists as the other kind, or the folder around it is read-only.
    """
    if path.exists() and path.is_dir() != is_folder:
        found, wanted = ("file", "folder") if is_folder else ("folder", "file")
        raise UserError(f"{path}: is a {found}. Give the name of a {wanted}.")
    around = next(each for each in (path if is_folder else path.parent, *path.absolute().parents) if each.exists())
    reason = errno.EACCES if around.is_dir() else errno.ENOTDIR
    if not around.is_dir() or not os.access(around, os.W_OK | os.X_OK):
        raise write_error(path, OSError(reason, os.strerror(reason)))


def open_regular(path: Path) -> BufferedReader:
    """Open a file that a user named, for reading bytes.

    Only regular files are opened: reading a named pipe, a device or a socket may block forever.

    Raises:
        OSError: The file is missing, of another kind, or cannot be opened.
    """
    _require_regular(path, path.stat().st_mode)
    return open(path, "rb", opener=_open_regular)


def _open_regular(path: str, flags: int) -> int:
    """Open a file without blocking, in case it became a pipe since it was checked."""
    descriptor = os.open(path, flags | getattr(os, "O_NONBLOCK", 0))
    try:
        _require_regular(Path(path), os.fstat(descriptor).st_mode)
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


def _require_regular(path: Path, mode: int) -> None:
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, "it is a folder", str(path))
    if not stat.S_ISREG(mode):
        raise OSError(errno.EINVAL, "it is a pipe, a device or a socket, not a file", str(path))


def read_regular(path: Path) -> bytes:
    """Read a file that a user named.

    Raises:
        OSError: As `open_regular`.
    """
    with open_regular(path) as file:
        return file.read()


def sha256(path: Path) -> str:
    """Return the SHA-256 digest of a file in hexadecimal."""
    with open_regular(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
