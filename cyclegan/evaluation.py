"""Scores of a model in all its directions, alongside trivial baselines where the images of a split are pairs."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor, nn

from cyclegan.baseline import DomainColors, match_colors
from ganvas.data.arrays import require_trained_range
from ganvas.data.decode import read_image
from ganvas.data.layout import splits
from ganvas.data.listing import Files, describe_unread
from ganvas.data.palette import is_flat
from ganvas.data.resize import resize
from ganvas.data.tensors import require_range, to_array, to_tensor
from ganvas.data.unpaired import are_pairs, find_domains
from ganvas.device import choose_device
from ganvas.errors import UserError, add_place_to_errors
from ganvas.evaluation.metric_set import MetricSet, load_metrics
from ganvas.evaluation.metrics import PATCH_SIZE, l1, patch_count
from ganvas.evaluation.names import DEFAULT, PAIRED, MetricOptions
from ganvas.evaluation.real import RealAgainstReal, RealImages, other_split
from ganvas.evaluation.results import (
    EvaluatedImage,
    OnImage,
    PairedScores,
    mean_and_interval,
    notes_on_metrics,
    protocol,
)
from ganvas.evaluation.set_statistics import Score, SetStatistics, compare_sets
from ganvas.inference.translator import Translator
from ganvas.log import logger, track
from ganvas.models.folder import ModelConfig, Preprocessing, load_model

NO_DISTANCE = (
    f"No sliced Wasserstein distance: there are images of less than {PATCH_SIZE} pixels, or of several sizes "
    "and smaller than those of the training."
)
MEASURED = 200  # training images of each domain whose colors are measured


def evaluate(
    model: Path | str,
    *,
    data: Path | str,
    split: str = "test",
    limit: int | None = None,
    metrics: MetricOptions | None = None,
    device: str = "auto",
    on_image: OnImage | None = None,
    generator: nn.Module | None = None,
) -> dict[str, Any]:
    """Score a model on a split of a dataset of two domains. One image is held in memory at a time.

    Args:
        model: A run, a checkpoint or a model folder.
        data: The dataset's folder.
        split: "train", "val" or "test".
        limit: Use at most this many images of each domain, evenly spread.
        metrics: The metrics and their networks; those of pairs are left out where there are none.
        device: "auto", "cpu", "cuda" or "mps".
        on_image: Called with each image and its translations, first of a2b, then of b2a.

    Returns:
        What ``evaluate --json`` prints: "metrics" as {"mean", "low", "high"} with a 95% interval where there is one:
        cycle and identity L1 by domain (of a model of both directions), and by direction the metrics of sets and, for
        pairs, those of pairs; "real" (the metrics of sets of real against real images); "protocol" by direction;
        "baselines" for pairs.

    Raises:
        UserError: There is no model, no dataset or too few images, an image cannot be read, or the weights of a
            metric's network cannot be loaded.
    """
    chosen_device = choose_device(device)
    metric_set = load_metrics(metrics or MetricOptions(), chosen_device)
    a, b, sizes = _open_domains(Path(model), Path(data), split, limit, generator, chosen_device)
    are_named_alike = are_pairs(Path(data), split)
    unequal = _unequal_pair(a, b, sizes) if are_named_alike else ""
    colors = _known_colors(a, b, Path(data)) if are_named_alike and not unequal else {}

    if not colors:
        is_bidirectional = None not in (a.translator, b.translator)
        _require_no_pairs(metric_set, Path(data), split, has_others=is_bidirectional)
    fewest = min(len(a.files), len(b.files))
    metric_set.require_count(fewest, f"{data}: {split}")

    result: dict[str, Any] = {"model": str(model), "data": str(data), "split": split}
    result |= {"pictures": len(a.files) + len(b.files), "metrics": {}, "real": {}, "protocol": {}}
    baselines: dict[str, dict[str, float]] = {}
    notes = _notes(unequal, a)
    for source, target in ((a, b), (b, a)):
        if source.translator is None:
            continue
        targets, real = _sample_targets(metric_set, source, target, Path(data), split)
        direction = source.translator.direction
        scores, outputs = _score_model(source, target, targets, bool(colors), on_image or (lambda _: None))
        real_scores, real_notes = real.compare(targets)
        result["metrics"] |= scores
        result["real"] |= {f"{key}_{direction}": score for key, score in real_scores.items()}
        images = _describe_changes(target)
        result["protocol"][direction] = protocol(metric_set, outputs=outputs, targets=targets, real=real, images=images)
        notes += real_notes
        baselines |= _score_baselines(source, target, targets, colors)
    if "swd" in metric_set and not any(key.startswith("sliced_wasserstein_") for key in result["metrics"]):
        notes.append(NO_DISTANCE)
    notes += notes_on_metrics(metric_set, fewest)
    return result | ({"baselines": baselines} if baselines else {}) | ({"notes": notes} if notes else {})


def _sample_targets(
    metric_set: MetricSet, source: "Domain", target: "Domain", data: Path, split: str
) -> tuple[SetStatistics, RealAgainstReal]:
    """Collect what the metrics of sets need of the real images of the target domain."""
    counts = len(source.files), len(target.files)
    targets = SetStatistics(metric_set, counts[1], patch_count(*counts))
    real = RealAgainstReal(metric_set, *counts, split, _other_images(target, data, split, counts[0]))
    for path, image in zip(target.files, target.images("sampling"), strict=True):
        values = target.tensor(target.for_patches(image))
        metric_set.require_channels(values, str(path))
        targets.add(values)
        real.add(values)
    return targets, real


def _open_domains(
    model: Path, data: Path, split: str, limit: int | None, generator: nn.Module | None, device: str
) -> tuple["Domain", "Domain", dict[str, list[tuple[int, ...]]]]:
    """Load a model and find the images of both domains; return these, and the sizes of all images by domain."""
    config, generators = load_model(model, ("cyclegan",), generator)
    found = find_domains(data, split)
    with add_place_to_errors(model):
        translators = {
            direction: Translator(config, generators, direction=direction, device=device) for direction in generators
        }
        a, b = (
            Domain(name, _evenly(files, limit), _preprocessing(config, direction), translators.get(direction))
            for name, direction, files in zip("ab", ("a2b", "b2a"), found, strict=True)
        )
    if unread := describe_unread(found[0].unread + found[1].unread):
        logger.info(unread)
    sizes = {domain.name: [image.shape[:2] for image in domain.images("reading")] for domain in (a, b)}
    if len({*sizes["a"], *sizes["b"]}) > 1:
        a, b = replace(a, as_trained=True), replace(b, as_trained=True)
    return a, b, sizes


@dataclass(frozen=True)
class Domain:
    """The images of one domain, which are read one at a time.

    Attributes:
        name: "a" or "b".
        files: The images.
        preprocessing: How they become the input of a generator, whether the model has it or not.
        translator: Translates them to the other domain, if the model has the direction.
        as_trained: Whether patch statistics are those of images as the training saw them, since sizes differ.
    """

    name: str
    files: list[Path]
    preprocessing: Preprocessing
    translator: Translator | None
    as_trained: bool = False

    def images(self, title: str) -> Iterator[np.ndarray]:
        """Read the images, [H, W, C] each, under a progress bar with a title."""
        for path in track(self.files, f"{title} domain {self.name}", len(self.files)):
            yield self.read(path)

    def read(self, path: Path) -> np.ndarray:
        """Read an image of the domain, [H, W, C]."""
        how, what = self.preprocessing, f"{path}:"
        image = require_range(read_image(path, how.source_channels), how.source_range, what)
        require_trained_range(image, how.source_range, how.source_type, what)
        return image

    def tensor(self, image: np.ndarray) -> Tensor:
        """Return an image as [C, H, W] in [-1, 1]."""
        return to_tensor(image, self.preprocessing.source_range)

    def for_patches(self, image: np.ndarray) -> np.ndarray:
        """Return an image as patch statistics are taken of it: as it is, scaled, or a center crop."""
        if not self.as_trained:
            return image
        size = self.preprocessing.image_size
        if self.preprocessing.resized:
            return resize(image, size, size, flat=is_flat(image, self.preprocessing.legend))
        top, left = (max(0, side - size) // 2 for side in image.shape[:2])
        return image[top : top + size, left : left + size]


def _preprocessing(config: ModelConfig, direction: str) -> Preprocessing:
    """Return how images become the input of a direction, also of the one that a model of one direction lacks."""
    is_other = direction not in config.networks
    how = config.preprocessing_of(direction)
    return how.reversed() if is_other else how


def _evenly(files: Files, limit: int | None) -> list[Path]:
    """Choose at most ``limit`` files, evenly over all of them."""
    if limit is not None and limit < 1:
        raise UserError(f"--limit is {limit}; at least 1 image is needed.")
    count = len(files) if limit is None else min(limit, len(files))
    return [files[i] for i in np.linspace(0, len(files) - 1, count).round().astype(int)]


def _score_model(
    source: Domain, target: Domain, targets: SetStatistics, are_pairs: bool, on_image: OnImage
) -> tuple[dict[str, Score], SetStatistics]:
    """Score the translation of one domain to the other, and back; return the translations' statistics, too."""
    there, back = source.translator, target.translator
    assert there is not None, "the model lacks the direction"
    count, direction = len(source.files), there.direction
    cycle, identity, scores = [], [], PairedScores(targets.metrics)
    translated = SetStatistics(targets.metrics, count, targets.num_patches)
    for index, image in enumerate(source.images("translating")):
        real, fake = source.tensor(image), there.translate_exactly(image)
        columns = [("source", real), ("translated", fake)]
        if back is not None:
            cycled = back.translate_exactly(to_array(fake, np.float32, back.preprocessing.source_range))
            cycle.append(l1(cycled[None], real[None]).item())
            columns.append(("cycled back", cycled))
            if len(real) == len(fake):
                identity.append(l1(back.translate_exactly(image)[None], real[None]).item())
        # Images that are scaled are translated again: scaling a translation back and forth would blur it.
        translated.add(there.translate_exactly(source.for_patches(image)) if source.as_trained else fake)
        if are_pairs:
            truth = target.tensor(target.read(target.files[index]))
            targets.metrics.require_image(truth, str(target.files[index]))
            scores.add(fake, truth)
            columns.append(("truth", truth))
        on_image(EvaluatedImage(index, count, columns))

    found = {f"cycle_l1_{source.name}": cycle, f"identity_l1_{source.name}": identity}
    metrics = {name: mean_and_interval(values) for name, values in found.items() if values}
    by_direction = compare_sets(translated, targets, are_pairs=are_pairs) | (scores.summary() if are_pairs else {})
    return metrics | {f"{key}_{direction}": score for key, score in by_direction.items()}, translated


