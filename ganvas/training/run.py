"""A training from the command line's point of view: the run's folder, the loop, and what is said before and after."""

import ast
import contextlib
import multiprocessing
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import Protocol

from lightning_fabric import Fabric
from rich.console import Console

from ganvas.data.decode_cache import DecodeCache, temporary_decode_cache
from ganvas.errors import UserError
from ganvas.files import recover_folder, write_error
from ganvas.json_files import write_json
from ganvas.options import COMMAND, to_json
from ganvas.training.config import HardwareConfig, LoggingConfig, ScheduleConfig, flatten
from ganvas.training.datarecord import DataRecord, check_record, write_record
from ganvas.training.fabric import make_fabric
from ganvas.training.lock import locked_run
from ganvas.training.loop import Data, Outcome, Trainable, newest_whole_checkpoint, resume_command, train
from ganvas.training.memory import peak_memory_gb

Say = Callable[[str], None]
WRITTEN = (
    "config.json",
    "data.json",
    "checkpoints",
    "metrics.jsonl",
    "model",
    "samples",
)  # by a training, in its run's folder


class RunConfig(Protocol):
    """What the configs of all modules have."""

    @property
    def seed(self) -> int:
        """Seed of everything."""

    @property
    def hardware(self) -> HardwareConfig:
        """Where to compute."""

    @property
    def schedule(self) -> ScheduleConfig:
        """How long to train."""

    @property
    def logging(self) -> LoggingConfig:
        """What to write how often."""


def run_training(
    program: str,
    config: RunConfig,
    run: Path,
    build: Callable[[Fabric, Say], tuple[Trainable, Data, DataRecord]],
    *,
    resume: bool,
    describe_best: Callable[[Mapping[str, float]], list[str]],
) -> int:
    """Train, or go on training, in the folder ``run``; give the process's exit code.

    Args:
        program: The command, for messages.
        config: All options of the run; its config.json.
        run: The run's folder.
        build: Builds the model, opens its data and records it; says what it found.
        resume: Whether to go on from the newest checkpoint.
        describe_best: Puts the best validation metrics into words.

    Raises:
        UserError: Bad options or data, a folder that cannot be written, a training that diverged.
    """
    say = Console(stderr=True, soft_wrap=True, highlight=False, markup=False).print
    _check_folder(run, resume)
    checkpoint = newest_whole_checkpoint(run, say, first_save=config.logging.save_every_steps) if resume else None
    fabric = make_fabric(config.hardware)
    say_once = say if fabric.is_global_zero else _silence
    lock = locked_run(run, fabric, say_once, check=lambda: _check_folder(run, resume))
    with contextlib.ExitStack() as stack:
        existed = fabric.broadcast(run.is_dir())
        if existed:
            stack.enter_context(lock)
        model, data, record = build(fabric, say_once)
        if resume:
            check_record(run, record, say_once)
        _make_folder(run)  # not before model and data are there: a training that is refused leaves nothing
        if not existed:
            stack.enter_context(lock)
        if fabric.is_global_zero:
            write_record(run, record)
            write_json(run / "config.json", to_json(config) | {COMMAND: program})
            recover_folder(run / "model")
        try:
            outcome = train(
                model,
                data,
                fabric=fabric,
                run=run,
                seed=config.seed,
                schedule_config=config.schedule,
                logging=config.logging,
                hyperparameters=flatten(to_json(config)),
                resume_from=checkpoint,
                how_to_resume=resume_command(program, run),
            )
        except UserError:
            # All processes raise it and the first one reports it, which the launcher would kill if another ended badly.
            if fabric.is_global_zero:
                raise
            return 0
    if not fabric.is_global_zero:
        return 0
    return _say_outcome(program, say, outcome, run, describe_best)


