"""What is special to drawn digits: which classes, how varied, whether copied, how clean. Pure functions."""

import torch
import torch.nn.functional as F
from torch import Tensor

BRIGHT = 128  # of 255; half of a stroke's brightness
COPY_QUANTILE = 0.05
FEWEST_OF_A_CLASS = 2  # a distance needs two

_FLAT = 1e-20  # spectral energy a pixel that is rounding
_ROWS_AT_A_TIME = 500  # bounds the memory for distances: 500 x 60,000 in float32 are 120 MB
_PICTURES_AT_A_TIME = 1000
_MOST_OF_A_CLASS = 1000  # 500,000 pairs: their mean is then known to a fraction of a percent


def label_entropy(labels: Tensor, num_classes: int) -> float:
    """Entropy of the histogram of labels, in bits: log2 of the number of classes where it is even, 0 for one class.

    Args:
        labels: [n] int64, n > 0.
        num_classes: How many there could be.

    Raises:
        ValueError: There are no labels, or one is out of range.
    """
    shares = _shares(labels, num_classes)
    drawn = shares[shares > 0]
    return max(float(-(drawn * drawn.log2()).sum()), 0.0)


def class_coverage(labels: Tensor, num_classes: int, share: float = 0.02) -> int:
    """Count the classes that get at least ``share`` of all images.

    Args:
        labels: [n] int64, n > 0.
        num_classes: How many there could be.
        share: The least share that counts.

    Raises:
        ValueError: There are no labels, or one is out of range.
    """
    return int((_shares(labels, num_classes) >= share).sum())


def _shares(labels: Tensor, num_classes: int) -> Tensor:
    if not len(labels):
        raise ValueError("there are no labels")
    if not 0 <= int(labels.min()) <= int(labels.max()) < num_classes:
        raise ValueError(f"labels are {int(labels.min())} to {int(labels.max())}; allowed are 0 to {num_classes - 1}")
    return torch.bincount(labels, minlength=num_classes).double() / len(labels)


def within_class_diversity(real: Tensor, real_labels: Tensor, fake: Tensor, fake_labels: Tensor) -> float:
    """Mean distance between two images of a class, over that of real ones; a mean over the classes that are drawn.

    Each class weighs as many drawn images as it has: a collapsed generator's few images that a classifier takes for
    something else must not outvote the rest.

    Args:
        real: Images or features, [n, …].
        real_labels: [n] int64.
        fake: [m, …].
        fake_labels: [m] int64.

    Returns:
        1 where drawn images of a class differ as much as real ones, 0 where each class is one image; nan where no
        class has two images in both sets that differ in the real one.

    Raises:
        ValueError: There are not as many labels as images.
    """
    for name, pictures, labels in (("real", real, real_labels), ("fake", fake, fake_labels)):
        if len(pictures) != len(labels):
            raise ValueError(f"{name} has {len(pictures)} images and {len(labels)} labels")
    total, weight = 0.0, 0
    for label in fake_labels.unique():
        drawn, wanted = fake[fake_labels == label], real[real_labels == label]
        if min(len(drawn), len(wanted)) >= FEWEST_OF_A_CLASS and (scale := _mean_distance(wanted)):
            total += len(drawn) * _mean_distance(drawn) / scale
            weight += len(drawn)
    return total / weight if weight else float("nan")


def _mean_distance(pictures: Tensor) -> float:
    """Give the mean distance of all pairs; of many images, those that come first."""
    return float(torch.pdist(pictures[:_MOST_OF_A_CLASS].flatten(1).float()).mean())


