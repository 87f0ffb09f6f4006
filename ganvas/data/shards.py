"""Pairs in tar shards, as WebDataset writes them: a few large files in place of a million small ones.

    DIR/train-000000.tar, train-000001.tar, …    the split's name, a dash, anything
        NAME.jpg                                 A left, B right
        NAME.a.jpg, NAME.b.png                   or two files, in one shard

Other members are ignored. Shards are not unpacked: every image is read by its offset, so that the distribution over
processes and workers and a resume within an epoch are exact, as with every other dataset. The order of samples keeps
reads local, like those of a stream (`ganvas.data.sampling.epoch_order`). Shards must be on a file system that supports
seeking.

The offsets of a shard are stored in ``train-000000.tar.index.json``; if that cannot be written, the shard is scanned at
each start.
"""

import io
import json
import re
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ganvas.data.decode import decode_raster, read_raster
from ganvas.data.listing import Names, is_image_name, stem
from ganvas.data.raster import Raster
from ganvas.data.tar import members, open_tar
from ganvas.errors import UserError
from ganvas.files import open_regular, write_file
from ganvas.json_files import read_json
from ganvas.messages import describe_error, join_first, shorten
from ganvas.options import FORMAT_VERSION

SIDES = (".a", ".b")
MAX_NAME = 1000  # characters of an image's name in a shard; our choice, since messages name the image


@dataclass(frozen=True)
class Member:
    """An image in a shard.

    Attributes:
        shard: The tar file.
        name: Its name in the shard.
        offset: Offset of its first byte.
        size: Size in bytes.
    """

    shard: Path
    name: str
    offset: int
    size: int

    def __str__(self) -> str:
        return f"{self.shard}/{self.name}"

    @property
    def stem(self) -> str:
        """Its name without suffix and side, and without folders."""
        name = stem(self.name)
        return re.sub(r"[/\\:]+", "_", name[:-2] if name.endswith(SIDES) else name)

    @property
    def suffix(self) -> str:
        """The suffix of its name."""
        return f".{self.name.rpartition('.')[2]}"

    def read_bytes(self) -> bytes:
        """Read its encoded bytes."""
        with open_regular(self.shard) as file:
            file.seek(self.offset)
            return file.read(self.size)

    def read(self, channels: int | None = None, *, keep_alpha: bool = False) -> Raster:
        """Decode it as `read_raster` does.

        Raises:
            UserError: As `read_raster`, or the shard cannot be read.
        """
        try:
            content = self.read_bytes()
        except OSError as error:
            raise UserError(f"{self}: the shard cannot be read ({error.strerror}). Put it back.") from None
        return decode_raster(io.BytesIO(content), Path(str(self)), channels, keep_alpha=keep_alpha)


def read_file(image: Path | Member, channels: int | None = None, *, keep_alpha: bool = False) -> Raster:
    """Decode an image in a file or in a shard as `read_raster` does.

    Raises:
        UserError: As `read_raster` and `Member.read`.
    """
    if isinstance(image, Member):
        return image.read(channels, keep_alpha=keep_alpha)
    return read_raster(image, channels, keep_alpha=keep_alpha)


class Members:
    """Members of shards, by number.

    Args:
        shards: The tar files.
        names: Their members' names, shard by shard.
        places: Number of the shard, offset and size of each member, [N, 3].
    """

    def __init__(self, shards: Sequence[Path], names: Names, places: np.ndarray) -> None:
        self._shards, self._names, self._places = tuple(shards), names, places

    def __len__(self) -> int:
        return len(self._places)

    def __getitem__(self, index: int) -> Member:
        shard, offset, size = self._places[index].tolist()
        return Member(self._shards[shard], self._names[index], offset, size)

    def listing(self) -> Iterator[tuple[str, int]]:
        """Yield name and size in bytes of each, with the shard's name before its own."""
        for name, (shard, _, size) in zip(self._names, self._places.tolist(), strict=True):
            yield f"{self._shards[shard].name}/{name}", size

    @property
    def shard_sizes(self) -> tuple[int, ...]:
        """Members of each shard."""
        return tuple(np.bincount(self._places[:, 0], minlength=len(self._shards)).tolist())


