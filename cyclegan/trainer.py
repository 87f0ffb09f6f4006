"""CycleGAN training, and that of CUT: the parts that `ganvas.training.trainer` does not share."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import cast

import torch
from lightning_fabric import Fabric
from lightning_fabric.wrappers import _FabricModule
from torch import Tensor, nn

from cyclegan.config import CycleGanConfig, ModelConfig, channels, check, criteria, data_folder, lambda_nce
from cyclegan.cut_step import CutStep, CutWeights, FeatureGenerator
from cyclegan.data import VALIDATION_IMAGES, open_split, read_held_out, with_channels
from cyclegan.monitors import build_monitor
from cyclegan.networks import (
    DOMAINS,
    NAMES,
    build_networks,
    discriminator_names,
    generator_names,
    generator_specs,
)
from cyclegan.pool import ImagePool
from cyclegan.step import CycleGanStep, ExtraLosses, Networks, Weights
from cyclegan.task import CycleGanTask
from ganvas.data.dataset_info import dataset_info, domain_names
from ganvas.data.decode_cache import DecodeCache
from ganvas.data.layout import splits
from ganvas.data.listing import Files, describe_unread
from ganvas.data.skip import SkipCounter, SkippingDataset
from ganvas.data.unpaired import UnpairedDataset
from ganvas.errors import UserError
from ganvas.evaluation.names import OF_DETAIL
from ganvas.evaluation.validation import Validation
from ganvas.nn.resnet import ResNetGenerator
from ganvas.training.batches import Batch, DataSpec
from ganvas.training.datarecord import record_files
from ganvas.training.held_out import add_split_to_errors, choose_split, require_val_split
from ganvas.training.run import TrainedParts, TrainResult, loading_workers, run_training
from ganvas.training.schedule import Progress
from ganvas.training.trainer import GanNetworks, GanParts, GanTrainer

Step = Callable[[Batch, Progress], dict[str, Tensor]]


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
    if generators is not None and config.model.objective != "cycle":
        raise UserError(
            f"--objective {config.model.objective} compares features of ganvas's own ResNet. Leave your generators "
            "out, or train them with --objective cycle."
        )
    config, notes = with_channels(config)
    check(config)

    def build(fabric: Fabric, cache: DecodeCache | None) -> TrainedParts:
        return build_training(config, run, fabric, cache, notes, generators, discriminators, losses)

    def load(path: Path) -> object:
        from ganvas.inference.translator import load

        direction = next(iter(generator_names(config)))
        return load(path, direction=direction, generator=None if generators is None else generators[0])

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
    held_out = read_held_out(held_out_set, split, SkipCounter() if data.on_error == "skip" else None)
    require_val_split(root, splits(root), config.validation)
    validation = None
    if split == "val":
        validation = Validation(criteria(config.validation), ("swd", *OF_DETAIL), str(fabric.device))
        for domain, images in held_out.items():
            validation.require(images.read(VALIDATION_IMAGES), f"{root}: domain {domain} of {split}")

    info = dataset_info(root)
    domains = domain_names(info)
    specs = generator_specs(config, *domains, generators)
    networks = GanNetworks(
        fabric,
        build_networks(config, specs, generators, discriminators),
        {str(direction): name for direction, name in generator_names(config).items()},
        config.optimizer,
        config.hardware,
        discriminators=discriminator_names(config).values(),
        batch_norm_images=data.batch_size // model.grad_accum_steps,
    )
    pools: dict[str, ImagePool] = {}
    if model.objective == "cycle":
        pools = _image_pools(config, fabric)
        can_join = generators is None and _can_join(model), discriminators is None and _can_join_d(config)
        step: Step = build_cycle_step(config, networks, pools, losses, *can_join)
    else:
        step = build_cut_step(config, networks, losses, mirrors=data.flip and info.get("flip", True))
    task = CycleGanTask(config, networks, specs, held_out, training_set, validation)
    parts = GanParts(
        step=step,
        sample=task.sample,
        save_model=task.save_model,
        score=None if validation is None else task.score,
        criteria=() if validation is None else validation.criteria(*specs),
        monitor=build_monitor(config, task),
        per_process=pools,
    )
    dataset = training_set if data.on_error == "stop" else SkippingDataset(training_set, len(training_set))
    files: dict[str, dict[str, Files]] = {split: held_out_set.files, "train": training_set.files}
    return TrainedParts(
        GanTrainer(run, networks, parts),
        DataSpec(dataset, len(training_set), data.batch_size, loading_workers(config.hardware, fabric)),
        record_files(root, files),
        [*_describe(config, fabric, networks, domains, training_set, held_out_set, split), *notes],
    )


def _image_pools(config: CycleGanConfig, fabric: Fabric) -> dict[str, ImagePool]:
    S, size = config.data.image_size, config.model.pool_size
    return {
        name: ImagePool(size, (count, S, S), fabric.device)
        for name, count in zip(("pool_a", "pool_b"), channels(config.data), strict=True)
    }


def build_cycle_step(
    config: CycleGanConfig,
    networks: GanNetworks,
    pools: Mapping[str, ImagePool],
    losses: ExtraLosses | None = None,
    join_generators: bool = True,
    join_discriminators: bool = True,
) -> CycleGanStep:
    """Build the training step of CycleGAN's objective."""
    model, penalties = config.model, config.regularization
    return CycleGanStep(
        Networks(*(networks.callables[name] for name in NAMES)),
        networks.optimizers,
        pools["pool_a"],
        pools["pool_b"],
        gan_loss=model.gan_loss,
        weights=Weights(
            model.lambda_cycle,
            model.lambda_identity,
            model.lambda_gp,
            penalties.r1,
            penalties.r2,
            penalties.penalty_every,
        ),
        diff_augment=penalties.diff_augment,
        extra_losses=losses,
        join_generators=join_generators,
        join_discriminators=join_discriminators,
        grad_accum_steps=model.grad_accum_steps,
        activation_checkpointing=model.activation_checkpointing,
        bf16=networks.bf16,
    )


