"""The watch tells CycleGAN's own failures from what only looks like one."""

import json

import pytest
import torch

from cyclegan.monitors import CycleMonitor, View, correlation
from ganvas.losses import gan_loss_d


def pictures(seed, n=4):
    return torch.rand(n, 3, 16, 16, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def test_correlation():
    x, y = pictures(0), pictures(1)
    assert correlation(x, x) == pytest.approx(1)
    assert correlation(x, -x) == pytest.approx(-1)
    assert correlation(x, 0.3 * x + 0.2) == pytest.approx(1)
    assert abs(correlation(x, y)) < 0.2
    assert correlation(x, torch.zeros_like(y)) == 0
    assert correlation(x, x.mean(dim=1, keepdim=True)) == pytest.approx(1)  # by luminance, whatever the channels


def views(**changes):
    good = View(source=pictures(0), fake=0.5 * pictures(0) + 0.2, target=pictures(1), identity=0.8 * pictures(1))
    return {"a2b": View(**{**vars(good), **changes}), "b2a": good}


def monitor(gan_loss, **options):
    """A monitor whose views are set by `look`."""
    built = CycleMonitor(lambda: built.given, gan_loss, **options)
    return built


def look(monitor, given, losses):
    monitor.given = given
    return monitor.check(losses)


def looks(monitor, given, losses=None, times=3):
    return [look(monitor, given, losses or {}).warnings for _ in range(times)]


def test_a_healthy_training_is_left_in_peace():
    healthy = {"loss_d_a": 0.2, "loss_d_b": 0.1}
    assert looks(monitor("lsgan"), views(), healthy) == [[], [], []]


def test_inversion_is_certain_where_the_identity_pass_shows_it():
    said = looks(monitor("lsgan"), views(identity=-pictures(1)))
    assert [len(each) for each in said] == [0, 1, 0]
    assert "a2b: colors are inverted" in said[1][0]
    assert "--seed" in said[1][0]


@pytest.mark.parametrize("has_identity", [True, False])
def test_a_negative_translation_alone_is_a_hint(has_identity):
    """Satellite and terrain are truly anticorrelated in a third of the tiles."""
    watch = monitor("lsgan", has_identity=has_identity)
    said = looks(watch, views(fake=-pictures(0)))
    assert [len(each) for each in said] == [0, 1, 0]
    assert "a2b: colors may be" in said[1][0]
    assert "Check the samples" in said[1][0]
    assert "a2b: colors are inverted" not in said[1][0]
    assert look(watch, views(fake=-pictures(0)), {}).values["correlation_source_a2b"] == pytest.approx(-1)


def test_what_is_certain_is_not_also_hinted_at():
    said = looks(monitor("lsgan"), views(fake=-pictures(0), identity=-pictures(1)))
    assert [len(each) for each in said] == [0, 1, 0]
    assert "colors are inverted" in said[1][0]


def test_without_an_identity_pass_nothing_is_certain():
    watch = monitor("lsgan", has_identity=False)
    assert looks(watch, views(identity=-pictures(1))) == [[], [], []]
    assert "correlation_identity_a2b" not in look(watch, views(), {}).values


def test_an_output_that_equals_its_input():
    said = looks(monitor("lsgan"), views(fake=pictures(0) + 0.01))
    assert "the output equals the input" in said[1][0]
    assert "--lambda-identity" in said[1][0]


@pytest.mark.parametrize(
    ("gan_loss", "sure", "unsure"),
    [("lsgan", (0.95, 0.05), (0.7, 0.3)), ("vanilla", (5, -5), (1, -1)), ("hinge", (1.1, -1.1), (0.5, -0.5))],
)
def test_a_perfect_discriminator_has_won_by_each_loss(gan_loss, sure, unsure):
    """By the loss of a training step: halved, and a mean over patches."""
    for scores, won in ((sure, True), (unsure, False)):
        loss = 0.5 * gan_loss_d(*(torch.full((2, 1, 6, 6), float(score)) for score in scores), gan_loss)
        said = looks(monitor(gan_loss), views(), {"loss_d_a": loss.item()})
        assert [len(each) for each in said] == [0, int(won), 0]


@pytest.mark.parametrize(
    ("gan_loss", "loss", "won"), [("lsgan", 0.005, True), ("lsgan", 0.02, False), ("wgangp", -9.0, False)]
)
def test_a_discriminator_that_has_won(gan_loss, loss, won):
    said = looks(monitor(gan_loss), views(), {"loss_d_a": 0.2, "loss_d_b": loss})
    assert [len(each) for each in said] == [0, int(won), 0]
    if won:
        assert "D_b has won" in said[1][0]


def test_a_failure_that_comes_back_is_said_again():
    watch = monitor("lsgan")
    bad, good = views(fake=pictures(0)), views()
    said = [look(watch, each, {}).warnings for each in (bad, bad, bad, good, bad, bad)]
    assert [len(each) for each in said] == [0, 1, 0, 0, 0, 1]


def test_a_restored_monitor_continues_as_one_that_never_stopped():
    state, found = {}, []
    for _ in range(4):
        restored = monitor("lsgan")
        restored.load_state_dict(json.loads(json.dumps(state)))  # a checkpoint between any two checks
        found.append(len(look(restored, views(fake=pictures(0)), {}).warnings))
        state = restored.state_dict()
    assert found == [0, 1, 0, 0]
