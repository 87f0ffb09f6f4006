"""Options of a pix2pix training; defaults are the paper's. Free of torch, for a quick --help."""

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Literal

import tyro
from annotated_types import Interval

from ganvas.data.augment import AugmentPreset
from ganvas.errors import UserError
from ganvas.evaluation.names import MetricOptions, criterion_options
from ganvas.options import STRICT, Channels, Converted, FolderName, optional
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

Preset = Literal["paper", "best", "demo"]

# L1 alone would keep the most blurred model, patch statistics alone one that draws the right textures in the wrong
# places. Images of several sizes have no patch statistics.
SAVE_BEST_BY = "l1,swd"


@dataclass(frozen=True)
class DataConfig:
    """Dataset and augmentation.

    Attributes:
        data: Dataset of pairs: DIR/train with A|B images, DIR/trainA and DIR/trainB, DIR/train/a and DIR/train/b,
            DIR/A/train and DIR/B/train, or WebDataset's shards DIR/train-*.tar.
        direction: a2b translates A (left) to B (right), b2a the reverse.
        image_size: Pixels a side of training images.
        augment: none: whole images. paper: random crops, half of them mirrored. strong: in addition small rotations,
            zooms, shifts and color changes.
        load_size: Pixels a side that images are scaled to before the random crop; by default 286/256 of --image-size,
            as in the paper, and with --augment none --image-size. 0 crops without scaling.
        flip: Mirror half of the pairs left to right; on unless --augment is none. --no-flip turns it off.
        color: Strength of random brightness, contrast, saturation and hue changes of the source; 0 for none; by
            default 0.2 with --augment strong and 0 with the others.
        batch_size: Pairs per step and device.
        source_channels: Channels of the source images; by default as many as those of the dataset have, without alpha.
        target_channels: The same of the target images.
        value_range: Pixel values that become -1 and 1 in the network, as 0:4095; by default the full range of the
            files' data type. Negative values need an equals sign: --value-range=-100:8900.
        target_range: The same for the target images, if their range differs.
        source: Folder DIR/train/NAME of source images; repeat the option to stack the images of several folders into
            the channels of the source. Targets are in DIR/train/b.
        target: With --source: the folder of the targets, DIR/train/NAME.
        on_error: Whether a pair that cannot be read stops the run, or is replaced by the next one.
    """

    __pydantic_config__ = STRICT

    data: Annotated[Annotated[Path, Converted(Path.resolve)] | None, optional("DIR")] = None
    direction: Literal["a2b", "b2a"] = "a2b"
    image_size: Annotated[int, Interval(ge=16, le=4096)] = 256
    augment: AugmentPreset = "paper"
    load_size: Annotated[Annotated[int, Interval(ge=0, le=8192)] | None, optional("INT")] = None
    flip: bool = True
    color: tyro.conf.Suppress[NotNegative | None] = None
    batch_size: Count = 1
    source_channels: tyro.conf.Suppress[Channels | None] = None
    target_channels: tyro.conf.Suppress[Channels | None] = None
    value_range: Annotated[str | None, optional("LOW:HIGH")] = None
    target_range: tyro.conf.Suppress[str | None] = None
    source: Annotated[tuple[FolderName, ...], tyro.conf.UseAppendAction] = ()
    target: tyro.conf.Suppress[FolderName] = "b"
    on_error: Literal["stop", "skip"] = "stop"


