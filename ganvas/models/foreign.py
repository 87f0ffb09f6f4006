"""Recognition of files by their first bytes, for error messages. Free of heavy imports."""

import zipfile
from pathlib import Path

HEAD = 512  # bytes to inspect
LFS_POINTER = b"version https://git-lfs.github.com/spec/"
MARKUP = (b"<!doctype html", b"<html", b"<head", b"<?xml", b"<error")
KINDS = {
    b"\x89HDF\r\n\x1a\n": "an HDF5 file, as Keras writes",
    b"\x93NUMPY": "a NumPy array",
    b"\x89PNG": "a PNG image",
    b"\xff\xd8\xff": "a JPEG image",
    b"GGUF": "a GGUF file",
}
ARCHIVES = {b"\x1f\x8b": "gzip", b"7z\xbc\xaf\x27\x1c": "7z", b"Rar!": "RAR", b"\xfd7zXZ": "xz", b"BZh": "bzip2"}


def describe_content(path: Path) -> str | None:
    """Describe a file that should contain weights but is something else, and what to do; else return None."""
    with path.open("rb") as file:
        head = file.read(HEAD)
    if not head:
        return "is empty. Copy or download it again."
    if head.startswith(LFS_POINTER):
        return "is a Git LFS pointer, not the file itself. Run git lfs pull in its repository, or download the file."
    if head.lstrip(b"\xef\xbb\xbf \t\r\n").lower().startswith(MARKUP):
        return "is a web page saved under this name, such as a login or error page. Download the file again."
    if archive := next((name for magic, name in ARCHIVES.items() if head.startswith(magic)), None):
        return f"is a {archive} archive. Unpack it, and give the file inside."
    if kind := next((name for magic, name in KINDS.items() if head.startswith(magic)), None):
        return f"is {kind}. Give another file."
    if (
        path.suffix != ".safetensors"
        and head[8:9] == b"{"
        and int.from_bytes(head[:8], "little") <= path.stat().st_size - 8
    ):
        return "is a safetensors file under another name. Give a file that torch.save wrote."
    return _describe_zip(path) if head.startswith(b"PK\x03\x04") else None


def _describe_zip(path: Path) -> str | None:
    """Describe a zip file; return None for PyTorch's own format."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = [name.partition("/")[2] for name in archive.namelist()]
    except (zipfile.BadZipFile, NotImplementedError, OSError, ValueError):  # damaged: reported by the reader
        return None
    if "constants.pkl" in names:
        return (
            "is a TorchScript program, which contains code; nothing in it was executed. Give the file of the network's "
            "state_dict instead, such as latest_net_G.pth."
        )
    if "data.pkl" not in names:
        return "is a zip archive. Unpack it, and give the file inside."
    return None
