"""``python -m data_scripts NAME [options]``: each name is a file in here with a ``main(argv)``."""

import sys
from collections.abc import Sequence

from ganvas.console import run_command

SCRIPTS = {
    "earth": "maps and terrain of the whole Earth, from PyPI's basemap; needs no network",
    "mnist": "70,000 digits, downloaded; or the files that are there, checked",
    "fashion-mnist": "70,000 pieces of clothing, in the same form",
    "check": "tell what a data set holds and what is wrong with it",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one script; give the exit code."""
    return run_command("data_scripts", _run, argv)


def _run(arguments: list[str]) -> int:
    name, rest = (arguments[0], arguments[1:]) if arguments else ("--help", [])
    # Written out: a name from the command line never becomes a module's name.
    if name == "earth":
        from data_scripts import earth

        return earth.main(rest)
    if name == "mnist":
        from data_scripts import mnist

        return mnist.main(rest)
    if name == "fashion-mnist":
        from data_scripts import fashion_mnist

        return fashion_mnist.main(rest)
    if name == "check":
        from data_scripts import check

        return check.main(rest)
    listing = "\n".join(f"  {script:<14} {what}" for script, what in SCRIPTS.items())
    if name in ("-h", "--help"):
        print(f"usage: python -m data_scripts NAME [options]\n\n{listing}\n\nNAME --help tells a script's options.")
        return 0
    print(f"data_scripts: error: there is no script {name!r}. There are:\n{listing}", file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main())
