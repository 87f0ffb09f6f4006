"""The feature classifier that ``dcgan evaluate`` measures with: trained once for a dataset and then cached.

Its penultimate layer is the feature space (instead of Inception's in Heusel et al. 2017, which is for photographs), and
its labels tell which classes are drawn. Training runs on the CPU from a fixed seed and does not touch the global random
state. Other thread counts, versions and machines round differently and result in other weights: metrics are comparable
only if `FeatureClassifier.digest` is equal.
"""

import hashlib
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dcgan.data import ImageSet
from ganvas.errors import UserError
from ganvas.files import new_folder
from ganvas.json_files import read_json, write_json
from ganvas.log import logger, track
from ganvas.models.folder import load_weights
from ganvas.models.tensors import load_tensors, save_tensors

VERSION = 1  # of the network and its training; classifiers of another version are trained again
CONFIG, WEIGHTS = "config.json", "weights.safetensors"
REQUIRED_ACCURACY = {"mnist": 0.990, "mnist5k": 0.975, "fashion-mnist": 0.910}  # the last: three seeds, 0.917 to 0.920
FAIR_ACCURACY = 0.9  # of other datasets: a warning below it

WIDTH = 128  # of the features
MAX_SIDE = 32  # pixels; larger images are downscaled to it, so that every dataset takes minutes
BATCH_SIZE = 128
TRAINING_IMAGES = 1875 * BATCH_SIZE  # for any dataset: four epochs of MNIST, sixty of mnist5k
LR = 3e-3
WEIGHT_DECAY = 0.01
MAX_SHIFT = 1  # pixels each way, as augmentation


class ClassifierNetwork(nn.Module):
    """Three 3x3 convolutions with batch norm, and a dense layer whose ReLU outputs are the features."""

    def __init__(self, channels: int, num_classes: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            *_convolution(channels, 16),
            nn.MaxPool2d(2),
            *_convolution(16, 32),
            nn.MaxPool2d(2),
            *_convolution(32, 64),
            nn.AdaptiveMaxPool2d(4),
            nn.Flatten(),  # [N, 64 * 4 * 4]
            nn.Linear(64 * 4 * 4, WIDTH, bias=False),
            nn.BatchNorm1d(WIDTH),  # gives all features the same scale, for distances between them
            nn.ReLU(inplace=True),
        )
        self.head = nn.Linear(WIDTH, num_classes)

    def features(self, images: Tensor) -> Tensor:
        """Return the penultimate layer of images [N, C, S, S] uint8: [N, 128], not negative."""
        x = images.float() / 127.5 - 1
        if x.shape[-1] > MAX_SIDE:
            x = F.adaptive_avg_pool2d(x, MAX_SIDE)
        return self.body(x)

    def forward(self, images: Tensor) -> Tensor:
        """Classify images, [N, C, S, S] uint8, as logits [N, K]."""
        return self.head(self.features(images))


