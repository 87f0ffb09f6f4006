"""CycleGAN training: the parts that `ganvas.training.trainer` does not share."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from cyclegan.config import CycleGanConfig, ModelConfig, channels, check, criteria, data_folder, ranges
from cyclegan.monitors import CycleMonitor, View
from cyclegan.networks import DIRECTIONS, NAMES, build_networks, custom_specs, generator_specs
from cyclegan.pool import ImagePool
from cyclegan.step import CycleGanStep, ExtraLosses, Networks, Weights
from ganvas.data.arrays import image_dtype
from ganvas.data.augment import Augmentation, build_augmentation, preset_palette
from ganvas.data.channels import Channels, find_channels
from ganvas.data.dataset_info import dataset_info, domain_names
from ganvas.data.decode_cache import DecodeCache
from ganvas.data.layout import splits
from ganvas.data.listing import Files, describe_unread
from ganvas.data.skip import SkipCounter, SkippingDataset, read_or_next
from ganvas.data.tensors import to_array
from ganvas.data.unpaired import OPTIONS, UnpairedDataset, find_domains
from ganvas.evaluation.metrics import l1
from ganvas.evaluation.names import OF_DETAIL
from ganvas.evaluation.sheet import contact_sheet
from ganvas.evaluation.validation import Validation
from ganvas.markdown import escape_markdown
from ganvas.models.card import sample_line, settings
from ganvas.models.folder import ModelConfig as ModelFileConfig
from ganvas.models.folder import NetworkSpec, Preprocessing, save_model
from ganvas.nn.layers import Statistics
from ganvas.training.batches import DataSpec
from ganvas.training.datarecord import record_files
from ganvas.training.held_out import HeldOut, add_split_to_errors, choose_split, require_val_split
from ganvas.training.run import TrainedParts, TrainResult, loading_workers, run_training
from ganvas.training.trainer import GanNetworks, GanParts, GanTrainer

# Images of each domain.
SAMPLE_IMAGES = 3
MONITOR_IMAGES = 4
VALIDATION_IMAGES = 100  # the cycles of both directions take four passes for each


def train_cyclegan(
    config: CycleGanConfig,
    run: Path,
    *,
    resume: bool,
    callbacks: Sequence[object] = (),
    generators: tuple[nn.Module, nn.Module] | None = None,
    discriminators: tuple[nn.Module, nn.Module] | None = None,
    losses: ExtraLosses | None = None,
) -> TrainResult:
    """Train, or continue training, in the folder ``run``.

    Args:
        config: All options.
        run: The run's folder.
        resume: Whether to continue from the newest checkpoint.
        callbacks: See `ganvas.training.callbacks`.
        generators: The user's own G_ab and G_ba.
        discriminators: The user's own D_a and D_b.
        losses: Further terms of the generators' loss: weight and function of source, output and an image of the target
            domain, by name; each counts for both directions.

    Raises:
        UserError: Bad options or data, a folder that cannot be written, a training that diverged.
    """
    check(config)
    config, notes = with_channels(config)
    check(config)

    def build(fabric: Fabric, cache: DecodeCache | None) -> TrainedParts:
        return build_training(config, run, fabric, cache, notes, generators, discriminators, losses)

    def load(path: Path) -> object:
        from ganvas.inference.translator import load

        return load(path, direction="a2b", generator=None if generators is None else generators[0])

    return run_training("cyclegan", config, run, build, load, resume=resume, callbacks=callbacks)


def build_training(
    config: CycleGanConfig,
    run: Path,
    fabric: Fabric,
    cache: DecodeCache | None = None,
    notes: Sequence[str] = (),
    generators: tuple[nn.Module, nn.Module] | None = None,
    discriminators: tuple[nn.Module, nn.Module] | None = None,
    losses: ExtraLosses | None = None,
) -> TrainedParts:
    """Open the data, and build the networks and everything around them; see `train_cyclegan`."""
    data, model, root = config.data, config.model, data_folder(config.data)
    training_set = open_split(config, "train", cache, augment=True)
    split = choose_split(root, splits(root), ("val", "test", "train"), config.schedule)
    held_out_set = add_split_to_errors(split, lambda: open_split(config, split, cache, augment=False))
    held_out = _held_out(held_out_set, split, SkipCounter() if data.on_error == "skip" else None)
    require_val_split(root, splits(root), config.validation)
    validation = None
    if split == "val":
        validation = Validation(criteria(config.validation), ("swd", *OF_DETAIL), str(fabric.device))
        for domain, images in held_out.items():
            validation.require(images.read(VALIDATION_IMAGES), f"{root}: domain {domain} of {split}")

    a, b = domain_names(dataset_info(root))
    specs = generator_specs(config, a, b) if generators is None else custom_specs(config, generators, a, b)
    networks = GanNetworks(
        fabric,
        build_networks(config, specs, generators, discriminators),
        {direction: name for name, direction in DIRECTIONS.items()},
        config.optimizer,
        config.hardware,
        batch_norm_images=data.batch_size // model.grad_accum_steps,
    )
    S = data.image_size
    pools = [ImagePool(model.pool_size, (count, S, S), fabric.device) for count in channels(data)]
    step = CycleGanStep(
        Networks(*(networks.callables[name] for name in NAMES)),
        networks.optimizers,
        *pools,
        gan_loss=model.gan_loss,
        weights=Weights(model.lambda_cycle, model.lambda_identity, model.lambda_gp),
        extra_losses=losses,
        join_generators=generators is None and _can_join(model),
        join_discriminators=discriminators is None and config.discriminator.discriminator_norm != "batch",
        grad_accum_steps=model.grad_accum_steps,
        activation_checkpointing=model.activation_checkpointing,
        bf16=networks.bf16,
    )
    task = _Task(config, networks, specs, held_out, training_set, validation)
    parts = GanParts(
        step=lambda batch, _: step(batch),
        sample=task.sample,
        save_model=task.save_model,
        score=None if validation is None else task.score,
        criteria=() if validation is None else validation.criteria(*DIRECTIONS.values()),
        monitor=CycleMonitor(task.views, model.gan_loss, has_identity=task.has_identity),
        per_process={"pool_a": pools[0], "pool_b": pools[1]},
    )
    dataset = training_set if data.on_error == "stop" else SkippingDataset(training_set, len(training_set))
    files: dict[str, dict[str, Files]] = {split: held_out_set.files, "train": training_set.files}
    return TrainedParts(
        GanTrainer(run, networks, parts),
        DataSpec(dataset, len(training_set), data.batch_size, loading_workers(config.hardware, fabric)),
        record_files(root, files),
        [*_describe(config, fabric, networks, (a, b), training_set, held_out_set, split), *notes],
    )


def _can_join(model: ModelConfig) -> bool:
    """Return whether a generator's passes may run as one batch: if no layer mixes images or draws for them."""
    return model.norm != "batch" and not model.dropout and not model.activation_checkpointing


