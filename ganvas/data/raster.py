"""A decoded image together with what its file says about it."""

from dataclasses import dataclass

import numpy as np

from ganvas.data.arrays import Alpha
from ganvas.data.tiff_tags import Tags


@dataclass(frozen=True)
class Raster:
    """A decoded image.

    Attributes:
        array: [H, W, C] uint8, uint16 or float32.
        tags: Tags of a TIFF; of other formats, the ICC profile alone.
        nodata_mask: Pixels without data, [H, W] bool.
        alpha: Whether the array's last channel is alpha, and whether the others are multiplied by it.
        conversions: What was converted or left out: "transparency", "palette", "CMYK", "animation".
    """

    array: np.ndarray
    tags: Tags
    nodata_mask: np.ndarray
    alpha: Alpha = "none"
    conversions: tuple[str, ...] = ()

    @classmethod
    def from_array(cls, array: np.ndarray) -> "Raster":
        """Build a raster without tags and without pixels that lack data from [H, W, C]."""
        return cls(array, Tags(), np.zeros(array.shape[:2], dtype=bool))
