"""Options of a digit training, and the presets. Free of torch, for a quick --help."""

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Literal, get_args

import tyro
from annotated_types import Interval

from ganvas.errors import UserError
from ganvas.options import STRICT, Channels, Converted, optional
from ganvas.training.config import (
    Count,
    CountOrZero,
    Fraction,
    HardwareConfig,
    LoggingConfig,
    NotNegative,
    OptimizerConfig,
    ScheduleConfig,
    check_length,
)

Preset = Literal["dcgan", "mlp", "conditional", "dcgan-upsample", "dcgan-transpose", "dcgan-5x5"]
PRESETS: tuple[Preset, ...] = get_args(Preset)
NAMES = ("mnist", "fashion-mnist", "mnist5k")
SHUFFLED = ("mnist", "fashion-mnist")  # their files hold the classes in no order
KEPT_FOR_VALIDATION = 5000  # of either, by TensorFlow's old loader, which tutorial 004 reads by

# Our choices, by trial on MNIST with a generator that began at 7 x 7: a rate of 1e-3, five times Radford's (Sec. 4),
# left a Fréchet distance of 7.3 after 1,500 steps where 5e-4 left 9.5. It does not fall: the average of the weights
# takes its noise away, and after 2,814 steps a constant rate had 3.2, one that fell in half 4.0.
LR = 1e-3


def _absolute(data: str) -> str:
    """Return a folder's absolute path; anything else is a dataset's name and stays as it is."""
    is_folder = data and data not in NAMES and Path(data).is_dir()
    return str(Path(data).resolve()) if is_folder else data


@dataclass(frozen=True)
class DataConfig:
    """Dataset.

    Attributes:
        data: mnist, fashion-mnist, mnist5k (5,000 digits, no network needed), or a folder of images; its subfolders are
            classes.
        data_root: Folder of mnist and fashion-mnist, which are downloaded if missing; by default $GANVAS_DATA, else
            datasets.
        image_size: Pixels a side; by default the images' own.
        channels: By default the images' own; 3 repeats gray, 1 makes color gray.
        batch_size: Images per step and device.
        pixel_range: signed scales images to [-1, 1], which the generator's tanh covers; unit to [0, 1], as one tutorial
            did.
        leave_out: Training images to leave out: the first ones of mnist and fashion-mnist, random ones of others. By
            default none; dcgan-5x5 leaves out 5,000 of those two, as its tutorial did.
    """

    __pydantic_config__ = STRICT

    data: Annotated[str, Converted(_absolute)] = ""
    data_root: Annotated[Annotated[Path, Converted(Path.resolve)] | None, optional("DIR")] = None
    image_size: Annotated[Annotated[int, Interval(ge=16, le=128)] | None, optional("INT")] = None
    channels: Annotated[Channels | None, optional("INT")] = None
    batch_size: Count = 128
    pixel_range: tyro.conf.Suppress[Literal["signed", "unit"]] = "signed"
    leave_out: Annotated[CountOrZero | None, optional("INT")] = None


@dataclass(frozen=True)
class ModelConfig:
    """Networks, losses and order of updates.

    Attributes:
        preset: Which networks.
        conditional: Condition on the class; the images need labels.
        latent_dim: Length of the noise vector z.
        latent: z is N(0, 1) or U(-1, 1), each value on its own.
        norm: Norm of both networks.
        base_channels: Filters of the layer next to the image; only with presets dcgan and dcgan-5x5, by default 64.
        extra_layers: Stride-1 layers more in the generator of dcgan-5x5: its tutorial's exercise.
        init: Initial weights: N(0, 0.02), Keras's default, or N(0, 0.1) truncated at two deviations with biases of 0.1.
        gan_loss: The adversarial loss.
        label_smoothing: How far below 1 the discriminator's label of real images is.
        step_order: shared: one update of D on real and fake images, then G by the same fakes. fresh: G by fakes of its
            own. keras: two updates of D, real then fake, the fakes drawn in inference mode; then G by fakes of its own.
    """

    __pydantic_config__ = STRICT

    preset: Preset = "dcgan"
    conditional: bool = False
    latent_dim: tyro.conf.Suppress[Count] = 100
    latent: tyro.conf.Suppress[Literal["normal", "uniform"]] = "normal"
    norm: Literal["batch", "none"] = "batch"
    base_channels: Annotated[Count | None, optional("INT")] = None
    extra_layers: tyro.conf.Suppress[CountOrZero] = 0
    init: tyro.conf.Suppress[Literal["normal", "glorot", "truncated-normal"]] = "normal"
    gan_loss: Literal["vanilla", "lsgan", "hinge"] = "vanilla"
    label_smoothing: Fraction = 0.0
    step_order: tyro.conf.Suppress[Literal["shared", "fresh", "keras"]] = "shared"


@dataclass(frozen=True)
class DigitHardwareConfig(HardwareConfig):
    """Where and in which precision a run computes; may change when it is resumed."""

    cache_gb: tyro.conf.Fixed[tyro.conf.Suppress[NotNegative]] = 0.0  # all images are in memory anyway