def _held_out(dataset: UnpairedDataset, split: str, skips: SkipCounter | None) -> dict[str, HeldOut[Tensor]]:
    """Return a reader of each domain's held-out images, as the networks take them."""

    def reader(domain: str) -> HeldOut[Tensor]:
        return HeldOut(split, lambda index: dataset.tensor(domain, index), len(dataset.files[domain]), skips)

    readers = {domain: reader(domain) for domain in "ab"}
    for images in readers.values():  # report unreadable images before step 1
        for count in (SAMPLE_IMAGES, MONITOR_IMAGES, *([VALIDATION_IMAGES] if split == "val" else [])):
            images.read(count)
    return readers


class _Task:
    """Scores, samples, views and the model folder of a CycleGAN training."""

    def __init__(
        self,
        config: CycleGanConfig,
        networks: GanNetworks,
        specs: Mapping[str, NetworkSpec],
        held_out: Mapping[str, HeldOut[Tensor]],
        training_set: UnpairedDataset,
        validation: Validation | None,
    ) -> None:
        self._config, self._networks, self._specs = config, networks, specs
        self._held_out, self._training_set, self._validation = held_out, training_set, validation
        channels_a, channels_b = channels(config.data)
        self.has_identity = channels_a == channels_b

    def _translate(self, direction: str, source: Tensor, mode: Statistics | None = None) -> Tensor:
        return torch.stack(self._networks.translate(direction, list(source), mode))

    def _real(self, domain: str, count: int) -> Tensor:
        return torch.stack(self._held_out[domain].read(count))

    def score(self, mode: Statistics) -> dict[str, float]:
        """Return cycle losses, and the metrics of sets between translations and the domain they go to."""
        assert self._validation is not None, "there is nothing to validate with"
        real = {domain: self._real(domain, VALIDATION_IMAGES) for domain in "ab"}
        scores = {}
        for direction, back, a, b in (("a2b", "b2a", "a", "b"), ("b2a", "a2b", "b", "a")):
            fake = self._translate(direction, real[a], mode)
            scores[f"val_cycle_{a}"] = float(l1(self._translate(back, fake, mode), real[a]).mean())
            scores |= self._validation.score(list(fake), list(real[b]), direction=direction, are_pairs=False)
        return scores

    def sample(self) -> np.ndarray:
        """Return source, translation, cycled image and identity of fixed images of both domains."""
        rows, titles = [], []
        for domain, direction, back in (("a", "a2b", "b2a"), ("b", "b2a", "a2b")):
            source = self._real(domain, SAMPLE_IMAGES)
            fake = self._translate(direction, source)
            columns = [source, fake, self._translate(back, fake)]
            if self.has_identity:
                columns.append(self._translate(back, source))
            rows += [[to_array(image, np.uint8) for image in row] for row in zip(*columns, strict=True)]
            titles += [self._specs["G_ab" if domain == "a" else "G_ba"].source] * len(source)
        heads = ["source", "translated", "cycled back", "identity"][: len(rows[0])]
        return contact_sheet(rows, heads, titles)

    def views(self) -> dict[str, View]:
        """Return fixed images of both directions with their translations, for the monitor."""
        real = {domain: self._real(domain, MONITOR_IMAGES) for domain in "ab"}
        found = {}
        for direction, a, b in (("a2b", "a", "b"), ("b2a", "b", "a")):
            identity = self._translate(direction, real[b]) if self.has_identity else real[b]
            found[direction] = View(real[a], self._translate(direction, real[a]), real[b], identity)
        return found

    def save_model(self, folder: Path, step: int, metrics: Mapping[str, float]) -> None:
        """Write the model folder, with both directions."""
        root = data_folder(self._config.data)
        info = dataset_info(root)
        config = ModelFileConfig(
            kind="cyclegan",
            networks={direction: self._specs[name] for name, direction in DIRECTIONS.items()},
            preprocessing=self._preprocessing(),
            statistics=self._networks.statistics or "running",
            training={
                "step": step,
                "metrics": dict(metrics),
                "data": info.get("name", root.resolve().name),
                **{name: info[name] for name in ("legend", "lines") if name in info},  # brushes of the page
            },
        )
        networks: dict[str, nn.Module] = {each: self._networks.generator(each) for each in DIRECTIONS.values()}
        save_model(folder, config, networks, _card(self._config, config, info), self.sample())

    def _preprocessing(self) -> Preprocessing:
        data = self._config.data
        range_a, range_b = ranges(data)
        dtype_a, dtype_b = (image_dtype(self._first(domain)) for domain in "ab")
        return Preprocessing(
            *channels(data),
            data.image_size,
            resized=data.load_size != 0,
            source_range=range_a,
            target_range=range_b,
            source_type=dtype_a,
            target_type=dtype_b,
            legend=preset_palette(data.augment, dataset_info(data_folder(data))),
        )

    def _first(self, domain: str) -> np.ndarray:
        count = len(self._training_set.files[domain])
        return read_or_next(lambda index: self._training_set.image(domain, index), 0, count)[0]


