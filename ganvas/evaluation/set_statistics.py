"""Metrics of two sets of images: what they need of each set, collected image by image, and the comparison.

The memory for a set is that of its patches, which is bounded, and of one feature vector and a few numbers per image.
"""

import math
from collections.abc import Sequence

import numpy as np
from torch import Tensor

from ganvas.evaluation.detail import (
    OCTAVES,
    SMALLEST_GRADIENT,
    SMALLEST_SPECTRUM,
    gradient_magnitude,
    octave_energies,
    ratio,
)
from ganvas.evaluation.distribution import frechet_distance, kernel_distance
from ganvas.evaluation.feature_networks import FeatureVectors
from ganvas.evaluation.metric_set import KID_SUBSETS, MetricSet
from ganvas.evaluation.metrics import PatchSampler, patch_distance, resampled_means

Score = dict[str, float]
FEWEST_FOR_INTERVAL = 2  # images


class SetStatistics:
    """What metrics of sets need to know of a set of images, which are added one by one.

    Args:
        metrics: The metrics.
        count: Images in the set.
        num_patches: Patches at each level for the sliced Wasserstein distance, equal in sets that are compared; see
            `ganvas.evaluation.metrics.patch_count`.
    """

    def __init__(self, metrics: MetricSet, count: int, num_patches: int) -> None:
        self.metrics, self.count, self.num_patches = metrics, count, num_patches
        self.patches = PatchSampler(count, num_patches) if "swd" in metrics else None
        self.features = None if metrics.features is None else FeatureVectors(metrics.features)
        self.gradients: list[float] = []
        self.octaves: list[list[float]] = []  # [n, 2]
        self._smallest = math.inf
        self._sizes: set[tuple[int, ...]] = set()

    def add(self, image: Tensor) -> None:
        """Add an image [C, H, W] in [-1, 1]."""
        self._smallest = min(self._smallest, *image.shape[1:])
        self._sizes.add(tuple(image.shape[1:]))
        if self.patches is not None:
            self.patches.add(image[None])
        if self.features is not None:
            self.features.add(image)
        if "sharpness" in self.metrics and self._smallest >= SMALLEST_GRADIENT:
            self.gradients.append(gradient_magnitude(image[None]).item())
        if "spectrum" in self.metrics and self._smallest >= SMALLEST_SPECTRUM:
            self.octaves.append(octave_energies(image[None])[0].tolist())

    @property
    def size(self) -> str:
        """The size of the images so far, as WIDTHxHEIGHT."""
        return "several sizes" if len(self._sizes) > 1 else "".join(f"{W}x{H}" for H, W in self._sizes)

    @property
    def has_gradients(self) -> bool:
        """Whether all images were large enough for gradients."""
        return len(self.gradients) == self.count

    @property
    def has_octaves(self) -> bool:
        """Whether all images were large enough for a spectrum."""
        return len(self.octaves) == self.count


def compare_sets(
    output: SetStatistics, target: SetStatistics, *, are_pairs: bool = False, intervals: bool = True
) -> dict[str, Score]:
    """Compute all metrics of two sets whose images have all been added.

    Args:
        output: Statistics of the generated images.
        target: Statistics of the true images.
        are_pairs: Whether the n-th images of both sets belong together; intervals are then narrower.
        intervals: Whether to compute intervals, which takes most of the time for small images.

    Returns:
        By the key in results: "mean", which is the metric of the sets, and what belongs to it: "low" and "high", the
        ends of a 95% interval; "n", the images of the smaller set; KID's "subset_size"; the spectrum's octaves. A
        metric that the images do not allow is missing.
    """
    scores: dict[str, Score] = {}
    if output.patches is not None and target.patches is not None:
        distance = patch_distance(output.patches, target.patches)
        if distance is not None:
            scores["sliced_wasserstein"] = {"mean": distance.mean}
    if output.features is not None and target.features is not None:
        scores |= compare_features(output.features.vectors(), target.features.vectors(), target.metrics)
    if output.has_gradients and target.has_gradients:
        scores["sharpness"] = {"mean": ratio(output.gradients, target.gradients)}
        if intervals:
            scores["sharpness"] |= ratio_interval(output.gradients, target.gradients, are_pairs=are_pairs)
    if output.has_octaves and target.has_octaves:
        scores["spectrum"] = _octave_ratios(output, target)
        if intervals:
            sums = ([sum(row) for row in each.octaves] for each in (output, target))
            scores["spectrum"] |= ratio_interval(*sums, are_pairs=are_pairs)
    return {key: score for key, score in scores.items() if math.isfinite(score["mean"])}


def _octave_ratios(output: SetStatistics, target: SetStatistics) -> Score:
    """Return the ratio of the energy of both octaves together as "mean", and that of each."""
    both = {"mean": ratio([sum(row) for row in output.octaves], [sum(row) for row in target.octaves])}
    columns = zip(OCTAVES, zip(*output.octaves, strict=True), zip(*target.octaves, strict=True), strict=True)
    each = {name: ratio(drawn, true) for name, drawn, true in columns}
    return both | {name: value for name, value in each.items() if math.isfinite(value)}


def compare_features(output: Tensor, target: Tensor, metrics: MetricSet) -> dict[str, Score]:
    """Compute FID and KID, those that are asked for, between features [n, D] and [m, D]."""
    count = min(len(output), len(target))
    scores: dict[str, Score] = {}
    if "fid" in metrics:
        scores["fid"] = {"mean": frechet_distance(target, output), "n": count}
    if "kid" in metrics:
        size = metrics.subset_size(count)
        distance = kernel_distance(target, output, subsets=KID_SUBSETS, subset_size=size)
        scores["kid"] = {"mean": distance, "n": count, "subset_size": size}
    return scores


def ratio_interval(output: Sequence[float], target: Sequence[float], *, are_pairs: bool) -> Score:
    """Return the ends of the 95% bootstrap interval of a ratio of means over images, "low" and "high".

    Args:
        output: One value per image.
        target: The same of the true images.
        are_pairs: Whether they are drawn together.

    Returns:
        Empty for fewer than two images, or if the true ones have no value.
    """
    if min(len(output), len(target)) < FEWEST_FOR_INTERVAL or not math.isfinite(ratio(output, target)):
        return {}
    drawn = resampled_means(np.asarray(output), seed=0)
    truth = resampled_means(np.asarray(target), seed=0 if are_pairs else 1)
    ratios = drawn[truth > 0] / truth[truth > 0]  # a few flat images alone may have been drawn
    low, high = np.quantile(ratios, [0.025, 0.975])
    return {"low": float(low), "high": float(high)}
