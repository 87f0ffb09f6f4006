"""CycleGAN training: from options to a finished run folder."""

import contextlib
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from cyclegan.config import CycleGanConfig, channels, check, data_folder, ranges
from cyclegan.monitors import CycleWatch, View
from cyclegan.networks import DIRECTIONS, NAMES, build_networks, generator_specs
from cyclegan.pool import ImagePool
from cyclegan.step import CycleGanStep, Networks, Weights
from ganvas.data.arrays import image_dtype
from ganvas.data.augment import Augmentation, build_augmentation, preset_palette
from ganvas.data.channels import Channels, find_channels
from ganvas.data.dataset_info import dataset_info, domain_names
from ganvas.data.decode_cache import DecodeCache
from ganvas.data.layout import splits
from ganvas.data.listing import Files, describe_unread
from ganvas.data.skip import SkipCounter, SkippingDataset, read_many, read_or_next
from ganvas.data.tensors import to_array
from ganvas.data.unpaired import OPTIONS, UnpairedDataset, find_domains
from ganvas.device import choose_precision
from ganvas.evaluation.metrics import l1, sliced_wasserstein
from ganvas.evaluation.sheet import contact_sheet
from ganvas.markdown import escape_markdown
from ganvas.models.card import sample_line, settings
from ganvas.models.folder import ModelConfig as ModelFileConfig
from ganvas.models.folder import Preprocessing, save_model
from ganvas.nn.layers import Statistics, set_norm_statistics
from ganvas.training.config import check_plateau
from ganvas.training.datarecord import DataRecord, record_files
from ganvas.training.ema import Ema
from ganvas.training.fabric import can_compile, set_up
from ganvas.training.loop import Batch, Data
from ganvas.training.monitors import Sight
from ganvas.training.optimizer import Adam, make_adam
from ganvas.training.run import Say, blaming_held_out, loading_workers, run_training, shared_decode_cache
from ganvas.training.validation import compare_statistics, default_statistics

SAMPLE_PICTURES = 3  # of each domain
WATCHED_PICTURES = 4  # of each domain
VALIDATION_PICTURES = 100  # of each domain: both ways there and back cost four passes for each


