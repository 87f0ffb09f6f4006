"""Data sets of pairs, in three layouts.

    DIR/train/x.jpg                   A left, B right
    DIR/trainA/x.jpg, trainB/x.png    equal stems
    DIR/train/a/x.jpg, train/b/x.png  equal stems

Splits are train, val and test; ``DIR/dataset.json`` may name domains, licence and legend.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from ganvas.data.augment import Augmentation, PairTransform
from ganvas.data.images import fit_channels, list_images, read_image, to_tensor
from ganvas.errors import UserError
from ganvas.files import read_json

SPLITS = ("train", "val", "test")
LAYOUTS = "DIR/train with A|B pictures, DIR/trainA and DIR/trainB, or DIR/train/a and DIR/train/b"


@dataclass(frozen=True)
class Pair:
    """The file or files of one pair; without ``b``, ``a`` holds both pictures side by side."""

    name: str
    a: Path
    b: Path | None = None


def dataset_info(root: Path) -> Mapping[str, Any]:
    """Read DIR/dataset.json; empty where there is none.

    Raises:
        UserError: It is no JSON object.
    """
    path = root / "dataset.json"
    return read_json(path, "a description of the data set") if path.is_file() else {}


def splits(root: Path) -> list[str]:
    """Tell which of train, val and test a data set has."""
    return [split for split in SPLITS if (root / split).is_dir() or (root / f"{split}A").is_dir()]


def find_pairs(root: Path, split: str) -> list[Pair]:
    """List the pairs of a split, sorted by name.

    Raises:
        UserError: The folder or split is missing or empty, there in more than one layout, a picture has no partner,
            or two have one name.
    """
    if not root.is_dir():
        raise UserError(f"{root}: there is no such folder. Give --data the folder of a data set ({LAYOUTS}).")
    one = root / split
    folders = [
        (a, b)
        for a, b in ((root / f"{split}A", root / f"{split}B"), (one / "a", one / "b"))
        if a.is_dir() or b.is_dir()
    ]
    if len(folders) > 1 or (folders and one.is_dir() and list_images(one)):
        raise UserError(f"{root}: {split} is there in more than one layout. Keep one of: {LAYOUTS}.")
    if folders:
        return _matched(*folders[0])
    if not one.is_dir():
        there = ", ".join(splits(root)) or "none"
        raise UserError(f"{root}: has no split {split!r} (it has: {there}). Expected {LAYOUTS}.")
    files = _by_name(one)
    if not files:
        raise UserError(f"{one}: holds no pictures. Expected {LAYOUTS}.")
    return [Pair(name, file) for name, file in files.items()]


def _matched(a: Path, b: Path) -> list[Pair]:
    for folder, other in ((a, b), (b, a)):
        if not folder.is_dir():
            raise UserError(f"{folder}: is missing, while {other} is there. A data set of pairs needs both.")
    sides = [_by_name(folder) for folder in (a, b)]
    alone = [sorted(sides[0].keys() - sides[1].keys()), sorted(sides[1].keys() - sides[0].keys())]
    if any(alone):
        found = "; ".join(
            f"only in {folder}: {', '.join(names[:3])}" + (f" and {len(names) - 3} more" if len(names) > 3 else "")
            for folder, names in zip((a, b), alone, strict=True)
            if names
        )
        raise UserError(f"{a.parent}: pictures without a partner of the same name ({found}). Add or remove them.")
    if not sides[0]:
        raise UserError(f"{a}: holds no pictures, nor does {b.name}.")
    return [Pair(name, sides[0][name], sides[1][name]) for name in sorted(sides[0])]


def _by_name(folder: Path) -> dict[str, Path]:
    """List pictures by their names without suffix, which is what partners share and results are called by."""
    found: dict[str, Path] = {}
    for file in list_images(folder):
        other = found.setdefault(file.stem, file)
        if other is not file:
            raise UserError(f"{folder}: {other.name} and {file.name} differ only in the suffix. Rename or remove one.")
    return found


class PairedDataset(torch.utils.data.Dataset[dict[str, Any]]):
    """Pairs by (epoch, index) key, for which the augmentation is always the same.

    Args:
        root: The data set's folder.
        split: "train", "val" or "test".
        augmentation: What is done to each pair; None gives whole pictures as they are.
        direction: "a2b" makes A the source, "b2a" B.
        source_channels: Channels of the source pictures.
        target_channels: Channels of the target pictures.
        seed: Of the augmentation.
        cache_bytes: Decoded pictures are kept in memory until they take so much; each process has its own.

    Raises:
        UserError: As `find_pairs`.
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
        seed: int = 0,
        cache_bytes: int = 2 * 10**9,
    ) -> None:
        self.pairs = find_pairs(root, split)
        self._transform = PairTransform(augmentation) if augmentation else None
        self._backwards = direction == "b2a"
        self._channels = (source_channels, target_channels)
        self._seed = seed
        self._cache: dict[int, tuple[np.ndarray, np.ndarray]] = {}
        self._cache_left = cache_bytes

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, key: tuple[int, int]) -> dict[str, Any]:
        """Give {"source": [C, H, W] in [-1, 1], "target": [C', H, W] in [-1, 1], "index": int} for (epoch, index)."""
        epoch, index = key
        source, target = self.pair(index)
        if self._transform is not None:
            try:
                source, target = self._transform(source, target, (self._seed, epoch, index))
            except UserError as error:
                raise UserError(f"{self.pairs[index].a}: {error}") from None
        return {"source": to_tensor(source), "target": to_tensor(target), "index": index}

    def name(self, index: int) -> str:
        """Give a pair's name: the file's stem."""
        return self.pairs[index].name

    def pair(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        """Give source and target as they are, [H, W, C] each.

        Raises:
            UserError: A picture cannot be read or has other channels, or the two differ in size.
        """
        if index in self._cache:
            return self._cache[index]
        pair = self._decode(self.pairs[index])
        size = sum(picture.nbytes for picture in pair)
        if size <= self._cache_left:
            self._cache[index] = pair
            self._cache_left -= size
        return pair

    def _decode(self, pair: Pair) -> tuple[np.ndarray, np.ndarray]:
        first, second = reversed(self._channels) if self._backwards else self._channels
        if pair.b is None:
            a, b = split_halves(read_image(pair.a), pair.a)
            a, b = fit_channels(a, first, pair.a), fit_channels(b, second, pair.a)
        else:
            a, b = read_image(pair.a, first), read_image(pair.b, second)
            if a.shape[:2] != b.shape[:2]:
                sizes = " and ".join(f"{picture.shape[1]}x{picture.shape[0]}" for picture in (a, b))
                raise UserError(f"{pair.a} and {pair.b}: the halves of the pair differ in size ({sizes}).")
        return (b, a) if self._backwards else (a, b)


def split_halves(both: np.ndarray, path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Cut a side-by-side picture [H, 2W, C] into left and right.

    Raises:
        UserError: Its width is odd, or one pixel.
    """
    width = both.shape[1]
    if width % 2:
        raise UserError(
            f"{path}: is {width} pixels wide, which does not split into two halves of one size. "
            "Expected A left and B right."
        )
    return both[:, : width // 2], both[:, width // 2 :]
