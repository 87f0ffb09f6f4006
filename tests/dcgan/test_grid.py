import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from dcgan.grid import GAP, grid


@given(
    rows=st.integers(1, 4),
    columns=st.integers(1, 4),
    C=st.sampled_from([1, 3]),
    H=st.integers(1, 5),
    W=st.integers(1, 5),
)
def test_every_image_is_in_its_place_and_the_rest_is_gray(rows, columns, C, H, W):
    generator = torch.Generator().manual_seed(rows)
    images = torch.randint(0, 256, (rows * columns, C, H, W), dtype=torch.uint8, generator=generator)
    sheet = grid(images, columns)
    expected = np.full((rows * H + rows - 1, columns * W + columns - 1, C), GAP, np.uint8)
    for i, image in enumerate(images.permute(0, 2, 3, 1).numpy()):
        y, x = i // columns * (H + 1), i % columns * (W + 1)
        expected[y : y + H, x : x + W] = image
    np.testing.assert_array_equal(sheet, expected)