class CycleGan:
    """The model as the training loop sees it.

    Args:
        config: Options.
        fabric: Device, precision and processes.
        run: The run's folder.
        cache: Keeps decoded images.
        say: Takes a line for the user.
        compiled: Train compiled networks.
    """

    # Patch statistics, both ways. The cycles have no say: they are best where nothing is translated.
    criteria = ("val_swd_a2b", "val_swd_b2a")

    def __init__(
        self,
        config: CycleGanConfig,
        fabric: Fabric,
        run: Path,
        *,
        cache: DecodeCache | None,
        say: Say,
        compiled: bool = False,
    ) -> None:
        self.config, self.fabric, self.run = config, fabric, run
        root, model = data_folder(config.data), config.model
        self.training_set = _pictures(config, "train", cache, augment=True)
        there = splits(root)
        check_plateau(config.schedule, root, there)
        self.held_out_split = next(split for split in ("val", "test", "train") if split in there)
        with blaming_held_out(self.held_out_split):
            self.held_out = _pictures(config, self.held_out_split, cache, augment=False)
        self._skips = SkipCounter() if config.data.on_error == "skip" else None
        shown = {SAMPLE_PICTURES, WATCHED_PICTURES}
        for count in shown | ({VALIDATION_PICTURES} if self.held_out_split == "val" else set()):
            for domain in "ab":
                self._held_out(domain, count)  # before the first step: what cannot be read is reported now
        self.domains = dict(zip("ab", domain_names(dataset_info(root)), strict=True))
        self.specs = generator_specs(config, self.domains["a"], self.domains["b"])

        self.networks: dict[str, nn.Module] = build_networks(config, self.specs)
        self.optimizers: dict[str, Adam] = {}
        wrapped: dict[str, nn.Module] = {}
        for name in NAMES:
            wrapped[name] = set_up(fabric, self.networks[name], compiled=compiled)
            self.optimizers[name] = make_adam(self.networks[name], config.optimizer)
        S = config.data.image_size
        for domain, count in zip("ab", channels(config.data), strict=True):
            self.networks[f"pool_{domain}"] = ImagePool(model.pool_size, (count, S, S)).to(fabric.device)
        self.averages: dict[str, Ema] = {}
        if config.optimizer.ema:
            self.averages = {name: Ema(self.networks[name], config.optimizer.ema) for name in DIRECTIONS}
            self.networks |= {f"{name}_ema": average for name, average in self.averages.items()}
        self.precision = choose_precision(config.hardware.precision, fabric.device.type)
        pool_a, pool_b = self.networks["pool_a"], self.networks["pool_b"]
        assert isinstance(pool_a, ImagePool)
        assert isinstance(pool_b, ImagePool)
        self._update = CycleGanStep(
            Networks(*(wrapped[name] for name in NAMES)),
            self.optimizers,
            pool_a,
            pool_b,
            gan_loss=model.gan_loss,
            weights=Weights(model.lambda_cycle, model.lambda_identity, model.lambda_gp),
            join_generators=model.norm != "batch" and not model.dropout and not model.checkpointing,
            join_discriminators=config.discriminator.discriminator_norm != "batch",
            accumulate=model.accumulate,
            checkpointing=model.checkpointing,
            bf16=self.precision == "bf16",
        )
        self.statistics = default_statistics(self._generators(), config.data.batch_size // model.accumulate)
        channels_a, channels_b = channels(config.data)
        self._has_identity = channels_a == channels_b
        self._watch = CycleWatch(model.gan_loss, has_identity=self._has_identity)

    def step(self, batch: Batch) -> dict[str, Tensor]:
        """Update all networks, and the averages of both G where they are kept."""
        losses = self._update(batch)
        for name, average in self.averages.items():
            average.update(self.networks[name])
        return losses

    def generator(self, name: str) -> nn.Module:
        """Give the generator to be judged and shared, "G_ab" or "G_ba": the average where one is kept."""
        return self.averages[name].network if name in self.averages else self.networks[name]

    def _generators(self) -> list[nn.Module]:
        return [self.generator(name) for name in DIRECTIONS]

    def validate(self) -> dict[str, float]:
        """Score the val split in both modes of batch norm, and keep the better mode."""
        if self.held_out_split != "val":
            return {}
        real = {domain: self._held_out(domain, VALIDATION_PICTURES) for domain in "ab"}
        self.statistics, metrics = compare_statistics(
            self._generators(), lambda mode: self._score(real, mode), self.criteria
        )
        return metrics

    def _score(self, real: Mapping[str, Tensor], mode: Statistics) -> dict[str, float]:
        """Score both directions: there and back, and how far translations are from the domain they go to."""
        scores = {}
        for there, back, a, b in (("G_ab", "G_ba", "a", "b"), ("G_ba", "G_ab", "b", "a")):
            fake = self._outputs(there, real[a], mode)
            scores[f"val_cycle_{a}"] = float(l1(self._outputs(back, fake, mode), real[a]).mean())
            scores[f"val_swd_{DIRECTIONS[there]}"] = sliced_wasserstein(fake, real[b]).mean
        return scores

    def sample(self) -> np.ndarray:
        """Draw source, translation, the way back and the identity pass of fixed images of both domains."""
        rows, titles = [], []
        for domain, there, back in (("a", "G_ab", "G_ba"), ("b", "G_ba", "G_ab")):
            source = self._held_out(domain, SAMPLE_PICTURES)
            fake = self._outputs(there, source)
            columns = [source, fake, self._outputs(back, fake)]
            if self._has_identity:
                columns.append(self._outputs(back, source))
            rows += [[to_array(picture, np.uint8) for picture in row] for row in zip(*columns, strict=True)]
            titles += [self.domains[domain]] * len(source)
        heads = ["source", "translated", "cycled back", "identity"][: len(rows[0])]
        return contact_sheet(rows, heads, titles)

    def watch(self, losses: Mapping[str, float]) -> Sight:
        """Look for inverted colors, translations that change nothing, and a discriminator that has won."""
        real = {domain: self._held_out(domain, WATCHED_PICTURES) for domain in "ab"}
        views: dict[str, View] = {}
        for name, a, b in (("G_ab", "a", "b"), ("G_ba", "b", "a")):
            identity = self._outputs(name, real[b]) if self._has_identity else real[b]
            views[DIRECTIONS[name]] = View(real[a], self._outputs(name, real[a]), real[b], identity)
        return self._watch.look(views, losses)

    def state_dict(self) -> dict[str, Any]:
        """Return which networks are the model, their mode of batch norm, and what the watch has seen."""
        networks = {way: f"{name}_ema" if name in self.averages else name for name, way in DIRECTIONS.items()}
        return {"networks": networks, "statistics": self.statistics, "watch": self._watch.memory}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore the mode of batch norm and what the watch has seen."""
        self.statistics, self._watch.memory = state["statistics"], state["watch"]

    def save_model(self, step: int, metrics: Mapping[str, float]) -> None:
        """Write RUN/model with both directions."""
        root = data_folder(self.config.data)
        info = dataset_info(root)
        config = ModelFileConfig(
            kind="cyclegan",
            networks={way: self.specs[name] for name, way in DIRECTIONS.items()},
            preprocessing=self._preprocessing(),
            statistics=self.statistics,
            training={
                "step": step,
                "metrics": dict(metrics),
                "data": info.get("name", root.resolve().name),
                **{name: info[name] for name in ("legend", "lines") if name in info},  # brushes of the page
            },
        )
        networks: dict[str, nn.Module] = {way: self.generator(name) for name, way in DIRECTIONS.items()}
        save_model(self.run / "model", config, networks, _card(self.config, config, info), self.sample())

    def _preprocessing(self) -> Preprocessing:
        data = self.config.data
        range_a, range_b = ranges(data)
        first = {domain: self._first(domain) for domain in "ab"}
        return Preprocessing(
            *channels(data),
            data.image_size,
            resized=data.load_size != 0,
            source_range=range_a,
            target_range=range_b,
            source_type=image_dtype(first["a"]),
            target_type=image_dtype(first["b"]),
            legend=preset_palette(data.augment, dataset_info(data_folder(data))),
        )

    def _first(self, domain: str) -> np.ndarray:
        count = len(self.training_set.files[domain])
        return read_or_next(lambda index: self.training_set.image(domain, index), 0, count)[0]

    def _held_out(self, domain: str, count: int) -> Tensor:
        """Give at most ``count`` fixed images of a domain, evenly over it, as networks take them: [N, C, S, S]."""
        length = len(self.held_out.files[domain])
        chosen = sorted({round(i) for i in np.linspace(0, length - 1, min(count, length))})
        with blaming_held_out(self.held_out_split):
            found = read_many(lambda place: self.held_out.tensor(domain, place), chosen, length, self._skips)
        return torch.stack(found)

    @torch.no_grad()
    def _outputs(self, name: str, source: Tensor, mode: Statistics | None = None) -> Tensor:
        """Translate [N, C, S, S] image by image, as the finished model would: eval mode, float32 out.

        Args:
            name: Of the generator.
            source: In [-1, 1].
            mode: Of batch norm; by default the one that the last validation chose.
        """
        G = self.generator(name)
        set_norm_statistics(G, mode or self.statistics)
        G.eval()
        try:
            layout = torch.channels_last
            outputs = [G(one[None].to(self.fabric.device, memory_format=layout)).float().cpu() for one in source]
            return torch.cat(outputs)
        finally:
            G.train()


def train_cyclegan(config: CycleGanConfig, run: Path, *, resume: bool) -> int:
    """Train, or go on training, in the folder ``run``; give the process's exit code.

    Raises:
        UserError: Bad options or data, a folder that cannot be written, a training that diverged.
    """
    check(config)
    config, notes = with_channels(config)
    check(config)
    with contextlib.ExitStack() as stack:

        def build(fabric: Fabric, say: Say) -> tuple[CycleGan, Data, DataRecord]:
            compiled = config.hardware.compile and can_compile(fabric.device.type, say)
            cache = stack.enter_context(shared_decode_cache(config.hardware, fabric))
            model = CycleGan(config, fabric, run, cache=cache, say=say, compiled=compiled)
            _say_what(say, model)
            for note in notes:
                say(note)
            return model, _data(config, model.training_set, fabric), _record(config, model)

        return run_training("cyclegan", config, run, build, resume=resume, describe_best=_describe_best)


def with_channels(config: CycleGanConfig) -> tuple[CycleGanConfig, list[str]]:
    """Read the channels that the options leave open from the data; return what is worth saying of them, too.

    A gray domain gets three channels beside a color one where the identity loss needs equal ones.

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


def _data(config: CycleGanConfig, pictures: UnpairedDataset, fabric: Fabric) -> Data:
    dataset = pictures if config.data.on_error == "stop" else SkippingDataset(pictures, len(pictures))
    return Data(dataset, len(pictures), config.data.batch_size, loading_workers(config.hardware, fabric))


def _record(config: CycleGanConfig, model: CycleGan) -> DataRecord:
    splits: dict[str, dict[str, Files]] = {
        model.held_out_split: model.held_out.files,
        "train": model.training_set.files,
    }
    return record_files(data_folder(config.data), splits)


def _pictures(config: CycleGanConfig, split: str, cache: DecodeCache | None, *, augment: bool) -> UnpairedDataset:
    """Open a split: augmented for training, else scaled as the network expects whole images."""
    data, root = config.data, data_folder(config.data)
    augmentation = build_augmentation(
        data.augment, data.image_size, load_size=data.load_size, flip=data.flip, info=dataset_info(root)
    )
    range_a, range_b = ranges(data)
    channels_a, channels_b = channels(data)
    scale = None if data.load_size == 0 else data.image_size
    whole = Augmentation(scale, data.image_size, flip=False, palette=augmentation.palette)
    return UnpairedDataset(
        root,
        split,
        augmentation=augmentation if augment else whole,
        channels_a=channels_a,
        channels_b=channels_b,
        range_a=range_a,
        range_b=range_b,
        seed=config.seed,
        cache=cache,
    )


def _say_what(say: Say, model: CycleGan) -> None:
    sizes = {name: sum(p.numel() for p in model.networks[name].parameters()) / 1e6 for name in ("G_ab", "D_a")}
    counts = {domain: len(files) for domain, files in model.training_set.files.items()}
    say(
        f"{counts['a']} images of {model.domains['a']}, {counts['b']} of {model.domains['b']}, "
        f"{model.config.data.image_size} pixels, batch {model.config.data.batch_size}; each G {sizes['G_ab']:.1f}M and "
        f"each D {sizes['D_a']:.1f}M parameters; {model.fabric.device.type}, {model.precision}, "
        f"{torch.get_num_threads()} threads."
    )
    held_out = model.held_out.unread if model.held_out_split != "train" else {}
    if unread := describe_unread(model.training_set.unread + Counter(held_out)):
        say(unread)
    if model.held_out_split != "val":
        say(f"No val split: the newest model is kept, not the best, and samples show {model.held_out_split} images.")


def _describe_best(best: Mapping[str, float]) -> list[str]:
    return [", ".join(f"{name} {value:.4f}" for name, value in best.items()) + "."]


def _card(config: CycleGanConfig, model: ModelFileConfig, info: Mapping[str, Any]) -> str:
    """Write the model card: what it is, what it learned from, how to use it."""
    forth = model.networks["a2b"]
    a, b, data, licence = map(
        escape_markdown, (forth.source, forth.target, model.training["data"], info.get("licence", "not stated"))
    )
    return f"""# {a} ↔ {b}

A CycleGAN (Zhu et al. 2017), trained without pairs with ganvas. It translates both ways.

- a2b: {a} → {b}; b2a: {b} → {a}
- Data: {data}. Licence of the data: {licence}
- Images: {config.data.image_size} pixels
- Steps: {model.training["step"]}, batch {config.data.batch_size}, seed {config.seed}
- Batch norm at inference: {model.statistics} statistics
- Licence of the weights: not stated. Choose one before you share them (push --license)

{sample_line("Held-out pictures of both domains, translated and back")}

```python
import ganvas
output = ganvas.load("this folder", direction="a2b").translate(image)
```

{settings(config)}
"""
