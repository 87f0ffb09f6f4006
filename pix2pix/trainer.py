"""pix2pix training: the parts that `ganvas.training.trainer` does not share."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from ganvas.data.arrays import image_dtype
from ganvas.data.augment import Augmentation, build_augmentation, preset_palette
from ganvas.data.channels import Channels, find_channels
from ganvas.data.dataset_info import dataset_info, domain_names
from ganvas.data.decode_cache import DecodeCache
from ganvas.data.layout import splits
from ganvas.data.likeness import SourceFigures, measure_sources
from ganvas.data.listing import describe_unread
from ganvas.data.paired import OPTIONS, PairedDataset
from ganvas.data.pairs import find_pairs, find_stacked_pairs
from ganvas.data.skip import SkipCounter, SkippingDataset, read_or_next
from ganvas.data.tensors import to_array
from ganvas.evaluation.names import DEFAULT
from ganvas.evaluation.sheet import contact_sheet
from ganvas.evaluation.validation import Validation
from ganvas.markdown import escape_markdown
from ganvas.models.card import norm_line, sample_line, settings
from ganvas.models.folder import ModelConfig as ModelFileConfig
from ganvas.models.folder import NetworkSpec, Preprocessing, save_model
from ganvas.nn.layers import Statistics
from ganvas.training.batches import DataSpec
from ganvas.training.datarecord import record_files
from ganvas.training.figures import diversity
from ganvas.training.held_out import HeldOut, add_split_to_errors, choose_split, require_val_split
from ganvas.training.monitors import (
    COLLAPSED_TRANSLATIONS,
    Check,
    Monitor,
    collapsed,
    d_won,
    g_frozen,
    leveled_off,
    overfitting,
    won_loss,
)
from ganvas.training.run import TrainedParts, TrainResult, loading_workers, run_training
from ganvas.training.trainer import GanNetworks, GanParts, GanTrainer
from pix2pix.config import Pix2PixConfig, channels, check, criteria, data_folder, ranges
from pix2pix.networks import build_networks, generator_spec
from pix2pix.step import ExtraLosses, Pix2PixStep, Weights

SAMPLE_IMAGES = 4
MONITOR_IMAGES = 8  # a step or two of work each time
VALIDATION_IMAGES = 200  # enough for a standard error of a few percent; more would only cost time


def train_pix2pix(
    config: Pix2PixConfig,
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
        generator: The user's own, in place of the U-Net.
        discriminator: The user's own, in place of the PatchGAN.
        losses: Further terms of G's loss: weight and function of source, output and target, by name.

    Raises:
        UserError: Bad options or data, a folder that cannot be written, a training that diverged.
    """
    check(config, has_own_losses=bool(losses), has_own_discriminator=discriminator is not None)
    config, notes = with_channels(config)

    def build(fabric: Fabric, cache: DecodeCache | None) -> TrainedParts:
        return build_training(config, run, fabric, cache, notes, generator, discriminator, losses)

    def load(path: Path) -> object:
        from ganvas.inference.translator import load

        return load(path, generator=generator)

    return run_training("pix2pix", config, run, build, load, resume=resume, callbacks=callbacks)


def build_training(
    config: Pix2PixConfig,
    run: Path,
    fabric: Fabric,
    cache: DecodeCache | None = None,
    notes: Sequence[str] = (),
    generator: nn.Module | None = None,
    discriminator: nn.Module | None = None,
    losses: ExtraLosses | None = None,
) -> TrainedParts:
    """Open the data, and build the networks and everything around them; see `train_pix2pix`."""
    data, model, root = config.data, config.model, data_folder(config.data)
    training_set = _pairs(config, "train", cache, augment=True)
    split = choose_split(root, splits(root), ("val", "train"), config.schedule)
    held_out_set = add_split_to_errors(split, lambda: _pairs(config, split, cache, augment=False))
    skips = SkipCounter() if data.on_error == "skip" else None
    held_out = HeldOut(split, lambda index: held_out_set[0, index], len(held_out_set), skips)
    validation = None if split == "train" else Validation(criteria(config.validation), DEFAULT, str(fabric.device))
    pairs = held_out.read(VALIDATION_IMAGES if validation else SAMPLE_IMAGES)  # report bad images before step 1
    if validation is not None:
        validation.require([pair["target"] for pair in pairs], f"{root}: {split}")
    require_val_split(root, splits(root), config.validation)

    a, b = domain_names(dataset_info(root))
    source, target = (a, b) if data.direction == "a2b" else (b, a)
    if generator is None:
        spec = generator_spec(data, model, source, target)
    else:
        spec = NetworkSpec.of_class(generator, channels(data), source, target)
    G, D = build_networks(spec, config, generator, discriminator)
    generators: dict[str, str] = {data.direction: "G"}
    networks = GanNetworks(
        fabric, {"G": G, "D": D}, generators, config.optimizer, config.hardware, batch_norm_images=data.batch_size
    )
    step = build_step(config, networks, losses)
    task = _Task(config, networks, spec, held_out, training_set, validation)
    parts = GanParts(
        step=step,
        sample=task.sample,
        save_model=task.save_model,
        score=None if validation is None else task.score,
        criteria=() if validation is None else validation.criteria(),
        monitor=_monitor(config, task),
    )
    dataset = training_set if data.on_error == "stop" else SkippingDataset(training_set, len(training_set))
    workers = loading_workers(config.hardware, fabric)
    files = {split: held_out_set.pairs.files, "train": training_set.pairs.files}
    return TrainedParts(
        GanTrainer(run, networks, parts),
        DataSpec(dataset, len(training_set), data.batch_size, workers, training_set.pairs.shard_sizes),
        record_files(root, files),
        [*_describe(config, fabric, networks, spec, training_set, held_out_set, split), *notes],
    )


