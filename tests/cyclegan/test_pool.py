"""The pool's rule, image by image, against a second telling of it."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from cyclegan.pool import ImagePool
from ganvas.models.tensors import load_tensors, save_tensors


def numbered(first, count):
    """Make images that are their own numbers."""
    return torch.arange(first, first + count, dtype=torch.float32).view(count, 1, 1, 1).expand(count, 2, 3, 3).clone()


def numbers(images):
    return images[:, 0, 0, 0].int().tolist()


@given(st.integers(1, 6), st.lists(st.integers(1, 4), min_size=1, max_size=12), st.integers(0, 1000))
def test_rule(size, batches, seed):
    pool, kept, number = ImagePool(size, (2, 3, 3)), [], 0
    torch.manual_seed(seed)
    rng = torch.Generator().manual_seed(seed)
    for count in batches:
        given_back = numbers(pool(numbered(number, count)))
        expected = []
        for fresh in range(number, number + count):
            if len(kept) < size:
                kept.append(fresh)
                expected.append(fresh)
                continue
            place = int(torch.randint(size, (), generator=rng))
            if torch.rand((), generator=rng) < 0.5:
                expected.append(kept[place])
                kept[place] = fresh
            else:
                expected.append(fresh)
        assert given_back == expected
        assert numbers(pool.images)[: len(kept)] == kept
        number += count


def test_half_of_the_images_come_from_a_full_pool():
    pool = ImagePool(50, (2, 3, 3))
    torch.manual_seed(0)
    assert numbers(pool(numbered(0, 50))) == list(range(50))
    fresh = list(range(50, 1050))
    back = numbers(pool(numbered(50, 1000)))
    old = sum(a != b for a, b in zip(back, fresh, strict=True))
    assert 440 < old < 560
    assert len(set(numbers(pool.images))) == 50


def test_pool_of_size_zero_returns_its_input():
    fresh = numbered(0, 3)
    assert torch.equal(ImagePool(0, (2, 3, 3))(fresh), fresh)


def test_restored_pool_continues_exactly(tmp_path):
    one, other = ImagePool(3, (2, 3, 3)), ImagePool(3, (2, 3, 3))
    one(numbered(0, 2))
    save_tensors(tmp_path / "pool.safetensors", dict(one.state_dict()))
    other.load_state_dict(load_tensors(tmp_path / "pool.safetensors"))
    for first in (2, 4, 6):
        given_back = []
        for pool in (one, other):
            torch.manual_seed(first)
            given_back.append(numbers(pool(numbered(first, 2))))
        assert given_back[0] == given_back[1]


def test_restoring_replaces_the_content_of_a_pool():
    one, used = ImagePool(3, (2, 3, 3)), ImagePool(3, (2, 3, 3))
    one(numbered(0, 1))
    used(numbered(10, 3))
    used.load_state_dict(one.state_dict())
    assert numbers(used(numbered(1, 2))) == [1, 2]
    assert numbers(used.images) == [0, 1, 2]


def test_returned_images_are_copies():
    pool = ImagePool(1, (2, 3, 3))
    torch.manual_seed(0)
    first = pool(numbered(7, 1))
    for number in range(20):
        pool(numbered(number, 1))
    assert numbers(first) == [7]
