"""Scores of a model on held-out pairs, alongside the trivial baseline if the dataset names its classes' colors."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from ganvas.data.dataset_info import dataset_info
from ganvas.data.encode import format_supports
from ganvas.data.layout import splits
from ganvas.data.listing import describe_unread
from ganvas.data.paired import PairedDataset
from ganvas.data.tensors import to_array, to_tensor
from ganvas.device import choose_device
from ganvas.evaluation.metric_set import load_metrics
from ganvas.evaluation.metrics import PATCH_SIZE, patch_count
from ganvas.evaluation.names import MetricOptions
from ganvas.evaluation.real import RealAgainstReal, RealImages, other_split
from ganvas.evaluation.results import (
    EvaluatedImage,
    OnImage,
    PredictorScores,
    mean_and_interval,
    notes_on_metrics,
    protocol,
)
from ganvas.evaluation.set_statistics import SetStatistics
from ganvas.inference.translator import Translator, load
from ganvas.log import logger, track
from pix2pix.baseline import MedianColors

NO_DISTANCE = (
    f"No sliced Wasserstein distance: it needs images of one size, of at least {PATCH_SIZE} pixels a side. "
    "`python -m data_scripts resize` makes them so."
)


def evaluate(
    model: Path | str,
    *,
    data: Path | str,
    split: str = "test",
    metrics: MetricOptions | None = None,
    device: str = "auto",
    on_image: OnImage | None = None,
    generator: nn.Module | None = None,
) -> dict[str, Any]:
    """Score a model on a split of a dataset of pairs. One pair is held in memory at a time.

    Args:
        model: A run, a checkpoint or a model folder.
        data: The dataset's folder.
        split: "train", "val" or "test".
        metrics: The metrics and their networks.
        device: "auto", "cpu", "cuda" or "mps".
        on_image: Called with each image and its translation.
        generator: For a model trained with a generator of the user's own: an instance of its class.

    Returns:
        What ``evaluate --json`` prints: "metrics" by key as {"mean", "low", "high"} with a 95% interval where there is
        one, "real" (the metrics of sets of real against real images), "protocol", "per_picture", and, where
        dataset.json has a legend, "baseline" and "l1_minus_baseline".

    Raises:
        UserError: There is no model, there are no pairs or too few, an image cannot be read, or the weights of a
            metric's network cannot be loaded.
    """
    device = choose_device(device)
    metric_set = load_metrics(metrics or MetricOptions(), device)
    translator = load(model, kinds=("pix2pix",), generator=generator, device=device)
    pairs = _open_pairs(translator, Path(data), split)
    if unread := describe_unread(pairs.pairs.unread):
        logger.info(unread)
    count = len(pairs)
    metric_set.require_count(count, f"{data}: {split}")
    baseline = _fit_baseline(translator, pairs, dataset_info(Path(data)))
    targets = SetStatistics(metric_set, count, patch_count(count, count))
    real = RealAgainstReal(metric_set, count, count, split, _other_targets(translator, Path(data), split, count))
    scores = _score_pairs(translator, pairs, baseline, targets, real, on_image or (lambda _: None))

    result: dict[str, Any] = {"model": str(model), "data": str(data), "split": split, "pictures": count}
    result["metrics"] = scores["output"].summary(targets)
    result["real"], notes = real.compare(targets)
    result["protocol"] = protocol(metric_set, outputs=targets, targets=targets, real=real, images="as in the dataset")
    values = scores["output"].paired.values
    result["per_picture"] = [
        {"name": pairs.name(index)} | {metric: values[metric][index] for metric in values} for index in range(count)
    ]
    if baseline is not None:
        result["baseline"] = scores["baseline"].summary(targets)
        if "l1" in metric_set:
            difference = np.subtract(values["l1"], scores["baseline"].paired.values["l1"])
            result["l1_minus_baseline"] = mean_and_interval(difference)
    notes += notes_on_metrics(metric_set, count)
    if "swd" in metric_set and "sliced_wasserstein" not in result["metrics"]:
        notes.append(NO_DISTANCE)
    return result | ({"notes": notes} if notes else {})


def _score_pairs(
    translator: Translator,
    pairs: PairedDataset,
    baseline: MedianColors | None,
    targets: SetStatistics,
    real: RealAgainstReal,
    on_image: OnImage,
) -> dict[str, PredictorScores]:
    """Score the model ("output") and the baseline against the targets, which are collected in both statistics."""
    count, how, spec, metrics = len(pairs), translator.preprocessing, translator.spec, targets.metrics
    scores = {name: PredictorScores(metrics, count, targets.num_patches) for name in ("output", "baseline")}
    for index in track(range(count), "translating", count):
        source, target_values = pairs.pair(index)
        translator.require_values(source, Path(str(pairs.pairs[index].a)))
        target = to_tensor(target_values, how.target_range)
        metrics.require_image(target, str(pairs.pairs[index].a))
        output = translator.translate_exactly(source)
        targets.add(target)
        real.add(target)
        scores["output"].add(output, target)
        if baseline is not None:
            scores["baseline"].add(to_tensor(baseline.predict(source)), target)
        columns = ((spec.source, to_tensor(source, how.source_range)), ("output", output), (spec.target, target))
        image = translator.to_image(output, source.dtype)
        suffix = ".png" if format_supports(".png", image, exactly=how.target_range is not None) else ".tif"
        on_image(EvaluatedImage(index, count, columns, (f"{pairs.name(index)}{suffix}", image)))
    return scores


def _other_targets(translator: Translator, data: Path, split: str, count: int) -> RealImages | None:
    """Return the targets of another split, at least ``count``; None where there is none."""

    def targets_of(split: str) -> RealImages:
        pairs = _open_pairs(translator, data, split)
        target_range = translator.preprocessing.target_range
        return RealImages(split, len(pairs), lambda index: to_tensor(pairs.pair(index)[1], target_range))

    return other_split(split, splits(data), count, targets_of)


def _open_pairs(translator: Translator, data: Path, split: str) -> PairedDataset:
    how = translator.preprocessing
    return PairedDataset(
        data,
        split,
        augmentation=None,
        direction="a2b" if "a2b" in translator.config.networks else "b2a",
        source_channels=how.source_channels,
        target_channels=how.target_channels,
        source_range=how.source_range,
        target_range=how.target_range,
        sources=how.source_folders,
        target=how.target_folder,
    )


def _fit_baseline(translator: Translator, pairs: PairedDataset, info: Mapping[str, Any]) -> MedianColors | None:
    """Fit the baseline to the very pairs that it is scored on; None where the source is not a drawn map."""
    how = translator.preprocessing
    if "legend" not in info or "a2b" not in translator.config.networks or how.source_range:
        return None
    baseline = MedianColors(info["legend"])
    for index in track(range(len(pairs)), "fitting the baseline", len(pairs)):
        source, target = pairs.pair(index)
        baseline.add(source, to_array(to_tensor(target, how.target_range), np.uint8))
    return baseline
