"""Training through the real command line: what a run leaves, exact repeats, resume, signals."""

import json
import os
import shlex
import shutil
import signal

import pytest
import torch
from PIL import Image

import ganvas
from data_scripts.__main__ import main as data_scripts
from ganvas.data.decode import read_image
from ganvas.files import sha256
from ganvas.models.folder import load_model
from ganvas.models.tensors import load_tensors
from pix2pix import trainer


def model_digest(run):
    return sha256(run / "model" / "model.safetensors")


def metrics(run):
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def test_what_a_run_leaves(trained):
    assert json.loads((trained / "config.json").read_text())["data"]["image_size"] == 32
    assert [line["step"] for line in metrics(trained) if "loss_g" in line] == [2, 4, 6]
    assert {"loss_d", "loss_g", "loss_g_gan", "loss_g_l1", "lr", "images_per_second"} <= set(metrics(trained)[0])
    assert [path.name for path in sorted((trained / "samples").iterdir())] == ["step-00000003.png", "step-00000006.png"]
    assert list(trained.glob("events.out.tfevents.*"))
    files = {"config.json", "model.safetensors", "README.md", "sample.png"}
    assert {path.name for path in (trained / "model").iterdir()} == files
    assert not [path for path in trained.rglob("*") if path.suffix in (".pkl", ".pt", ".pth")]
    names = {path.name for path in (trained / "checkpoints" / "step-00000006").iterdir()}
    assert names == {f"{n}.safetensors" for n in ("G", "D", "G.adam", "D.adam")} | {"checkpoint.json"}


def test_the_card_says_data_licence_settings_and_shows_a_sample(trained, pairs):
    card = (trained / "model" / "README.md").read_text()
    for said in ("Data: set. License of the data: not stated", "License of the weights: not stated", "| val_l1 |"):
        assert said in card
    assert "(sample.png)" in card
    sheets = (trained / "model" / "sample.png", trained / "samples" / "step-00000006.png")
    assert read_image(sheets[0]).shape == read_image(sheets[1]).shape
    assert '"lambda_l1": 100.0' in card
    assert str(pairs.parent) not in card


def test_names_from_the_dataset_are_literal_text_in_the_card(train, own_pairs, tmp_path):
    names = {"domains": {"a": "<img src=x>", "b": "[b](http://x.example)"}, "licence": "![l](//x)"}
    (own_pairs / "dataset.json").write_text(json.dumps(names))
    code, _, err = train(tmp_path / "run", "--steps", 1, data=own_pairs)
    assert code == 0, err
    card = (tmp_path / "run" / "model" / "README.md").read_text()
    assert r"\<img src=x\>" in card
    assert r"\[b\](http\://x.example)" in card
    assert r"License of the data: !\[l\](//x)" in card
    assert card.count("<img") == card.count(r"\<img")
    assert card.count("[b") == card.count(r"\[b")


def test_the_data_set_may_be_the_folder_that_one_stands_in(train, trained, pairs, tmp_path, monkeypatch):
    monkeypatch.chdir(pairs)
    code, _, err = train(tmp_path / "run", data=".")
    assert code == 0, err
    assert model_digest(tmp_path / "run") == model_digest(trained)
    assert load_model(tmp_path / "run")[0].training["data"] == pairs.name


@pytest.mark.slow
@pytest.mark.essential
def test_the_same_seed_gives_the_same_bytes_and_another_does_not(train, trained, tmp_path):
    assert train(tmp_path / "same")[0] == 0
    assert model_digest(tmp_path / "same") == model_digest(trained)
    assert train(tmp_path / "other", "--seed", 1)[0] == 0
    assert model_digest(tmp_path / "other") != model_digest(trained)


def test_a_runs_config_repeats_it(pix2pix, trained, tmp_path):
    code, _, err = pix2pix("train", "--config", trained / "config.json", "--out", tmp_path / "run")
    assert code == 0, err
    assert model_digest(tmp_path / "run") == model_digest(trained)


def test_options_override_a_config(pix2pix, trained, tmp_path):
    code, _, err = pix2pix("train", "--config", trained / "config.json", "--out", tmp_path / "run", "--steps", 2)
    assert code == 0, err
    assert json.loads((tmp_path / "run" / "config.json").read_text())["schedule"]["steps"] == 2


@pytest.mark.slow
def test_worker_processes_change_nothing(train, trained, tmp_path):
    assert train(tmp_path / "run", "--workers", 2)[0] == 0
    assert model_digest(tmp_path / "run") == model_digest(trained)


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
    ],
)
@pytest.mark.slow
@pytest.mark.essential
def test_each_option_trains(train, tmp_path, options):
    code, _, err = train(tmp_path / "run", *options.split(), "--steps", 2)
    assert code == 0, err
    assert all(torch.isfinite(value).all() for value in load_tensors(tmp_path / "run/model/model.safetensors").values())
    direction = "b2a" if "b2a" in options else "a2b"
    assert ganvas.load(tmp_path / "run").config.networks.keys() == {direction}


