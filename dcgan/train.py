"""Training of a digit GAN: from options to a finished run folder."""

import hashlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from dcgan.classifier import find_cached
from dcgan.config import NAMES, DcganConfig, ModelConfig, check, left_out
from dcgan.data import ImageSet, ImageSetDataset, choose, leave_out, load_images
from dcgan.grid import grid
from dcgan.measures import label_entropy
from dcgan.model import GENERATOR, DigitModelConfig, Sampler, build, save_sampler
from dcgan.networks import init_weights
from dcgan.step import DcganStep
from dcgan.validation import PixelFrechet
from ganvas.data.listing import describe_unread
from ganvas.data.tensors import to_display
from ganvas.device import choose_precision
from ganvas.errors import UserError
from ganvas.losses import lowest_gan_loss_d
from ganvas.markdown import escape_markdown
from ganvas.models.card import sample_line, settings
from ganvas.training.datarecord import DataPart, DataRecord
from ganvas.training.ema import Ema
from ganvas.training.fabric import can_compile, set_up
from ganvas.training.loop import Batch, Data
from ganvas.training.monitors import SURE, CollapseWatch, Sight
from ganvas.training.optimizer import Adam, make_adam
from ganvas.training.run import Say, loading_workers, run_training

SAMPLE_ROWS, SAMPLE_COLUMNS, SAMPLE_SCALE = 8, 10, 2
VALIDATION_PICTURES = 2000  # ten times the covariance's rank and more; drawn in a second or two
REAL_PICTURES = 10_000  # that validation compares with
FEWEST_PICTURES = 2  # that have a spread
WATCHED_PICTURES = 256  # their spread is then known to about 3%
CURE = 0.5  # of Adam's beta1 (Radford et al. 2016, Sec. 4): the one change that ended a collapse (docs/collapse.md)


