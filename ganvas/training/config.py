"""Options that all trainings share: schedule, optimizer, hardware, logging, discriminator. Free of torch.

The command line and a run's config.json are made from these dataclasses, and from those of each model.
"""

import difflib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, get_args, get_type_hints

import tyro
from annotated_types import Ge, Gt, Interval

from ganvas.errors import UserError
from ganvas.json_files import read_json
from ganvas.limits import is_value_range
from ganvas.messages import shorten
from ganvas.options import COMMAND, STRICT, Converted, from_json, optional, to_json

Config = TypeVar("Config")
Positive = Annotated[float, Gt(0)]
NotNegative = Annotated[float, Ge(0)]
Fraction = Annotated[float, Interval(ge=0, lt=1)]
Count = Annotated[int, Ge(1)]
CountOrZero = Annotated[int, Ge(0)]
HIDDEN = get_args(tyro.conf.Suppress[int])[-1]  # marks options that only Python and config.json have
LAMBDA_GP = 10.0  # Gulrajani et al. 2017, Sec. 4
PENALTY_EVERY = 8  # our choice; Karras et al. 2020, App. B, take 16


@dataclass(frozen=True)
class ScheduleConfig:
    """How long a run is and how its learning rate falls.

    Attributes:
        epochs: Epochs at the full learning rate.
        decay_epochs: Epochs after those, in which the rate falls.
        steps: Length of the run in steps instead of epochs.
        decay_steps: With --steps: in how many of them the rate falls; by default the second half.
        schedule: linear: constant, then falling to zero. step: a tenth every 50 epochs. cosine: falls from the first
            step on. plateau: a fifth when the validation metric has not improved by 1% for 5 validations.
        lr_step_epochs: Epochs between the falls of the step schedule.
    """

    __pydantic_config__ = STRICT

    epochs: CountOrZero = 100
    decay_epochs: CountOrZero = 100
    steps: Annotated[Count | None, optional("INT")] = None
    decay_steps: Annotated[CountOrZero | None, optional("INT")] = None
    schedule: Literal["linear", "step", "cosine", "plateau"] = "linear"
    lr_step_epochs: tyro.conf.Suppress[Count] = 50


@dataclass(frozen=True)
class OptimizerConfig:
    """Adam's values; the papers' by default (Isola et al. 2017, Sec. 3.3).

    Attributes:
        lr: Learning rate.
        lr_discriminator: Learning rate of the discriminators, if it is another (Heusel et al. 2017).
        beta1: Decay of the first moment.
        beta2: Decay of the second moment.
        eps: Added to the root of the second moment.
        ema: Decay of a running average of the generator's weights, which becomes the model. 0 keeps none, as in the
            paper; 0.999 suits long runs, 0.99 short ones.
    """

    __pydantic_config__ = STRICT

    lr: Positive = 2e-4
    lr_discriminator: tyro.conf.Suppress[Positive | None] = None
    beta1: Fraction = 0.5
    beta2: tyro.conf.Suppress[Fraction] = 0.999
    eps: tyro.conf.Suppress[Positive] = 1e-8
    ema: Fraction = 0.0


@dataclass(frozen=True)
class HardwareConfig:
    """Where and in which precision a run computes; may change when it is resumed.

    Attributes:
        device: auto takes CUDA, then Apple's GPU, then the CPU.
        devices: Number of devices that train together, each with its own batch.
        precision: auto is bf16 where the hardware multiplies it natively, else fp32.
        compile: Compile the networks with torch.compile: takes minutes at the start and makes steps faster. Falls back
            with a warning where it does not work.
        threads: CPU threads; by default torch's choice. The bytes of a result depend on it.
        workers: Processes that load images; by default 0 on a CPU and up to 4 with a GPU.
        cache_gb: Size in GB of a temporary folder of decoded images that all processes share; 0 for none.
    """

    __pydantic_config__ = STRICT

    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    devices: Count = 1
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    compile: bool = False
    threads: Annotated[Count | None, optional("INT")] = None
    workers: Annotated[CountOrZero | None, optional("INT")] = None
    cache_gb: tyro.conf.Suppress[NotNegative] = 2.0


