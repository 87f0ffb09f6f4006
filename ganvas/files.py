"""Files and folders that appear whole or not at all, and JSON that is read with plain errors."""

import contextlib
import errno
import glob
import hashlib
import json
import math
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
from typing import Any, TypeVar

from ganvas.errors import UserError, WriteError

OWNER_LOCK = "owner.lock"
NEW, OLD = "new", "old"  # in a temporary folder: what is being written, and what it replaces
YOUNG = 60  # seconds in which a new temporary folder may have no owner yet
DAY = 86_400  # seconds after which what another machine left is abandoned, whose locks may not be seen here
REREAD_SECONDS = 20.0  # how long a folder that is being replaced is read again
MOST_JSON_BYTES = 1 << 28
MOST_DIGITS = 100  # of a whole number in JSON; a random generator's state has 39

Read = TypeVar("Read")


def _host() -> str:
    """Return a name for this machine, or this container: where process numbers and locks of others can be seen."""
    try:
        space = str(Path("/proc/self/ns/pid").readlink())
    except OSError:
        space = ""
    return hashlib.blake2b(f"{socket.gethostname()} {space}".encode(), digest_size=4).hexdigest()


HOST = _host()
_ASIDE = re.compile(r"\.new-([0-9a-f]{8})-(\d{1,9})-[0-9a-f]{16}(\..*)?")  # names of `new_file`: machine, process

_swept: set[tuple[Path, str]] = set()  # parents and prefixes of temporary folders that this process has cleaned up


@contextlib.contextmanager
def temporary_folder(prefix: str, parent: Path | None = None) -> Iterator[Path]:
    """Make a private folder that is removed when the block ends.

    If this process is killed, the next one that uses the same prefix and parent removes it: a lock in the folder shows
    whether its owner is alive.

    Args:
        prefix: Beginning of its name.
        parent: Where to make it; by default the system's folder for temporary files.

    Raises:
        OSError: It cannot be made.
    """
    parent = Path(tempfile.gettempdir()) if parent is None else parent
    if (parent, prefix) not in _swept:
        _swept.add((parent, prefix))
        remove_abandoned(parent.glob(f"{glob.escape(prefix)}*"))
    folder = Path(tempfile.mkdtemp(prefix=f"{prefix}{HOST}-", dir=parent))
    try:
        with contextlib.ExitStack() as owned:
            # Without filelock, or where the disk knows no locks, the folder counts as abandoned after a day.
            with contextlib.suppress(ImportError, OSError, NotImplementedError):
                from filelock import FileLock

                owned.enter_context(FileLock(folder / OWNER_LOCK).acquire(timeout=0))
            yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """Fill a folder aside, then put it in its place in one rename; an older folder there is replaced.

    Where ``path`` is a symbolic link, the folder that it points to is replaced and the link stays.

    Yields:
        An empty folder beside ``path``. When the block ends well, its files are flushed to the disk and it becomes
        ``path``; when it raises, it is removed and ``path`` stays as it was.

    Raises:
        UserError: The disk is full, or the place is not writable.
    """
    path = Path(os.path.realpath(path))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary_folder(_prefix(path), path.parent) as aside:
            new = aside / NEW
            new.mkdir()  # follows the umask, unlike the temporary folder itself
            yield new
            with ThreadPoolExecutor(8) as pool:  # a disk takes many at once in the time of one
                list(pool.map(_flush, new.rglob("*")))
            _flush(new)
            _swap(aside, path)
            _flush(path.parent)
    except OSError as error:
        raise write_error(path, error) from None


def _prefix(path: Path) -> str:
    return f".{path.name}.new-"


def _swap(aside: Path, path: Path) -> None:
    # Folders cannot be exchanged in one step everywhere; `recover_folder` repairs a kill between the two renames.
    try:
        if path.exists():
            path.rename(aside / OLD)
        (aside / NEW).rename(path)
    except BaseException:
        _put_back(aside, path)
        raise


def _put_back(aside: Path, path: Path) -> None:
    if not path.exists() and (aside / OLD).exists():
        (aside / OLD).rename(path)


