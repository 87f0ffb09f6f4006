"""Scores of a model on held-out pairs, beside the trivial baseline if the dataset names its classes' colors."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor, nn

from ganvas.data.dataset_info import dataset_info
from ganvas.data.encode import format_supports
from ganvas.data.listing import describe_unread
from ganvas.data.paired import PairedDataset
from ganvas.data.tensors import to_array, to_tensor
from ganvas.device import choose_device
from ganvas.evaluation.metrics import PATCH_SIZE, PatchSampler, patch_count
from ganvas.evaluation.results import (
    FEWEST_FOR_INTERVAL,
    NO_INTERVAL,
    EvaluatedImage,
    OnImage,
    PairedScores,
    Score,
    mean_and_interval,
    patch_score,
)
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
    device: str = "auto",
    on_image: OnImage | None = None,
    generator: nn.Module | None = None,
) -> dict[str, Any]:
    """Score a model on a split of a dataset of pairs. One pair is held in memory at a time.

    Args:
        model: A run, a checkpoint or a model folder.
        data: The dataset's folder.
        split: "train", "val" or "test".
        device: "auto", "cpu", "cuda" or "mps".
        on_image: Called with each image and its translation.
        generator: For a model trained with a generator of the user's own: an instance of its class.

    Returns:
        What ``evaluate --json`` prints: "metrics" ("l1", "psnr", "ssim", "sliced_wasserstein") as {"mean", "low",
        "high"} with a 95% interval, "per_picture", and, where dataset.json has a legend, "baseline" and
        "l1_minus_baseline".

    Raises:
        UserError: There is no model, there are no pairs, or an image cannot be read.
    """
    translator = load(model, kinds=("pix2pix",), generator=generator, device=choose_device(device))
    pairs = _open_pairs(translator, Path(data), split)
    if unread := describe_unread(pairs.pairs.unread):
        logger.info(unread)
    baseline = _fit_baseline(translator, pairs, dataset_info(Path(data)))
    scores = _score_pairs(translator, pairs, baseline, on_image or (lambda _: None))

    count = len(pairs)
    result: dict[str, Any] = {"model": str(model), "data": str(data), "split": split, "pictures": count}
    result["metrics"] = scores["output"].summary()
    values = scores["output"].paired.values
    result["per_picture"] = [
        {"name": pairs.name(index)} | {metric: values[metric][index] for metric in values} for index in range(count)
    ]
    if baseline is not None:
        result["baseline"] = scores["baseline"].summary()
        difference = np.subtract(values["l1"], scores["baseline"].paired.values["l1"])
        result["l1_minus_baseline"] = mean_and_interval(difference)
    notes = [] if "sliced_wasserstein" in result["metrics"] else [NO_DISTANCE]
    notes += [NO_INTERVAL] if count < FEWEST_FOR_INTERVAL else []
    return result | ({"notes": notes} if notes else {})


class _Scores:
    """Scores of one predictor, collected image by image.

    Args:
        count: Images in the set.
        target: Samples of the targets.
    """

    def __init__(self, count: int, target: PatchSampler) -> None:
        self.paired = PairedScores()
        self._patches, self._target = PatchSampler(count, target.num_patches), target

    def add(self, output: Tensor, target: Tensor) -> None:
        """Score an image [C, H, W] against its target."""
        self.paired.add(output, target)
        self._patches.add(output[None])

    def summary(self) -> dict[str, Score]:
        """Return the scores by metric, once all images and targets have been added."""
        return self.paired.summary() | patch_score("sliced_wasserstein", self._patches, self._target)


def _score_pairs(
    translator: Translator, pairs: PairedDataset, baseline: MedianColors | None, on_image: OnImage
) -> dict[str, _Scores]:
    """Score the model ("output") and the baseline against the targets."""
    count, how, spec = len(pairs), translator.preprocessing, translator.spec
    targets = PatchSampler(count, patch_count(count, count))
    scores = {name: _Scores(count, targets) for name in ("output", "baseline")}
    for index in track(range(count), "translating", count):
        source, target_values = pairs.pair(index)
        translator.require_values(source, Path(str(pairs.pairs[index].a)))
        target = to_tensor(target_values, how.target_range)
        output = translator.translate_exactly(source)
        targets.add(target[None])
        scores["output"].add(output, target)
        if baseline is not None:
            scores["baseline"].add(to_tensor(baseline.predict(source)), target)
        columns = ((spec.source, to_tensor(source, how.source_range)), ("output", output), (spec.target, target))
        image = translator.to_image(output, source.dtype)
        suffix = ".png" if format_supports(".png", image, exactly=how.target_range is not None) else ".tif"
        on_image(EvaluatedImage(index, count, columns, (f"{pairs.name(index)}{suffix}", image)))
    return scores


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
