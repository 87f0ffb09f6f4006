"""A training from beginning to end: the run's folder and lock, the data's record, the loop, and the summary."""

import ast
import contextlib
import multiprocessing
import os
import shlex
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, Protocol

import torch
from lightning_fabric import Fabric

from ganvas.data.decode_cache import DecodeCache, temporary_decode_cache
from ganvas.errors import UserError
from ganvas.files import recover_folder, write_error
from ganvas.json_files import write_json
from ganvas.log import logger
from ganvas.options import COMMAND, to_json
from ganvas.training.batches import DataSpec
from ganvas.training.callbacks import Callbacks, require_callbacks
from ganvas.training.checkpoint import Checkpoint, load_newest_checkpoint
from ganvas.training.config import HardwareConfig, LoggingConfig, ScheduleConfig, flatten
from ganvas.training.datarecord import DataRecord, check_record, write_record
from ganvas.training.fabric import make_fabric
from ganvas.training.lock import locked_run
from ganvas.training.loop import LoopResult, train
from ganvas.training.trainer import GanTrainer

# What a training writes into its run's folder.
WRITTEN = ("config.json", "data.json", "checkpoints", "metrics.jsonl", "model", "samples")


class RunConfig(Protocol):
    """What the configs of all models have in common."""

    @property
    def seed(self) -> int: ...  # noqa: D102

    @property
    def hardware(self) -> HardwareConfig: ...  # noqa: D102

    @property
    def schedule(self) -> ScheduleConfig: ...  # noqa: D102

    @property
    def logging(self) -> LoggingConfig: ...  # noqa: D102


@dataclass(frozen=True)
class TrainedParts:
    """What is built before the training starts.

    Attributes:
        trainer: The networks and what trains them.
        data: The training set.
        record: What RUN/data.json says of all data.
        notes: Lines for the log: sizes, channels, what is missing.
    """

    trainer: GanTrainer
    data: DataSpec
    record: DataRecord
    notes: Sequence[str] = ()


@dataclass(frozen=True)
class TrainResult:
    """The result of a training.

    Attributes:
        run: The run's folder.
        step: Steps done.
        metrics: Metrics of the best validation; empty if nothing was held out.
        complete: False if a signal or a callback stopped the training; ``resume`` continues it.
        signal_number: Number of that signal; 0 if none.
    """

    run: Path
    step: int
    metrics: dict[str, float]
    complete: bool
    signal_number: int
    load_model: Callable[[Path], Any]

    @property
    def model(self) -> Any:
        """The trained model, ready to use. It is loaded from RUN/model at each access."""
        return self.load_model(self.run)

    @property
    def exit_code(self) -> int:
        """Of the command: 0, or 128 plus the signal's number."""
        return 128 + self.signal_number if self.signal_number else 0


def run_training(
    program: str,
    config: RunConfig,
    run: Path,
    build: Callable[[Fabric, DecodeCache | None], TrainedParts],
    load_model: Callable[[Path], Any],
    *,
    resume: bool,
    callbacks: Sequence[object] = (),
) -> TrainResult:
    """Train, or continue training, in the folder ``run``.

    Args:
        program: The command, for messages and config.json.
        config: All options of the run.
        run: The run's folder.
        build: Builds the model and opens its data, given the device and a cache of decoded images.
        load_model: Reads the trained model, given the run's folder.
        resume: Whether to continue from the newest checkpoint.
        callbacks: See `ganvas.training.callbacks`.

    Raises:
        UserError: Bad options or data, a folder that cannot be written, a training that diverged.
    """
    require_callbacks(callbacks)
    _check_folder(run, resume)
    checkpoint = load_newest_checkpoint(run, first_save=config.logging.save_every_steps) if resume else None
    fabric = make_fabric(config.hardware)
    with contextlib.ExitStack() as stack:
        lock = locked_run(run, fabric, check=lambda: _check_folder(run, resume))
        existed = fabric.broadcast(run.is_dir())
        if existed:
            stack.enter_context(lock)
        parts = build(fabric, stack.enter_context(_decode_cache(config.hardware, fabric)))
        if fabric.is_global_zero:
            for note in parts.notes:
                logger.info("%s", note)
        if resume:
            check_record(run, parts.record)
        _make_folder(run)  # only now: a training that is refused leaves nothing behind
        if not existed:
            stack.enter_context(lock)
        if fabric.is_global_zero:
            write_record(run, parts.record)
            write_json(run / "config.json", to_json(config) | {COMMAND: program})
            recover_folder(run / "model")
        loop_result = _run_loop(program, config, run, parts, fabric, checkpoint, callbacks)
    state = loop_result.state
    signal_number = loop_result.signal_number
    result = TrainResult(run, state.step, state.best_metrics or {}, loop_result.complete, signal_number, load_model)
    if fabric.is_global_zero:
        _log_summary(program, loop_result, run)
        Callbacks(callbacks).notify("on_train_end", result)
    return result


