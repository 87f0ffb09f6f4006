"""``python -m data_scripts edges DIR --out OUT``: pairs of edges and photographs, made of any folder of photographs.

A shows the edges as black lines on white; B is the photograph. pix2pix's own sets have edges by a trained detector
(HED), which leaves out texture; Canny's, which need no network, do so with higher thresholds and more blur.

Reference:
    Canny 1986, "A computational approach to edge detection".
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro
from annotated_types import Gt, Interval

from data_scripts.tools.photos import Recipe, Share, write_pairs
from ganvas.errors import UserError
from ganvas.options import validate

if TYPE_CHECKING:
    import numpy as np

Threshold = Annotated[float, Gt(0)]


@dataclass(frozen=True)
class EdgeOptions:
    """Make pairs: the edges of a photograph, and the photograph; scale large ones down before, for edges are thin."""

    photos: tyro.conf.Positional[Path]
    """Folder of photographs, with subfolders if any."""
    out: Path
    """Folder to write, a dataset of pairs."""
    low: Threshold = 100.0
    """An edge goes on while the gradient is above this, of 8-bit values; lower gives longer edges."""
    high: Threshold = 200.0
    """An edge begins where the gradient is above this; lower gives more edges."""
    blur: Annotated[float, Interval(ge=0, le=100)] = 1.0
    """Standard deviation in pixels of the blur before, which takes away noise and texture; 0 for none."""
    val: Share = 0.05
    """Share of the photographs that is held out for validation, by a hash of the name."""
    test: Share = 0.05
    """Share that is held out to the end."""
    overwrite: bool = False
    """Replace all images in the folder."""


def main(argv: Sequence[str]) -> int:
    """Make pairs; give the exit code.

    Raises:
        UserError: Thresholds in the wrong order; or as `data_scripts.tools.photos.write_pairs`.
    """
    options = validate(
        tyro.cli(
            EdgeOptions, prog="python -m data_scripts edges", args=list(argv), config=(tyro.conf.FlagCreatePairsOff,)
        )
    )
    if options.low > options.high:
        raise UserError(f"--low is {options.low} and --high {options.high}; the low threshold is the lower one.")
    recipe = Recipe(
        partial(draw_edges, low=options.low, high=options.high, blur=options.blur),
        ("edges", "photo"),
        "they have no edges; lower --high or --blur",
        settings={"source": "Canny's edges", "low": options.low, "high": options.high, "blur": options.blur},
    )
    write_pairs(options.photos, options.out, recipe, val=options.val, test=options.test, overwrite=options.overwrite)
    return 0


def draw_edges(photo: np.ndarray, *, low: float, high: float, blur: float) -> np.ndarray | None:
    """Draw a photograph's edges: [H, W, 1] uint8, 0 on 255; None where there are none.

    Args:
        photo: [H, W, C] uint8, uint16, or float32 in [0, 1].
        low: Threshold of the gradient along an edge, of 8-bit values.
        high: Threshold of the gradient where an edge begins.
        blur: Standard deviation of the blur before, in pixels.

    Raises:
        UserError: There are floats beyond [0, 1], for which the thresholds have no meaning.
    """
    import cv2

    from ganvas.data.arrays import TOLERANCE
    from ganvas.data.tensors import to_display

    if photo.dtype == "float32" and not (photo.min() >= -TOLERANCE and photo.max() <= 1 + TOLERANCE):
        raise UserError(
            f"has values from {photo.min():g} to {photo.max():g}; edges are looked for in floats from 0 to 1. Scale "
            "the values first."
        )
    gray = cv2.cvtColor(to_display(photo), cv2.COLOR_RGB2GRAY)
    if blur:
        gray = cv2.GaussianBlur(gray, (0, 0), blur)
    edges = cv2.Canny(gray, low, high, L2gradient=True)
    return 255 - edges[:, :, None] if edges.any() else None
