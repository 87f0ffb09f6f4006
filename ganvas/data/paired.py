"""Data sets of pairs, in four layouts.

    DIR/train/x.jpg                   A left, B right
    DIR/trainA/x.jpg, trainB/x.png    equal stems
    DIR/train/a/x.jpg, train/b/x.png  equal stems
    DIR/train-000000.tar, …           shards of either; see `ganvas.data.shards`

Splits are train, val and test; ``DIR/dataset.json`` may name domains, licence and legend.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from ganvas.data.augment import Augmentation, PairTransform
from ganvas.data.images import (
    Picture,
    ValueRange,
    composed,
    fit_channels,
    read_picture,
    read_stacked,
    require_range,
    to_tensor,
)
from ganvas.data.listing import Files, picture_names, require_own_stems, stem
from ganvas.data.shards import Member, Members, find_members, find_shards
from ganvas.data.store import PictureStore, identity, kept
from ganvas.errors import UserError
from ganvas.files import read_json

SPLITS = ("train", "val", "test")
LAYOUTS = (
    "DIR/train with A|B pictures, DIR/trainA and DIR/trainB, DIR/train/a and DIR/train/b, or shards DIR/train-*.tar"
)


@dataclass(frozen=True)
class Pair:
    """The files of one pair.

    Attributes:
        a: A; without ``b`` it holds both pictures side by side.
        b: B.
        more: More sources, whose channels follow those of ``a``.
    """

    a: Path | Member
    b: Path | Member | None = None
    more: tuple[Path, ...] = ()

    @property
    def name(self) -> str:
        """The name that both files share, without suffix."""
        return self.a.stem


@dataclass(frozen=True)
class Pairs:
    """The pairs of a split, by number; files are as in `Pair`."""

    a: Files | Members
    b: Files | Members | None = None
    more: tuple[Files, ...] = ()

    def __len__(self) -> int:
        return len(self.a)

    def __getitem__(self, index: int) -> Pair:
        more = tuple(files[index] for files in self.more)
        return Pair(self.a[index], None if self.b is None else self.b[index], more)

    def __iter__(self) -> Iterator[Pair]:
        return (self[index] for index in range(len(self)))

    @property
    def files(self) -> dict[str, Files | Members]:
        """All files, by side: a, b where it has its own, and more sources."""
        more = {f"source {number}": files for number, files in enumerate(self.more, start=2)}
        return {"a": self.a, **({} if self.b is None else {"b": self.b}), **more}

    @property
    def shard_sizes(self) -> tuple[int, ...]:
        """Pairs in each shard; empty where there are none."""
        return self.a.shard_sizes if isinstance(self.a, Members) else ()


def dataset_info(root: Path) -> Mapping[str, Any]:
    """Read DIR/dataset.json; empty where there is none.

    Raises:
        UserError: It is no JSON object.
    """
    path = root / "dataset.json"
    return read_json(path, "a description of the data set") if path.is_file() else {}


def splits(root: Path) -> list[str]:
    """Tell which of train, val and test a data set has."""
    return [
        split
        for split in SPLITS
        if (root / split).is_dir() or (root / f"{split}A").is_dir() or find_shards(root, split)
    ]


def find_pairs(root: Path, split: str) -> Pairs:
    """List the pairs of a split, sorted by name; of shards, in the order in which they lie.

    Raises:
        UserError: The folder or split is missing or empty, there in more than one layout, a picture has no partner,
            two have one name, or a shard cannot be read.
    """
    if not root.is_dir():
        raise UserError(f"{root}: there is no such folder. Give --data the folder of a data set ({LAYOUTS}).")
    one, shards = root / split, find_shards(root, split)
    folders = [
        (a, b)
        for a, b in ((root / f"{split}A", root / f"{split}B"), (one / "a", one / "b"))
        if a.is_dir() or b.is_dir()
    ]
    names = picture_names(one) if one.is_dir() else []
    if len(folders) + bool(names) + bool(shards) > 1:
        raise UserError(f"{root}: {split} is there in more than one layout. Keep one of: {LAYOUTS}.")
    if shards:
        return Pairs(*find_members(shards))
    if folders:
        return _matched(*folders[0])
    if not one.is_dir():
        there = ", ".join(splits(root)) or "none"
        raise UserError(f"{root}: has no split {split!r} (it has: {there}). Expected {LAYOUTS}.")
    if not names:
        raise UserError(f"{one}: holds no pictures. Expected {LAYOUTS}.")
    require_own_stems(one, sorted(names, key=stem))
    return Pairs(Files(one, names))


def find_stacked_pairs(root: Path, split: str, sources: Sequence[str], target: str) -> Pairs:
    """List pairs with several sources, DIR/SPLIT/SOURCE/x.png each, and one target, DIR/SPLIT/TARGET/x.png.

    Raises:
        UserError: A folder is missing or empty, named twice, or a picture has no partner in another.
    """
    if len({*sources, target}) <= len(sources):
        raise UserError(f"--source {' --source '.join(sources)} --target {target}: one folder is named twice.")
    folders = [root / split / name for name in (*sources, target)]
    first = _matched(folders[0], folders[-1])
    more = [_matched(folders[0], folder).b for folder in folders[1:-1]]
    return Pairs(first.a, first.b, tuple(files for files in more if isinstance(files, Files)))


def _matched(a: Path, b: Path) -> Pairs:
    for folder, other in ((a, b), (b, a)):
        if not folder.is_dir():
            while_there = f", while {other} is there" if other.is_dir() else f", and so is {other}"
            raise UserError(f"{folder}: is missing{while_there}. A data set of pairs needs both.")
    first, second = (_by_stem(folder) for folder in (a, b))
    if len(first) != len(second) or any(stem(x) != stem(y) for x, y in zip(first, second, strict=True)):
        raise _unmatched(a, b, first, second)
    if not first:
        raise UserError(f"{a}: holds no pictures, nor does {b.name}.")
    return Pairs(Files(a, first), Files(b, second))


def _by_stem(folder: Path) -> list[str]:
    names = sorted(picture_names(folder), key=stem)
    require_own_stems(folder, names)
    return names


def _unmatched(a: Path, b: Path, first: list[str], second: list[str]) -> UserError:
    sides = [set(map(stem, names)) for names in (first, second)]
    alone = [sorted(sides[0] - sides[1]), sorted(sides[1] - sides[0])]
    found = "; ".join(
        f"only in {folder}: {', '.join(names[:3])}" + (f" and {len(names) - 3} more" if len(names) > 3 else "")
        for folder, names in zip((a, b), alone, strict=True)
        if names
    )
    return UserError(f"{a.parent}: pictures without a partner of the same name ({found}). Add or remove them.")


class PairedDataset(torch.utils.data.Dataset[dict[str, Any]]):
    """Pairs by (epoch, index) key, for which the augmentation is always the same.

    Args:
        root: The data set's folder.
        split: "train", "val" or "test".
        augmentation: What is done to each pair; None gives whole pictures as they are.
        direction: "a2b" makes A the source, "b2a" B.
        source_channels: Channels of the source pictures.
        target_channels: Channels of the target pictures.
        source_range: The values of the source that become -1 and 1, as in `ganvas.data.images.to_tensor`.
        target_range: The same of the target.
        sources: Folders of a split whose pictures are stacked into the channels of the source; empty for the usual
            layouts.
        target: The folder of the targets beside ``sources``.
        seed: Of the augmentation.
        store: Keeps decoded pictures, at the scale from which pieces are cut; None decodes them each time.

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
        source_range: ValueRange | None = None,
        target_range: ValueRange | None = None,
        sources: Sequence[str] = (),
        target: str = "b",
        seed: int = 0,
        store: PictureStore | None = None,
    ) -> None:
        self.pairs = find_stacked_pairs(root, split, sources, target) if sources else find_pairs(root, split)
        self._ranges = (source_range, target_range)
        self._transform = PairTransform(augmentation) if augmentation else None
        self._backwards = direction == "b2a"
        self._channels = (source_channels, target_channels)
        self._seed = seed
        self._store = store

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, key: tuple[int, int]) -> dict[str, Any]:
        """Give {"source": [C, H, W] in [-1, 1], "target": [C', H, W] in [-1, 1], "index": int} for (epoch, index)."""
        epoch, index = key
        source, target = self._scaled(self.pairs[index])
        if self._transform is not None:
            try:
                source, target = self._transform(source, target, (self._seed, epoch, index))
            except UserError as error:
                raise UserError(f"{self.pairs[index].a}: {error}") from None
        source_range, target_range = self._ranges
        return {"source": to_tensor(source, source_range), "target": to_tensor(target, target_range), "index": index}

    def name(self, index: int) -> str:
        """Give a pair's name: the file's stem."""
        return self.pairs[index].name

    def pair(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        """Give source and target as they are, [H, W, C] each.

        Raises:
            UserError: A picture cannot be read or has other channels, or the two differ in size.
        """
        return self._decode(self.pairs[index])

    def _scaled(self, pair: Pair) -> tuple[np.ndarray, np.ndarray]:
        """Give source and target at the scale from which pieces are cut."""
        scale = self._transform.scaled if self._transform else lambda picture: picture
        load_size = self._transform.augmentation.load_size if self._transform else None
        files = [_identity(picture) for picture in (pair.a, pair.b, *pair.more) if picture is not None]
        key = repr((files, self._channels, self._backwards, load_size))
        source, target = kept(self._store, key, lambda: [scale(picture) for picture in self._decode(pair)])
        return source, target

    def _decode(self, pair: Pair) -> tuple[np.ndarray, np.ndarray]:
        first, second = reversed(self._channels) if self._backwards else self._channels
        if pair.b is None:
            a, b = _read_halves(pair.a, (first, second))
        elif pair.more and isinstance(pair.a, Path):
            a, b = read_stacked([pair.a, *pair.more], first).array, _read(pair.b, second).array
        else:
            a, b = _read(pair.a, first).array, _read(pair.b, second).array
            if a.shape[:2] != b.shape[:2]:
                sizes = " and ".join(f"{picture.shape[1]}x{picture.shape[0]}" for picture in (a, b))
                raise UserError(f"{pair.a} and {pair.b}: the halves of the pair differ in size ({sizes}).")
        source, target = (b, a) if self._backwards else (a, b)
        for picture, value_range in zip((source, target), self._ranges, strict=True):
            require_range(picture, value_range, f"{pair.a}:")
        return source, target


def _identity(picture: Path | Member) -> tuple[object, ...]:
    return (*identity(picture.shard), picture.name) if isinstance(picture, Member) else identity(picture)


def _read(picture: Path | Member, channels: int | None = None, *, keep_alpha: bool = False) -> Picture:
    if isinstance(picture, Member):
        return picture.read(channels, keep_alpha=keep_alpha)
    return read_picture(picture, channels, keep_alpha=keep_alpha)


def _read_halves(picture: Path | Member, channels: Sequence[int]) -> Iterator[np.ndarray]:
    """Read a side-by-side picture; give left and right with their channels, of which alpha is one where it is counted.

    Raises:
        UserError: It cannot be read or cut, or a half has other channels.
    """
    both, where = _read(picture, keep_alpha=True), Path(str(picture))
    for half, wanted in zip(split_halves(both.array, where), channels, strict=True):
        yield fit_channels(composed(half, both.alpha, wanted)[0], wanted, where)


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
