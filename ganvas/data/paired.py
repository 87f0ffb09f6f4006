"""Datasets of pairs, in the layouts of `ganvas.data.layout`: two folders hold partners under equal stems.

``DIR/dataset.json`` may name domains, license and legend.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from ganvas.data.arrays import composite_over_white
from ganvas.data.augment import Augmentation, PairTransform
from ganvas.data.channels import add_option_to_errors
from ganvas.data.decode import fit_channels, read_stacked
from ganvas.data.decode_cache import DecodeCache, file_key, get_or_decode
from ganvas.data.layout import ANY_LAYOUT, find_layout, require_both, split_folder
from ganvas.data.listing import Files, describe_empty, image_names, require_unique_stems, stem
from ganvas.data.raster import Raster
from ganvas.data.shards import Member, Members, find_members, read_file
from ganvas.data.tensors import ValueRange, require_range, to_tensor
from ganvas.errors import UserError
from ganvas.files import read_json
from ganvas.messages import join_first
from ganvas.options import Name, from_json

OPTIONS = ("--source-channels", "--target-channels")


@dataclass(frozen=True)
class Pair:
    """The files of one pair.

    Attributes:
        a: A; without ``b`` it holds both images side by side.
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

    def sources(self, index: int) -> Sequence[Path | Member]:
        """Return the files of A that are stacked, or the one."""
        pair = self[index]
        return (pair.a, *pair.more)

    def targets(self, index: int) -> Sequence[Path | Member]:
        """Return the file of B, which may be that of A."""
        pair = self[index]
        return (pair.b or pair.a,)

    @property
    def files(self) -> dict[str, Files | Members]:
        """All files, by side: a, b where it has its own, and more sources."""
        more = {f"source {number}": files for number, files in enumerate(self.more, start=2)}
        return {"a": self.a, **({} if self.b is None else {"b": self.b}), **more}

    @property
    def shard_sizes(self) -> tuple[int, ...]:
        """Pairs in each shard; empty where there are none."""
        return self.a.shard_sizes if isinstance(self.a, Members) else ()

    @property
    def unread(self) -> Counter[str]:
        """Files beside the images that are not read, as in `ganvas.data.listing.Listing`."""
        return sum((files.unread for files in (self.a, self.b, *self.more) if isinstance(files, Files)), Counter())


def dataset_info(root: Path) -> Mapping[str, Any]:
    """Read DIR/dataset.json; empty where there is none.

    Raises:
        UserError: It is no JSON object, or names the dataset, its domains or its license with anything but text.
    """
    path = root / "dataset.json"
    if not path.is_file():
        return {}
    info = read_json(path, "a description of the dataset")
    from_json(_Described, {name: info[name] for name in _Described.__dataclass_fields__ if name in info}, str(path))
    return info


@dataclass(frozen=True)
class _Described:
    """The names in a dataset.json that models and their cards repeat."""

    name: Name = ""
    licence: str = ""
    domains: dict[str, Name] = field(default_factory=dict)


def domain_names(info: Mapping[str, Any]) -> tuple[str, str]:
    """Return the names of the domains a and b of what `dataset_info` read."""
    domains = info.get("domains", {})
    return domains.get("a", "A"), domains.get("b", "B")


def find_pairs(root: Path, split: str) -> Pairs:
    """List the pairs of a split, sorted by name; of shards, in the order in which they lie.

    Raises:
        UserError: The folder or split is missing or empty, there in more than one layout, an image has no partner, two
            have one name, or a shard cannot be read.
    """
    layout = find_layout(root, split)
    if layout.kind == "shards":
        return Pairs(*find_members(layout.paths))
    if layout.kind == "two folders":
        return _matched(*layout.paths)
    (one,) = layout.paths
    names, unread = _listed(one)
    if not names:
        raise UserError(f"{one}: {describe_empty(unread)} Expected {ANY_LAYOUT}.")
    return Pairs(Files(one, sorted(names), unread))


def find_stacked_pairs(root: Path, split: str, sources: Sequence[str], target: str) -> Pairs:
    """List pairs with several sources, DIR/SPLIT/SOURCE/x.png each, and one target, DIR/SPLIT/TARGET/x.png.

    Raises:
        UserError: A folder is missing or empty, named twice, or a image has no partner in another.
    """
    if len({*sources, target}) <= len(sources):
        raise UserError(f"--source {' --source '.join(sources)} --target {target}: one folder is named twice.")
    folders = [split_folder(root, split, name) for name in (*sources, target)]
    first = _matched(folders[0], folders[-1])
    more = [_matched(folders[0], folder).b for folder in folders[1:-1]]
    return Pairs(first.a, first.b, tuple(files for files in more if isinstance(files, Files)))


def _matched(a: Path, b: Path) -> Pairs:
    """List the pairs of two folders by stem.

    Raises:
        UserError: A folder is missing or empty, an image has no partner, or two of one folder have one name.
    """
    require_both(a, b)
    (first, unread_a), (second, unread_b) = _listed(a), _listed(b)
    if len(first) != len(second) or any(stem(x) != stem(y) for x, y in zip(first, second, strict=True)):
        raise _unmatched(a, b, first, second)
    if not first:
        raise UserError(f"{a} and {b}: {describe_empty(unread_a + unread_b)}")
    return Pairs(Files(a, first, unread_a), Files(b, second, unread_b))


