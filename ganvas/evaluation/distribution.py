"""How far the distribution of a set of generated pictures is from that of real ones, in a space of features.

The features are the caller's, [n, d] for n pictures: an Inception network's in the papers, a digit classifier's in
dcgan. Figures in different feature spaces, or of different n, cannot be compared.

    frechet_distance     Heusel et al. 2017: both sets as Gaussians; biased for small n
    kernel_distance      Bińkowski et al. 2018: unbiased, so that it can fall below 0 where the sets are alike
    precision_recall     Kynkäänniemi et al. 2019: are the pictures good, and are all kinds drawn?
    density_coverage     Naeem et al. 2020: the same questions, less misled by single odd pictures
"""

from collections.abc import Iterator

import torch
from torch import Tensor

_ROWS_AT_A_TIME = 1000  # bounds the memory for distances: 1000 x 10,000 in float64 are 80 MB


def frechet_distance(real: Tensor, fake: Tensor) -> float:
    """Fréchet distance between Gaussians of the means and covariances of two sets: |m - m'|² + tr(C + C' - 2 √(C C')).

    The trace of the root is taken from the eigenvalues of √C C' √C, which are real and not negative whatever the number
    of samples; rounding below 0 is cut off.

    Args:
        real: [n, d], n > 1.
        fake: [m, d], m > 1.

    Returns:
        0 or more, in squared units of the features.

    Raises:
        ValueError: The features do not fit, or there are too few pictures.

    Reference: Heusel et al. 2017, Eq. 6; Dowson and Landau 1982.
    """
    real, fake = _matched(real, fake, at_least=2)
    difference = real.mean(dim=0) - fake.mean(dim=0)
    first, second = _covariance(real), _covariance(fake)
    root = _root(first)
    trace_of_root = torch.linalg.eigvalsh(root @ second @ root).clamp(min=0).sqrt().sum()
    distance = difference @ difference + first.trace() + second.trace() - 2 * trace_of_root
    return max(float(distance), 0.0)


def _covariance(features: Tensor) -> Tensor:
    centred = features - features.mean(dim=0)
    return centred.T @ centred / (len(features) - 1)  # [d, d]


def _root(matrix: Tensor) -> Tensor:
    """Give the square root of a symmetric matrix without negative eigenvalues."""
    values, vectors = torch.linalg.eigh(matrix)
    return vectors * values.clamp(min=0).sqrt() @ vectors.T


def kernel_distance(real: Tensor, fake: Tensor, *, subsets: int = 100, subset_size: int = 1000, seed: int = 0) -> float:
    """Unbiased squared maximum mean discrepancy with the kernel (x · y / d + 1)³, a mean over random subsets.

    Args:
        real: [n, d], n > 1.
        fake: [m, d], m > 1.
        subsets: How many pairs of subsets.
        subset_size: Pictures of each; no more than there are.
        seed: Of the choice.

    Returns:
        About 0 where the sets are alike, and then below 0 as often as above.

    Raises:
        ValueError: The features do not fit, or there are too few pictures.

    Reference: Bińkowski et al. 2018, Sec. 4 (estimator: Gretton et al. 2012, Eq. 3).
    """
    real, fake = _matched(real, fake, at_least=2)
    size = min(subset_size, len(real), len(fake))
    chance = torch.Generator().manual_seed(seed)
    total = 0.0
    for _ in range(subsets):
        x, y = (each[torch.randperm(len(each), generator=chance)[:size]] for each in (real, fake))
        total += _unbiased_mmd(x, y)
    return total / subsets


def _unbiased_mmd(x: Tensor, y: Tensor) -> float:
    """Leave out the products of a picture with itself: they are what biases the plain mean."""
    n, d = x.shape
    within = 0.0
    for each in (x, y):
        kernel = (each @ each.T / d + 1) ** 3  # [n, n]
        within += float(kernel.sum() - kernel.trace()) / (n * (n - 1))
    return within - 2 * float(((x @ y.T / d + 1) ** 3).mean())


