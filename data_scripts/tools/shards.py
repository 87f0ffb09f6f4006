"""``python -m data_scripts shards DIR OUT``: pack a paired dataset into tar shards in WebDataset's format.

Files are packed unchanged. Pairs are shuffled once, since training reads neighbors together, always in the same way:
the same dataset gives the same bytes.
"""

from __future__ import annotations

import io
import shlex
import shutil
import tarfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro
from annotated_types import Ge

from data_scripts.arguments import parse_arguments
from ganvas.errors import UserError
from ganvas.files import new_folder, read_regular
from ganvas.log import track

if TYPE_CHECKING:
    from ganvas.data.pairs import Pair, Pairs


@dataclass(frozen=True)
class ShardOptions:
    """Pack a paired dataset into tar shards, for very many files or a network drive."""

    data: tyro.conf.Positional[Path]
    """Folder of the dataset."""
    out: tyro.conf.Positional[Path]
    """New folder for the shards."""
    pairs_per_shard: Annotated[int, Ge(1)] = 1000
    """Pairs in each shard; a few hundred megabytes a shard read well."""


def main(argv: Sequence[str]) -> int:
    """Run ``python -m data_scripts shards`` and return the exit code.

    Raises:
        UserError: There is no paired dataset, a file cannot be read, or the output exists or cannot be written.
    """
    options = parse_arguments("shards", ShardOptions, argv)
    if options.out.exists():
        raise UserError(f"{options.out}: already exists. Choose another folder, or remove it.")
    from ganvas.data.layout import splits
    from ganvas.data.pairs import find_pairs

    present = splits(options.data)
    if not present:
        find_pairs(options.data, "train")  # raises, naming what is expected
    with new_folder(options.out) as folder:
        for split in present:
            shards = write_shards(options.data, split, folder, options.pairs_per_shard)
            print(f"{split}: {len(find_pairs(folder, split))} pairs in {len(shards)} shards")
        if (options.data / "dataset.json").is_file():
            shutil.copyfile(options.data / "dataset.json", folder / "dataset.json")
    print(f"pix2pix train --data {shlex.quote(str(options.out))} --out RUN")
    return 0


def write_shards(root: Path, split: str, folder: Path, pairs_per_shard: int) -> list[Path]:
    """Write the shards of a split and their indices into a folder.

    Raises:
        UserError: See `ganvas.data.paired.find_pairs`; or two pairs would have the same name, or a file cannot be read.
    """
    import numpy as np

    from ganvas.data.pairs import find_pairs
    from ganvas.data.shards import read_index

    pairs = find_pairs(root, split)
    _require_unique_names(pairs)
    order = np.random.default_rng(0).permutation(len(pairs))
    parts = np.split(order, range(pairs_per_shard, len(order), pairs_per_shard))
    shards = [folder / f"{split}-{number:06d}.tar" for number in range(len(parts))]
    for shard, part in track(zip(shards, parts, strict=True), f"packing {split}", len(shards)):
        with tarfile.open(shard, "w") as tar:
            for index in part:
                _add(tar, pairs[int(index)])
        read_index(shard)  # writes it, too
    return shards


def _require_unique_names(pairs: Pairs) -> None:
    """Refuse two pairs of the same name, which shards could not distinguish."""
    first: dict[str, int] = {}
    for index, pair in enumerate(pairs):
        other = first.setdefault(_member_name(pair), index)
        if other != index:
            name = _member_name(pair)
            raise UserError(f"{pairs[other].a} and {pair.a} would both be {name} in the shards. Rename one.")


def _member_name(pair: Pair) -> str:
    """Return the name of a pair's members; WebDataset's suffixes begin at the first dot."""
    return pair.name.replace(".", "_")


def _add(tar: tarfile.TarFile, pair: Pair) -> None:
    """Add a pair's files under one name."""
    files = {"": pair.a} if pair.b is None else {".a": pair.a, ".b": pair.b}
    for side, file in files.items():
        try:
            content = read_regular(file) if isinstance(file, Path) else file.read_bytes()
        except OSError as error:
            raise UserError(f"{file}: cannot be read ({error.strerror}). Restore it, or remove its pair.") from None
        member = tarfile.TarInfo(f"{_member_name(pair)}{side}{file.suffix}")
        member.size = len(content)
        tar.addfile(member, io.BytesIO(content))
