"""The ways that are compared do the same work on the same images, and the figures are those of the turns."""

import copy

import numpy as np
import pytest
import torch
from PIL import Image

from benchmarks import translate
from benchmarks.translate import (
    SPECS,
    describe,
    draw_images,
    make_network,
    measure,
    onnx_loop,
    our_translator,
    plain_loop,
)
from ganvas.inference.export.program import export_translator
from ganvas.models.folder import NetworkSpec, build_generator

SMALL = NetworkSpec("unet", {"base_channels": 4, "num_levels": 4}, "A", "B")


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    return draw_images(tmp_path_factory.mktemp("translate") / "source", 3, 64)


def read(folder):
    return [np.asarray(Image.open(path)).astype(int) for path in sorted(folder.iterdir())]


def test_images_have_size_and_detail(images):
    for image in read(images):
        assert image.shape == (64, 64, 3)
        assert 20 < image.std() < 90


def test_the_networks_have_their_published_sizes():
    with torch.device("meta"):
        counts = {name: sum(p.numel() for p in build_generator(spec).parameters()) for name, spec in SPECS.items()}
    assert counts == {"unet": pytest.approx(54.4e6, rel=1e-3), "resnet": pytest.approx(11.4e6, rel=5e-3)}


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")
@pytest.mark.slow
def test_all_methods_agree(images, tmp_path):
    network = make_network(SMALL)
    plain_loop(network)(images, tmp_path / "plain")
    expected = read(tmp_path / "plain")
    assert min(image.std() for image in expected) > 1
    translator = our_translator(copy.deepcopy(network), SMALL, 64, "fp32")
    translator.translate_folder(images, tmp_path / "ours")
    export_translator(translator, tmp_path / "x.onnx")
    onnx_loop(tmp_path / "x.onnx")(images, tmp_path / "onnx")
    for method in ("ours", "onnx"):
        for one, other in zip(read(tmp_path / method), expected, strict=True):
            assert np.abs(one - other).max() <= 1


def test_rates_ratios_and_differences_are_computed_over_the_turns(images, tmp_path, monkeypatch):
    clock = iter([0, 9, 0, 9, 0, 4, 0, 2, 0, 6, 0, 2, 0, 8, 0, 2])  # began and ended, plain and other, four turns
    monkeypatch.setattr(translate.time, "perf_counter", lambda: next(clock))

    def copied(brighter):
        def method(source, target):
            target.mkdir()
            for path in source.iterdir():
                values = np.asarray(Image.open(path)) // 2 + brighter
                Image.fromarray(values.astype(np.uint8)).save(target / path.name)

        return method

    result = measure({"plain": copied(0), "other": copied(3)}, images, tmp_path, 3)
    assert result["plain"]["images_per_second"] == 3 / 6
    assert result["other"]["images_per_second"] == 3 / 2
    assert (result["other"]["ratio"], result["other"]["ratio_low"], result["other"]["ratio_high"]) == (3, 2, 4)
    assert (result["other"]["mean_difference"], result["other"]["largest_difference"]) == (3, 3)
    assert (result["plain"]["ratio"], result["plain"]["largest_difference"]) == (1, 0)
    assert "| unet | other | 1.50 | 3.00 [2.00, 4.00] | 3.000 | 3 |" in describe({"unet": result})
