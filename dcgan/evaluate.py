"""What ``dcgan evaluate`` does: figures of drawn images, each beside the same figure of real ones.

Everything is compared with the training set, in the feature space of `dcgan.classifier`. The real test images, put
in the model's place, give the ceiling: what a model would score that draws as nature does.
"""

import json
import math
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from dcgan.classifier import Judge, cached_classifier
from dcgan.config import DataConfig, DcganConfig
from dcgan.data import Pictures, choose, load_pictures
from dcgan.labels import LABELS
from dcgan.measures import (
    checkerboard_energy,
    class_coverage,
    label_entropy,
    near_copies,
    speckle,
    within_class_diversity,
)
from dcgan.model import DigitModelConfig, load_sampler, require_seed
from ganvas.data.encode import write_image
from ganvas.data.formats import require_output_folder
from ganvas.device import choose_device
from ganvas.errors import UserError
from ganvas.evaluation.distribution import density_coverage, frechet_distance, kernel_distance, precision_recall
from ganvas.evaluation.results import EVALUATION, keep_with_run
from ganvas.json_files import read_json
from ganvas.models.folder import CONFIG, find_model, local_model
from ganvas.options import from_json

if TYPE_CHECKING:
    from dcgan.__main__ import Evaluate

FEWEST_PICTURES = 50  # below it, neighbors and covariances say nothing
EVEN_SHARE = 0.2  # of an even share, from which a class counts as drawn: 2% for ten classes


@dataclass(frozen=True)
class Earlier:
    """What ``--compare`` needs of another evaluation.json."""

    model: str
    pictures: int
    compared: int
    classifier: dict[str, str | float]
    metrics: dict[str, dict[str, float]]


def run_evaluate(options: "Evaluate") -> int:
    """Draw images by a model and measure them.

    Raises:
        UserError: A bad seed, no model or data, data without labels, too few images, a classifier below its bar, or
            a comparison with figures that another classifier gave.
    """
    require_seed(options.seed)
    if options.out is not None:
        require_output_folder(options.out)
    earlier = _read_earlier(options.compare) if options.compare is not None else None
    model = local_model(options.model)
    sampler = load_sampler(model, device=choose_device(options.device))
    trained_on = _trained_on(model)
    data = options.data or trained_on.data or sampler.config.data
    train, test = _open_data(sampler.config, data, options.data_root or _root_of(trained_on, data))
    _require_enough(options.samples, train, test)
    judge = cached_classifier(train, test)
    if earlier is not None:
        _require_comparable(earlier, options.samples, judge)
    console = Console(stderr=True)
    with console.status(f"drawing {options.samples:,} images"):
        fake = sampler.sample(options.samples, options.seed)
    with console.status("measuring them, and the real test images"):
        figures = measure(fake, train, test, judge, sampler.turns(options.samples))
    result = {
        "model": str(options.model),
        "data": data,
        "split": "test",
        "seed": options.seed,
        **figures,
    }
    if options.json:
        print(json.dumps(result | ({"compared_with": vars(earlier)} if earlier is not None else {})))
    else:
        _print_table(result, earlier)

    # Write files, now that no full disk can take the figures.
    if options.out is not None:
        suffix = "png" if sampler.config.channels in (1, 3) else "tif"
        for number, picture in enumerate(fake):
            write_image(options.out / f"{number:05d}.{suffix}", picture.permute(1, 2, 0).numpy())  # [S, S, C]
    keep_with_run(options.model, result)
    return 0