def _known_colors(a: Domain, b: Domain, data: Path) -> dict[str, dict[str, DomainColors]]:
    """Measure the colors of both domains: of the images to be scored, and of the training images.

    The latter is what a translator can know; the former shows how much of its error is that the two differ.
    """
    colors = {"to the truth": {domain.name: _measure(domain) for domain in (a, b)}}
    try:
        found = find_domains(data, "train")
    except UserError:  # a dataset without training images
        return colors
    train = [replace(domain, files=_evenly(files, MEASURED)) for domain, files in zip((a, b), found, strict=True)]
    return colors | {"to train": {domain.name: _measure(domain) for domain in train}}


def _measure(domain: Domain) -> DomainColors:
    return DomainColors.measure(map(domain.tensor, domain.images("measuring")))


def _score_baselines(
    source: Domain, target: Domain, targets: SetStatistics, colors: Mapping[str, Mapping[str, DomainColors]]
) -> dict[str, dict[str, float]]:
    """Score what needs no learning: one flat color, the source itself, the source with matched colors."""
    direction = f"{source.name}2{target.name}"
    baselines: dict[str, Callable[[Tensor], Tensor]] = {}
    for where, known in colors.items():
        baselines[f"flat {where}"] = known[target.name].flat
        if known["a"].mean.shape == known["b"].mean.shape:
            baselines["copy"] = lambda image: image
            matched = partial(match_colors, source=known[source.name], target=known[target.name])
            baselines[f"colors matched {where}"] = matched
    return {
        f"{name} {direction}": _score_baseline(predict, source, target, targets) for name, predict in baselines.items()
    }