@dataclass(frozen=True)
class LoggingConfig:
    """How often a run writes what; may change when it is resumed.

    Attributes:
        log_every_steps: Steps between lines of metrics.jsonl.
        sample_every_steps: Steps between sample images.
        save_every_steps: Steps between checkpoints; each is validated first.
        keep_checkpoints: How many of the newest checkpoints are kept, in addition to the best.
    """

    __pydantic_config__ = STRICT

    log_every_steps: Count = 50
    sample_every_steps: Count = 500
    save_every_steps: Count = 1000
    keep_checkpoints: tyro.conf.Suppress[Count] = 2


@dataclass(frozen=True)
class ValidationConfig:
    """What the best model of a run is chosen by.

    Attributes:
        save_best_by: Validation metrics with commas between them, as swd,lpips (docs/metrics.md): the best model has
            the least product of their errors. By default those that docs/metrics.md names for each command.
        feature_weights: TorchScript network for fid and kid instead of Inception v3.
        lpips_weights: TorchScript network for lpips instead of AlexNet.
    """

    __pydantic_config__ = STRICT

    save_best_by: Annotated[str | None, optional("NAMES")] = None
    feature_weights: tyro.conf.Suppress[Annotated[Path, Converted(Path.resolve)] | None] = None
    lpips_weights: tyro.conf.Suppress[Annotated[Path, Converted(Path.resolve)] | None] = None


@dataclass(frozen=True)
class DiscriminatorConfig:
    """The discriminator of a translator.

    Attributes:
        patch_layers: Stride-2 layers of the PatchGAN: 3 see 70x70 pixels (84x84 with blur), 0 scores each pixel.
        discriminator_channels: Filters of the discriminator's first layer.
        discriminator_norm: Norm of the discriminator; spectral divides each weight by its largest singular value.
        discriminator_resampling: blur halves the size after a blur (Zhang 2019); by default that of the generator.
    """

    __pydantic_config__ = STRICT

    patch_layers: Annotated[int, Interval(ge=0, le=6)] = 3
    discriminator_channels: tyro.conf.Suppress[Count] = 64
    discriminator_norm: Literal["batch", "instance", "spectral", "none"] = "batch"
    discriminator_resampling: tyro.conf.Suppress[Literal["strided", "blur"] | None] = None


@dataclass(frozen=True)
class RegularizationConfig:
    """What keeps the discriminator from getting too far ahead of the generator.

    Attributes:
        r1: Penalty on the discriminator's gradient at real images, gamma of Mescheder et al. 2018; 0 for none. Needs
            --discriminator-norm none or instance.
        r2: The same at generated images.
        penalty_every: Steps between computations of r1 and r2, each of which then has this weight.
        diff_augment: Changes to all images that the discriminator sees (Zhao et al. 2020): color, translation, cutout.
            They help with few images.
    """

    __pydantic_config__ = STRICT

    r1: NotNegative = 0.0
    r2: tyro.conf.Suppress[NotNegative] = 0.0
    penalty_every: tyro.conf.Suppress[Count] = PENALTY_EVERY
    diff_augment: tuple[Literal["color", "translation", "cutout"], ...] = ()


def check_discriminator(options: DiscriminatorConfig, image_size: int, gan_loss: str, *, scales: int = 1) -> None:
    """Check that the discriminator, or that of the smallest of several scales, can be built and fits size and loss.

    Raises:
        UserError: It does not; the message names the option to change.
    """
    if gan_loss == "wgangp" and options.discriminator_norm == "batch":
        raise UserError(
            "--gan-loss wgangp with --discriminator-norm batch: the gradient penalty is computed for each image, but "
            "batch norm mixes images (Gulrajani et al. 2017, Sec. 4). Use --discriminator-norm instance or none."
        )
    if gan_loss == "wgangp" and options.discriminator_norm == "spectral":
        raise UserError(
            "--gan-loss wgangp with --discriminator-norm spectral: both bound the gradient. Use "
            "--discriminator-norm instance or none."
        )
    if options.discriminator_resampling == "blur" and not options.patch_layers:
        raise UserError(
            "discriminator_resampling blur with --patch-layers 0: the pixel discriminator has no resampling. Leave it "
            "out, or use more layers."
        )
    smallest = 3 * 2**options.patch_layers << scales - 1
    if options.patch_layers and image_size < smallest:
        at_scales = f" at {scales} scales" if scales > 1 else ""
        raise UserError(
            f"--image-size {image_size} is too small for --patch-layers {options.patch_layers}{at_scales}, which needs "
            f"{smallest} pixels. Use fewer layers or larger images."
        )


