"""How close images are to their targets, one by one and as a set.

`l1`, `psnr` and `ssim` compare each image with its own target; a flat or blurred image can do well in them.
`sliced_wasserstein` compares the patches of a whole set with those of another and catches exactly that.
`bootstrap_interval` says how far a mean over so many images can be trusted.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ganvas.nn.layers import reflect_pad

DATA_RANGE = 2.0  # of images in [-1, 1]
PSNR_LIMIT = 100.0  # dB
SSIM_WINDOW = 11  # pixels: the support of a Gaussian of 1.5 pixels (Wang et al. 2004, Sec. III-C)
PATCH_SIZE = 7  # pixels (Karras et al. 2018, Sec. 5)
COARSEST_SIZE = 16  # pixels: the pyramid ends before a side becomes shorter (ibid.)
LEAST_DEVIATION = 1 / 255  # half a step of an 8-bit image in [-1, 1]

_DIRECTIONS_AT_A_TIME = 32  # bounds the memory for sorted projections
_VALUES_AT_A_TIME = 4_000_000  # bounds the memory for resampled values


def l1(output: Tensor, target: Tensor) -> Tensor:
    """Mean absolute difference of each image.

    Args:
        output: Generated images, [N, C, H, W] in [-1, 1].
        target: True images, the same shape and range.

    Returns:
        [N] float32 in [0, 2]; 0 is equal.

    Raises:
        ValueError: The shapes differ or are not four-dimensional.
    """
    output, target = _matched(output, target)
    return (output - target).abs().mean(dim=(1, 2, 3))


def psnr(output: Tensor, target: Tensor) -> Tensor:
    """Peak signal-to-noise ratio of each image, for a peak of 2 (the range [-1, 1]).

    Our choice: no more than 100 dB, the value of equal images too, so that a mean over images stays finite. The
    smallest error that a 16-bit image can have everywhere is 96 dB.

    Args:
        output: Generated images, [N, C, H, W] in [-1, 1].
        target: True images, the same shape and range.

    Returns:
        [N] float32 in dB; higher is closer.

    Raises:
        ValueError: The shapes differ or are not four-dimensional.
    """
    from torchmetrics.functional.image import peak_signal_noise_ratio  # imports for seconds

    output, target = _matched(output, target)
    ratio = peak_signal_noise_ratio(output, target, data_range=DATA_RANGE, dim=(1, 2, 3), reduction="none")
    return ratio.clamp(max=PSNR_LIMIT)


def ssim(output: Tensor, target: Tensor) -> Tensor:
    """Structural similarity of each image, the mean over its pixels and channels.

    Gaussian window of 11x11 pixels and deviation 1.5, K1 = 0.01, K2 = 0.03, each channel on its own. Values are moved
    to [0, 1] first, since the luminance term has no meaning for negative ones (Eq. 6). The border is mirrored, so that
    every pixel counts. A side shorter than the window is first continued to 11 pixels by repeated mirroring: images of
    any size have a value, down to a single pixel, where only the luminance term is left.

    Args:
        output: Generated images, [N, C, H, W] in [-1, 1].
        target: True images, the same shape and range.

    Returns:
        [N] float32 in [-1, 1]; 1 is equal.

    Raises:
        ValueError: The shapes differ or are not four-dimensional.

    Reference: Wang et al. 2004, Sec. III-B and III-C.
    """
    from torchmetrics.functional.image import structural_similarity_index_measure

    output, target = _matched(output, target)
    H, W = output.shape[-2:]
    right, bottom = max(0, SSIM_WINDOW - W), max(0, SSIM_WINDOW - H)
    output, target = (reflect_pad((x + 1) / 2, 0, right, 0, bottom) for x in (output, target))
    similarity = structural_similarity_index_measure(output, target, data_range=1.0, reduction="none")
    assert isinstance(similarity, Tensor)  # a tuple only where full images are asked for
    return similarity


@dataclass(frozen=True)
class SlicedWasserstein:
    """Distance between the patches of two sets.

    Attributes:
        mean: Mean over the levels.
        levels: Distance by the level's size, "HEIGHTxWIDTH", from the finest to the coarsest.
    """

    mean: float
    levels: dict[str, float]


def sliced_wasserstein(
    output: Tensor, target: Tensor, *, seed: int = 0, patches_per_picture: int = 128, directions: int = 128
) -> SlicedWasserstein:
    """Sliced Wasserstein distance between the 7x7 patches of two sets, at each level of a Laplacian pyramid.

    The fine levels compare sharpness and texture, the coarsest one colors and large shapes. Images need not
    correspond, and the two sets may differ in number: equally many patches are drawn from both.

    The unit is the target's standard deviation at the level. Patches that are all of the target's mean color, at a
    level whose values are normally distributed, are sqrt(2 / pi) = 0.8 away from it.

    Departures from the paper:

    - Its code divides each set by that set's *own* deviation, which hides how strong a detail is: a blurred set,
      scaled up again, would look like a sharp one. Here the target's mean and deviation scale both. So all that is
      compared with one target is measured by one yardstick, and loss of contrast counts. In return, exchanging the
      sets also exchanges the yardstick; between sets of equal channel statistics the distance is symmetric.
    - A channel's deviation counts as half a step of an 8-bit image at least: a flat level must not turn rounding
      into distance.
    - The patches lie at the same places in both sets: between corresponding images that is less noise, and nothing
      at all between equal ones. The mean is not multiplied by 1000.
    - 128 directions instead of 512: our choice, for time; another seed changes the distance by about 1%.

    Args:
        output: Generated images, [N, C, H, W] in [-1, 1], both sides of 7 pixels or more.
        target: True images, [M, C, H, W] in [-1, 1].
        seed: Of the patches' places and of the directions.
        patches_per_picture: Patches a level from each image of the smaller set.
        directions: Directions that patches are projected on.

    Raises:
        ValueError: The shapes do not fit, a set is empty, or a image is smaller than a patch.

    Reference: Karras et al. 2018, Sec. 5; Rabin et al. 2011; Burt and Adelson 1983.
    """
    output, target = _comparable(output, target)
    count = patches_per_picture * min(len(output), len(target))
    levels = {}
    for level, (a, b) in enumerate(zip(_laplacian_pyramid(output), _laplacian_pyramid(target), strict=True)):
        rng = np.random.default_rng([seed, level])
        deviation, mean = torch.std_mean(b, dim=(0, 2, 3), correction=0, keepdim=True)  # [1, C, 1, 1] each
        deviation = deviation.clamp(min=LEAST_DEVIATION)
        top, left = rng.random((2, count))
        patches_a = _patches((a - mean) / deviation, top, left)
        patches_b = _patches((b - mean) / deviation, top, left)
        H, W = b.shape[-2:]
        levels[f"{H}x{W}"] = _sliced_distance(patches_a, patches_b, _unit_vectors(rng, directions, patches_a))
    return SlicedWasserstein(float(np.mean(list(levels.values()))), levels)


@dataclass(frozen=True)
class Interval:
    """A mean and the interval that holds the true one, at the level of confidence that was asked for."""

    mean: float
    low: float
    high: float


def bootstrap_interval(values: np.ndarray, *, level: float = 0.95, resamples: int = 10_000, seed: int = 0) -> Interval:
    """Percentile bootstrap interval of a mean over images.

    For two models on the same images, pass the differences: an interval that leaves out 0 tells them apart, even
    where the models' own intervals overlap.

    Args:
        values: [N] one value a image, or one difference a image; at least two, since one tells no spread.
        level: Confidence, between 0 and 1.
        resamples: Sets that are drawn with replacement.
        seed: Of the drawing.

    Raises:
        ValueError: There are fewer than two values, they are not finite or not one-dimensional, or ``level`` is out of
            range.

    Reference: Efron and Tibshirani 1993, Sec. 13.3.
    """
    values = np.asarray(values, dtype=np.float64)
    if values.ndim != 1 or values.size < 2 or not np.isfinite(values).all():
        raise ValueError(f"values have shape {values.shape}; expected [N], N at least 2, all of them finite")
    if not 0 < level < 1:
        raise ValueError(f"level is {level}; allowed are values between 0 and 1")
    rng = np.random.default_rng(seed)
    rows = max(1, _VALUES_AT_A_TIME // values.size)
    means = np.concatenate(
        [
            values[rng.integers(values.size, size=(min(rows, resamples - done), values.size))].mean(axis=1)
            for done in range(0, resamples, rows)
        ]
    )  # [resamples]
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(values.mean()), float(low), float(high))


def _matched(output: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Bring images and their targets to float32, after a look at their shapes: broadcasting would hide a mistake."""
    if output.ndim != 4 or output.shape != target.shape:
        raise ValueError(
            f"output is {tuple(output.shape)} and target is {tuple(target.shape)}; both must be the same [N, C, H, W]"
        )
    return output.float(), target.float()


