"""Conversion between arrays and tensors in [-1, 1]."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ganvas.data.tensors import to_array, to_display, to_tensor


@pytest.mark.parametrize(("kind", "top"), [(np.uint8, 255), (np.uint16, 65535)])
@given(st.data())
def test_integers_round_trip(kind, top, data):
    values = data.draw(st.lists(st.integers(0, top), min_size=12, max_size=12))
    image = np.array(values, dtype=kind).reshape(2, 2, 3)
    tensor = to_tensor(image)
    assert tensor.shape == (3, 2, 2)
    assert torch.allclose(tensor, torch.tensor(image / (top / 2) - 1).permute(2, 0, 1).float(), atol=1e-6)
    assert np.array_equal(to_array(tensor, kind), image)


@given(st.floats(-1e4, 1e4), st.floats(1, 1e5), st.integers(0, 100))
def test_a_value_range_becomes_the_network_range(low, width, percent):
    value = np.float32(low + width * percent / 100)
    tensor = to_tensor(np.full((1, 1, 1), value), (low, low + width))
    assert tensor.item() == pytest.approx(percent / 50 - 1, abs=4e-3 if abs(low) > 100 * width else 1e-4)
    assert to_array(tensor, np.float32, (low, low + width)).item() == pytest.approx(value, rel=1e-4, abs=width * 1e-3)


def test_twelve_bits_in_sixteen():
    image = np.array([[[0], [1], [2048], [4095], [5000]]], np.uint16)
    tensor = to_tensor(image, (0, 4095))
    assert tensor[0, 0].tolist() == pytest.approx([-1, 2 / 4095 - 1, 1 / 4095, 1, 1], abs=1e-6)
    assert to_array(tensor, np.uint16, (0, 4095))[0, :, 0].tolist() == [0, 1, 2048, 4095, 4095]
    assert to_array(torch.ones(1, 1, 1), np.uint8, (-50, 300)).item() == 255


def test_float_range_and_clipping():
    image = np.array([[[0.0, 0.25, 1.0]]], np.float32)
    assert to_tensor(image)[:, 0, 0].tolist() == pytest.approx([-1, -0.5, 1])
    assert to_array(torch.tensor([[[-3.0]], [[0.0]], [[3.0]]]), np.uint8)[0, 0].tolist() == [0, 128, 255]
    with pytest.raises(ValueError, match="float64"):
        to_tensor(image.astype(np.float64))
    with pytest.raises(ValueError, match="int32"):
        to_array(torch.zeros(3, 1, 1), np.int32)


@pytest.mark.parametrize("channels", [1, 2, 3, 5])
def test_display_range(channels):
    shown = to_display(np.full((4, 5, channels), 65535, np.uint16))
    assert (shown.shape, shown.dtype) == ((4, 5, 3), np.uint8)
    assert shown.min() == 255


def test_display_stretches_a_value_range():
    heights = np.array([[-500, -100, 2150, 4500, 8900, 9999, np.nan]], np.float32)[:, :, None]
    assert to_display(heights, (-100, 8900))[0, :, 0].tolist() == [0, 0, 64, 130, 255, 255, 3]
