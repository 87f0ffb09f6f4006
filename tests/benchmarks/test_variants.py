"""The comparisons of recipes and of losses, on a few tiny pairs."""

import json
import shutil
from functools import partial

import numpy as np
import pytest
import torch
from PIL import Image

import pix2pix
from benchmarks import losses, recipes, variants
from benchmarks.paired import compare, measure
from benchmarks.variants import HeldOutImages, Variant, kernel_features, selected
from ganvas.errors import UserError
from ganvas.training.callbacks import StopTraining

TINY = {"image_size": 32, "batch_size": 2, "base_channels": 2, "discriminator_channels": 2, "levels": 2}


@pytest.fixture
def data(tmp_path):
    rng = np.random.default_rng(0)
    for split, count in (("train", 4), ("test", 3)):
        (tmp_path / "data" / split).mkdir(parents=True)
        for index in range(count):
            pixels = rng.integers(0, 256, (32, 64, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "data" / split / f"{index}.png")
    return tmp_path / "data"


def test_variants_are_trained_once_and_compared(data, tmp_path, capsys, monkeypatch):
    options = TINY | {"patch_layers": 1, "augment": "none"}
    several = [
        Variant("plain", options),
        Variant("squares", options | {"lambda_l1": 0.0, "lambda_gan": 0.0, "losses": {"l2": (1.0, losses.l2_loss)}}),
        Variant("own", options, generator=lambda: losses.UNetWithoutSkips(base_channels=2, num_levels=2)),
    ]
    steps = {each.label: 2 for each in several}
    compare(several, data, tmp_path / "out", split="test", steps=steps)
    rows = [line for line in capsys.readouterr().out.splitlines() if line.startswith("| ")]
    assert [row.split(" | ")[:2] for row in rows[2:]] == [[f"| {v.label}", "2"] for v in several]
    with Image.open(tmp_path / "out" / "sheet.png") as sheet:
        assert sheet.width > 5 * 96  # source, three outputs, target

    monkeypatch.setattr(variants, "train", None)  # nothing is trained again
    compare(several, data, tmp_path / "out", split="test", steps=steps)


class StopAtFirstLog:
    def on_log(self, step, metrics):
        raise StopTraining


def test_a_variant_that_was_stopped_is_not_measured(data, tmp_path, capsys, monkeypatch):
    plain = pix2pix.train
    monkeypatch.setattr(pix2pix, "train", partial(plain, callbacks=[StopAtFirstLog()]))
    options, out = TINY | {"patch_layers": 1, "augment": "none", "log_every_steps": 1}, tmp_path / "out"
    with pytest.raises(UserError, match="stopped at step 1"):
        compare([Variant("plain", options)], data, out, split="test", steps={"plain-seed0": 3})
    assert not (out / "plain-seed0.json").exists()
    compare([Variant("plain", options)], data, out, split="test", steps={"plain-seed0": 3})
    assert "| plain-seed0 | 3 |" in capsys.readouterr().out


def test_equal_time_is_a_number_of_steps(data, tmp_path, monkeypatch, capsys):
    few = {"patch_layers": 1, "augment": "none", "lambda_gan": 0.0}
    monkeypatch.setattr(recipes, "COMMON", TINY)
    monkeypatch.setattr(recipes, "RECIPES", {"plain": few, "dear": few})
    out = tmp_path / "out"
    arguments = ["--data", str(data), "--out", str(out), "--minutes", "0.001", "--seeds", "1"]
    assert recipes.main(arguments) == 0
    costs = json.loads((out / "costs.json").read_text())
    assert 1e-4 < costs["plain"] < 10
    assert json.loads((out / "plain-seed0.json").read_text()) == {"steps": max(1, round(0.06 / costs["plain"]))}

    (out / "costs.json").write_text('{"plain": 0.02, "dear": 0.03}')  # what was measured is not measured again
    for name in ("plain", "dear"):
        (out / f"{name}-seed0.json").unlink()
        shutil.rmtree(out / f"{name}-seed0")
    assert recipes.main(arguments) == 0
    assert [json.loads((out / f"{name}-seed0.json").read_text())["steps"] for name in ("plain", "dear")] == [3, 2]

    monkeypatch.setattr(recipes, "RECIPES", {"plain": few, "another": few})
    assert recipes.main(arguments) == 0
    assert json.loads((out / "costs.json").read_text()).keys() == {"plain", "another"}


def test_a_run_that_is_there_is_continued_at_its_own_length(data, tmp_path, capsys):
    variant = Variant("plain", TINY | {"patch_layers": 1, "augment": "none", "lambda_gan": 0.0})
    (tmp_path / "out").mkdir()
    variants.train(pix2pix, variant, data, tmp_path / "out", steps=3)  # stopped before its figures were written
    compare([variant], data, tmp_path / "out", split="test", steps={variant.label: 7})
    assert json.loads((tmp_path / "out" / "plain-seed0.json").read_text())["steps"] == 3


def test_a_perfect_output_has_the_targets_figures():
    images = torch.rand(24, 3, 32, 32, generator=torch.Generator().manual_seed(0)) * 2 - 1
    test = HeldOutImages(images, images)
    figures = measure(test, images)
    assert (figures["L1"], figures["sliced Wasserstein"], figures["fine spectrum"]) == (0, 0, 1)
    assert figures["SSIM"] == pytest.approx(1)
    assert figures["kernel distance"] < 0.1
    worse = measure(test, torch.nn.functional.avg_pool2d(images, 3, 1, 1))
    assert worse["fine spectrum"] < 0.5
    assert worse["kernel distance"] > 1


def test_features_are_fixed():
    images = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    assert torch.equal(kernel_features(images), kernel_features(images))
    assert kernel_features(images).shape == (2, 960)


def test_without_skips_only_the_deepest_features_reach_the_output():
    network = losses.UNetWithoutSkips(base_channels=2, num_levels=3, norm="none", dropout=0.0).eval()
    with torch.no_grad():
        for parameter in network.down[2].parameters():
            parameter.zero_()
        one, other = network(torch.rand(1, 3, 16, 16)), network(torch.rand(1, 3, 16, 16))
    assert torch.equal(one, other)


def test_selection_by_patterns():
    some = [Variant("a", {}), Variant("b", {}, seed=1), Variant("b-c", {})]
    assert [each.label for each in selected(some, "a-seed0,b*")] == ["a-seed0", "b-seed1", "b-c-seed0"]
    assert [each.label for each in selected(some, "b")] == ["b-seed1"]
    assert selected(some, None) == some
    with pytest.raises(UserError, match="--only x: there is no such variant"):
        selected(some, "x")


def test_steps_of_all_recipes_are_timed(capsys, monkeypatch):
    monkeypatch.setattr(
        recipes, "RECIPES", {"plain": TINY, "penalized": TINY | {"discriminator_norm": "none", "r1": 1.0}}
    )
    monkeypatch.setattr(recipes, "COMMON", {"patch_layers": 1})
    assert recipes.main(["--step-time", "--seeds", "1"]) == 0
    plain, penalized = capsys.readouterr().out.splitlines()[2:]
    assert plain.startswith("| plain | ")
    assert plain.endswith(" | 1.00 |")
    assert penalized.startswith("| penalized | ")
