"""What is special to drawn digits: which classes, how varied, whether copied, how clean. Pure functions."""

import cv2
import numpy as np
import torch
from torch import Tensor

BRIGHT = 128  # of 255; half of a stroke's brightness
STRAY_PIXELS = 2  # a bright spot of no more pixels is no stroke
COPY_QUANTILE = 0.05
FEWEST_OF_A_CLASS = 2  # a distance needs two

_ROWS_AT_A_TIME = 500  # bounds the memory for distances: 500 x 60,000 in float32 are 120 MB
_MOST_OF_A_CLASS = 1000  # 500,000 pairs: their mean is then known to a fraction of a percent


def label_entropy(labels: Tensor, num_classes: int) -> float:
    """Entropy of the histogram of labels, in bits: log2 of the number of classes where it is even, 0 for one class.

    Args:
        labels: [n] int64, n > 0.
        num_classes: How many there could be.
    """
    shares = _shares(labels, num_classes)
    drawn = shares[shares > 0]
    return max(float(-(drawn * drawn.log2()).sum()), 0.0)


def class_coverage(labels: Tensor, num_classes: int, share: float = 0.02) -> int:
    """Count the classes that get at least ``share`` of all pictures.

    Args:
        labels: [n] int64, n > 0.
        num_classes: How many there could be.
        share: The least share that counts.
    """
    return int((_shares(labels, num_classes) >= share).sum())


def _shares(labels: Tensor, num_classes: int) -> Tensor:
    if not len(labels):
        raise ValueError("there are no labels")
    return torch.bincount(labels, minlength=num_classes).double() / len(labels)


def within_class_diversity(real: Tensor, real_labels: Tensor, fake: Tensor, fake_labels: Tensor) -> float:
    """Mean distance between two pictures of a class, over that of real ones; a mean over the classes that are drawn.

    Args:
        real: Pictures or features, [n, …].
        real_labels: [n] int64.
        fake: [m, …].
        fake_labels: [m] int64.

    Returns:
        1 where drawn pictures of a class differ as much as real ones, 0 where each class is one picture; nan where no
        class has two pictures in both sets.
    """
    ratios = []
    for label in fake_labels.unique():
        drawn, wanted = fake[fake_labels == label], real[real_labels == label]
        if min(len(drawn), len(wanted)) >= FEWEST_OF_A_CLASS:
            ratios.append(_mean_distance(drawn) / _mean_distance(wanted))
    return float(np.mean(ratios)) if ratios else float("nan")


def _mean_distance(pictures: Tensor) -> float:
    """Give the mean distance of all pairs; of many pictures, those that come first."""
    return float(torch.pdist(pictures[:_MOST_OF_A_CLASS].flatten(1).float()).mean())


def near_copies(train: Tensor, test: Tensor, fake: Tensor) -> float:
    """Share of drawn pictures that lie nearer to a training picture than all but 5% of the test pictures do.

    A model that has learned nothing by heart has about 0.05; one whose pictures are all far from any digit has less.

    Args:
        train: [n, C, S, S] uint8.
        test: [m, C, S, S] uint8; real pictures that were not trained on.
        fake: [k, C, S, S] uint8.
    """
    threshold = torch.quantile(_nearest(test, train), COPY_QUANTILE)
    return float((_nearest(fake, train) < threshold).double().mean())


def _nearest(pictures: Tensor, others: Tensor) -> Tensor:
    """Give each picture's distance to the nearest of the others, [n]."""
    # Distances are whole squares below 2**24 for 28 gray pixels, and rounding is far below any threshold beyond.
    columns = others.flatten(1).float()  # [m, D]
    squares = columns.square().sum(dim=1)
    nearest = []
    for part in pictures.split(_ROWS_AT_A_TIME):
        rows = part.flatten(1).float()
        smallest = torch.addmm(squares, rows, columns.T, alpha=-2).min(dim=1).values  # |y|² - 2 x·y
        nearest.append((smallest + rows.square().sum(dim=1)).clamp(min=0).sqrt())
    return torch.cat(nearest)


def speckle(pictures: Tensor) -> float:
    """Mean number of stray bright pixels a picture: in bright spots of one or two pixels, counting diagonal neighbours.

    Real strokes are wider; a generator without convolutions leaves such spots beside them. Divide by the figure of
    real pictures.

    Args:
        pictures: [n, C, S, S] uint8; of colours the brightest counts.
    """
    stray = 0
    for picture in (pictures.amax(dim=1) >= BRIGHT).numpy().astype(np.uint8):
        _, _, stats, _ = cv2.connectedComponentsWithStats(picture, connectivity=8)
        areas = stats[1:, cv2.CC_STAT_AREA]  # the first is the background
        stray += int(areas[areas <= STRAY_PIXELS].sum())
    return stray / len(pictures)


def checkerboard_energy(pictures: Tensor) -> float:
    """Share of the pictures' spectral energy at the finest frequencies, where stride-2 layers leave their pattern.

    Those are the frequencies within one step of (0, π), (π, 0) and (π, π) of the discrete Fourier transform; the mean
    brightness does not count. Real strokes have some energy there, too: compare with their figure.

    Args:
        pictures: [n, C, S, S] uint8, S even.

    Returns:
        In [0, 1]; 0 for flat pictures.
    """
    x = pictures.double() / 255
    energy = torch.fft.fft2(x).abs().square().mean(dim=(0, 1))  # [S, S]
    energy[0, 0] = 0
    S = energy.shape[0]
    near_zero = torch.tensor([0, 1, S - 1])
    near_pi = torch.tensor([S // 2 - 1, S // 2, S // 2 + 1])
    mask = torch.zeros_like(energy, dtype=torch.bool)
    for rows, columns in ((near_zero, near_pi), (near_pi, near_zero), (near_pi, near_pi)):
        mask[rows[:, None], columns] = True
    total = float(energy.sum())
    return float(energy[mask].sum()) / total if total else 0.0