def build_step(config: Pix2PixConfig, networks: GanNetworks, losses: ExtraLosses | None = None) -> Pix2PixStep:
    """Build the training step of these options."""
    model, regularization = config.model, config.regularization
    return Pix2PixStep(
        networks.callables["G"],
        networks.callables["D"],
        networks.optimizers["G"],
        networks.optimizers["D"],
        gan_loss=model.gan_loss,
        weights=Weights(
            model.lambda_gan,
            model.lambda_l1,
            model.lambda_l1_end,
            model.lambda_features,
            model.lambda_gp,
            regularization.r1,
            regularization.r2,
            regularization.penalty_every,
        ),
        diff_augment=regularization.diff_augment,
        extra_losses=losses,
        bf16=networks.bf16,
    )


class _Task:
    """Scores, samples and the model folder of a pix2pix training."""

    def __init__(
        self,
        config: Pix2PixConfig,
        networks: GanNetworks,
        spec: NetworkSpec,
        held_out: HeldOut[dict[str, Any]],
        training_set: PairedDataset,
        validation: Validation | None,
    ) -> None:
        self._config, self._networks, self._spec = config, networks, spec
        self._held_out, self._training_set, self._validation = held_out, training_set, validation
        self._direction = config.data.direction

    def score(self, mode: Statistics) -> dict[str, float]:
        """Return metrics of held-out pairs."""
        assert self._validation is not None, "there is nothing to validate with"
        pairs = self._held_out.read(VALIDATION_IMAGES)
        targets = [pair["target"] for pair in pairs]
        return self._validation.score(self._translate(pairs, mode), targets, are_pairs=True)

    def sample(self) -> np.ndarray:
        """Return source, output and target of the first held-out pairs, side by side."""
        pairs = self._held_out.read(SAMPLE_IMAGES)
        columns = [pair["source"] for pair in pairs], self._translate(pairs), [pair["target"] for pair in pairs]
        rows = [[to_array(image, np.uint8) for image in row] for row in zip(*columns, strict=True)]
        return contact_sheet(rows, [self._spec.source, "output", self._spec.target])

    def figures(self) -> dict[str, float]:
        """Return figures of held-out pairs for the monitor; images of several sizes have none."""
        pairs = self._held_out.read(MONITOR_IMAGES)
        outputs, targets = self._translate(pairs), [pair["target"] for pair in pairs]
        if len(pairs) < 2 or len({target.shape for target in targets}) > 1:
            return {}
        return {"diversity": diversity(torch.stack(outputs), torch.stack(targets))}

    def save_model(self, folder: Path, step: int, metrics: Mapping[str, float]) -> None:
        """Write the model folder."""
        root = data_folder(self._config.data)
        info = dataset_info(root)
        config = ModelFileConfig(
            kind="pix2pix",
            networks={self._direction: self._spec},
            preprocessing=self._preprocessing(),
            statistics=self._networks.statistics or "running",
            sources={} if self._sources is None else {self._direction: self._sources},
            training={
                "step": step,
                "metrics": dict(metrics),
                "data": info.get("name", root.resolve().name),
                **{name: info[name] for name in ("legend", "lines") if name in info},  # brushes of the page
            },
        )
        network = self._networks.generator(self._direction)
        save_model(folder, config, {self._direction: network}, _card(self._config, config, info), self.sample())

    def _translate(self, pairs: Sequence[Mapping[str, Tensor]], mode: Statistics | None = None) -> list[Tensor]:
        return self._networks.translate(self._direction, [pair["source"] for pair in pairs], mode)

    @cached_property
    def _sources(self) -> SourceFigures | None:
        pairs, how = self._training_set, self._preprocessing()
        return measure_sources(lambda index: how.to_input(pairs.pair(index)[0]), len(pairs))

    def _preprocessing(self) -> Preprocessing:
        data, pairs = self._config.data, self._training_set
        source_range, target_range = ranges(data)
        (source, target), _ = read_or_next(pairs.pair, 0, len(pairs))
        return Preprocessing(
            *channels(data),
            data.image_size,
            resized=data.load_size != 0,
            source_range=source_range,
            target_range=target_range,
            source_type=image_dtype(source),
            target_type=image_dtype(target),
            source_folders=data.source,
            target_folder=data.target,
            legend=preset_palette(data.augment, dataset_info(data_folder(data))),
        )