def build_cut_step(
    config: CycleGanConfig, networks: GanNetworks, losses: ExtraLosses | None = None, *, mirrors: bool = True
) -> CutStep:
    """Build the training step of CUT or FastCUT; FastCUT mirrors half of the sources unless ``mirrors`` is False."""
    model, penalties = config.model, config.regularization
    called, generator = networks.callables, networks.modules["G"]
    assert isinstance(generator, ResNetGenerator), "no other generator has features"
    for method in ("features", "with_features"):  # so that several processes notice the pass
        cast(_FabricModule, called["G"]).mark_forward_method(method)
    return CutStep(
        cast(FeatureGenerator, called["G"]),
        called["D"],
        called["heads"],
        networks.optimizers,
        generator.feature_layers,
        DOMAINS[config.data.direction],
        gan_loss=model.gan_loss,
        weights=CutWeights(
            lambda_nce(model),
            has_identity=model.objective == "cut",
            flips=mirrors and model.objective == "fastcut",
            nce_patches=model.nce_patches,
            lambda_gp=model.lambda_gp,
            r1=penalties.r1,
            r2=penalties.r2,
            penalty_every=penalties.penalty_every,
        ),
        diff_augment=penalties.diff_augment,
        extra_losses=losses,
        bf16=networks.bf16,
    )


def _can_join(model: ModelConfig) -> bool:
    """Return whether a generator's passes may run as one batch: if no layer mixes images or draws for them."""
    return model.norm != "batch" and not model.dropout and not model.activation_checkpointing


def _can_join_d(config: CycleGanConfig) -> bool:
    return config.discriminator.discriminator_norm != "batch"


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
    if config.model.objective == "cycle":
        sizes = f"each G {networks.millions('G_ab'):.1f}M and each D {networks.millions('D_a'):.1f}M"
    else:
        sizes = ", ".join(f"{name} {networks.millions(name):.1f}M" for name in ("G", "D", "heads"))
    lines = [
        f"{counts['a']} images of {a}, {counts['b']} of {b}, {config.data.image_size} pixels, "
        f"batch {config.data.batch_size}; {sizes} parameters; {fabric.device.type}, "
        f"{'bf16' if networks.bf16 else 'fp32'}, {torch.get_num_threads()} threads."
    ]
    if text := describe_unread(training_set.unread + Counter({} if split == "train" else held_out.unread)):
        lines.append(text)
    if split != "val":
        lines.append(f"No val split: the newest model is kept, not the best, and samples show {split} images.")
    return lines