def recover_folder(path: Path) -> None:
    """Clean up after a process that was killed while it replaced ``path``."""
    path = Path(os.path.realpath(path))
    leftovers = list(path.parent.glob(f"{glob.escape(_prefix(path))}*"))
    if not path.exists():
        for leftover in leftovers:
            with _locked(leftover, young=0) as is_free, contextlib.suppress(OSError):
                if is_free:
                    _put_back(leftover, path)
    remove_abandoned(leftovers, young=0)


def read_consistently(folders: Iterable[Path], read: Callable[[], Read]) -> Read:
    """Return what ``read`` reads from folders that `new_folder` may be replacing meanwhile, all of one version.

    Args:
        folders: The folders; some may not exist.
        read: Reads them. It is called again while a folder was replaced during the call.

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
        settled = not _is_replaced(folders, before, waited) or waited > REREAD_SECONDS
        if settled and failure is None:
            return found
        if settled and failure is not None:
            raise failure
        time.sleep(0.005)


def _is_replaced(folders: Iterable[Path], before: list[tuple[int, ...] | None], waited: float) -> bool:
    for folder in folders:
        if not folder.exists() and any(folder.parent.glob(f"{glob.escape(_prefix(folder))}*/{OLD}")):
            if waited > 1:  # its writer may be dead
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
    """Write a file aside, then put it in its place in one rename.

    Yields:
        A place beside ``path``, with its suffix. When the block ends well, what lies there becomes ``path``; when it
        raises, it is removed and ``path`` stays as it was.

    Raises:
        UserError: The disk is full, or the place is not writable.
    """
    # A name of its own for each file, and short: the file's own may be as long as the disk allows.
    name = hashlib.blake2b(os.fsencode(path.name), digest_size=8).hexdigest()
    aside = path.with_name(f".new-{HOST}-{os.getpid()}-{name}{path.suffix}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if (path.parent, ".new-") not in _swept:
            _swept.add((path.parent, ".new-"))
            _remove_abandoned_files(path.parent)
        yield aside
        aside.replace(path)
    except OSError as error:
        raise write_error(path, error) from None
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


def _remove_abandoned_files(folder: Path) -> None:
    for path in folder.glob(".new-*"):
        made = _ASIDE.fullmatch(path.name)
        with contextlib.suppress(OSError):
            status = path.lstat()
            if made is None or not stat.S_ISREG(status.st_mode):
                continue
            age = time.time() - status.st_mtime
            # A process number may be another process's by now: then the file stays for a day.
            if age > DAY or (age > YOUNG and made[1] == HOST and not _is_alive(int(made[2]))):
                path.unlink()


def _is_alive(process: int) -> bool:
    if os.name == "nt":  # asking would end it
        return True
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:
        pass
    return True


def move_into_place(aside: Path, path: Path) -> None:
    """Rename a file to ``path``, its content and its name flushed to the disk.

    Raises:
        OSError: It cannot be renamed.
    """
    _flush(aside)
    aside.replace(path)
    _flush(path.parent)


def write_file(path: Path, content: bytes | str) -> None:
    """Write a file aside, flush it to the disk, and rename it into place.

    Args:
        path: The file.
        content: Bytes, or text as `encode_text` takes it.

    Raises:
        UserError: The disk is full, or the place is not writable.
    """
    with new_file(path) as aside:
        aside.write_bytes(encode_text(content) if isinstance(content, str) else content)
        _flush(aside)
    with contextlib.suppress(OSError):  # the file is there; a disk that cannot sync folders needs no more
        _flush(path.parent)


def encode_text(text: str) -> bytes:
    """Encode text as UTF-8; what has no encoding, such as a file name of another one, as escapes: ``\\udcff``."""
    return text.encode("utf-8", "backslashreplace")


def write_json(path: Path, values: object) -> None:
    """Write JSON for people and programs: indented, whole or not at all."""
    write_file(path, json.dumps(values, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def parse_json(text: str | bytes) -> Any:
    """Parse JSON from anywhere.

    A lone surrogate is allowed only where it stands for a byte of a file name that is not UTF-8 (`os.fsdecode`).

    Raises:
        ValueError: It is not JSON (NaN and infinities are not, either), is nested too deeply, or holds a number or a
            string that nothing can use.
    """
    if isinstance(text, bytes):
        text = text.decode()
    try:
        values = json.loads(text, parse_int=_whole, parse_float=_finite, parse_constant=_refuse_constant)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    if "\\ud" in text.lower():
        _require_text(values)
    return values


def _whole(digits: str) -> int:
    if len(digits) > MOST_DIGITS:
        raise ValueError(f"a number has {len(digits)} digits; at most {MOST_DIGITS} are allowed")
    return int(digits)


def _finite(digits: str) -> float:
    value = float(digits)
    if not math.isfinite(value):
        raise ValueError(f"the number {digits[:20]} is too large")
    return value


def _refuse_constant(name: str) -> float:
    raise ValueError(f"{name} is not a JSON value")


def _require_text(values: object) -> None:
    waiting = [values]
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict):
            waiting += [*value.keys(), *value.values()]
        elif isinstance(value, list):
            waiting += value
        elif isinstance(value, str):
            try:
                value.encode("utf-8", "surrogateescape")
            except UnicodeEncodeError:
                raise ValueError(f"the text {value[:20]!a} holds half a character (a lone surrogate)") from None


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
        raise write_error(path, OSError(reason, os.strerror(reason)))


def read_json(path: Path, what: str) -> dict[str, Any]:
    """Read a JSON object.

    Args:
        path: The file.
        what: What the file is, for messages: "a run's config".

    Raises:
        UserError: It is missing, unreadable, too large, or no JSON object.
    """
    try:
        with open_regular(path) as file:
            content = file.read(MOST_JSON_BYTES + 1)
        if len(content) > MOST_JSON_BYTES:
            raise ValueError(f"it has more than {MOST_JSON_BYTES >> 20} MiB")
        values = parse_json(content)
    except (FileNotFoundError, NotADirectoryError):
        raise UserError(f"{path}: there is no such file; expected {what}.") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); expected {what}.") from None
    except ValueError as error:
        raise UserError(f"{path}: is no JSON ({error}); expected {what}.") from None
    if not isinstance(values, dict):
        raise UserError(f"{path}: is no JSON object but {type(values).__name__}; expected {what}.")
    return values


def sha256(path: Path) -> str:
    """Give a file's digest as hexadecimal digits."""
    with open_regular(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def remove_abandoned(folders: Iterable[Path], *, young: float | None = None) -> None:
    """Remove temporary folders of this user whose processes were killed: a living one holds the lock in its folder.

    Args:
        folders: Candidates.
        young: Seconds that a folder has to be old; by default `YOUNG`.
    """
    for folder in folders:
        with _locked(folder, young=YOUNG if young is None else young) as is_free:
            if is_free:
                shutil.rmtree(folder, ignore_errors=True)
        if is_free:  # Windows removes a lock only when it is let go
            shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def _locked(folder: Path, young: float) -> Iterator[bool]:
    """Lock a temporary folder that nobody owns; yield whether that was possible.

    Folders of other users and links are left alone, and so are younger ones than ``young`` seconds. A folder without a
    lock, or of another machine, whose locks may not be seen here, has to be a day old.
    """
    with contextlib.ExitStack() as owned:
        is_free = False
        with contextlib.suppress(ImportError, OSError, NotImplementedError):
            from filelock import FileLock, Timeout

            age = time.time() - folder.lstat().st_mtime
            has_lock = f"{HOST}-" in folder.name and (folder / OWNER_LOCK).is_file()
            if is_private_folder(folder) and age > (young if has_lock else max(DAY, young)):
                with contextlib.suppress(Timeout):
                    owned.enter_context(FileLock(folder / OWNER_LOCK).acquire(timeout=0))
                    is_free = True
        yield is_free


def is_private_folder(folder: Path) -> bool:
    """Return whether a path is a folder, not a link, that belongs to this user and that no other may write into."""
    try:
        status = folder.lstat()
    except OSError:
        return False
    if os.name == "nt":
        return stat.S_ISDIR(status.st_mode)
    return stat.S_ISDIR(status.st_mode) and status.st_uid == os.geteuid() and not status.st_mode & 0o022


def write_error(path: Path, error: OSError) -> WriteError:
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
