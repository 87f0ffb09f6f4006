"""``python -m data_scripts NAME [options]``: each command is a module with a ``main(argv)``, or a published dataset."""

import importlib
import sys
from collections.abc import Sequence

from data_scripts.sets.catalog import SETS, format_size
from ganvas.console import find_command, run_command

# Each command's module, and what the list of commands says of it.
COMMANDS = {
    "list": ("sets.catalog", "list all datasets with size and license"),
    "earth": ("sets.earth", "make topographic maps and terrain of the Earth from PyPI's basemap; needs no network"),
    "mnist": ("sets.mnist", "download MNIST (70,000 digits), or check its files"),
    "fashion-mnist": ("sets.mnist", "download Fashion-MNIST (70,000 pieces of clothing), or check its files"),
    "check": ("tools.check.command", "check a dataset for problems"),
    "preview": ("tools.preview", "draw augmented training images, and measure that pairs stay aligned"),
    "resize": ("tools.resize", "resize all images of a folder and its subfolders"),
    "combine": ("tools.combine", "join the images of two folders side by side"),
    "split": ("tools.split", "split side-by-side images into two folders"),
    "edges": ("tools.edges", "make pairs of edges and photo from a folder of photos"),
    "grayscale": ("tools.grayscale", "make pairs for colorization from a folder of photos"),
    "shards": ("tools.shards", "pack a paired dataset into tar shards (for very many files)"),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return the exit code."""
    return run_command("data_scripts", _run, argv)


def _run(arguments: list[str]) -> int:
    about = "Datasets to make or download, and tools for folders of images."
    name = find_command("python -m data_scripts", about, _listing(), arguments)
    # Modules are looked up in the table: a name from the command line is never imported.
    module = importlib.import_module(f"data_scripts.{COMMANDS[name][0] if name in COMMANDS else 'sets.published'}")
    is_dataset = name in SETS or name in ("mnist", "fashion-mnist")  # several datasets share a module
    code: int = module.main(name, arguments[1:]) if is_dataset else module.main(arguments[1:])
    return code


def _listing() -> dict[str, str]:
    sets = {}
    for name, each in SETS.items():
        domains = " and ".join(domain for domain in each.domains if domain != "none")
        sets[name] = f"download {domains} ({each.layout}, {format_size(each.size)})"
    return {name: summary for name, (_, summary) in COMMANDS.items()} | sets


if __name__ == "__main__":
    sys.exit(main())