def check_regularization(options: RegularizationConfig, norm: str, gan_loss: str) -> None:
    """Check that the penalties fit the discriminator's norm and the adversarial loss.

    Raises:
        UserError: They do not; the message names the option to change.
    """
    name, gamma = ("--r1", options.r1) if options.r1 else ("r2", options.r2)
    if not gamma:
        if options.penalty_every != PENALTY_EVERY:
            raise UserError(f"penalty_every {options.penalty_every}: there is no penalty. Use it with --r1.")
        return
    if norm == "batch":
        raise UserError(
            f"{name} {gamma:g} with --discriminator-norm batch: the penalty is computed for each image, but batch norm "
            "mixes images. Use --discriminator-norm none or instance."
        )
    if norm == "spectral" or gan_loss == "wgangp":
        other = "--discriminator-norm spectral" if norm == "spectral" else "--gan-loss wgangp"
        raise UserError(f"{name} {gamma:g} with {other}, which bounds the gradient already. Use one of them.")


def check_sizes(load_size: int | None, image_size: int) -> None:
    """Check that images are at least as large as the crop.

    Raises:
        UserError: They are smaller.
    """
    if load_size is not None and 0 < load_size < image_size:
        raise UserError(f"--load-size {load_size} is smaller than --image-size {image_size}.")


def check_levels(levels: int | None, image_size: int) -> None:
    """Check that a U-Net does not have more levels than the image size allows.

    Raises:
        UserError: It has more.
    """
    most = (image_size - 1).bit_length()
    if levels is not None and levels > most:
        raise UserError(f"levels {levels}: {most} reduce --image-size {image_size} to one pixel. Use at most {most}.")


def parse_range(option: str, text: str | None) -> tuple[float, float] | None:
    """Read a range of pixel values, "LOW:HIGH"; None stays None.

    Raises:
        UserError: The text is not a range.
    """
    if text is None:
        return None
    try:
        low, high = map(float, text.split(":"))
    except ValueError:
        low = high = math.nan
    if not is_value_range((low, high)):
        raise UserError(f"{option} {text}: is not a range. Use LOWEST:HIGHEST, such as {option} 0:4095.")
    return low, high


def check_penalty(lambda_gp: float, gan_loss: str) -> None:
    """Check that a weight of the gradient penalty is not set for a loss without one.

    Raises:
        UserError: It is.
    """
    if gan_loss != "wgangp" and lambda_gp != LAMBDA_GP:
        raise UserError(f"lambda_gp {lambda_gp:g}: --gan-loss {gan_loss} has no gradient penalty; only wgangp has one.")


def check_length(schedule: ScheduleConfig) -> None:
    """Check that a run has steps, and that its decay is a part of it.

    Raises:
        UserError: It has none, or the decay is longer.
    """
    if schedule.steps is None and schedule.decay_steps:
        raise UserError(f"--decay-steps {schedule.decay_steps} belongs to --steps. Add that, or use --decay-epochs.")
    if schedule.steps is not None and (schedule.decay_steps or 0) > schedule.steps:
        raise UserError(f"--decay-steps {schedule.decay_steps} is more than --steps {schedule.steps}, the whole run.")
    if schedule.steps is None and schedule.epochs + schedule.decay_epochs == 0:
        raise UserError("--epochs 0 and --decay-epochs 0 leave nothing to do. Set one of them, or --steps.")


RESUMABLE_CHANGES = frozenset(
    f"{group}.{name}"
    for group, kind in (("hardware", HardwareConfig), ("logging", LoggingConfig))
    for name in kind.__dataclass_fields__
) | {
    *(f"schedule.{name}" for name in ("epochs", "decay_epochs", "steps", "decay_steps")),
    "data.on_error",  # so that a run stopped by a bad image can continue without it
    "data.data",  # data may be moved; `ganvas.training.datarecord` compares its content
    "data.data_root",
}


