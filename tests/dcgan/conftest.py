import gzip
import struct
from functools import partial

import numpy as np
import pytest
import torch
from PIL import Image

from dcgan.__main__ import main
from dcgan.data import DIGITS
from dcgan.model import DigitModelConfig, build, save_sampler

# One thread: such small networks are slower with more, and much slower when tests share the processor.
LENGTH = ["--steps", "6", "--save-every-steps", "2", "--log-every-steps", "2", "--sample-every-steps", "3"]
TINY = ["--base-channels", "4", "--batch-size", "8", "--threads", "1", *LENGTH]


def draw_digits(count, seed=0):
    """Make easy "digits": class k is a bar at column 4 + 2k. [count, 28, 28] uint8 and labels uint8."""
    rng = np.random.default_rng(seed)
    labels = np.arange(count) % 10
    pixels = rng.integers(0, 30, (count, 28, 28))
    for image, label in zip(pixels, labels, strict=True):
        image[4:24, 4 + 2 * label : 6 + 2 * label] = rng.integers(180, 255)
    return pixels.astype(np.uint8), labels.astype(np.uint8)


def write_idx(folder, pixels, labels, prefix, *, zipped=True):
    """Write images and labels in MNIST's own file format (LeCun et al.)."""
    folder.mkdir(parents=True, exist_ok=True)
    files = {
        f"{prefix}-images-idx3-ubyte": struct.pack(">4I", 2051, *pixels.shape) + pixels.tobytes(),
        f"{prefix}-labels-idx1-ubyte": struct.pack(">2I", 2049, len(labels)) + labels.tobytes(),
    }
    for name, content in files.items():
        if zipped:
            (folder / f"{name}.gz").write_bytes(gzip.compress(content))
        else:
            (folder / name).write_bytes(content)


def write_folder(folder, *, classes=3, each=8, size=16, channels=3):
    """Write PNG images in folders of their classes: a color each, and noise."""
    rng = np.random.default_rng(0)
    for label in range(classes):
        sub = folder / f"class-{label}"
        sub.mkdir(parents=True)
        for i in range(each):
            pixels = rng.integers(0, 40, (size, size, channels)) + np.eye(3, dtype=int)[label % 3][:channels] * 200
            Image.fromarray(pixels.astype(np.uint8).squeeze()).save(sub / f"{i}.png")
    return folder


def save_untrained(folder, **changed):
    """Save a model that was never trained: its images are noise, and distinct."""
    options = {
        "preset": "dcgan",
        "image_size": 28,
        "channels": 1,
        "num_classes": 0,
        "latent_dim": 8,
        "latent": "normal",
        "norm": "batch",
        "base_channels": 4,
        "extra_layers": 0,
        "pixel_range": "signed",
        "classes": DIGITS,
        "data": "mnist",
        "data_digest": "",
    }
    config = DigitModelConfig(**{**options, **changed})
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        G, _ = build(config)
    save_sampler(folder, config, G, "")
    return folder


@pytest.fixture(scope="session")
def save_model():
    """Save an untrained model with any settings; return its folder."""
    return save_untrained


@pytest.fixture(autouse=True, scope="session")
def own_cache(tmp_path_factory):
    """Keep classifiers out of the user's cache."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GANVAS_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session")
def digits(tmp_path_factory):
    """A folder for --data-root with a small "mnist" that tests only read."""
    root = tmp_path_factory.mktemp("digits")
    write_idx(root / "mnist", *draw_digits(200), "train")
    write_idx(root / "mnist", *draw_digits(100, seed=1), "t10k")
    return root


@pytest.fixture
def dcgan(in_process):
    """Run the command line in this process; return exit code, standard output and standard error."""
    return in_process(main)


@pytest.fixture
def train(dcgan, digits):
    """Train the tiny network on the small "mnist"; other options may be given."""

    def run(out, *arguments, tiny=TINY):
        return dcgan("train", "--data", "mnist", "--data-root", digits, "--out", out, *tiny, *arguments)

    return run


@pytest.fixture(scope="session")
def trained(digits, train_once):
    """A finished run that tests only read."""
    return train_once(main, "--data", "mnist", "--data-root", digits, *TINY)


@pytest.fixture(scope="session")
def trained_conditional(digits, train_once):
    """A finished run with labels that tests only read."""
    return train_once(main, "--data", "mnist", "--data-root", digits, "--conditional", *TINY)


@pytest.fixture
def idx_writer():
    """Return `write_idx` and `draw_digits`, for tests that need files of their own."""
    return write_idx, draw_digits


@pytest.fixture
def folder_writer():
    """Return `write_folder`, for tests that need images of their own."""
    return write_folder


@pytest.fixture
def process(start_process):
    """Start the command line as a process of its own."""
    return partial(start_process, "dcgan")
