"""The comparison of recipes without pairs, on a few tiny images."""

import json
import shutil

import numpy as np
import pytest
import torch
from PIL import Image

from benchmarks import unpaired
from benchmarks.unpaired import HeldOutImages, measure
from ganvas.errors import UserError

TINY = {"num_blocks": 1, "base_channels": 2, "discriminator_channels": 2, "patch_layers": 1}


@pytest.fixture
def domains(tmp_path):
    rng = np.random.default_rng(0)
    for folder, count in (("trainA", 3), ("trainB", 4), ("testA", 3), ("testB", 4)):
        (tmp_path / "data" / folder).mkdir(parents=True)
        for index in range(count):
            pixels = rng.integers(0, 256, (36, 36, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "data" / folder / f"{index}.png")
    return tmp_path / "data"


def test_recipes_of_both_objectives_are_compared(domains, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(unpaired, "COMMON", {"image_size": 32} | TINY)
    recipes = {"cycle": {"preset": "paper"}, "fast": {"preset": "fastcut", "nce_patches": 9, "r1": 0.1}}
    recipes["fast"] |= {"discriminator_norm": "none", "batch_size": 2}
    monkeypatch.setattr(unpaired, "RECIPES", recipes)
    out = tmp_path / "out"
    assert unpaired.main(["--data", str(domains), "--out", str(out), "--minutes", "0.001", "--seeds", "1"]) == 0
    costs = json.loads((out / "costs.json").read_text())
    lines = [line.split(" | ") for line in capsys.readouterr().out.splitlines() if line.startswith("| ")]
    for line, name in zip(lines[2:4], recipes, strict=True):
        assert line[:2] == [f"| {name}-seed0", str(max(1, round(0.06 / costs[name])))]
    assert [line[0] for line in lines[6:]] == ["| sources", "| training images of b"]
    with Image.open(out / "sheet.png") as sheet:
        assert 3 * 96 <= sheet.width < 4 * 96  # source and two outputs

    run = out / "fast-seed0"
    assert unpaired.main(["--curve", str(run), "--data", str(domains), "--out", str(out / "curve")]) == 0
    rows = [line.split(" | ") for line in capsys.readouterr().out.splitlines() if line.startswith("| ")][2:]
    kept = sorted(int(path.name[5:]) for path in (run / "checkpoints").glob("step-*"))
    assert [int(row[0].strip("| ")) for row in rows] == kept
    newest, compared = ([float(value.strip(" |")) for value in row[2:]] for row in (rows[-1], lines[3]))
    assert newest == pytest.approx(compared, rel=1e-3)  # kept in half precision
    assert (out / "curve" / "curve.png").exists()
    shutil.rmtree(run / "checkpoints")
    with pytest.raises(UserError, match="it has no checkpoints"):
        unpaired.main(["--curve", str(run), "--data", str(domains), "--out", str(out / "curve")])


def test_figures_of_perfect_outputs():
    rng = torch.Generator().manual_seed(0)
    sources, targets = (torch.rand(n, 3, 32, 32, generator=rng) * 2 - 1 for n in (12, 16))
    test = HeldOutImages(0.2 * sources, targets)
    near, far = measure(test, targets[:12]), measure(test, 0.2 * sources)
    assert near["kernel distance"] < 0.1 < 1 < far["kernel distance"]
    assert near["sliced Wasserstein"] < 0.1 < 0.5 < far["sliced Wasserstein"]
    assert far["L1 to source"] == 0 < near["L1 to source"]