def _score_baseline(
    predict: Callable[[Tensor], Tensor], source: Domain, target: Domain, targets: SetStatistics
) -> dict[str, float]:
    """Return the scores that need no network: ten baselines would cost as much as the model ten times."""
    metrics = targets.metrics.without_networks()
    distances = []
    predicted = SetStatistics(metrics, len(source.files), targets.num_patches)
    for image, path in zip(source.images("scoring baselines on"), target.files, strict=True):
        truth = target.tensor(target.read(path))
        distances.append(l1(predict(source.tensor(image))[None], truth[None]).item())
        predicted.add(predict(source.tensor(source.for_patches(image))))
    scores = compare_sets(predicted, targets, are_pairs=True)
    return {"l1": float(np.mean(distances)), **{key: score["mean"] for key, score in scores.items()}}


def _unequal_pair(a: Domain, b: Domain, sizes: Mapping[str, list[tuple[int, ...]]]) -> str:
    """Describe the first pair whose images differ in size; empty if there is none."""
    for path_a, path_b, size_a, size_b in zip(a.files, b.files, sizes["a"], sizes["b"], strict=True):
        if size_a != size_b:
            return f"{path_a} is {size_a[1]}x{size_a[0]} pixels and {path_b} {size_b[1]}x{size_b[0]}"
    return ""


