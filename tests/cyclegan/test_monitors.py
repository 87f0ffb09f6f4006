"""The monitor reports failures that are specific to CycleGAN, and no others."""

import json

import pytest
import torch

from cyclegan.monitors import CycleMonitor, View, correlation
from ganvas.losses import gan_loss_d


def images(seed, n=4):
    return torch.rand(n, 3, 16, 16, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def test_correlation():
    x, y = images(0), images(1)
    assert correlation(x, x) == pytest.approx(1)
    assert correlation(x, -x) == pytest.approx(-1)
    assert correlation(x, 0.3 * x + 0.2) == pytest.approx(1)
    assert abs(correlation(x, y)) < 0.2
    assert correlation(x, torch.zeros_like(y)) == 0
    assert correlation(x, x.mean(dim=1, keepdim=True)) == pytest.approx(1)  # by luminance, whatever the channels


def views(**changes):
    good = View(source=images(0), fake=0.5 * images(0) + 0.2, target=images(1), identity=0.8 * images(1))
    return {"a2b": View(**{**vars(good), **changes}), "b2a": good}


def monitor(gan_loss, **options):
    """A monitor whose views are set by `check`."""
    built = CycleMonitor(lambda: built.given, gan_loss, **options)
    return built


def check(monitor, given, losses):
    monitor.given = given
    return monitor.check(losses)


def warnings_of(monitor, given, losses=None, times=3):
    return [check(monitor, given, losses or {}).warnings for _ in range(times)]


def test_no_warning_for_a_healthy_training():
    healthy = {"loss_d_a": 0.2, "loss_d_b": 0.1}
    assert warnings_of(monitor("lsgan"), views(), healthy) == [[], [], []]


def test_inversion_is_certain_where_the_identity_pass_shows_it():
    warnings = warnings_of(monitor("lsgan"), views(identity=-images(1)))
    assert [len(each) for each in warnings] == [0, 1, 0]
    assert "a2b: colors are inverted" in warnings[1][0]
    assert "--seed" in warnings[1][0]


@pytest.mark.parametrize("has_identity", [True, False])
def test_a_negative_translation_alone_is_a_hint(has_identity):
    """Satellite and terrain are truly anticorrelated in a third of the tiles."""
    cycle_monitor = monitor("lsgan", has_identity=has_identity)
    warnings = warnings_of(cycle_monitor, views(fake=-images(0)))
    assert [len(each) for each in warnings] == [0, 1, 0]
    assert "a2b: colors may be" in warnings[1][0]
    assert "Check the samples" in warnings[1][0]
    assert "a2b: colors are inverted" not in warnings[1][0]
    assert check(cycle_monitor, views(fake=-images(0)), {}).values["correlation_source_a2b"] == pytest.approx(-1)


def test_certain_inversion_is_reported_once():
    warnings = warnings_of(monitor("lsgan"), views(fake=-images(0), identity=-images(1)))
    assert [len(each) for each in warnings] == [0, 1, 0]
    assert "colors are inverted" in warnings[1][0]


def test_without_an_identity_pass_nothing_is_certain():
    cycle_monitor = monitor("lsgan", has_identity=False)
    assert warnings_of(cycle_monitor, views(identity=-images(1))) == [[], [], []]
    assert "correlation_identity_a2b" not in check(cycle_monitor, views(), {}).values


def test_an_output_that_equals_its_input():
    warnings = warnings_of(monitor("lsgan"), views(fake=images(0) + 0.01))
    assert "the output equals the input" in warnings[1][0]
    assert "--lambda-identity" in warnings[1][0]


@pytest.mark.parametrize(
    ("gan_loss", "sure", "unsure"),
    [("lsgan", (0.95, 0.05), (0.7, 0.3)), ("vanilla", (5, -5), (1, -1)), ("hinge", (1.1, -1.1), (0.5, -0.5))],
)
def test_a_perfect_discriminator_has_won_by_each_loss(gan_loss, sure, unsure):
    """By the loss of a training step: halved, and a mean over patches."""
    for scores, won in ((sure, True), (unsure, False)):
        loss = 0.5 * gan_loss_d(*(torch.full((2, 1, 6, 6), float(score)) for score in scores), gan_loss)
        warnings = warnings_of(monitor(gan_loss), views(), {"loss_d_a": loss.item()})
        assert [len(each) for each in warnings] == [0, int(won), 0]


@pytest.mark.parametrize(
    ("gan_loss", "loss", "won"), [("lsgan", 0.005, True), ("lsgan", 0.02, False), ("wgangp", -9.0, False)]
)
def test_a_discriminator_that_has_won(gan_loss, loss, won):
    warnings = warnings_of(monitor(gan_loss), views(), {"loss_d_a": 0.2, "loss_d_b": loss})
    assert [len(each) for each in warnings] == [0, int(won), 0]
    if won:
        assert "D_b has won" in warnings[1][0]


def test_recurring_failure_is_reported_again():
    cycle_monitor = monitor("lsgan")
    bad, good = views(fake=images(0)), views()
    warnings = [check(cycle_monitor, each, {}).warnings for each in (bad, bad, bad, good, bad, bad)]
    assert [len(each) for each in warnings] == [0, 1, 0, 0, 0, 1]


def test_a_restored_monitor_continues_as_one_that_never_stopped():
    state, found = {}, []
    for _ in range(4):
        restored = monitor("lsgan")
        restored.load_state_dict(json.loads(json.dumps(state)))  # a checkpoint between any two checks
        found.append(len(check(restored, views(fake=images(0)), {}).warnings))
        state = restored.state_dict()
    assert found == [0, 1, 0, 0]
