"""Trainings of one direction, and what the commands do with their models."""

import importlib
import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import get_args

import numpy as np
import pytest
import torch

import cyclegan
import ganvas
from cyclegan.__main__ import COMMANDS
from cyclegan.config import Preset, check, defaults, lambda_nce, preset
from cyclegan.cut_step import CutStep
from cyclegan.monitors import build_monitor
from cyclegan.networks import build_networks, discriminator_names, generator_specs
from ganvas.cli.convert import ExportOptions, run_export
from ganvas.cli.evaluate import print_table
from ganvas.data.decode import read_image
from ganvas.errors import UserError
from ganvas.files import sha256
from ganvas.inference.run_data import sample_sources
from ganvas.models.folder import load_model
from ganvas.models.tensors import load_tensors
from ganvas.nn.layers import BlurPool2d
from ganvas.training.callbacks import StopTraining

SMALL = {"image_size": 16, "load_size": 18, "num_blocks": 1, "base_channels": 4, "discriminator_channels": 4}
LENGTH = {"steps": 6, "save_every_steps": 2, "log_every_steps": 2, "sample_every_steps": 3}
TINY = {**SMALL, **LENGTH, "patch_layers": 1, "nce_patches": 9, "threads": 1, "device": "cpu"}

DIRECTIONS = {"a2b": {"objective": "cut"}, "b2a": {"objective": "fastcut", "norm": "layer"}}


@pytest.fixture(scope="session")
def runs(domains_with_truth, tmp_path_factory):
    """One finished run of each objective, in different directions, that tests only read."""
    root = tmp_path_factory.mktemp("one")
    for direction, options in DIRECTIONS.items():
        cyclegan.train(domains_with_truth, out=root / direction, direction=direction, **options, **TINY)
    return root


def digest(run):
    return sha256(run / "model" / "model.safetensors")


def test_files_and_losses_of_a_run(runs):
    cut, fastcut = ("a2b", {"loss_nce", "loss_nce_identity"}, 4), ("b2a", {"loss_nce"}, 2)
    for direction, losses, columns in (cut, fastcut):
        run = runs / direction
        names = {path.stem for path in (run / "checkpoints" / "step-00000006").glob("*.safetensors")}
        assert names == {"G", "D", "heads", "G.adam", "D.adam", "heads.adam"}
        lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
        logged = {name for line in lines for name in line if name.startswith(("loss", "val"))}
        assert logged == losses | {"loss_d", "loss_g", "loss_g_gan"} | {
            f"val_{metric}_{direction}" for metric in ("swd", "sharpness", "spectrum")
        }
        sheet = read_image(run / "samples" / "step-00000006.png")
        # Source and translation, enlarged; of CUT also images of the target domain and their identity outputs.
        assert columns * 96 < sheet.shape[1] < (columns + 1) * 96


def test_a_smaller_target_domain_repeats_in_the_sheet(own_domains, tmp_path):
    """Three held-out images of a, two of b."""
    cyclegan.train(own_domains, out=tmp_path / "run", objective="cut", **TINY | {"steps": 1})
    sheet = read_image(tmp_path / "run" / "samples" / "step-00000001.png")
    assert 3 * 96 < sheet.shape[0] < 4 * 96
    assert 4 * 96 < sheet.shape[1] < 5 * 96


@pytest.mark.parametrize(("direction", "other"), [("a2b", "b2a"), ("b2a", "a2b")])
def test_a_model_of_one_direction_needs_no_choice(runs, direction, other):
    _, generators = load_model(runs / direction)
    assert list(generators) == [direction]
    model = ganvas.load(runs / direction)
    assert model.direction == direction
    assert model.translate(np.zeros((21, 30, 3), np.uint8)).shape == (21, 30, 3)
    a, b = ("A", "B") if direction == "a2b" else ("B", "A")
    assert (model.spec.source, model.spec.target) == (a, b)
    with pytest.raises(UserError, match=f"direction {other} is not in this model; it has {direction}"):
        ganvas.load(runs / direction, direction=other)