@dataclass(frozen=True)
class DcganConfig:
    """All options of a training.

    Attributes:
        seed: Seed of the weights, the order of the images, the noise and the dropout.
    """

    __pydantic_config__ = STRICT

    data: DataConfig = field(default_factory=DataConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    optimizer: OptimizerConfig = field(default_factory=lambda: OptimizerConfig(lr=LR, ema=0.999))
    schedule: ScheduleConfig = field(default_factory=lambda: ScheduleConfig(epochs=10, decay_epochs=0, decay_steps=0))
    hardware: DigitHardwareConfig = field(default_factory=DigitHardwareConfig)
    logging: LoggingConfig = field(default_factory=LoggingConfig)
    seed: Annotated[int, Interval(ge=0, lt=2**63)] = 0


def preset(name: Preset | None) -> DcganConfig:
    """Return a preset's defaults: the tutorials' values as reference systems, or ours.

    The tutorials' Adam is Keras's (1e-3, 0.9, 0.999, eps 1e-7) but where they say otherwise; their rate never falls;
    they compute in float32. 001's optimizer is lost: 2e-4 and beta1 0.5 are Keras-GAN's, which it links. One departure:
    Keras and TensorFlow add eps before they correct the second moment's bias, torch after it, so that theirs weighs
    1 / √(1 - beta2^t) times as much at step t: 32 times at the first, 1.3 times at the thousandth.
    """
    if name is None or name == "dcgan":
        return DcganConfig()
    keras = DcganConfig(
        data=DataConfig(batch_size=200),
        model=ModelConfig(preset=name, init="glorot", step_order="keras"),
        optimizer=OptimizerConfig(lr=1e-3, beta1=0.9, eps=1e-7),
        schedule=ScheduleConfig(epochs=10, decay_epochs=0, decay_steps=0),
        hardware=DigitHardwareConfig(precision="fp32"),
    )
    if name in ("mlp", "conditional"):
        return replace(
            keras,
            model=replace(keras.model, conditional=name == "conditional"),
            optimizer=replace(keras.optimizer, lr=2e-4, beta1=0.5),
        )
    if name == "dcgan-transpose":
        return replace(
            keras,
            data=replace(keras.data, batch_size=128),
            schedule=ScheduleConfig(steps=20_000, decay_steps=0),
        )
    if name == "dcgan-5x5":
        return replace(
            keras,
            data=DataConfig(batch_size=256, pixel_range="unit"),
            model=ModelConfig(preset=name, latent="uniform", norm="none", init="truncated-normal", step_order="fresh"),
            optimizer=OptimizerConfig(lr=1e-4, beta1=0.9),  # TensorFlow's Adam: eps 1e-8
            schedule=ScheduleConfig(steps=20_000, decay_steps=0),
        )
    return keras


def left_out(config: DcganConfig) -> int:
    """Return the number of training images that are left out: the option's, else the preset's own."""
    if config.data.leave_out is not None:
        return config.data.leave_out
    as_documented = config.model.preset == "dcgan-5x5" and config.data.data in SHUFFLED
    return KEPT_FOR_VALIDATION if as_documented else 0


def check(config: DcganConfig) -> None:
    """Refuse combinations that cannot train well.

    Raises:
        UserError: A combination cannot train well; the message names the option to change.
    """
    model = config.model
    if not config.data.data:
        raise UserError("--data is missing: mnist, fashion-mnist, mnist5k (needs no network) or a folder of images.")
    if model.conditional != (model.preset == "conditional") and model.preset != "dcgan":
        raise UserError(
            f"--preset {model.preset} {'always' if model.preset == 'conditional' else 'never'} takes labels. "
            "Use --preset dcgan --conditional, or --preset conditional."
        )
    if model.preset in ("mlp", "conditional") and model.norm == "batch" and config.data.batch_size == 1:
        raise UserError(
            f"--batch-size 1: batch norm of dense layers, as --preset {model.preset} has it, compares images with "
            "one another. Give 2 or more, or --norm none."
        )
    if model.base_channels is not None and model.preset not in ("dcgan", "dcgan-5x5"):
        raise UserError(f"--base-channels: --preset {model.preset} is as its tutorial has it. Use --preset dcgan.")
    if model.base_channels is not None and model.preset == "dcgan-5x5" and model.base_channels % 4:
        raise UserError(f"--base-channels {model.base_channels}: dcgan-5x5 halves it twice; give a multiple of 4.")
    if model.extra_layers and model.preset != "dcgan-5x5":
        raise UserError(f"extra_layers belongs to --preset dcgan-5x5, not to {model.preset}.")
    if model.label_smoothing and model.gan_loss == "hinge":
        raise UserError("--label-smoothing: --gan-loss hinge has no labels to smooth. Use vanilla or lsgan.")
    if model.preset != "dcgan" and config.schedule.schedule == "plateau":
        raise UserError(
            f"--schedule plateau: --preset {model.preset} is shared as its training ends, so nothing is scored that "
            "could stall. Use --preset dcgan, or another schedule."
        )
    check_length(config.schedule)
