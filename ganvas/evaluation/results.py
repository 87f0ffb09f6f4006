"""What the evaluations of all modules share: scores collected image by image, intervals, and the file in the run."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from ganvas.evaluation.metric_set import FEWEST_FOR_FID, MetricSet
from ganvas.evaluation.metrics import bootstrap_interval
from ganvas.evaluation.real import RealAgainstReal
from ganvas.evaluation.set_statistics import FEWEST_FOR_INTERVAL, Score, SetStatistics, compare_sets
from ganvas.json_files import write_json
from ganvas.messages import shorten

EVALUATION = "evaluation.json"
NO_INTERVAL = "No 95% intervals: one image says nothing about the spread."


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
    """Scores of images, added one by one with their targets; only numbers are kept.

    Args:
        metrics: The metrics; those of sets are left out.

    Attributes:
        values: One value per image, by the metric's key.
    """

    def __init__(self, metrics: MetricSet) -> None:
        self._metrics = metrics.of_pairs
        self.values: dict[str, list[float]] = {key: [] for key in self._metrics}

    def add(self, output: Tensor, target: Tensor) -> None:
        """Score an image [C, H, W] in [-1, 1] against its target of the same shape."""
        for key, metric in self._metrics.items():
            self.values[key].append(metric(output[None], target[None]).item())

    def means(self) -> dict[str, float]:
        """Return the mean by metric."""
        return {key: float(np.mean(values)) for key, values in self.values.items()}

    def summary(self) -> dict[str, Score]:
        """Return mean and interval by metric."""
        return {key: mean_and_interval(values) for key, values in self.values.items()}


class PredictorScores:
    """All scores of one predictor of paired images, collected image by image.

    Args:
        metrics: The metrics.
        count: Pairs in the set.
        num_patches: As in `SetStatistics`.
    """

    def __init__(self, metrics: MetricSet, count: int, num_patches: int) -> None:
        self.paired = PairedScores(metrics)
        self._outputs = SetStatistics(metrics, count, num_patches)

    def add(self, output: Tensor, target: Tensor) -> None:
        """Score an image [C, H, W] in [-1, 1] against its target of the same shape."""
        self.paired.add(output, target)
        self._outputs.add(output)

    def summary(self, targets: SetStatistics) -> dict[str, Score]:
        """Return the scores by key, given the targets' statistics, once all pairs have been added."""
        return self.paired.summary() | compare_sets(self._outputs, targets, are_pairs=True)


def notes_on_metrics(metrics: MetricSet, count: int) -> list[str]:
    """Return what to say of metrics of few images.

    Args:
        metrics: The metrics.
        count: Images of the smaller set.
    """
    notes = []
    if "fid" in metrics and count < FEWEST_FOR_FID:
        notes.append(
            f"FID of {count:,} images: below {FEWEST_FOR_FID:,} it is too large, by an amount that depends on their "
            "number. Compare it only with an FID of as many images, such as that of real against real images."
        )
    return notes + ([NO_INTERVAL] if count < FEWEST_FOR_INTERVAL else [])


def protocol(
    metrics: MetricSet, *, outputs: SetStatistics, targets: SetStatistics, real: RealAgainstReal, images: str
) -> dict[str, Any]:
    """Return how the metrics were computed: figures of different protocols cannot be compared.

    Args:
        metrics: The metrics.
        outputs: Statistics of the generated images.
        targets: Statistics of the true images.
        real: What real images were compared.
        images: How the compared images were resized or cropped.
    """
    common = {"images": images, "size": targets.size, "range": "-1 to 1", "n": outputs.count, "n_real": targets.count}
    return common | {"real": real.sets} | metrics.protocol(outputs.count, targets.count)


def differences(first: Mapping[str, Any], second: Mapping[str, Any], prefix: str = "") -> list[str]:
    """Describe in what two protocols differ, such as "features.sha256: 1f…, here 2c…".

    A part that only one of them has, of a metric that the other one lacks, is no difference.
    """
    found = []
    for key in first.keys() & second.keys():
        was, now = first[key], second[key]
        if isinstance(was, Mapping) and isinstance(now, Mapping):
            found += differences(was, now, f"{prefix}{key}.")
        elif was != now:
            found.append(f"{prefix}{key}: {shorten(str(was), 24)}, here {shorten(str(now), 24)}")
    return sorted(found)


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


def format_score(score: Mapping[str, float], decimals: int = 4) -> str:
    """Format a mean for a table, with its interval or the number of images that it depends on."""
    mean = f"{score['mean']:.{decimals}f}"
    if "n" in score:  # a distance of features, whose unit depends on their network
        mean = f"{score['mean']:.3g}" if abs(score["mean"]) < 1 else mean
        return f"{mean} (n = {score['n']:,})"
    return mean + (f" [{score['low']:.{decimals}f}, {score['high']:.{decimals}f}]" if "low" in score else "")


def keep_with_run(model: Path, result: Mapping[str, object]) -> None:
    """Write a result into the folder of a run, for its report; do nothing for a model outside a run.

    Raises:
        UserError: The file cannot be written.
    """
    if (model / "model").is_dir():
        write_json(model / EVALUATION, result)
