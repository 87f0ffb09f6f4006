"""The one training loop: steps, records, validation, checkpoints, resume.

Resume is exact. The order of the images and their augmentation depend on (seed, epoch, index), torch's random numbers
on (seed, step, rank), and the learning rate on the step. So a checkpoint needs no random state, validation and samples
change nothing, and a run that was killed and resumed ends with the same weights as one that never stopped.
"""

import contextlib
import math
import signal
import threading
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import torch
from lightning_fabric import Fabric
from torch import Tensor

from ganvas.data.skip import SkipCounter
from ganvas.errors import UserError
from ganvas.log import logger
from ganvas.training.batches import Batch, DataSpec, load_batches, steps_per_epoch
from ganvas.training.checkpoint import Checkpoint, list_checkpoints, remove_old, save_checkpoint
from ganvas.training.config import LoggingConfig, ScheduleConfig
from ganvas.training.monitors import HealthReport, find_non_finite
from ganvas.training.ranks import Ranks
from ganvas.training.records import RunRecords
from ganvas.training.schedule import Plateau, Progress, make_schedule
from ganvas.training.state import gather_states, load_states, non_finite, require_finite, tensors_of
from ganvas.training.trainer import GanTrainer
from ganvas.training.validation import combined_score


@dataclass(frozen=True)
class TrainState:
    """The progress of a run: what a checkpoint stores as JSON, besides tensors.

    Attributes:
        step: Steps done.
        epoch: Epochs completed.
        seen: Images seen of the current epoch.
        seconds: Training time.
        validation_due: True if an error stopped the run between a step and its validation.
        best_score: Score of the best validation so far, and its step and metrics.
        plateau: State of the plateau schedule.
        skipped: Images that could not be read and were replaced, in all processes.
        model_state: What `GanTrainer.state_dict` returned.
    """

    step: int = 0
    epoch: int = 0
    seen: int = 0
    seconds: float = 0.0
    validation_due: bool = False
    best_score: float | None = None
    best_step: int | None = None
    best_metrics: dict[str, float] | None = None
    plateau: Plateau = field(default_factory=Plateau)
    skipped: int = 0
    model_state: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class LoopResult:
    """How a training ended.

    Attributes:
        state: State at the end.
        complete: False if a signal or a callback stopped it; it can be resumed.
        signal_number: Number of the signal, 0 if none.
    """

    state: TrainState
    complete: bool
    signal_number: int = 0


def train(
    trainer: GanTrainer,
    data: DataSpec,
    *,
    fabric: Fabric,
    run: Path,
    seed: int,
    schedule_config: ScheduleConfig,
    logging: LoggingConfig,
    hyperparameters: Mapping[str, Any],
    resume_from: Checkpoint | None = None,
    resume_hint: str = "--resume",
    callbacks: Sequence[object] = (),
) -> LoopResult:
    """Train to the end of the schedule, or until a signal or a callback stops it.

    Whatever ends the training, the steps since the last checkpoint are saved first. The two exceptions are weights
    that are not finite and an error inside a step.

    Raises:
        UserError: A loss or weight is not finite, the disk is full, or an image cannot be read. The message says what
            was saved. With several processes, all of them raise it.
    """
    loop = _Loop(trainer, data, fabric, run, seed, schedule_config, logging, resume_from)
    records: RunRecords | None = None
    if fabric.is_global_zero:
        records = RunRecords(run, loop.state.step, loop.schedule.total_steps, hyperparameters, callbacks)
    try:
        return loop.run_with(records)
    except BaseException as error:
        loop.save_after_error()
        outcome = loop.describe_saved(resume_hint)
        if isinstance(error, UserError):
            raise UserError(f"{error}{outcome}") from error
        if outcome and fabric.is_global_zero:
            logger.error("Training stopped.%s", outcome)
        raise
    finally:
        if records is not None:
            records.close()


