"""Docstrings are right: their examples run, and their arguments are those of the signature."""

import doctest
import importlib
import logging
from pathlib import Path

import numpy as np
import pytest

from ganvas.data.encode import write_image
from ganvas.inference.upstream.weights import write_upstream
from ganvas.models.folder import ModelConfig, NetworkSpec, Preprocessing, build_generator, save_model

ROOT = Path(__file__).parent.parent
PACKAGES = ("ganvas", "pix2pix", "cyclegan", "dcgan", "data_scripts", "benchmarks")
EXAMPLES = [
    file.relative_to(ROOT).with_suffix("").as_posix().replace("/", ".")
    for package in PACKAGES
    for file in sorted((ROOT / package).rglob("*.py"))
    if ">>> " in file.read_text(encoding="utf-8")
]


@pytest.fixture
def example_files(tmp_path, monkeypatch):
    """The files that examples name, in the current folder: a small untrained model, images, pairs, upstream's file."""
    spec = NetworkSpec(
        "resnet", {"in_channels": 3, "out_channels": 3, "base_channels": 2, "num_blocks": 6}, "map", "terrain"
    )
    generator = build_generator(spec)
    config = ModelConfig("pix2pix", {"a2b": spec}, Preprocessing(3, 3, 16, resized=True))
    save_model(tmp_path / "runs/earth/model", config, {"a2b": generator}, "# Earth")
    write_upstream(tmp_path / "latest_net_G.pth", generator, spec)
    for number in (1, 2):
        write_image(tmp_path / f"maps/{number}.png", np.full((20, 30, 3), number, np.uint8))
        write_image(tmp_path / f"datasets/earth/train/{number}.png", np.full((40, 80, 3), number, np.uint8))
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("module", EXAMPLES)
def test_examples(module, example_files):
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
