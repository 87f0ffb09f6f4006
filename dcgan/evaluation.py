"""Metrics of drawn images alongside those of real test images.

Everything is compared with the training set, in the feature space of `dcgan.classifier`. The metrics of real test
images in the place of the model's are the ceiling: the score of a perfect model.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from dcgan.classifier import FeatureClassifier, cached_classifier
from dcgan.config import DataConfig, DcganConfig
from dcgan.data import ImageSet, choose, load_images
from dcgan.measures import (
    class_coverage,
    label_entropy,
    near_copies,
    speckle,
    within_class_diversity,
)
from dcgan.model import DigitModelConfig, load_sampler, require_seed
from ganvas.device import choose_device
from ganvas.errors import UserError
from ganvas.evaluation.checkerboard import checkerboard_energy
from ganvas.evaluation.distribution import density_coverage, frechet_distance, kernel_distance, precision_recall
from ganvas.evaluation.metric_set import MetricSet, load_metrics
from ganvas.evaluation.metrics import patch_count
from ganvas.evaluation.names import MetricOptions
from ganvas.evaluation.results import EVALUATION, differences, notes_on_metrics
from ganvas.evaluation.set_statistics import SetStatistics, compare_sets
from ganvas.json_files import read_json
from ganvas.log import logger, track
from ganvas.models.folder import CONFIG, find_model, local_model
from ganvas.options import from_json

MIN_IMAGES = 50  # neighbors and covariances of fewer are meaningless
MIN_SHARE = 0.2  # of an even share, for a class to count as drawn: 2% for ten classes


@dataclass(frozen=True)
class OtherEvaluation:
    """The fields of another evaluation.json that ``--compare`` needs."""

    model: str
    pictures: int
    compared: int
    classifier: dict[str, str | float]
    metrics: dict[str, dict[str, float]]
    protocol: dict[str, Any] = field(default_factory=dict)


def evaluate(
    model: Path | str,
    data: str | None = None,
    *,
    data_root: Path | None = None,
    samples: int = 10_000,
    seed: int = 0,
    device: str = "auto",
    compare: Path | None = None,
    metrics: MetricOptions | None = None,
    on_images: Callable[[Tensor], None] | None = None,
    generator: nn.Module | None = None,
) -> dict[str, Any]:
    """Draw images with a model and measure them; see `dcgan.evaluate`.

    Args:
        metrics: Further metrics, of sets.
        on_images: Called with the drawn images, [n, C, S, S] uint8.

    Returns:
        The values of `measure`, and "model", "data", "split", "seed" and, if asked for, "compared_with".

    Raises:
        UserError: The seed, model or data are invalid, the data has no labels or too few images, the classifier is not
            accurate enough, or the evaluation to compare with used another classifier.
    """
    require_seed(seed)
    other = _read_other(compare) if compare is not None else None
    local = local_model(model)
    sampler = load_sampler(local, choose_device(device), generator)
    training_data = _training_data(local)
    data = data or training_data.data or sampler.config.data
    train, test = _load_data(sampler.config, data, data_root or _root_of(training_data, data))
    _require_enough(samples, train, test)
    metric_set = MetricSet(()) if metrics is None else load_metrics(metrics, choose_device(device))
    compared = min(samples, len(train.images), len(test.images))
    protocol = _protocol(metric_set, compared, train)
    classifier = cached_classifier(train, test)
    if other is not None:
        _require_comparable(other, samples, classifier, protocol)
    logger.info(f"Drawing {samples:,} images")
    fake = sampler.sample(samples, seed)
    logger.info("Measuring them and the real test images")
    measured = measure(fake, train, test, classifier, sampler.cycled_labels(samples))
    if metric_set.names:
        reference = _statistics(metric_set, train.images, compared)
        for column, images in (("metrics", fake), ("ceiling", test.images)):
            measured[column] |= compare_sets(_statistics(metric_set, images, compared), reference, intervals=False)
        measured |= {"protocol": protocol, "notes": notes_on_metrics(metric_set, compared)}
    if on_images is not None:
        on_images(fake)
    result = {"model": str(model), "data": data, "split": "test", "seed": seed, **measured}
    return result | ({} if other is None else {"compared_with": vars(other)})


def measure(
    fake: Tensor,
    train: ImageSet,
    test: ImageSet,
    classifier: FeatureClassifier,
    requested_labels: Tensor | None = None,
) -> dict[str, Any]:
    """Compute all metrics of drawn images, and of the real test images.

    Distances, precision, recall, density, coverage and diversity depend on the number of images: they are computed for
    equal numbers (``compared``) of each set, chosen at random from a fixed seed. All others use all images.

    Args:
        fake: [n, C, S, S] uint8.
        train: Training images, with labels.
        test: Test images, with labels.
        classifier: The classifier of this dataset.
        requested_labels: [n] int64, the labels that a conditional model drew; adds the metric "label_fidelity".

    Returns:
        JSON values: "pictures" and "compared" (numbers of images), "classifier", "metrics" and "ceiling" as
        {name: {"mean": value}}, without undefined metrics, and "label_histogram", the drawn images of each class.
    """
    if train.labels is None or test.labels is None:
        raise ValueError("train and test need labels")
    compared = min(len(fake), len(train.images), len(test.images))
    chosen = choose(len(train.images), compared)
    reference = _Reference(
        train.images[chosen],
        train.labels[chosen],
        classifier.features(train.images[chosen]),
        speckle(train.images),  # of all: one real digit in a hundred has any
    )

    def all_metrics(images: Tensor, requested: Tensor | None) -> tuple[dict[str, float], Tensor]:
        values, labels = _metrics(images, requested, reference, classifier)
        values["near_copies"] = near_copies(
            train.images, test.images, images, test_labels=test.labels, fake_labels=labels
        )
        return values, labels

    metrics, labels = all_metrics(fake, requested_labels)
    ceiling, _ = all_metrics(test.images, None if requested_labels is None else test.labels)
    return {
        "pictures": len(fake),
        "compared": compared,
        "classifier": {"digest": classifier.digest, "accuracy": classifier.accuracy},
        "metrics": _means(metrics),
        "ceiling": _means(ceiling),
        "label_histogram": torch.bincount(labels, minlength=len(train.classes)).tolist(),
    }


def coverage_and_entropy(fake: Tensor, classifier: FeatureClassifier) -> tuple[int, float]:
    """Return the number of classes in images [n, C, S, S] uint8, and the entropy of their labels in bits."""
    labels, _ = classifier.predict(fake)
    return _coverage_and_entropy(labels, classifier)


def _coverage_and_entropy(labels: Tensor, classifier: FeatureClassifier) -> tuple[int, float]:
    num_classes = classifier.network.head.out_features
    return class_coverage(labels, num_classes, share=MIN_SHARE / num_classes), label_entropy(labels, num_classes)


@dataclass(frozen=True)
class _Reference:
    """Training images that others are compared with: [n, C, S, S] uint8, [n] labels, [n, 128] features."""

    images: Tensor
    labels: Tensor
    features: Tensor
    speckle: float


def _metrics(
    images: Tensor, requested: Tensor | None, reference: _Reference, classifier: FeatureClassifier
) -> tuple[dict[str, float], Tensor]:
    """Return the metrics of [m, C, S, S] uint8, m >= n, and the labels that the classifier assigns."""
    features = classifier.features(images)
    labels, confidence = classifier.classify(features)
    chosen = choose(len(images), len(reference.images))
    compared = features[chosen]
    precision, recall = precision_recall(reference.features, compared)
    density, coverage = density_coverage(reference.features, compared)
    drawn_classes, entropy = _coverage_and_entropy(labels, classifier)
    metrics = {
        "frechet_distance": frechet_distance(reference.features, compared),
        "kernel_distance": kernel_distance(reference.features, compared),
        "precision": precision,
        "recall": recall,
        "density": density,
        "coverage": coverage,
        "class_coverage": float(drawn_classes),
        "label_entropy": entropy,
        "mean_confidence": confidence.double().mean().item(),
        # In pixel space: the classifier's training makes the features of a class alike.
        "within_class_diversity": within_class_diversity(
            reference.images, reference.labels, images[chosen], labels[chosen]
        ),
        "speckle": speckle(images) / reference.speckle if reference.speckle else math.nan,
        "checkerboard_energy": checkerboard_energy(images),
    }
    if requested is not None:
        metrics["label_fidelity"] = (labels == requested).double().mean().item()
    return metrics, labels


def _means(metrics: Mapping[str, float]) -> dict[str, dict[str, float]]:
    return {name: {"mean": value} for name, value in metrics.items() if math.isfinite(value)}


def _training_data(model: Path) -> DataConfig:
    """Return the data options of the run that contains a model; empty ones for a model outside of a run."""
    file = find_model(model).parent / CONFIG
    try:
        return from_json(DcganConfig, read_json(file, "a run's config"), str(file)).data
    except UserError:
        return DataConfig()


def _root_of(training_data: DataConfig, data: str) -> Path | None:
    """Return the folder that the training read a named dataset from, if it still exists."""
    root = training_data.data_root
    return root if root is not None and root.is_dir() and data == training_data.data else None


def _load_data(config: DigitModelConfig, data: str, root: Path | None) -> tuple[ImageSet, ImageSet]:
    """Load the training and test images in the size and channels of the model."""
    train, test = (
        load_images(data, split, root=root, image_size=config.image_size, channels=config.channels)
        for split in ("train", "test")
    )
    if config.num_classes not in (0, len(train.classes)):
        raise UserError(
            f"{data}: has {len(train.classes)} classes, and the model draws {config.num_classes}. "
            "The data has changed since its training; restore it, or give the training's data as --data."
        )
    if config.data_digest and train.digest != config.data_digest:
        logger.warning(
            f"Warning: {data}: the training images differ from those that the model was trained on "
            f"(digest {train.digest[:12]}, in training {config.data_digest[:12]})."
        )
    return train, test


def _statistics(metrics: MetricSet, images: Tensor, count: int) -> SetStatistics:
    """Collect what metrics of sets need of ``count`` of the images [n, C, S, S] uint8, chosen as for the classifier."""
    statistics = SetStatistics(metrics, count, patch_count(count, count))
    for index in track(choose(len(images), count).tolist(), "metrics", count):
        statistics.add(images[index] / 127.5 - 1)
    return statistics


def _protocol(metrics: MetricSet, count: int, train: ImageSet) -> dict[str, Any]:
    """Return how the further metrics are computed.

    Raises:
        UserError: The images do not allow one of them.
    """
    if not metrics.names:
        return {}
    image = train.images[0]
    metrics.require_count(count, train.name)
    metrics.require_channels(image, train.name)
    size = f"{image.shape[2]}x{image.shape[1]}"
    common = {"images": "as the model draws them", "size": size, "range": "-1 to 1", "n": count, "n_real": count}
    real = f"{count} test images against {count} of training"
    return common | {"real": real} | metrics.protocol(count, count)


def _require_enough(samples: int, train: ImageSet, test: ImageSet) -> None:
    counts = {"--samples": samples, "training images": len(train.images), "test images": len(test.images)}
    for what, count in counts.items():
        if count < MIN_IMAGES:
            raise UserError(f"{what}: {count} are too few for the metrics; at least {MIN_IMAGES} are needed.")


def _read_other(path: Path) -> OtherEvaluation:
    """Read another evaluation, from its file or from a run's folder."""
    file = path / EVALUATION if path.is_dir() else path
    values = read_json(file, "an evaluation by dcgan evaluate")
    if "classifier" not in values:
        raise UserError(f"{file}: is not an evaluation by dcgan evaluate. Give RUN/evaluation.json of a dcgan run.")
    return from_json(OtherEvaluation, values, str(file))


def _require_comparable(
    other: OtherEvaluation, samples: int, classifier: FeatureClassifier, protocol: Mapping[str, Any]
) -> None:
    digest = str(other.classifier.get("digest"))
    if digest != classifier.digest:
        raise UserError(
            f"--compare: {other.model} was measured with another classifier ({digest[:12]}, here "
            f"{classifier.digest[:12]}), so that the metrics are not comparable. Evaluate that model again here first."
        )
    if other.pictures != samples:
        raise UserError(
            f"--compare: {other.model} was measured with {other.pictures} images, and distances depend on their "
            f"number. Give --samples {other.pictures}."
        )
    if protocol and other.protocol and (differing := differences(other.protocol, protocol)):
        raise UserError(
            f"--compare: {other.model} was measured by another protocol ({'; '.join(differing)}), so that the metrics "
            "are not comparable. Evaluate that model again here first."
        )