def read_config(path: Path, program: str, config_class: type[Config]) -> Config:
    """Read RUN/config.json of a run that a command trained.

    Raises:
        UserError: It is missing or cannot be read, has other options, or is another command's or a model's.
    """
    if not path.is_file():
        raise UserError(f"{path}: there is no such file. Name the config.json of a run; a new run needs no --resume.")
    values = read_json(path, "a run's config")
    if "networks" in values or "kind" in values:
        raise UserError(f"{path}: is the config of a model. Name the config.json in the run's own folder.")
    command = values.get(COMMAND, program)
    if command != program:
        other = shorten(str(command))
        raise UserError(f"{path}: is the config of a {other} run. Use {other} train, or a config of {program}.")
    return from_json(config_class, values, str(path))


def with_options(config: Config, options: Mapping[str, Any]) -> Config:
    """Return a config with some options replaced, named as on the command line: ``steps=500``.

    Raises:
        TypeError: There is no such option.
        UserError: A value is out of range.
    """
    nested = to_json(config)
    groups = {name: group for group, values in nested.items() if isinstance(values, dict) for name in values}
    for name, value in options.items():
        if name in groups:
            nested[groups[name]][name] = value
        elif name in nested and not isinstance(nested[name], dict):
            nested[name] = value
        else:
            near = difflib.get_close_matches(name, [*groups, *nested], n=1)
            raise TypeError(f"there is no option {name!r}.{f' Did you mean {near[0]!r}?' if near else ''}")
    return from_json(type(config), nested, "options")


def resumed_config(run: Path, program: str, config_class: type[Config], options: Mapping[str, Any]) -> Config:
    """Return the config of a run that is resumed with some options changed.

    Raises:
        UserError: There is no run, or an option may not change.
        TypeError: There is no such option.
    """
    before = read_config(run / "config.json", program, config_class)
    after = with_options(before, options)
    require_resumable(before, after)
    return after


def require_resumable(run: object, options: object) -> None:
    """Check that a resumed run changes only what it may.

    Raises:
        UserError: Other options differ; they are named.
    """
    if changed := forbidden_changes(run, options):
        raise UserError(
            f"--resume takes everything from the run's own config; it cannot change {', '.join(changed)}. Only the "
            "place of the data and length, logging and hardware options may differ. Leave them out, or start a new run."
        )


def with_settings(run: Config, named: Config, presets: Sequence[Config]) -> Config:
    """Return a run's config with a preset's values, so that a resumed run notices a preset that is not its own.

    Args:
        run: The run's config.
        named: The preset's.
        presets: All there are: a preset sets the options in which they differ.
    """
    values, preset, *others = (flatten(to_json(config)) for config in (run, named, *presets))
    sets = {name for name, value in preset.items() if any(value != each[name] for each in others)} - RESUMABLE_CHANGES
    nested: dict[str, Any] = {}
    for name, value in values.items():
        group, _, field = name.rpartition(".")
        (nested.setdefault(group, {}) if group else nested)[field] = preset[name] if name in sets else value
    return from_json(type(run), nested, "a preset")


def forbidden_changes(before: Any, after: Any) -> list[str]:
    """Return the options in which two configs differ and a resumed run may not, with both values."""
    was, now = flatten(to_json(before)), flatten(to_json(after))
    return [
        f"{_option(before, name)} (was {was[name]!r}, now {now.get(name)!r})"
        for name in was
        if was[name] != now.get(name) and name not in RESUMABLE_CHANGES
    ]


def flatten(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return nested values as one level, with dotted names."""
    flat: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, dict):
            flat |= flatten(value, f"{prefix}{name}.")
        else:
            flat[f"{prefix}{name}"] = value
    return flat


def _option(config: object, name: str) -> str:
    """Return an option's flag; its Python name if the command line does not have it."""
    group, _, field = name.rpartition(".")
    hints = get_type_hints(type(getattr(config, group) if group else config), include_extras=True)
    is_hidden = HIDDEN in getattr(hints[field], "__metadata__", ())
    return field if is_hidden else "--" + field.replace("_", "-")
