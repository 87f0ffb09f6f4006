"""Options, signals and several processes of a pix2pix training; tests/test_training_contract.py has the rest."""

import json
import os
import shlex
import signal

import pytest
import torch
from PIL import Image

import ganvas
import pix2pix
from data_scripts.__main__ import main as data_scripts
from ganvas.data.decode import read_image
from ganvas.data.likeness import LIMIT
from ganvas.errors import UserError
from ganvas.models.tensors import load_tensors

LONG = """
    --image-size 32 --levels 3 --base-channels 8 --discriminator-channels 8 --patch-layers 1 --ema 0.9 --threads 1
    --save-every-steps 3 --log-every-steps 1
"""


@pytest.mark.parametrize(
    "options",
    [
        "--direction b2a",
        "--gan-loss lsgan --batch-size 2",
        "--gan-loss hinge --norm instance",
        "--gan-loss wgangp --discriminator-norm instance",
        "--patch-layers 0 --discriminator-norm none",
        "--upsampling resize --norm none --dropout 0",
        "--lambda-gan 0",
        "--lambda-l1 0 --init orthogonal",
        "--color 0.3 --no-flip --load-size 32",
        "--ema 0.9 --schedule cosine --precision fp32",
        "--schedule plateau --load-size 0",
        "--gan-loss relativistic --discriminator-norm none --r1 0.1 --r2 0.1 --penalty-every 2 --lr-discriminator 1e-3",
        "--gan-loss hinge --discriminator-norm spectral --lambda-features 10 --discriminator-scales 2 --patch-layers 1",
        "--generator resunet --norm group --diff-augment color translation cutout --lambda-l1-end 10",
    ],
)
@pytest.mark.slow
@pytest.mark.essential
def test_options_train(train, tmp_path, options):
    code, _, err = train(tmp_path / "run", *options.split(), "--steps", 2)
    assert code == 0, err
    assert all(torch.isfinite(value).all() for value in load_tensors(tmp_path / "run/model/model.safetensors").values())
    direction = "b2a" if "b2a" in options else "a2b"
    assert ganvas.load(tmp_path / "run").config.networks.keys() == {direction}


@pytest.mark.parametrize("options", ["l1,swd", "ssim,spectrum", "kid,lpips"])
@pytest.mark.slow
@pytest.mark.essential
def test_best_model_is_chosen_by_the_metrics_that_were_named(
    pix2pix, train, tmp_path, options, feature_file, distance_file
):
    files = ["--feature-weights", feature_file, "--lpips-weights", distance_file] if options == "kid,lpips" else []
    code, _, err = train(tmp_path / "run", "--save-best-by", options, *files, "--lr", 0.01, "--steps", 10)
    assert code == 0, err
    names = {"ssim": "val_ssim_error", "spectrum": "val_spectrum_error", "kid": "val_kid_error"}
    chosen = [names.get(name, f"val_{name}") for name in options.split(",")]
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    scores = {line["step"]: line[chosen[0]] * line[chosen[1]] for line in lines if chosen[0] in line}
    assert len(scores) == 5
    config = json.loads((tmp_path / "run" / "model" / "config.json").read_text())
    assert config["training"]["step"] == min(scores, key=scores.get)
    assert {"val_l1", "val_psnr", "val_ssim", "val_swd", "val_sharpness", "val_spectrum"} <= set(lines[-1] | lines[-2])
    code, _, err = pix2pix("train", "--out", tmp_path / "run", "--resume", "--save-best-by", "swd,ssim")
    assert code == 2
    assert f"cannot change --save-best-by (was '{options}', now 'swd,ssim')" in err


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such signals")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.slow
def test_signal_saves_the_run_and_prints_how_to_resume_it(pix2pix, process, pairs, tmp_path, number):
    run = tmp_path / "a run"
    training = process("train", "--data", pairs, *LONG.split(), "--steps", 100000, "--out", run)
    next(line for line in training.stderr if line.startswith("step "))  # the imports are over
    training.send_signal(number)
    _, err = training.communicate(timeout=60)
    assert training.returncode == 128 + number
    assert "Traceback" not in err
    command = next(line.strip() for line in err.splitlines() if "--resume" in line)
    assert shlex.split(command)[:3] == ["pix2pix", "train", "--out"]
    saved = max(int(path.name.removeprefix("step-")) for path in (run / "checkpoints").glob("step-*"))
    code, _, err = pix2pix(*shlex.split(command)[1:], "--steps", saved + 2)
    assert code == 0, err
    assert (run / "checkpoints" / f"step-{saved + 2:08d}").exists()