class Dcgan:
    """The model as the training loop sees it.

    Args:
        config: Options.
        data: Training images.
        fabric: Device, precision and processes.
        run: The run's folder.
        compiled: Train compiled networks.
    """

    criteria = ("val_frechet",)

    def __init__(
        self, config: DcganConfig, data: ImageSet, fabric: Fabric, run: Path, *, compiled: bool = False
    ) -> None:
        self.config, self.data, self.fabric, self.run = config, data, fabric, run
        self.spec = _describe(config, data)
        G, D = build(self.spec)
        chance = torch.Generator().manual_seed(config.seed)
        self.networks: dict[str, nn.Module] = {}
        self.optimizers: dict[str, Adam] = {}
        wrapped = {}
        for name, network in (("G", G), ("D", D)):
            init_weights(network, config.model.start, chance)
            wrapped[name] = set_up(fabric, network, compiled=compiled)
            self.networks[name] = network
            self.optimizers[name] = make_adam(network, config.optimizer)
        self.ema = Ema(G, config.optimizer.ema) if config.optimizer.ema else None
        if self.ema is not None:
            self.networks["G_ema"] = self.ema
        self.precision = choose_precision(config.hardware.precision, fabric.device.type)
        self._update = self._make_step(wrapped)
        # The tutorials choose no step: their systems are shared as the training ends, not as they were at their best.
        ours = config.model.preset == "dcgan"
        real = data.images[choose(len(data.images), REAL_PICTURES)]
        self._distance = PixelFrechet(real) if ours else None
        watched = data.images[choose(len(data.images), WATCHED_PICTURES)]
        self._watch = CollapseWatch(watched, _advice(config), won_loss=_won_loss(config.model))
        self._judge = find_cached(data)

    def _make_step(self, wrapped: Mapping[str, nn.Module]) -> DcganStep:
        """Put the networks, as the training calls them, and their optimizers into a step."""
        model = self.config.model
        return DcganStep(
            wrapped["G"],
            wrapped["D"],
            self.optimizers["G"],
            self.optimizers["D"],
            latent_dim=self.spec.latent_dim,
            num_classes=self.spec.num_classes,
            latent=self.spec.latent,
            order=model.step_order,
            gan_loss=model.gan_loss,
            label_smoothing=model.label_smoothing,
            bf16=self.precision == "bf16",
        )

    def step(self, batch: Batch) -> dict[str, Tensor]:
        """Update both networks, and the average of G where one is kept."""
        losses = self._update(batch)
        if self.ema is not None:
            self.ema.update(self.networks["G"])
        return losses

    def validate(self) -> dict[str, float]:
        """Compare drawn images with training images, by their pixels; empty for the tutorials' systems."""
        if self._distance is None:
            return {}
        with self._sampler() as sampler:
            return {"val_frechet": self._distance(sampler.sample(VALIDATION_PICTURES, seed=1))}

    def sample(self) -> np.ndarray:
        """Draw images of the same noise each time.

        With labels, each column is a class, and classes take turns where they are fewer than the columns; of more than
        there are columns each image in turn is one, as far as the images go.
        """
        count, K = SAMPLE_ROWS * SAMPLE_COLUMNS, self.spec.num_classes
        turns = torch.arange(count)
        labels = (turns % SAMPLE_COLUMNS if K <= SAMPLE_COLUMNS else turns) % K if K else None
        with self._sampler() as sampler:
            pictures = sampler.sample(count, seed=0, labels=labels)
        shown = to_display(grid(pictures, SAMPLE_COLUMNS))
        return shown.repeat(SAMPLE_SCALE, axis=0).repeat(SAMPLE_SCALE, axis=1)

    def watch(self, losses: Mapping[str, float]) -> Sight:
        """Look whether the images become alike, and, where a classifier is at hand, which classes are drawn."""
        with self._sampler() as sampler:
            pictures = sampler.sample(WATCHED_PICTURES, seed=2)
        if self._judge is None or self.data.labels is None or self.spec.num_classes:
            return self._watch.look(pictures, losses)
        K = len(self.data.classes)
        labels, _ = self._judge.predict(pictures)
        entropy = label_entropy(labels, K)
        # As many even classes as have this entropy, over those of the real images.
        sight = self._watch.look(pictures, losses, kinds=2 ** (entropy - label_entropy(self.data.labels, K)))
        return Sight(sight.values | {"label_entropy": entropy}, sight.warnings)

    def state_dict(self) -> dict[str, Any]:
        """Return which network is the model, and what the watch has seen."""
        return {"networks": {GENERATOR: "G" if self.ema is None else "G_ema"}, "watch": self._watch.memory}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what the watch has seen."""
        self._watch.memory = state["watch"]

    def save_model(self, step: int, metrics: Mapping[str, float]) -> None:
        """Write RUN/model."""
        spec = _describe(self.config, self.data, {"step": step, "metrics": dict(metrics), "seed": self.config.seed})
        card, sample = _card(self.config, spec), self.sample()
        with self._sampler() as sampler:
            save_sampler(self.run / "model", spec, sampler.generator, card, sample)

    @contextmanager
    def _sampler(self) -> Iterator[Sampler]:
        """Lend the generator that is to be judged and shared, in eval mode: the average where one is kept."""
        G = self.networks["G"] if self.ema is None else self.ema.network
        try:
            yield Sampler(self.spec, G, self.fabric.device)
        finally:
            G.train()


def train_dcgan(config: DcganConfig, run: Path, *, resume: bool) -> int:
    """Train, or go on training, in the folder ``run``; give the process's exit code.

    Raises:
        UserError: Bad options or data, a folder that cannot be written, a training that diverged.
    """
    check(config)
    options = config.data
    data = load_images(options.data, root=options.data_root, image_size=options.image_size, channels=options.channels)
    options = replace(options, channels=data.images.shape[1])
    config = replace(config, data=options)
    data = leave_out(data, left_out(config))
    if len(data.images) < FEWEST_PICTURES:
        raise UserError(
            f"--data {options.data}: leaves {len(data.images)} image to learn from, and {FEWEST_PICTURES} is the "
            "least. Give more, or leave out fewer (--leave-out)."
        )

    def start(fabric: Fabric, say: Say) -> tuple[Dcgan, Data, DataRecord]:
        compiled = config.hardware.compile and can_compile(fabric.device.type, say)
        model = Dcgan(config, data, fabric, run, compiled=compiled)
        _say_what(say, model)
        training_set = ImageSetDataset(data, options.pixel_range)
        workers = loading_workers(config.hardware, fabric)
        return model, Data(training_set, len(training_set), options.batch_size, workers), _record(config, data)

    return run_training("dcgan", config, run, start, resume=resume, describe_best=_describe_best)


def _record(config: DcganConfig, data: ImageSet) -> DataRecord:
    N, C, H, W = data.images.shape
    # Images lie in the order of their names, which the digest of their pixels tells too.
    parts = {"train": DataPart(True, f"{N} images of {W} x {H} pixels and {C} channels", order="", content=data.digest)}
    if data.classes:
        digest = hashlib.sha256(repr(data.classes).encode()).hexdigest()
        names = dict.fromkeys(data.classes, 0)
        parts["classes"] = DataPart(True, f"{len(data.classes)} classes", order=digest, content=digest, sizes=names)
    name = config.data.data
    return DataRecord(name if name in NAMES else str(Path(name).resolve()), parts)


def _describe(config: DcganConfig, data: ImageSet, training: Mapping[str, object] | None = None) -> DigitModelConfig:
    """Say what the model is, from the options and the data's own size and classes."""
    model = config.model
    if model.conditional and data.labels is None:
        raise UserError(f"--data {config.data.data}: has no labels. Put each class into a folder of its own.")
    _, C, S, _ = data.images.shape
    return DigitModelConfig(
        preset=model.preset,
        image_size=S,
        channels=C,
        num_classes=len(data.classes) if model.conditional else 0,
        latent_dim=model.latent_dim,
        latent=model.latent,
        norm=model.norm,
        base_channels=model.base_channels,
        extra_layers=model.extra_layers,
        pixel_range=config.data.pixel_range,
        classes=data.classes,
        data=Path(config.data.data).name,  # the model is shared, and this machine's folders are not
        data_digest=data.digest,
        training=dict(training or {}),
    )


