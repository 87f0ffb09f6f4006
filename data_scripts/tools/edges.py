"""``python -m data_scripts edges DIR --out OUT``: pairs of edges and photograph, from a folder of photographs.

A shows the edges as black lines on white; B is the photograph. pix2pix's own datasets have edges from a trained
detector (HED), which ignores texture; Canny's detector needs no weights, and ignores texture with higher thresholds and
more blur.

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

from data_scripts.arguments import parse_arguments
from data_scripts.tools.photos import Fraction, Recipe, write_pairs
from ganvas.errors import UserError

if TYPE_CHECKING:
    import numpy as np


@dataclass(frozen=True)
class EdgeOptions:
    """Make pairs of edges and photograph. Resize large photographs first: edges are one pixel wide."""

    photos: tyro.conf.Positional[Path]
    """Folder of photographs and subfolders."""
    out: Path
    """Folder to write, a dataset of pairs."""
    low: Annotated[float, Gt(0)] = 100.0
    """Gradient of 8-bit values above which an edge continues; lower gives longer edges."""
    high: Annotated[float, Gt(0)] = 200.0
    """Gradient above which an edge begins; lower gives more edges."""
    blur: Annotated[float, Interval(ge=0, le=100)] = 1.0
    """Standard deviation in pixels of a blur that first removes noise and texture; 0 for none."""
    val: Fraction = 0.05
    """Fraction of the photographs for validation, chosen by a hash of the name."""
    test: Fraction = 0.05
    """Fraction of the photographs for testing."""
    overwrite: bool = False
    """Replace all images in the output folder."""


def main(argv: Sequence[str]) -> int:
    """Run ``python -m data_scripts edges`` and return the exit code.

    Raises:
        UserError: The thresholds are in the wrong order; or see `write_pairs`.
    """
    options = parse_arguments("edges", EdgeOptions, argv)
    if options.low > options.high:
        raise UserError(f"--low is {options.low} and --high is {options.high}; expected --low below --high.")
    recipe = Recipe(
        partial(draw_edges, low=options.low, high=options.high, blur=options.blur),
        ("edges", "photo"),
        "they have no edges; lower --high or --blur",
        settings={"source": "Canny's edges", "low": options.low, "high": options.high, "blur": options.blur},
    )
    write_pairs(options.photos, options.out, recipe, val=options.val, test=options.test, overwrite=options.overwrite)
    return 0


def draw_edges(photo: np.ndarray, *, low: float, high: float, blur: float) -> np.ndarray | None:
    """Draw a photograph's edges: [H, W, 1] uint8, 0 on 255; None if there are none.

    Args:
        photo: [H, W, C] uint8, uint16, or float32 in [0, 1].
        low: Gradient of 8-bit values above which an edge continues.
        high: Gradient above which an edge begins.
        blur: Standard deviation of the blur before, in pixels.

    Raises:
        UserError: There are floats outside [0, 1], for which the thresholds have no meaning.
    """
    import cv2

    from ganvas.data.arrays import TOLERANCE
    from ganvas.data.tensors import to_display

    if photo.dtype == "float32" and not (photo.min() >= -TOLERANCE and photo.max() <= 1 + TOLERANCE):
        raise UserError(f"has values from {photo.min():g} to {photo.max():g}; expected floats from 0 to 1. Rescale it.")
    gray = cv2.cvtColor(to_display(photo), cv2.COLOR_RGB2GRAY)
    if blur:
        gray = cv2.GaussianBlur(gray, (0, 0), blur)
    edges = cv2.Canny(gray, low, high, L2gradient=True)
    return 255 - edges[:, :, None] if edges.any() else None