@pytest.mark.parametrize("direction", ["a2b", "b2a"])
def test_evaluation_has_the_scores_of_the_direction(runs, domains_with_truth, direction):
    result = cyclegan.evaluate(runs / direction, data=domains_with_truth, metrics="l1,swd")
    assert result["metrics"].keys() == {f"sliced_wasserstein_{direction}", f"l1_{direction}"} & result["metrics"].keys()
    assert f"l1_{direction}" in result["metrics"]
    assert {name.rpartition(" ")[2] for name in result["baselines"]} == {direction}


@pytest.mark.parametrize("direction", ["a2b", "b2a"])
def test_sources_of_the_page_and_of_exports_are_those_of_the_direction(runs, domains_with_truth, direction):
    config, _ = load_model(runs / direction)
    images = sample_sources(config, direction, domains_with_truth, "val", 2)
    folder = domains_with_truth / f"val{direction[0].upper()}"
    for image, path in zip(images, sorted(folder.iterdir()), strict=True):
        assert np.array_equal(image, read_image(path))


def test_translate_and_report_need_no_direction(runs, domains_with_truth, in_process, tmp_path):
    command = in_process(importlib.import_module("cyclegan.__main__").main)
    code, _, err = command("translate", runs / "b2a", domains_with_truth / "testB", tmp_path / "out")
    assert code == 0, err
    assert len(list((tmp_path / "out").iterdir())) == 3
    run = shutil.copytree(runs / "b2a", tmp_path / "run")
    code, _, err = command("report", run)
    assert code == 0, err
    assert "loss_nce" in (run / "report.html").read_text()


@pytest.mark.slow
def test_a_model_of_one_direction_is_exported(runs, tmp_path, capsys):
    assert run_export(ExportOptions(runs / "b2a", tmp_path / "x.onnx", json=True)) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["real images"] > 0
    assert (tmp_path / "x.onnx").stat().st_size > 0


class StopAt:
    def __init__(self, step):
        self.step = step

    def on_log(self, step, metrics):
        if step == self.step:
            raise StopTraining


@pytest.mark.parametrize("direction", DIRECTIONS)
def test_a_stopped_training_resumes_to_the_same_bytes(runs, domains_with_truth, tmp_path, direction):
    options = {"direction": direction, **DIRECTIONS[direction], **TINY}
    cyclegan.train(domains_with_truth, out=tmp_path / "run", callbacks=[StopAt(4)], **options)
    cyclegan.resume(tmp_path / "run")
    files = [run / "checkpoints" / "step-00000006" for run in (tmp_path / "run", runs / direction)]
    for name in ("G", "D", "heads", "heads.adam"):
        assert sha256(files[0] / f"{name}.safetensors") == sha256(files[1] / f"{name}.safetensors"), name
    assert digest(tmp_path / "run") == digest(runs / direction)


@pytest.mark.slow
@pytest.mark.essential
@pytest.mark.parametrize("objective", ["cut", "fastcut"])
def test_training_killed_at_random_instants_ends_with_the_same_bytes(
    domains_with_truth, killed_and_resumed, tmp_path, objective
):
    options = {"preset": objective, **TINY, "steps": 60, "save_every_steps": 3, "log_every_steps": 1}
    options |= {"sample_every_steps": 30, "ema": 0.9, "r1": 0.02}
    cyclegan.train(domains_with_truth, out=tmp_path / "unbroken", **options)
    flags = [item for name, value in options.items() for item in (f"--{name.replace('_', '-')}", str(value))]
    arguments = ["train", "--data", domains_with_truth, *flags]
    code, err = killed_and_resumed("cyclegan", arguments, tmp_path / "run", kills=2, longest=0.6)
    assert code == 0, err
    folders = [tmp_path / name / "checkpoints" / "step-00000060" for name in ("unbroken", "run")]
    for path in folders[0].glob("*.safetensors"):
        assert sha256(path) == sha256(folders[1] / path.name), path.name
    assert digest(tmp_path / "unbroken") == digest(tmp_path / "run")