@pytest.mark.slow
def test_two_processes_share_a_batch(process, pix2pix, pairs, tmp_path):
    """Two processes with a pair each do what one does with both, up to rounding; instance norm shares no statistics."""
    options = ["--data", pairs, *LONG.split(), "--steps", "2", "--norm", "instance", "--discriminator-norm", "instance"]
    options += ["--dropout", "0", "--precision", "fp32", "--device", "cpu", "--lr", "0.01"]
    together = process("train", *options, "--out", tmp_path / "two", "--devices", "2")
    _, err = together.communicate(timeout=240)
    assert together.returncode == 0, err
    assert pix2pix("train", *options, "--out", tmp_path / "one", "--batch-size", "2")[0] == 0
    one, two = (load_tensors(tmp_path / name / "model" / "model.safetensors") for name in ("one", "two"))
    assert one.keys() == two.keys()
    for name, value in one.items():
        if name.endswith("weight"):  # biases before an instance norm have gradients of rounding noise alone
            # Two steps of Adam move each weight by up to 0.02, in other directions with one process's gradients alone.
            assert (value - two[name]).abs().mean() < 2e-4, name


@pytest.mark.slow
def test_epochs_resumed_on_another_number_of_devices_are_complete(process, train, tmp_path):
    options = ["--steps", "None", "--epochs", 1, "--decay-epochs", 0]
    code, _, err = train(tmp_path / "run", *options)
    assert code == 0, err
    together = process("train", "--out", tmp_path / "run", "--resume", "--device", "cpu", "--devices", 2, "--epochs", 3)
    _, err = together.communicate(timeout=240)
    assert together.returncode == 0, err
    assert "Done: 12 steps" in err  # six steps of one pair, then two epochs of three steps of two pairs


@pytest.mark.parametrize("layout", ["pairs", "folders", "shards"])
def test_data_of_every_layout_is_recorded(train, own_pairs, tmp_path, layout):
    root = own_pairs
    if layout == "shards":
        root = tmp_path / "shards"
        assert data_scripts(["shards", str(own_pairs), str(root), "--pairs-per-shard", "2"]) == 0
    elif layout == "folders":
        root = tmp_path / "folders"
        for file in own_pairs.rglob("*.png"):
            pair = Image.open(file)
            for side, left in (("A", 0), ("B", 32)):
                folder = root / f"{file.parent.name}{side}"
                folder.mkdir(parents=True, exist_ok=True)
                pair.crop((left, 0, left + 32, 32)).save(folder / file.name)
    assert train(tmp_path / "run", "--steps", 1, data=root)[0] == 0
    parts = json.loads((tmp_path / "run" / "data.json").read_text())["parts"]
    sides = "ab" if layout == "folders" else "a"
    assert {name: len(part["sizes"]) for name, part in parts.items()} == {
        f"{split} {side}": count for split, count in (("train", 6), ("val", 2)) for side in sides
    }


@pytest.mark.parametrize("generator", ["unet", "resunet"])
def test_the_generator_is_an_option_from_python_too(pairs, tmp_path, generator):
    result = pix2pix.train(pairs, tmp_path / "run", generator=generator, image_size=32, base_channels=2, steps=1)
    assert result.model.spec.architecture == generator


@pytest.mark.slow
@pytest.mark.essential
def test_the_model_knows_the_sources_it_was_trained_on(train, many_pairs, tmp_path):
    """Of both directions: a target is unlike every source."""
    for direction in ("a2b", "b2a"):
        code, _, err = train(tmp_path / direction, "--direction", direction, "--steps", 1, data=many_pairs)
        assert code == 0, err
    a, b = (ganvas.load(tmp_path / direction).config.sources[direction] for direction in ("a2b", "b2a"))
    how = ganvas.load(tmp_path / "a2b").preprocessing
    for file in (many_pairs / "val").iterdir():
        pair = read_image(file, 3)
        source, target = how.to_input(pair[:, :32]), how.to_input(pair[:, 32:])
        assert a.distance(source) < LIMIT < a.distance(target)
        assert b.distance(target) < LIMIT < b.distance(source)


def test_options_that_need_a_known_discriminator_are_refused_with_your_own(pairs, tmp_path):
    own = torch.nn.Conv2d(6, 1, 4, 2)
    for options in ({"discriminator_scales": 2}, {"lambda_features": 1.0}):
        with pytest.raises(UserError, match="with your own discriminator"):
            pix2pix.train(pairs, tmp_path / "run", discriminator=own, image_size=32, **options)
    # The discriminator's own options say nothing about it: its norm, batch by default, would forbid the penalty.
    small = {"image_size": 32, "base_channels": 2, "levels": 2, "steps": 1, "log_every_steps": 1}
    pix2pix.train(pairs, tmp_path / "run", discriminator=own, r1=0.1, **small)
    assert "loss_r1" in (tmp_path / "run" / "metrics.jsonl").read_text()