def loading_workers(hardware: HardwareConfig, fabric: Fabric) -> int:
    """Beside a GPU the processor is free to load; on a CPU a loading process would take a core from the training.

    Raises:
        UserError: Loading processes would run the user's script again.
    """
    workers = hardware.workers
    if workers is None:
        workers = min(4, os.cpu_count() or 1) if fabric.device.type != "cpu" else 0
    if workers and multiprocessing.get_start_method() != "fork":
        _require_main_guard(sys.modules["__main__"])
    return workers


def _require_main_guard(main: ModuleType) -> None:
    """Refuse a script without ``if __name__ == "__main__":``, which every spawned process would run from the top.

    Raises:
        UserError: With what to change.
    """
    file, spec = getattr(main, "__file__", None), getattr(main, "__spec__", None)
    if file is None or (spec is not None and spec.name.endswith("__main__")):  # these are not run again
        return
    try:
        statements = ast.parse(Path(file).read_bytes()).body
    except (OSError, SyntaxError, ValueError):
        return  # no source: there may be a guard
    if not any(isinstance(each, ast.If) and "__name__" in ast.unparse(each.test) for each in statements):
        raise UserError(
            f'{file}: has no `if __name__ == "__main__":`, so every process that loads images would start the training '
            "again. Put the code that trains under that line, or set --workers 0."
        )


@contextlib.contextmanager
def blaming_held_out(split: str) -> Iterator[None]:
    """Say of an error in held-out images which ones they are: the training images may be good.

    Raises:
        UserError: What was raised within, with the split named.
    """
    try:
        yield
    except UserError as error:
        if split == "train":
            raise
        raise UserError(
            f"{error} This is the split {split}, held out for samples and validation. Mend it, or take it away."
        ) from None


@contextlib.contextmanager
def shared_decode_cache(hardware: HardwareConfig, fabric: Fabric) -> Iterator[DecodeCache | None]:
    """Open the cache of decoded images that the processes of this machine share; none where nothing is to be kept."""
    if not hardware.cache_gb:
        yield None
        return
    with temporary_decode_cache(int(hardware.cache_gb * 1e9), fabric.broadcast) as cache:
        yield cache


def _silence(line: str) -> None:
    """Say nothing: the first process speaks for all."""


def _check_folder(run: Path, resume: bool) -> None:
    """Make sure that no run or file is overwritten, and that what is there can be written into."""
    if run.exists() and not run.is_dir():
        raise UserError(f"{run}: is a file. Give --out a folder.")
    found = [name for name in WRITTEN if (run / name).exists()]
    if not resume and found:
        raise UserError(
            f"{run}: holds a run already ({', '.join(found)}). Continue it with --resume, or give --out another folder."
        )
    if run.is_dir() and not os.access(run, os.W_OK):
        raise UserError(f"{run}: cannot be written. Give --out a folder of your own.")


def _make_folder(run: Path) -> None:
    try:
        run.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise write_error(run, error) from None


def _say_outcome(
    program: str, say: Say, outcome: Outcome, run: Path, describe_best: Callable[[Mapping[str, float]], list[str]]
) -> int:
    progress = outcome.progress
    if not outcome.complete:
        command = resume_command(program, run)
        say(f"Stopped after step {progress.step}; everything is saved. Continue with:\n  {command}")
        return 128 + outcome.signal_number
    memory = peak_memory_gb()
    peak = "" if memory is None else f", peak memory {memory:.1f} GB"
    say(f"Done: {progress.step} steps in {progress.seconds / 60:.1f} minutes{peak}.")
    if progress.skipped:
        say(
            f"Images skipped because they could not be read: {progress.skipped}, each time counted. "
            "python -m data_scripts check names all of them."
        )
    if progress.best_metrics:
        first, *more = describe_best(progress.best_metrics)
        say("\n".join([f"Best model: step {progress.best_step}, {first}", *more]))
    say(f"Model: {run / 'model'}   samples: {run / 'samples'}   curves: tensorboard --logdir {run}")
    return 0