def precision_recall(real: Tensor, fake: Tensor, k: int = 3) -> tuple[float, float]:
    """Share of generated pictures that lie among the real ones, and of real ones that lie among the generated.

    A picture lies among others when it is in the ball around one of them that reaches to that one's k-th neighbour.

    Args:
        real: [n, d], n > k.
        fake: [n, d]; as many, since the balls shrink with the number of pictures.
        k: Which neighbour.

    Returns:
        Precision and recall, each in [0, 1].

    Raises:
        ValueError: The sets differ in number or features, or there are too few.

    Reference: Kynkäänniemi et al. 2019, Sec. 2 (k = 3).
    """
    real, fake = _matched(real, fake, at_least=k + 1)
    if len(real) != len(fake):
        raise ValueError(f"real has {len(real)} pictures and fake {len(fake)}; they must be as many")
    return _share_inside(fake, real, k), _share_inside(real, fake, k)


def _share_inside(points: Tensor, others: Tensor, k: int) -> float:
    """Give the share of points in at least one ball around the others."""
    radii = _radii(others, k)
    inside = [(distances <= radii).any(dim=1) for distances in _distances(points, others)]
    return float(torch.cat(inside).double().mean())


def density_coverage(real: Tensor, fake: Tensor, k: int = 5) -> tuple[float, float]:
    """How densely generated pictures lie among the real ones, and the share of real ones that have one near.

    Args:
        real: [n, d], n > k.
        fake: [m, d].
        k: Which neighbour a real picture's ball reaches to.

    Returns:
        Density: balls of real pictures that a generated one lies in, divided by k: 1 is expected of real pictures, and
        more is possible. Coverage: the share of those balls that hold a generated picture, in [0, 1].

    Raises:
        ValueError: The features do not fit, or there are too few.

    Reference: Naeem et al. 2020, Eqs. 6 and 7 (k = 5).
    """
    real, fake = _matched(real, fake, at_least=k + 1, fewest_fake=1)
    radii = _radii(real, k)
    balls, covered = 0, torch.zeros(len(real), dtype=torch.bool)
    for distances in _distances(fake, real):
        inside = distances <= radii  # [rows, n]
        balls += int(inside.sum())
        covered |= inside.any(dim=0)
    return balls / (k * len(fake)), float(covered.double().mean())


def _radii(points: Tensor, k: int) -> Tensor:
    """Give each point's distance to its k-th neighbour, [n]; the nearest of all is the point itself."""
    return torch.cat([distances.kthvalue(k + 1, dim=1).values for distances in _distances(points, points)])


def _distances(rows: Tensor, columns: Tensor) -> Iterator[Tensor]:
    """Give the distances of all rows to all columns, some rows at a time."""
    centre = columns.mean(dim=0)  # products of small numbers lose less
    columns = columns - centre
    squares = columns.square().sum(dim=1)
    for part in (rows - centre).split(_ROWS_AT_A_TIME):
        products = torch.addmm(squares, part, columns.T, alpha=-2)  # |y|² - 2 x·y
        yield (products + part.square().sum(dim=1, keepdim=True)).clamp(min=0).sqrt()


def _matched(real: Tensor, fake: Tensor, *, at_least: int, fewest_fake: int | None = None) -> tuple[Tensor, Tensor]:
    """Check two sets of features, and give them as float64."""
    if real.dim() != 2 or fake.dim() != 2 or real.shape[1] != fake.shape[1]:
        raise ValueError(f"real is {tuple(real.shape)} and fake {tuple(fake.shape)}; expected [n, d] and [m, d]")
    fewest = {"real": at_least, "fake": at_least if fewest_fake is None else fewest_fake}
    for name, features in (("real", real), ("fake", fake)):
        if len(features) < fewest[name]:
            raise ValueError(f"{name} has {len(features)} pictures; at least {fewest[name]} are needed")
    return real.double(), fake.double()
