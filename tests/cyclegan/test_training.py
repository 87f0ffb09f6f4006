"""Training through the real command line: what a run leaves, exact repeats and resumes, pools included."""

import json

import pytest
import torch

import ganvas
from ganvas.data.images import read_image
from ganvas.errors import UserError
from ganvas.files import sha256
from ganvas.modelfile import load_model
from ganvas.tensorfile import load_tensors


def model_digest(run):
    return sha256(run / "model" / "model.safetensors")


def metrics(run):
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def test_what_a_run_leaves(trained):
    steps = [line for line in metrics(trained) if "loss_g" in line]
    assert {"loss_g_ab", "loss_g_ba", "loss_cycle_a", "loss_identity_b", "loss_d_a", "loss_d_b", "lr"} <= set(steps[0])
    assert [line["step"] for line in metrics(trained) if "correlation_identity_a2b" in line] == [3, 6]
    assert [path.name for path in sorted((trained / "samples").iterdir())] == ["step-00000003.png", "step-00000006.png"]
    names = {path.name for path in (trained / "checkpoints" / "step-00000006").iterdir()}
    networks = ("G_ab", "G_ba", "D_a", "D_b")
    assert names == {
        *(f"{name}.safetensors" for name in (*networks, "pool_a", "pool_b")),
        *(f"{name}.adam.safetensors" for name in networks),
        "checkpoint.json",
    }
    assert not [path for path in trained.rglob("*") if path.suffix in (".pkl", ".pt", ".pth")]


def test_the_model_translates_both_ways(trained):
    config, generators = load_model(trained)
    assert config.kind == "cyclegan"
    assert generators.keys() == {"a2b", "b2a"}
    picture = read_image(next((trained / "samples").iterdir()))[:30, :41]
    for way in ("a2b", "b2a"):
        assert ganvas.load(trained, direction=way).translate(picture).shape == picture.shape
    with pytest.raises(UserError, match="choose a direction"):
        ganvas.load(trained)


def test_samples_show_both_directions_and_the_way_back(trained):
    sheet = read_image(trained / "samples" / "step-00000006.png")
    assert sheet.shape[0] > 5 * 96  # three pictures of a, two of b, enlarged
    assert sheet.shape[1] > 4 * 96  # source, translated, cycled back, identity


def test_the_same_seed_gives_the_same_bytes_and_another_does_not(train, trained, tmp_path):
    assert train(tmp_path / "same", "--workers", 2, "--log-every-steps", 1)[0] == 0
    assert model_digest(tmp_path / "same") == model_digest(trained)
    assert train(tmp_path / "other", "--seed", 1)[0] == 0
    assert model_digest(tmp_path / "other") != model_digest(trained)


@pytest.mark.parametrize(
    "options",
    [
        "--generator unet --levels 3",
        "--norm batch --discriminator-norm batch --batch-size 2 --precision fp32",
        "--gan-loss vanilla --upsampling resize --dropout 0.5",
        "--gan-loss hinge --discriminator pixel --discriminator-norm none --norm none",
        "--gan-loss wgangp",
        "--lambda-identity 0 --pool-size 0",
        "--batch-size 4 --accumulate 2 --checkpointing",
        "--ema 0.9 --no-flip --load-size 0",
    ],
)
def test_each_option_trains(train, tmp_path, options):
    code, _, err = train(tmp_path / "run", *options.split(), "--steps", 2)
    assert code == 0, err
    assert all(torch.isfinite(value).all() for value in load_tensors(tmp_path / "run/model/model.safetensors").values())


def test_channels_may_differ(cyclegan, train, own_domains, tmp_path):
    for path in own_domains.glob("*A/*.png"):
        picture = read_image(path)[..., :1]
        from ganvas.data.images import write_image

        write_image(path, picture)
    options = ("--channels-a", 1, "--lambda-identity", 0)
    code, _, err = train(tmp_path / "run", *options, data=own_domains)
    assert code == 0, err
    for way, folder, channels in (("a2b", "testA", 3), ("b2a", "testB", 1)):
        out = tmp_path / way
        assert cyclegan("translate", tmp_path / "run", own_domains / folder, out, "--direction", way)[0] == 0
        assert {read_image(path).shape[2] for path in out.iterdir()} == {channels}


def test_the_best_model_is_kept_by_val(train, domains_with_truth, tmp_path):
    code, _, err = train(tmp_path / "run", data=domains_with_truth)
    assert code == 0, err
    scores = {
        line["step"]: line["val_swd_a2b"] + line["val_swd_b2a"]
        for line in metrics(tmp_path / "run")
        if "val_swd_a2b" in line
    }
    assert scores.keys() == {2, 4, 6}
    assert load_model(tmp_path / "run")[0].training["step"] == min(scores, key=scores.get)


LONG = [
    "--image-size",
    "16",
    "--num-blocks",
    "1",
    "--base-channels",
    "4",
    "--discriminator-channels",
    "4",
    "--threads",
    "1",
]
LONG += [
    "--patch-layers",
    "1",
    "--pool-size",
    "10",
    "--steps",
    "100",
    "--save-every-steps",
    "3",
    "--log-every-steps",
    "1",
]


def test_killed_at_random_instants_it_ends_with_the_same_bytes(cyclegan, killed_and_resumed, domains, tmp_path):
    arguments, run = ["train", "--data", domains, *LONG], tmp_path / "killed"
    code, _, err = cyclegan(*arguments, "--out", tmp_path / "unbroken")
    assert code == 0, err
    code, err = killed_and_resumed("cyclegan", arguments, run, kills=3, longest=0.7)
    assert code == 0, err
    assert model_digest(run) == model_digest(tmp_path / "unbroken")
    last = [tmp_path / name / "checkpoints" / "step-00000100" for name in ("unbroken", "killed")]
    for name in ("pool_a", "pool_b", "D_a", "D_b.adam"):
        assert len({sha256(folder / f"{name}.safetensors") for folder in last}) == 1, name


def test_two_processes_train(process, domains, tmp_path):
    pair = process(
        "train", "--data", domains, *LONG, "--steps", 4, "--device", "cpu", "--devices", 2, "--out", tmp_path / "run"
    )
    _, err = pair.communicate(timeout=240)
    assert pair.returncode == 0, err
    assert load_model(tmp_path / "run")[0].training["step"] == 4
