"""What the evaluations of all modules share: scores collected image by image, intervals, and the file in the run."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from torch import Tensor

from ganvas.evaluation.metrics import PAIRED_METRICS, PatchSampler, bootstrap_interval, patch_distance
from ganvas.json_files import write_json

EVALUATION = "evaluation.json"
FEWEST_FOR_INTERVAL = 2  # images
NO_INTERVAL = "No 95% intervals: one image says nothing about the spread."

Score = dict[str, float]


@dataclass(frozen=True)
class EvaluatedImage:
    """One image of an evaluation, for sheets and files.

    Attributes:
        index: Its number, from 0.
        count: How many there are.
        columns: Titles, and what a sheet shows under them, [C, H, W] in [-1, 1].
        file: Name and pixels [H, W, C] of the translation's file; None where translations are not written.
    """

    index: int
    count: int
    columns: Sequence[tuple[str, Tensor]]
    file: tuple[str, np.ndarray] | None = None


OnImage = Callable[[EvaluatedImage], None]


class PairedScores:
    """L1, PSNR and SSIM of images, added one by one with their targets; only numbers are kept.

    Attributes:
        values: One value per image, by metric.
    """

    def __init__(self) -> None:
        self.values: dict[str, list[float]] = {name: [] for name in PAIRED_METRICS}

    def add(self, output: Tensor, target: Tensor) -> None:
        """Score an image [C, H, W] in [-1, 1] against its target of the same shape."""
        for name, metric in PAIRED_METRICS.items():
            self.values[name].append(metric(output[None], target[None]).item())

    def summary(self) -> dict[str, Score]:
        """Return mean and interval by metric."""
        return {name: mean_and_interval(values) for name, values in self.values.items()}


def patch_score(name: str, output: PatchSampler, target: PatchSampler) -> dict[str, Score]:
    """Return the sliced Wasserstein distance under a name; nothing where the images do not allow it."""
    distance = patch_distance(output, target)
    return {} if distance is None else {name: {"mean": distance.mean}}


def mean_and_interval(values: Sequence[float] | np.ndarray) -> Score:
    """Return the mean of one value per image, and its 95% interval for two images or more.

    Args:
        values: [N], N at least 1.

    Returns:
        "mean", "low" and "high"; for one image only "mean".
    """
    values = np.asarray(values)
    if len(values) < FEWEST_FOR_INTERVAL:
        return {"mean": float(values.mean())}
    return vars(bootstrap_interval(values))


def format_score(score: Mapping[str, float]) -> str:
    """Format a mean, and its interval if there is one, for a table."""
    interval = f" [{score['low']:.4f}, {score['high']:.4f}]" if "low" in score else ""
    return f"{score['mean']:.4f}{interval}"


def keep_with_run(model: Path, result: Mapping[str, object]) -> None:
    """Write a result into the folder of a run, for its report; do nothing for a model outside a run.

    Raises:
        UserError: The file cannot be written.
    """
    if (model / "model").is_dir():
        write_json(model / EVALUATION, result)