@pytest.mark.slow
def test_the_better_mode_of_batch_norm_is_recorded_and_both_are_printed(train, tmp_path):
    code, _, err = train(tmp_path / "run", "--batch-size", 4, "--steps", 20, "--save-every-steps", 20)
    assert code == 0
    scores = metrics(tmp_path / "run")[-1]
    modes = ("running", "picture")
    better = min(modes, key=lambda mode: scores[f"val_l1_{mode}"] * scores[f"val_swd_{mode}"])
    assert ganvas.load(tmp_path / "run").config.statistics == better
    assert scores["val_l1"] == scores[f"val_l1_{better}"]
    assert scores["val_swd"] == scores[f"val_swd_{better}"]
    for mode in modes:
        assert f"val_swd_{mode} {scores[f'val_swd_{mode}']:.4f}" in err


@pytest.mark.slow
def test_the_best_step_has_the_least_product_of_l1_and_patch_distance(train, tmp_path):
    code, _, err = train(tmp_path / "run", "--lr", 0.01, "--steps", 12)
    assert code == 0, err
    scores = {line["step"]: line["val_l1"] * line["val_swd"] for line in metrics(tmp_path / "run") if "val_l1" in line}
    assert len(scores) == 6
    assert load_model(tmp_path / "run")[0].training["step"] == min(scores, key=scores.get)


@pytest.mark.parametrize("mode", ["running", "picture"])
@pytest.mark.slow
@pytest.mark.essential
def test_a_resumed_run_draws_the_samples_of_one_that_never_stopped(pix2pix, train, tmp_path, monkeypatch, mode):
    """Whatever the mode of the last validation: one of the two is not that of a run that starts."""
    score = trainer._Task.score
    monkeypatch.setattr(
        trainer._Task, "score", lambda self, asked: score(self, asked) | ({"val_l1": 0.0} if asked == mode else {})
    )
    options = ["--sample-every-steps", 1, "--lr", 0.01, "--dropout", 0, "--steps", 6, "--decay-steps", 0]
    assert train(tmp_path / "unbroken", *options)[0] == 0
    assert train(tmp_path / "run", *options, "--steps", 4)[0] == 0
    code, _, err = pix2pix("train", "--out", tmp_path / "run", "--resume", "--steps", 6)
    assert code == 0, err
    whole, resumed = (
        {path.name: path.read_bytes() for path in (tmp_path / run / "samples").iterdir()} for run in ("unbroken", "run")
    )
    assert len(whole) == 6
    assert resumed == whole
    for step in (4, 6):
        name = f"checkpoints/step-{step:08d}"
        assert load_model(tmp_path / "run" / name)[0].statistics == mode


def test_a_finished_run_can_be_made_longer(pix2pix, train, tmp_path):
    assert train(tmp_path / "run")[0] == 0
    code, _, err = pix2pix("train", "--out", tmp_path / "run", "--resume", "--steps", 8, "--log-every-steps", 1)
    assert code == 0, err
    assert [line["step"] for line in metrics(tmp_path / "run") if "loss_g" in line] == [2, 4, 6, 7, 8]


def test_resuming_a_finished_run_changes_nothing(pix2pix, train, tmp_path):
    assert train(tmp_path / "run")[0] == 0
    before = model_digest(tmp_path / "run")
    code, _, err = pix2pix("train", "--out", tmp_path / "run", "--resume")
    assert code == 0, err
    assert model_digest(tmp_path / "run") == before


LONG = ["--image-size", "32", "--levels", "3", "--base-channels", "8", "--discriminator-channels", "8"]
LONG += [
    "--patch-layers",
    "1",
    "--steps",
    "120",
    "--save-every-steps",
    "3",
    "--log-every-steps",
    "1",
    "--ema",
    "0.9",
    "--threads",
    "1",
]


@pytest.mark.slow
@pytest.mark.essential
def test_killed_at_random_instants_it_ends_with_the_same_bytes(pix2pix, killed_and_resumed, pairs, tmp_path):
    arguments, run = ["train", "--data", pairs, *LONG], tmp_path / "killed"
    code, _, err = pix2pix(*arguments, "--out", tmp_path / "unbroken")
    assert code == 0, err
    code, err = killed_and_resumed("pix2pix", arguments, run, kills=3, longest=0.6)
    assert code == 0, err
    assert model_digest(run) == model_digest(tmp_path / "unbroken")
    clean = [(line["step"], line["loss_g"]) for line in metrics(tmp_path / "unbroken") if "loss_g" in line]
    assert [(line["step"], line["loss_g"]) for line in metrics(run) if "loss_g" in line] == clean


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such signals")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.slow
def test_signals_save_and_say_how_to_go_on(pix2pix, process, pairs, tmp_path, number):
    run = tmp_path / "a run"
    victim = process("train", "--data", pairs, *LONG, "--steps", 100000, "--out", run)
    next(line for line in victim.stderr if line.startswith("step "))  # it trains; what comes before are imports
    victim.send_signal(number)
    _, err = victim.communicate(timeout=60)
    assert victim.returncode == 128 + number
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
    options = ["--data", pairs, *LONG, "--steps", "2", "--norm", "instance", "--discriminator-norm", "instance"]
    options += ["--dropout", "0", "--precision", "fp32", "--device", "cpu", "--lr", "0.01"]
    together = process("train", *options, "--out", tmp_path / "two", "--devices", "2")
    _, err = together.communicate(timeout=240)
    assert together.returncode == 0, err
    assert pix2pix("train", *options, "--out", tmp_path / "one", "--batch-size", "2")[0] == 0
    one, two = (load_tensors(tmp_path / name / "model" / "model.safetensors") for name in ("one", "two"))
    assert one.keys() == two.keys()
    for name, value in one.items():
        if name.endswith("weight"):  # biases before an instance norm have gradients of rounding noise alone
            # Two steps of Adam move each weight by up to 0.02; with one rank's gradients alone they would part by that.
            assert (value - two[name]).abs().mean() < 2e-4, name
    assert [line["epoch"] for line in metrics(tmp_path / "two") if "epoch" in line] == [0, 0]


