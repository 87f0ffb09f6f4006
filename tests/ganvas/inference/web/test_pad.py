import base64
from types import SimpleNamespace

import pytest

from data_scripts.sets.earth import describe_colors
from ganvas.errors import UserError
from ganvas.inference.web.pad import Brush, pad_html, palette_brushes, write_drawing


def test_a_drawing_is_written_as_a_file(tmp_path):
    url = f"data:image/png;base64,{base64.b64encode(b'content').decode()}"
    assert write_drawing(url, tmp_path).read_bytes() == b"content"


@pytest.mark.parametrize("url", ["", "not base64", "ää", "data:image/png;base64,A"])
def test_invalid_drawings_are_refused(tmp_path, url):
    if url:
        with pytest.raises(UserError, match="The browser sent no drawing"):
            write_drawing(url, tmp_path)
    else:
        assert write_drawing(url, tmp_path).read_bytes() == b""  # refused by the decoder


def test_names_of_brushes_are_escaped_and_water_is_the_background():
    html = pad_html([Brush("<b>", (1, 2, 3)), Brush("water", (0, 0, 255)), Brush("river", (0, 9, 9), True)], 64)
    assert "<b>" not in html
    assert 'data-paper="#0000ff"' in html
    assert html.count("aria-pressed") == 3
    assert 'data-ink="#010203" data-size="3" style="--ink: #010203" aria-pressed="true"' in html
    assert 'data-ink="#000909" data-size="0"' in html


def test_the_earth_dataset_offers_a_thin_brush_for_each_contour():
    config = SimpleNamespace(networks=("a2b",), training=describe_colors("topo"))
    brushes = {brush.name: brush for brush in palette_brushes(config, None)}
    contours = [f"{level} m" for level in (100, 200, 300, 500, 750, 1000, 1500, 2000, 2500, 3000, 4000, 5000)]
    assert list(brushes) == ["land", "water", "lake", "rivers", *contours]
    assert [name for name, brush in brushes.items() if not brush.is_line] == ["land", "water", "lake"]
    brightness = [sum(brushes[name].color) for name in contours]
    assert brightness == sorted(set(brightness), reverse=True)
    html = pad_html(list(brushes.values()), 128)
    assert f'data-ink="{brushes["3000 m"].code}" data-size="0"' in html
    assert f'data-ink="{brushes["lake"].code}" data-size="6"' in html
