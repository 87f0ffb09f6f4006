"""``python -m data_scripts mnist --out DIR``: download MNIST or Fashion-MNIST, or check existing files."""

import shlex
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from data_scripts.arguments import parse_arguments
from data_scripts.sets.catalog import OTHERS, format_size
from ganvas.files import move_into_place, write_error
from ganvas.log import logger


@dataclass(frozen=True)
class DigitOptions:
    """Download the four files of the dataset, unless they are present, and check them."""

    out: Path
    """Folder to download into; may hold the idx files already, gzipped or not."""


def main(name: str, argv: Sequence[str]) -> int:
    """Run ``python -m data_scripts mnist`` or ``fashion-mnist`` and return the exit code.

    Raises:
        UserError: The download failed, or a file is damaged.
    """
    options = parse_arguments(name, DigitOptions, argv)
    from ganvas.data.digits import find_idx, load_idx_pair

    present = find_idx(options.out, name) is not None
    if not present:
        _download(name, options.out)
    train, test = (len(load_idx_pair(options.out, name, split)[0]) for split in ("train", "test"))
    print(f"{options.out}: {train} training and {test} test images{', already there' if present else ''}")
    print(f"dcgan train --data {name} --data-root {shlex.quote(str(options.out))} --out RUN")
    return 0


def _download(name: str, out: Path) -> None:
    """Download a dataset's gzipped files into a folder; existing ones stay."""
    from ganvas.data.digits import download

    (dataset,) = (each for each in OTHERS if each.name == name)
    logger.info("%s, %s: %s", name, format_size(dataset.size), dataset.license)
    folder = download(out, name)  # OUT/MNIST/raw, with an unpacked copy of each file
    try:
        for file in folder.glob("*.gz"):
            if not (out / file.name).exists():
                move_into_place(file, out / file.name)
    except OSError as error:
        raise write_error(out, error) from None
    shutil.rmtree(folder.parent)
