"""Images drawn in the flat colors of a palette, one color a class, such as maps and labels.

Interpolation would mix two classes into a color that may mean a third, so such images are resized and rotated with
nearest neighbors by the augmentation strong, and by the tool resize.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from ganvas.errors import UserError
from ganvas.limits import MAX_COLORS
from ganvas.messages import quote

if TYPE_CHECKING:
    import numpy as np

Color = tuple[int, int, int]  # 8-bit red, green, blue

FLAT_FRACTION = 0.5  # of the pixels are exactly in the palette's colors; the rest may be lines and letters
STRIDE = 4  # rows and columns between the pixels that are compared


def parse_palette(info: Mapping[str, Any]) -> dict[str, Color]:
    """Return the "legend" of a dataset's description: the color of each class, by name; empty if it has none.

    Raises:
        UserError: The legend is not a mapping from names to colors.
    """
    legend = info.get("legend", {})
    if isinstance(legend, Mapping) and len(legend) > MAX_COLORS:
        raise UserError(f"dataset.json: the legend has {len(legend)} colors; at most {MAX_COLORS} are allowed.")
    if not isinstance(legend, Mapping) or not all(map(is_color, legend.values())):
        raise UserError(
            f"dataset.json: the legend is {quote(legend)}; expected [red, green, blue] with values from 0 to "
            "255 by name."
        )
    return {str(name): (red, green, blue) for name, (red, green, blue) in legend.items()}


def is_color(values: object) -> bool:
    """Return whether values are red, green and blue, 0 to 255 each."""
    return isinstance(values, list | tuple) and [type(v) is int and 0 <= v <= 255 for v in values] == [True] * 3


def is_flat(image: np.ndarray, palette: Iterable[Color]) -> bool:
    """Return whether [H, W, C] is drawn in the palette's colors, except for lines and letters."""
    if image.dtype != "uint8" or image.shape[2] != 3:
        return False
    sample = image[::STRIDE, ::STRIDE]
    return sum(float((sample == color).all(axis=2).mean()) for color in set(palette)) >= FLAT_FRACTION