def measure(
    fake: Tensor, train: Pictures, test: Pictures, judge: Judge, requested_labels: Tensor | None = None
) -> dict[str, Any]:
    """Give all figures of drawn images, and of the real test images in their place.

    Distances, precision, recall, density, coverage and diversity depend on the number of images: they are taken
    between equally many (``compared``) of each set, picked by chance from a fixed seed. All others go over all.

    Args:
        fake: [n, C, S, S] uint8.
        train: Real images that the model learned from, with labels.
        test: Real images that it has not seen, with labels.
        judge: The classifier of these data.
        requested_labels: [n] int64, what a conditional model was asked for; adds the figure "label_fidelity".

    Returns:
        JSON values: "images", "compared", "classifier", "metrics" and "ceiling" as {name: {"mean": value}}, and
        "label_histogram", the number of drawn images of each class. A figure that is not defined is missing.
    """
    if train.labels is None or test.labels is None:
        raise ValueError("train and test need labels")
    K, compared = len(train.classes), min(len(fake), len(train.pictures), len(test.pictures))
    chosen = choose(len(train.pictures), compared)
    # A hundredth of the real digits has a stray pixel: only the whole set says how many are to be expected.
    reference = _Reference(train.pictures[chosen], train.labels[chosen], judge, speckle(train.pictures))
    ours, labels = reference.figures(fake, requested_labels)
    real, seen = reference.figures(test.pictures, None if requested_labels is None else test.labels)
    for figures, pictures, its_labels in ((ours, fake, labels), (real, test.pictures, seen)):
        figures["near_copies"] = near_copies(
            train.pictures, test.pictures, pictures, test_labels=test.labels, fake_labels=its_labels
        )
    return {
        "pictures": len(fake),
        "compared": compared,
        "classifier": {"digest": judge.digest, "accuracy": judge.accuracy},
        "metrics": _means(ours),
        "ceiling": _means(real),
        "label_histogram": torch.bincount(labels, minlength=K).tolist(),
    }


def coverage_and_entropy(fake: Tensor, judge: Judge) -> tuple[int, float]:
    """Give the number of classes that are drawn, and the entropy of the labels in bits.

    Args:
        fake: [n, C, S, S] uint8.
        judge: The classifier of these data.
    """
    labels, _ = judge.predict(fake)
    return _coverage_and_entropy(labels, judge.network.head.out_features)


def _coverage_and_entropy(labels: Tensor, num_classes: int) -> tuple[int, float]:
    share = EVEN_SHARE / num_classes
    return class_coverage(labels, num_classes, share=share), label_entropy(labels, num_classes)


class _Reference:
    """Training images, and what is known of them, to measure other sets against.

    Args:
        images: [n, C, S, S] uint8.
        labels: [n] int64.
        judge: The classifier.
        real_speckle: Stray pixels of a real image.
    """

    def __init__(self, pictures: Tensor, labels: Tensor, judge: Judge, real_speckle: float) -> None:
        self.pictures, self.labels, self.judge, self.real_speckle = pictures, labels, judge, real_speckle
        self.features = judge.features(pictures)

    def figures(self, pictures: Tensor, requested: Tensor | None) -> tuple[dict[str, float], Tensor]:
        """Give all figures of a set, [m, C, S, S] uint8 with m >= n, and the classes that are seen in it."""
        features = self.judge.features(pictures)
        labels, confidence = self.judge.classify(features)
        chosen = choose(len(pictures), len(self.pictures))
        near = features[chosen]
        precision, recall = precision_recall(self.features, near)
        density, coverage = density_coverage(self.features, near)
        drawn_classes, entropy = _coverage_and_entropy(labels, self.judge.network.head.out_features)
        figures = {
            "frechet_distance": frechet_distance(self.features, near),
            "kernel_distance": kernel_distance(self.features, near),
            "precision": precision,
            "recall": recall,
            "density": density,
            "coverage": coverage,
            "class_coverage": float(drawn_classes),
            "label_entropy": entropy,
            "mean_confidence": confidence.double().mean().item(),
            # By pixels: the classifier's own training makes images of one class alike in its features.
            "within_class_diversity": within_class_diversity(
                self.pictures, self.labels, pictures[chosen], labels[chosen]
            ),
            "speckle": speckle(pictures) / self.real_speckle if self.real_speckle else math.nan,
            "checkerboard_energy": checkerboard_energy(pictures),
        }
        if requested is not None:
            figures["label_fidelity"] = (labels == requested).double().mean().item()
        return figures, labels


def _means(figures: Mapping[str, float]) -> dict[str, dict[str, float]]:
    return {name: {"mean": value} for name, value in figures.items() if math.isfinite(value)}


