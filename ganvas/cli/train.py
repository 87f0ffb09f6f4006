"""How ``train`` of every module reads its options: defaults first, then what the user gave. Free of torch."""

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

import tyro

from ganvas.errors import UserError
from ganvas.json_files import read_json
from ganvas.options import COMMAND, from_json, validate
from ganvas.training.config import forbidden_changes, with_settings

Options = TypeVar("Options")


@dataclass(frozen=True)
class TrainCommand(Generic[Options]):
    """What the user asked ``train`` for."""

    out: Path
    """Folder of the run."""
    options: Options
    """All options, checked one by one."""
    resume: bool
    """Whether to go on from the newest checkpoint."""


def parse_train(
    program: str,
    train_class: Callable[..., Any],
    config_class: type[Options],
    presets: Sequence[str],
    preset: Callable[[Any], Options],
    arguments: list[str],
) -> TrainCommand[Options]:
    """Find the defaults (a preset, a config, the run to resume), then let the options override them.

    Args:
        program: The module's command.
        train_class: The dataclass of the command line, with out, options, resume, preset and config.
        config_class: The class of its options.
        presets: Names that ``preset`` knows.
        preset: Gives a preset's options; of None, the defaults.
        arguments: What stands after "train".

    Raises:
        UserError: No run to resume, a config that cannot be read, a value out of range, an option that a resumed run
            cannot change.
    """
    first = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    first.add_argument("--out", type=Path)
    first.add_argument("--config", type=Path)
    first.add_argument("--preset", choices=presets)
    first.add_argument("--resume", action="store_true")
    known, _ = first.parse_known_args(arguments)
    if known.config and (known.preset or known.resume):
        other = "--preset" if known.preset else "--resume"
        raise UserError(f"--config {known.config} and {other} both set every option. Leave one of them out.")
    path = known.config
    if known.resume and known.out is not None:
        path = known.out / "config.json"
        if not path.is_file():
            raise UserError(
                f"{known.out}: is no run that could be resumed (it has no config.json). Leave out --resume."
            )
    run = None if path is None else _read_config(path, program, config_class)
    named = preset(known.preset)
    default = named if run is None else with_settings(run, named, preset(None))
    command = tyro.cli(
        train_class,
        prog=f"{program} train",
        args=arguments,
        default=train_class(out=tyro.MISSING, options=default),
        config=(tyro.conf.OmitArgPrefixes, tyro.conf.FlagCreatePairsOff),
    )
    options = validate(command.options)
    if command.resume:
        changed = forbidden_changes(run, options)
        if changed:
            raise UserError(
                f"--resume takes everything from the run's own config; it cannot change {', '.join(changed)}. "
                "Only the place of the data, length, logging and hardware options may differ. Leave them out, or start "
                "a new run."
            )
    return TrainCommand(command.out, options, command.resume)


def _read_config(path: Path, program: str, config_class: type[Options]) -> Options:
    """Read the config of a run that this command trained.

    Raises:
        UserError: It cannot be read, has other options, or is that of another command's run or of a model.
    """
    values = read_json(path, "a run's config")
    if "networks" in values or "kind" in values:
        raise UserError(f"{path}: is the config of a model. Give that of a run, which lies in the run's own folder.")
    command = values.get(COMMAND, program)
    if command != program:
        raise UserError(
            f"{path}: is the config of a {command} run, whose options {program} does not have. Use {command} train, or "
            f"give the config of a {program} run."
        )
    return from_json(config_class, values, str(path))