class _Loop:
    """State and parts of a running training."""

    def __init__(
        self,
        trainer: GanTrainer,
        data: DataSpec,
        fabric: Fabric,
        run: Path,
        seed: int,
        schedule_config: ScheduleConfig,
        logging: LoggingConfig,
        resume_from: Checkpoint | None,
    ) -> None:
        self.trainer, self.data, self.fabric, self.run = trainer, data, fabric, run
        self.seed, self.logging = seed, logging
        self.base_lr = {name: optimizer.lr for name, optimizer in trainer.optimizers.items()}
        self.state = TrainState() if resume_from is None else _restore(trainer, resume_from, fabric.global_rank)
        self.saved = self.state  # what the newest checkpoint holds
        self.images_per_step = data.batch_size * fabric.world_size
        self.epoch_steps = steps_per_epoch(data.length, data.batch_size, fabric.world_size)
        # Epochs continue from the images seen, even if another number of devices takes another number of steps.
        self.shift = self.state.step - (self.state.epoch * self.epoch_steps + self.state.seen // self.images_per_step)
        self.schedule = make_schedule(schedule_config, self.epoch_steps, self.shift)
        self.ranks = Ranks(fabric)
        self.skips, self.skipped_before = SkipCounter(), self.state.skipped
        self.began = time.monotonic() - self.state.seconds
        self.logged = _Window(self.state.step)
        self.in_step = False  # then some weights are updated and others are not
        self.records: RunRecords | None = None

    def run_with(self, records: RunRecords | None) -> LoopResult:
        """Train; ``records`` is None in all processes but the first."""
        self.records = records
        if self.state.validation_due:  # an error stopped the run between this step and its validation
            self._validate()
            self._save()
        with self.ranks.fail_together():
            self._notify("on_train_start")
        total = self.schedule.total_steps
        batches = load_batches(
            self.data, self.seed, range(self.state.step - self.shift, total - self.shift), self.fabric
        )
        with _StopSignals() as signals:
            for step in range(self.state.step, total):
                with self.ranks.fail_together():
                    batch = next(batches)
                    self.skips.add_batch(batch)
                self._update(step, batch)
                if self._write(signals):
                    return LoopResult(self.state, self.state.step == total, signals.number)
        if records is not None and self.state.best_metrics:
            records.final_metrics(self.state.best_metrics)
        return LoopResult(self.state, True)

    def _update(self, step: int, batch: Batch) -> None:
        """Run one step and add up its losses, without waiting for the device."""
        torch.manual_seed(_mix(self.seed, step, self.fabric.global_rank))  # independent of what was drawn before
        for name, optimizer in self.trainer.optimizers.items():
            optimizer.lr = self.base_lr[name] * self.schedule.factor(step, self.state.plateau)
        self.in_step = True
        losses = self.trainer.step(batch, Progress(step, self.schedule.total_steps))
        done = step + 1
        epoch, position = divmod(done - self.shift, self.epoch_steps)
        self.state = replace(
            self.state,
            step=done,
            epoch=epoch,
            seen=position * self.images_per_step,
            seconds=time.monotonic() - self.began,
            validation_due=self._is_due(done),
        )
        self.in_step = False
        self.logged.add(losses)
        if self.records is not None:
            self.records.advance(done)

    def _is_due(self, step: int) -> bool:
        """Return whether a validation and a checkpoint follow this step."""
        return step == self.schedule.total_steps or step % self.logging.save_every_steps == 0

    def _write(self, signals: "_StopSignals") -> bool:
        """Write what is due after a step; return whether to stop. Only here does the training wait for the device."""
        done, due = self.state.step, self.state.validation_due
        is_stopping = self._agree_to_stop(signals)
        is_sampling = done == self.schedule.total_steps or done % self.logging.sample_every_steps == 0
        is_logging = due or is_sampling or is_stopping or done % self.logging.log_every_steps == 0
        means = self._log() if is_logging else {}
        # A run that was stopped must choose the same best model as one that was not, so it gets no extra validation.
        # Samples come after it: they are drawn in the mode of batch norm that it chooses.
        if due:
            self._validate()
        if is_logging:
            self._check(means, is_sampling=is_sampling)
        # A callback stops the run at once; a signal that arrives only now, after the next step, which is then logged.
        is_stopping = is_stopping or (self.fabric.world_size == 1 and self._callback_stops())
        if due or is_stopping:
            self._save()
            if self.records is not None:
                remove_old(self.run, self.logging.keep_checkpoints, self.state.best_step, done)
        if is_logging:
            self.logged = _Window(done)  # after samples and validation, so that its rate is the training's
        return is_stopping

    def _log(self) -> dict[str, float]:
        """Record the mean losses since the last record, and return them."""
        with self.ranks.fail_together():
            done = self.state.step
            means = self.logged.read(done)
            if self.records is not None:
                factor = self.schedule.factor(done - 1, self.state.plateau)
                rate = self.logged.rate(self.images_per_step)
                values = {**means, "lr": next(iter(self.base_lr.values())) * factor, "images_per_second": rate}
                epoch = (done - 1 - self.shift) // self.epoch_steps
                self.records.log(done, values, extra={"epoch": epoch, "seconds": round(self.state.seconds, 2)})
        return means

    def _validate(self) -> None:
        """Validate, and keep the model if it is the best so far."""
        state = self.state
        with self.ranks.fail_together():
            require_finite(self.trainer.stateful, state.step)
            if self.records is not None:
                state = _validated(self.trainer, replace(state, validation_due=False), self.records)
        self.state = self.fabric.broadcast(state)  # the learning rate follows the plateau in every process

    def _check(self, means: Mapping[str, float], *, is_sampling: bool) -> None:
        """Check the training's health; draw samples first, if they are due."""
        step = self.state.step
        with self.ranks.fail_together():
            if self.records is not None:
                if is_sampling:
                    self.records.images(step, self.trainer.sample())
                self.records.health(step, self.trainer.check_health(step, means, with_images=is_sampling))

    def _save(self) -> None:
        """Write a checkpoint."""
        with self.ranks.fail_together():
            require_finite(self.trainer.stateful, self.state.step)
        skipped = self.skipped_before + _summed(self.skips.count, self.fabric)
        state = replace(self.state, skipped=skipped, model_state=self.trainer.state_dict())
        others = gather_states(self.trainer.per_process, self.fabric)
        with self.ranks.fail_together():
            if self.records is not None:
                self.records.sync()
                tensors = tensors_of(self.trainer.stateful) | others
                folder = save_checkpoint(self.run, Checkpoint(state.step, tensors, asdict(state)))
                self._notify("on_checkpoint", state.step, folder)
        self.saved = self.state = state

    def _notify(self, method: str, *arguments: object) -> None:
        if self.records is not None:
            self.records.callbacks.notify(method, *arguments)

    def _callback_stops(self) -> bool:
        return self.records is not None and self.records.callbacks.stop_requested

    def _agree_to_stop(self, signals: "_StopSignals") -> bool:
        """Return whether a signal or a callback stops the run; several processes compare at log intervals."""
        early = self._callback_stops()
        if self.fabric.world_size == 1:
            return early or signals.number != 0
        if self.state.step % self.logging.log_every_steps:
            return False
        asked = torch.tensor([float(signals.number), float(early)], device=self.fabric.device)
        asked = torch.as_tensor(self.fabric.all_reduce(asked, reduce_op="max"))
        signals.number = int(asked[0])
        return bool(asked.any())

    def save_after_error(self) -> None:
        """Save the steps since the last checkpoint, if the weights are those of a completed step."""
        if self.state != self.saved and not self.in_step and self.ranks.agreed:
            with contextlib.suppress(Exception):  # the first error is the one to report
                self._save()

    def describe_saved(self, resume_hint: str) -> str:
        """Return what follows an error's message: up to which step the run is saved."""
        if self.state.step == 0:
            return ""
        if self.state == self.saved:
            return f" Everything up to step {self.state.step} is saved. Continue with: {resume_hint}"
        found = list_checkpoints(self.run)
        return f" The last checkpoint, {found[-1]}, is good." if found else " There is no checkpoint yet."


def _restore(trainer: GanTrainer, checkpoint: Checkpoint, rank: int) -> TrainState:
    where = f"checkpoint of step {checkpoint.step}"
    try:
        load_states(trainer.stateful, checkpoint.tensors, rank, where)
        state = TrainState(**{**checkpoint.state, "plateau": Plateau(**checkpoint.state["plateau"])})
        trainer.load_state_dict(state.model_state)
        return state
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"{where}: belongs to another kind of training ({error}).") from None