def _run_loop(
    program: str,
    config: RunConfig,
    run: Path,
    parts: TrainedParts,
    fabric: Fabric,
    checkpoint: Checkpoint | None,
    callbacks: Sequence[object],
) -> LoopResult:
    try:
        return train(
            parts.trainer,
            parts.data,
            fabric=fabric,
            run=run,
            seed=config.seed,
            schedule_config=config.schedule,
            logging=config.logging,
            hyperparameters=flatten(to_json(config)),
            resume_from=checkpoint,
            resume_hint=_resume_command(program, run),
            callbacks=callbacks,
        )
    except UserError:
        # All processes raise it and the first one reports it; the launcher would kill it if another failed first.
        if fabric.is_global_zero:
            raise
        raise SystemExit(0) from None


def loading_workers(hardware: HardwareConfig, fabric: Fabric) -> int:
    """Return how many processes load images: by default up to 4 with a GPU, none on a CPU, whose cores train.

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
        UserError: It has none.
    """
    file, spec = getattr(main, "__file__", None), getattr(main, "__spec__", None)
    if file is None or (spec is not None and spec.name.endswith("__main__")):  # these are not run again
        return
    try:
        statements = ast.parse(Path(file).read_bytes()).body
    except (OSError, SyntaxError, ValueError):
        return  # without its source, assume a guard
    if not any(isinstance(each, ast.If) and "__name__" in ast.unparse(each.test) for each in statements):
        raise UserError(
            f'{file}: has no `if __name__ == "__main__":`, so every process that loads images would start the training '
            "again. Put the code that trains under that line, or set --workers 0 (workers=0)."
        )


@contextlib.contextmanager
def _decode_cache(hardware: HardwareConfig, fabric: Fabric) -> Iterator[DecodeCache | None]:
    """Open the cache of decoded images that the processes of this machine share; None if the options want none."""
    if not hardware.cache_gb:
        yield None
        return
    with temporary_decode_cache(int(hardware.cache_gb * 1e9), fabric.broadcast) as store:
        yield store


def _check_folder(run: Path, resume: bool) -> None:
    """Check that no run or file is overwritten, and that the folder is writable."""
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


def _resume_command(program: str, run: Path) -> str:
    return f"{program} train --out {shlex.quote(str(run))} --resume"


def _log_summary(program: str, result: LoopResult, run: Path) -> None:
    """Log how the training ended, and where its results are."""
    state = result.state
    if not result.complete:
        command = _resume_command(program, run)
        logger.info("Stopped after step %d; everything is saved. Continue with:\n  %s", state.step, command)
        return
    memory = _peak_memory_gb()
    peak = "" if memory is None else f", peak memory {memory:.1f} GB"
    logger.info("Done: %d steps in %.1f minutes%s.", state.step, state.seconds / 60, peak)
    if state.skipped:
        logger.info(
            "Skipped %d images that could not be read, each time counted; python -m data_scripts check lists them.",
            state.skipped,
        )
    if state.best_metrics:
        logger.info("Best model: step %s, %s.", state.best_step, _describe_metrics(state.best_metrics))
    logger.info("Model: %s   samples: %s   curves: tensorboard --logdir %s", run / "model", run / "samples", run)


def _describe_metrics(metrics: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {value:.4f}" for name, value in metrics.items())


def _peak_memory_gb() -> float | None:
    """Return the peak memory in GB: the GPU's if one is used, else the process's; None where unknown."""
    if torch.cuda.is_available() and torch.cuda.max_memory_allocated():
        return torch.cuda.max_memory_allocated() / 1e9
    if sys.platform == "win32":
        return None
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 1e9 if sys.platform == "darwin" else peak / 1e6  # bytes on macOS, KiB on Linux
