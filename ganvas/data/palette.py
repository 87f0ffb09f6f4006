"""Maps and labels in flat colors, one a class: a dataset's legend, and which images are drawn in its colors.

Interpolation would mix two classes into a color that may mean a third, so such images are scaled and turned by
taking nearest neighbors wherever a legend is heeded: by the augmentation strong, and by resize.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from ganvas.errors import UserError
from ganvas.limits import MAX_COLORS

if TYPE_CHECKING:
    import numpy as np

Color = tuple[int, int, int]  # 8-bit red, green, blue

FLAT_SHARE = 0.5  # of a image's pixels have colors of the legend, exactly: the rest may be lines and letters
LOOKED_AT = 4  # every fourth row and column tell that


def parse_palette(info: Mapping[str, Any]) -> dict[str, Color]:
    """Give the legend in a dataset's description, a color by the name of each class; empty where there is none.

    Args:
        info: The content of dataset.json.

    Raises:
        UserError: The legend is no colors by name.
    """
    legend = info.get("legend", {})
    if isinstance(legend, Mapping) and len(legend) > MAX_COLORS:
        raise UserError(f"dataset.json: the legend has {len(legend)} colors; at most {MAX_COLORS} are allowed.")
    if not isinstance(legend, Mapping) or not all(map(is_color, legend.values())):
        raise UserError(
            f"dataset.json: the legend is {legend!r}; expected [red, green, blue] with values from 0 to 255 by name."
        )
    return {str(name): (red, green, blue) for name, (red, green, blue) in legend.items()}


def is_color(values: object) -> bool:
    """Return whether values are red, green and blue, 0 to 255 each."""
    return isinstance(values, list | tuple) and [type(v) is int and 0 <= v <= 255 for v in values] == [True] * 3


def is_flat(picture: np.ndarray, colours: Iterable[Color]) -> bool:
    """Tell whether a image [H, W, C] is drawn in the legend's colors, with at most lines and letters beside them."""
    if picture.dtype != "uint8" or picture.shape[2] != 3:
        return False
    some = picture[::LOOKED_AT, ::LOOKED_AT]
    return sum(float((some == colour).all(axis=2).mean()) for colour in set(colours)) >= FLAT_SHARE
