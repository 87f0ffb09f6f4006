import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from torch.nn import functional as F

from ganvas.data.resize import resize

RNG = np.random.default_rng(0)
SIDES = st.integers(1, 40)


def smooth(height, width, channels, dtype):
    """An image that stays away from the ends of its range, so that no intermediate step is clipped."""
    y, x = np.mgrid[:height, :width] / 8
    waves = np.stack([0.5 + 0.2 * np.sin(x + i) * np.cos(y * (i + 1)) for i in range(channels)], axis=2)
    top = {"uint8": 255, "uint16": 65535, "float32": 1}[dtype]
    return (np.rint(waves * top) if top > 1 else waves).astype(dtype)


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
@pytest.mark.parametrize("channels", [1, 2, 3, 4, 7])
@pytest.mark.parametrize(("height", "width"), [(20, 31), (90, 120), (20, 120)])
def test_all_dtypes_are_scaled_as_floats_by_torch(dtype, channels, height, width):
    image = smooth(47, 64, channels, dtype)
    scaled = resize(image, height, width)
    tensor = torch.from_numpy(image.astype(np.float64).transpose(2, 0, 1))[None]
    expected = F.interpolate(tensor, (height, width), mode="bicubic", antialias=True)[0].permute(1, 2, 0).numpy()
    if dtype == "float32":
        expected = expected.clip(image.min(), image.max())
    assert (scaled.dtype, scaled.shape, scaled.flags.c_contiguous) == (image.dtype, (height, width, channels), True)
    steps = 1.1 if dtype == "uint8" else 0.51 if dtype == "uint16" else 1e-6  # Pillow rounds 8 bits after each axis
    assert np.abs(scaled - expected).max() <= steps


def test_8_bits_are_scaled_as_by_pillow():
    image = RNG.integers(0, 256, (33, 50, 3), dtype=np.uint8)
    expected = np.asarray(Image.fromarray(image).resize((70, 20), Image.Resampling.BICUBIC))
    assert np.array_equal(resize(image, 20, 70), expected)


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
def test_edges_stay_in_range(dtype):
    top = {"uint8": 255, "uint16": 65535, "float32": 1}[dtype]
    image = (RNG.integers(0, 2, (30, 30, 2)) * top).astype(dtype)
    for side in (17, 71):
        scaled = resize(image, side, side)
        assert (scaled.min(), scaled.max()) == (0, top)  # integers would wrap around, floats overshoot


@given(SIDES, SIDES, SIDES, SIDES, st.booleans())
def test_a_constant_stays(height, width, new_height, new_width, flat):
    for dtype, value in ((np.uint8, 200), (np.uint16, 50000), (np.float32, -3.5)):
        image = np.full((height, width, 3), value, dtype)
        scaled = resize(image, new_height, new_width, flat=flat)
        np.testing.assert_allclose(scaled, np.full((new_height, new_width, 3), value), rtol=1e-6)


@given(SIDES, SIDES, SIDES, SIDES)
def test_flat_images_use_torchs_nearest_neighbors(height, width, new_height, new_width):
    image = np.arange(height * width, dtype=np.uint16).reshape(height, width, 1)
    tensor = torch.from_numpy(image.astype(np.float64).transpose(2, 0, 1))[None]
    expected = F.interpolate(tensor, (new_height, new_width), mode="nearest-exact")[0].permute(1, 2, 0).numpy()
    found = resize(image, new_height, new_width, flat=True)
    places = np.divmod(found[:, :, 0].astype(int), width), np.divmod(expected[:, :, 0].astype(int), width)
    middles = np.meshgrid(
        (np.arange(new_height) + 0.5) * height / new_height % 1, (np.arange(new_width) + 0.5) * width / new_width % 1,
        indexing="ij",
    )  # fmt: skip
    for axis in (0, 1):  # a middle that lies between two pixels may fall to either side, by rounding
        between = np.minimum(middles[axis], 1 - middles[axis]) < 1e-6
        assert ((places[0][axis] == places[1][axis]) | between).all()


def test_the_same_size_changes_nothing():
    image = RNG.integers(0, 256, (9, 7, 5), dtype=np.uint8)
    assert np.array_equal(resize(image, 9, 7), image)
