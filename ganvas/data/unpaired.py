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
from ganvas.data.decode import read_image
from ganvas.data.decode_cache import DecodeCache, file_key, get_or_decode
from ganvas.data.layout import TWO_FOLDERS, find_layout, require_both
from ganvas.data.listing import Files, describe_empty, image_names, stem
from ganvas.data.paired import dataset_info
from ganvas.data.tensors import ValueRange, require_range, to_tensor
from ganvas.errors import UserError

OPTIONS = {"a": "--channels-a", "b": "--channels-b"}


def find_domains(root: Path, split: str) -> tuple[Files, Files]:
    """List the images of both domains of a split, sorted by name.

    Raises:
        UserError: The folder or split is missing or there in more than one layout, a domain is missing or empty, or the
            images are pairs or in shards.
    """
    layout = find_layout(root, split, TWO_FOLDERS)
    if layout.kind == "shards":
        raise UserError(
            f"{root}: holds {split!r} as shards, which are pairs. Pairs are for the command pix2pix; cyclegan expects "
            f"{TWO_FOLDERS}."
        )
    if layout.kind == "side by side":
        (one,) = layout.paths
        raise UserError(
            f"{one}: is not divided into two domains; it may hold pairs side by side. Pairs are for the command "
            f"pix2pix; cyclegan expects {TWO_FOLDERS}."
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
    """Tell whether both domains of a split show the same under equal names, as the test images of earth do.

    Names alone do not tell (many sets are numbered): DIR/dataset.json has to say "pairs": true.
    """
    a, b = find_domains(root, split)
    return bool(dataset_info(root).get("pairs")) and [stem(path.name) for path in a] == [stem(path.name) for path in b]


class UnpairedDataset(torch.utils.data.Dataset[dict[str, Any]]):
    """Two domains by (epoch, index) key; an epoch is as long as the longer one.

    The index is the longer domain's. Its partner is drawn from the shorter one by the same key, again in each epoch,
    and so is the augmentation of each.

    Args:
        root: The dataset's folder.
        split: "train", "val" or "test".
        augmentation: What is done to each image on its own; None gives whole images as they are.
        channels_a: Channels of domain a.
        channels_b: Channels of domain b.
        range_a: The values of domain a that become -1 and 1, as in `ganvas.data.tensors.to_tensor`.
        range_b: The same of domain b.
        seed: Of partners and augmentation.
        cache: Keeps decoded images, at the scale from which pieces are cut; None decodes them each time.

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
        """Give {"a": [C, H, W], "b": [C', H, W]}, both in [-1, 1], for (epoch, index)."""
        epoch, index = key
        longer, shorter = ("a", "b") if len(self.files["a"]) >= len(self.files["b"]) else ("b", "a")
        partner = int(np.random.default_rng([self._seed, epoch, index]).integers(len(self.files[shorter])))
        places = {longer: index, shorter: partner}
        return {domain: self._tensor(domain, places[domain], (*key, "ab".index(domain))) for domain in "ab"}

    @property
    def unread(self) -> Counter[str]:
        """Files beside the images that are not read, as in `ganvas.data.listing.Listing`."""
        return self.files["a"].unread + self.files["b"].unread

    def image(self, domain: str, index: int) -> np.ndarray:
        """Give a image of a domain as it is, [H, W, C]."""
        with add_option_to_errors(OPTIONS[domain]):
            return read_image(self.files[domain][index], self._channels[domain])

    def tensor(self, domain: str, index: int) -> torch.Tensor:
        """Give one image of a domain with the augmentation of epoch 0, [C, H, W] in [-1, 1]."""
        return self._tensor(domain, index, (0, index))

    def _tensor(self, domain: str, index: int, key: tuple[int, ...]) -> torch.Tensor:
        moved = self._moved(domain, index, key)
        value_range = self._ranges[domain]
        return to_tensor(require_range(moved, value_range, f"{self.files[domain][index]}:"), value_range)

    def _moved(self, domain: str, index: int, key: tuple[int, ...]) -> np.ndarray:
        path = self.files[domain][index]
        picture = self._scaled(domain, path)
        if self._transform is None:
            return picture
        try:
            return self._transform(picture, (self._seed, *key))
        except UserError as error:
            raise UserError(f"{path}: {error}") from None

    def _scaled(self, domain: str, path: Path) -> np.ndarray:
        """Give a image at the scale from which pieces are cut."""
        channels = self._channels[domain]
        scale = self._transform.resize if self._transform else lambda picture: picture
        load_size = self._transform.augmentation.load_size if self._transform else None
        key = repr((file_key(path), channels, load_size))
        with add_option_to_errors(OPTIONS[domain]):
            (picture,) = get_or_decode(self._cache, key, lambda: [scale(read_image(path, channels))])
        return picture