def find_members(shards: Sequence[Path]) -> tuple[Members, Members | None]:
    """Find the images of A and of B in stored order; the second is None if each image is a pair side by side.

    Raises:
        UserError: A shard cannot be read, an image has no partner, two pairs of a shard have one name, there are both
            kinds of pairs, or there is no image.
    """
    names: list[list[str]] = [[], []]
    places: list[list[np.ndarray]] = [[], []]
    for number, shard in enumerate(shards):
        index = read_index(shard)
        for side, chosen in enumerate(_split_sides(shard, index.names)):
            names[side] += [index.names[i] for i in chosen]
            places[side].append(np.insert(index.places[chosen], 0, number, axis=1))
    if not names[0]:
        raise UserError(f"{shards[0]}: holds no images. Expected NAME.jpg (A|B), or NAME.a.jpg and NAME.b.png.")
    if names[1] and len(names[0]) != len(names[1]):
        raise UserError(f"{shards[0].parent}: some shards hold NAME.a and NAME.b, others A|B images. Use one of both.")
    a, b = (Members(shards, Names(names[side]), np.concatenate(places[side])) for side in (0, 1))
    return a, b if len(b) else None


def _split_sides(shard: Path, names: Sequence[str]) -> tuple[list[int], list[int]]:
    """Return the indices of the images of A and those of their partners; the second is empty without partners."""
    found: dict[str, int] = {}
    for number, name in enumerate(names):
        other = found.setdefault(stem(name), number)
        if other != number:
            raise UserError(f"{shard}: {names[other]} and {name} differ only in the suffix. Rename or remove one.")
    sided = {name for name in found if name.endswith(SIDES)}
    if not sided:
        return list(found.values()), []
    alone = [name for name in found if name not in sided or _partner(name) not in sided]
    if alone:
        names = join_first([shorten(name) for name in alone])
        raise UserError(
            f"{shard}: images without a partner in this shard ({names}). Expected NAME.a and NAME.b of "
            "each, or A|B images alone."
        )
    a = [name for name in found if name.endswith(SIDES[0])]
    return [found[name] for name in a], [found[_partner(name)] for name in a]


def _partner(name: str) -> str:
    a, b = SIDES
    return name.removesuffix(a) + b if name.endswith(a) else name.removesuffix(b) + a


@dataclass(frozen=True)
class Index:
    """The images of one shard.

    Attributes:
        names: Their names.
        places: Offset and size of each, [N, 2].
    """

    names: list[str]
    places: np.ndarray


def read_index(shard: Path) -> Index:
    """Find the images of a shard, from the index next to it if that matches the shard.

    Raises:
        UserError: The shard cannot be read, or is not an uncompressed tar file.
    """
    path = shard.with_name(f"{shard.name}.index.json")
    try:
        status = shard.stat()
    except OSError as error:
        raise UserError(f"{shard}: cannot be read ({error.strerror}).") from None
    header = {"format_version": FORMAT_VERSION, "size": status.st_size, "mtime_ns": status.st_mtime_ns}
    with suppress(UserError):
        values = read_json(path, "an index of a shard")
        index = _parse_index(values, status.st_size) if header.items() <= values.items() else None
        if index is not None:
            return index
    index = _scan(shard, status.st_size)
    with suppress(UserError):
        values = header | {"names": index.names, "places": index.places.tolist()}
        write_file(path, json.dumps(values).encode())
    return index


def _parse_index(values: Mapping[str, Any], size: int) -> Index | None:
    """Return the content of an index file, or None if it cannot be that of a shard of ``size`` bytes."""
    names, places = values.get("names"), values.get("places")
    if not isinstance(names, list) or not isinstance(places, list) or len(names) != len(places):
        return None
    if not all(isinstance(name, str) and len(name) <= MAX_NAME and _is_image(name) for name in names):
        return None
    try:
        array = np.array(places, dtype=np.int64).reshape(len(names), 2)
    except (TypeError, ValueError, OverflowError):
        return None
    inside = (array >= 0) & (array <= size)  # first, so that no sum overflows
    return Index(names, array) if inside.all() and (array.sum(axis=1) <= size).all() else None


def _scan(shard: Path, size: int) -> Index:
    """Read all headers of a shard."""
    try:
        with open_tar(shard) as tar:
            found = [each for each in members(tar) if each.isreg() and not each.issparse() and _is_image(each.name)]
    except (tarfile.TarError, OSError) as error:
        raise UserError(
            f"{shard}: is not a readable uncompressed tar file ({describe_error(error)}). Write it again."
        ) from None
    longest = max((len(each.name) for each in found), default=0)
    if longest > MAX_NAME:
        raise UserError(
            f"{shard}: has an image whose name is {longest} characters long; at most {MAX_NAME} are allowed."
        )
    truncated = next((each.name for each in found if each.offset_data + each.size > size), None)
    if truncated is not None:
        raise UserError(f"{shard}: ends in the midst of {truncated}. Copy it again.")
    places = np.array([(each.offset_data, each.size) for each in found], dtype=np.int64)
    return Index([each.name for each in found], places.reshape(-1, 2))


def _is_image(name: str) -> bool:
    return is_image_name(name.rpartition("/")[2])
