"""``python -m data_scripts shards DIR OUT``: pack a dataset of pairs into tar shards, as WebDataset does.

Files are packed as they are. Pairs are shuffled once, since a training reads neighbors together, and always alike: the
same dataset gives the same bytes.
"""

from __future__ import annotations

import io
import shlex
import shutil
import tarfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import tyro

from ganvas.errors import UserError
from ganvas.files import new_folder, read_regular

if TYPE_CHECKING:
    from ganvas.data.paired import Pair, Pairs


@dataclass(frozen=True)
class ShardOptions:
    """Pack a dataset of pairs into tar shards, for sets of very many files or on a network's disk."""

    data: tyro.conf.Positional[Path]
    """The dataset's folder."""
    out: tyro.conf.Positional[Path]
    """Folder for the shards, a new one."""
    pairs_per_shard: int = 1000
    """Pairs in each shard; some hundred megabytes a shard read well."""


def main(argv: Sequence[str]) -> int:
    """Pack a dataset; give the exit code.

    Raises:
        UserError: No dataset of pairs, a file that cannot be read, a folder that is there already or cannot be
            written, a value out of range.
    """
    options = tyro.cli(ShardOptions, prog="python -m data_scripts shards", args=list(argv))
    if options.pairs_per_shard < 1:
        raise UserError(f"--pairs-per-shard is {options.pairs_per_shard}; a shard holds one at least.")
    if options.out.exists():
        raise UserError(f"{options.out}: is there already. Give another folder, or remove it.")
    from ganvas.data.layout import splits
    from ganvas.data.paired import find_pairs

    there = splits(options.data)
    if not there:
        find_pairs(options.data, "train")  # says what is expected
    with new_folder(options.out) as folder:
        for split in there:
            shards = write_shards(options.data, split, folder, options.pairs_per_shard)
            print(f"{split}: {len(find_pairs(folder, split))} pairs in {len(shards)} shards")
        if (options.data / "dataset.json").is_file():
            shutil.copyfile(options.data / "dataset.json", folder / "dataset.json")
    print(f"pix2pix train --data {shlex.quote(str(options.out))} --out RUN")
    return 0


def write_shards(root: Path, split: str, folder: Path, pairs_per_shard: int) -> list[Path]:
    """Write the shards of a split into a folder, and where their members lie beside them.

    Raises:
        UserError: As `ganvas.data.paired.find_pairs`; two pairs would have one name, or a file cannot be read.
    """
    import numpy as np
    from rich.console import Console
    from rich.progress import track

    from ganvas.data.paired import find_pairs
    from ganvas.data.shards import read_index

    pairs = find_pairs(root, split)
    _require_one_each(pairs)
    order = np.random.default_rng(0).permutation(len(pairs))
    pieces = np.split(order, range(pairs_per_shard, len(order), pairs_per_shard))
    shards = [folder / f"{split}-{number:06d}.tar" for number in range(len(pieces))]
    work = list(zip(shards, pieces, strict=True))
    for shard, piece in track(work, f"packing {split}", console=Console(stderr=True), transient=True):
        with tarfile.open(shard, "w") as tar:
            for index in piece:
                _add(tar, pairs[int(index)])
        read_index(shard)
    return shards


def _require_one_each(pairs: Pairs) -> None:
    """Refuse two pairs of one name, which in one shard could not be told apart, and in two would be taken for one."""
    first: dict[str, int] = {}
    for index, pair in enumerate(pairs):
        other = first.setdefault(_name(pair), index)
        if other != index:
            raise UserError(f"{pairs[other].a} and {pair.a} would both be {_name(pair)} in the shards. Rename one.")


def _name(pair: Pair) -> str:
    """Give the name of a pair's members; a dot in it would be taken for the beginning of the suffix."""
    return pair.name.replace(".", "_")


def _add(tar: tarfile.TarFile, pair: Pair) -> None:
    """Add a pair's files under one name."""
    name = _name(pair)
    files = {"": pair.a} if pair.b is None else {".a": pair.a, ".b": pair.b}
    for side, file in files.items():
        try:
            content = read_regular(file) if isinstance(file, Path) else file.read_bytes()
        except OSError as error:
            raise UserError(f"{file}: cannot be read ({error.strerror}). Put it back, or remove its pair.") from None
        member = tarfile.TarInfo(f"{name}{side}{file.suffix}")
        member.size = len(content)
        tar.addfile(member, io.BytesIO(content))
