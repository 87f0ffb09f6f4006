"""Docstrings are right: their examples run, and their arguments are those of the signature."""

import doctest
import importlib
import logging
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGES = ("ganvas", "pix2pix", "cyclegan", "dcgan", "data_scripts", "benchmarks")
EXAMPLES = [
    file.relative_to(ROOT).with_suffix("").as_posix().replace("/", ".")
    for package in PACKAGES
    for file in sorted((ROOT / package).rglob("*.py"))
    if ">>> " in file.read_text(encoding="utf-8")
]


@pytest.mark.parametrize("module", EXAMPLES)
def test_examples(module):
    result = doctest.testmod(importlib.import_module(module), optionflags=doctest.ELLIPSIS)
    assert result.attempted > 0
    assert result.failed == 0


@pytest.mark.parametrize("package", PACKAGES)
def test_documented_arguments_are_in_the_signature(package, caplog):
    griffe = pytest.importorskip("griffe")

    def parse(thing):
        if not thing.is_alias:
            if thing.docstring is not None:
                thing.docstring.parse("google")
            for member in thing.members.values():
                parse(member)

    loaded = griffe.load(package, search_paths=[ROOT])
    with caplog.at_level(logging.WARNING, "griffe"):
        parse(loaded)
    assert [text for text in caplog.messages if "does not appear in the function signature" in text] == []
