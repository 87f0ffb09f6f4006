"""Datasets of two domains without pairs, in a layout of two folders (`ganvas.data.layout`).

The domains may differ in length and in the channels of their images.
"""

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ganvas.data.augment import Augmentation, ImageTransform
from ganvas.data.channels import add_option_to_errors
from ganvas.data.dataset_info import dataset_info
from ganvas.data.decode import read_image
from ganvas.data.decode_cache import DecodeCache, file_key, get_or_decode
from ganvas.data.layout import TWO_FOLDERS, find_layout, require_both
from ganvas.data.listing import Files, describe_empty, image_names, stem
from ganvas.data.tensors import ValueRange, require_range, to_tensor
from ganvas.errors import UserError, add_place_to_errors

OPTIONS = {"a": "channels_a", "b": "channels_b"}


def find_domains(root: Path, split: str) -> tuple[Files, Files]:
    """List the images of both domains of a split, sorted by name.

    Raises:
        UserError: The folder or split is missing or has more than one layout, a domain is missing or empty, or the
            images are pairs or in shards.
    """
    layout = find_layout(root, split, TWO_FOLDERS)
    if layout.kind == "shards":
        raise UserError(
            f"{root}: holds {split!r} as shards, which are pairs. Pairs are for the command pix2pix; cyclegan expects "
            f"{TWO_FOLDERS}."
        )
    if layout.kind == "side by side":
        raise UserError(
            f"{layout.paths[0]}: is not divided into two domains; it may hold pairs side by side. Pairs are for the "
            f"command pix2pix; cyclegan expects {TWO_FOLDERS}."
        )
    require_both(*layout.paths)
    a, b = map(_images, layout.paths)
    return a, b


def _images(domain: Path) -> Files:
    unread: Counter[str] = Counter()
    names = image_names(domain, unread)
    if not names:
        raise UserError(f"{domain}: {describe_empty(unread)} Both domains are needed.")
    return Files(domain, names, unread)


def are_pairs(root: Path, split: str) -> bool:
    """Return whether both domains of a split show the same scenes under equal names, as the test images of earth do.

    Equal names alone do not tell (many datasets are numbered): DIR/dataset.json must contain "pairs": true.
    """
    a, b = find_domains(root, split)
    return bool(dataset_info(root).get("pairs")) and [stem(path.name) for path in a] == [stem(path.name) for path in b]


class UnpairedDataset(torch.utils.data.Dataset[dict[str, Any]]):
    """Two domains by (epoch, index) key; an epoch is as long as the longer one.

    The index is that of the longer domain. Its partner from the shorter one is drawn by the same key, again in each
    epoch, as is the augmentation of each.

    Args:
        root: The dataset's folder.
        split: "train", "val" or "test".
        augmentation: Applied to each image on its own; None returns images as they are.
        channels_a: Channels of domain a.
        channels_b: Channels of domain b.
        range_a: The values of domain a that become -1 and 1, as in `ganvas.data.tensors.to_tensor`.
        range_b: The same for domain b.
        seed: Seed of partners and augmentation.
        cache: Keeps decoded images at the size from which they are cropped; None decodes them each time.

    Raises:
        UserError: As `find_domains`.
    """

    def __init__(
        self,
        root: Path,
        split: str,
        *,
        augmentation: Augmentation | None,
        channels_a: int = 3,
        channels_b: int = 3,
        range_a: ValueRange | None = None,
        range_b: ValueRange | None = None,
        seed: int = 0,
        cache: DecodeCache | None = None,
    ) -> None:
        self.files = dict(zip("ab", find_domains(root, split), strict=True))
        self._channels = {"a": channels_a, "b": channels_b}
        self._ranges = {"a": range_a, "b": range_b}
        self._transform = ImageTransform(augmentation) if augmentation else None
        self._seed = seed
        self._cache = cache

    def __len__(self) -> int:
        return max(map(len, self.files.values()))

    def __getitem__(self, key: tuple[int, int]) -> dict[str, Any]:
        """Return {"a": [C, H, W], "b": [C', H, W]}, both in [-1, 1], for (epoch, index)."""
        epoch, index = key
        longer, shorter = ("a", "b") if len(self.files["a"]) >= len(self.files["b"]) else ("b", "a")
        partner = int(np.random.default_rng([self._seed, epoch, index]).integers(len(self.files[shorter])))
        indices = {longer: index, shorter: partner}
        return {domain: self._tensor(domain, indices[domain], (*key, "ab".index(domain))) for domain in "ab"}

    @property
    def unread(self) -> Counter[str]:
        """Files next to the images that are not read, as in `ganvas.data.listing.Listing`."""
        return self.files["a"].unread + self.files["b"].unread

    def image(self, domain: str, index: int) -> np.ndarray:
        """Return an image of a domain as it is, [H, W, C]."""
        with add_option_to_errors(OPTIONS[domain]):
            return read_image(self.files[domain][index], self._channels[domain])

    def tensor(self, domain: str, index: int) -> torch.Tensor:
        """Return an image of a domain with the augmentation of epoch 0, [C, H, W] in [-1, 1]."""
        return self._tensor(domain, index, (0, index))

    def _tensor(self, domain: str, index: int, key: tuple[int, ...]) -> torch.Tensor:
        path, value_range = self.files[domain][index], self._ranges[domain]
        image = self._resized(domain, path)
        if self._transform is not None:
            with add_place_to_errors(path):
                image = self._transform(image, (self._seed, *key))
        return to_tensor(require_range(image, value_range, f"{path}:"), value_range)

    def _resized(self, domain: str, path: Path) -> np.ndarray:
        """Return an image at the size from which it is cropped, from the cache where possible."""
        channels = self._channels[domain]
        resize = self._transform.resize if self._transform else lambda image: image
        load_size = self._transform.augmentation.load_size if self._transform else None
        key = repr((file_key(path), channels, load_size))
        with add_option_to_errors(OPTIONS[domain]):
            (image,) = get_or_decode(self._cache, key, lambda: [resize(read_image(path, channels))])
        return image