SCRIPT = """
import sys

import torch

import cyclegan
from cyclegan import cut_step

def first_locations(features, count):
    return [torch.arange(count) for _ in features]

cut_step.draw_locations = first_locations
data, out, devices, batch_size = sys.argv[1:]
cyclegan.train(data, out=out, objective="cut", devices=int(devices), batch_size=int(batch_size), **{options})
"""


@pytest.mark.slow
def test_two_processes_share_a_batch(domains, tmp_path):
    """Two processes with an image each do what one does with both, up to rounding.

    Each process draws its own locations, so these are fixed. Gradients are averaged only if features are computed
    through the wrapper of the processes.
    """
    options = {**TINY, "steps": 2, "lr": 0.01, "precision": "fp32"}
    script = tmp_path / "train.py"
    script.write_text(SCRIPT.replace("{options}", repr(options)))
    for name, devices, batch_size in (("one", 1, 2), ("two", 2, 1)):
        command = [sys.executable, script, domains, tmp_path / name, str(devices), str(batch_size)]
        environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
        done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=240, check=False)
        assert done.returncode == 0, done.stderr
    for network in ("G", "D", "heads"):
        files = [
            tmp_path / name / "checkpoints" / "step-00000002" / f"{network}.safetensors" for name in ("one", "two")
        ]
        one, two = map(load_tensors, files)
        assert one.keys() == two.keys()
        for name, value in one.items():
            if name.endswith("weight"):  # biases before an instance norm have gradients of rounding noise alone
                # Two steps of Adam move each weight by up to 0.02, in other directions with one process's gradients.
                assert (value - two[name]).abs().mean() < 2e-4, (network, name)


@pytest.mark.filterwarnings("ignore:The .grad attribute")  # torch's compiler silences it where it is no error
@pytest.mark.slow
def test_compiled_networks_learn_equally(runs, domains_with_truth, tmp_path, monkeypatch):
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="eager"))
    options = {"objective": "cut", **TINY, "steps": 2, "compile": True}
    cyclegan.train(domains_with_truth, out=tmp_path / "run", **options)
    first = [
        json.loads((run / "metrics.jsonl").read_text().splitlines()[0]) for run in (tmp_path / "run", runs / "a2b")
    ]
    for name in ("loss_d", "loss_nce", "loss_g"):
        assert first[0][name] == pytest.approx(first[1][name], rel=0.02)


@pytest.mark.parametrize(
    ("options", "info", "mirrored"), [({}, {}, True), ({"flip": False}, {}, False), ({}, {"flip": False}, False)]
)
def test_fastcut_mirrors_sources_unless_they_must_not_be(own_domains, tmp_path, monkeypatch, options, info, mirrored):
    seen = []
    draw = CutStep.__call__

    def record(step, batch, progress):
        seen.append(step.weights.flips)
        return draw(step, batch, progress)

    monkeypatch.setattr(CutStep, "__call__", record)
    (own_domains / "dataset.json").write_text(json.dumps(info))
    cyclegan.train(own_domains, out=tmp_path / "run", objective="fastcut", **TINY | {"steps": 2} | options)
    assert seen == [mirrored, mirrored]


@pytest.mark.parametrize(
    ("objective", "options"),
    [
        ("cycle", "--lambda-identity, even to 0, or --lambda-cycle"),
        ("cut", "--lambda-nce"),
        ("fastcut", "--lambda-nce"),
    ],
)
def test_the_advice_names_options_of_the_objective(objective, options):
    config = defaults(None, objective)
    monitor = build_monitor(config, SimpleNamespace(figures=dict))
    reports = [monitor.check(step, {"change_a2b": 0.0}) for step in (1000, 2000)]
    assert reports[1].warnings == [f"a2b: the output equals the input. Lower {options}."]


def test_own_generators_are_refused(domains, tmp_path):
    with pytest.raises(UserError, match=r"--objective cut compares features of ganvas's own ResNet"):
        cyclegan.train(domains, out=tmp_path / "run", objective="cut", generator=torch.nn.Identity(), **TINY)


