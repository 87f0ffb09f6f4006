"""A tight grid of small images: no titles, a line between neighbors."""

import numpy as np
import torch
from torch import Tensor

GAP = 96  # gray that is told apart from black and from white


def grid(pictures: Tensor, columns: int, gap: int = 1) -> np.ndarray:
    """Lay images out row by row; what an incomplete last row leaves free stays gray.

    Args:
        images: [n, C, H, W] uint8.
        columns: Images in a row.
        gap: Gray pixels between neighbors.

    Returns:
        [rows * (H + gap) - gap, columns * (W + gap) - gap, C] uint8.

    Raises:
        ValueError: There are no images, they are of another shape or type, or there is no column.
    """
    if pictures.ndim != 4 or not len(pictures) or pictures.dtype != torch.uint8:
        raise ValueError(f"images are {list(pictures.shape)} {pictures.dtype}; expected [n, C, H, W] uint8, n >= 1")
    if columns < 1 or gap < 0:
        raise ValueError(f"columns is {columns} and gap {gap}; at least 1 and 0 are allowed")
    n, C, H, W = pictures.shape
    rows = -(-n // columns)
    sheet = np.full((rows * (H + gap) - gap, columns * (W + gap) - gap, C), GAP, dtype=np.uint8)
    for index, picture in enumerate(pictures.permute(0, 2, 3, 1).cpu().numpy()):  # [H, W, C] each
        top, left = index // columns * (H + gap), index % columns * (W + gap)
        sheet[top : top + H, left : left + W] = picture
    return sheet
