"""Metrics of drawn digits: classes, diversity, near-copies, speckle. Pure functions."""

import torch
import torch.nn.functional as F
from torch import Tensor

BRIGHT = 128  # of 255; half of a stroke's brightness
COPY_QUANTILE = 0.05

_ROWS_AT_A_TIME = 500  # bounds the memory for distances: 500 x 60,000 in float32 are 120 MB
_IMAGES_AT_A_TIME = 1000
_MAX_PAIRED = 1000  # images of a class: the mean of 500,000 pairs is accurate to a fraction of a percent


def label_entropy(labels: Tensor, num_classes: int) -> float:
    """Return the entropy of the histogram of labels in bits: log2 of the number of classes if uniform, 0 for one class.

    Args:
        labels: [n] int64, n > 0.
        num_classes: Number of possible classes.

    Raises:
        ValueError: There are no labels, or a label is out of range.

    Example:
        >>> label_entropy(torch.tensor([0, 1, 2, 3]), num_classes=10)
        2.0
    """
    shares = _shares(labels, num_classes)
    drawn = shares[shares > 0]
    return max(float(-(drawn * drawn.log2()).sum()), 0.0)


def class_coverage(labels: Tensor, num_classes: int, share: float = 0.02) -> int:
    """Count the classes that get at least ``share`` of all images.

    Args:
        labels: [n] int64, n > 0.
        num_classes: Number of possible classes.
        share: Minimum share of a class.

    Raises:
        ValueError: There are no labels, or a label is out of range.
    """
    return int((_shares(labels, num_classes) >= share).sum())


def _shares(labels: Tensor, num_classes: int) -> Tensor:
    if not len(labels):
        raise ValueError("there are no labels")
    if not 0 <= int(labels.min()) <= int(labels.max()) < num_classes:
        raise ValueError(f"labels are {int(labels.min())} to {int(labels.max())}; allowed are 0 to {num_classes - 1}")
    return torch.bincount(labels, minlength=num_classes).double() / len(labels)


def within_class_diversity(real: Tensor, real_labels: Tensor, fake: Tensor, fake_labels: Tensor) -> float:
    """Return the mean distance between images of a class relative to that of real ones, averaged over drawn classes.

    Classes are weighted by their number of drawn images, so that a few misclassified images of a collapsed generator
    have little weight.

    Args:
        real: Images or features, [n, …].
        real_labels: [n] int64.
        fake: [m, …].
        fake_labels: [m] int64.

    Returns:
        1 if drawn images of a class differ as much as real ones, 0 if each class is a single image; nan if no class
        has two images in both sets, and different ones in the real set.

    Raises:
        ValueError: The numbers of images and labels differ.
    """
    for name, images, labels in (("real", real, real_labels), ("fake", fake, fake_labels)):
        if len(images) != len(labels):
            raise ValueError(f"{name} has {len(images)} images and {len(labels)} labels")
    total, weight = 0.0, 0
    for label in fake_labels.unique():
        drawn, wanted = fake[fake_labels == label], real[real_labels == label]
        if min(len(drawn), len(wanted)) > 1 and (scale := _mean_distance(wanted)):
            total += len(drawn) * _mean_distance(drawn) / scale
            weight += len(drawn)
    return total / weight if weight else float("nan")


def _mean_distance(images: Tensor) -> float:
    """Return the mean distance of all pairs, of the first images if there are many."""
    return float(torch.pdist(images[:_MAX_PAIRED].flatten(1).float()).mean())


def near_copies(
    train: Tensor, test: Tensor, fake: Tensor, *, test_labels: Tensor | None = None, fake_labels: Tensor | None = None
) -> float:
    """Return the share of drawn images that are as near to a training image as the nearest 5% of the test images.

    Real images have about 0.05. Distances are in pixel space, where simple shapes are near to one another: the nearest
    5% of MNIST are all ones. With labels, a drawn image is compared with the nearest 5% of its own class.

    Args:
        train: [n, C, S, S] uint8.
        test: [m, C, S, S] uint8; real images outside of the training set.
        fake: [k, C, S, S] uint8.
        test_labels: [m] int64.
        fake_labels: [k] int64, the classes of the drawn images by a classifier.

    Raises:
        ValueError: A set is empty, the sizes differ, or only one of the labels is given.
    """
    if not (len(train) and len(test) and len(fake)) or not train.shape[1:] == test.shape[1:] == fake.shape[1:]:
        shapes = ", ".join(str(tuple(each.shape)) for each in (train, test, fake))
        raise ValueError(f"train, test and fake are {shapes}; expected images of one size, at least one in each")
    if (test_labels is None) != (fake_labels is None):
        raise ValueError("test_labels and fake_labels go together")
    of_test = _nearest(test, train)
    of_fake = of_test if fake is test else _nearest(fake, train)
    thresholds = torch.quantile(of_test, COPY_QUANTILE).expand(len(fake)).clone()
    if test_labels is not None and fake_labels is not None:
        for label in test_labels.unique():
            thresholds[fake_labels == label] = torch.quantile(of_test[test_labels == label], COPY_QUANTILE)
    return float((of_fake <= thresholds).double().mean())


def _nearest(images: Tensor, others: Tensor) -> Tensor:
    """Return each image's distance to the nearest of the others, [n].

    The search is in float32, whose rounding may choose another image that is as near; the distance to it is exact.
    """
    columns = others.flatten(1).float()  # [m, D]
    squares = columns.square().sum(dim=1)
    nearest = []
    for part in images.split(_ROWS_AT_A_TIME):
        rows = part.flatten(1).float()
        found = torch.addmm(squares, rows, columns.T, alpha=-2).argmin(dim=1)  # |y|² - 2 x·y
        nearest.append((rows - columns[found]).double().square().sum(dim=1).sqrt())
    return torch.cat(nearest)


def speckle(images: Tensor) -> float:
    """Return the mean number of pixels per image in bright spots of one or two pixels, diagonal neighbors included.

    Real strokes are larger; generators without convolutions leave such spots. Divide by the value of all real images:
    0.02 for MNIST, where one image in a hundred has any.

    Args:
        images: [n, C, H, W] uint8, n > 0; the maximum of all channels counts.

    Raises:
        ValueError: There are no images.
    """
    _require_images(images)
    stray = 0
    for part in images.split(_IMAGES_AT_A_TIME):
        bright = (part.amax(dim=1, keepdim=True) >= BRIGHT).float()  # [N, 1, H, W]
        neighbors = bright * (F.conv2d(bright, bright.new_ones(1, 1, 3, 3), padding=1) - 1)
        # Alone, or with one neighbor that has no other: no pixel in the neighborhood has more than one neighbor.
        stray += int((bright * (F.max_pool2d(neighbors, 3, stride=1, padding=1) <= 1)).sum())
    return stray / len(images)


def _require_images(images: Tensor) -> None:
    if images.dim() != 4 or not len(images):
        raise ValueError(f"images are {tuple(images.shape)}; expected [n, C, H, W] with at least one")
