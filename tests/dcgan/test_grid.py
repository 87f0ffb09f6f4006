import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from dcgan.grid import GAP, grid


def test_two_rows_with_a_free_place():
    pictures = torch.tensor([[[[1, 2]]], [[[3, 4]]], [[[5, 6]]]], dtype=torch.uint8)  # three of 1 x 2 pixels
    expected = [
        [1, 2, GAP, 3, 4],
        [GAP, GAP, GAP, GAP, GAP],
        [5, 6, GAP, GAP, GAP],
    ]
    np.testing.assert_array_equal(grid(pictures, 2)[:, :, 0], expected)


@given(
    n=st.integers(1, 12),
    channels=st.sampled_from([1, 3]),
    size=st.tuples(st.integers(1, 5), st.integers(1, 5)),
    columns=st.integers(1, 13),
    gap=st.integers(0, 3),
)
def test_every_picture_is_in_its_place_and_the_rest_is_gray(n, channels, size, columns, gap):
    H, W = size
    pictures = torch.randint(0, 256, (n, channels, H, W), dtype=torch.uint8, generator=torch.Generator().manual_seed(n))
    sheet = grid(pictures, columns, gap)
    rows = (n + columns - 1) // columns
    assert sheet.shape == (rows * H + (rows - 1) * gap, columns * W + (columns - 1) * gap, channels)
    assert sheet.dtype == np.uint8
    rest = np.ones(sheet.shape[:2], bool)
    for i in range(n):
        row, column = divmod(i, columns)
        place = slice(row * (H + gap), row * (H + gap) + H), slice(column * (W + gap), column * (W + gap) + W)
        np.testing.assert_array_equal(sheet[place], pictures[i].permute(1, 2, 0).numpy())
        rest[place] = False
    assert (sheet[rest] == GAP).all()


@pytest.mark.parametrize(
    ("pictures", "columns", "gap", "message"),
    [
        (torch.zeros(3, 28, 28, dtype=torch.uint8), 2, 1, r"\[3, 28, 28\]"),
        (torch.zeros(0, 1, 28, 28, dtype=torch.uint8), 2, 1, r"n >= 1"),
        (torch.zeros(3, 1, 28, 28), 2, 1, "float32"),
        (torch.zeros(3, 1, 28, 28, dtype=torch.uint8), 0, 1, "columns is 0"),
        (torch.zeros(3, 1, 28, 28, dtype=torch.uint8), 2, -1, "gap -1"),
    ],
)
def test_bad_arguments(pictures, columns, gap, message):
    with pytest.raises(ValueError, match=message):
        grid(pictures, columns, gap)
