"""``python -m data_scripts mnist --out DIR``: download MNIST, or look through the files that are there already."""

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import tyro

from data_scripts.sets.catalog import OTHERS, for_people
from data_scripts.sets.download import USUAL, Patience, download
from data_scripts.sets.published import alone, progress_bar
from ganvas.errors import UserError
from ganvas.files import put_in_place

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

DigitSet = Literal["mnist", "fashion-mnist"]
ASIDE = ".download"  # in the folder: what has arrived of files that are not whole


@dataclass(frozen=True)
class DigitOptions:
    """Download the set, unless its files are there; then check them."""

    out: Path
    """Folder to download into; may hold the idx files already, gzipped or not."""


def main(argv: Sequence[str]) -> int:
    """Fetch or check MNIST; give the exit code.

    Raises:
        UserError: As `fetch`.
    """
    return fetch("mnist", argv)


def fetch(name: DigitSet, argv: Sequence[str]) -> int:
    """Fetch or check one of the two sets of this form, and say what is there.

    Raises:
        UserError: No address has the files, or as `ganvas.data.digits.load_idx_pair`.
    """
    options = tyro.cli(DigitOptions, prog=f"python -m data_scripts {name}", args=list(argv))
    from ganvas.data.digits import find_idx, load_idx_pair

    was_there = find_idx(options.out, name) is not None
    if not was_there:
        download_digits(name, options.out)
    train, test = (len(load_idx_pair(options.out, name, split)[0]) for split in ("train", "test"))
    print(f"{options.out}: {train} training and {test} test images{', already there' if was_there else ''}")
    print(f"dcgan train --data {name} --data-root {shlex.quote(str(options.out))} --out RUN")
    return 0


def download_digits(name: DigitSet, out: Path, *, patience: Patience = USUAL) -> None:
    """Download a set's four files, from the addresses and with the digests that torchvision knows.

    What an earlier run left is continued.

    Args:
        name: Which set.
        out: The folder; made when missing.
        patience: Of the download.

    Raises:
        UserError: No address has the right files, or the folder cannot be written.
    """
    from torchvision import datasets

    source = datasets.MNIST if name == "mnist" else datasets.FashionMNIST
    (wanted,) = (other for other in OTHERS if other.name == name)
    aside = out / ASIDE
    with progress_bar() as progress:
        say = partial(progress.console.print, markup=False, highlight=False, soft_wrap=True)
        with alone(aside, say):
            say(f"{name}, {for_people(wanted.size)}: {wanted.licence}")
            for file, md5 in source.resources:
                if (out / file).exists() or (aside / file).exists():  # it got its name when it was whole
                    continue
                task = progress.add_task(file, total=None)
                try:
                    download(
                        [f"{mirror}{file}" for mirror in source.mirrors],
                        aside / file,
                        digest=f"md5:{md5}",
                        patience=patience,
                        arrived=partial(_show, progress, task),
                        say=say,
                    )
                except UserError as error:
                    raise UserError(
                        f"{name} cannot be downloaded: {error}\nRun this again to continue. Without a network, use "
                        f"dcgan's --data mnist5k; or put its files, as {file}, into {out}."
                    ) from None
            for file, _ in source.resources:
                if (aside / file).exists():
                    put_in_place(aside / file, out / file)


def _show(progress: "Progress", task: "TaskID", done: int, total: int | None) -> None:
    progress.update(task, completed=done, total=total)
