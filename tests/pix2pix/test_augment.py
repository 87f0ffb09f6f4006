"""The option --augment: what it changes in a run, what it goes together with, and runs from before it was there."""

import json
import shutil

import numpy as np
import pytest

from ganvas.data.encode import write_image
from ganvas.files import sha256

PALETTE = {"ground": [140, 200, 240], "blob": [240, 240, 220]}  # the colors of the sources


def model_digest(run):
    return sha256(run / "model" / "model.safetensors")


@pytest.fixture
def old_run(trained, tmp_path):
    """A run from before there was the option."""
    run = tmp_path / "old"
    shutil.copytree(trained, run)
    config = json.loads((run / "config.json").read_text())
    del config["data"]["augment"]
    config["data"]["color"] = 0.0
    (run / "config.json").write_text(json.dumps(config))
    return run


@pytest.mark.slow
@pytest.mark.essential
def test_config_without_the_option_gives_the_same_bytes(pix2pix, trained, old_run, tmp_path):
    code, _, err = pix2pix("train", "--config", old_run / "config.json", "--out", tmp_path / "run")
    assert code == 0, err
    assert model_digest(tmp_path / "run") == model_digest(trained)


@pytest.mark.slow
def test_run_without_the_option_can_be_resumed(pix2pix, train, old_run, tmp_path):
    code, _, err = pix2pix("train", "--out", old_run, "--resume", "--steps", 8, "--decay-steps", 3)
    assert code == 0, err
    assert train(tmp_path / "run", "--decay-steps", 3)[0] == 0
    assert pix2pix("train", "--out", tmp_path / "run", "--resume", "--steps", 8)[0] == 0
    assert model_digest(old_run) == model_digest(tmp_path / "run")


def test_a_resumed_run_keeps_its_augmentation(pix2pix, old_run):
    code, _, err = pix2pix("train", "--out", old_run, "--resume", "--augment", "strong")
    assert code == 2
    assert "--augment (was 'paper', now 'strong')" in err


@pytest.mark.parametrize("palette", [None, PALETTE])
@pytest.mark.slow
@pytest.mark.essential
def test_workers_and_resumes_change_nothing_with_strong_augmentation(
    train, pix2pix, trained, own_pairs, tmp_path, palette
):
    if palette:
        (own_pairs / "dataset.json").write_text(json.dumps({"legend": palette}))
    strong = ["--augment", "strong"]
    code, _, err = train(tmp_path / "run", *strong, data=own_pairs)
    assert code == 0, err
    assert train(tmp_path / "workers", *strong, "--workers", 2, "--cache-gb", 0, data=own_pairs)[0] == 0
    shutil.copytree(tmp_path / "run", tmp_path / "killed")
    shutil.rmtree(tmp_path / "killed" / "checkpoints" / "step-00000006")
    assert pix2pix("train", "--out", tmp_path / "killed", "--resume")[0] == 0
    digests = {model_digest(tmp_path / name) for name in ("run", "workers", "killed")}
    assert len(digests) == 1
    assert digests != {model_digest(trained)}


@pytest.mark.slow
@pytest.mark.essential
def test_palette_changes_only_strong_augmentation(train, trained, own_pairs, tmp_path):
    digests = {}
    for name, palette in (("without", {}), ("with", {"legend": PALETTE})):
        (own_pairs / "dataset.json").write_text(json.dumps(palette))
        for preset in ("paper", "strong"):
            run = tmp_path / f"{preset} {name}"
            assert train(run, "--augment", preset, data=own_pairs)[0] == 0
            digests[preset, name] = model_digest(run)
    assert digests["paper", "with"] == digests["paper", "without"] == model_digest(trained)
    assert digests["strong", "with"] != digests["strong", "without"]


@pytest.mark.slow
@pytest.mark.essential
def test_options_override_a_preset(train, tmp_path):
    """Paper without a crop and without mirroring is none."""
    assert train(tmp_path / "paper", "--load-size", 32, "--no-flip")[0] == 0
    assert train(tmp_path / "none", "--augment", "none")[0] == 0
    assert model_digest(tmp_path / "paper") == model_digest(tmp_path / "none")


def test_gray_images_train_with_strong_augmentation(train, tmp_path):
    for split in ("train", "val"):
        for i in range(2):
            bands = np.random.default_rng(i).integers(0, 65536, (40, 40, 6), dtype=np.uint16)
            write_image(tmp_path / f"data/{split}/a/{i}.tif", bands[:, :, :5])
            write_image(tmp_path / f"data/{split}/b/{i}.tif", bands[:, :, 5:])
    channels = ["--source-channels", 5, "--target-channels", 1]
    code, _, err = train(tmp_path / "run", "--augment", "strong", *channels, "--steps", 2, data=tmp_path / "data")
    assert code == 0, err
    code, _, err = train(tmp_path / "other", "--augment", "strong", "--color", 0.1, *channels, data=tmp_path / "data")
    assert code == 2
    assert "color works on 8-bit images of 1 or 3 channels; these have 5 of uint16" in err


def test_invalid_palette_is_refused(train, own_pairs, tmp_path):
    (own_pairs / "dataset.json").write_text('{"legend": {"land": "green"}}')
    code, _, err = train(tmp_path / "run", "--augment", "strong", data=own_pairs)
    assert code == 2
    assert "dataset.json: the legend is {'land': 'green'}; expected [red, green, blue]" in err
