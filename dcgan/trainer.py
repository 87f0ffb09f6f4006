"""Training of a digit GAN: the parts that `ganvas.training.trainer` does not share."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from dcgan.classifier import find_cached
from dcgan.config import NAMES, DcganConfig, check, left_out
from dcgan.data import ImageSet, ImageSetDataset, choose, leave_out, load_images
from dcgan.grid import grid
from dcgan.measures import label_entropy
from dcgan.model import GENERATOR, DigitModelConfig, Sampler, build, load_sampler, save_sampler
from dcgan.networks import TUTORIAL_SIZE, init_weights
from dcgan.step import DcganStep, ExtraLosses
from dcgan.validation import PixelFrechet
from ganvas.data.listing import describe_unread
from ganvas.data.tensors import to_display
from ganvas.errors import UserError
from ganvas.markdown import escape_markdown
from ganvas.models.card import sample_line, settings
from ganvas.training.batches import DataSpec
from ganvas.training.datarecord import DataPart, DataRecord
from ganvas.training.figures import diversity
from ganvas.training.monitors import Check, Monitor, collapsed, d_won, g_frozen, leveled_off, won_loss
from ganvas.training.run import TrainedParts, TrainResult, loading_workers, run_training
from ganvas.training.trainer import GanNetworks, GanParts, GanTrainer

SAMPLE_ROWS, SAMPLE_COLUMNS, SAMPLE_SCALE = 8, 10, 2
VALIDATION_IMAGES = 2000  # ten times the covariance's rank and more; drawn in a second or two
REAL_IMAGES = 10_000  # that validation compares with
MIN_IMAGES = 2  # that have a spread
MONITOR_IMAGES = 256  # their spread is then known to about 3%
CURE = 0.5  # of Adam's beta1 (Radford et al. 2016, Sec. 4): the one change that ended a collapse (docs/collapse.md)


def train_dcgan(
    config: DcganConfig,
    run: Path,
    *,
    resume: bool,
    callbacks: Sequence[object] = (),
    generator: nn.Module | None = None,
    discriminator: nn.Module | None = None,
    losses: ExtraLosses | None = None,
) -> TrainResult:
    """Train, or continue training, in the folder ``run``.

    Args:
        config: All options.
        run: The run's folder.
        resume: Whether to continue from the newest checkpoint.
        callbacks: See `ganvas.training.callbacks`.
        generator: The user's own, (z [N, latent_dim], labels [N] or None) to [N, C, S, S].
        discriminator: The user's own, (x [N, C, S, S], labels [N] or None) to logits [N].
        losses: Further terms of G's loss: weight and function of noise, output and real images, by name.

    Raises:
        UserError: Bad options or data, a folder that cannot be written, a training that diverged.
    """
    check(config)
    options = config.data
    data = load_images(options.data, root=options.data_root, image_size=options.image_size, channels=options.channels)
    config = replace(config, data=replace(options, channels=data.images.shape[1]))
    data = leave_out(data, left_out(config))
    if len(data.images) < MIN_IMAGES:
        raise UserError(
            f"--data {options.data}: leaves {len(data.images)} image to learn from, and {MIN_IMAGES} is the "
            "minimum. Add images, or leave out fewer (--leave-out)."
        )

    def build(fabric: Fabric, cache: object) -> TrainedParts:
        return build_training(config, data, run, fabric, generator, discriminator, losses)

    def load(path: Path) -> Sampler:
        return load_sampler(path, generator=generator)

    return run_training("dcgan", config, run, build, load, resume=resume, callbacks=callbacks)


def build_training(
    config: DcganConfig,
    data: ImageSet,
    run: Path,
    fabric: Fabric,
    generator: nn.Module | None = None,
    discriminator: nn.Module | None = None,
    losses: ExtraLosses | None = None,
) -> TrainedParts:
    """Build the networks and everything around them; see `train_dcgan`."""
    model, spec = config.model, _model_config(config, data, generator)
    networks = GanNetworks(
        fabric,
        _initial_networks(config, spec, generator, discriminator),
        {GENERATOR: "G"},
        config.optimizer,
        config.hardware,
    )
    step = DcganStep(
        networks.callables["G"],
        networks.callables["D"],
        networks.optimizers["G"],
        networks.optimizers["D"],
        latent_dim=spec.latent_dim,
        num_classes=spec.num_classes,
        latent=spec.latent,
        order=model.step_order,
        gan_loss=model.gan_loss,
        label_smoothing=model.label_smoothing,
        extra_losses=losses,
        bf16=networks.bf16,
    )
    task = _Task(config, data, networks, spec, fabric.device)
    parts = GanParts(
        step=lambda batch, _: step(batch),
        sample=task.sample,
        save_model=task.save_model,
        # The tutorials choose no step: their systems are shared as the training ends, not as they were at their best.
        score=task.score if model.preset == "dcgan" else None,
        criteria=("val_frechet",),
        monitor=_monitor(config, data, task),
    )
    training_set = ImageSetDataset(data, config.data.pixel_range)
    workers = loading_workers(config.hardware, fabric)
    return TrainedParts(
        GanTrainer(run, networks, parts),
        DataSpec(training_set, len(training_set), config.data.batch_size, workers),
        _record(config, data),
        _describe(config, data, networks, spec, fabric),
    )


def _initial_networks(
    config: DcganConfig, spec: DigitModelConfig, generator: nn.Module | None, discriminator: nn.Module | None
) -> dict[str, nn.Module]:
    """Build G and D with initial weights from the seed; networks of the user's own keep theirs."""
    rng = torch.Generator().manual_seed(config.seed)
    networks = {"G": generator, "D": discriminator}
    if generator is None or discriminator is None:
        try:
            built = dict(zip("GD", build(spec), strict=True))
        except ValueError as error:
            raise UserError(f"--preset {spec.preset}: {error}. {_size_advice(spec)}") from None
        for name, network in built.items():
            if networks[name] is None:
                init_weights(network, config.model.init, rng)
                networks[name] = network
    return {name: network for name, network in networks.items() if network is not None}


