"""Distances between images and their targets, and between the patches of two sets of images.

`l1`, `psnr` and `ssim` compare each image with its own target; flat or blurred images can score well. The sliced
Wasserstein distance compares the patches of two sets, which catches exactly that. `PatchSampler` collects the patches
while the images pass by, so that no set has to be held in memory.
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
MS_SSIM_SMALLEST = 176  # pixels a side: the fifth scale has 11, a window
PATCH_SIZE = 7  # pixels (Karras et al. 2018, Sec. 5)
PATCHES_PER_IMAGE = 128  # at each level (ibid.)
MAX_PATCHES = 2**17  # at each level, our choice: 1024 images of 128 patches; 77 MB of RGB
COARSEST_SIZE = 16  # pixels: the pyramid ends before a side becomes shorter (Karras et al. 2018, Sec. 5)
MIN_DEVIATION = 1 / 255  # half a step of an 8-bit image in [-1, 1]

_DIRECTIONS_AT_A_TIME = 32  # bounds the memory for sorted projections
_VALUES_AT_A_TIME = 4_000_000  # bounds the memory for resampled values


def l1(output: Tensor, target: Tensor) -> Tensor:
    """Compute the mean absolute difference of each image.

    Args:
        output: Generated images, [N, C, H, W] in [-1, 1].
        target: True images, the same shape and range.

    Returns:
        [N] float32 in [0, 2]; 0 for equal images.

    Raises:
        ValueError: The shapes differ or are not four-dimensional.

    Example:
        >>> l1(torch.zeros(2, 3, 8, 8), torch.full((2, 3, 8, 8), 0.5))
        tensor([0.5000, 0.5000])
    """
    output, target = _check_pairs(output, target)
    return (output - target).abs().mean(dim=(1, 2, 3))


def psnr(output: Tensor, target: Tensor) -> Tensor:
    """Compute the peak signal-to-noise ratio of each image, for a peak of 2 (the range [-1, 1]).

    Our choice: values are clipped to 100 dB, also for equal images, so that a mean over images stays finite. The
    smallest error that a 16-bit image can have in every pixel is 96 dB.

    Args:
        output: Generated images, [N, C, H, W] in [-1, 1].
        target: True images, the same shape and range.

    Returns:
        [N] float32 in dB; higher is closer.

    Raises:
        ValueError: The shapes differ or are not four-dimensional.

    Example:
        >>> psnr(torch.zeros(1, 3, 8, 8), torch.full((1, 3, 8, 8), 0.2))
        tensor([20.])
    """
    from torchmetrics.functional.image import peak_signal_noise_ratio  # takes seconds to import

    output, target = _check_pairs(output, target)
    ratio = peak_signal_noise_ratio(output, target, data_range=DATA_RANGE, dim=(1, 2, 3), reduction="none")
    return ratio.clamp(max=PSNR_LIMIT)


def ssim(output: Tensor, target: Tensor) -> Tensor:
    """Compute the structural similarity of each image, the mean over its pixels and channels.

    Gaussian window of 11x11 pixels and deviation 1.5, K1 = 0.01, K2 = 0.03, each channel on its own. Values are moved
    to [0, 1] first, since the luminance term is undefined for negative ones (Eq. 6). The border is mirrored, so that
    every pixel counts; a side shorter than the window is mirrored repeatedly up to 11 pixels, so that images of any
    size have a value.

    Args:
        output: Generated images, [N, C, H, W] in [-1, 1].
        target: True images, the same shape and range.

    Returns:
        [N] float32 in [-1, 1]; 1 for equal images.

    Raises:
        ValueError: The shapes differ or are not four-dimensional.

    Reference: Wang et al. 2004, Sec. III-B and III-C.

    Example:
        >>> ssim(torch.zeros(1, 3, 16, 16), torch.zeros(1, 3, 16, 16))
        tensor([1.])
    """
    from torchmetrics.functional.image import structural_similarity_index_measure

    output, target = _check_pairs(output, target)
    H, W = output.shape[-2:]
    right, bottom = max(0, SSIM_WINDOW - W), max(0, SSIM_WINDOW - H)
    output, target = (reflect_pad((x + 1) / 2, 0, right, 0, bottom) for x in (output, target))
    similarity = structural_similarity_index_measure(output, target, data_range=1.0, reduction="none")
    assert isinstance(similarity, Tensor)  # a tuple only where full images are asked for
    return similarity


def ms_ssim(output: Tensor, target: Tensor) -> Tensor:
    """Compute the multi-scale structural similarity of each image, over five scales that are halved by averaging.

    Window, constants and range as in `ssim`. The contrast terms leave out a border of half a window; the last scale's
    similarity, which includes the luminance, mirrors it. Means over pixels and channels below 0 count as 0.

    Args:
        output: Generated images, [N, C, H, W] in [-1, 1], both sides of 176 pixels or more.
        target: True images, the same shape and range.

    Returns:
        [N] float32 in [0, 1]; 1 for equal images.

    Raises:
        ValueError: The shapes differ or are not four-dimensional, or images are too small.

    Reference: Wang et al. 2003, Sec. 3 (exponents: Sec. 4.2).
    """
    from torchmetrics.functional.image import multiscale_structural_similarity_index_measure

    output, target = _check_pairs(output, target)
    if min(output.shape[-2:]) < MS_SSIM_SMALLEST:
        raise ValueError(f"images are {tuple(output.shape)}; both sides must have {MS_SSIM_SMALLEST} pixels or more")
    x, y = ((image + 1) / 2 for image in (output, target))
    return multiscale_structural_similarity_index_measure(x, y, data_range=1.0, reduction="none")


PAIRED_METRICS = {"l1": l1, "psnr": psnr, "ssim": ssim, "ms_ssim": ms_ssim}


class PatchSampler:
    """Collects 7x7 patches at each level of the Laplacian pyramid of a set of images, which are added one by one.

    Only patches and sums are kept. The patches are spread evenly over the images, at places that depend on the seed
    alone: samplers of two sets with the same number of patches take them from the same places.

    Args:
        num_images: Images in the set.
        num_patches: Patches to keep at each level, see `patch_count`.
        seed: Seed of the places.
    """

    def __init__(self, num_images: int, num_patches: int, seed: int = 0) -> None:
        self.num_images, self.num_patches, self.seed = num_images, num_patches, seed
        self.image_shape: tuple[int, ...] | None = None
        self.levels: list[_Level] = []
        self._next = 0
        self._are_equal = True

    @property
    def is_comparable(self) -> bool:
        """Whether the images so far are of one shape, with sides of at least 7 pixels."""
        return self.image_shape is not None and self._are_equal and min(self.image_shape[1:]) >= PATCH_SIZE

    def add(self, images: Tensor) -> None:
        """Sample the next images of the set.

        Args:
            images: [N, C, H, W] in [-1, 1].
        """
        shape = tuple(images.shape[1:])
        if self.image_shape is None:
            self.image_shape = shape
        self._are_equal &= shape == self.image_shape
        if not self.is_comparable:
            self.levels = []  # there will be no distance: free the memory
            return
        for number, band in enumerate(_laplacian_pyramid(images.float())):
            if number == len(self.levels):
                self.levels.append(_Level(band, self))
            self.levels[number].add(band, self._next)
        self._next += len(images)

    def places(self, level: int) -> tuple[np.ndarray, np.ndarray, np.random.Generator]:
        """Draw where the patches of a level begin, as fractions of the possible rows and columns: [P] each.

        The generator that drew them is returned, too; the directions of projection come from it.
        """
        rng = np.random.default_rng([self.seed, level])
        top, left = rng.random((2, self.num_patches))
        return top, left, rng


class _Level:
    """The patches of one level, and the sums from which its mean and deviation follow."""

    def __init__(self, band: Tensor, sampler: PatchSampler) -> None:
        _, C, H, W = band.shape
        P = sampler.num_patches
        top, left, _ = sampler.places(len(sampler.levels))
        self.size = f"{H}x{W}"
        self._row = torch.from_numpy((top * (H - PATCH_SIZE + 1)).astype(np.int64))
        self._column = torch.from_numpy((left * (W - PATCH_SIZE + 1)).astype(np.int64))
        self._image = torch.arange(P) * sampler.num_images // P  # ascending
        self.patches = band.new_empty(P, C, PATCH_SIZE, PATCH_SIZE)
        self._count = 0
        self._sum, self._squares = torch.zeros(2, C, dtype=torch.float64)

    def add(self, band: Tensor, first: int) -> None:
        """Add the band [N, C, H, W] of the images whose numbers begin with ``first``."""
        begin, end = torch.searchsorted(self._image, torch.tensor([first, first + len(band)])).tolist()
        windows = band.unfold(2, PATCH_SIZE, 1).unfold(3, PATCH_SIZE, 1)  # a view, [N, C, H - 6, W - 6, 7, 7]
        image, row, column = (x[begin:end] for x in (self._image - first, self._row, self._column))
        self.patches[begin:end] = windows[image, :, row, column]  # [P', C, 7, 7]
        self._count += band[:, 0].numel()
        self._sum += band.sum(dim=(0, 2, 3), dtype=torch.float64).cpu()
        self._squares += band.square().sum(dim=(0, 2, 3), dtype=torch.float64).cpu()

    def mean_and_deviation(self) -> tuple[Tensor, Tensor]:
        """Return the mean and the standard deviation of each channel, [C, 1, 1] float32 each."""
        mean = self._sum / self._count
        deviation = (self._squares / self._count - mean.square()).clamp(min=MIN_DEVIATION**2).sqrt()
        like = self.patches
        return mean.to(like)[:, None, None], deviation.to(like)[:, None, None]


@dataclass(frozen=True)
class SlicedWasserstein:
    """Distance between the patches of two sets.

    Attributes:
        mean: Mean over the levels.
        levels: Distance by the level's size, "HEIGHTxWIDTH", from the finest to the coarsest.
    """

    mean: float
    levels: dict[str, float]


def patch_count(num_outputs: int, num_targets: int, patches_per_image: int = PATCHES_PER_IMAGE) -> int:
    """Return how many patches at a level are compared between two sets of images."""
    return min(MAX_PATCHES, patches_per_image * min(num_outputs, num_targets))


def patch_distance(output: PatchSampler, target: PatchSampler, directions: int = 128) -> SlicedWasserstein | None:
    """Compute the distance of `sliced_wasserstein` between two sets whose images have been sampled.

    Args:
        output: Samples of the generated images.
        target: Samples of the true images, as many, with the same seed.
        directions: Directions that patches are projected on.

    Returns:
        None where the images differ in shape, or are smaller than a patch.
    """
    if not (output.is_comparable and target.is_comparable and output.image_shape == target.image_shape):
        return None
    levels = {}
    for number, (a, b) in enumerate(zip(output.levels, target.levels, strict=True)):
        mean, deviation = b.mean_and_deviation()
        _, _, rng = target.places(number)
        x, y = (((level.patches - mean) / deviation).flatten(1) for level in (a, b))  # [P, C * 49] each
        levels[b.size] = _sliced_distance(x, y, _unit_vectors(rng, directions, x))
    return SlicedWasserstein(float(np.mean(list(levels.values()))), levels)


def sliced_wasserstein(
    output: Tensor,
    target: Tensor,
    *,
    seed: int = 0,
    patches_per_image: int = PATCHES_PER_IMAGE,
    directions: int = 128,
) -> SlicedWasserstein:
    """Compute the sliced Wasserstein distance between the 7x7 patches of two sets, by level of a Laplacian pyramid.

    The fine levels compare sharpness and texture, the coarsest one colors and large shapes. Images need not
    correspond, and the two sets may differ in size: equally many patches are drawn from both. The unit is the target's
    standard deviation at the level; patches of the target's mean color alone are about sqrt(2 / pi) = 0.8 away.

    Departures from the paper:

    - The target's mean and deviation normalize both sets. The paper's code normalizes each set by its own, which hides
      a loss of contrast.
    - A channel's deviation is at least half a step of an 8-bit image: rounding in flat images is not a distance.
    - The patches lie at the same places in both sets, which lowers the noise between corresponding images. The mean
      is not multiplied by 1000.
    - 128 directions instead of 512: our choice, for time; another seed changes the distance by about 1%.
    - At most 2^17 patches at a level, which bounds the memory: sets of more than 1024 images give fewer each.

    Args:
        output: Generated images, [N, C, H, W] in [-1, 1], both sides of 7 pixels or more.
        target: True images, [M, C, H, W] in [-1, 1].
        seed: Seed of the patches' places and of the directions.
        patches_per_image: Patches at a level from each image of the smaller set.
        directions: Directions that patches are projected on.

    Raises:
        ValueError: The shapes do not fit, a set is empty, or an image is smaller than a patch.

    Reference: Karras et al. 2018, Sec. 5; Rabin et al. 2011; Burt and Adelson 1983.
    """
    if output.ndim != 4 or output.shape[1:] != target.shape[1:] or not len(output) or not len(target):
        raise ValueError(
            f"output is {tuple(output.shape)} and target is {tuple(target.shape)}; "
            "they must be [N, C, H, W] and [M, C, H, W] with at least one image each"
        )
    count = patch_count(len(output), len(target), patches_per_image)
    a, b = (PatchSampler(len(images), count, seed) for images in (output, target))
    a.add(output)
    b.add(target)
    distance = patch_distance(a, b, directions)
    if distance is None:
        raise ValueError(f"images are {tuple(output.shape[-2:])}; both sides must have {PATCH_SIZE} pixels or more")
    return distance


@dataclass(frozen=True)
class Interval:
    """A mean and its confidence interval."""

    mean: float
    low: float
    high: float


def bootstrap_interval(values: np.ndarray, *, level: float = 0.95, resamples: int = 10_000, seed: int = 0) -> Interval:
    """Compute the percentile bootstrap interval of a mean over images.

    To compare two models on the same images, pass the differences: an interval that excludes 0 separates them, even
    where the models' own intervals overlap.

    Args:
        values: [N] one value or one difference per image; at least two.
        level: Confidence, between 0 and 1.
        resamples: Sets drawn with replacement.
        seed: Seed of the drawing.

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
    means = resampled_means(values, resamples, seed)
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(values.mean()), float(low), float(high))