def test_a_pair_of_discriminators_is_refused(domains, runs, tmp_path):
    pair = (torch.nn.Identity(), torch.nn.Identity())
    with pytest.raises(UserError, match="objective cut trains one: that of the target domain"):
        cyclegan.train(domains, out=tmp_path / "run", objective="cut", discriminator=pair, **TINY)
    with pytest.raises(UserError, match="objective fastcut trains one"):
        cyclegan.resume(runs / "b2a", discriminator=pair)


def test_the_discriminator_has_the_resampling_of_the_generator():
    """A pixel discriminator has none, and refuses one."""
    for given, blurs in (
        ("--preset cut", 3),
        ("--objective fastcut --patch-layers 1", 1),
        ("--preset cut --patch-layers 0", 0),
        ("--preset cut --resampling strided", 0),
        ("--resampling blur --patch-layers 2", 2),
        ("--preset paper", 0),
    ):
        config = COMMANDS["train"].parse(f"--data x --out y {given}".split()).options
        check(config)
        with torch.device("meta"):
            networks = build_networks(config, generator_specs(config, "a", "b"))
        for name in discriminator_names(config).values():
            assert sum(isinstance(layer, BlurPool2d) for layer in networks[name].modules()) == blurs
    with pytest.raises(UserError, match="discriminator_resampling blur with --patch-layers 0"):
        cyclegan.train(
            "data", out="run", objective="cut", **TINY | {"patch_layers": 0}, discriminator_resampling="blur"
        )


def test_an_objective_comes_with_the_defaults_of_its_preset():
    assert defaults(None, "cut") == preset("cut")
    assert defaults(None, "fastcut") == preset("fastcut")
    assert defaults("paper", "cut") == preset("paper") == preset(None) == defaults(None, "cycle")


@pytest.mark.parametrize("objective", ["cycle", "cut", "fastcut"])
@pytest.mark.parametrize("name", get_args(Preset))
def test_every_preset_trains_with_every_objective(name, objective):
    """What a preset sets for its own objective, a weight of PatchNCE or a U-Net, stops no other one."""
    config = defaults(name, objective)
    check(replace(config, model=replace(config.model, objective=objective)))


def test_a_model_card_mentions_batch_norm_only_if_there_is_any(runs):
    assert "Batch norm at inference" not in (runs / "a2b" / "model" / "README.md").read_text()


def test_a_table_of_no_scores_has_no_rows(capsys):
    print_table("nothing", {})
    assert "metric" in capsys.readouterr().out


def test_only_pairs_metrics_without_pairs_are_refused(runs, domains):
    with pytest.raises(UserError, match="--metrics l1,psnr: compares an image with its own target"):
        cyclegan.evaluate(runs / "a2b", data=domains, metrics=("l1", "psnr"))


def test_presets_of_the_paper():
    """Park et al. 2020, Sec. 3 and App. C."""
    cut, fastcut = preset("cut"), preset("fastcut")
    for config in (cut, fastcut):
        check(config)
        model = config.model
        assert (model.gan_loss, model.nce_patches, model.num_blocks, config.data.batch_size) == ("lsgan", 256, 9, 1)
        assert (config.optimizer.lr, config.optimizer.beta1, config.data.image_size) == (2e-4, 0.5, 256)
    assert (lambda_nce(cut.model), cut.schedule.epochs, cut.schedule.decay_epochs) == (1, 200, 200)
    assert (lambda_nce(fastcut.model), fastcut.schedule.epochs, fastcut.schedule.decay_epochs) == (10, 150, 50)
    check(preset("fast"))


@pytest.mark.parametrize(
    ("name", "counts"),
    [("cut", (11_378_179, 2_764_737, 560_384)), ("fast", (1_965_059, 694_241, 445_696))],
)
def test_parameter_counts_of_the_presets(name, counts):
    config = preset(name)
    networks = build_networks(config, generator_specs(config, "a", "b"))
    assert tuple(sum(p.numel() for p in networks[each].parameters()) for each in ("G", "D", "heads")) == counts