def _size_advice(spec: DigitModelConfig) -> str:
    """Return how to train on images whose size or channels a preset does not draw."""
    if spec.preset == "dcgan":
        return "Give one of these as --image-size."
    if spec.channels not in (1, 3):  # only gray and color are converted
        return "Use --preset dcgan for other images."
    return f"Use --image-size {TUTORIAL_SIZE} --channels 1 to make them so, or --preset dcgan for other images."


class _Task:
    """Scores, samples and the model folder of a digit training."""

    def __init__(
        self, config: DcganConfig, data: ImageSet, networks: GanNetworks, spec: DigitModelConfig, device: torch.device
    ) -> None:
        self._config, self._data, self._networks, self._spec = config, data, networks, spec
        self._device = device
        self._distance: PixelFrechet | None = None

    def draw(self, count: int, seed: int, labels: Tensor | None = None) -> Tensor:
        """Return generated images, [count, C, S, S] uint8, as the finished model draws them."""
        with self._networks.evaluating(GENERATOR) as network:
            return Sampler(self._spec, network, self._device).sample(count, seed=seed, labels=labels)

    def score(self, mode: object) -> dict[str, float]:
        """Return the distance of generated images from training images, by their pixels."""
        if self._distance is None:
            images = self._data.images
            self._distance = PixelFrechet(images[choose(len(images), REAL_IMAGES)])
        return {"val_frechet": self._distance(self.draw(VALIDATION_IMAGES, seed=1))}

    def sample(self) -> np.ndarray:
        """Return a grid of images of the same noise each time.

        With labels, each column is a class. With fewer classes than columns, or more, images are of each class in turn.
        """
        count, K = SAMPLE_ROWS * SAMPLE_COLUMNS, self._spec.num_classes
        indices = torch.arange(count)
        labels = (indices % SAMPLE_COLUMNS if K <= SAMPLE_COLUMNS else indices) % K if K else None
        shown = to_display(grid(self.draw(count, seed=0, labels=labels), SAMPLE_COLUMNS))
        return shown.repeat(SAMPLE_SCALE, axis=0).repeat(SAMPLE_SCALE, axis=1)

    def save_model(self, folder: Path, step: int, metrics: Mapping[str, float]) -> None:
        """Write the model folder."""
        training = {"step": step, "metrics": dict(metrics), "seed": self._config.seed}
        spec = replace(self._spec, training=training)
        with self._networks.evaluating(GENERATOR) as network:
            save_sampler(folder, spec, network, _card(self._config, spec), self.sample())


