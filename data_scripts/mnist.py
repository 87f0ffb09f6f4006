"""``python -m data_scripts mnist --out DIR``: download MNIST, or look through the files that are there already."""

import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import tyro

from data_scripts.sets import OTHERS, for_people


@dataclass(frozen=True)
class DigitOptions:
    """Download the set, unless its files are there; then check them."""

    out: Path
    """Folder to download into; may hold the idx files already, gzipped or not."""


def main(argv: Sequence[str]) -> int:
    """Fetch or check MNIST; give the exit code.

    Raises:
        UserError: As `ganvas.data.digits.load_idx_pair`.
    """
    return fetch("mnist", argv)


def fetch(name: str, argv: Sequence[str]) -> int:
    """Fetch or check one of the two sets of this form, and say what is there.

    Raises:
        UserError: As `ganvas.data.digits.load_idx_pair`.
    """
    options = tyro.cli(DigitOptions, prog=f"python -m data_scripts {name}", args=list(argv))
    from ganvas.data.digits import find_idx, load_idx_pair

    was_there = find_idx(options.out, name) is not None
    if not was_there:
        (wanted,) = (other for other in OTHERS if other.name == name)
        print(f"{name}, {for_people(wanted.size)}: {wanted.licence}", file=sys.stderr)
    train, test = (len(load_idx_pair(options.out, name, split)[0]) for split in ("train", "test"))
    print(f"{options.out}: {train} training and {test} test pictures{', already there' if was_there else ''}")
    print(f"dcgan train --data {name} --data-root {shlex.quote(str(options.out))} --out RUN")
    return 0