@dataclass(frozen=True)
class ModelConfig:
    """Generator and losses.

    Attributes:
        generator: unet is the paper's. resunet has residual blocks, also at full resolution (Zhang et al. 2018).
        levels: Levels of the U-Net; by default as many as reduce --image-size to one pixel, at most 8, and 5 in a
            resunet.
        base_channels: Filters of the outermost level of the U-Net.
        norm: Norm of the generator.
        dropout: Dropout rate of the unet's three innermost decoder levels: the paper's noise.
        upsampling: transpose is the paper's; resize leaves no checkerboard, and is what a resunet does.
        init: Initial weights; normal is N(0, 0.02).
        gan_loss: The adversarial loss. relativistic compares each output with its target (Huang et al. 2024).
        lambda_gan: Weight of the adversarial loss; 0 trains with L1 only.
        lambda_l1: Weight of the L1 loss; 0 trains with the adversarial loss only.
        lambda_l1_end: Weight of the L1 loss at the end of the run, to which it falls linearly.
        lambda_features: Weight of feature matching (Wang et al. 2018): outputs have the discriminator's features of
            their targets.
        lambda_gp: Weight of wgangp's gradient penalty.
        discriminator_scales: Discriminators, each of which sees images of half the size of the one before (Wang et al.
            2018).
    """

    __pydantic_config__ = STRICT

    generator: Literal["unet", "resunet"] = "unet"
    levels: tyro.conf.Suppress[Annotated[int, Interval(ge=1, le=12)] | None] = None
    base_channels: Count = 64
    norm: Literal["batch", "instance", "group", "none"] = "batch"
    dropout: tyro.conf.Suppress[Fraction] = 0.5
    upsampling: Literal["transpose", "resize"] = "transpose"
    init: tyro.conf.Suppress[Literal["normal", "xavier", "kaiming", "orthogonal"]] = "normal"
    gan_loss: Literal["vanilla", "lsgan", "hinge", "wgangp", "relativistic"] = "vanilla"
    lambda_gan: NotNegative = 1.0
    lambda_l1: NotNegative = 100.0
    lambda_l1_end: tyro.conf.Suppress[NotNegative | None] = None
    lambda_features: tyro.conf.Suppress[NotNegative] = 0.0
    lambda_gp: tyro.conf.Suppress[NotNegative] = LAMBDA_GP
    discriminator_scales: tyro.conf.Suppress[Annotated[int, Interval(ge=1, le=4)]] = 1


