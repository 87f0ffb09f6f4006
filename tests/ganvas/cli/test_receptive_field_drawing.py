import numpy as np
import pytest

from ganvas.cli.receptive_field_drawing import Box, draw_receptive_field

YELLOW, CYAN, PAPER = (255, 200, 0), (0, 225, 255), (22, 24, 28)


def noise(H: int, W: int, channels: int = 3) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (H, W, channels), dtype=np.uint8)


def draw(image: np.ndarray, field: Box, cell: Box) -> np.ndarray:
    labels = {"title": "title", "receptive_field_label": "receptive field", "cell_label": "cell"}
    return draw_receptive_field(image, receptive_field=field, cell=cell, **labels)


def test_everything_but_the_field_is_dimmed() -> None:
    image = noise(960, 960)  # drawn at its own size
    drawn = draw(image, Box(200, 300, 400, 500), Box(290, 390, 310, 410))
    assert drawn.dtype == np.uint8
    assert drawn.shape[1:] == (960, 3)
    assert drawn.shape[0] > 960  # the caption
    np.testing.assert_array_equal(drawn[300:380, 200:400], image[300:380, 200:400])
    rest = drawn[600:900, 600:900].astype(float)
    assert 0.2 < rest.std() / image[600:900, 600:900].std() < 0.5
    assert rest.max() < 150


def test_frames_lie_around_field_and_cell() -> None:
    drawn = draw(noise(960, 960), Box(200, 300, 400, 500), Box(290, 390, 310, 410))
    for color, (left, top, right, bottom) in ((YELLOW, (200, 300, 400, 500)), (CYAN, (290, 390, 310, 410))):
        framed = (drawn[:960] == color).all(axis=-1)
        rows, columns = np.nonzero(framed)
        assert (rows.min(), rows.max()) == (top - 3, bottom + 2)
        assert (columns.min(), columns.max()) == (left - 3, right + 2)
        assert not framed[top:bottom, left:right].any()


def test_small_images_are_enlarged_by_an_integer() -> None:
    image = noise(48, 96)
    drawn = draw(image, Box(20, 10, 40, 30), Box(29, 19, 31, 21))
    assert drawn.shape[1] == 960
    np.testing.assert_array_equal(drawn[100:170, 200:270], image.repeat(10, 0).repeat(10, 1)[100:170, 200:270])


def test_visible_padding_is_striped() -> None:
    image = noise(960, 960)
    drawn = draw(image, Box(-96, -96, 240, 240), Box(60, 60, 80, 80))
    # The sheet begins 20 pixels (a 48th of the image) before the field.
    seen, unseen = drawn[30:110, 30:110], drawn[500:800, 10:110]
    assert len(np.unique(seen.reshape(-1, 3), axis=0)) == 2
    assert (unseen == PAPER).all()
    np.testing.assert_array_equal(drawn[116 + 100 : 116 + 200, 116 + 100 : 116 + 200], image[100:200, 100:200])
    inside = draw(image, Box(96, 96, 240, 240), Box(160, 160, 180, 180))
    assert len(drawn) - 960 - 116 > len(inside) - 960  # one line of caption more, for the padding


def test_a_unit_that_sees_only_its_own_cell_shows_both_frames() -> None:
    drawn = draw(noise(48, 96), Box(20, 10, 21, 11), Box(20, 10, 21, 11))[:480]
    for color in (YELLOW, CYAN):
        assert (drawn == color).all(axis=-1).sum() > 100


def test_a_field_wider_than_the_image() -> None:
    drawn = draw(noise(8, 8), Box(-100, -100, 108, 108), Box(0, 0, 8, 8))
    assert drawn.shape[1] == 4 * (208 + 2 * 5)  # a 48th of the field, rounded up, on both sides


@pytest.mark.parametrize("channels", [1, 2, 3, 4, 7])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_images_of_every_dtype(channels: int, dtype: type) -> None:
    image = noise(960, 960, channels)
    source = {
        np.uint8: image,
        np.uint16: image.astype(np.uint16) * 257,
        np.float32: image.astype(np.float32) / 255,
    }[dtype]
    drawn = draw(source, Box(200, 300, 400, 500), Box(290, 390, 310, 410))
    expected = image[..., :3] if channels >= 3 else image[..., :1].repeat(3, axis=-1)
    np.testing.assert_array_equal(drawn[300:380, 200:400], expected[300:380, 200:400])


def test_non_finite_values_are_drawn() -> None:
    image = np.full((960, 960, 1), np.nan, np.float32)
    image[0, :, 0] = np.inf
    drawn = draw(image, Box(0, 0, 400, 500), Box(290, 390, 310, 410))
    assert drawn[20 + 100, 20 + 100].tolist() == [0, 0, 0]