def _trained_on(model: Path) -> DataConfig:
    """Give the data options of the run that a model lies in; empty ones for a model that was shared without it."""
    file = find_model(model).parent / CONFIG
    try:
        return from_json(DcganConfig, read_json(file, "a run's config"), str(file)).data
    except UserError:
        return DataConfig()


def _root_of(trained_on: DataConfig, data: str) -> Path | None:
    """Give the folder that the training read a named set from, if it is still there."""
    root = trained_on.data_root
    return root if root is not None and root.is_dir() and data == trained_on.data else None


def _open_data(config: DigitModelConfig, data: str, root: Path | None) -> tuple[Pictures, Pictures]:
    """Read both splits of the data that a model learned from, as it saw them."""
    train, test = (
        load_pictures(data, split, root=root, image_size=config.image_size, channels=config.channels)
        for split in ("train", "test")
    )
    if config.num_classes not in (0, len(train.classes)):
        raise UserError(
            f"{data}: has {len(train.classes)} classes, and the model draws {config.num_classes}. "
            "The data has changed since its training; put the old one there."
        )
    if config.data_digest and train.digest != config.data_digest:
        print(
            f"Warning: {data}: the training images are others than those that the model learned from "
            f"(digest {train.digest[:12]}, then {config.data_digest[:12]}).",
            file=sys.stderr,
        )
    return train, test


def _require_enough(samples: int, train: Pictures, test: Pictures) -> None:
    counts = {"--samples": samples, "training images": len(train.pictures), "test images": len(test.pictures)}
    for what, count in counts.items():
        if count < FEWEST_PICTURES:
            raise UserError(f"{what}: {count} are too few to measure by; at least {FEWEST_PICTURES} are needed.")


def _read_earlier(path: Path) -> Earlier:
    """Read another evaluation; a run's folder stands for its own."""
    file = path / EVALUATION if path.is_dir() else path
    values = read_json(file, "an evaluation by dcgan evaluate")
    if "classifier" not in values:
        raise UserError(f"{file}: is no evaluation by dcgan evaluate. Give RUN/evaluation.json of a dcgan run.")
    return from_json(Earlier, values, str(file))


def _require_comparable(earlier: Earlier, samples: int, judge: Judge) -> None:
    digest = str(earlier.classifier.get("digest"))
    if digest != judge.digest:
        raise UserError(
            f"--compare: {earlier.model} was measured by another classifier ({digest[:12]}, here {judge.digest[:12]}): "
            "the figures are in different spaces. Evaluate that model again here, then compare."
        )
    if earlier.pictures != samples:
        raise UserError(
            f"--compare: {earlier.model} was measured by {earlier.pictures} images, and distances depend on their "
            f"number. Give --samples {earlier.pictures}."
        )


def _print_table(result: Mapping[str, Any], earlier: Earlier | None) -> None:
    columns = {"model": result["metrics"]}
    if earlier is not None:
        columns[earlier.model] = earlier.metrics
    columns["real test images"] = result["ceiling"]
    table = Table(title=f"{result['pictures']:,} images drawn after {result['data']}", title_justify="left")
    table.add_column("figure")
    for name in columns:
        table.add_column(name, justify="right")
    for name in result["metrics"]:
        metric = LABELS[name]
        better = f" ({metric.better} is better)" if metric.better else ""
        cells = (_cell(scores.get(name), metric.decimals) for scores in columns.values())
        table.add_row(f"{metric.text}{better}", *cells)
    console = Console(highlight=False, markup=False)
    console.print(table)
    classifier = result["classifier"]
    console.print(
        f"Distances, precision, recall, density, coverage and diversity: {result['compared']:,} images of each set.\n"
        f"Classifier {classifier['digest'][:12]}, right on {classifier['accuracy']:.2%} of the real test images.",
        soft_wrap=True,
    )


def _cell(score: Mapping[str, float] | None, decimals: int) -> str:
    return "–" if score is None else f"{score['mean']:.{decimals}f}"
