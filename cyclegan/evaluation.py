"""Scores of a model in both directions, beside trivial baselines where the images of a split are pairs."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor, nn

from cyclegan.baseline import DomainColors, match_colors
from ganvas.data.listing import Files, describe_unread
from ganvas.data.tensors import to_array, to_tensor
from ganvas.data.unpaired import are_pairs, find_domains
from ganvas.device import choose_device
from ganvas.errors import UserError, add_place_to_errors
from ganvas.evaluation.metrics import PATCH_SIZE, PatchSampler, l1, patch_count
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
from ganvas.inference.translator import Translator
from ganvas.log import logger, track
from ganvas.models.folder import load_model

MEASURED = 200  # training images of each domain whose colors are measured


def evaluate(
    model: Path | str,
    *,
    data: Path | str,
    split: str = "test",
    limit: int | None = None,
    device: str = "auto",
    on_image: OnImage | None = None,
    generator: nn.Module | None = None,
) -> dict[str, Any]:
    """Score a model on a split of a dataset of two domains. One image is held in memory at a time.

    Args:
        model: A run, a checkpoint or a model folder.
        data: The dataset's folder.
        split: "train", "val" or "test".
        limit: At most so many images of each domain, evenly over it.
        device: "auto", "cpu", "cuda" or "mps".
        on_image: Called with each image and its translations, first of a2b, then of b2a.

    Returns:
        What ``evaluate --json`` prints: "metrics" as {"mean", "low", "high"} with a 95% interval, cycle and identity
        L1 by domain, and by direction patch statistics and, for pairs, L1, PSNR and SSIM; "baselines" for pairs.

    Raises:
        UserError: The model does not have both directions, there is no dataset, or an image cannot be read.
    """
    config, generators = load_model(Path(model), ("cyclegan",), generator)
    chosen_device, found = choose_device(device), find_domains(Path(data), split)
    with add_place_to_errors(model):
        a, b = (
            Domain(
                name, _evenly(files, limit), Translator(config, generators, direction=direction, device=chosen_device)
            )
            for name, direction, files in zip("ab", ("a2b", "b2a"), found, strict=True)
        )
    if unread := describe_unread(found[0].unread + found[1].unread):
        logger.info(unread)
    sizes = {domain.name: [image.shape[:2] for image in domain.images("reading")] for domain in (a, b)}
    if len({*sizes["a"], *sizes["b"]}) > 1:
        a, b = replace(a, as_trained=True), replace(b, as_trained=True)
    are_named_alike = are_pairs(Path(data), split)
    unequal = _unequal_pair(a, b, sizes) if are_named_alike else ""
    colors = _known_colors(a, b, Path(data)) if are_named_alike and not unequal else {}

    metrics: dict[str, Score] = {}
    baselines: dict[str, dict[str, float]] = {}
    for source, target in ((a, b), (b, a)):
        patches = PatchSampler(len(target.files), patch_count(len(source.files), len(target.files)))
        for image in target.images("sampling"):
            patches.add(target.tensor(target.for_patches(image))[None])
        metrics |= _score_model(source, target, patches, bool(colors), on_image or (lambda _: None))
        baselines |= _score_baselines(source, target, patches, colors)
    notes = _notes(unequal, a, has_distance="sliced_wasserstein_a2b" in metrics)
    if min(len(a.files), len(b.files)) < FEWEST_FOR_INTERVAL:
        notes.append(NO_INTERVAL)
    count = len(a.files) + len(b.files)
    result = {"model": str(model), "data": str(data), "split": split, "pictures": count, "metrics": metrics}
    return result | ({"baselines": baselines} if baselines else {}) | ({"notes": notes} if notes else {})


@dataclass(frozen=True)
class Domain:
    """The images of one domain, which are read one at a time.

    Attributes:
        name: "a" or "b".
        files: The images.
        translator: Translates them to the other domain.
        as_trained: Whether patch statistics are those of images as the training saw them, since sizes differ.
    """

    name: str
    files: list[Path]
    translator: Translator
    as_trained: bool = False

    def images(self, title: str) -> Iterator[np.ndarray]:
        """Read the images, [H, W, C] each, under a progress bar with a title."""
        for path in track(self.files, f"{title} domain {self.name}", len(self.files)):
            yield self.read(path)

    def read(self, path: Path) -> np.ndarray:
        """Read an image of the domain, [H, W, C]."""
        return self.translator.read(path).array

    def tensor(self, image: np.ndarray) -> Tensor:
        """Return an image as [C, H, W] in [-1, 1]."""
        return to_tensor(image, self.translator.preprocessing.source_range)

    def for_patches(self, image: np.ndarray) -> np.ndarray:
        """Return an image as patch statistics are taken of it: as it is, scaled, or a center crop."""
        if not self.as_trained:
            return image
        if self.translator.resizes:
            return self.translator.scaled(image)
        size = self.translator.preprocessing.image_size
        top, left = (max(0, side - size) // 2 for side in image.shape[:2])
        return image[top : top + size, left : left + size]


def _evenly(files: Files, limit: int | None) -> list[Path]:
    """Choose at most ``limit`` files, evenly over all of them."""
    if limit is not None and limit < 1:
        raise UserError(f"--limit is {limit}; at least 1 image is needed.")
    count = len(files) if limit is None else min(limit, len(files))
    return [files[i] for i in np.linspace(0, len(files) - 1, count).round().astype(int)]


def _score_model(
    source: Domain, target: Domain, patches: PatchSampler, are_pairs: bool, on_image: OnImage
) -> dict[str, Score]:
    """Score the translation of one domain to the other, and back."""
    there, back = source.translator, target.translator
    count, direction = len(source.files), there.direction
    cycle, identity, scores = [], [], PairedScores()
    translated = PatchSampler(count, patches.num_patches)
    for index, image in enumerate(source.images("translating")):
        real, fake = source.tensor(image), there.translate_exactly(image)
        cycled = back.translate_exactly(to_array(fake, np.float32, back.preprocessing.source_range))
        cycle.append(l1(cycled[None], real[None]).item())
        if len(real) == len(fake):
            identity.append(l1(back.translate_exactly(image)[None], real[None]).item())
        # Images that are scaled are translated again: scaling a translation back and forth would blur it.
        sample = there.translate_exactly(source.for_patches(image)) if source.as_trained else fake
        translated.add(sample[None])
        columns = [("source", real), ("translated", fake), ("cycled back", cycled)]
        if are_pairs:
            truth = target.tensor(target.read(target.files[index]))
            scores.add(fake, truth)
            columns.append(("truth", truth))
        on_image(EvaluatedImage(index, count, columns))

    metrics = {f"cycle_l1_{source.name}": mean_and_interval(cycle)}
    if identity:
        metrics[f"identity_l1_{source.name}"] = mean_and_interval(identity)
    metrics |= patch_score(f"sliced_wasserstein_{direction}", translated, patches)
    return metrics | ({f"{name}_{direction}": score for name, score in scores.summary().items()} if are_pairs else {})


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
    source: Domain, target: Domain, patches: PatchSampler, colors: Mapping[str, Mapping[str, DomainColors]]
) -> dict[str, dict[str, float]]:
    """Score what needs no learning: one flat color, the source itself, the source with matched colors."""
    baselines: dict[str, Callable[[Tensor], Tensor]] = {}
    for where, known in colors.items():
        baselines[f"flat {where}"] = known[target.name].flat
        if known["a"].mean.shape == known["b"].mean.shape:
            baselines["copy"] = lambda image: image
            matched = partial(match_colors, source=known[source.name], target=known[target.name])
            baselines[f"colors matched {where}"] = matched
    return {
        f"{name} {source.translator.direction}": _score_baseline(predict, source, target, patches)
        for name, predict in baselines.items()
    }


def _score_baseline(
    predict: Callable[[Tensor], Tensor], source: Domain, target: Domain, patches: PatchSampler
) -> dict[str, float]:
    distances, predicted = [], PatchSampler(len(source.files), patches.num_patches)
    for image, path in zip(source.images("scoring baselines on"), target.files, strict=True):
        truth = target.tensor(target.read(path))
        distances.append(l1(predict(source.tensor(image))[None], truth[None]).item())
        predicted.add(predict(source.tensor(source.for_patches(image)))[None])
    distance = patch_score("sliced_wasserstein", predicted, patches)
    return {"l1": float(np.mean(distances)), **{name: score["mean"] for name, score in distance.items()}}


def _unequal_pair(a: Domain, b: Domain, sizes: Mapping[str, list[tuple[int, ...]]]) -> str:
    """Describe the first pair whose images differ in size; empty if there is none."""
    for path_a, path_b, size_a, size_b in zip(a.files, b.files, sizes["a"], sizes["b"], strict=True):
        if size_a != size_b:
            return f"{path_a} is {size_a[1]}x{size_a[0]} pixels and {path_b} {size_b[1]}x{size_b[0]}"
    return ""


def _notes(unequal: str, domain: Domain, *, has_distance: bool) -> list[str]:
    """Explain which scores are left out, or are those of changed images."""
    notes = []
    if unequal:
        notes.append(f"Nothing is compared with the truth: {unequal}. The images of a pair must be of one size.")
    if not has_distance:
        notes.append(
            f"No sliced Wasserstein distance: there are images of less than {PATCH_SIZE} pixels, or of several sizes "
            "and smaller than those of the training."
        )
    elif domain.as_trained:
        notes.append(
            "The images differ in size: the sliced Wasserstein distance is that of images as the training saw "
            f"them, {domain.translator.preprocessing.image_size} pixels a side."
        )
    return notes
