"""MNIST and Fashion-MNIST: existing idx files, or a download by torchvision.

The files are read here, not by torchvision, which knows one folder only, no gzipped files, and no damaged ones.

References:
    LeCun et al. 1998, "Gradient-based learning applied to document recognition": MNIST, and its idx format.
    Xiao et al. 2017, "Fashion-MNIST": the same format.
"""

import contextlib
import gzip
import http.client
import math
import socket
import struct
import urllib.error
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Literal

import numpy as np

from ganvas.errors import UserError
from ganvas.files import move_into_place, open_regular, temporary_folder, write_error

Split = Literal["train", "test"]

TORCHVISION_FOLDERS = {"mnist": "MNIST", "fashion-mnist": "FashionMNIST"}
FILES = {
    "train": ("train-images-idx3-ubyte", "train-labels-idx1-ubyte"),
    "test": ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"),
}
ALL_FILES = tuple(file for pair in FILES.values() for file in pair)
SIDE = 28  # pixels
CLASSES = 10
MAX_VALUES = 1 << 28  # five times those of MNIST and its larger variants
UNSIGNED_BYTES = 8  # idx's code of the dtype
TEMPORARY_PREFIX = ".download-"
TIMEOUT = 30  # seconds without an answer; urllib has no timeout by default


def load_idx_pair(root: Path, name: str, split: Split) -> tuple[np.ndarray, np.ndarray]:
    """Read a split; the dataset is downloaded if it is missing.

    Args:
        root: Where `find_idx` searches, and `download` writes.
        name: "mnist" or "fashion-mnist".
        split: The split.

    Returns:
        Images [N, 28, 28] uint8 and labels [N] uint8, 0 to 9.

    Raises:
        UserError: A file is damaged, the two do not belong together, some of the four are missing, or the download
            fails.
    """
    files = find_idx(root, name)
    if files is None:
        _refuse_incomplete(root, name)
        download(root, name)
        files = find_idx(root, name)
        assert files is not None, "download raises an error unless all files exist"
    images_file, labels_file = (files[file] for file in FILES[split])
    images, labels = read_idx(images_file, 3), read_idx(labels_file, 1)
    if not len(images) or images.shape[1:] != (SIDE, SIDE):
        N, H, W = images.shape
        raise UserError(f"{images_file}: holds {N} images of {H} x {W} pixels; expected some of {SIDE} x {SIDE}.")
    if len(images) != len(labels):
        raise UserError(
            f"{labels_file}: holds {len(labels)} labels for the {len(images)} images of {images_file.name}. "
            "Put back the two files that belong together."
        )
    if labels.max() >= CLASSES:
        index = int(np.argmax(labels >= CLASSES))
        raise UserError(
            f"{labels_file}: label {index} is {labels[index]}; expected 0 to {CLASSES - 1}. The file is damaged, or "
            f"is not {name}'s."
        )
    return images, labels


def find_idx(root: Path, name: str) -> dict[str, Path] | None:
    """Search for a dataset's four files in the usual folders, gzipped or not.

    Args:
        root: The files are in it, in root/NAME, root/NAME/raw, or root/MNIST/raw (root/FashionMNIST/raw).
        name: "mnist" or "fashion-mnist".

    Returns:
        The path of each file by its name without ".gz"; None if no folder has all four.
    """
    return next((found for folder in _folders(root, name) if len(found := _files_in(folder)) == len(ALL_FILES)), None)


def _folders(root: Path, name: str) -> list[Path]:
    """Return the folders that may hold a dataset."""
    folders = [root / name, root / name / "raw", _download_folder(root, name)]
    # Both datasets have the same file names, so a folder called as the other dataset is not searched.
    other = "fashion-mnist" if name == "mnist" else "mnist"
    if root.resolve().name not in (other, TORCHVISION_FOLDERS[other]):
        folders.append(root)
    return folders


def _download_folder(root: Path, name: str) -> Path:
    return root / TORCHVISION_FOLDERS[name] / "raw"


def _files_in(folder: Path) -> dict[str, Path]:
    """Find the files of a dataset in a folder, by their names without ".gz"."""
    return {
        file: path
        for file in ALL_FILES
        for path in (folder / f"{file}.gz", folder / file)  # the plain one wins: it is read faster
        if path.is_file()
    }


