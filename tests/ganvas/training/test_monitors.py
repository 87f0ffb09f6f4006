"""The watch warns of what is wrong, once, and not of what is right."""

import json

import pytest
import torch

from ganvas.training.monitors import CollapseWatch, diversity


def pictures(n, spread, seed=0):
    return 0.5 + spread * torch.randn(n, 1, 8, 8, generator=torch.Generator().manual_seed(seed))


def test_diversity_is_the_mean_squared_distance_of_all_pairs():
    a, b = pictures(12, 0.3), pictures(9, 1.0, seed=1)

    def mean_distance(x):
        return torch.pdist(x.flatten(1).double()).square().mean().item()

    assert diversity(a, b) == pytest.approx(mean_distance(a) / mean_distance(b), rel=1e-6)


def test_one_picture_over_and_over_has_none():
    assert diversity(torch.ones(5, 1, 4, 4), pictures(5, 1)) == 0
    assert diversity(torch.ones(5, 1, 4, 4), torch.ones(5, 1, 4, 4)) == 1


def watch():
    return CollapseWatch(pictures(200, 1.0), "Do this.")


def test_a_healthy_training_is_left_in_peace():
    eye = watch()
    for step in range(5):
        sight = eye.look(pictures(200, 0.9, seed=step), {"accuracy_real": 0.8, "accuracy_fake": 0.9})
        assert sight.warnings == []
        assert 0.7 < sight.values["diversity"] < 0.95


def test_collapse_is_said_at_the_second_look_and_once_and_so_is_its_end():
    eye = watch()
    said = [eye.look(pictures(200, spread), {}).warnings for spread in (0.1, 0.1, 0.1, 0.74, 0.9, 0.1, 0.9)]
    assert [len(each) for each in said] == [0, 1, 0, 0, 1, 0, 0]
    assert "Mode collapse" in said[1][0]
    assert "Do this." in said[1][0]
    assert "differ again" in said[4][0]


def test_few_kinds_are_a_collapse_though_their_pictures_differ():
    eye = watch()
    said = [eye.look(pictures(200, 0.9), {}, kinds=kinds).warnings for kinds in (1.0, 0.3, 0.3, 0.3, 0.55, 0.7)]
    assert [len(each) for each in said] == [0, 0, 1, 0, 0, 1]
    assert "Mode collapse" in said[2][0]
    assert "30% as many kinds" in said[2][0]
    assert "Do this." in said[2][0]
    assert "differ again" in said[5][0]


def test_alike_pictures_are_a_collapse_though_a_classifier_sees_many_kinds():
    eye = watch()
    assert [len(eye.look(pictures(200, 0.1), {}, kinds=1.0).warnings) for _ in range(2)] == [0, 1]


def test_a_discriminator_that_has_won_is_said_once_each_time():
    eye, healthy = watch(), pictures(200, 1.0)
    given = [(1.0, 1.0, 0.03), (1.0, 0.9995, 0.001), (1.0, 1.0, 0.001), (0.9, 1.0, 0.001), (1.0, 1.0, 0.0005)]
    said = [
        eye.look(healthy, {"accuracy_real": r, "accuracy_fake": f, "loss_d": loss}).warnings for r, f, loss in given
    ]
    assert [len(each) for each in said] == [0, 1, 0, 0, 1]  # sure, not only right
    assert "has won" in said[1][0]


def test_a_watch_with_the_memory_of_another_goes_on_as_that_would():
    certain = {"accuracy_real": 1.0, "accuracy_fake": 1.0, "loss_d": 0.0}
    looks = [(pictures(200, spread), certain) for spread in (0.1, 0.1, 0.1, 0.9)]
    whole, said, memory = watch(), [], {}
    for look in looks:
        eye = watch()
        eye.memory = json.loads(json.dumps(memory))  # a checkpoint between any two looks
        said.append(eye.look(*look).warnings)
        memory = eye.memory
    assert said == [whole.look(*look).warnings for look in looks]
    assert [len(each) for each in said] == [1, 1, 0, 1]
