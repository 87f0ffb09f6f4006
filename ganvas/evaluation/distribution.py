"""Distances between the distributions of generated and real images in a feature space.

The caller extracts the features, [n, d] for n images, from an Inception network as in the papers or from another
classifier. Values from different feature spaces, or for different n, cannot be compared.

    frechet_distance     Heusel et al. 2017: both sets as Gaussians; biased for small n
    kernel_distance      Bińkowski et al. 2018: unbiased, so it can be negative for similar sets
    precision_recall     Kynkäänniemi et al. 2019: quality and diversity
    density_coverage     Naeem et al. 2020: the same, more robust to outliers
"""

from collections.abc import Iterator

import torch
from torch import Tensor

# Relative to the largest squared length: more than the distance of equal images by rounding in float64.
TIE = 1e-12

_ROWS_AT_A_TIME = 1000  # bounds the memory for distances: 1000 x 10,000 in float64 are 80 MB


def frechet_distance(real: Tensor, fake: Tensor) -> float:
    """Compute the Fréchet distance between Gaussians fitted to two sets: |m - m'|² + tr(C + C' - 2 √(C C')).

    With C = RᵀR the trace of the root is the sum of the singular values of R R'ᵀ. It is never complex or negative, and
    stays exact for fewer images than features.

    Args:
        real: [n, d], n > 1.
        fake: [m, d], m > 1.

    Returns:
        0 or more, in squared units of the features.

    Raises:
        ValueError: The shapes do not match, or there are too few images.

    Reference: Heusel et al. 2017, Eq. 6; Dowson and Landau 1982.

    Example:
        >>> features = torch.randn(100, 4)
        >>> round(frechet_distance(features, features + 1), 6)
        4.0
    """
    real, fake = _matched(real, fake, at_least=2)
    difference = real.mean(dim=0) - fake.mean(dim=0)
    first, second = _covariance_factor(real), _covariance_factor(fake)
    trace_of_root = torch.linalg.svdvals(first @ second.T).sum()
    distance = difference.square().sum() + first.square().sum() + second.square().sum() - 2 * trace_of_root
    return max(float(distance), 0.0)  # rounding


def _covariance_factor(features: Tensor) -> Tensor:
    """Return R, [min(n, d), d], with RᵀR = the covariance of [n, d]."""
    centered = features - features.mean(dim=0)
    return torch.linalg.qr(centered, mode="r").R / (len(features) - 1) ** 0.5


def kernel_distance(real: Tensor, fake: Tensor, *, subsets: int = 100, subset_size: int = 1000, seed: int = 0) -> float:
    """Compute the unbiased squared maximum mean discrepancy with the kernel (x · y / d + 1)³, averaged over subsets.

    Args:
        real: [n, d], n > 1.
        fake: [m, d], m > 1.
        subsets: Number of pairs of random subsets.
        subset_size: Images in each, 2 or more; at most the size of the smaller set.
        seed: Seed of the subsets.

    Returns:
        About 0 for equal distributions, where it is negative as often as positive.

    Raises:
        ValueError: The shapes do not match, or there are too few images or subsets.

    Reference: Bińkowski et al. 2018, Sec. 4 (estimator: Gretton et al. 2012, Eq. 3).
    """
    real, fake = _matched(real, fake, at_least=2)
    if subsets < 1 or subset_size < 2:
        raise ValueError(f"subsets is {subsets} and subset_size {subset_size}; at least 1 and 2 are needed")
    size = min(subset_size, len(real), len(fake))
    if size == len(real) == len(fake):
        return _unbiased_mmd(real, fake)  # all subsets are the sets themselves
    generator = torch.Generator().manual_seed(seed)
    total = 0.0
    for _ in range(subsets):
        x, y = (each[torch.randperm(len(each), generator=generator)[:size]] for each in (real, fake))
        total += _unbiased_mmd(x, y)
    return total / subsets


def kernel_bias(features: Tensor) -> float:
    """Compute what a set adds to the discrepancy of `kernel_distance` if products of an image with itself count.

    The sum of an unbiased discrepancy and both sets' bias is the squared distance of their mean embeddings, which is
    never negative.

    Args:
        features: [n, d], n > 1.

    Raises:
        ValueError: The shape does not match, or there are too few images.

    Reference: Gretton et al. 2012, Eqs. 3 and 5.
    """
    features, _ = _matched(features, features, at_least=2)
    n, d = features.shape
    kernel = (features @ features.T / d + 1) ** 3  # [n, n]
    within = float(kernel.sum() - kernel.trace()) / (n * (n - 1))
    return (float(kernel.trace()) / n - within) / n


def _unbiased_mmd(x: Tensor, y: Tensor) -> float:
    """Compute the squared discrepancy without the products of an image with itself, which bias the mean."""
    n, d = x.shape
    within = 0.0
    for each in (x, y):
        kernel = (each @ each.T / d + 1) ** 3  # [n, n]
        within += float(kernel.sum() - kernel.trace()) / (n * (n - 1))
    return within - 2 * float(((x @ y.T / d + 1) ** 3).mean())


