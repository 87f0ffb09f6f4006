"""What takes the place of a sample that cannot be read, and how it is told."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ganvas.data.skip import IN_A_ROW, SkipCounter, SkippingDataset, read_many, read_or_next
from ganvas.errors import UserError


def reader(bad):
    def read(index):
        if index in bad:
            raise UserError(f"{index}: bad")
        return index

    return read


@given(st.integers(1, 30), st.data())
def test_the_next_that_can_be_read_takes_the_place(length, data):
    bad = data.draw(st.sets(st.integers(0, length - 1), max_size=length - 1))
    index = data.draw(st.integers(0, length - 1))
    sample, errors = read_or_next(reader(bad), index, length)
    passed = [(index + i) % length for i in range(length)]
    first = next(i for i in passed if i not in bad)
    assert sample == first
    assert errors == [f"{i}: bad" for i in passed[: passed.index(first)]]


def test_a_set_without_a_good_sample_is_refused():
    with pytest.raises(UserError, match=r"^1: bad Nor can the 2 after it be read"):
        read_or_next(reader({0, 1, 2}), 1, 3)


def test_a_set_that_is_gone_is_refused_after_a_hundred():
    asked = []

    def read(index):
        asked.append(index)
        raise UserError("gone")

    with pytest.raises(UserError, match="more than --on-error skips"):
        read_or_next(read, 7, 10**6)
    assert len(asked) == IN_A_ROW == 100


def test_errors_are_said_once_and_all_counted():
    said = []
    skips = SkipCounter(said.append)
    skips.note(["x: bad", "y: bad"])
    skips.note_batch({"skipped": ["", "x: bad\0z: bad\nin two lines"]})
    assert said == ["Skipped: x: bad", "Skipped: y: bad", "Skipped: z: bad\nin two lines"]
    assert skips.count == 4


def test_a_batch_loses_what_is_not_for_the_step():
    batch = {"source": 1, "skipped": ["x"]}
    SkipCounter(lambda line: None).note_batch(batch)
    assert batch == {"source": 1}


def test_held_out_samples_are_read_with_or_without_skips():
    said = []
    assert read_many(reader({1}), [0, 1, 2], 3, SkipCounter(said.append)) == [0, 2, 2]
    assert said == ["Skipped: 1: bad"]
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
