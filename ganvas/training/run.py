"""A training from the command line's point of view: the run's folder, the loop, and what is said before and after."""

import contextlib
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Protocol

from lightning_fabric import Fabric
from rich.console import Console

from ganvas.data.store import PictureStore, temporary_store
from ganvas.errors import UserError
from ganvas.files import cannot_write, recover_folder, write_json
from ganvas.options import COMMAND, to_json
from ganvas.training.config import HardwareConfig, LoggingConfig, ScheduleConfig, flatten
from ganvas.training.device import make_fabric
from ganvas.training.loop import Data, Outcome, Trainable, newest_whole_checkpoint, resume_command, train
from ganvas.training.memory import peak_memory_gb

Say = Callable[[str], None]


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
    build: Callable[[Fabric, Say], tuple[Trainable, Data]],
    *,
    resume: bool,
    describe_best: Callable[[Mapping[str, float]], list[str]],
) -> int:
    """Train, or go on training, in the folder ``run``; give the process's exit code.

    Args:
        program: The command, for messages.
        config: All options of the run; its config.json.
        run: The run's folder.
        build: Builds the model and opens its data; says what it found.
        resume: Whether to go on from the newest checkpoint.
        describe_best: Puts the best validation metrics into words.

    Raises:
        UserError: Bad options or data, a folder that cannot be written, a training that diverged.
    """
    say = Console(stderr=True, soft_wrap=True, highlight=False, markup=False).print
    _check_folder(run, resume)
    checkpoint = newest_whole_checkpoint(run, say) if resume else None
    fabric = make_fabric(config.hardware)
    model, data = build(fabric, say if fabric.is_global_zero else _silence)
    _make_folder(run)  # not before model and data are there: a training that is refused leaves nothing
    if fabric.is_global_zero:
        write_json(run / "config.json", to_json(config) | {COMMAND: program})
        recover_folder(run / "model")
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
    )
    if not fabric.is_global_zero:
        return 0
    return _say_outcome(program, say, outcome, run, describe_best)


def loading_workers(hardware: HardwareConfig, fabric: Fabric) -> int:
    """Beside a GPU the processor is free to load; on a CPU a loading process would take a core from the training."""
    if hardware.workers is not None:
        return hardware.workers
    return min(4, os.cpu_count() or 1) if fabric.device.type != "cpu" else 0


@contextlib.contextmanager
def blaming_held_out(split: str) -> Iterator[None]:
    """Say of an error in held-out pictures which ones they are: the training pictures may be good.

    Raises:
        UserError: What was raised within, with the split named.
    """
    try:
        yield
    except UserError as error:
        raise UserError(
            f"{error} This is the split {split}, held out for samples and validation. Mend it, or take it away."
        ) from None


@contextlib.contextmanager
def shared_store(hardware: HardwareConfig, fabric: Fabric) -> Iterator[PictureStore | None]:
    """Open the store of decoded pictures that the processes of this machine share; none where nothing is to be kept."""
    if not hardware.cache_gb:
        yield None
        return
    with temporary_store(int(hardware.cache_gb * 1e9), fabric.broadcast) as store:
        yield store


def _silence(line: str) -> None:
    """Say nothing: the first process speaks for all."""


def _check_folder(run: Path, resume: bool) -> None:
    """Make sure that no run or file is overwritten, and that what is there can be written into."""
    if run.exists() and not run.is_dir():
        raise UserError(f"{run}: is a file. Give --out a folder.")
    if not resume and (run / "checkpoints").is_dir() and any((run / "checkpoints").glob("step-*")):
        raise UserError(f"{run}: holds a run already. Continue it with --resume, or give --out another folder.")
    if run.is_dir() and not os.access(run, os.W_OK):
        raise UserError(f"{run}: cannot be written. Give --out a folder of your own.")


def _make_folder(run: Path) -> None:
    try:
        run.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise cannot_write(run, error) from None


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
            f"Pictures skipped because they could not be read: {progress.skipped}, each time counted. "
            "python -m data_scripts check names all of them."
        )
    if progress.best_metrics:
        first, *more = describe_best(progress.best_metrics)
        say("\n".join([f"Best model: step {progress.best_step}, {first}", *more]))
    say(f"Model: {run / 'model'}   samples: {run / 'samples'}   curves: tensorboard --logdir {run}")
    return 0
