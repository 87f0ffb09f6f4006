"""Checks find what is wrong in recorded runs, and nothing in healthy ones.

`curves/` holds what monitors saw of real runs (see its README.md), by the name of what is wrong with each.
"""

import json
from functools import partial
from pathlib import Path

import pytest
import torch

from ganvas.losses import gan_loss_d
from ganvas.training.figures import correlation, diversity, translation_figures, weight_norms
from ganvas.training.monitors import (
    COLLAPSED,
    COLLAPSED_TRANSLATIONS,
    FROZEN_POINTS,
    IN_A_ROW,
    LEVEL_POINTS,
    OVERFIT_VALIDATIONS,
    POINTS,
    UNTOUCHED,
    WARM_UP,
    Monitor,
    collapsed,
    d_won,
    find_non_finite,
    g_frozen,
    inverted,
    leveled_off,
    overfitting,
    untouched,
    won_loss,
)

RUNS = {path.stem: json.loads(path.read_text()) for path in (Path(__file__).parent / "curves").glob("*.json")}
HEALTHY = sorted(name for name in RUNS if "healthy" in name)


def images(seed, n=4):
    return torch.rand(n, 3, 16, 16, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def curve(*values, every=50):
    return [[every * (i + 1), value] for i, value in enumerate(values)]


def checks_of(run):
    """All checks for the curves that a run has, whatever module it is of."""
    checks = {"leveled off": partial(leveled_off, losses=run["losses"])}
    won = partial(d_won, below=won_loss(run["gan_loss"], halved=run["halved"]), advice="")
    for name in run["curves"]:
        what, _, rest = name.partition("_")
        if name.startswith("loss_d"):
            checks[f"won {name}"] = partial(won, loss=name)
        elif what in ("diversity", "label"):
            below = COLLAPSED if run["module"] == "dcgan" else COLLAPSED_TRANSLATIONS
            checks[f"collapse {name}"] = partial(collapsed, figures={name: "{:.0%}"}, advice="", below=below)
        elif what == "change":
            checks[f"untouched {rest}"] = partial(untouched, direction=rest, advice="")
        elif name.startswith("correlation_source"):
            checks[f"inverted {name[-3:]}"] = partial(inverted, direction=name[-3:], advice="")
        elif name.startswith("weights_G"):
            D = {"weights_G_ab": "D_b", "weights_G_ba": "D_a"}.get(name, "D")
            checks[f"frozen {rest}"] = partial(g_frozen, generator=rest, discriminator=D)
    for train, val in (("loss_g_l1", "val_l1"), ("loss_cycle_a", "val_cycle_a"), ("loss_cycle_b", "val_cycle_b")):
        if val in run["curves"]:
            checks[f"overfitting {val}"] = partial(overfitting, train=train, val=val)
    return checks


def replayed(run):
    """What a monitor reports of a recorded run: (step, name) of each new finding."""
    found = []
    checks = checks_of(run)

    def reported(name, history):
        text = checks[name](history)
        return None if text is None else name

    monitor = Monitor({name: partial(reported, name) for name in checks})
    steps = {}
    for name, points in run["curves"].items():
        for step, value in points:
            steps.setdefault(step, {})[name] = value
    for step in sorted(steps):
        found += [(step, name) for name in monitor.check(step, steps[step]).warnings]
    return found


def test_there_are_ten_healthy_runs_of_all_modules_and_losses():
    assert len(HEALTHY) >= 10
    assert {RUNS[name]["module"] for name in HEALTHY} == {"pix2pix", "cyclegan", "dcgan"}
    assert {RUNS[name]["gan_loss"] for name in HEALTHY} >= {"vanilla", "lsgan", "hinge", "relativistic"}


@pytest.mark.parametrize("name", HEALTHY)
def test_no_false_alarm_in_a_healthy_run(name):
    assert len(RUNS[name]["curves"][RUNS[name]["losses"][0]]) >= 15
    assert replayed(RUNS[name]) == []


@pytest.mark.parametrize("name", sorted(set(RUNS) - set(HEALTHY)))
def test_a_sick_run_is_found_early(name):
    """Each sick run names what has to be found, and the step until which."""
    expected = RUNS[name]["found"]
    found = replayed(RUNS[name])
    for what, latest in expected.items():
        steps = [step for step, each in found if each == what]
        assert steps, f"{what} is not in {found}"
        assert steps[0] <= latest
    assert {what for _, what in found} <= {*expected, *RUNS[name].get("also", [])}


@pytest.mark.parametrize(("gan_loss", "sure", "unsure"), [
    ("vanilla", 6.0, 3.0), ("lsgan", 0.48, 0.35), ("hinge", 0.995, 0.9), ("relativistic", 3.0, 1.5),
])  # fmt: skip
@pytest.mark.parametrize("halved", [True, False])
def test_d_has_won_by_each_loss(gan_loss, sure, unsure, halved):
    """Scores by their distance from a guess: 0, or 0.5 with least squares."""
    guess = 0.5 if gan_loss == "lsgan" else 0.0
    below = won_loss(gan_loss, halved=halved)
    for distance, won in ((sure, True), (unsure, False)):
        scores = (torch.full((2, 1, 6, 6), guess + sign * distance) for sign in (1, -1))
        loss = gan_loss_d(*scores, gan_loss).item() * (0.5 if halved else 1)
        text = d_won({"loss_d": curve(*[loss] * IN_A_ROW)}, below=below, advice="Do this.")
        assert (text is not None) is won
    assert d_won({"loss_d": curve(*[-9.0] * 5)}, below=won_loss("wgangp"), advice="") is None


def test_label_smoothing_raises_the_loss_of_a_discriminator_that_has_won():
    """A perfect D has the entropy of a label of 0.9, 0.325 nats, and one that guesses 2 log 2."""
    assert 0.325 < won_loss("vanilla", label_smoothing=0.1) < 0.36


def test_d_has_to_win_twice_in_a_row():
    won = partial(d_won, below=0.01, advice="Do this.", name="D_b", loss="loss_d_b")
    assert won({"loss_d_b": curve(0.3, 0.005, 0.2, 0.005)}) is None
    assert won({}) is None
    text = won({"loss_d_b": curve(0.3, 0.2, 0.005, 0.004)})
    assert text.startswith("D_b has won (loss_d_b 0.004)")
    assert text.endswith("Do this.")


def test_a_frozen_generator_is_one_that_moves_far_less_than_its_discriminator():
    moving, still = curve(1.0, 1.01, 1.03, 1.02), curve(1.0, 1.0 + 1e-8, 1.0, 1.0)
    assert "G is frozen" in g_frozen({"weights_G": still, "weights_D": moving})
    assert g_frozen({"weights_G": moving, "weights_D": moving}) is None
    assert g_frozen({"weights_G": still, "weights_D": still}) is None  # both have come to rest
    assert g_frozen({"weights_G": still[:FROZEN_POINTS], "weights_D": moving[:FROZEN_POINTS]}) is None
    assert g_frozen({}) is None


def test_collapse_is_found_by_any_figure_and_lasts_until_the_images_differ_again():
    check = partial(collapsed, figures={"spread": "spread {:.0%}", "kinds": "{:.0%} of the kinds"}, advice="Do this.")
    low, between, high = COLLAPSED - 0.1, COLLAPSED + 0.05, 0.9
    assert check({"spread": curve(high, low)}) is None
    assert check({"spread": curve(low, between, low)}) is None
    assert check({"spread": curve(low, low, between)}) is not None
    assert check({"spread": curve(low, low, high)}) is None
    text = check({"spread": curve(high, high), "kinds": curve(0.3, 0.3)})
    assert text == "Mode collapse: the images are alike; spread 90%, and 30% of the kinds. Do this."


def test_inversion_is_certain_where_the_identity_pass_shows_it():
    check = partial(inverted, direction="a2b", advice="Use another --seed.")
    certain = check({"correlation_identity_a2b": curve(0.1, -0.5, -0.6), "correlation_source_a2b": curve(-1, -1, -1)})
    assert certain.startswith("a2b: colors are inverted")
    assert "(correlation -0.60)" in certain
    assert certain.endswith("Use another --seed.")
    hint = check({"correlation_source_a2b": curve(-0.5, -0.6)})  # satellite and terrain are truly anticorrelated there
    assert hint.startswith("a2b: colors may be inverted")
    assert check({"correlation_source_a2b": curve(-0.5, 0.1), "correlation_identity_a2b": curve(-1, 0.2)}) is None


def test_an_output_that_equals_its_input():
    figures = [translation_figures("a2b", images(0), images(0) + shift, images(1)) for shift in (0.01, 0.03)]
    near, far = (each["change_a2b"] for each in figures)
    assert near == pytest.approx(0.01, rel=1e-3) and near < UNTOUCHED < far
    check = partial(untouched, direction="a2b", advice="Do this.")
    assert check({"change_a2b": curve(far, near, near)}) == "a2b: the output equals the input. Do this."
    assert check({"change_a2b": curve(near, near, far)}) is None


def test_overfitting_needs_held_out_images_that_stay_while_training_images_get_better():
    falling, flat = curve(*(0.2 * 0.9**i for i in range(8))), curve(*[0.1] * 8)  # the second half's mean is 0.113
    stays = curve(0.3, 0.2, 0.21, 0.22, 0.21)
    check = partial(overfitting, train="train", val="val")
    text = check({"train": falling, "val": stays})
    assert "train falls (to 0.113), while val has not improved for 3 validations (0.21, at best 0.2)" in text
    assert check({"train": flat, "val": stays}) is None
    assert check({"train": falling, "val": stays[: 1 + OVERFIT_VALIDATIONS]}) is None  # the best one is too recent
    assert check({"train": falling, "val": [[step, 0.8 * value] for step, value in stays]}) is None  # 1.49 times
    assert check({"train": falling, "val": curve(0.3, 0.2, 0.21, 0.22, 0.19)}) is None
    assert check({"train": falling}) is None
    assert check({"train": falling, "val": stays, "val_running": curve(*[0.3, 0.29, 0.28, 0.27, 0.26])}) is None


def test_losses_level_off_when_the_halves_of_their_curves_are_equal():
    check = partial(leveled_off, losses=("loss_d", "loss_g"))
    wave = curve(*(1 + 0.1 * (-1) ** i for i in range(LEVEL_POINTS)))
    fall = curve(*(1 - 0.002 * i for i in range(LEVEL_POINTS)))  # 4% between the means of the halves
    text = check({"loss_d": wave, "loss_g": wave})
    assert "leveled off over 1950 steps" in text and "look right" in text
    assert check({"loss_d": wave, "loss_g": fall}) is None
    assert check({"loss_d": wave[1:], "loss_g": wave[1:]}) is None
    assert check({"loss_d": wave}) is None


def test_values_that_are_not_finite():
    assert find_non_finite({"a": 1.0, "b": float("nan"), "c": -float("inf")}) == ["b", "c"]
    assert find_non_finite({}) == []


def test_diversity_is_the_mean_squared_distance_of_all_pairs():
    a, b = images(0, 12) * 0.3, images(1, 9)

    def mean_distance(x):
        return torch.pdist(x.flatten(1).double()).square().mean().item()

    assert diversity(a, b) == pytest.approx(mean_distance(a) / mean_distance(b), rel=1e-6)
    assert diversity(torch.ones(5, 1, 4, 4), b) == 0
    assert diversity(torch.ones(5, 1, 4, 4), torch.ones(5, 1, 4, 4)) == 1


def test_correlation():
    x, y = images(0), images(1)
    assert correlation(x, x) == pytest.approx(1)
    assert correlation(x, -x) == pytest.approx(-1)
    assert correlation(x, 0.3 * x + 0.2) == pytest.approx(1)
    assert abs(correlation(x, y)) < 0.2
    assert correlation(x, torch.zeros_like(y)) == 0
    assert correlation(x, x.mean(dim=1, keepdim=True)) == pytest.approx(1)  # by luminance, whatever the channels


def test_figures_of_translations():
    figures = translation_figures("b2a", images(0), -images(0), images(1), -0.5 * images(1))
    assert figures["correlation_source_b2a"] == pytest.approx(-1)
    assert figures["correlation_identity_b2a"] == pytest.approx(-1)
    assert 0.8 < figures["diversity_b2a"] < 1.25
    assert set(translation_figures("a2b", images(0, 1), images(1, 1), images(2, 1))) == {
        "correlation_source_a2b",
        "change_a2b",
    }  # one image has no spread


def test_weight_norms():
    network = torch.nn.Linear(3, 2)
    weights = torch.nn.utils.parameters_to_vector(network.parameters())
    assert weight_norms({"G": network, "D": torch.nn.ReLU()}) == {"weights_G": pytest.approx(weights.norm().item())}


def bad(history):
    return "bad" if history["x"][-1][1] < 0 else None


def test_a_finding_is_reported_once_and_again_after_it_was_gone():
    monitor = Monitor({"trouble": bad})
    reports = [monitor.check(step, {"x": x}) for step, x in enumerate((1, -1, -1, 1, -1))]
    assert [list(each.warnings) for each in reports] == [[], ["bad"], [], [], ["bad"]]
    assert [list(each.notes) for each in reports] == [[], [], [], ["No longer found: trouble."], []]


def test_advice_is_a_note():
    report = Monitor({"trouble": bad}, advisory=["trouble"]).check(1, {"x": -1.0})
    assert (list(report.warnings), list(report.notes)) == ([], ["bad"])


def test_figures_of_images_are_drawn_only_when_wanted():
    drawn = iter(({"x": -1.0}, {"x": 1.0}))
    monitor = Monitor({"trouble": lambda history: bad(history) if "x" in history else None}, views=lambda: next(drawn))
    assert monitor.check(WARM_UP + 1, {}).values == {}
    report = monitor.check(WARM_UP + 2, {}, with_images=True)
    assert (report.values, list(report.warnings)) == ({"x": -1.0}, ["bad"])


def test_figures_of_the_first_steps_are_recorded_and_do_not_count():
    monitor = Monitor({"trouble": lambda history: bad(history) if "x" in history else None}, views=lambda: {"x": -1.0})
    report = monitor.check(WARM_UP, {}, with_images=True)
    assert (report.values, list(report.warnings)) == ({"x": -1.0}, [])


def test_a_restored_monitor_continues_as_one_that_never_stopped():
    unbroken, state = Monitor({"trouble": bad}), Monitor({}).state_dict()
    for step in range(2 * POINTS):
        restored = Monitor({"trouble": bad})
        restored.load_state_dict(json.loads(json.dumps(state)))  # a checkpoint between any two checks
        x = {"x": 0.1 - (step // 7) % 2, "not finite": float("nan")}
        assert restored.check(step, x) == unbroken.check(step, x)
        state = restored.state_dict()
    assert state == unbroken.state_dict()
    assert [step for step, _ in state["history"]["x"]] == list(range(POINTS, 2 * POINTS))
