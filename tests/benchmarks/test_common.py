import numpy as np

from benchmarks.common import compare, photo, ratio_interval, table


def test_the_interval_of_a_median_ratio():
    low, high = ratio_interval([1.5, 1.6, 1.7, 1.8, 1.9, 2.0, 2.1])
    assert 1.5 <= low < 1.8 < high <= 2.1
    assert ratio_interval([2.0] * 9) == (2, 2)


def test_ratios_are_of_pairs():
    result = compare([2.0, 4.0, 8.0], [1.0, 1.0, 1.0])
    assert result == {"ratio": 4, "ratio_low": 2, "ratio_high": 8}


def test_a_table():
    assert table(("a", "b"), [(1, "x")]) == "| a | b |\n| --- | --- |\n| 1 | x |"


def test_photos_have_their_size_and_detail():
    image = photo(np.random.default_rng(0), 40, 60, (2, 4, 8))
    assert image.size == (60, 40)
    assert 20 < np.asarray(image).std() < 90