def _monitor(config: DcganConfig, data: ImageSet, task: _Task) -> Monitor:
    """Choose the checks; if a classifier of this data is at hand, it counts the classes that are drawn."""
    model, classifier, K = config.model, find_cached(data), len(data.classes)
    labels = None if model.conditional else data.labels
    real = data.images[choose(len(data.images), MONITOR_IMAGES)]

    def figures() -> dict[str, float]:
        images = task.draw(MONITOR_IMAGES, seed=2)
        found = {"diversity": diversity(images, real)}
        if classifier is not None and labels is not None:
            entropy = label_entropy(classifier.predict(images)[0], K)
            # As many even classes as have this entropy, over those of the real images.
            found |= {"label_entropy": entropy, "label_variety": 2 ** (entropy - label_entropy(labels, K))}
        return found

    below = won_loss(model.gan_loss, label_smoothing=model.label_smoothing, halved=model.step_order == "keras")
    advice = _advice(config)
    shares = {
        "diversity": "their spread is {:.0%} of the real images'",
        "label_variety": "they are of {:.0%} as many kinds",
    }
    checks: dict[str, Check] = {
        "mode collapse": partial(collapsed, figures=shares, advice=advice),
        "D has won": partial(d_won, below=below, advice=advice),
        "G is frozen": g_frozen,
        "leveled off": partial(leveled_off, losses=("loss_d", "loss_g_gan")),
    }
    return Monitor(checks, advisory=["leveled off"], views=figures)


def _record(config: DcganConfig, data: ImageSet) -> DataRecord:
    N, C, H, W = data.images.shape
    # Images are in the order of their names, which the digest of their pixels covers.
    parts = {"train": DataPart(True, f"{N} images of {W} x {H} pixels and {C} channels", order="", content=data.digest)}
    if data.classes:
        digest = hashlib.sha256(repr(data.classes).encode()).hexdigest()
        names = dict.fromkeys(data.classes, 0)
        parts["classes"] = DataPart(True, f"{len(data.classes)} classes", order=digest, content=digest, sizes=names)
    name = config.data.data
    return DataRecord(name if name in NAMES else str(Path(name).resolve()), parts)


def _model_config(config: DcganConfig, data: ImageSet, generator: nn.Module | None) -> DigitModelConfig:
    """Describe the model by the options and the data's own size and classes."""
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
        custom_class="" if generator is None else f"{type(generator).__module__}.{type(generator).__qualname__}",
    )


def _advice(config: DcganConfig) -> str:
    """Return what helps against a collapse, as measured (docs/collapse.md)."""
    if config.optimizer.beta1 > CURE:
        advice = f"What helps: --beta1 {CURE}"
    else:
        advice = "What may help: a smaller --lr, or --label-smoothing 0.1"
    other = "" if config.model.preset == "dcgan" else ", or --preset dcgan"
    return f"{advice}{other}. See docs/collapse.md."


def _describe(
    config: DcganConfig, data: ImageSet, networks: GanNetworks, spec: DigitModelConfig, fabric: Fabric
) -> list[str]:
    """Describe the data and the networks, for the log."""
    classes = f" of {spec.num_classes} classes" if spec.num_classes else ""
    line = (
        f"{spec.preset}: {len(data.images)} images of {data.name}{classes}, {spec.image_size} pixels, "
        f"batch {config.data.batch_size}; G {networks.millions('G'):.2f}M and D {networks.millions('D'):.2f}M "
        f"parameters; {fabric.device.type}, {'bf16' if networks.bf16 else 'fp32'}, {torch.get_num_threads()} threads."
    )
    unread = describe_unread(data.unread)
    return [line, unread] if unread else [line]


def _card(config: DcganConfig, spec: DigitModelConfig) -> str:
    """Return the model card in Markdown: model, data and usage."""
    classes, data = escape_markdown(", ".join(spec.classes) or "not known"), escape_markdown(spec.data)
    return f"""# {data}: {spec.preset} generator

A GAN generator of {spec.image_size}-pixel images, trained with ganvas.

- Data: {data}; classes: {classes}
- Conditional on the class: {"yes" if spec.num_classes else "no"}
- Training: {spec.training["step"]} steps, seed {spec.training["seed"]}
- License of the weights: not stated. Choose one before you share them (`push --license`)

{sample_line("Generated images")}

```
dcgan sample THIS_FOLDER digits.png
```

{settings(config)}
"""
