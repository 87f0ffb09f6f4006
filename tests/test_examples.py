"""Every script of examples/ runs, unchanged, as a process of its own."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

ROOT = Path(__file__).parents[1]
EXAMPLES = {
    "train_and_translate.py": "'mean'",
    "own_network.py": "Loaded a model that translates A to B.",
    "own_loss.py": "Trained 2 steps",
    "early_stopping.py": "Complete after 2 steps.",
}


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    root = tmp_path_factory.mktemp("pairs")
    rng = np.random.default_rng(0)
    for split in ("train", "val", "test"):
        (root / split).mkdir()
        for index in range(4):
            pixels = rng.integers(0, 256, (128, 256, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(root / split / f"{index}.png")
    return root


def test_all_examples_are_tested():
    assert {path.name for path in (ROOT / "examples").glob("*.py")} == set(EXAMPLES)


@pytest.mark.slow
@pytest.mark.essential
@pytest.mark.parametrize("name", EXAMPLES)
def test_an_example_runs(dataset, tmp_path, name):
    command = [sys.executable, str(ROOT / "examples" / name), str(dataset), str(tmp_path / "run"), "--steps", "2"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    assert EXAMPLES[name] in done.stdout
