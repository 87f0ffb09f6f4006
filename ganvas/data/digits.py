"""MNIST and Fashion-MNIST: idx files, found where they lie or downloaded by torchvision's own loaders.

References:
    LeCun et al. 1998, "Gradient-based learning applied to document recognition": MNIST, and its idx format.
    Xiao et al. 2017, "Fashion-MNIST": the same form.
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
MOST_VALUES = 1 << 28  # five times what MNIST and its larger kin hold
UNSIGNED_BYTES = 8  # idx's number for the type of the values
ASIDE = ".download-"  # begins the names of folders for what is being downloaded
TIMEOUT = 30  # seconds without an answer; urllib itself would wait for ever


def load_idx_pair(root: Path, name: str, split: Split) -> tuple[np.ndarray, np.ndarray]:
    """Read a split; the set is downloaded when it is not there.

    Args:
        root: Where `find_idx` looks, and `download` writes.
        name: "mnist" or "fashion-mnist".
        split: Which part of it.

    Returns:
        Images [N, 28, 28] uint8 and labels [N] uint8, 0 to 9.

    Raises:
        UserError: A file is damaged, the two do not belong together, some of the four are missing, or the set could
            not be downloaded.
    """
    files = find_idx(root, name)
    if files is None:
        _refuse_a_part(root, name)
        download(root, name)
        files = find_idx(root, name)
        assert files is not None, "download raises when it leaves nothing to find"
    pictures_file, labels_file = (files[file] for file in FILES[split])
    pictures, labels = read_idx(pictures_file, 3), read_idx(labels_file, 1)
    if not len(pictures) or pictures.shape[1:] != (SIDE, SIDE):
        N, H, W = pictures.shape
        raise UserError(f"{pictures_file}: holds {N} images of {H} x {W} pixels; expected some of {SIDE} x {SIDE}.")
    if len(pictures) != len(labels):
        raise UserError(
            f"{labels_file}: holds {len(labels)} labels for the {len(pictures)} images of {pictures_file.name}. "
            "Put back the two files that belong together."
        )
    if labels.max() >= CLASSES:
        where = int(np.argmax(labels >= CLASSES))
        raise UserError(
            f"{labels_file}: label {where} is {labels[where]}; expected 0 to {CLASSES - 1}. The file is damaged, or "
            f"is not {name}'s."
        )
    return pictures, labels


def find_idx(root: Path, name: str) -> dict[str, Path] | None:
    """Look for a set's four files in the folders that people and torchvision keep them in, gzipped or not.

    Args:
        root: The files are in it, in root/NAME, root/NAME/raw, or root/MNIST/raw (root/FashionMNIST/raw).
        name: "mnist" or "fashion-mnist".

    Returns:
        The path of each file by its name without ".gz"; none when no folder holds all four.
    """
    return next((found for folder in _folders(root, name) if len(found := _files_in(folder)) == len(ALL_FILES)), None)


def _folders(root: Path, name: str) -> list[Path]:
    """Give the folders that may hold a set."""
    folders = [root / name, root / name / "raw", _download_folder(root, name)]
    # Both sets have the same names of files, so a folder that is called as the other set is not looked into.
    other = "fashion-mnist" if name == "mnist" else "mnist"
    if root.resolve().name not in (other, TORCHVISION_FOLDERS[other]):
        folders.append(root)
    return folders


def _download_folder(root: Path, name: str) -> Path:
    return root / TORCHVISION_FOLDERS[name] / "raw"


def _files_in(folder: Path) -> dict[str, Path]:
    """Find the files of a set in a folder, by their names without ".gz"."""
    return {
        file: path
        for file in ALL_FILES
        for path in (folder / f"{file}.gz", folder / file)  # the plain one wins, being read faster
        if path.is_file()
    }


def _refuse_a_part(root: Path, name: str) -> None:
    """Ask for the files that somebody forgot, rather than download the set to another place.

    A download that was killed leaves a part, too, and the next one completes it.

    Raises:
        UserError: A folder holds some of the four files.
    """
    for folder in _folders(root, name):
        found = _files_in(folder)
        if found and folder != _download_folder(root, name):
            missing = " and ".join(file for file in ALL_FILES if file not in found)
            raise UserError(
                f"{folder}: {missing} not found beside {next(iter(found.values())).name}. Put all four files of {name} "
                "there, gzipped or not; or give another folder, and the set is downloaded into it."
            )


def read_idx(path: Path, dimensions: int) -> np.ndarray:
    """Read an idx file of unsigned bytes, gzipped or not.

    Args:
        path: The file; that it is gzipped is seen from its content.
        dimensions: How many are expected: 3 for images, 1 for labels.

    Returns:
        uint8, of as many dimensions.

    Raises:
        UserError: It is missing or unreadable, of another kind, cut short, or longer than its header says.
    """
    magic, length = bytes([0, 0, UNSIGNED_BYTES, dimensions]), 4 + 4 * dimensions
    with _opened(path) as file:
        header = file.read(length)
        if header[:4] != magic:
            raise UserError(
                f"{path}: begins with {header[:4].hex(' ') or 'nothing'}; expected {magic.hex(' ')}, as an idx file of "
                f"{'pictures' if dimensions == 3 else 'labels'} does. Put back the right file, or remove it and "
                "download."
            )
        if len(header) < length:
            raise UserError(f"{path}: is cut short, {len(header)} bytes of a header of {length}. {_AGAIN}")
        shape = struct.unpack(f">{dimensions}I", header[4:])
        size, sizes = math.prod(shape), " x ".join(map(str, shape))
        if size > MOST_VALUES:
            raise UserError(f"{path}: claims {sizes} values; at most {MOST_VALUES:,} are read. {_AGAIN}")
        values = file.read(size)  # no more than that, whatever a gzip file would become
        if len(values) < size:
            found = length + len(values)
            raise UserError(f"{path}: is cut short, {found} bytes for {length + size} ({sizes} values). {_AGAIN}")
        if file.read(1):  # at the end, gzip's checksum is compared
            raise UserError(f"{path}: is too long, more than {length + size} bytes ({sizes} values). {_AGAIN}")
    return np.frombuffer(values, dtype=np.uint8).reshape(shape).copy()  # a copy can be written to


_AGAIN = "Remove it, and it is downloaded again."


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[IO[bytes] | gzip.GzipFile]:
    try:
        with open_regular(path) as file:
            packed = file.read(2) == b"\x1f\x8b"
            file.seek(0)
            yield gzip.GzipFile(fileobj=file) if packed else file
    except FileNotFoundError:
        raise UserError(f"{path}: there is no such file; expected an idx file.") from None
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise UserError(f"{path}: cannot be unpacked ({error}); it is cut short or damaged. {_AGAIN}") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}).") from None


def download(root: Path, name: str) -> Path:
    """Download a set by torchvision, which checks each file's digest.

    Args:
        root: Folder to download into; made when missing.
        name: "mnist" or "fashion-mnist".

    Returns:
        The folder of the files, root/MNIST/raw or root/FashionMNIST/raw: where torchvision itself would look, too.

    Raises:
        UserError: The network is away, a file's digest is wrong, or the place cannot be written.
    """
    from torchvision import datasets

    loader = datasets.MNIST if name == "mnist" else datasets.FashionMNIST
    folder = _download_folder(root, name)
    was_there = root.exists()
    try:
        root.mkdir(parents=True, exist_ok=True)
        # Aside, because torchvision takes a file for whole that a killed process left half unpacked.
        with temporary_folder(ASIDE, root) as aside:
            with _timeout():
                loader(aside, download=True)
            folder.mkdir(parents=True, exist_ok=True)
            for file in (aside / TORCHVISION_FOLDERS[name] / "raw").iterdir():
                move_into_place(file, folder / file.name)
    except (RuntimeError, urllib.error.URLError, http.client.HTTPException, TimeoutError, ConnectionError) as error:
        if not was_there:
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
def _timeout() -> Iterator[None]:
    """Give up on a silent server: torchvision offers no timeout of its own."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(TIMEOUT)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)
