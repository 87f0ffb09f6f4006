"""How long a run is, and the learning rate at each of its steps."""

import math
from dataclasses import dataclass

from ganvas.training.config import ScheduleConfig

PLATEAU_PATIENCE = 5  # validations without a gain of 1%; these three are the published code's choices
PLATEAU_FACTOR = 0.2
PLATEAU_THRESHOLD = 0.01


@dataclass(frozen=True)
class Progress:
    """Where a training step stands in its run.

    Attributes:
        step: Number of the step, from 0.
        total_steps: Of the run.
    """

    step: int = 0
    total_steps: int = 1

    @property
    def fraction(self) -> float:
        """How much of the run lies before the step, 0 to 1."""
        return self.step / self.total_steps


START = Progress()


@dataclass(frozen=True)
class Plateau:
    """Learning rate that falls when the validation metric stops improving; a value that a checkpoint keeps."""

    factor: float = 1.0
    best: float | None = None
    waited: int = 0

    def after(self, score: float) -> "Plateau":
        """Return the state after a validation with ``score`` (lower is better)."""
        if self.best is None or score < self.best * (1 - PLATEAU_THRESHOLD):
            return Plateau(self.factor, score, 0)
        if self.waited + 1 > PLATEAU_PATIENCE:
            return Plateau(self.factor * PLATEAU_FACTOR, self.best, 0)
        return Plateau(self.factor, self.best, self.waited + 1)


NO_PLATEAU = Plateau()


@dataclass(frozen=True)
class Schedule:
    """Length and shape of a run, in units of an epoch (``--epochs``) or a step (``--steps``).

    Attributes:
        full_units: Units at the full rate.
        decay_units: Units after those in which it falls.
        unit_steps: Steps a unit.
        kind: As `ScheduleConfig.schedule`.
        fall_every_steps: Steps between the falls of the "step" schedule.
        unit_shift: Step numbers that the first unit starts after.
        epoch_shift: Step numbers that the first epoch starts after; other than 0 in a run that was resumed with another
            number of devices.
    """

    full_units: int
    decay_units: int
    unit_steps: int
    kind: str
    fall_every_steps: int
    unit_shift: int = 0
    epoch_shift: int = 0

    @property
    def total_steps(self) -> int:
        """Steps of the whole run."""
        return (self.full_units + self.decay_units) * self.unit_steps + self.unit_shift

    def factor(self, step: int, plateau: Plateau = NO_PLATEAU) -> float:
        """Return the learning rate's factor at ``step``, counted from 0.

        "linear" is constant, then falls to 1 / (decay_units + 1) in the last unit: the published schedule of CycleGAN
        (Zhu et al. 2017, Sec. 4), which never trains at zero. "plateau" depends only on the
        validations; ``plateau`` is their state.
        """
        unit = (step - self.unit_shift) // self.unit_steps
        if self.kind == "linear":
            return 1 - max(0, unit + 1 - self.full_units) / (self.decay_units + 1)
        if self.kind == "cosine":
            return (1 + math.cos(math.pi * unit / (self.full_units + self.decay_units))) / 2
        if self.kind == "step":
            return 0.1 ** ((step - self.epoch_shift) // self.fall_every_steps)
        return plateau.factor


def make_schedule(config: ScheduleConfig, steps_per_epoch: int, epoch_shift: int = 0) -> Schedule:
    """Resolve the options of a run's length; with ``steps`` alone, the second half decays.

    Args:
        config: The options.
        steps_per_epoch: Steps of the present batch size and number of devices in which all samples are seen.
        epoch_shift: As in `Schedule`.
    """
    if config.steps is not None:
        decay = config.steps // 2 if config.decay_steps is None else config.decay_steps
        full, unit_steps, unit_shift = config.steps - decay, 1, 0
    else:
        full, decay, unit_steps, unit_shift = config.epochs, config.decay_epochs, steps_per_epoch, epoch_shift
    fall_every_steps = config.lr_step_epochs * steps_per_epoch
    return Schedule(full, decay, unit_steps, config.schedule, fall_every_steps, unit_shift, epoch_shift)