def _convolution(inputs: int, outputs: int) -> list[nn.Module]:
    return [nn.Conv2d(inputs, outputs, 3, padding=1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU(inplace=True)]


@dataclass(frozen=True)
class FeatureClassifier:
    """A trained classifier.

    Attributes:
        network: In eval mode, on the CPU.
        accuracy: On the real test images.
        digest: SHA-256 of its weights.
    """

    network: ClassifierNetwork
    accuracy: float
    digest: str

    @torch.no_grad()
    def features(self, images: Tensor, batch_size: int = 500) -> Tensor:
        """Return the features of images [n, C, S, S] uint8: [n, 128] float32."""
        return torch.cat([self.network.features(part) for part in images.split(batch_size)])

    @torch.no_grad()
    def classify(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Return labels [n] int64 and confidences [n] in (0, 1] for the output of `features`."""
        confidence, labels = self.network.head(features).softmax(dim=1).max(dim=1)
        return labels, confidence

    def predict(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return labels [n] int64 and confidences [n] in (0, 1] of images [n, C, S, S] uint8."""
        return self.classify(self.features(images))


def cached_classifier(train: ImageSet, test: ImageSet) -> FeatureClassifier:
    """Return the classifier of a dataset, from the cache or newly trained.

    Raises:
        UserError: The images have no labels, or the accuracy is below what is required for the dataset.
    """
    classifier = find_cached(train)
    if classifier is None:
        if _cache_folder(train).exists():
            logger.warning(f"{_cache_folder(train)}: is damaged or of another version; training the classifier again.")
        classifier = train_classifier(train, test)
        _require_accuracy(train.name, classifier.accuracy)
        _save(classifier, train)
    if train.name not in REQUIRED_ACCURACY and classifier.accuracy < FAIR_ACCURACY:
        logger.warning(
            f"Warning: the classifier's accuracy on the real test images of {train.name} is only "
            f"{classifier.accuracy:.1%}. Metrics that use its labels (coverage of classes, entropy, fidelity) are "
            "unreliable."
        )
    return classifier


def find_cached(train: ImageSet) -> FeatureClassifier | None:
    """Return the classifier of a training set if an undamaged one is cached."""
    try:
        folder = _cache_folder(train)
        config = read_json(folder / CONFIG, "a classifier's config")
        if not config.items() >= _identity(train).items():
            return None
        network = ClassifierNetwork(train.images.shape[1], len(train.classes))
        load_weights(network, load_tensors(folder / WEIGHTS), str(folder / WEIGHTS))
        digest = weights_digest(network)
        if digest != config["digest"]:
            return None
        return FeatureClassifier(network.eval(), float(config["accuracy"]), digest)
    except (UserError, KeyError, TypeError, ValueError):
        return None


def train_classifier(train: ImageSet, test: ImageSet, *, seed: int = 0) -> FeatureClassifier:
    """Train a classifier on the CPU, in a minute or two, and measure its accuracy.

    AdamW with a one-cycle learning rate (Smith and Topin 2018); images are shifted by up to a pixel.

    Args:
        train: Training images, with labels.
        test: Test images, with labels.
        seed: Seed of weights, order and shifts.

    Raises:
        UserError: Labels are missing, or the two sets differ in classes or size.
    """
    labels, test_labels = _labels(train), _labels(test)
    if (train.classes, train.images.shape[1:]) != (test.classes, test.images.shape[1:]):
        raise UserError(
            f"{train.name}: training and test images differ in classes or size ({len(train.classes)} and "
            f"{len(test.classes)} classes). Give both the same folders of classes."
        )
    network = _build_network(train, seed)
    optimizer = torch.optim.AdamW(network.parameters(), lr=LR, weight_decay=WEIGHT_DECAY)
    steps = TRAINING_IMAGES // BATCH_SIZE
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, LR, total_steps=steps)
    generator = torch.Generator().manual_seed(seed)
    epochs = -(-TRAINING_IMAGES // len(labels))
    order = torch.cat([torch.randperm(len(labels), generator=generator) for _ in range(epochs)])

    for i in track(range(steps), f"training the classifier of {train.name}, once", steps):
        batch = order[i * BATCH_SIZE : (i + 1) * BATCH_SIZE]
        loss = F.cross_entropy(network(_shift_randomly(train.images[batch], generator)), labels[batch])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()

    digest = weights_digest(network.eval())
    predicted, _ = FeatureClassifier(network, 0.0, digest).predict(test.images)
    return FeatureClassifier(network, (predicted == test_labels).double().mean().item(), digest)


def weights_digest(network: nn.Module) -> str:
    """Return the SHA-256 of a network's weights: names, shapes and values."""
    digest = hashlib.sha256()
    for name, value in network.state_dict().items():
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        digest.update(value.contiguous().numpy().tobytes())
    return digest.hexdigest()


def _build_network(train: ImageSet, seed: int) -> ClassifierNetwork:
    """Build the network in training mode, with the global random state as before."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)  # torch.manual_seed would seed the accelerators, too
        return ClassifierNetwork(train.images.shape[1], len(train.classes)).train()


def _shift_randomly(images: Tensor, generator: torch.Generator) -> Tensor:
    """Shift each of [N, C, S, S] by up to `MAX_SHIFT` pixels each way, padded with black."""
    N, C, S, _ = images.shape
    padded = F.pad(images, (MAX_SHIFT,) * 4)
    top, left = torch.randint(0, 2 * MAX_SHIFT + 1, (2, N, 1), generator=generator)
    rows, columns = top + torch.arange(S), left + torch.arange(S)  # [N, S]
    n, c = torch.arange(N)[:, None, None, None], torch.arange(C)[None, :, None, None]
    return padded[n, c, rows[:, None, :, None], columns[:, None, None, :]]


def _labels(data: ImageSet) -> Tensor:
    if data.labels is None:
        raise UserError(
            f"{data.name}: has no labels, and the classifier that measures drawn images learns from them. "
            "Put the images of each class into a folder of its own."
        )
    return data.labels


def _require_accuracy(name: str, accuracy: float) -> None:
    required = REQUIRED_ACCURACY.get(name, 0.0)
    if accuracy < required:
        raise UserError(
            f"The classifier of {name} has an accuracy of {accuracy:.2%} on the real test images; {required:.1%} is "
            "required for meaningful metrics. It was not kept. Check that the data is complete (download it again)."
        )


def _identity(train: ImageSet) -> dict[str, Any]:
    return {"version": VERSION, "data": train.name, "data_digest": train.digest}


def _cache_folder(train: ImageSet) -> Path:
    home = os.environ.get("GANVAS_CACHE")
    try:
        root = Path(home) if home else Path.home() / ".cache" / "ganvas"
    except RuntimeError:  # a user without a home, as in some containers
        raise UserError("There is no home folder for the cache. Set GANVAS_CACHE to a folder.") from None
    name = re.sub(r"[^\w.-]", "_", train.name)
    return root / "classifiers" / f"{name}-{train.digest[:12]}-{train.image_size}"


def _save(classifier: FeatureClassifier, train: ImageSet) -> None:
    config = _identity(train) | {"accuracy": classifier.accuracy, "digest": classifier.digest}
    try:
        with new_folder(_cache_folder(train)) as temporary:
            save_tensors(temporary / WEIGHTS, classifier.network.state_dict())
            write_json(temporary / CONFIG, config)
    except UserError as error:
        logger.warning(f"{error} The classifier is not cached. Set GANVAS_CACHE to another folder.")