@dataclass(frozen=True)
class Pix2PixConfig:
    """All options of a training.

    Attributes:
        seed: Seed of the weights, the order of the images, their augmentation and the dropout.
    """

    __pydantic_config__ = STRICT

    data: DataConfig = field(default_factory=DataConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    discriminator: DiscriminatorConfig = field(default_factory=DiscriminatorConfig)
    regularization: RegularizationConfig = field(default_factory=RegularizationConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    hardware: HardwareConfig = field(default_factory=HardwareConfig)
    logging: LoggingConfig = field(default_factory=LoggingConfig)
    validation: ValidationConfig = field(default_factory=ValidationConfig)
    seed: Annotated[int, Interval(ge=0, lt=2**63)] = 0


def preset(name: Preset | None) -> Pix2PixConfig:
    """Return the defaults of a preset.

    "paper" is the setting for maps and aerial photographs (Isola et al. 2017, Sec. 6.2): 256 pixels, batch 1, 200
    epochs. "best" is the recipe that gave the best images (docs/recipes.md). "demo" is a short form of it, with a small
    network that draws terrain within minutes on two CPU cores.
    """
    default = Pix2PixConfig()
    if name in (None, "paper"):
        return default
    # Relativistic pairs need small zero-centered penalties and a discriminator without norms (Huang et al. 2024). L1
    # first puts everything in its place, and later leaves the detail to the discriminator.
    best = replace(
        default,
        data=replace(default.data, batch_size=4),
        model=replace(
            default.model,
            upsampling="resize",
            dropout=0.0,
            gan_loss="relativistic",
            lambda_l1=50.0,
            lambda_l1_end=15.0,
        ),
        discriminator=replace(default.discriminator, discriminator_norm="none"),
        regularization=replace(default.regularization, r1=0.02, r2=0.02),
        optimizer=replace(default.optimizer, ema=0.999),
    )
    if name == "best":
        return best
    # In minutes the hinge loss draws more detail, and the innermost levels of a deeper network learn only blotches.
    return replace(
        best,
        data=replace(best.data, image_size=128, augment="none"),
        model=replace(best.model, levels=5, base_channels=32, gan_loss="hinge", lambda_l1_end=None),
        discriminator=replace(best.discriminator, discriminator_channels=32),
        regularization=replace(best.regularization, r2=0.0),
        optimizer=replace(best.optimizer, ema=0.995),
        schedule=replace(best.schedule, steps=3500),
        logging=replace(best.logging, sample_every_steps=500, save_every_steps=500),
    )


def check(config: Pix2PixConfig, *, has_own_losses: bool = False, has_own_discriminator: bool = False) -> None:
    """Refuse combinations that cannot train well.

    Args:
        config: All options.
        has_own_losses: Whether the user adds losses from Python.
        has_own_discriminator: Whether the user's own discriminator replaces the PatchGAN.

    Raises:
        UserError: With the option to change.
    """
    model, data = config.model, config.data
    if model.lambda_gan == 0 and model.lambda_l1 == 0 and not has_own_losses:
        raise UserError("--lambda-gan 0 and --lambda-l1 0 leave nothing to train with. Give one of them a weight.")
    _check_unused(config)
    scales, norm = model.discriminator_scales, config.discriminator.discriminator_norm
    if has_own_discriminator:
        norm = "none"  # as far as we know
        for name, value, default in (
            ("discriminator_scales", scales, 1),
            ("lambda_features", model.lambda_features, 0),
        ):
            if value != default:
                raise UserError(
                    f"{name} {value:g} with your own discriminator, whose layers are not known. Leave it out."
                )
    else:
        check_discriminator(config.discriminator, data.image_size, model.gan_loss, scales=scales)
    check_regularization(config.regularization, norm, model.gan_loss)
    check_sizes(data.load_size, data.image_size)
    check_levels(model.levels, data.image_size)
    check_length(config.schedule)
    check_penalty(model.lambda_gp, model.gan_loss)
    criteria(config.validation)
    ranges(data)
    if data.source and data.direction != "a2b":
        raise UserError("--source and --direction b2a: swap the folders instead.")


def _check_unused(config: Pix2PixConfig) -> None:
    """Refuse options that another one makes meaningless.

    Raises:
        UserError: With both options.
    """
    model = config.model
    if model.generator == "resunet" and model.dropout not in (0.0, ModelConfig.dropout):
        raise UserError(f"dropout {model.dropout:g} with --generator resunet, which has none. Use --generator unet.")
    if model.lambda_l1_end is not None and model.lambda_l1_end > model.lambda_l1:
        raise UserError(f"lambda_l1_end {model.lambda_l1_end:g} is more than --lambda-l1 {model.lambda_l1:g}.")
    if model.lambda_gan == 0:
        of_discriminator = (
            ("lambda_features", model.lambda_features, 0),
            ("--r1", config.regularization.r1, 0),
            ("r2", config.regularization.r2, 0),
            ("--diff-augment", " ".join(config.regularization.diff_augment), ""),
            ("discriminator_scales", model.discriminator_scales, 1),
            ("--gan-loss", model.gan_loss, ModelConfig.gan_loss),
        )
        for name, value, unused in of_discriminator:
            if value != unused:
                raise UserError(f"{name} {value} with --lambda-gan 0, which trains no discriminator. Leave it out.")


def criteria(validation: ValidationConfig) -> MetricOptions:
    """Return the metrics that choose the best model.

    Raises:
        UserError: A name is unknown, or the metrics would choose a bad model.
    """
    return criterion_options(
        validation.save_best_by or SAVE_BEST_BY,
        feature_weights=validation.feature_weights,
        lpips_weights=validation.lpips_weights,
    )


def data_folder(data: DataConfig) -> Path:
    """Return the folder of the dataset.

    Raises:
        UserError: The options name none.
    """
    if data.data is None:
        raise UserError("--data is missing: give the folder of the dataset (python -m data_scripts earth makes one).")
    return data.data


def channels(data: DataConfig) -> tuple[int, int]:
    """Return the channels of source and target images; color's where they were neither given nor read from the data."""
    return data.source_channels or 3, data.target_channels or 3


def ranges(data: DataConfig) -> tuple[tuple[float, float] | None, tuple[float, float] | None]:
    """Return the value ranges of source and target images; None is the full range of a file's data type.

    Raises:
        UserError: An option is not a range.
    """
    both = parse_range("--value-range", data.value_range)
    return both, parse_range("target_range", data.target_range) or both