def with_channels(config: CycleGanConfig) -> tuple[CycleGanConfig, list[str]]:
    """Read the channels that the options leave open from the data; return notes for the log, too.

    A gray domain gets three channels next to a color one if the identity loss needs equal ones.

    Raises:
        UserError: There are no two domains, no image of one can be read, or they have different numbers of channels.
    """
    data = config.data
    given = (data.channels_a, data.channels_b)
    if all(given):
        return config, []
    domains = zip("ab", given, find_domains(data_folder(data), "train"), strict=True)
    found = [Channels(count) if count else _domain_channels(name, files) for name, count, files in domains]
    counts = [each.count for each in found]
    notes = [note for each in found for note in each.notes]
    if config.model.lambda_identity and sorted(counts) == [1, 3] and not given[counts.index(1)]:
        gray = "ab"[counts.index(1)]
        counts = [3, 3]
        notes.append(
            f"Domain {gray} is gray; its images are repeated to 3 channels, which the identity loss needs "
            "(--lambda-identity 0 does not)."
        )
    if counts != [3, 3]:
        notes.insert(0, f"Channels, as in the data: {counts[0]} of domain a, {counts[1]} of domain b.")
    return replace(config, data=replace(data, channels_a=counts[0], channels_b=counts[1])), notes


def _domain_channels(domain: str, files: Files) -> Channels:
    return find_channels(lambda index: (files[index],), len(files), f"domain {domain}", OPTIONS[domain])


