"""Pairs of source and target as samples for training; see `ganvas.data.pairs` for their files."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from ganvas.data.arrays import Alpha, composite_over_white
from ganvas.data.augment import Augmentation, PairTransform
from ganvas.data.channels import add_option_to_errors
from ganvas.data.decode import fit_channels, read_stacked
from ganvas.data.decode_cache import DecodeCache, file_key, get_or_decode
from ganvas.data.pairs import Pair, find_pairs, find_stacked_pairs
from ganvas.data.shards import Member, read_file
from ganvas.data.tensors import ValueRange, require_range, to_tensor
from ganvas.errors import UserError, add_place_to_errors

OPTIONS = ("source_channels", "target_channels")


class PairedDataset(torch.utils.data.Dataset[dict[str, Any]]):
    """Pairs by (epoch, index) key, which determines the augmentation.

    Args:
        root: The dataset's folder.
        split: "train", "val" or "test".
        augmentation: Applied to each pair; None returns images as they are.
        direction: "a2b" makes A the source, "b2a" B.
        source_channels: Channels of the source images.
        target_channels: Channels of the target images.
        source_range: The values of the source that become -1 and 1, as in `ganvas.data.tensors.to_tensor`.
        target_range: The same for the target.
        sources: Folders of a split whose images are stacked into the channels of the source; empty for the usual
            layouts.
        target: The folder of the targets next to ``sources``.
        seed: Seed of the augmentation.
        cache: Keeps decoded images at the size from which they are cropped; None decodes them each time.

    Raises:
        UserError: As `find_pairs`.

    Example:
        >>> crop = Augmentation(load_size=36, crop_size=32)
        >>> pairs = PairedDataset(Path("datasets/earth"), "train", augmentation=crop)
        >>> sample = pairs[0, 1]  # in epoch 0, pair 1
        >>> sample["source"].shape, sample["target"].shape
        (torch.Size([3, 32, 32]), torch.Size([3, 32, 32]))
    """

    def __init__(
        self,
        root: Path,
        split: str,
        *,
        augmentation: Augmentation | None,
        direction: Literal["a2b", "b2a"] = "a2b",
        source_channels: int = 3,
        target_channels: int = 3,
        source_range: ValueRange | None = None,
        target_range: ValueRange | None = None,
        sources: Sequence[str] = (),
        target: str = "b",
        seed: int = 0,
        cache: DecodeCache | None = None,
    ) -> None:
        self.pairs = find_stacked_pairs(root, split, sources, target) if sources else find_pairs(root, split)
        self._ranges = (source_range, target_range)
        self._transform = PairTransform(augmentation) if augmentation else None
        self._b_is_source = direction == "b2a"
        self._channels = (source_channels, target_channels)
        self._seed = seed
        self._cache = cache

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, key: tuple[int, int]) -> dict[str, Any]:
        """Return {"source": [C, H, W] in [-1, 1], "target": [C', H, W] in [-1, 1], "index": int} for (epoch, index)."""
        epoch, index = key
        source, target = self._resized(self.pairs[index])
        if self._transform is not None:
            with add_place_to_errors(self.pairs[index].a):
                source, target = self._transform(source, target, (self._seed, epoch, index))
        source_range, target_range = self._ranges
        return {"source": to_tensor(source, source_range), "target": to_tensor(target, target_range), "index": index}

    def name(self, index: int) -> str:
        """Return a pair's name: the stem of its files."""
        return self.pairs[index].name

    def pair(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        """Return source and target as they are, [H, W, C] each.

        Raises:
            UserError: An image cannot be read or has other channels, or the two differ in size.
        """
        return self._decode(self.pairs[index])

    def _resized(self, pair: Pair) -> tuple[np.ndarray, np.ndarray]:
        """Return source and target at the size from which they are cropped, from the cache where possible."""
        resize = self._transform.resize if self._transform else lambda image: image
        load_size = self._transform.augmentation.load_size if self._transform else None
        files = [_key(file) for file in (pair.a, pair.b, *pair.more) if file is not None]
        key = repr((files, self._channels, self._b_is_source, load_size))
        source, target = get_or_decode(self._cache, key, lambda: [resize(image) for image in self._decode(pair)])
        return source, target

    def _decode(self, pair: Pair) -> tuple[np.ndarray, np.ndarray]:
        sides = list(zip(OPTIONS, self._channels, strict=True))
        (option_a, channels_a), (option_b, channels_b) = reversed(sides) if self._b_is_source else sides
        if pair.b is None:
            both = read_file(pair.a, keep_alpha=True)
            left, right = split_halves(both.array, Path(str(pair.a)))
            with add_option_to_errors(option_a):
                a = _fit_half(left, both.alpha, channels_a, pair.a)
            with add_option_to_errors(option_b):
                b = _fit_half(right, both.alpha, channels_b, pair.a)
        else:
            with add_option_to_errors(option_a):
                if pair.more and isinstance(pair.a, Path):
                    a = read_stacked([pair.a, *pair.more], channels_a).array
                else:
                    a = read_file(pair.a, channels_a).array
            with add_option_to_errors(option_b):
                b = read_file(pair.b, channels_b).array
            if a.shape[:2] != b.shape[:2]:
                sizes = " and ".join(f"{image.shape[1]}x{image.shape[0]}" for image in (a, b))
                raise UserError(f"{pair.a} and {pair.b}: the halves of the pair differ in size ({sizes}).")
        source, target = (b, a) if self._b_is_source else (a, b)
        for image, value_range in zip((source, target), self._ranges, strict=True):
            require_range(image, value_range, f"{pair.a}:")
        return source, target


def _key(file: Path | Member) -> tuple[object, ...]:
    return (*file_key(file.shard), file.name) if isinstance(file, Member) else file_key(file)


def _fit_half(half: np.ndarray, alpha: Alpha, channels: int, file: Path | Member) -> np.ndarray:
    """Return one half of an A|B image with the expected channels.

    Raises:
        ChannelsError: It has others.
    """
    return fit_channels(composite_over_white(half, alpha, channels)[0], channels, Path(str(file)))


def split_halves(both: np.ndarray, path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Split a side-by-side image [H, 2W, C] into left and right.

    Raises:
        UserError: Its width is odd.
    """
    width = both.shape[1]
    if width % 2:
        raise UserError(
            f"{path}: is {width} pixels wide, which does not split into two halves of one size. "
            "Expected A left and B right."
        )
    return both[:, : width // 2], both[:, width // 2 :]