def _validated(trainer: GanTrainer, state: TrainState, records: RunRecords) -> TrainState:
    """Validate, save the model if it is the best so far, and return the state after it."""
    step, metrics = state.step, trainer.validate()
    if not metrics:
        trainer.save_model(step, {})  # nothing to compare by: the newest is the model
        return state
    records.log(step, metrics)
    score = combined_score(metrics, trainer.criteria)
    finite = {name: value for name, value in metrics.items() if math.isfinite(value)}
    if not math.isfinite(score):
        found = ", ".join(f"{name} is {value}" for name, value in metrics.items() if name not in finite)
        advice = "It does not count for the best model. Check the held-out images: python -m data_scripts check"
        records.health(step, HealthReport({}, [f"The validation failed: {found}. {advice}"]))
        if state.best_score is None:
            trainer.save_model(step, finite)  # until a validation succeeds, the newest is the model
        return state
    plateau = state.plateau.after(score)
    if state.best_score is not None and score >= state.best_score:
        return replace(state, plateau=plateau)
    trainer.save_model(step, finite)
    return replace(state, best_score=score, best_step=step, best_metrics=finite, plateau=plateau)


class _Window:
    """Sums of the losses since the last record, kept on their device."""

    def __init__(self, start: int) -> None:
        self._start = start
        self._sums: dict[str, Tensor] = {}
        self._counts: Counter[str] = Counter()  # lazy penalties are not computed in each step
        self._steps = 0
        self._began = time.monotonic()

    def add(self, losses: Mapping[str, Tensor]) -> None:
        """Add a step's losses without waiting for them."""
        for name, value in losses.items():
            value = value.detach()
            self._sums[name] = self._sums[name] + value if name in self._sums else value
        self._counts.update(losses.keys())
        self._steps += 1

    def read(self, step: int) -> dict[str, float]:
        """Return the means; waits for the device.

        Raises:
            UserError: One is not finite.
        """
        means = {name: float(value) / self._counts[name] for name, value in self._sums.items()}
        if wrong := find_non_finite(means):
            raise non_finite(f"{', '.join(wrong)} became non-finite between steps {self._start + 1} and {step}")
        return means

    def rate(self, images_per_step: int) -> float:
        """Return images per second since the window began; call after `read`."""
        return self._steps * images_per_step / max(time.monotonic() - self._began, 1e-9)


class _StopSignals:
    """Turns the first Ctrl-C or SIGTERM into a request to stop after the step; the second one acts at once."""

    def __init__(self) -> None:
        self.number = 0
        self._before: dict[int, Any] = {}

    def __enter__(self) -> "_StopSignals":
        if threading.current_thread() is threading.main_thread():  # others may not handle signals
            for number in (signal.SIGINT, signal.SIGTERM):
                self._before[number] = signal.signal(number, self._ask)
        return self

    def _ask(self, number: int, frame: FrameType | None) -> None:
        self.number = number
        self.__exit__()

    def __exit__(self, *error: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)


def _summed(count: int, fabric: Fabric) -> int:
    """Return the sum of a count over all processes."""
    if fabric.world_size == 1:
        return count
    return int(torch.as_tensor(fabric.all_reduce(torch.tensor(count, device=fabric.device), reduce_op="sum")))


def _mix(seed: int, step: int, rank: int) -> int:
    """Return one seed for three numbers; no two triples of a run share one."""
    return int(np.random.SeedSequence([seed, step, rank]).generate_state(1, np.uint64)[0] >> 1)
