"""The colors of a palette, and the images that are drawn in them."""

import numpy as np
import pytest

from ganvas.data.palette import is_flat, parse_palette
from ganvas.errors import UserError

LAND, LAKE = (242, 239, 228), (110, 165, 225)


def test_colors_have_names_and_are_optional():
    assert parse_palette({"legend": {"land": list(LAND), "lake": LAKE}}) == {"land": LAND, "lake": LAKE}
    assert parse_palette({"name": "maps"}) == parse_palette({"legend": {}}) == {}


@pytest.mark.parametrize(
    "palette",
    [
        "red",
        {"land": "red"},
        {"land": [1, 2]},
        {"land": [1, 2, 3, 4]},
        {"land": [1, 2, 256]},
        {"land": [1, 2, -1]},
        {"land": [1, 2, 3.0]},
        {"land": [True, False, True]},
        {"land": 5},
        [1],
    ],
)
def test_invalid_palettes_are_refused(palette):
    with pytest.raises(UserError, match=r"dataset.json: the legend is .*; expected \[red, green, blue\]"):
        parse_palette({"legend": palette})


@pytest.mark.parametrize("share", [0.4, 0.6])
def test_an_image_is_flat_if_half_of_it_is_in_palette_colors(share):
    image = np.random.default_rng(0).integers(0, 200, (100, 100, 3), dtype=np.uint8)
    image[: round(100 * share)] = LAND
    assert is_flat(image, [LAND]) == (share > 0.5)
    assert is_flat(image, [LAND, LAND]) == (share > 0.5)  # two classes of one color count once
    assert not is_flat(image.astype(np.uint16), [LAND])
    assert not is_flat(image[:, :, :1], [LAND])
    assert not is_flat(image, [])


def test_classes_count_together():
    image = np.full((40, 40, 3), 7, np.uint8)
    image[:12], image[12:24] = LAND, LAKE
    assert is_flat(image, [LAND, LAKE])
    assert not is_flat(image, [LAND])


def test_a_long_name_is_shortened():
    with pytest.raises(UserError) as error:
        parse_palette({"legend": {"x" * 3000: 7}})
    assert len(str(error.value)) < 300
