import numpy as np
import pytest
import torch
from torch import Tensor

from ganvas.nn.diff_augment import draw_augmentation

ALL = ("color", "translation", "cutout")


def image(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def draw(policies: tuple[str, ...], like: Tensor, seed: int = 0):
    return draw_augmentation(policies, like, torch.Generator().manual_seed(seed))


def test_none_changes_nothing() -> None:
    x = image(2, 3, 8, 8).bfloat16()
    assert draw((), x)(x) is x


@pytest.mark.parametrize("policy", ALL)
def test_source_target_and_output_get_the_same_transform(policy: str) -> None:
    target = image(4, 3, 24, 32)
    augment = draw((policy,), target)
    assert torch.equal(augment(target), augment(target.clone()))
    assert not torch.equal(augment(target), target)
    if policy != "color":  # geometry is the same for any number of channels
        assert torch.equal(augment(target[:, :1]), augment(target)[:, :1])


def test_translation_moves_by_whole_pixels_and_fills_with_zeros() -> None:
    """Every image is one of the (2 * 2 + 1)² shifts of 16 pixels, found by NumPy, and all of them occur."""
    x = image(300, 1, 16, 16) + 3  # no zeros of its own
    moved = draw(("translation",), x)(x).numpy()
    shifts = set()
    for before, after in zip(x.numpy(), moved, strict=True):
        for down in range(-2, 3):
            for right in range(-2, 3):
                expected = np.zeros_like(before)
                rows, columns = slice(max(0, down), 16 + min(0, down)), slice(max(0, right), 16 + min(0, right))
                expected[:, rows, columns] = np.roll(before, (down, right), axis=(1, 2))[:, rows, columns]
                if np.array_equal(expected, after):
                    shifts.add((down, right))
                    break
            else:
                continue
            break
        else:
            pytest.fail("an image is no shift of its source")
    assert len(shifts) == 25


def test_cutout_removes_a_square_of_half_the_side() -> None:
    x = torch.ones(500, 1, 16, 24)
    out = draw(("cutout",), x)(x)
    removed = [(image[0] == 0).nonzero() for image in out]
    for place in removed:
        rows, columns = place[:, 0].unique(), place[:, 1].unique()
        assert len(place) == len(rows) * len(columns)  # a rectangle
        assert len(rows) <= 8
        assert len(columns) <= 12
    # The center is anywhere, so a part of the square may lie outside: on average 7/8 of 8 and of 12 are inside.
    assert np.mean([len(place) for place in removed]) == pytest.approx(7 * 10.5, rel=0.05)


def test_color_by_the_formulas() -> None:
    x = image(1, 3, 4, 4)
    brightness, saturation, contrast = torch.rand(1, 7, generator=torch.Generator().manual_seed(5))[0, :3].numpy()
    expected = x.numpy() + brightness - 0.5
    gray = expected.mean(axis=1, keepdims=True)
    expected = gray + (expected - gray) * 2 * saturation
    expected = expected.mean() + (expected - expected.mean()) * (0.5 + contrast)
    np.testing.assert_allclose(draw(("color",), x, seed=5)(x), expected, rtol=1e-4, atol=1e-5)


def test_gradients_reach_the_generator() -> None:
    x = image(2, 3, 16, 16).requires_grad_()
    draw(("translation", "cutout"), x)(x).sum().backward()
    assert 0 < (x.grad != 0).float().mean() < 1  # not where the square or the border is


def test_half_precision_becomes_float32() -> None:
    x = image(2, 3, 16, 16)
    assert draw(("color",), x)(x.bfloat16()).dtype == torch.float32


def test_each_image_and_each_step_has_its_own_transform() -> None:
    x = image(1, 3, 16, 16).expand(8, -1, -1, -1)
    rng = torch.Generator().manual_seed(0)
    first, second = (draw_augmentation(("color",), x, rng)(x) for _ in range(2))
    assert len({tuple(each.flatten().tolist()) for each in (*first, *second)}) == 16


def test_without_policies_nothing_is_drawn_or_changed() -> None:
    x, rng = torch.zeros(2, 3, 8, 8, dtype=torch.bfloat16), torch.Generator().manual_seed(0)
    before = rng.get_state()
    assert draw_augmentation((), x, rng)(x) is x
    assert torch.equal(rng.get_state(), before)