def _require_no_pairs(metrics: MetricSet, data: Path, split: str, *, has_others: bool) -> None:
    """Check that nobody asks for a metric of pairs where there are none, beyond the default ones.

    Args:
        metrics: What is asked for.
        data: The dataset's folder, for the message.
        split: The split, for the message.
        has_others: Whether there are scores that ``metrics`` does not list; if not, the default ones count, too.

    Raises:
        UserError: They do.
    """
    allowed = DEFAULT if has_others or not set(metrics.names) <= PAIRED.keys() else ()
    if asked := [name for name in PAIRED if name in metrics and name not in allowed]:
        raise UserError(
            f"--metrics {','.join(asked)}: compares an image with its own target, and {data}/{split} has no pairs of "
            'one size (docs/cyclegan.md explains "pairs" in dataset.json). Choose other metrics.'
        )


def _other_images(target: Domain, data: Path, split: str, count: int) -> RealImages | None:
    """Return images of a domain from another split, at least ``count``; None where there is none."""

    def images_of(split: str) -> RealImages:
        files = find_domains(data, split)["ab".index(target.name)]
        return RealImages(split, len(files), lambda i: target.tensor(target.for_patches(target.read(files[i]))))

    return other_split(split, splits(data), count, images_of)


def _describe_changes(domain: Domain) -> str:
    """Describe how images are changed before the metrics of sets see them."""
    if not domain.as_trained:
        return "as in the dataset"
    size = domain.preprocessing.image_size
    return f"{'scaled' if domain.preprocessing.resized else 'center crop'}, {size} pixels a side"


def _notes(unequal: str, domain: Domain) -> list[str]:
    """Explain which scores are left out, or are those of changed images."""
    notes = []
    if unequal:
        notes.append(f"Nothing is compared with the truth: {unequal}. The images of a pair must be of one size.")
    if domain.as_trained:
        notes.append(
            "The images differ in size: metrics of sets, such as the sliced Wasserstein distance, are those of images "
            f"as the training saw them, {domain.preprocessing.image_size} pixels a side."
        )
    return notes