def _monitor(config: Pix2PixConfig, task: _Task) -> Monitor:
    """Choose the checks."""
    shares = {"diversity": "their spread is {:.0%} of the targets'"}
    checks: dict[str, Check] = {
        "D has won": partial(
            d_won,
            below=won_loss(config.model.gan_loss, halved=True),
            advice="Lower lr_discriminator, a small --r1 with --discriminator-norm none, or --diff-augment.",
        ),
        "G is frozen": g_frozen,
        "mode collapse": partial(
            collapsed, figures=shares, below=COLLAPSED_TRANSLATIONS, advice="A larger --lambda-l1, or a lower --lr."
        ),
        "overfitting": partial(overfitting, train="loss_g_l1", val="val_l1"),
        "leveled off": partial(leveled_off, losses=("loss_d", "loss_g") if config.model.lambda_gan else ("loss_g",)),
    }
    return Monitor(checks, advisory=["leveled off"], views=task.figures)


def with_channels(config: Pix2PixConfig) -> tuple[Pix2PixConfig, list[str]]:
    """Read the channels that the options leave open from the data; return notes for the log, too.

    Raises:
        UserError: There are no pairs, none can be read, or they have different numbers of channels.
    """
    data = config.data
    if data.source_channels and data.target_channels:
        return config, []
    root = data_folder(data)
    pairs = find_stacked_pairs(root, "train", data.source, data.target) if data.source else find_pairs(root, "train")
    sides = (pairs.sources, pairs.targets) if data.direction == "a2b" else (pairs.targets, pairs.sources)
    given = (data.source_channels, data.target_channels)
    found = [
        Channels(count) if count else find_channels(files, len(pairs), side, option)
        for count, files, side, option in zip(given, sides, ("source", "target"), OPTIONS, strict=True)
    ]
    source, target = (each.count for each in found)
    notes = [note for each in found for note in each.notes]
    if (source, target) != (3, 3):
        notes.insert(0, f"Channels, as in the data: {source} to {target}.")
    return replace(config, data=replace(data, source_channels=source, target_channels=target)), notes


def _pairs(config: Pix2PixConfig, split: str, cache: DecodeCache | None, *, augment: bool) -> PairedDataset:
    """Open a split: augmented for training, else scaled as the network expects full images."""
    data, root = config.data, data_folder(config.data)
    augmentation = build_augmentation(
        data.augment,
        data.image_size,
        load_size=data.load_size,
        flip=data.flip,
        color=data.color,
        info=dataset_info(root),
    )
    source_range, target_range = ranges(data)
    source_channels, target_channels = channels(data)
    size = data.image_size
    unscaled = None if data.load_size == 0 else Augmentation(size, size, flip=False, palette=augmentation.palette)
    return PairedDataset(
        root,
        split,
        augmentation=augmentation if augment else unscaled,
        direction=data.direction,
        source_channels=source_channels,
        target_channels=target_channels,
        source_range=source_range,
        target_range=target_range,
        sources=data.source,
        target=data.target,
        seed=config.seed,
        cache=cache,
    )


def _describe(
    config: Pix2PixConfig,
    fabric: Fabric,
    networks: GanNetworks,
    spec: NetworkSpec,
    training_set: PairedDataset,
    held_out: PairedDataset,
    split: str,
) -> list[str]:
    """Describe the data and the networks, for the log."""
    lines = [
        f"{len(training_set)} pairs, {spec.source} → {spec.target}, {config.data.image_size} pixels, "
        f"batch {config.data.batch_size}; G {networks.millions('G'):.1f}M and D {networks.millions('D'):.1f}M "
        f"parameters; {fabric.device.type}, {'bf16' if networks.bf16 else 'fp32'}, {torch.get_num_threads()} threads."
    ]
    unread = Counter({} if split == "train" else held_out.pairs.unread)
    if text := describe_unread(training_set.pairs.unread + unread):
        lines.append(text)
    if split == "train":
        lines.append("No val split: the newest model is kept, not the best, and samples show training images.")
    return lines


def _card(config: Pix2PixConfig, model: ModelFileConfig, info: Mapping[str, Any]) -> str:
    """Return the model card in Markdown: model, data, metrics and usage."""
    spec = next(iter(model.networks.values()))
    metrics = "\n".join(f"| {name} | {value:.4f} |" for name, value in model.training["metrics"].items())
    source, target, data, license_ = map(
        escape_markdown, (spec.source, spec.target, model.training["data"], info.get("license", "not stated"))
    )
    norm = norm_line(config.model.norm, model.statistics)
    return f"""# {source} → {target}

A pix2pix model (Isola et al. 2017), trained with ganvas. It translates images of {source} to {target}.

- Data: {data}. License of the data: {license_}
- Training images: {config.data.image_size} pixels, {" to ".join(map(str, channels(config.data)))} channels
- Training: {model.training["step"]} steps, batch size {config.data.batch_size}, seed {config.seed}
{norm}- License of the weights: not stated. Choose one before you share them (`push --license`)

{sample_line("Source, output and target of held-out pairs")}

| metric | value |
| --- | --- |
{metrics}

```python
import ganvas
output = ganvas.load("this folder").translate(image)
```

{settings(config)}
"""
