"""The runs that are to explain the collapse: each is one the command accepts, and differs in what it says it does."""

import dataclasses

import pytest

from benchmarks.collapse import ABLATIONS, Options, plans, plot
from dcgan.config import check, preset
from ganvas.data.decode import read_image
from ganvas.options import to_json
from ganvas.training.config import flatten, with_options


def parsed(plan):
    options = {"data": "mnist", "steps": plan.steps, "seed": plan.seed, **plan.changes}
    config = with_options(preset(plan.preset), options)
    check(config)
    return config


@pytest.mark.slow
def test_the_tutorial_and_ours_have_three_seeds_each(tmp_path):
    named = {plan.name: parsed(plan) for plan in plans(Options(tmp_path))}
    for name, steps in (("document", 20_000), ("ours", 12_500)):
        runs = [named[f"{name}-{seed}"] for seed in range(3)]
        assert [run.seed for run in runs] == [0, 1, 2]
        assert {run.schedule.steps for run in runs} == {steps}
    assert named["document-1"] == dataclasses.replace(
        preset("dcgan-5x5"), seed=1, data=dataclasses.replace(preset("dcgan-5x5").data, data="mnist")
    )


@pytest.mark.parametrize("name", ABLATIONS)
@pytest.mark.slow
def test_each_ablation_changes_what_its_name_says(tmp_path, name):
    named = {plan.name: flatten(to_json(parsed(plan))) for plan in plans(Options(tmp_path))}
    document, changed = named["document-0"], named[name]
    differing = {key for key in document if document[key] != changed[key]} - {"schedule.steps"}
    expected = {
        "signed": {"data.pixel_range"},
        "norm": {"model.norm"},
        "init-normal": {"model.init"},
        "momentum": {"optimizer.beta1"},
        "layers": {"model.extra_layers"},
        "channels-half": {"model.base_channels"},
        "channels-double": {"model.base_channels"},
        "signed-normal-norm": {"data.pixel_range", "model.init", "model.norm"},
    }
    assert differing == expected[name]
    assert changed["schedule.steps"] == 6000


@pytest.mark.slow
def test_other_runs_have_controls(tmp_path):
    named = {plan.name: flatten(to_json(parsed(plan))) for plan in plans(Options(tmp_path))}
    control, changed = named["mlp"], named["mlp-no-norm"]
    assert {key for key in control if control[key] != changed[key]} == {"model.norm"}
    ours, changed = named["ours-0"], named["momentum-ours"]
    assert {key for key in ours if ours[key] != changed[key]} - {"schedule.steps"} == {"optimizer.beta1"}
    assert changed["optimizer.beta1"] == named["document-0"]["optimizer.beta1"]


@pytest.mark.slow
def test_the_figure(tmp_path):
    curve = [{"step": step, "coverage": 10 - step // 500, "entropy": 3.3 - step / 1000} for step in range(0, 3000, 500)]
    plot(
        {"document-0": curve, "document-1": curve, "ours-0": curve, "signed": curve, "mlp-no-norm": curve},
        tmp_path / "x.png",
    )
    assert read_image(tmp_path / "x.png").std() > 10
