import json

import pytest
import torch

from dcgan.monitors import CollapseMonitor, diversity

CERTAIN = {"accuracy_real": 1.0, "accuracy_fake": 1.0, "loss_d": 0.0}


def images(n, spread, seed=0):
    return 0.5 + spread * torch.randn(n, 1, 8, 8, generator=torch.Generator().manual_seed(seed))


def monitor(**options):
    """A monitor whose images are set by `warnings`."""
    built = CollapseMonitor(lambda: built.drawn, images(200, 1.0), "Do this.", **options)
    return built


def warnings(monitor, drawn, losses=None):
    monitor.drawn = drawn
    return monitor.check(losses or {}).warnings


def test_diversity_is_the_mean_squared_distance_of_all_pairs():
    a, b = images(12, 0.3), images(9, 1.0, seed=1)

    def mean_distance(x):
        return torch.pdist(x.flatten(1).double()).square().mean().item()

    assert diversity(a, b) == pytest.approx(mean_distance(a) / mean_distance(b), rel=1e-6)
    assert diversity(torch.ones(5, 1, 4, 4), b) == 0
    assert diversity(torch.ones(5, 1, 4, 4), torch.ones(5, 1, 4, 4)) == 1


def test_no_warning_for_a_healthy_training():
    healthy = monitor()
    for seed in range(5):
        assert warnings(healthy, images(200, 0.9, seed), {"accuracy_real": 0.8, "accuracy_fake": 0.9}) == []
        assert 0.7 < healthy.check({}).values["diversity"] < 0.95


def test_a_collapse_is_reported_once_at_the_second_check_and_so_is_its_end():
    collapsed = monitor()
    found = [warnings(collapsed, images(200, spread)) for spread in (0.1, 0.1, 0.1, 0.74, 0.9, 0.1, 0.9)]
    assert [len(each) for each in found] == [0, 1, 0, 0, 1, 0, 0]
    assert "Mode collapse" in found[1][0]
    assert "Do this." in found[1][0]
    assert "differ again" in found[4][0]


def test_few_kinds_are_a_collapse_even_if_the_images_differ():
    kinds = iter((1.0, 0.3, 0.3, 0.3, 0.55, 0.7))
    classified = monitor(variety=lambda drawn: (next(kinds), {"label_entropy": 1.5}))
    found = [warnings(classified, images(200, 0.9)) for _ in range(6)]
    assert [len(each) for each in found] == [0, 0, 1, 0, 0, 1]
    assert "30% as many kinds" in found[2][0]
    assert "differ again" in found[5][0]


def test_equal_images_are_a_collapse_even_if_a_classifier_sees_many_kinds():
    classified = monitor(variety=lambda drawn: (1.0, {"label_entropy": 1.5}))
    assert [len(warnings(classified, images(200, 0.1))) for _ in range(2)] == [0, 1]
    assert classified.check({}).values["label_entropy"] == 1.5


def test_a_discriminator_that_has_won_is_reported_once_each_time():
    won = monitor()
    given = [(1.0, 1.0, 0.03), (1.0, 0.9995, 0.001), (1.0, 1.0, 0.001), (0.9, 1.0, 0.001), (1.0, 1.0, 0.0005)]
    names = ("accuracy_real", "accuracy_fake", "loss_d")
    found = [warnings(won, images(200, 1.0), dict(zip(names, values, strict=True))) for values in given]
    assert [len(each) for each in found] == [0, 1, 0, 0, 1]  # it has to be sure, not only right
    assert "has won" in found[1][0]


def test_a_restored_monitor_continues_as_one_that_never_stopped():
    drawn = [images(200, spread) for spread in (0.1, 0.1, 0.1, 0.9)]
    unbroken, found, state = monitor(), [], monitor().state_dict()
    for each in drawn:
        restored = monitor()
        restored.load_state_dict(json.loads(json.dumps(state)))  # a checkpoint between any two checks
        found.append(warnings(restored, each, CERTAIN))
        state = restored.state_dict()
    assert found == [warnings(unbroken, each, CERTAIN) for each in drawn]
    assert [len(each) for each in found] == [1, 1, 0, 1]
