"""What every training has: data, schedule, optimiser, hardware, logging. Frozen, versioned, free of torch.

The command line is made from these classes (tyro), and so is a run's config.json (pydantic). The modules' own configs
hold one of each beside what is theirs.
"""

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import tyro
from pydantic import ConfigDict, Field, TypeAdapter, ValidationError

from ganvas.errors import UserError

FORMAT_VERSION = 1
STRICT = ConfigDict(extra="forbid")  # an unknown key is a mistake, in every nested class

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NotNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Share = Annotated[float, Field(ge=0, lt=1)]
Count = Annotated[int, Field(ge=1)]
CountOrZero = Annotated[int, Field(ge=0)]

Config = TypeVar("Config")


@dataclass(frozen=True)
class ScheduleConfig:
    """How long a run is and how its learning rate falls."""

    __pydantic_config__ = STRICT

    epochs: CountOrZero = 100
    """Epochs at the full learning rate."""
    decay_epochs: CountOrZero = 100
    """Epochs after those, in which it falls."""
    steps: Count | None = None
    """Length of the run in steps, instead of epochs; the second half decays."""
    decay_steps: CountOrZero | None = None
    """With --steps: how many of them decay."""
    schedule: Literal["linear", "step", "cosine", "plateau"] = "linear"
    """linear: constant, then to zero; step: a tenth after every --lr-step-epochs; cosine: from the first step on;
    plateau: a fifth when the validation metric has not improved by 1% for 5 validations."""
    lr_step_epochs: Count = 50
    """Epochs between the falls of the step schedule."""


@dataclass(frozen=True)
class OptimizerConfig:
    """Adam's values; the papers' by default (Isola et al. 2017, Sec. 3.3)."""

    __pydantic_config__ = STRICT

    lr: Positive = 2e-4
    """Learning rate of both networks."""
    beta1: Share = 0.5
    """Decay of the first moment."""
    beta2: Share = 0.999
    """Decay of the second moment."""


@dataclass(frozen=True)
class HardwareConfig:
    """Where and in which precision a run computes; may change when it is resumed."""

    __pydantic_config__ = STRICT

    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    """auto takes CUDA, then Apple's GPU, then the CPU."""
    devices: Count = 1
    """Devices of this machine that train together, each with a batch of its own."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """auto is bf16 where the hardware multiplies it natively, else fp32."""
    threads: Count | None = None
    """CPU threads; torch's choice when not given. The bytes of a result depend on it."""
    workers: CountOrZero | None = None
    """Processes that load pictures; by default none on a CPU and up to 4 beside a GPU."""
    cache_gb: NotNegative = 2.0
    """Decoded pictures are kept in memory when all of them fit this many GB."""


@dataclass(frozen=True)
class LoggingConfig:
    """How often a run writes what; may change when it is resumed. Steps are counted from 1."""

    __pydantic_config__ = STRICT

    log_every_steps: Count = 50
    """Steps between lines of metrics.jsonl."""
    sample_every_steps: Count = 500
    """Steps between sample pictures."""
    validate_every_steps: Count | None = None
    """Steps between validations; once an epoch when not given, but no more often than samples."""
    save_every_steps: Count = 1000
    """Steps between checkpoints."""
    keep_checkpoints: Count = 2
    """Newest checkpoints that are kept."""


RESUMABLE_CHANGES = frozenset(
    f"{group}.{name}"
    for group, kind in (("hardware", HardwareConfig), ("logging", LoggingConfig))
    for name in kind.__dataclass_fields__
) | {f"schedule.{name}" for name in ("epochs", "decay_epochs", "steps", "decay_steps")}


def to_json(config: object) -> dict[str, Any]:
    """Give a config dataclass as JSON values, with the format's version."""
    values = TypeAdapter(type(config)).dump_python(config, mode="json")
    return {"format_version": FORMAT_VERSION, **values}


def from_json(kind: type[Config], values: object, where: str) -> Config:
    """Build a config dataclass from JSON values.

    Args:
        kind: The dataclass.
        values: What `to_json` gave.
        where: The file the values come from, for messages.

    Raises:
        UserError: An unknown key, a wrong type, a value out of range, or a newer format.
    """
    if not isinstance(values, dict):
        raise UserError(f"{where}: expected a JSON object with the options of a run, found {type(values).__name__}.")
    values = dict(values)
    check_version(values.pop("format_version", FORMAT_VERSION), where)
    try:
        return TypeAdapter(kind).validate_python(values)
    except ValidationError as error:
        raise UserError(f"{where}: {_describe(error)}") from None


def check_version(version: object, where: str) -> None:
    """Refuse a file that a newer ganvas wrote.

    Raises:
        UserError: The version is newer than `FORMAT_VERSION`, or no number.
    """
    if not isinstance(version, int) or version > FORMAT_VERSION:
        raise UserError(
            f"{where}: has format version {version!r}, this ganvas reads up to {FORMAT_VERSION}. "
            "Install the newer ganvas that wrote it."
        )


def validate(config: Config) -> Config:
    """Check the limits of all values: tyro builds configs, but only pydantic knows the limits.

    Raises:
        UserError: A value is out of range.
    """
    kind = type(config)
    try:
        return TypeAdapter(kind).validate_python(TypeAdapter(kind).dump_python(config))
    except ValidationError as error:
        raise UserError(_describe(error)) from None


def read_config(kind: type[Config], path: Path) -> Config:
    """Read a config.json.

    Raises:
        UserError: It is missing, no JSON, or not a config of this kind.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise UserError(f"{path}: there is no such file. Give the config.json of a run.") from None
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read ({error}).") from None
    try:
        values = json.loads(text)
    except json.JSONDecodeError as error:
        raise UserError(f"{path}: is no JSON ({error}). Give the config.json of a run.") from None
    return from_json(kind, values, str(path))


def forbidden_changes(before: object, after: object) -> list[str]:
    """Name the options in which two configs differ and a resumed run may not."""
    old, new = _flatten(to_json(before)), _flatten(to_json(after))
    changed = [name for name in old if old[name] != new.get(name)]
    return [f"{_option(name)} (was {old[name]!r}, now {new.get(name)!r})" for name in changed if name not in RESUMABLE_CHANGES]


def with_hardware(config: Config, **changes: object) -> Config:
    """Give the config with other hardware options."""
    hardware = replace(config.hardware, **changes)  # type: ignore[attr-defined]
    return replace(config, hardware=hardware)  # type: ignore[type-var]


def _flatten(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, dict):
            flat |= _flatten(value, f"{prefix}{name}.")
        else:
            flat[f"{prefix}{name}"] = value
    return flat


def _option(name: str) -> str:
    return "--" + name.rpartition(".")[2].replace("_", "-")


def _describe(error: ValidationError) -> str:
    """Say each problem with the option's name, the value found and what is allowed."""
    problems = []
    for item in error.errors():
        names = [str(part) for part in item["loc"] if isinstance(part, str)]
        name = next((part for part in reversed(names) if part.isidentifier()), "config")
        if item["type"] == "unexpected_keyword_argument":
            problems.append(f"{name}: there is no such option")
        else:
            problems.append(f"{name} is {item['input']!r}: {item['msg']}")
    return "; ".join(problems) + "."


Flat = tyro.conf.OmitArgPrefixes  # --lr, not --optimizer.lr