class TestDataOfAResumedRun:
    @pytest.fixture
    def run(self, train, own_pairs, tmp_path):
        run = tmp_path / "run"
        assert train(run, "--keep-checkpoints", 9, data=own_pairs)[0] == 0
        for step in (4, 6):  # as if it had been killed after step 2
            shutil.rmtree(run / "checkpoints" / f"step-{step:08d}")
        return run

    @pytest.fixture
    def resume(self, pix2pix, run):
        return lambda *options: pix2pix("train", "--out", run, "--resume", *options)

    @pytest.mark.slow
    @pytest.mark.essential
    def test_moved_data_is_found_again_and_ends_with_the_same_bytes(self, resume, run, own_pairs, trained, tmp_path):
        shutil.move(own_pairs, tmp_path / "moved")
        code, _, err = resume()
        assert (code, "Give --data" in err) == (2, True)
        code, _, err = resume("--data", tmp_path / "moved")
        assert code == 0, err
        assert "Warning" not in err
        assert model_digest(run) == model_digest(trained)
        assert json.loads((run / "config.json").read_text())["data"]["data"] == str(tmp_path / "moved")

    def test_other_data_is_refused_with_what_differs(self, resume, run, own_pairs, tmp_path):
        shutil.copytree(own_pairs, tmp_path / "other")
        (tmp_path / "other" / "train" / "3.png").unlink()
        before = (run / "data.json").read_bytes(), (run / "config.json").read_bytes()
        code, _, err = resume("--data", tmp_path / "other")
        assert code == 2
        assert "train a: 6 files then, 5 files now, missing: 3.png" in err
        assert before == ((run / "data.json").read_bytes(), (run / "config.json").read_bytes())

    def test_training_images_that_were_removed_are_missed(self, resume, own_pairs):
        (own_pairs / "train" / "0.png").unlink()
        code, _, err = resume()
        assert (code, "missing: 0.png" in err) == (2, True)

    @pytest.mark.slow
    def test_changed_images_are_warned_of_once(self, resume, own_pairs):
        for split in ("train", "val"):
            Image.open(own_pairs / split / "1.png").transpose(Image.Transpose.FLIP_TOP_BOTTOM).save(
                own_pairs / split / "1.png", compress_level=0
            )
        code, _, err = resume()
        assert code == 0, err
        assert err.count("Warning") == 1
        assert "val a: of another size: 1.png; train a: of another size: 1.png" in err
        code, _, err = resume()
        assert (code, "Warning" in err) == (0, False)


@pytest.mark.parametrize("layout", ["pairs", "folders", "shards"])
def test_the_record_holds_for_every_layout(train, own_pairs, tmp_path, layout):
    root = own_pairs
    if layout == "shards":
        root = tmp_path / "shards"
        assert data_scripts(["shards", str(own_pairs), str(root), "--pairs-per-shard", "2"]) == 0
    elif layout == "folders":
        for file in own_pairs.rglob("*.png"):
            both = Image.open(file)
            for side, left in (("A", 0), ("B", 32)):
                folder = tmp_path / "folders" / f"{file.parent.name}{side}"
                folder.mkdir(parents=True, exist_ok=True)
                both.crop((left, 0, left + 32, 32)).save(folder / file.name)
        root = tmp_path / "folders"
    assert train(tmp_path / "run", "--steps", 1, data=root)[0] == 0
    parts = json.loads((tmp_path / "run" / "data.json").read_text())["parts"]
    sides = "ab" if layout == "folders" else "a"
    assert {name: len(part["sizes"]) for name, part in parts.items()} == {
        f"{split} {side}": count for split, count in (("train", 6), ("val", 2)) for side in sides
    }


@pytest.mark.slow
def test_epochs_that_another_number_of_devices_resumes_are_whole(process, pix2pix, train, pairs, tmp_path):
    options = ["--steps", "None", "--epochs", 1, "--decay-epochs", 0]
    code, _, err = train(tmp_path / "run", *options)
    assert code == 0, err
    together = process("train", "--out", tmp_path / "run", "--resume", "--device", "cpu", "--devices", 2, "--epochs", 3)
    _, err = together.communicate(timeout=240)
    assert together.returncode == 0, err
    assert "Done: 12 steps" in err  # six steps of one pair, then two epochs of three steps of two pairs