def resampled_means(values: np.ndarray, resamples: int = 10_000, seed: int = 0) -> np.ndarray:
    """Compute the means of sets that are drawn with replacement, [resamples].

    Args:
        values: [N] one value per image.
        resamples: Sets to draw.
        seed: Seed of the drawing. For arrays of one length, one seed draws the same images.
    """
    rng = np.random.default_rng(seed)
    rows = max(1, _VALUES_AT_A_TIME // values.size)
    return np.concatenate(
        [
            values[rng.integers(values.size, size=(min(rows, resamples - done), values.size))].mean(axis=1)
            for done in range(0, resamples, rows)
        ]
    )


def _check_pairs(output: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Check that shapes are equal, since broadcasting would hide a mistake, and return both as float32."""
    if output.ndim != 4 or output.shape != target.shape:
        raise ValueError(
            f"output is {tuple(output.shape)} and target is {tuple(target.shape)}; both must be the same [N, C, H, W]"
        )
    return output.float(), target.float()


def _laplacian_pyramid(x: Tensor) -> Iterator[Tensor]:
    """Split [N, C, H, W] into bands, each half as large as the one before; the last one is the blurred rest.

    Reference: Burt and Adelson 1983.
    """
    while min(x.shape[-2:]) >= 2 * COARSEST_SIZE:
        smaller = _blur(x)[..., ::2, ::2]  # [N, C, ceil(H / 2), ceil(W / 2)]
        yield x - _enlarge(smaller, like=x)
        x = smaller
    yield x


def _enlarge(smaller: Tensor, like: Tensor) -> Tensor:
    """Fill every second row and column of the larger size by interpolation with the pyramid's own filter."""
    spread = torch.zeros_like(like)
    spread[..., ::2, ::2] = smaller
    return 4 * _blur(spread)  # a quarter of the pixels carry a value


def _blur(x: Tensor) -> Tensor:
    """Filter [N, C, H, W] by the binomial 1 4 6 4 1 along both sides; the border is mirrored."""
    x = F.pad(x, (2, 2, 2, 2), mode="reflect")  # [N, C, H + 4, W + 4]
    for side in (-2, -1):
        a, b, c, d, e = (x.narrow(side, shift, x.shape[side] - 4) for shift in range(5))
        x = (a + e + 4 * (b + d) + 6 * c) / 16
    return x


def _unit_vectors(rng: np.random.Generator, count: int, like: Tensor) -> Tensor:
    """Draw ``count`` directions, evenly spread, in the space of the patches [P, K]: [count, K]."""
    vectors = torch.from_numpy(rng.standard_normal((count, like.shape[1]), dtype=np.float32))
    return F.normalize(vectors, dim=1).to(like.device)


def _sliced_distance(a: Tensor, b: Tensor, directions: Tensor) -> float:
    """Compute the mean over directions [D, K] of the Wasserstein-1 distance between projections of [P, K] and [P, K].

    On a line, and for equally many points, the best transport pairs them in order.
    """
    distances = [
        ((some @ a.T).sort(dim=1).values - (some @ b.T).sort(dim=1).values).abs().mean(dim=1)
        for some in directions.split(_DIRECTIONS_AT_A_TIME)
    ]
    return float(torch.cat(distances).mean())
