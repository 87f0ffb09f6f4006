"""The presets' settings against the documents', one by one, and against their rule of a rate that never falls."""

from dataclasses import replace
from pathlib import Path

import pytest

from dcgan.__main__ import main
from dcgan.config import PRESETS, DcganConfig, left_out, preset
from ganvas.options import from_json, to_json, validate
from ganvas.training.config import flatten
from ganvas.training.schedule import make_schedule

KERAS = {
    "init": "glorot",
    "step_order": "keras",
    "batch_size": 200,
    "epochs": 10,
    "steps": None,
    "lr": 1e-3,
    "beta1": 0.9,
    "eps": 1e-7,
    "latent": "normal",
    "norm": "batch",
    "pixel_range": "signed",
    "conditional": False,
}
KERAS_GAN = KERAS | {"lr": 2e-4, "beta1": 0.5}  # what 001 links; its own optimizer is lost
DOCUMENTS = {
    "mlp": KERAS_GAN,
    "conditional": KERAS_GAN | {"conditional": True},
    "dcgan-upsample": KERAS,
    "dcgan-transpose": KERAS | {"batch_size": 128, "steps": 20_000},
    "dcgan-5x5": KERAS
    | {
        "init": "truncated-normal",
        "step_order": "fresh",
        "batch_size": 256,
        "steps": 20_000,
        "lr": 1e-4,
        "eps": 1e-8,
        "latent": "uniform",
        "norm": "none",
        "pixel_range": "unit",
    },
}


def settings(name):
    """All options of a preset, by their last names."""
    return {key.rpartition(".")[2]: value for key, value in flatten(to_json(preset(name))).items()}


@pytest.mark.parametrize("name", DOCUMENTS)
def test_settings_of_the_tutorials(name):
    everywhere = {"beta2": 0.999, "latent_dim": 100, "gan_loss": "vanilla", "label_smoothing": 0, "ema": 0}
    found = settings(name)
    expected = DOCUMENTS[name] | everywhere | {"preset": name, "precision": "fp32"}
    if expected["steps"]:
        del expected["epochs"]  # steps go before them
    assert {key: found[key] for key in expected} == expected


@pytest.mark.parametrize(
    ("name", "data", "asked", "count"),
    [
        ("dcgan-5x5", "mnist", None, 5000),
        ("dcgan-5x5", "fashion-mnist", None, 5000),
        ("dcgan-5x5", "mnist5k", None, 0),
        ("dcgan-5x5", "pictures/tiles", None, 0),
        ("dcgan-5x5", "mnist", 0, 0),
        ("dcgan-5x5", "mnist5k", 100, 100),
        ("dcgan-transpose", "mnist", None, 0),
        ("dcgan", "mnist", 7, 7),
    ],
)
def test_images_left_out(name, data, asked, count):
    config = preset(name)
    assert left_out(replace(config, data=replace(config.data, data=data, leave_out=asked))) == count


def test_a_run_that_recorded_the_number_left_out_can_be_read():
    """It was a plain number once, the preset's own among the options."""
    values = to_json(preset("dcgan-5x5"))
    values["data"] |= {"data": "mnist", "leave_out": 5000}
    assert left_out(from_json(DcganConfig, values, "config.json")) == 5000


def test_folders_are_recorded_by_absolute_path_and_datasets_by_name(tmp_path, monkeypatch):
    for name in ("tiles", "mnist"):  # a folder of that name does not hide the set
        (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path)
    config = DcganConfig()

    def recorded(data, root=None):
        checked = validate(replace(config, data=replace(config.data, data=data, data_root=root))).data
        return checked.data, checked.data_root

    assert recorded("tiles", Path("sets")) == (str(tmp_path / "tiles"), tmp_path / "sets")
    assert recorded("./tiles/../tiles") == (str(tmp_path / "tiles"), None)
    for name in ("mnist", "mnits", ""):
        assert recorded(name) == (name, None)


def test_all_tutorials_exist():
    assert {*DOCUMENTS, "dcgan"} == set(PRESETS)


@pytest.mark.parametrize("name", PRESETS)
def test_the_rate_of_no_preset_falls(name):
    for config in (preset(name).schedule, replace(preset(name).schedule, steps=700)):  # --steps 700
        schedule = make_schedule(config, steps_per_epoch=300)
        assert {schedule.factor(step) for step in range(0, schedule.total_steps, 10)} == {1.0}


def test_ours_has_radfords_momentum_and_an_average():
    ours = settings("dcgan")
    assert ours == settings(None)
    assert (ours["init"], ours["beta1"], ours["batch_size"], ours["ema"]) == ("normal", 0.5, 128, 0.999)


def test_help_says_what_dcgan_does(in_process):
    code, out, _ = in_process(main)("train", "--help")
    assert code == 0
    assert "--steps" in out
    for untrue in ("--cache-gb", "second half decays", "by trial on MNIST"):
        assert untrue not in out
