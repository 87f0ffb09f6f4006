"""``python -m data_scripts grayscale DIR --out OUT``: pairs for colourisation, made of any folder of photographs.

A is the photograph's luminance (ITU-R BT.601), one channel of the same depth; B is the photograph.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import tyro

from data_scripts.tools.photos import Recipe, Share, write_pairs
from ganvas.options import validate

if TYPE_CHECKING:
    import numpy as np


@dataclass(frozen=True)
class GrayscaleOptions:
    """Make pairs for colourisation: a gray image, and the photograph that it was made from."""

    photos: tyro.conf.Positional[Path]
    """Folder of photographs, with subfolders if any."""
    out: Path
    """Folder to write, a dataset of pairs."""
    val: Share = 0.05
    """Share of the photographs that is held out for validation, by a hash of the name."""
    test: Share = 0.05
    """Share that is held out to the end."""
    overwrite: bool = False
    """Replace all images in the folder."""


def main(argv: Sequence[str]) -> int:
    """Make pairs; give the exit code.

    Raises:
        UserError: As `data_scripts.tools.photos.write_pairs`.
    """
    options = validate(
        tyro.cli(
            GrayscaleOptions,
            prog="python -m data_scripts grayscale",
            args=list(argv),
            config=(tyro.conf.FlagCreatePairsOff,),
        )
    )
    recipe = Recipe(luminance, ("gray", "colour"), "they have no color", settings={"source": "luminance, ITU-R BT.601"})
    write_pairs(options.photos, options.out, recipe, val=options.val, test=options.test, overwrite=options.overwrite)
    return 0


def luminance(photo: np.ndarray) -> np.ndarray | None:
    """Make [H, W, 1] of [H, W, 3], in the same type; None of a photograph without color."""
    import cv2

    if photo.shape[2] == 1 or (photo == photo[:, :, :1]).all():
        return None
    return cv2.cvtColor(photo, cv2.COLOR_RGB2GRAY)[:, :, None]
