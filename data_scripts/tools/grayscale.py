"""``python -m data_scripts grayscale DIR --out OUT``: pairs for colorization, from a folder of photographs.

A is the photograph's luminance (ITU-R BT.601), one channel of the same depth; B is the photograph.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import tyro

from data_scripts.arguments import parse_arguments
from data_scripts.tools.photos import Fraction, Recipe, write_pairs

if TYPE_CHECKING:
    import numpy as np


@dataclass(frozen=True)
class GrayscaleOptions:
    """Make pairs for colorization: a grayscale version and the photograph."""

    photos: tyro.conf.Positional[Path]
    """Folder of photographs and subfolders."""
    out: Path
    """Folder to write, a dataset of pairs."""
    val: Fraction = 0.05
    """Fraction of the photographs for validation, chosen by a hash of the name."""
    test: Fraction = 0.05
    """Fraction of the photographs for testing."""
    overwrite: bool = False
    """Replace all images in the output folder."""


def main(argv: Sequence[str]) -> int:
    """Run ``python -m data_scripts grayscale`` and return the exit code.

    Raises:
        UserError: See `write_pairs`.
    """
    options = parse_arguments("grayscale", GrayscaleOptions, argv)
    recipe = Recipe(luminance, ("gray", "color"), "they have no color", settings={"source": "luminance, ITU-R BT.601"})
    write_pairs(options.photos, options.out, recipe, val=options.val, test=options.test, overwrite=options.overwrite)
    return 0


def luminance(photo: np.ndarray) -> np.ndarray | None:
    """Compute [H, W, 1] from [H, W, 3], of the same dtype; None for a photograph without color."""
    import cv2

    if photo.shape[2] == 1 or (photo == photo[:, :, :1]).all():
        return None
    return cv2.cvtColor(photo, cv2.COLOR_RGB2GRAY)[:, :, None]