def _advice(config: DcganConfig) -> str:
    """Say what helps against a collapse: what was measured to, where it is not so already."""
    if config.optimizer.beta1 > CURE:
        advice = f"What helps: --beta1 {CURE}"
    else:
        advice = "What may help: a smaller --lr, or --label-smoothing 0.1"
    other = "" if config.model.preset == "dcgan" else ", or --preset dcgan"
    return f"{advice}{other}. See docs/collapse.md."


def _won_loss(model: ModelConfig) -> float:
    """Return the value of loss_d below which the discriminator has won; "keras" logs the mean of D's two losses."""
    loss = lowest_gan_loss_d(model.gan_loss, label_smoothing=model.label_smoothing) + SURE
    return 0.5 * loss if model.step_order == "keras" else loss


def _say_what(say: Say, model: Dcgan) -> None:
    G, D = (sum(p.numel() for p in model.networks[name].parameters()) / 1e6 for name in ("G", "D"))
    spec = model.spec
    steered = f" of {spec.num_classes} classes" if spec.num_classes else ""
    say(
        f"{spec.preset}: {len(model.data.images)} images of {model.data.name}{steered}, {spec.image_size} pixels, "
        f"batch {model.config.data.batch_size}; G {G:.2f}M and D {D:.2f}M parameters; {model.fabric.device.type}, "
        f"{model.precision}, {torch.get_num_threads()} threads."
    )
    if unread := describe_unread(model.data.unread):
        say(unread)


def _describe_best(best: Mapping[str, float]) -> list[str]:
    return [f"Fréchet distance of pixels {best['val_frechet']:.4f} (dcgan evaluate measures it properly)."]


def _card(config: DcganConfig, spec: DigitModelConfig) -> str:
    """Write the model card: what it draws, what it learned from, how to use it."""
    classes, data = escape_markdown(", ".join(spec.classes) or "not known"), escape_markdown(spec.data)
    return f"""# {data}, drawn by {spec.preset}

A generator of {spec.image_size}-pixel images, trained with ganvas.

- Data: {data}; classes: {classes}
- Draws the class that is asked for: {"yes" if spec.num_classes else "no"}
- Steps: {spec.training["step"]}, seed {spec.training["seed"]}
- Licence of the weights: not stated. Choose one before you share them (push --license)

{sample_line("What it draws")}

```
dcgan sample THIS_FOLDER digits.png
```

{settings(config)}
"""