def open_split(config: CycleGanConfig, split: str, cache: DecodeCache | None, *, augment: bool) -> UnpairedDataset:
    """Open a split: augmented for training, else scaled as the network expects full images."""
    data, root = config.data, data_folder(config.data)
    augmentation = build_augmentation(
        data.augment, data.image_size, load_size=data.load_size, flip=data.flip, info=dataset_info(root)
    )
    range_a, range_b = ranges(data)
    channels_a, channels_b = channels(data)
    scale = None if data.load_size == 0 else data.image_size
    unscaled = Augmentation(scale, data.image_size, flip=False, palette=augmentation.palette)
    return UnpairedDataset(
        root,
        split,
        augmentation=augmentation if augment else unscaled,
        channels_a=channels_a,
        channels_b=channels_b,
        range_a=range_a,
        range_b=range_b,
        seed=config.seed,
        cache=cache,
    )


def _describe(
    config: CycleGanConfig,
    fabric: Fabric,
    networks: GanNetworks,
    domains: tuple[str, str],
    training_set: UnpairedDataset,
    held_out: UnpairedDataset,
    split: str,
) -> list[str]:
    """Describe the data and the networks, for the log."""
    a, b = domains
    counts = {domain: len(files) for domain, files in training_set.files.items()}
    lines = [
        f"{counts['a']} images of {a}, {counts['b']} of {b}, {config.data.image_size} pixels, "
        f"batch {config.data.batch_size}; each G {networks.millions('G_ab'):.1f}M and each D "
        f"{networks.millions('D_a'):.1f}M parameters; {fabric.device.type}, {'bf16' if networks.bf16 else 'fp32'}, "
        f"{torch.get_num_threads()} threads."
    ]
    if text := describe_unread(training_set.unread + Counter({} if split == "train" else held_out.unread)):
        lines.append(text)
    if split != "val":
        lines.append(f"No val split: the newest model is kept, not the best, and samples show {split} images.")
    return lines


def _card(config: CycleGanConfig, model: ModelFileConfig, info: Mapping[str, Any]) -> str:
    """Return the model card in Markdown: model, data and usage."""
    spec = model.networks["a2b"]
    a, b, data, license_ = map(
        escape_markdown, (spec.source, spec.target, model.training["data"], info.get("licence", "not stated"))
    )
    return f"""# {a} ↔ {b}

A CycleGAN model (Zhu et al. 2017), trained with ganvas on unpaired images. It translates in both directions.

- Directions: a2b is {a} → {b}, b2a is {b} → {a}
- Data: {data}. License of the data: {license_}
- Training images: {config.data.image_size} pixels
- Training: {model.training["step"]} steps, batch size {config.data.batch_size}, seed {config.seed}
- Batch norm at inference: {"running" if model.statistics == "running" else "each image's own"} statistics
- License of the weights: not stated. Choose one before you share them (`push --license`)

{sample_line("Held-out images of both domains, their translations and reconstructions")}

```python
import ganvas
output = ganvas.load("this folder", direction="a2b").translate(image)
```

{settings(config)}
"""
