"""The guide for those who come from another tool names options that exist."""

import re
from pathlib import Path

import pytest

from cyclegan.__main__ import main as cyclegan
from pix2pix.__main__ import main as pix2pix

GUIDE = Path(__file__).parents[1] / "docs" / "migrating.md"
COMMANDS = ("train", "translate", "evaluate", "export", "import")
OPTION = re.compile(r"--[a-z][\w-]*")


@pytest.fixture
def options(in_process):
    """The options of both modules' commands, out of their --help."""
    helps = [in_process(main)(command, "--help")[1] for main in (pix2pix, cyclegan) for command in COMMANDS]
    return set(OPTION.findall("\n".join(helps)))


def test_every_option_in_the_right_column_is_one_of_ours(options):
    rows = [line.split(" | ") for line in GUIDE.read_text(encoding="utf-8").splitlines() if line.startswith("| `")]
    ours = {option for row in rows for option in OPTION.findall(row[-1])}
    assert all(len(row) == 2 for row in rows)
    assert len(ours) > 30
    assert ours - options == set()
    assert "--no-such-option" not in options
