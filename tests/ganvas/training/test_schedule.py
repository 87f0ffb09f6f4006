import math
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ganvas.training.config import ScheduleConfig
from ganvas.training.schedule import Plateau, make_schedule


def test_linear_decay_of_the_paper():
    schedule = make_schedule(ScheduleConfig(), steps_per_epoch=10)
    assert schedule.total_steps == 2000
    assert [schedule.factor(epoch * 10) for epoch in (0, 99)] == [1.0, 1.0]
    assert schedule.factor(100 * 10) == pytest.approx(100 / 101)
    assert schedule.factor(1999) == pytest.approx(1 / 101)  # the last epoch still learns
    assert schedule.factor(150 * 10) == schedule.factor(150 * 10 + 9)  # constant within an epoch


@pytest.mark.parametrize(
    ("config", "full", "decay"),
    [
        (ScheduleConfig(steps=1000), 500, 500),
        (ScheduleConfig(steps=1001), 501, 500),
        (ScheduleConfig(steps=1000, decay_steps=0), 1000, 0),
        (ScheduleConfig(steps=1000, decay_steps=1000), 0, 1000),
    ],
)
def test_length_in_steps(config, full, decay):
    schedule = make_schedule(config, steps_per_epoch=7)
    assert schedule.total_steps == config.steps
    assert (schedule.full_units, schedule.decay_units) == (full, decay)
    factors = [schedule.factor(step) for step in range(config.steps)]
    assert factors[: full or 0] == [1.0] * full
    assert factors[-1] == (pytest.approx(1 / (decay + 1)) if decay else 1.0)


@given(st.sampled_from(["linear", "cosine", "step"]), st.integers(0, 20), st.integers(1, 20), st.integers(1, 9))
def test_rates_never_rise_and_stay_positive(kind, full, decay, steps_per_epoch):
    config = ScheduleConfig(epochs=full, decay_epochs=decay, schedule=kind, lr_step_epochs=3)
    schedule = make_schedule(config, steps_per_epoch)
    factors = [schedule.factor(step) for step in range(schedule.total_steps)]
    assert all(0 < factor <= 1 for factor in factors)
    assert all(later <= earlier for earlier, later in pairwise(factors))


def test_cosine_and_step_values():
    cosine = make_schedule(ScheduleConfig(epochs=6, decay_epochs=2, schedule="cosine"), 5)
    assert cosine.factor(2 * 5) == pytest.approx((1 + math.cos(math.pi / 4)) / 2)
    step = make_schedule(ScheduleConfig(epochs=6, decay_epochs=0, schedule="step", lr_step_epochs=2), 5)
    assert [step.factor(s) for s in (0, 9, 10, 20)] == pytest.approx([1, 1, 0.1, 0.01])


def test_plateau_decays_after_its_patience():
    state = Plateau().after(1.0)
    for _ in range(5):
        state = state.after(0.995)  # a gain of half a percent does not count
        assert state.factor == 1.0
    state = state.after(0.995)
    assert state.factor == pytest.approx(0.2)
    assert state.after(0.9).best == 0.9
    assert state.after(0.9).waited == 0
