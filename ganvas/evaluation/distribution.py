"""How far the distribution of a set of generated images is from that of real ones, in a space of features.

The features are the caller's, [n, d] for n images: an Inception network's in the papers, a digit classifier's in
dcgan. Figures in different feature spaces, or of different n, cannot be compared.

    frechet_distance     Heusel et al. 2017: both sets as Gaussians; biased for small n
    kernel_distance      Bińkowski et al. 2018: unbiased, so that it can fall below 0 where the sets are alike
    precision_recall     Kynkäänniemi et al. 2019: are the images good, and are all kinds drawn?
    density_coverage     Naeem et al. 2020: the same questions, less misled by single odd images
"""

from collections.abc import Iterator

import torch
from torch import Tensor

# Of the largest squared length: equal images are at most so far apart by rounding (float64), and others farther.
TIE = 1e-12

_ROWS_AT_A_TIME = 1000  # bounds the memory for distances: 1000 x 10,000 in float64 are 80 MB


def frechet_distance(real: Tensor, fake: Tensor) -> float:
    """Fréchet distance between Gaussians of the means and covariances of two sets: |m - m'|² + tr(C + C' - 2 √(C C')).

    With C = RᵀR the trace of the root is the sum of the singular values of R R'ᵀ: never complex nor negative, and the
    root of a rounding error is never taken, so that fewer images than features are no trouble.

    Args:
        real: [n, d], n > 1.
        fake: [m, d], m > 1.

    Returns:
        0 or more, in squared units of the features.

    Raises:
        ValueError: The features do not fit, or there are too few images.

    Reference: Heusel et al. 2017, Eq. 6; Dowson and Landau 1982.
    """
    real, fake = _matched(real, fake, at_least=2)
    difference = real.mean(dim=0) - fake.mean(dim=0)
    first, second = _covariance_factor(real), _covariance_factor(fake)
    trace_of_root = torch.linalg.svdvals(first @ second.T).sum()
    distance = difference.square().sum() + first.square().sum() + second.square().sum() - 2 * trace_of_root
    return max(float(distance), 0.0)  # rounding


def _covariance_factor(features: Tensor) -> Tensor:
    """Give R, [min(n, d), d], with RᵀR = the covariance of [n, d]."""
    centred = features - features.mean(dim=0)
    return torch.linalg.qr(centred, mode="r").R / (len(features) - 1) ** 0.5


def kernel_distance(real: Tensor, fake: Tensor, *, subsets: int = 100, subset_size: int = 1000, seed: int = 0) -> float:
    """Unbiased squared maximum mean discrepancy with the kernel (x · y / d + 1)³, a mean over random subsets.

    Args:
        real: [n, d], n > 1.
        fake: [m, d], m > 1.
        subsets: How many pairs of subsets.
        subset_size: Images of each, 2 or more; no more are taken than there are.
        seed: Of the choice.

    Returns:
        About 0 where the sets are alike, and then below 0 as often as above.

    Raises:
        ValueError: The features do not fit, or there are too few images or subsets.

    Reference: Bińkowski et al. 2018, Sec. 4 (estimator: Gretton et al. 2012, Eq. 3).
    """
    real, fake = _matched(real, fake, at_least=2)
    if subsets < 1 or subset_size < 2:
        raise ValueError(f"subsets is {subsets} and subset_size {subset_size}; at least 1 and 2 are needed")
    size = min(subset_size, len(real), len(fake))
    if size == len(real) == len(fake):
        return _unbiased_mmd(real, fake)  # all subsets are the sets themselves
    chance = torch.Generator().manual_seed(seed)
    total = 0.0
    for _ in range(subsets):
        x, y = (each[torch.randperm(len(each), generator=chance)[:size]] for each in (real, fake))
        total += _unbiased_mmd(x, y)
    return total / subsets


def _unbiased_mmd(x: Tensor, y: Tensor) -> float:
    """Leave out the products of a image with itself: they are what biases the plain mean."""
    n, d = x.shape
    within = 0.0
    for each in (x, y):
        kernel = (each @ each.T / d + 1) ** 3  # [n, n]
        within += float(kernel.sum() - kernel.trace()) / (n * (n - 1))
    return within - 2 * float(((x @ y.T / d + 1) ** 3).mean())