def _comparable(output: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Bring two sets of images to float32, after a look at their shapes."""
    if output.ndim != 4 or output.shape[1:] != target.shape[1:] or not len(output) or not len(target):
        raise ValueError(
            f"output is {tuple(output.shape)} and target is {tuple(target.shape)}; "
            "they must be [N, C, H, W] and [M, C, H, W] with at least one image each"
        )
    if min(output.shape[-2:]) < PATCH_SIZE:
        raise ValueError(f"images are {tuple(output.shape[-2:])}; both sides must have {PATCH_SIZE} pixels or more")
    return output.float(), target.float()


def _laplacian_pyramid(x: Tensor) -> Iterator[Tensor]:
    """Split [N, C, H, W] into bands, each half as large as the one before; the last one is the blurred rest.

    Reference: Burt and Adelson 1983.
    """
    while min(x.shape[-2:]) >= 2 * COARSEST_SIZE:
        smaller = _blurred(x)[..., ::2, ::2]  # [N, C, ceil(H / 2), ceil(W / 2)]
        yield x - _enlarged(smaller, like=x)
        x = smaller
    yield x


def _enlarged(smaller: Tensor, like: Tensor) -> Tensor:
    """Fill every second row and column of the larger size by interpolation with the pyramid's own filter."""
    spread = torch.zeros_like(like)
    spread[..., ::2, ::2] = smaller
    return 4 * _blurred(spread)  # a quarter of the pixels carry a value


def _blurred(x: Tensor) -> Tensor:
    """Filter [N, C, H, W] by the binomial 1 4 6 4 1 along both sides; the border is mirrored."""
    x = F.pad(x, (2, 2, 2, 2), mode="reflect")  # [N, C, H + 4, W + 4]
    for side in (-2, -1):
        a, b, c, d, e = (x.narrow(side, shift, x.shape[side] - 4) for shift in range(5))
        x = (a + e + 4 * (b + d) + 6 * c) / 16
    return x


def _patches(x: Tensor, top: np.ndarray, left: np.ndarray) -> Tensor:
    """Cut patches from images [N, C, H, W], as evenly from each image as possible.

    Args:
        x: Images.
        top: [P] where patches begin, as a share in [0, 1) of the possible rows.
        left: The same for columns.

    Returns:
        [P, C * 7 * 7].
    """
    N, _, H, W = x.shape
    P = len(top)
    picture = torch.arange(P) * N // P
    row = torch.from_numpy((top * (H - PATCH_SIZE + 1)).astype(np.int64))
    column = torch.from_numpy((left * (W - PATCH_SIZE + 1)).astype(np.int64))
    every = x.unfold(2, PATCH_SIZE, 1).unfold(3, PATCH_SIZE, 1)  # a view, [N, C, H - 6, W - 6, 7, 7]
    return every[picture, :, row, column].flatten(1)  # [P, C, 7, 7] -> [P, C * 49]


def _unit_vectors(rng: np.random.Generator, count: int, like: Tensor) -> Tensor:
    """Draw ``count`` directions, evenly spread, in the space of the patches [P, K]: [count, K]."""
    vectors = torch.from_numpy(rng.standard_normal((count, like.shape[1]), dtype=np.float32))
    return F.normalize(vectors, dim=1).to(like.device)


def _sliced_distance(a: Tensor, b: Tensor, directions: Tensor) -> float:
    """Mean over directions [D, K] of the Wasserstein-1 distance between the projections of [P, K] and [P, K].

    On a line, and for equally many points, the best transport pairs them in order.
    """
    distances = [
        ((some @ a.T).sort(dim=1).values - (some @ b.T).sort(dim=1).values).abs().mean(dim=1)
        for some in directions.split(_DIRECTIONS_AT_A_TIME)
    ]
    return float(torch.cat(distances).mean())
