"""How ``train`` of every model reads its options: defaults first, then what the user gave. Free of torch."""

import argparse
import difflib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

import tyro

from ganvas.console import parse_options
from ganvas.errors import UserError
from ganvas.options import validate
from ganvas.training.config import read_config, require_resumable, with_settings

Options = TypeVar("Options")


@dataclass(frozen=True)
class TrainCommand(Generic[Options]):
    """What the user asked ``train`` for.

    Attributes:
        out: Folder of the run.
        options: All options, each one checked.
        resume: Whether to continue from the newest checkpoint.
    """

    out: Path
    options: Options
    resume: bool


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
        program: The model's command.
        train_class: The dataclass of the command line, with out, options, resume, preset and config.
        config_class: The class of its options.
        presets: Names that ``preset`` knows.
        preset: Returns a preset's options; for None, the defaults.
        arguments: What follows "train".

    Raises:
        UserError: No run to resume, a config that cannot be read, an unknown preset, a value out of range, or an
            option that a resumed run cannot change.
    """
    first = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    first.add_argument("--out", type=Path, nargs="?")
    first.add_argument("--config", type=Path, nargs="?")
    first.add_argument("--preset", nargs="?")
    first.add_argument("--resume", action="store_true")
    known, _ = first.parse_known_args(arguments)
    if known.config and (known.preset or known.resume):
        other = "--preset" if known.preset else "--resume"
        raise UserError(f"--config {known.config} and {other} both set every option. Leave one of them out.")
    if known.preset is not None and known.preset not in presets:
        near = difflib.get_close_matches(known.preset, presets, n=1)
        hint = f"Did you mean {near[0]}? " if near else ""
        raise UserError(f"--preset {known.preset}: there is no such preset. {hint}Presets: {', '.join(presets)}.")
    path = known.config
    if known.resume and known.out is not None:
        path = known.out / "config.json"
    run = None if path is None else read_config(path, program, config_class)
    default = preset(known.preset) if run is None else run
    if run is not None and known.preset is not None:
        default = with_settings(run, preset(known.preset), [preset(name) for name in presets])
    default = train_class(out=tyro.MISSING, options=default)
    command = parse_options(f"{program} train", train_class, arguments, default=default, flat=True)
    options = validate(command.options)
    if command.resume:
        require_resumable(run, options)
    return TrainCommand(command.out, options, command.resume)
