"""The judge of drawn images: a small classifier of the real ones, trained once for a dataset and then kept.

Its penultimate layer is the feature space of ``dcgan evaluate`` (in the place of Inception's in Heusel et al. 2017,
which knows photographs), and its labels say what was drawn. Training runs on the CPU from a fixed seed and leaves the
global random state alone. Other thread counts, versions and machines round differently and give other weights: figures
are comparable where `Judge.digest` is equal, and only there.
"""

import hashlib
import os
import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from rich.console import Console
from rich.progress import track
from torch import Tensor, nn

from dcgan.data import Pictures
from ganvas.errors import UserError
from ganvas.files import new_folder
from ganvas.json_files import read_json, write_json
from ganvas.models.folder import load_weights
from ganvas.models.tensors import load_tensors, save_tensors

VERSION = 1  # of the classifier and its training; another one is trained again
CONFIG, WEIGHTS = "config.json", "weights.safetensors"
BARS = {"mnist": 0.990, "mnist5k": 0.975, "fashion-mnist": 0.910}  # the last: three seeds gave 0.917 to 0.920
FAIR_ACCURACY = 0.9  # of other data: below it, a warning

WIDTH = 128  # of the features
LARGEST_SIDE = 32  # pixels; larger images are averaged down to it, so that every set trains in minutes
BATCH_SIZE = 128
SEEN = 1875 * BATCH_SIZE  # images in training, whatever the set: MNIST goes by four times, mnist5k sixty times
LR = 3e-3
WEIGHT_DECAY = 0.01
SHIFT = 1  # pixel, at most, each way: nothing is drawn exactly in the middle


class Classifier(nn.Module):
    """Three 3x3 convolutions with batch norm, then a dense layer whose ReLU gives the features.

    Args:
        channels: Of the images.
        num_classes: K.
    """

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
            nn.BatchNorm1d(WIDTH),  # gives all features a like scale, as distances between them need
            nn.ReLU(inplace=True),
        )
        self.head = nn.Linear(WIDTH, num_classes)

    def features(self, pictures: Tensor) -> Tensor:
        """Give the penultimate layer.

        Args:
            images: [N, C, S, S] uint8.

        Returns:
            [N, 128], not negative.
        """
        x = pictures.float() / 127.5 - 1
        if x.shape[-1] > LARGEST_SIDE:
            x = F.adaptive_avg_pool2d(x, LARGEST_SIDE)
        return self.body(x)

    def forward(self, pictures: Tensor) -> Tensor:
        """Classify images, [N, C, S, S] uint8, as logits [N, K]."""
        return self.head(self.features(pictures))