def precision_recall(real: Tensor, fake: Tensor, k: int = 3) -> tuple[float, float]:
    """Share of generated images that lie among the real ones, and of real ones that lie among the generated.

    A image lies among others when it is in the ball around one of them that reaches to that one's k-th neighbor,
    its surface included.

    Args:
        real: [n, d], n > k.
        fake: [n, d]; as many, since the balls shrink with the number of images.
        k: Which neighbor.

    Returns:
        Precision and recall, each in [0, 1].

    Raises:
        ValueError: The sets differ in number or features, or there are too few.

    Reference: Kynkäänniemi et al. 2019, Sec. 2 (k = 3).
    """
    real, fake = _matched(real, fake, at_least=_fewest(k))
    if len(real) != len(fake):
        raise ValueError(f"real has {len(real)} images and fake {len(fake)}; they must be as many")
    real_radii, fake_radii = _squared_radii(real, k), _squared_radii(fake, k)
    fake_is_inside, real_is_inside = [], torch.zeros(len(real), dtype=torch.bool, device=real.device)
    for part, radii in zip(_squared_distances(fake, real), fake_radii.split(_ROWS_AT_A_TIME), strict=True):
        fake_is_inside.append((part <= real_radii).any(dim=1))
        real_is_inside |= (part <= radii[:, None]).any(dim=0)
    return _share(torch.cat(fake_is_inside)), _share(real_is_inside)


def density_coverage(real: Tensor, fake: Tensor, k: int = 5) -> tuple[float, float]:
    """How densely generated images lie among the real ones, and the share of real ones that have one near.

    Args:
        real: [n, d], n > k.
        fake: [m, d].
        k: Which neighbor a real image's ball reaches to.

    Returns:
        Density: balls of real images that a generated one lies in, divided by k: 1 is expected of real images, and
        more is possible. Coverage: the share of those balls that hold a generated image, in [0, 1].

    Raises:
        ValueError: The features do not fit, or there are too few.

    Reference: Naeem et al. 2020, Eqs. 6 and 7 (k = 5).
    """
    real, fake = _matched(real, fake, at_least=_fewest(k), fewest_fake=1)
    radii = _squared_radii(real, k)
    balls, covered = 0, torch.zeros(len(real), dtype=torch.bool, device=real.device)
    for part in _squared_distances(fake, real):
        inside = part <= radii  # [rows, n]
        balls += int(inside.sum())
        covered |= inside.any(dim=0)
    return balls / (k * len(fake)), _share(covered)


def _fewest(k: int) -> int:
    """Give how many images it takes for each to have a k-th neighbor."""
    if k < 1:
        raise ValueError(f"k is {k}; at least 1 is needed")
    return k + 1


def _share(chosen: Tensor) -> float:
    return float(chosen.double().mean())


def _squared_radii(points: Tensor, k: int) -> Tensor:
    """Give each point's squared distance to its k-th neighbor, [n], and so much more that rounding leaves none out.

    Without it, copies of one image, as a collapsed generator draws them, would lie in each other's balls or not as
    rounding has it: their radii are 0.
    """
    nearest = [part.topk(k + 1, dim=1, largest=False).values[:, -1] for part in _squared_distances(points, points)]
    return torch.cat(nearest) + TIE * points.square().sum(dim=1).max()  # the nearest of all is the point itself


def _squared_distances(rows: Tensor, columns: Tensor) -> Iterator[Tensor]:
    """Give the squared distances of all rows to all columns, some rows at a time."""
    squares = columns.square().sum(dim=1)
    for part in rows.split(_ROWS_AT_A_TIME):
        products = torch.addmm(squares, part, columns.T, alpha=-2)  # |y|² - 2 x·y
        yield products.add_(part.square().sum(dim=1, keepdim=True)).clamp_(min=0)


def _matched(real: Tensor, fake: Tensor, *, at_least: int, fewest_fake: int | None = None) -> tuple[Tensor, Tensor]:
    """Check two sets of features, and give them as float64."""
    if real.dim() != 2 or fake.dim() != 2 or real.shape[1] != fake.shape[1]:
        raise ValueError(f"real is {tuple(real.shape)} and fake {tuple(fake.shape)}; expected [n, d] and [m, d]")
    fewest = {"real": at_least, "fake": at_least if fewest_fake is None else fewest_fake}
    for name, features in (("real", real), ("fake", fake)):
        if len(features) < fewest[name]:
            raise ValueError(f"{name} has {len(features)} images; at least {fewest[name]} are needed")
        if not features.isfinite().all():
            raise ValueError(f"{name} has features that are not finite")
    return real.double(), fake.double()
