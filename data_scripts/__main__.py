"""``python -m data_scripts NAME [options]``: each name is a file in here with a ``main(argv)``, or a published set."""

import importlib
import sys
from collections.abc import Sequence
from dataclasses import dataclass

from data_scripts.sets import SETS, for_people
from ganvas.console import find_command, run_command


@dataclass(frozen=True)
class Script:
    """A module with a ``main(argv)``, and what it does."""

    module: str
    what: str


SCRIPTS = {
    "list": Script("data_scripts.sets", "all datasets that can be had, with size and license"),
    "earth": Script("data_scripts.earth", "maps and terrain of the whole Earth, from PyPI's basemap; needs no network"),
    "mnist": Script("data_scripts.mnist", "70,000 digits, downloaded; or the files that are there, checked"),
    "fashion-mnist": Script("data_scripts.fashion_mnist", "70,000 pieces of clothing, in the same form"),
    "shards": Script("data_scripts.shards", "pack a dataset of pairs into tar shards, for sets of very many files"),
    "check": Script("data_scripts.check", "tell what a dataset holds and what is wrong with it"),
    "combine": Script("data_scripts.combine", "put the images of two folders side by side"),
    "split": Script("data_scripts.split", "take images that are side by side apart into two folders"),
    "resize": Script("data_scripts.resize", "scale all images of a folder, and of the folders in it"),
    "grayscale": Script("data_scripts.grayscale", "pairs for colourisation from any folder of photos"),
    "edges": Script("data_scripts.edges", "pairs of edges and photo from any folder of photos"),
    "preview": Script("data_scripts.preview", "draw what a training sees, and prove that pairs stay aligned"),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one script; give the exit code."""
    return run_command("data_scripts", _run, argv)


def _run(arguments: list[str]) -> int:
    about = "Data sets, made or downloaded, and tools for folders of images."
    name = find_command("python -m data_scripts", about, _listing(), arguments)
    if name in SCRIPTS:
        # A name from the command line never becomes a module's name: the table has it.
        code: int = importlib.import_module(SCRIPTS[name].module).main(arguments[1:])
        return code
    from data_scripts import published

    return published.main(name, arguments[1:])


def _listing() -> dict[str, str]:
    sets = {
        name: f"{' and '.join(each.domains)}, {each.layout}; {for_people(each.size)} to download"
        for name, each in SETS.items()
    }
    return {name: script.what for name, script in SCRIPTS.items()} | sets


if __name__ == "__main__":
    sys.exit(main())
