"""The one training loop: steps, records, validation, checkpoints, resume. The models bring the step itself.

Exactness: the order of the images and each image's augmentation depend on (seed, epoch, index), torch's random
numbers on (seed, step, rank), the learning rate on the step. So a checkpoint needs no random state, what is validated
or drawn in between changes nothing, and a run that was killed and resumed ends as if it had never stopped.
"""

import contextlib
import math
import re
import shlex
import signal
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from types import FrameType
from typing import Any, Protocol

import numpy as np
import torch
from lightning_fabric import Fabric
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from ganvas.data.sampling import ResumableBatchSampler, steps_per_epoch
from ganvas.data.skip import SkipCounter
from ganvas.errors import UserError, WriteError
from ganvas.json_files import read_json
from ganvas.models.folder import load_weights
from ganvas.training.checkpoint import (
    Checkpoint,
    environment,
    list_checkpoints,
    load_checkpoint,
    remove_old,
    save_checkpoint,
)
from ganvas.training.config import LoggingConfig, ScheduleConfig
from ganvas.training.logging import RunLog
from ganvas.training.monitors import Sight
from ganvas.training.optimizer import Adam
from ganvas.training.ranks import Ranks
from ganvas.training.schedule import Plateau, make_schedule
from ganvas.training.validation import combined_score

MOST_THREADS = 1024
Batch = dict[str, Any]
Warn = Callable[[str], object]  # takes one line for the user


