"""Replacement of samples that cannot be read, and the log of errors."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ganvas.data.skip import MAX_SKIPS, SkipCounter, SkippingDataset, read_many, read_or_next
from ganvas.errors import UserError


def reader(bad):
    def read(index):
        if index in bad:
            raise UserError(f"{index}: bad")
        return index

    return read


@given(st.integers(1, 30), st.data())
def test_the_next_readable_sample_is_the_replacement(length, data):
    bad = data.draw(st.sets(st.integers(0, length - 1), max_size=length - 1))
    index = data.draw(st.integers(0, length - 1))
    sample, errors = read_or_next(reader(bad), index, length)
    passed = [(index + i) % length for i in range(length)]
    first = next(i for i in passed if i not in bad)
    assert sample == first
    assert errors == [f"{i}: bad" for i in passed[: passed.index(first)]]


def test_a_dataset_without_readable_samples_is_refused():
    with pytest.raises(UserError, match=r"^1: bad The 2 after it cannot be read either"):
        read_or_next(reader({0, 1, 2}), 1, 3)


def test_a_missing_dataset_is_refused_after_a_hundred():
    asked = []

    def read(index):
        asked.append(index)
        raise UserError("gone")

    with pytest.raises(UserError, match="more than --on-error skips"):
        read_or_next(read, 7, 10**6)
    assert len(asked) == MAX_SKIPS == 100


def test_errors_are_logged_once_and_counted(caplog):
    skips, batch = SkipCounter(), {"source": 1, "skipped": ["", "x: bad\0z: bad\nin two lines"]}
    skips.add(["x: bad", "y: bad"])
    skips.add_batch(batch)
    assert caplog.messages == ["Skipped: x: bad", "Skipped: y: bad", "Skipped: z: bad\nin two lines"]
    assert skips.count == 4
    assert batch == {"source": 1}


def test_held_out_samples_are_read_with_or_without_skips(caplog):
    assert read_many(reader({1}), [0, 1, 2], 3, SkipCounter()) == [0, 2, 2]
    assert caplog.messages == ["Skipped: 1: bad"]
    with pytest.raises(UserError, match="1: bad"):
        read_many(reader({1}), [0, 1, 2], 3, None)


class Keyed:
    def __getitem__(self, key):
        epoch, index = key
        return {"key": (epoch, reader({2, 3})(index))}


def test_a_replacement_has_the_epoch_of_the_one_it_replaces():
    data = SkippingDataset(Keyed(), 5)
    assert len(data) == 5
    assert data[7, 2] == {"key": (7, 4), "skipped": "2: bad\0003: bad"}
    assert data[7, 1] == {"key": (7, 1), "skipped": ""}