def _listed(folder: Path) -> tuple[list[str], Counter[str]]:
    """Return the names of images, sorted by stem, and the count of files that are not read.

    Raises:
        UserError: Two have one stem.
    """
    unread: Counter[str] = Counter()
    names = sorted(image_names(folder, unread), key=stem)
    require_unique_stems(folder, names)
    return names, unread


def _unmatched(a: Path, b: Path, first: list[str], second: list[str]) -> UserError:
    sides = [set(map(stem, names)) for names in (first, second)]
    alone = [sorted(sides[0] - sides[1]), sorted(sides[1] - sides[0])]
    found = "; ".join(
        f"only in {folder}: {join_first(names)}" for folder, names in zip((a, b), alone, strict=True) if names
    )
    return UserError(f"{a.parent}: images without a partner of the same name ({found}). Add or remove them.")


class PairedDataset(torch.utils.data.Dataset[dict[str, Any]]):
    """Pairs by (epoch, index) key, for which the augmentation is always the same.

    Args:
        root: The dataset's folder.
        split: "train", "val" or "test".
        augmentation: What is done to each pair; None gives whole images as they are.
        direction: "a2b" makes A the source, "b2a" B.
        source_channels: Channels of the source images.
        target_channels: Channels of the target images.
        source_range: The values of the source that become -1 and 1, as in `ganvas.data.tensors.to_tensor`.
        target_range: The same of the target.
        sources: Folders of a split whose images are stacked into the channels of the source; empty for the usual
            layouts.
        target: The folder of the targets beside ``sources``.
        seed: Of the augmentation.
        cache: Keeps decoded images, at the scale from which pieces are cut; None decodes them each time.

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
        cache: DecodeCache | None = None,
    ) -> None:
        self.pairs = find_stacked_pairs(root, split, sources, target) if sources else find_pairs(root, split)
        self._ranges = (source_range, target_range)
        self._transform = PairTransform(augmentation) if augmentation else None
        self._backwards = direction == "b2a"
        self._channels = (source_channels, target_channels)
        self._seed = seed
        self._cache = cache

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
            UserError: A image cannot be read or has other channels, or the two differ in size.
        """
        return self._decode(self.pairs[index])

    def _scaled(self, pair: Pair) -> tuple[np.ndarray, np.ndarray]:
        """Give source and target at the scale from which pieces are cut."""
        scale = self._transform.resize if self._transform else lambda picture: picture
        load_size = self._transform.augmentation.load_size if self._transform else None
        files = [_identity(picture) for picture in (pair.a, pair.b, *pair.more) if picture is not None]
        key = repr((files, self._channels, self._backwards, load_size))
        source, target = get_or_decode(self._cache, key, lambda: [scale(picture) for picture in self._decode(pair)])
        return source, target

    def _decode(self, pair: Pair) -> tuple[np.ndarray, np.ndarray]:
        sides = list(zip(OPTIONS, self._channels, strict=True))
        (option_a, first), (option_b, second) = reversed(sides) if self._backwards else sides
        if pair.b is None:
            both = read_file(pair.a, keep_alpha=True)
            left, right = split_halves(both.array, Path(str(pair.a)))
            with add_option_to_errors(option_a):
                a = _half(both, left, first, pair.a)
            with add_option_to_errors(option_b):
                b = _half(both, right, second, pair.a)
        else:
            with add_option_to_errors(option_a):
                if pair.more and isinstance(pair.a, Path):
                    a = read_stacked([pair.a, *pair.more], first).array
                else:
                    a = read_file(pair.a, first).array
            with add_option_to_errors(option_b):
                b = read_file(pair.b, second).array
            if a.shape[:2] != b.shape[:2]:
                sizes = " and ".join(f"{picture.shape[1]}x{picture.shape[0]}" for picture in (a, b))
                raise UserError(f"{pair.a} and {pair.b}: the halves of the pair differ in size ({sizes}).")
        source, target = (b, a) if self._backwards else (a, b)
        for picture, value_range in zip((source, target), self._ranges, strict=True):
            require_range(picture, value_range, f"{pair.a}:")
        return source, target


def _identity(picture: Path | Member) -> tuple[object, ...]:
    return (*file_key(picture.shard), picture.name) if isinstance(picture, Member) else file_key(picture)


def _half(both: Raster, half: np.ndarray, channels: int, file: Path | Member) -> np.ndarray:
    """Give one half of an A|B image its channels, of which alpha is one where it is counted.

    Raises:
        ChannelsError: It has others.
    """
    return fit_channels(composite_over_white(half, both.alpha, channels)[0], channels, Path(str(file)))


def split_halves(both: np.ndarray, path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Cut a side-by-side image [H, 2W, C] into left and right.

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