def near_copies(
    train: Tensor, test: Tensor, fake: Tensor, *, test_labels: Tensor | None = None, fake_labels: Tensor | None = None
) -> float:
    """Share of drawn images that lie as near to a training image as the nearest 5% of the test images do.

    Real images have about 0.05. Distances are of pixels, and plain shapes lie near to one another: of MNIST's nearest
    5% all are ones. So, given labels, a drawn image is held against the nearest 5% of its own class.

    Args:
        train: [n, C, S, S] uint8.
        test: [m, C, S, S] uint8; real images that were not trained on.
        fake: [k, C, S, S] uint8.
        test_labels: [m] int64.
        fake_labels: [k] int64, the classes that are seen in the drawn images.

    Raises:
        ValueError: A set is empty, the sizes differ, or labels are given for one set alone.
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


def _nearest(pictures: Tensor, others: Tensor) -> Tensor:
    """Give each image's distance to the nearest of the others, [n].

    The search is in float32, whose rounding may take another image that is as near; the distance to it is exact.
    """
    columns = others.flatten(1).float()  # [m, D]
    squares = columns.square().sum(dim=1)
    nearest = []
    for part in pictures.split(_ROWS_AT_A_TIME):
        rows = part.flatten(1).float()
        found = torch.addmm(squares, rows, columns.T, alpha=-2).argmin(dim=1)  # |y|² - 2 x·y
        nearest.append((rows - columns[found]).double().square().sum(dim=1).sqrt())
    return torch.cat(nearest)


def speckle(pictures: Tensor) -> float:
    """Mean number of stray bright pixels a image: in bright spots of one or two pixels, counting diagonal neighbors.

    Real strokes are larger; a generator without convolutions leaves such spots beside them. Divide by the figure of
    as many real images as there are: 0.02 for MNIST, where one image in a hundred has any, so few say little.

    Args:
        images: [n, C, H, W] uint8, n > 0; of colors the brightest counts.

    Raises:
        ValueError: There are no images.
    """
    _require_pictures(pictures)
    stray = 0
    for part in pictures.split(_PICTURES_AT_A_TIME):
        bright = (part.amax(dim=1, keepdim=True) >= BRIGHT).float()  # [N, 1, H, W]
        neighbours = bright * (F.conv2d(bright, bright.new_ones(1, 1, 3, 3), padding=1) - 1)
        # Alone, or with one neighbor that has no other: then nothing around has more than one.
        stray += int((bright * (F.max_pool2d(neighbours, 3, stride=1, padding=1) <= 1)).sum())
    return stray / len(pictures)


def checkerboard_energy(pictures: Tensor) -> float:
    """Share of the images' spectral energy at the finest frequencies, where stride-2 layers leave their pattern.

    Those are the frequencies that are no farther than π / 8, along either axis, from (0, π), (π, 0) or (π, π); so they
    are the same whatever the size. The mean brightness of each image and channel does not count. Real strokes have
    some energy there, too: compare with their figure.

    Args:
        images: [n, C, H, W] uint8, n > 0.

    Returns:
        In [0, 1]; 0 for flat images.

    Raises:
        ValueError: There are no images.
    """
    _require_pictures(pictures)
    energy = torch.zeros(pictures.shape[-2:], dtype=torch.float64)  # [H, W]
    for part in pictures.split(_PICTURES_AT_A_TIME):
        x = part.double() / 255
        centred = x - x.mean(dim=(-2, -1), keepdim=True)
        energy += torch.fft.fft2(centred).abs().square().sum(dim=(0, 1)).cpu()
    (low_y, high_y), (low_x, high_x) = (_near_zero_and_pi(side) for side in energy.shape)
    fine = (low_y[:, None] & high_x) | (high_y[:, None] & low_x) | (high_y[:, None] & high_x)
    total = float(energy.sum())
    return float(energy[fine].sum()) / total if total > _FLAT * pictures.numel() else 0.0


def _near_zero_and_pi(side: int) -> tuple[Tensor, Tensor]:
    """Say of each of ``side`` frequencies, in the Fourier transform's order, whether it is within π / 8 of 0, of π.

    Frequency k is 2π k / side. In whole numbers, so that rounding does not decide.
    """
    k = torch.arange(side)
    k = torch.minimum(k, side - k)  # 0 to side // 2: frequencies beyond π are negative ones
    return 16 * k <= side, 16 * k >= 7 * side


def _require_pictures(pictures: Tensor) -> None:
    if pictures.dim() != 4 or not len(pictures):
        raise ValueError(f"images are {tuple(pictures.shape)}; expected [n, C, H, W] with at least one")
