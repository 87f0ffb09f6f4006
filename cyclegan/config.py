"""Options of a CycleGAN training; defaults are the paper's. Free of torch, for a quick --help."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Literal

import tyro
from annotated_types import Interval

from ganvas.data.augment import AugmentPreset
from ganvas.errors import UserError
from ganvas.evaluation.names import OF_SETS, MetricOptions, criterion_options
from ganvas.options import STRICT, Channels, Converted, optional
from ganvas.training.config import (
    LAMBDA_GP,
    Count,
    DiscriminatorConfig,
    Fraction,
    HardwareConfig,
    LoggingConfig,
    NotNegative,
    OptimizerConfig,
    RegularizationConfig,
    ScheduleConfig,
    ValidationConfig,
    check_discriminator,
    check_length,
    check_levels,
    check_penalty,
    check_regularization,
    check_sizes,
    parse_range,
)

Preset = Literal["paper", "cut", "fastcut", "fast", "earth64"]
Objective = Literal["cycle", "cut", "fastcut"]

# Patch statistics of all directions. The cycle losses are not a criterion: they are best if nothing is translated.
MIN_LAYER_NORM_CHANNELS = 4  # with 1 all outputs are 0, with 2 they are ±1
SAVE_BEST_BY = "swd"


@dataclass(frozen=True)
class DataConfig:
    """Dataset and augmentation.

    Attributes:
        data: Dataset without pairs: DIR/trainA and DIR/trainB, DIR/train/a and DIR/train/b, or DIR/A/train and
            DIR/B/train.
        direction: With --objective cut or fastcut: the one direction that is trained. cycle trains both.
        image_size: Pixels a side of training images.
        augment: none: whole images. paper: random crops, half of them mirrored. strong: in addition small random
            rotations, zooms and shifts.
        load_size: Pixels a side that images are scaled to before the random crop; by default 286/256 of --image-size,
            as in the published code, and with --augment none --image-size. 0 crops without scaling.
        flip: Mirror half of the images left to right; on unless --augment is none. --no-flip turns it off, and the
            mirroring of FastCUT.
        batch_size: Images of each domain per step and device.
        channels_a: Channels of domain a; by default those of its images, without alpha.
        channels_b: The same for domain b.
        value_range: Pixel values that become -1 and 1 in the network, as 0:4095; by default the full range of the
            files' data type. Negative values need an equals sign: --value-range=-100:8900.
        value_range_b: The same for domain b, if its range differs.
        on_error: Whether an image that cannot be read stops the run, or is replaced by the next one.
    """

    __pydantic_config__ = STRICT

    data: Annotated[Annotated[Path, Converted(Path.resolve)] | None, optional("DIR")] = None
    direction: Literal["a2b", "b2a"] = "a2b"
    image_size: Annotated[int, Interval(ge=16, le=4096)] = 256
    augment: AugmentPreset = "paper"
    load_size: Annotated[Annotated[int, Interval(ge=0, le=8192)] | None, optional("INT")] = None
    flip: bool = True
    batch_size: Count = 1
    channels_a: tyro.conf.Suppress[Channels | None] = None
    channels_b: tyro.conf.Suppress[Channels | None] = None
    value_range: Annotated[str | None, optional("LOW:HIGH")] = None
    value_range_b: tyro.conf.Suppress[str | None] = None
    on_error: Literal["stop", "skip"] = "stop"


@dataclass(frozen=True)
class ModelConfig:
    """Generators and losses.

    Attributes:
        objective: What ties a translation to its source. cycle: it must translate back (Zhu et al. 2017). cut: each
            patch must resemble the source's patch at the same location more than the source's other patches, for one
            direction a run (Park et al. 2020); about two thirds of the work a step. fastcut: the same without the
            identity term; about two fifths of the work. Both come with the defaults of their preset.
        generator: Architecture of the generators.
        num_blocks: Residual blocks; by default the paper's 6 up to 128 pixels and 9 above.
        levels: Levels of the U-Net; by default as many as reduce --image-size to one pixel, at most 8.
        base_channels: Filters of the generators' first layer.
        norm: Norm of the generators; layer normalizes over the channels of each pixel (Ba et al. 2016), which
            preserves the color of single-color images.
        dropout: Dropout rate of the generators' blocks.
        upsampling: transpose is the paper's; resize leaves no checkerboard.
        resampling: blur convolves at full resolution and blurs before it halves the size and where it doubles it
            (Zhang 2019), as CUT's ResNet: no checkerboard, more time. strided is CycleGAN's.
            Discriminators use the same.
        init: Initial weights; normal is N(0, 0.02).
        gan_loss: The adversarial loss; the paper's is least squares.
        lambda_cycle: Weight of the cycle losses.
        lambda_identity: Weight of the identity losses, as a fraction of --lambda-cycle. They preserve colors; 0 turns
            them off.
        lambda_nce: With --objective cut or fastcut: weight of PatchNCE; by default 1 and 10.
        nce_patches: Patches of each layer and image that PatchNCE compares.
        lambda_gp: Weight of wgangp's gradient penalty.
        pool_size: Earlier fakes of each domain that the discriminators may be shown; 0 for the newest only.
        grad_accum_steps: Parts that a batch is split into, one after the other, to save memory.
        activation_checkpointing: Recompute activations of the generators instead of keeping them: less memory, a third
            more time.
    """

    __pydantic_config__ = STRICT

    objective: Objective = "cycle"
    generator: Literal["resnet", "unet"] = "resnet"
    num_blocks: tyro.conf.Suppress[Count | None] = None
    levels: tyro.conf.Suppress[Annotated[int, Interval(ge=1, le=12)] | None] = None
    base_channels: Count = 64
    norm: Literal["batch", "instance", "layer", "none"] = "instance"
    dropout: tyro.conf.Suppress[Fraction] = 0.0
    upsampling: Literal["transpose", "resize"] = "transpose"
    resampling: Literal["strided", "blur"] = "strided"
    init: tyro.conf.Suppress[Literal["normal", "xavier", "kaiming", "orthogonal"]] = "normal"
    gan_loss: Literal["lsgan", "vanilla", "hinge", "wgangp"] = "lsgan"
    lambda_cycle: NotNegative = 10.0
    lambda_identity: NotNegative = 0.5
    lambda_nce: Annotated[NotNegative | None, optional("FLOAT")] = None
    nce_patches: Annotated[int, Interval(ge=2, le=65_536)] = 256
    lambda_gp: tyro.conf.Suppress[NotNegative] = LAMBDA_GP
    pool_size: tyro.conf.Suppress[Annotated[int, Interval(ge=0, le=10_000)]] = 50
    grad_accum_steps: Count = 1
    activation_checkpointing: bool = False


@dataclass(frozen=True)
class CycleGanConfig:
    """All options of a training.

    Attributes:
        seed: Seed of the weights, the order of the images, their partners, augmentation, the pools, and the locations
            and mirrorings of CUT and FastCUT.
    """

    __pydantic_config__ = STRICT

    data: DataConfig = field(default_factory=DataConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    discriminator: DiscriminatorConfig = field(
        default_factory=lambda: DiscriminatorConfig(discriminator_norm="instance")
    )
    regularization: RegularizationConfig = field(default_factory=RegularizationConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    hardware: HardwareConfig = field(default_factory=HardwareConfig)
    logging: LoggingConfig = field(default_factory=LoggingConfig)
    validation: ValidationConfig = field(default_factory=ValidationConfig)
    seed: Annotated[int, Interval(ge=0, lt=2**63)] = 0


def preset(name: Preset | None) -> CycleGanConfig:
    """Return the defaults of a preset.

    "paper" is CycleGAN as published for horses and zebras (Zhu et al. 2017, Sec. 7): 256 pixels, batch 1, 200 epochs.
    "cut" and "fastcut" are Park et al. 2020, App. C: one direction, with antialiased networks. "fast" is FastCUT,
    changed for a CPU; docs/cyclegan.md says what was measured. "earth64" learns satellite images and terrain at 64
    pixels in half an hour on a CPU. Its U-Net preserves the color of single-color tiles (sea, forest), which every
    instance norm of a ResNet subtracts.
    """
    default = CycleGanConfig()
    if name in (None, "paper"):
        return default
    if name == "earth64":
        return replace(
            default,
            data=replace(default.data, image_size=64, load_size=64, batch_size=4),
            model=replace(default.model, generator="unet", levels=4, base_channels=32),
            discriminator=replace(default.discriminator, discriminator_channels=32, patch_layers=2),
            optimizer=replace(default.optimizer, ema=0.999),
            schedule=replace(default.schedule, steps=8000),
            logging=replace(default.logging, save_every_steps=1000),
        )
    if name == "fast":
        return replace(
            default,
            data=replace(default.data, image_size=128),
            model=replace(
                default.model,
                objective="fastcut",
                lambda_nce=3.0,
                num_blocks=6,
                base_channels=32,
                norm="layer",
                upsampling="resize",
                gan_loss="hinge",
            ),
            discriminator=DiscriminatorConfig(discriminator_norm="none", discriminator_channels=32),
            regularization=replace(default.regularization, r1=0.02),
            optimizer=replace(default.optimizer, ema=0.999),
            schedule=replace(default.schedule, steps=40_000),
        )
    contrastive = replace(default, model=replace(default.model, resampling="blur", num_blocks=9, init="xavier"))
    if name == "cut":
        return replace(
            contrastive,
            model=replace(contrastive.model, objective="cut"),
            schedule=replace(default.schedule, epochs=200, decay_epochs=200),
        )
    return replace(
        contrastive,
        model=replace(contrastive.model, objective="fastcut"),
        schedule=replace(default.schedule, epochs=150, decay_epochs=50),
    )


def defaults(name: Preset | None, objective: object = None) -> CycleGanConfig:
    """Return the defaults that options come with.

    Args:
        name: Preset; without one, the defaults are those of the objective.
        objective: Value of --objective, if given. What the preset sets for its own objective only is left out.
    """
    if name is None and objective in ("cut", "fastcut"):
        name = "cut" if objective == "cut" else "fastcut"
    default = preset(name)
    if objective is None or objective == default.model.objective:
        return default
    model = replace(default.model, lambda_nce=None)
    return replace(default, model=model if objective == "cycle" else replace(model, generator="resnet", levels=None))


def check(config: CycleGanConfig) -> None:
    """Refuse combinations that cannot train well.

    Raises:
        UserError: A combination cannot train well; the message names the option to change.
    """
    model, data = config.model, config.data
    _check_objective(config)
    if None not in (data.channels_a, data.channels_b) and data.channels_a != data.channels_b and mixes_domains(model):
        raise UserError(
            f"channels_a {data.channels_a} and channels_b {data.channels_b} differ: an image of one domain cannot "
            f"go through the generator of the other. Use {channels_remedy(model)}."
        )
    if model.generator == "resnet" and model.levels is not None:
        raise UserError(f"levels {model.levels}: only --generator unet has levels; resnet has num_blocks.")
    if model.generator == "unet" and model.num_blocks is not None:
        raise UserError(f"num_blocks {model.num_blocks}: only --generator resnet has blocks; unet has levels.")
    if model.resampling == "blur" and model.generator == "unet":
        raise UserError("--resampling blur with --generator unet: only the resnet has it.")
    if model.resampling == "blur" and model.upsampling != "transpose":
        raise UserError(
            f"--upsampling {model.upsampling} with --resampling blur, which has its own. Add --upsampling transpose, "
            "or use --resampling strided."
        )
    if model.norm == "layer" and model.base_channels < MIN_LAYER_NORM_CHANNELS:
        raise UserError(
            f"--base-channels {model.base_channels} with --norm layer, which normalizes over the channels of each "
            f"pixel. Use at least {MIN_LAYER_NORM_CHANNELS}, or another norm."
        )
    if data.batch_size % model.grad_accum_steps:
        raise UserError(f"--grad-accum-steps {model.grad_accum_steps} does not divide --batch-size {data.batch_size}.")
    check_discriminator(config.discriminator, data.image_size, model.gan_loss)
    check_regularization(config.regularization, config.discriminator.discriminator_norm, model.gan_loss)
    check_sizes(data.load_size, data.image_size)
    check_levels(model.levels, data.image_size)
    check_length(config.schedule)
    check_penalty(model.lambda_gp, model.gan_loss)
    criteria(config.validation)
    ranges(data)


def _check_objective(config: CycleGanConfig) -> None:
    """Refuse options that the objective ignores or that leave nothing to tie a translation to its source.

    Raises:
        UserError: With the option to change.
    """
    model, data = config.model, config.data
    if model.objective == "cycle":
        _check_unused(model, "cycle", "has no PatchNCE", ("--lambda-nce", "--nce-patches"))
        if data.direction != "a2b":
            raise UserError(f"--direction {data.direction} with --objective cycle, which trains both. Leave it out.")
        if model.lambda_cycle == 0:
            raise UserError("--lambda-cycle 0: without it nothing ties a translation to its source. Give it a weight.")
        return
    objective = model.objective
    _check_unused(model, objective, "has no cycles", ("--lambda-cycle", "--lambda-identity"))
    _check_unused(model, objective, "trains D on the newest translations only", ("pool_size",))
    _check_unused(model, objective, "does not implement it", ("--grad-accum-steps", "--activation-checkpointing"))
    if model.norm == "batch":
        raise UserError(
            f"--norm batch with --objective {objective}: an image's features would depend on the other images of its "
            "batch. Use --norm instance, layer or none."
        )
    if model.dropout:
        raise UserError(
            f"dropout {model.dropout:g} with --objective {objective}: features of the same image would differ from "
            "pass to pass. Use dropout 0."
        )
    if model.generator != "resnet":
        raise UserError(f"--objective {objective} compares features of a ResNet. Use --generator resnet.")
    if model.lambda_nce == 0:
        raise UserError("--lambda-nce 0: without it nothing ties a translation to its source. Give it a weight.")
    if model.objective == "fastcut" and data.image_size % 2:
        raise UserError(
            f"--image-size {data.image_size} with --objective fastcut: patches of an image of odd width do not match "
            "those of its mirror image. Use an even number."
        )
    locations = math.ceil(data.image_size / 4) ** 2  # of the residual blocks, the fewest of all layers
    if locations < model.nce_patches:
        raise UserError(
            f"--image-size {data.image_size} has {locations} locations in the generator's blocks, and --objective "
            f"{objective} compares {model.nce_patches} patches. Use larger images, or --nce-patches {locations}."
        )


def _check_unused(model: ModelConfig, objective: str, reason: str, options: Sequence[str]) -> None:
    """Check that options which an objective ignores have their defaults.

    Raises:
        UserError: One has another value.
    """
    default = ModelConfig()
    for option in options:
        name = option.removeprefix("--").replace("-", "_")
        value = getattr(model, name)
        if value != getattr(default, name):
            shown = option if value is True else f"{option} {value:g}"
            raise UserError(f"{shown} with --objective {objective}, which {reason}. Leave it out (of a config, too).")


def lambda_nce(model: ModelConfig) -> float:
    """Return the weight of PatchNCE: Park et al. 2020, Sec. 3, where the options name none."""
    if model.lambda_nce is not None:
        return model.lambda_nce
    return 1.0 if model.objective == "cut" else 10.0


def mixes_domains(model: ModelConfig) -> bool:
    """Return whether one generator sees images of both domains, which must have equal channels then.

    These are the identity losses of a cycle, and the features of translations that CUT and FastCUT compare.
    """
    return model.objective != "cycle" or model.lambda_identity > 0


def channels_remedy(model: ModelConfig) -> str:
    """Return the options that allow domains of different channels."""
    return ("" if model.objective == "cycle" else "--objective cycle ") + "--lambda-identity 0"


def criteria(validation: ValidationConfig) -> MetricOptions:
    """Return the metrics that choose the best model.

    Raises:
        UserError: A name is unknown, or the metrics would choose a bad model.
    """
    return criterion_options(
        validation.save_best_by or SAVE_BEST_BY,
        allowed=tuple(OF_SETS),
        feature_weights=validation.feature_weights,
        lpips_weights=validation.lpips_weights,
    )


def data_folder(data: DataConfig) -> Path:
    """Return the folder of the dataset.

    Raises:
        UserError: The options name none.
    """
    if data.data is None:
        raise UserError("--data is missing: give the folder of the dataset, which has trainA and trainB.")
    return data.data


def channels(data: DataConfig) -> tuple[int, int]:
    """Return the channels of both domains; color's where they were neither given nor read from the data."""
    return data.channels_a or 3, data.channels_b or 3


def ranges(data: DataConfig) -> tuple[tuple[float, float] | None, tuple[float, float] | None]:
    """Return the value ranges of both domains' images; None is the full range of a file's data type.

    Raises:
        UserError: An option is not a range.
    """
    both = parse_range("--value-range", data.value_range)
    return both, parse_range("value_range_b", data.value_range_b) or both
