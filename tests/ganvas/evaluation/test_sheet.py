import numpy as np
import pytest

from ganvas.evaluation.sheet import contact_sheet

RED, BLUE = (255, 0, 0), (0, 0, 255)


def flat(height, width, color, dtype=np.uint8):
    return np.full((height, width, len(color)), color, dtype)


def box_of(sheet, color):
    """Return top, left, bottom, right of all pixels of a color, after checking that they fill the box."""
    mask = (sheet == color).all(axis=2)
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    top, left, bottom, right = rows[0], columns[0], rows[-1] + 1, columns[-1] + 1
    assert mask[top:bottom, left:right].all()
    return top, left, bottom, right


def test_images_are_unscaled_with_a_gutter():
    sheet = contact_sheet([[flat(100, 140, RED), flat(100, 140, BLUE)]], ["left", "right"])
    red, blue = box_of(sheet, RED), box_of(sheet, BLUE)

    assert sheet.dtype == np.uint8
    assert (red[2] - red[0], red[3] - red[1]) == (100, 140)
    assert (blue[2] - blue[0], blue[3] - blue[1]) == (100, 140)
    assert red[0] == blue[0]
    assert 2 <= blue[1] - red[3] <= 10


def test_rows_are_in_order():
    sheet = contact_sheet([[flat(96, 96, RED)], [flat(96, 96, BLUE)]], ["x"])
    assert box_of(sheet, RED)[2] < box_of(sheet, BLUE)[0] < box_of(sheet, RED)[2] + 11


def test_pixels_are_copied_exactly():
    image = np.random.default_rng(0).integers(0, 256, (128, 128, 3), dtype=np.uint8)
    sheet = contact_sheet([[flat(128, 128, RED), image]], ["red", "noise"])
    top, left, bottom, right = box_of(sheet, RED)
    gutter = (sheet.shape[1] - 2 * left) - 2 * 128  # what the margins and the two columns leave

    np.testing.assert_array_equal(sheet[top:bottom, right + gutter : right + gutter + 128], image)


@pytest.mark.parametrize(
    ("image", "shown"),
    [
        (flat(100, 100, (65535, 0, 0), np.uint16), RED),
        (flat(100, 100, (0, 0, 1), np.float32), BLUE),
        (flat(100, 100, (100,)), (100, 100, 100)),
        (flat(100, 100, (200, 10)), (200, 200, 200)),
        (flat(100, 100, (255, 0, 0, 7, 8)), RED),
    ],
)
def test_any_depth_and_number_of_channels(image, shown):
    top, left, bottom, right = box_of(contact_sheet([[image]], ["x"]), shown)
    assert (bottom - top, right - left) == (100, 100)


def test_small_images_are_enlarged_by_an_integer():
    top, left, bottom, right = box_of(contact_sheet([[flat(28, 20, RED)]], ["digit"]), RED)
    assert (bottom - top, right - left) == (4 * 28, 4 * 20)


def test_smaller_images_are_centered():
    sheet = contact_sheet([[flat(100, 120, BLUE)], [flat(60, 80, RED)]], ["x"])
    red, blue = box_of(sheet, RED), box_of(sheet, BLUE)
    assert (red[2] - red[0], red[3] - red[1]) == (60, 80)
    assert red[1] - blue[1] == blue[3] - red[3] == 20


def test_titles_of_columns_and_rows():
    image = flat(128, 128, RED)
    plain = contact_sheet([[image]], [""])
    titled = contact_sheet([[image]], ["map"])
    labelled = contact_sheet([[image]], ["map"], ["Alps"])
    top, left, *_ = box_of(titled, RED)

    assert plain.shape == titled.shape
    assert (plain[:top] == plain[0, 0]).all()
    assert (titled[:top] != titled[0, 0]).any()
    label = labelled[top : top + 128, : box_of(labelled, RED)[1]]
    assert label.shape[1] > left
    assert (label != labelled[0, 0]).any()


def test_a_long_title_stays_within_its_column():
    images = [flat(128, 128, RED), flat(128, 128, BLUE)]
    long, short = (contact_sheet([images], [title, ""]) for title in ("output " * 30, "output"))
    left_of_blue = box_of(long, BLUE)[1]

    assert long.shape == short.shape
    assert (long[: box_of(long, RED)[0], left_of_blue:] == long[0, 0]).all()


@pytest.mark.parametrize(
    ("rows", "columns", "labels"), [([], ["x"], None), ([[]], [], None), ([[0, 0]], ["x"], None), ([[0]], ["x"], [])]
)
def test_titles_that_do_not_fit_are_refused(rows, columns, labels):
    with pytest.raises(ValueError, match="expected"):
        contact_sheet([[flat(8, 8, RED) for _ in row] for row in rows], columns, labels)
