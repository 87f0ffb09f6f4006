"""Blended tiles of an image are the image."""

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from ganvas.inference.tiling.blend import blend
from ganvas.inference.tiling.plan import Axis, Grid, Plan


def pieces(plan, image, holes):
    def translate(window):
        place = np.ix_(plan.rows.pixels(window.top), plan.columns.pixels(window.left))
        return torch.from_numpy(image[place]).permute(2, 0, 1).contiguous(), holes[place]

    return blend(plan, image.shape[2], translate, lambda piece: piece.permute(1, 2, 0).numpy().copy())


@given(st.data())
def test_blended_tiles_of_an_image_are_the_image(data):
    step = data.draw(st.sampled_from([1, 5, 16]))
    tile = data.draw(st.integers(max(step, 8), 60))
    overlap = data.draw(st.integers(0, -(-tile // step) * step - max(step, 5)))
    H, W = data.draw(st.tuples(st.integers(1, 90), st.integers(1, 90)))
    plan = Plan(*(Axis(side, tile, overlap, Grid(step, step)) for side in (H, W)))
    rng = np.random.default_rng(0)
    image, holes = rng.random((H, W, 2), dtype=np.float32), rng.random((H, W)) < 0.1
    bands = list(pieces(plan, image, holes))
    assert len(bands) == len(plan.rows.starts)
    assert np.allclose(np.concatenate([band for band, _ in bands]), image, atol=1e-6)
    assert np.array_equal(np.concatenate([band for _, band in bands]), holes)


def test_two_tiles_are_blended_by_their_weights():
    plan = Plan(Axis(8, 8, 0), Axis(12, 8, 4))
    numbers = iter((0.0, 1.0))
    bands = blend(
        plan,
        1,
        lambda window: (torch.full((1, 8, 8), next(numbers)), np.zeros((8, 8), bool)),
        lambda piece: piece.permute(1, 2, 0).numpy().copy(),
    )
    ((band, _),) = bands
    assert np.allclose(band[0, :, 0], [0] * 5 + [0.5 - 0.5**1.5, 0.5 + 0.5**1.5] + [1] * 5)