class Trainable(Protocol):
    """A model as the loop sees it: networks with optimizers, a step, and ways to look at itself.

    Attributes:
        networks: By the names that checkpoints call them.
        optimizers: By their network's name.
    """

    networks: dict[str, nn.Module]
    optimizers: dict[str, Adam]

    @property
    def criteria(self) -> Sequence[str]:
        """Names of the validation metrics by which the best model is chosen, as `combined_score` takes them."""

    def step(self, batch: Batch) -> dict[str, Tensor]:
        """Update all networks once; give the unweighted losses by name, as scalars that stay on their device."""

    def validate(self) -> dict[str, float]:
        """Score on held-out images, by names that begin with "val_"; empty where there are none."""

    def sample(self) -> np.ndarray:
        """Draw the fixed images that show the progress, uint8 [H, W, 3]."""

    def watch(self, losses: Mapping[str, float]) -> Sight:
        """Look for what goes wrong, given the mean losses of steps that no look before has judged."""

    def save_model(self, step: int, metrics: Mapping[str, float]) -> None:
        """Write the run's model folder."""

    def state_dict(self) -> dict[str, Any]:
        """Return what a checkpoint keeps of the model beside its tensors, as JSON values.

        "networks" names the model folder's networks and what they are called here; "statistics" is the mode of batch
        norm, where it is chosen. `ganvas.models.folder` reads both where a checkpoint is used as a model. The rest is
        the model's own, such as what its watch has seen.
        """

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` returned."""


@dataclass(frozen=True)
class Data:
    """The training set and how it is loaded.

    Attributes:
        dataset: Samples by (epoch, index) key.
        length: Its samples, an epoch.
        batch_size: Samples a step and device.
        workers: Loading processes.
        shard_sizes: Samples of each shard, where they lie in shards.
    """

    dataset: Dataset[Batch]
    length: int
    batch_size: int
    workers: int
    shard_sizes: Sequence[int] = ()


@dataclass(frozen=True)
class Progress:
    """Where a run stands beside its networks: what a checkpoint keeps as JSON.

    ``epoch`` epochs are complete, and ``seen`` images of the next one are seen. ``validation_due`` is true where an
    error stopped the run between a step and its validation. ``skipped`` counts how often, in all processes, a image
    could not be read and another took its place. ``model_state`` is what `Trainable.state_dict` returned.
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
class Outcome:
    """How a training ended: complete, or stopped by a signal at a step from which it can be resumed."""

    progress: Progress
    complete: bool
    signal_number: int = 0


def train(
    trainable: Trainable,
    data: Data,
    *,
    fabric: Fabric,
    run: Path,
    seed: int,
    schedule_config: ScheduleConfig,
    logging: LoggingConfig,
    hyperparameters: Mapping[str, Any],
    resume_from: Checkpoint | None = None,
    how_to_resume: str = "--resume",
) -> Outcome:
    """Train from the start or from a checkpoint to the end of the schedule, or until a signal asks to stop.

    Whatever ends it, the steps since the last checkpoint are saved first, and a resume from there is exact. The two
    exceptions: the weights are not finite, or the error came inside of a step.

    Raises:
        UserError: A loss or weight is no longer finite, the disk is full, an image cannot be read. The message says
            what is saved. With several processes, all of them raise it.
    """
    base_lr = {name: optimizer.param_groups[0]["lr"] for name, optimizer in trainable.optimizers.items()}
    progress = Progress() if resume_from is None else _restore(trainable, resume_from, fabric.global_rank)
    images_per_step = data.batch_size * fabric.world_size
    epoch_steps = steps_per_epoch(data.length, data.batch_size, fabric.world_size)
    # The epochs go on from the images seen, though another number of devices sees them in another number of steps.
    shift = progress.step - (progress.epoch * epoch_steps + progress.seen // images_per_step)
    schedule = make_schedule(schedule_config, epoch_steps, shift)
    ranks = Ranks(fabric)
    log = RunLog(run, progress.step, schedule.total_steps, hyperparameters) if fabric.is_global_zero else None
    skips, skipped_before = SkipCounter(), progress.skipped
    window, unseen = _Window(progress.step), _Window(progress.step)
    began = time.monotonic() - progress.seconds
    saved = progress  # what the newest checkpoint holds
    whole = True  # False inside of a step, where some weights are updated and others are not

    def validate(progress: Progress) -> Progress:
        """Validate, and keep the model if it is the best so far."""
        with ranks.fail_together():
            _require_finite_state(trainable, progress.step)
            if log is not None:
                progress = _validated(trainable, replace(progress, validation_due=False), log)
        return fabric.broadcast(progress)  # the learning rate follows the plateau in every process

    def save(progress: Progress) -> Progress:
        """Write a checkpoint."""
        with ranks.fail_together():
            _require_finite_state(trainable, progress.step)
        skipped = skipped_before + _summed(skips.count, fabric)
        progress = replace(progress, skipped=skipped, model_state=trainable.state_dict())
        elsewhere = _of_other_processes(trainable, fabric)
        with ranks.fail_together():
            if log is not None:
                log.sync()
                save_checkpoint(run, Checkpoint(progress.step, _tensors(trainable) | elsewhere, asdict(progress)))
        return progress

    try:
        if progress.validation_due:  # an error stopped the run between this step and its validation
            saved = progress = save(validate(progress))
        batches = _batches(data, seed, range(progress.step - shift, schedule.total_steps - shift), fabric)
        with _Signals() as stop:
            for step in range(progress.step, schedule.total_steps):
                with ranks.fail_together():
                    batch = next(batches)
                    skips.add_batch(batch)
                # The whole state of chance of this step, whatever was drawn before it.
                torch.manual_seed(_mix(seed, step, fabric.global_rank))
                factor = schedule.factor(step, progress.plateau)
                for name, optimizer in trainable.optimizers.items():
                    optimizer.set_lr(base_lr[name] * factor)

                whole = False
                losses = trainable.step(batch)
                done = step + 1
                last = done == schedule.total_steps
                due = last or done % logging.save_every_steps == 0
                epoch, position = divmod(done - shift, epoch_steps)
                progress = replace(
                    progress,
                    step=done,
                    epoch=epoch,
                    seen=position * images_per_step,
                    seconds=time.monotonic() - began,
                    validation_due=due,
                )
                whole = True
                window.add(losses)
                unseen.add(losses)
                stopping = _agreed(stop, fabric, done, logging.log_every_steps)

                # Look at the numbers: the only moment at which the device has to be waited for.
                showing = last or done % logging.sample_every_steps == 0
                looking = due or stopping or done % logging.log_every_steps == 0
                if log is not None:
                    log.advance(done)
                if looking:
                    with ranks.fail_together():
                        means = window.read(done)
                        if log is not None:
                            rate = window.rate(images_per_step)
                            values = {**means, "lr": next(iter(base_lr.values())) * factor, "images_per_second": rate}
                            extra = {"epoch": (step - shift) // epoch_steps, "seconds": round(progress.seconds, 2)}
                            log.scalars(done, values, extra=extra)
                # A run that was stopped must choose its best model as one that was not: no extra validation.
                # It comes before the samples, which are drawn in the mode of batch norm that it chooses.
                if due:
                    progress = validate(progress)
                if showing:
                    with ranks.fail_together():
                        if log is not None:
                            log.samples(done, trainable.sample())
                            log.sight(done, trainable.watch(unseen.read(done)))
                if due or stopping:
                    saved = progress = save(progress)
                    if log is not None:
                        remove_old(run, logging.keep_checkpoints, progress.best_step, progress.step)
                if looking:
                    window = _Window(done)  # begins after samples and validation: its rate is the training's own
                if looking or showing:
                    unseen = _Window(done)
                if stopping:
                    return Outcome(progress, last, stop.number)
        if log is not None and progress.best_metrics:
            log.final_metrics(progress.best_metrics)
        return Outcome(progress, True)
    except BaseException as error:
        # Whatever it is, the steps since the last checkpoint are not lost.
        if progress != saved and whole and ranks.agreed:
            with contextlib.suppress(Exception):  # the first error is the one to report
                saved = progress = save(progress)
        state = _describe_saved(run, progress, progress == saved, how_to_resume)
        if isinstance(error, UserError):
            raise UserError(f"{error}{state}") from error
        if log is not None and state:
            log.say(f"Training stopped.{state}")
        raise
    finally:
        if log is not None:
            log.close()


def newest_whole_checkpoint(run: Path, warn: Warn, *, first_save: int = 0) -> Checkpoint | None:
    """Read the newest checkpoint of a run; a damaged one is passed over for the one before, with a warning.

    Args:
        run: The run's folder.
        warn: Takes a line for the user.
        first_save: The step of the first checkpoint, just before which the first model is saved.

    Returns:
        None if the run was killed before its first checkpoint, so that it starts from its first step.

    Raises:
        UserError: There is none any more, or none that is whole, or a newer ganvas wrote it.
    """
    folders = list_checkpoints(run)
    if not folders and _model_step(run) > first_save:
        raise UserError(
            f"{run}: has a model, but no checkpoint to resume from. Restore its checkpoints, or start a new run with "
            "another --out."
        )
    if not folders:
        warn(f"{run}: has no checkpoint yet; training starts from its first step.")
        return None
    for folder in reversed(folders):
        try:
            checkpoint = load_checkpoint(folder)
        except UserError as error:
            if folder == folders[0] or "newer ganvas" in str(error):
                raise
            warn(f"{error} Going on from the checkpoint before it.")
            continue
        _compare_environment(checkpoint, warn)
        return checkpoint
    raise AssertionError("unreachable: the last folder returns or raises")


def _model_step(run: Path) -> int:
    """Return the step of the run's model; 0 where there is none that can be read."""
    try:
        training = read_json(run / "model" / "config.json", "a model's config").get("training")
        return int(training["step"])  # type: ignore[index]
    except (UserError, KeyError, TypeError, ValueError):
        return 0


def _compare_environment(checkpoint: Checkpoint, warn: Warn) -> None:
    """Restore the thread count, and warn of what else would change the bytes of the result."""
    threads = checkpoint.environment.get("threads")
    if isinstance(threads, int) and 1 <= threads <= MOST_THREADS and threads != torch.get_num_threads():
        torch.set_num_threads(threads)
    now = environment()
    changed = [f"{name} {was} → {now[name]}" for name, was in checkpoint.environment.items() if now.get(name) != was]
    if changed:
        warn(f"The checkpoint was made elsewhere ({', '.join(changed)}): results go on well, but not to the same byte.")


def _restore(trainable: Trainable, checkpoint: Checkpoint, rank: int) -> Progress:
    where = f"checkpoint of step {checkpoint.step}"
    try:
        for name, network in trainable.networks.items():
            tensors = checkpoint.tensors.get(f"{name}.rank{rank}", checkpoint.tensors[name])
            load_weights(network, tensors, where)
        for name, optimizer in trainable.optimizers.items():
            optimizer.load_named_moments(dict(checkpoint.tensors[f"{name}.adam"]))
        state = dict(checkpoint.state)
        progress = Progress(**{**state, "plateau": Plateau(**state["plateau"])})
        trainable.load_state_dict(progress.model_state)
        return progress
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"{where}: belongs to another kind of training ({error}).") from None


def _tensors(trainable: Trainable) -> dict[str, dict[str, Tensor]]:
    tensors = {name: dict(network.state_dict()) for name, network in trainable.networks.items()}
    return tensors | {f"{name}.adam": optimizer.named_moments() for name, optimizer in trainable.optimizers.items()}


def _of_other_processes(trainable: Trainable, fabric: Fabric) -> dict[str, dict[str, Tensor]]:
    """Gather the state of what is no network, such as image pools: only those differ from process to process."""
    found: dict[str, dict[str, Tensor]] = {}
    for name, module in trainable.networks.items():
        if fabric.world_size == 1 or next(module.parameters(), None) is not None:
            continue
        gathered = {key: torch.as_tensor(fabric.all_gather(value)) for key, value in module.state_dict().items()}
        for rank in range(1, fabric.world_size):
            found[f"{name}.rank{rank}"] = {key: value[rank] for key, value in gathered.items()}
    return found


def _validated(trainable: Trainable, progress: Progress, log: RunLog) -> Progress:
    metrics = trainable.validate()
    if not metrics:
        trainable.save_model(progress.step, {})  # nothing tells good from bad: the newest is the model
        return progress
    log.scalars(progress.step, metrics)
    score = combined_score(metrics, trainable.criteria)
    finite = {name: value for name, value in metrics.items() if math.isfinite(value)}
    if not math.isfinite(score):
        found = ", ".join(f"{name} is {value}" for name, value in metrics.items() if name not in finite)
        advice = "It does not count for the best model. Check the held-out images: python -m data_scripts check"
        log.sight(progress.step, Sight({}, [f"The validation failed: {found}. {advice}"]))
        if progress.best_score is None:
            trainable.save_model(progress.step, finite)  # until a validation succeeds, the newest is the model
        return progress
    plateau = progress.plateau.after(score)
    if progress.best_score is not None and score >= progress.best_score:
        return replace(progress, plateau=plateau)
    trainable.save_model(progress.step, finite)  # JSON has no word for a metric of another kind that is not
    return replace(progress, best_score=score, best_step=progress.step, best_metrics=finite, plateau=plateau)


def _batches(data: Data, seed: int, steps: range, fabric: Fabric) -> Iterator[Batch]:
    """Load the batches of ``steps``, counted from the first one of epoch 0."""
    sampler = ResumableBatchSampler(
        data.length,
        data.batch_size,
        seed=seed,
        start_step=steps.start,
        stop_step=steps.stop,
        rank=fabric.global_rank,
        world_size=fabric.world_size,
        shard_sizes=data.shard_sizes,
    )
    loader: Iterable[Batch] = DataLoader(
        data.dataset,
        batch_sampler=sampler,
        num_workers=data.workers,
        pin_memory=fabric.device.type == "cuda",
        generator=torch.Generator(),  # its own: a loader that starts draws from the global one
    )
    try:
        for batch in loader:
            yield {name: _moved(value, fabric.device) for name, value in batch.items()}
    except UserError as error:
        # A worker's error arrives with the worker's traceback around it.
        message = re.split(r"(?:User|Write)Error: ", str(error))[-1].strip()
        if isinstance(error, WriteError):
            raise WriteError(message) from None
        raise UserError(f"{message} Save it under the same name, or leave it out: --on-error skip.") from None
    except RuntimeError as error:
        if "DataLoader worker" not in str(error):
            raise
        raise UserError(
            f"A process that loads images ended: {error}. If memory is short, use fewer --workers or a smaller "
            "--cache-gb."
        ) from None


def _moved(value: object, device: torch.device) -> object:
    if not isinstance(value, Tensor):
        return value
    layout = torch.channels_last if value.dim() == 4 else torch.preserve_format
    return value.to(device, non_blocking=True, memory_format=layout)


class _Window:
    """Losses of the steps since the last record or look, added up where they lie."""

    def __init__(self, start: int) -> None:
        self._start = start
        self._sums: dict[str, Tensor] = {}
        self._steps = 0
        self._began = time.monotonic()

    def add(self, losses: Mapping[str, Tensor]) -> None:
        """Add a step's losses without waiting for them."""
        for name, value in losses.items():
            value = value.detach()
            self._sums[name] = self._sums[name] + value if name in self._sums else value
        self._steps += 1

    def read(self, step: int) -> dict[str, float]:
        """Give the means; wait for the device.

        Raises:
            UserError: One is not finite.
        """
        means = {name: float(value) / self._steps for name, value in self._sums.items()}
        wrong = [name for name, value in means.items() if not math.isfinite(value)]
        if wrong:
            raise _diverged(f"{', '.join(wrong)} became non-finite between steps {self._start + 1} and {step}")
        return means

    def rate(self, images_per_step: int) -> float:
        """Give images per second since the window began; call after `read`."""
        return self._steps * images_per_step / max(time.monotonic() - self._began, 1e-9)


def _require_finite_state(trainable: Trainable, step: int) -> None:
    """Keep a checkpoint from being written that nobody could go on from: finite losses can leave bad weights.

    Raises:
        UserError: A weight, a running statistic or a moment of an optimizer is not finite.
    """
    for name, tensors in _tensors(trainable).items():
        floats = [tensor for tensor in tensors.values() if tensor.is_floating_point() and tensor.numel()]
        if floats and not math.isfinite(float(sum(tensor.detach().float().abs().sum() for tensor in floats))):
            kind, owner = ("moments", name.removesuffix(".adam")) if name.endswith(".adam") else ("weights", name)
            raise _diverged(f"{kind} of {owner} became non-finite at step {step}")


def _diverged(what: str) -> UserError:
    return UserError(
        f"Training stopped: {what}. Try a lower --lr, --precision fp32 or another --gan-loss; check the dataset with "
        "python -m data_scripts check."
    )


def _describe_saved(run: Path, progress: Progress, is_saved: bool, how_to_resume: str) -> str:
    """Return what follows an error's message: up to which step the run is saved."""
    if progress.step == 0:
        return ""
    if is_saved:
        return f" Everything up to step {progress.step} is saved. Continue with: {how_to_resume}"
    saved = list_checkpoints(run)
    return f" The last checkpoint, {saved[-1]}, is good." if saved else " There is no checkpoint yet."


class _Signals:
    """Turns the first Ctrl-C or SIGTERM into a wish to stop after the step; the second one acts at once."""

    def __init__(self) -> None:
        self.number = 0
        self._before: dict[int, Any] = {}

    def __enter__(self) -> "_Signals":
        for number in (signal.SIGINT, signal.SIGTERM):
            self._before[number] = signal.signal(number, self._ask)
        return self

    def _ask(self, number: int, frame: FrameType | None) -> None:
        self.number = number
        for each, handler in self._before.items():
            signal.signal(each, handler)

    def __exit__(self, *error: object) -> None:
        for each, handler in self._before.items():
            signal.signal(each, handler)


def _agreed(stop: _Signals, fabric: Fabric, step: int, every: int) -> bool:
    """Tell whether to stop; several processes ask one another, at log intervals, so that all stop at one step."""
    if fabric.world_size == 1:
        return stop.number != 0
    if step % every:
        return False
    asked = fabric.all_reduce(torch.tensor(float(stop.number), device=fabric.device), reduce_op="max")
    stop.number = int(asked) if isinstance(asked, Tensor) else 0
    return stop.number != 0


def _summed(count: int, fabric: Fabric) -> int:
    """Add up a count over all processes."""
    if fabric.world_size == 1:
        return count
    total = fabric.all_reduce(torch.tensor(count, device=fabric.device), reduce_op="sum")
    return int(total) if isinstance(total, Tensor) else count


def _mix(seed: int, step: int, rank: int) -> int:
    """Make one seed of three numbers, without two triples in a run sharing one."""
    return int(np.random.SeedSequence([seed, step, rank]).generate_state(1, np.uint64)[0] >> 1)


def resume_command(program: str, run: Path) -> str:
    """Give the command line that continues a run."""
    return f"{program} train --out {shlex.quote(str(run))} --resume"
