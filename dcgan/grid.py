"""A grid of small images with a line between neighbors."""

import numpy as np
import torch.nn.functional as F
from torch import Tensor

GAP = 96  # gray value that differs from black and from white


def grid(images: Tensor, columns: int) -> np.ndarray:
    """Arrange [rows * columns, C, H, W] uint8 row by row: [rows * (H + 1) - 1, columns * (W + 1) - 1, C] uint8."""
    padded = F.pad(images, (0, 1, 0, 1), value=GAP).unflatten(0, (-1, columns))  # [rows, columns, C, H + 1, W + 1]
    sheet = padded.permute(0, 3, 1, 4, 2).flatten(2, 3).flatten(0, 1)  # [rows * (H + 1), columns * (W + 1), C]
    return sheet[:-1, :-1].cpu().numpy()