def _refuse_incomplete(root: Path, name: str) -> None:
    """Check that no folder has some of the four files, rather than download the dataset to another place.

    The folder of an interrupted download may be incomplete; the next download completes it.

    Raises:
        UserError: A folder has some of the files.
    """
    for folder in _folders(root, name):
        found = _files_in(folder)
        if found and folder != _download_folder(root, name):
            missing = " and ".join(file for file in ALL_FILES if file not in found)
            raise UserError(
                f"{folder}: {missing} not found with {next(iter(found.values())).name}. Put all four files of {name} "
                "there, gzipped or not; or give another folder, and the set is downloaded into it."
            )


def read_idx(path: Path, dimensions: int) -> np.ndarray:
    """Read an idx file of unsigned bytes, gzipped or not.

    Args:
        path: The file; its content tells whether it is gzipped.
        dimensions: Expected dimensions: 3 for images, 1 for labels.

    Returns:
        uint8 array with that many dimensions.

    Raises:
        UserError: It is missing or unreadable, of another kind, truncated, or longer than its header says.
    """
    magic, length = bytes([0, 0, UNSIGNED_BYTES, dimensions]), 4 + 4 * dimensions
    again = "Remove it, and it is downloaded again."
    with _open_idx(path, again) as file:
        header = file.read(length)
        if header[:4] != magic:
            raise UserError(
                f"{path}: begins with {header[:4].hex(' ') or 'nothing'}; expected {magic.hex(' ')}, as an idx file of "
                f"{'images' if dimensions == 3 else 'labels'} does. Put back the right file, or remove it and "
                "download."
            )
        if len(header) < length:
            raise UserError(f"{path}: is cut short, {len(header)} bytes of a header of {length}. {again}")
        shape = struct.unpack(f">{dimensions}I", header[4:])
        size, sizes = math.prod(shape), " x ".join(map(str, shape))
        if size > MAX_VALUES:
            raise UserError(f"{path}: claims {sizes} values; at most {MAX_VALUES:,} are read. {again}")
        values = file.read(size)  # no more, however long a gzip file is when unpacked
        if len(values) < size:
            found = length + len(values)
            raise UserError(f"{path}: is cut short, {found} bytes for {length + size} ({sizes} values). {again}")
        if file.read(1):  # at the end, gzip's checksum is compared
            raise UserError(f"{path}: is too long, more than {length + size} bytes ({sizes} values). {again}")
    return np.frombuffer(values, dtype=np.uint8).reshape(shape).copy()  # writable


@contextlib.contextmanager
def _open_idx(path: Path, again: str) -> Iterator[IO[bytes] | gzip.GzipFile]:
    try:
        with open_regular(path) as file:
            is_gzip = file.read(2) == b"\x1f\x8b"
            file.seek(0)
            yield gzip.GzipFile(fileobj=file) if is_gzip else file
    except FileNotFoundError:
        raise UserError(f"{path}: there is no such file; expected an idx file.") from None
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise UserError(f"{path}: cannot be unpacked ({error}); it is cut short or damaged. {again}") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}).") from None


def download(root: Path, name: str) -> Path:
    """Download a dataset with torchvision, which checks the files' digests.

    Returns:
        The folder of the files, root/MNIST/raw or root/FashionMNIST/raw, as torchvision has it.

    Raises:
        UserError: There is no network, a file's digest is wrong, or the folder cannot be written.
    """
    from torchvision import datasets

    dataset = datasets.MNIST if name == "mnist" else datasets.FashionMNIST
    folder = _download_folder(root, name)
    existed = root.exists()
    try:
        root.mkdir(parents=True, exist_ok=True)
        # In a temporary folder, because torchvision accepts a file that a killed process left half unpacked.
        with temporary_folder(TEMPORARY_PREFIX, root) as temporary:
            with _socket_timeout():
                dataset(temporary, download=True)
            folder.mkdir(parents=True, exist_ok=True)
            for file in (temporary / TORCHVISION_FOLDERS[name] / "raw").iterdir():
                move_into_place(file, folder / file.name)
    except (RuntimeError, urllib.error.URLError, http.client.HTTPException, TimeoutError, ConnectionError) as error:
        if not existed:
            with contextlib.suppress(OSError):
                root.rmdir()
        files = ", ".join(f"{file}.gz" for file in ALL_FILES)
        raise UserError(
            f"{name} cannot be downloaded: {str(error).strip()}\n"
            f"Without a network, use dcgan's --data mnist5k; or put {files} into {root / name}."
        ) from None
    except OSError as error:
        raise write_error(folder, error) from None
    return folder


@contextlib.contextmanager
def _socket_timeout() -> Iterator[None]:
    """Set a default timeout: torchvision has no option for one."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(TIMEOUT)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)
