from functools import partial

import numpy as np
import pytest
from PIL import Image

from pix2pix.__main__ import main

NETWORKS = ["--image-size", "32", "--levels", "3", "--base-channels", "4", "--patch-layers", "1"]
LENGTH = ["--steps", "6", "--save-every-steps", "2", "--log-every-steps", "2", "--sample-every-steps", "3"]
# One thread: such small networks are slower with more, and much slower when tests share the processor.
TINY = [*NETWORKS, "--discriminator-channels", "4", "--threads", "1", *LENGTH]


def draw_pair(seed, size=32):
    """Make a pair that can be learned: blobs, and the same blobs in other colors. [size, 2 * size, 3] uint8."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:size, :size]
    inside = np.zeros((size, size), bool)
    for _ in range(3):
        cy, cx, radius = [*rng.uniform(0, size, 2).tolist(), rng.uniform(3, size / 3)]
        inside |= (y - cy) ** 2 + (x - cx) ** 2 < radius**2
    source = np.where(inside[:, :, None], (240, 240, 220), (140, 200, 240))
    target = np.where(inside[:, :, None], (90, 140, 60), (30, 60, 120)) + rng.integers(-20, 20, (size, size, 3))
    return np.concatenate([source, target], axis=1).clip(0, 255).astype(np.uint8)


def write_pairs(root, counts=(("train", 6), ("val", 2), ("test", 3)), size=32):
    for number, (split, count) in enumerate(counts):
        (root / split).mkdir(parents=True)
        for i in range(count):
            Image.fromarray(draw_pair(100 * number + i, size)).save(root / split / f"{i}.png")
    return root


@pytest.fixture(scope="session")
def pairs(tmp_path_factory):
    """A dataset of pairs that tests only read."""
    return write_pairs(tmp_path_factory.mktemp("pairs") / "set")


@pytest.fixture
def many_pairs(tmp_path):
    """A dataset of enough pairs to know the next one by."""
    return write_pairs(tmp_path / "many", (("train", 32), ("val", 4)))


@pytest.fixture
def own_pairs(tmp_path):
    """A dataset of pairs that a test may change."""
    return write_pairs(tmp_path / "pairs")


@pytest.fixture(scope="session")
def trained(pairs, train_once):
    """A finished run that tests only read."""
    return train_once(main, "--data", pairs, *TINY)


@pytest.fixture
def pix2pix(in_process):
    """Run the command line in this process; return exit code, standard output and standard error."""
    return in_process(main)


@pytest.fixture
def train(pix2pix, pairs):
    """Train the tiny network; other options may be given."""

    def run(out, *arguments, data=pairs):
        return pix2pix("train", "--data", data, "--out", out, *TINY, *arguments)

    return run


@pytest.fixture
def process(start_process):
    """Start the command line as a process of its own."""
    return partial(start_process, "pix2pix")
