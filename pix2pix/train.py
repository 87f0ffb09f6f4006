"""pix2pix training: from options to a finished run folder."""

import contextlib
import math
import statistics
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
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
from ganvas.data.listing import describe_unread
from ganvas.data.paired import OPTIONS, PairedDataset
from ganvas.data.pairs import find_pairs, find_stacked_pairs
from ganvas.data.skip import SkipCounter, SkippingDataset, read_many, read_or_next
from ganvas.data.tensors import to_array
from ganvas.device import choose_precision
from ganvas.evaluation.metrics import l1, psnr, sliced_wasserstein, ssim
from ganvas.evaluation.sheet import contact_sheet
from ganvas.markdown import escape_markdown
from ganvas.models.card import sample_line, settings
from ganvas.models.folder import ModelConfig as ModelFileConfig
from ganvas.models.folder import NetworkSpec, Preprocessing, save_model
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
from pix2pix.config import Pix2PixConfig, channels, check, data_folder, ranges
from pix2pix.networks import build_networks, generator_spec
from pix2pix.step import Pix2PixStep, Weights

SAMPLE_PICTURES = 4
VALIDATION_PICTURES = 200  # enough for a standard error of a few percent; more would only cost time


class Pix2Pix:
    """The model as the training loop sees it.

    Args:
        config: Options.
        fabric: Device, precision and processes.
        run: The run's folder.
        cache: Keeps decoded images.
        say: Takes a line for the user.
        compiled: Train compiled networks.
    """

    # L1 alone would keep the most blurred model, patch statistics alone one that draws the right textures in the wrong
    # places. Images of several sizes have no patch statistics.
    criteria = ("val_l1", "val_swd")

    def __init__(
        self,
        config: Pix2PixConfig,
        fabric: Fabric,
        run: Path,
        *,
        cache: DecodeCache | None,
        say: Say,
        compiled: bool = False,
    ) -> None:
        self.config, self.fabric, self.run = config, fabric, run
        root = data_folder(config.data)
        self.training_set = _pairs(config, "train", cache, augment=True)
        there = splits(root)
        check_plateau(config.schedule, root, there)
        # What is validated and drawn on; without a val split, training images are drawn and nothing is validated.
        self.held_out_split = "val" if "val" in there else "train"
        with blaming_held_out(self.held_out_split):
            self.held_out = _pairs(config, self.held_out_split, cache, augment=False)
        self._skips = SkipCounter() if config.data.on_error == "skip" else None
        self._held_out_pairs(SAMPLE_PICTURES)  # before the first step: what cannot be read is reported now
        if self.held_out_split != "train":
            self._held_out_pairs(VALIDATION_PICTURES)
        a, b = domain_names(dataset_info(root))
        source, target = (a, b) if config.data.direction == "a2b" else (b, a)
        self.spec: NetworkSpec = generator_spec(config.data, config.model, source, target)

        G, D = build_networks(self.spec, config)
        self.networks: dict[str, nn.Module] = {}
        self.optimizers: dict[str, Adam] = {}
        wrapped = {}
        for name, network in (("G", G), ("D", D)):
            wrapped[name] = set_up(fabric, network, compiled=compiled)
            self.networks[name] = network
            self.optimizers[name] = make_adam(network, config.optimizer)
        self.ema = Ema(G, config.optimizer.ema) if config.optimizer.ema else None
        if self.ema is not None:
            self.networks["G_ema"] = self.ema
        self.precision = choose_precision(config.hardware.precision, fabric.device.type)
        model = config.model
        self._update = Pix2PixStep(
            wrapped["G"],
            wrapped["D"],
            self.optimizers["G"],
            self.optimizers["D"],
            gan_loss=model.gan_loss,
            weights=Weights(model.lambda_gan, model.lambda_l1, model.lambda_gp),
            bf16=self.precision == "bf16",
        )
        self.statistics = default_statistics([G], config.data.batch_size)

    def step(self, batch: Batch) -> dict[str, Tensor]:
        """Update both networks, and the average of G where one is kept."""
        losses = self._update(batch)
        if self.ema is not None:
            self.ema.update(self.networks["G"])
        return losses

    @property
    def generator(self) -> nn.Module:
        """The generator to be judged and shared: the average where one is kept."""
        return self.networks["G"] if self.ema is None else self.ema.network

    def validate(self) -> dict[str, float]:
        """Score the held-out pairs in both modes of batch norm, and keep the better mode."""
        if self.held_out_split == "train":
            return {}
        self.statistics, metrics = compare_statistics([self.generator], self._score, self.criteria)
        return metrics

    def sample(self) -> np.ndarray:
        """Draw source, output and target of the first held-out pairs."""
        rows = []
        for pair in self._held_out_pairs(SAMPLE_PICTURES):
            output = self._outputs(pair["source"][None], self.statistics)[0]
            pictures = (pair["source"], output, pair["target"])
            rows.append([to_array(picture, np.uint8) for picture in pictures])
        return contact_sheet(rows, [self.spec.source, "output", self.spec.target])

    def watch(self, losses: Mapping[str, float]) -> Sight:
        """See nothing: pairs keep G from drawing one image for all, and validation shows the rest."""
        return Sight()

    def save_model(self, step: int, metrics: Mapping[str, float]) -> None:
        """Write RUN/model."""
        data, root = self.config.data, data_folder(self.config.data)
        info = dataset_info(root)
        config = ModelFileConfig(
            kind="pix2pix",
            networks={data.direction: self.spec},
            preprocessing=self._preprocessing(),
            statistics=self.statistics,
            training={
                "step": step,
                "metrics": dict(metrics),
                "data": info.get("name", root.resolve().name),
                **{name: info[name] for name in ("legend", "lines") if name in info},  # brushes of the page
            },
        )
        card = _card(self.config, config, info)
        save_model(self.run / "model", config, {data.direction: self.generator}, card, self.sample())

    def state_dict(self) -> dict[str, Any]:
        """Return which network is the model, and its mode of batch norm."""
        networks = {self.config.data.direction: "G" if self.ema is None else "G_ema"}
        return {"networks": networks, "statistics": self.statistics}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore the mode of batch norm."""
        self.statistics = state["statistics"]

    def _preprocessing(self) -> Preprocessing:
        data = self.config.data
        source_range, target_range = ranges(data)
        (source, target), _ = read_or_next(self.training_set.pair, 0, len(self.training_set))
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

    def _score(self, mode: Statistics) -> dict[str, float]:
        pairs = self._held_out_pairs(VALIDATION_PICTURES)
        outputs = [self._outputs(pair["source"][None], mode) for pair in pairs]
        targets = [pair["target"][None] for pair in pairs]
        scores = {
            f"val_{metric.__name__}": statistics.fmean(
                metric(o, t).item() for o, t in zip(outputs, targets, strict=True)
            )
            for metric in (l1, psnr, ssim)
        }
        if len({target.shape for target in targets}) == 1:
            scores["val_swd"] = sliced_wasserstein(torch.cat(outputs), torch.cat(targets)).mean
        return scores

    def _held_out_pairs(self, count: int) -> list[Batch]:
        """Give at most ``count`` held-out pairs, evenly over all of them, the same at each call."""
        length = len(self.held_out)
        chosen = sorted({round(i) for i in np.linspace(0, length - 1, min(count, length))})
        with blaming_held_out(self.held_out_split):
            return read_many(lambda place: self.held_out[0, place], chosen, length, self._skips)

    @torch.no_grad()
    def _outputs(self, source: Tensor, mode: Statistics) -> Tensor:
        """Translate [N, C, H, W] as the finished model would: eval mode, float32 out."""
        G = self.generator
        set_norm_statistics(G, mode)
        G.eval()
        try:
            return G(source.to(self.fabric.device, memory_format=torch.channels_last)).float().cpu()
        finally:
            G.train()


def train_pix2pix(config: Pix2PixConfig, run: Path, *, resume: bool) -> int:
    """Train, or go on training, in the folder ``run``; give the process's exit code.

    Raises:
        UserError: Bad options or data, a folder that cannot be written, a training that diverged.
    """
    check(config)
    config, notes = with_channels(config)
    with contextlib.ExitStack() as stack:

        def build(fabric: Fabric, say: Say) -> tuple[Pix2Pix, Data, DataRecord]:
            compiled = config.hardware.compile and can_compile(fabric.device.type, say)
            cache = stack.enter_context(shared_decode_cache(config.hardware, fabric))
            model = Pix2Pix(config, fabric, run, cache=cache, say=say, compiled=compiled)
            _say_what(say, config, fabric, model)
            for note in notes:
                say(note)
            return model, _data(config, model.training_set, fabric), _record(config, model)

        return run_training("pix2pix", config, run, build, resume=resume, describe_best=_describe_best)


def with_channels(config: Pix2PixConfig) -> tuple[Pix2PixConfig, list[str]]:
    """Read the channels that the options leave open from the data; return what is worth saying of them, too.

    Raises:
        UserError: There are no pairs, none can be read, or they have different numbers of channels.
    """
    data = config.data
    if data.source_channels and data.target_channels:
        return config, []
    root = data_folder(data)
    pairs = find_stacked_pairs(root, "train", data.source, data.target) if data.source else find_pairs(root, "train")
    ways = (pairs.sources, pairs.targets)
    found = [
        Channels(given) if given else find_channels(files, len(pairs), side, option)
        for given, files, side, option in zip(
            (data.source_channels, data.target_channels),
            ways if data.direction == "a2b" else ways[::-1],
            ("source", "target"),
            OPTIONS,
            strict=True,
        )
    ]
    source, target = (each.count for each in found)
    notes = [note for each in found for note in each.notes]
    if (source, target) != (3, 3):
        notes.insert(0, f"Channels, as in the data: {source} to {target}.")
    return replace(config, data=replace(data, source_channels=source, target_channels=target)), notes


def _data(config: Pix2PixConfig, pairs: PairedDataset, fabric: Fabric) -> Data:
    dataset = pairs if config.data.on_error == "stop" else SkippingDataset(pairs, len(pairs))
    workers = loading_workers(config.hardware, fabric)
    return Data(dataset, len(pairs), config.data.batch_size, workers, pairs.pairs.shard_sizes)


def _record(config: Pix2PixConfig, model: Pix2Pix) -> DataRecord:
    splits = {model.held_out_split: model.held_out.pairs.files, "train": model.training_set.pairs.files}
    return record_files(data_folder(config.data), splits)


def _pairs(config: Pix2PixConfig, split: str, cache: DecodeCache | None, *, augment: bool) -> PairedDataset:
    """Open a split: augmented for training, else scaled as the network expects whole images."""
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
    whole = None if data.load_size == 0 else Augmentation(size, size, flip=False, palette=augmentation.palette)
    return PairedDataset(
        root,
        split,
        augmentation=augmentation if augment else whole,
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


def _say_what(say: Say, config: Pix2PixConfig, fabric: Fabric, model: Pix2Pix) -> None:
    size = {name: sum(p.numel() for p in net.parameters()) / 1e6 for name, net in model.networks.items()}
    say(
        f"{len(model.training_set)} pairs, {model.spec.source} → {model.spec.target}, "
        f"{config.data.image_size} pixels, batch {config.data.batch_size}; "
        f"G {size['G']:.1f}M and D {size['D']:.1f}M parameters; {fabric.device.type}, {model.precision}, "
        f"{torch.get_num_threads()} threads."
    )
    held_out = model.held_out.pairs.unread if model.held_out_split != "train" else {}
    if unread := describe_unread(model.training_set.pairs.unread + Counter(held_out)):
        say(unread)
    if model.held_out_split == "train":
        say("No val split: the newest model is kept, not the best, and samples show training images.")


def _describe_best(best: Mapping[str, float]) -> list[str]:
    lines = [f"val {_l1_and_patches(best)}, SSIM {best.get('val_ssim', math.nan):.3f}."]
    if {"val_l1_running", "val_l1_picture"} <= best.keys():  # of a mode that failed, nothing is kept
        running, picture = (_l1_and_patches(best, f"_{mode}") for mode in ("running", "picture"))
        lines.append(
            f"Batch norm on val: running statistics {running}; each image's own {picture}. The better mode is recorded "
            "in the model."
        )
    return lines


def _l1_and_patches(metrics: Mapping[str, float], mode: str = "") -> str:
    """Describe what the best model is chosen by."""
    swd = metrics.get(f"val_swd{mode}")
    patches = "" if swd is None else f", sliced Wasserstein distance {swd:.4f}"
    return f"L1 {metrics[f'val_l1{mode}']:.4f}{patches}"


def _card(config: Pix2PixConfig, model: ModelFileConfig, info: Mapping[str, Any]) -> str:
    """Write the model card: what it is, what it learned from, how good it is, how to use it."""
    spec = next(iter(model.networks.values()))
    metrics = "\n".join(f"| {name} | {value:.4f} |" for name, value in model.training["metrics"].items())
    source, target, data, licence = map(
        escape_markdown, (spec.source, spec.target, model.training["data"], info.get("licence", "not stated"))
    )
    return f"""# {source} → {target}

A pix2pix translator (Isola et al. 2017), trained with ganvas.

- Data: {data}. Licence of the data: {licence}
- Images: {config.data.image_size} pixels, {" to ".join(map(str, channels(config.data)))} channels
- Steps: {model.training["step"]}, batch {config.data.batch_size}, seed {config.seed}
- Batch norm at inference: {model.statistics} statistics
- Licence of the weights: not stated. Choose one before you share them (push --license)

{sample_line("Source, output and target of held-out pictures")}

| metric | value |
| --- | --- |
{metrics}

```python
import ganvas
output = ganvas.load("this folder").translate(image)
```

{settings(config)}
"""