def precision_recall(real: Tensor, fake: Tensor, k: int = 3) -> tuple[float, float]:
    """Compute the fraction of generated images among the real ones, and of real images among the generated ones.

    An image is among others if it lies in the closed ball around one of them that reaches to that one's k-th neighbor.

    Args:
        real: [n, d], n > k.
        fake: [n, d]; equally many, since the balls shrink with the number of images.
        k: Number of the neighbor that defines a ball's radius.

    Returns:
        Precision and recall, each in [0, 1].

    Raises:
        ValueError: The sets differ in size or features, or there are too few images.

    Reference: Kynkäänniemi et al. 2019, Sec. 2 (k = 3).
    """
    real, fake = _matched(real, fake, at_least=_fewest(k))
    if len(real) != len(fake):
        raise ValueError(f"real has {len(real)} images and fake {len(fake)}; they must be equally many")
    real_radii, fake_radii = _squared_radii(real, k), _squared_radii(fake, k)
    fake_is_inside, real_is_inside = [], torch.zeros(len(real), dtype=torch.bool, device=real.device)
    for part, radii in zip(_squared_distances(fake, real), fake_radii.split(_ROWS_AT_A_TIME), strict=True):
        fake_is_inside.append((part <= real_radii).any(dim=1))
        real_is_inside |= (part <= radii[:, None]).any(dim=0)
    return _fraction(torch.cat(fake_is_inside)), _fraction(real_is_inside)


def density_coverage(real: Tensor, fake: Tensor, k: int = 5) -> tuple[float, float]:
    """Compute how densely generated images lie among the real ones, and the fraction of real images with one nearby.

    Args:
        real: [n, d], n > k.
        fake: [m, d].
        k: Number of the neighbor that defines the radius of a real image's ball.

    Returns:
        Density: the mean number of real images' balls that a generated image lies in, divided by k; 1 is expected of
        real images, and more is possible. Coverage: the fraction of those balls with a generated image, in [0, 1].

    Raises:
        ValueError: The shapes do not match, or there are too few images.

    Reference: Naeem et al. 2020, Eqs. 6 and 7 (k = 5).
    """
    real, fake = _matched(real, fake, at_least=_fewest(k), fewest_fake=1)
    radii = _squared_radii(real, k)
    balls, covered = 0, torch.zeros(len(real), dtype=torch.bool, device=real.device)
    for part in _squared_distances(fake, real):
        inside = part <= radii  # [rows, n]
        balls += int(inside.sum())
        covered |= inside.any(dim=0)
    return balls / (k * len(fake)), _fraction(covered)


def _fewest(k: int) -> int:
    """Return the number of images needed for a k-th neighbor."""
    if k < 1:
        raise ValueError(f"k is {k}; at least 1 is needed")
    return k + 1


def _fraction(chosen: Tensor) -> float:
    return float(chosen.double().mean())


def _squared_radii(points: Tensor, k: int) -> Tensor:
    """Return each point's squared distance to its k-th neighbor, [n], enlarged by more than the rounding error.

    Copies of one image, as a collapsed generator draws them, have radius 0; otherwise rounding would decide whether
    they lie in each other's balls.
    """
    nearest = [part.topk(k + 1, dim=1, largest=False).values[:, -1] for part in _squared_distances(points, points)]
    return torch.cat(nearest) + TIE * points.square().sum(dim=1).max()  # the nearest is the point itself


def _squared_distances(rows: Tensor, columns: Tensor) -> Iterator[Tensor]:
    """Yield the squared distances of all rows to all columns, some rows at a time."""
    squares = columns.square().sum(dim=1)
    for part in rows.split(_ROWS_AT_A_TIME):
        products = torch.addmm(squares, part, columns.T, alpha=-2)  # |y|² - 2 x·y
        yield products.add_(part.square().sum(dim=1, keepdim=True)).clamp_(min=0)


def _matched(real: Tensor, fake: Tensor, *, at_least: int, fewest_fake: int | None = None) -> tuple[Tensor, Tensor]:
    """Check two sets of features and return them as float64."""
    if real.dim() != 2 or fake.dim() != 2 or real.shape[1] != fake.shape[1]:
        raise ValueError(f"real is {tuple(real.shape)} and fake {tuple(fake.shape)}; expected [n, d] and [m, d]")
    fewest = {"real": at_least, "fake": at_least if fewest_fake is None else fewest_fake}
    for name, features in (("real", real), ("fake", fake)):
        if len(features) < fewest[name]:
            raise ValueError(f"{name} has {len(features)} images; at least {fewest[name]} are needed")
        if not features.isfinite().all():
            raise ValueError(f"{name} has features that are not finite")
    return real.double(), fake.double()