def _convolution(inputs: int, outputs: int) -> list[nn.Module]:
    return [nn.Conv2d(inputs, outputs, 3, padding=1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU(inplace=True)]


@dataclass(frozen=True)
class Judge:
    """A trained classifier.

    Attributes:
        network: In eval mode, on the CPU.
        accuracy: Share of the real test images that it classifies rightly.
        digest: SHA-256 of its weights.
    """

    network: Classifier
    accuracy: float
    digest: str

    @torch.no_grad()
    def features(self, pictures: Tensor, batch_size: int = 500) -> Tensor:
        """Give the feature vectors of images, [n, C, S, S] uint8, as [n, 128] float32."""
        return torch.cat([self.network.features(part) for part in pictures.split(batch_size)])

    @torch.no_grad()
    def classify(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Give labels, [n] int64, and confidences, [n] in (0, 1], of what `features` gave."""
        confidence, labels = self.network.head(features).softmax(dim=1).max(dim=1)
        return labels, confidence

    def predict(self, pictures: Tensor) -> tuple[Tensor, Tensor]:
        """Give labels, [n] int64, and confidences, [n] in (0, 1], of images, [n, C, S, S] uint8."""
        return self.classify(self.features(pictures))


def cached_classifier(train: Pictures, test: Pictures) -> Judge:
    """Give the judge of a dataset: the one that is kept, or a new one, which is then kept.

    A cache that cannot be read or written costs a line on standard error, and time.

    Raises:
        UserError: The images have no labels, or the classifier stays below the bar of its dataset.
    """
    judge = find_cached(train)
    if judge is None:
        if _cache_folder(train).exists():
            _note(f"{_cache_folder(train)}: is damaged or of another version; the classifier is trained again.")
        judge = train_classifier(train, test)
        _require_bar(train.name, judge.accuracy)
        _keep(judge, train)
    if train.name not in BARS and judge.accuracy < FAIR_ACCURACY:
        _note(
            f"Warning: the classifier is right on only {judge.accuracy:.1%} of the real test images of {train.name}. "
            "Figures that go by its labels (coverage of classes, entropy, fidelity) say little."
        )
    return judge


def find_cached(train: Pictures) -> Judge | None:
    """Give the judge of a training set if a whole one is kept; never train one."""
    try:
        folder = _cache_folder(train)
        config = read_json(folder / CONFIG, "a classifier's config")
        if not config.items() >= _identity(train).items():
            return None
        network = Classifier(train.pictures.shape[1], len(train.classes))
        load_weights(network, load_tensors(folder / WEIGHTS), str(folder / WEIGHTS))
        digest = weights_digest(network)
        return Judge(network.eval(), float(config["accuracy"]), digest) if digest == config["digest"] else None
    except (UserError, KeyError, TypeError, ValueError):
        return None


def train_classifier(train: Pictures, test: Pictures, *, seed: int = 0) -> Judge:
    """Train a classifier on the CPU and measure it; a minute or two.

    Adam with decoupled weight decay, at a rate that rises and falls once (Smith and Topin 2018); shifts of a pixel.

    Args:
        train: Training images, with labels.
        test: Images to measure the accuracy on, with labels.
        seed: Decides the weights, the order and the shifts.

    Raises:
        UserError: There are no labels, or the two sets are of different classes or sizes.
    """
    labels, test_labels = _labels(train), _labels(test)
    if (train.classes, train.pictures.shape[1:]) != (test.classes, test.pictures.shape[1:]):
        raise UserError(
            f"{train.name}: training and test images differ in classes or size ({len(train.classes)} and "
            f"{len(test.classes)} classes). Give both the same folders of classes."
        )
    network = _start(train, seed)
    optimizer = torch.optim.AdamW(network.parameters(), lr=LR, weight_decay=WEIGHT_DECAY)
    batches = SEEN // BATCH_SIZE
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, LR, total_steps=batches)
    chance = torch.Generator().manual_seed(seed)
    passes = -(-SEEN // len(labels))
    order = torch.cat([torch.randperm(len(labels), generator=chance) for _ in range(passes)])

    progress = Console(stderr=True)
    title = f"training the classifier of {train.name}, once"
    for i in track(range(batches), title, console=progress, transient=True, disable=not progress.is_terminal):
        chosen = order[i * BATCH_SIZE : (i + 1) * BATCH_SIZE]
        loss = F.cross_entropy(network(_shifted(train.pictures[chosen], chance)), labels[chosen])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()

    unmeasured = Judge(network.eval(), 0.0, weights_digest(network))
    predicted, _ = unmeasured.predict(test.pictures)
    return Judge(network, (predicted == test_labels).double().mean().item(), unmeasured.digest)


def weights_digest(network: nn.Module) -> str:
    """Give the SHA-256 of a network's weights: names, shapes and values."""
    digest = hashlib.sha256()
    for name, value in network.state_dict().items():
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        digest.update(value.contiguous().numpy().tobytes())
    return digest.hexdigest()


def _start(train: Pictures, seed: int) -> Classifier:
    """Build the network in training mode; torch's own start draws from the global state, which is put back."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)  # torch.manual_seed would seed the accelerators too
        return Classifier(train.pictures.shape[1], len(train.classes)).train()


def _shifted(pictures: Tensor, chance: torch.Generator) -> Tensor:
    """Move each image by up to `SHIFT` pixels each way; black comes in. [N, C, S, S] to the same."""
    N, C, S, _ = pictures.shape
    padded = F.pad(pictures, (SHIFT,) * 4)
    top, left = torch.randint(0, 2 * SHIFT + 1, (2, N, 1), generator=chance)
    rows, columns = top + torch.arange(S), left + torch.arange(S)  # [N, S]
    return padded[
        torch.arange(N)[:, None, None, None],
        torch.arange(C)[None, :, None, None],
        rows[:, None, :, None],
        columns[:, None, None, :],
    ]


def _labels(data: Pictures) -> Tensor:
    if data.labels is None:
        raise UserError(
            f"{data.name}: has no labels, and the classifier that measures drawn images learns from them. "
            "Put the images of each class into a folder of its own."
        )
    return data.labels


def _require_bar(name: str, accuracy: float) -> None:
    bar = BARS.get(name, 0.0)
    if accuracy < bar:
        raise UserError(
            f"The classifier of {name} is right on {accuracy:.2%} of the real test images, and {bar:.1%} is needed "
            "for figures that mean something. Nothing was kept. Check that the data is whole (download it again)."
        )


def _identity(train: Pictures) -> dict[str, Any]:
    return {"version": VERSION, "data": train.name, "data_digest": train.digest}


def _cache_folder(train: Pictures) -> Path:
    home = os.environ.get("GANVAS_CACHE")
    try:
        root = Path(home) if home else Path.home() / ".cache" / "ganvas"
    except RuntimeError:  # a user without a home, as some containers have
        raise UserError("There is no home folder to keep a classifier in. Set GANVAS_CACHE to a folder.") from None
    name = re.sub(r"[^\w.-]", "_", train.name)
    return root / "classifiers" / f"{name}-{train.digest[:12]}-{train.image_size}"


def _keep(judge: Judge, train: Pictures) -> None:
    folder = _cache_folder(train)
    try:
        with new_folder(folder) as aside:
            save_tensors(aside / WEIGHTS, judge.network.state_dict())
            write_json(aside / CONFIG, _identity(train) | {"accuracy": judge.accuracy, "digest": judge.digest})
    except UserError as error:
        _note(f"{error} The classifier is not kept. GANVAS_CACHE names another place.")


def _note(text: str) -> None:
    print(text, file=sys.stderr)
