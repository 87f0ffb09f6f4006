from functools import partial

import numpy as np
import pytest
from PIL import Image

from cyclegan.__main__ import main

NETWORKS = ["--image-size", "16", "--load-size", "18", "--num-blocks", "1", "--base-channels", "4"]
NETWORKS += ["--discriminator-channels", "4", "--patch-layers", "1", "--pool-size", "3"]
LENGTH = ["--steps", "6", "--save-every-steps", "2", "--log-every-steps", "2", "--sample-every-steps", "3"]
# One thread: such small networks are slower with more, and much slower when tests share the processor.
TINY = [*NETWORKS, "--threads", "1", *LENGTH]


def draw(seed, colors, size=20):
    """Make a image of a disc on a ground. [size, size, 3] uint8."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:size, :size]
    cy, cx, radius = [*rng.uniform(4, size - 4, 2).tolist(), rng.uniform(3, size / 2)]
    inside = (y - cy) ** 2 + (x - cx) ** 2 < radius**2
    disc, ground = colors
    return np.where(inside[:, :, None], disc, ground).astype(np.uint8)


DOMAINS = {"A": ((240, 240, 220), (140, 200, 240)), "B": ((90, 140, 60), (30, 60, 120))}


def write_domains(root, counts=(("trainA", 6), ("trainB", 4), ("testA", 3), ("testB", 2))):
    for number, (folder, count) in enumerate(counts):
        (root / folder).mkdir(parents=True)
        for i in range(count):
            image = draw(100 * number + i, DOMAINS[folder[-1]])
            Image.fromarray(image).save(root / folder / f"{folder}-{i}.png")
    return root


@pytest.fixture(scope="session")
def domains(tmp_path_factory):
    """A dataset of two domains without pairs that tests only read."""
    return write_domains(tmp_path_factory.mktemp("domains") / "set")


@pytest.fixture(scope="session")
def domains_with_truth(tmp_path_factory):
    """A dataset whose test images show the same in both domains, and that has a val split."""
    root = write_domains(
        tmp_path_factory.mktemp("truth") / "set", (("trainA", 3), ("trainB", 3), ("valA", 2), ("valB", 2))
    )
    for domain, colors in DOMAINS.items():
        (root / f"test{domain}").mkdir()
        for i in range(3):
            Image.fromarray(draw(i, colors)).save(root / f"test{domain}" / f"{i}.png")
    (root / "dataset.json").write_text('{"pairs": true}')
    return root


@pytest.fixture
def own_domains(tmp_path):
    """A dataset that a test may change."""
    return write_domains(tmp_path / "domains")


@pytest.fixture(scope="session")
def trained(domains, train_once):
    """A finished run that tests only read."""
    return train_once(main, "--data", domains, *TINY)


@pytest.fixture
def cyclegan(in_process):
    """Run the command line in this process; return exit code, standard output and standard error."""
    return in_process(main)


@pytest.fixture
def train(cyclegan, domains):
    """Train the tiny networks; other options may be given."""

    def run(out, *arguments, data=domains):
        return cyclegan("train", "--data", data, "--out", out, *TINY, *arguments)

    return run


@pytest.fixture
def process(start_process):
    """Start the command line as a process of its own."""
    return partial(start_process, "cyclegan")
