"""Presets, options, data and monitor of a dcgan training; tests/test_training_contract.py has the rest."""

import json
import socket
from dataclasses import replace

import numpy as np
import pytest
import torch

from dcgan import classifier
from dcgan.config import PRESETS, DcganConfig
from dcgan.data import ImageSet
from dcgan.model import load_sampler
from dcgan.trainer import build_training
from ganvas.data.decode import read_image
from ganvas.data.encode import write_image
from ganvas.models.tensors import load_tensors
from ganvas.training.config import HardwareConfig
from ganvas.training.fabric import make_fabric

TINY = ["--base-channels", "4", "--batch-size", "8", "--threads", "1", "--steps", "6", "--sample-every-steps", "3"]


def metrics(run):
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def test_model_config_of_a_run(trained):
    config = load_sampler(trained).config
    assert (config.preset, config.image_size, config.channels, config.num_classes) == ("dcgan", 28, 1, 0)
    assert config.classes == tuple("0123456789")
    assert len(config.data_digest) == 64
    assert config.training["step"] in (2, 4, 6)
    assert "dcgan sample" in (trained / "model" / "README.md").read_text()


def test_samples_are_a_grid(trained):
    first, last = (read_image(path) for path in sorted((trained / "samples").iterdir()))
    assert first.shape == last.shape == (2 * (8 * 29 - 1), 2 * (10 * 29 - 1), 3)  # 8 x 10 images, enlarged twice
    assert first.std() > 1


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.slow
@pytest.mark.essential
def test_presets_train(train, tmp_path, preset):
    tiny = ["--batch-size", "8", "--threads", "1", "--steps", "3", "--save-every-steps", "3"]
    code, _, err = train(tmp_path / "run", "--preset", preset, "--leave-out", 0, tiny=tiny)
    assert code == 0, err
    sampler = load_sampler(tmp_path / "run")
    assert sampler.config.preset == preset
    assert sampler.sample(5, seed=0).shape == (5, 1, 28, 28)
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    is_tutorial = preset != "dcgan"
    assert (config["optimizer"]["ema"] == 0) == is_tutorial
    assert (config["hardware"]["precision"] == "fp32") == is_tutorial
    assert (config["data"]["pixel_range"] == "unit") == (preset == "dcgan-5x5")


@pytest.mark.slow
def test_model_of_a_tutorial_is_the_last_step(train, tmp_path):
    """In a run that oscillates, the step that is best by its pixels may draw a single class."""
    assert train(tmp_path / "run", "--preset", "dcgan-5x5", "--leave-out", 0, "--save-every-steps", 1)[0] == 0
    assert load_sampler(tmp_path / "run").config.training["step"] == 6
    assert not [line for line in metrics(tmp_path / "run") if "val_frechet" in line]


@pytest.mark.parametrize(
    "options",
    [
        "--conditional",
        "--image-size 32 --norm none",
        "--image-size 16 --channels 3 --conditional",
        "--gan-loss lsgan --label-smoothing 0.1",
        "--gan-loss hinge --step-order fresh",
        "--step-order keras --latent uniform --init glorot",
        "--ema 0 --pixel-range unit --leave-out 40 --precision bf16",
        "--preset dcgan-5x5 --extra-layers 1 --base-channels 8 --norm batch --leave-out 100",
        "--preset mlp --norm none",
    ],
)
@pytest.mark.slow
@pytest.mark.essential
def test_options_train(train, tmp_path, options):
    tiny = ["--batch-size", "8", "--threads", "1", "--steps", "2", "--save-every-steps", "2"]
    if "dcgan-5x5" not in options and "mlp" not in options:
        tiny += ["--base-channels", "4"]
    code, _, err = train(tmp_path / "run", *options.split(), tiny=tiny)
    assert code == 0, err
    weights = load_tensors(tmp_path / "run" / "model" / "model.safetensors")
    assert all(torch.isfinite(value).all() for value in weights.values())


def test_folder_of_color_images_trains(dcgan, folder_writer, tmp_path):
    folder = folder_writer(tmp_path / "tiles", classes=3, size=16)
    tiny = ["--base-channels", "4", "--batch-size", "8", "--threads", "1", "--steps", "4", "--conditional"]
    code, _, err = dcgan("train", "--data", folder, "--out", tmp_path / "run", *tiny)
    assert code == 0, err
    config = load_sampler(tmp_path / "run").config
    assert (config.channels, config.image_size, config.classes) == (3, 16, ("class-0", "class-1", "class-2"))


@pytest.mark.parametrize("K", [1, 3, 7, 10, 11, 100])
def test_columns_of_samples_are_classes_while_columns_suffice(tmp_path, monkeypatch, K):
    drawn = []
    monkeypatch.setattr(
        "dcgan.trainer.Sampler.draw", lambda self, z, labels: drawn.append(labels) or torch.zeros(80, 1, 16, 16).byte()
    )
    config = DcganConfig()
    config = replace(config, model=replace(config.model, conditional=True, base_channels=4))
    data = ImageSet(torch.zeros(200, 1, 16, 16).byte(), torch.arange(200) % K, tuple(map(str, range(K))), "own", "")
    build_training(config, data, tmp_path, make_fabric(HardwareConfig(device="cpu"))).trainer.sample()
    sheet = drawn[0].view(8, 10)
    if K <= 10:
        assert sheet[0].tolist() == [column % K for column in range(10)]
        assert (sheet == sheet[0]).all()
    else:
        assert sheet.flatten().tolist() == [index % K for index in range(80)]


@pytest.mark.slow
def test_images_of_five_channels_train_and_are_drawn(dcgan, tmp_path):
    (tmp_path / "set").mkdir()
    for i in range(8):
        write_image(
            tmp_path / "set" / f"{i}.tif", np.full((16, 16, 5), 20 * i, np.uint8) + np.arange(5, dtype=np.uint8)
        )
    code, _, err = dcgan("train", "--data", tmp_path / "set", "--out", tmp_path / "run", *TINY)
    assert code == 0, err
    assert load_sampler(tmp_path / "run").sample(3, seed=0).shape == (3, 5, 16, 16)
    code, _, err = dcgan("sample", tmp_path / "run", tmp_path / "drawn.png")
    assert (code, "does not hold 5 channels" in err) == (2, True)
    assert dcgan("sample", tmp_path / "run", tmp_path / "drawn.tif")[0] == 0
    assert read_image(tmp_path / "drawn.tif").shape[2] == 5


@pytest.mark.slow
def test_mnist5k_is_trained_sampled_and_evaluated_without_network_access(dcgan, tmp_path, monkeypatch):
    """The feature classifier is trained, too, for a fortieth of its time and with a lower required accuracy."""
    monkeypatch.setattr(socket.socket, "connect", lambda *_: pytest.fail("network access"))
    monkeypatch.setenv("GANVAS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(classifier, "TRAINING_IMAGES", classifier.TRAINING_IMAGES // 40)
    monkeypatch.setitem(classifier.REQUIRED_ACCURACY, "mnist5k", 0.9)
    code, _, err = dcgan("train", "--data", "mnist5k", "--out", tmp_path / "run", *TINY)
    assert code == 0, err
    assert "4000 images of mnist5k" in err
    assert dcgan("sample", tmp_path / "run", tmp_path / "drawn.png")[0] == 0
    assert read_image(tmp_path / "drawn.png").std() > 1
    code, out, err = dcgan("evaluate", tmp_path / "run", "--samples", 200, "--json")
    assert code == 0, err
    result = json.loads(out)
    assert (result["pictures"], result["compared"]) == (200, 200)
    assert 0.9 <= result["classifier"]["accuracy"] < 1
    assert result["ceiling"]["class_coverage"]["mean"] == 10
    assert result["ceiling"]["label_entropy"]["mean"] == pytest.approx(np.log2(10), abs=0.01)
    ours, real = (result[name]["frechet_distance"]["mean"] for name in ("metrics", "ceiling"))
    assert ours > 10 * real  # after six steps


@pytest.mark.slow
@pytest.mark.essential
def test_preset_that_leaves_out_5000_images_uses_all_of_mnist5k(dcgan, tmp_path):
    tiny = ["--batch-size", "8", "--threads", "1", "--steps", "2"]
    code, _, err = dcgan("train", "--data", "mnist5k", "--preset", "dcgan-5x5", "--out", tmp_path / "run", *tiny)
    assert code == 0, err
    assert "4000 images of mnist5k" in err


@pytest.mark.slow
def test_mode_collapse_is_warned_of_once(train, tmp_path, monkeypatch):
    """With so small a learning rate, the images stay as alike as the initial ones."""
    monkeypatch.setattr("ganvas.training.monitors.WARM_UP", 0)
    code, _, err = train(tmp_path / "run", "--lr", "1e-9", "--ema", "0")
    assert code == 0
    assert err.count("Mode collapse") == 1
    assert "--label-smoothing 0.1" in err and "--beta1" not in err and "--preset dcgan" not in err
    warned = [line for line in metrics(tmp_path / "run") if "warning" in line]
    assert [line["step"] for line in warned] == [6]
    code, _, err = train(tmp_path / "run", "--resume", "--steps", 12, tiny=[])
    assert code == 0, err
    assert "Mode collapse" not in err
    _, _, err = train(tmp_path / "tutorial", "--lr", "1e-9", "--preset", "dcgan-5x5", "--leave-out", 0)
    assert "What helps: --beta1 0.5, or --preset dcgan." in err


def test_monitor_compares_with_images_of_all_classes(dcgan, tmp_path):
    """300 black images, then 300 white ones: the first 256 alone would have no spread to compare with."""
    for label, gray in enumerate((0, 255)):
        (tmp_path / "set" / str(label)).mkdir(parents=True)
        for i in range(300):
            write_image(tmp_path / "set" / str(label) / f"{i}.png", np.full((16, 16, 1), gray, np.uint8))
    code, _, err = dcgan("train", "--data", tmp_path / "set", "--out", tmp_path / "run", *TINY, "--lr", "1e-9")
    assert code == 0, err
    assert all(line["diversity"] < 0.1 for line in metrics(tmp_path / "run") if "diversity" in line)


@pytest.mark.slow
def test_few_classes_are_warned_of_where_a_classifier_is_cached(train, tmp_path, monkeypatch):
    class OnlyOnes:
        def predict(self, images):
            return torch.ones(len(images), dtype=torch.long), torch.ones(len(images))

    monkeypatch.setattr("ganvas.training.monitors.WARM_UP", 0)
    monkeypatch.setattr("dcgan.trainer.find_cached", lambda data: OnlyOnes())
    code, _, err = train(tmp_path / "run")
    assert code == 0
    assert err.count("Mode collapse") == 1
    assert "10% as many kinds" in err
    entropies = [line["label_entropy"] for line in metrics(tmp_path / "run") if "diversity" in line]
    assert entropies == [0, 0]
    assert train(tmp_path / "conditional", "--conditional")[0] == 0
    assert not any("label_entropy" in line for line in metrics(tmp_path / "conditional"))


def test_resuming_cannot_change_the_preset(train, dcgan, tmp_path):
    assert train(tmp_path / "run")[0] == 0
    code, _, err = dcgan("train", "--out", tmp_path / "run", "--resume", "--preset", "mlp")
    assert code == 2
    assert "--preset (was 'dcgan', now 'mlp')" in err


@pytest.mark.parametrize("change", ["class", "size"])
@pytest.mark.slow
def test_other_classes_or_sizes_are_refused_on_resuming(dcgan, folder_writer, tmp_path, change):
    tiles, run = folder_writer(tmp_path / "tiles", classes=3, each=4, size=16), tmp_path / "run"
    options = ["--base-channels", "4", "--batch-size", "4", "--threads", "1", "--conditional"]
    code, _, err = dcgan("train", "--data", tiles, "--out", run, *options, "--steps", 1)
    assert code == 0, err
    if change == "class":
        (tiles / "class-1").rename(tiles / "other")
        message = "classes: missing: class-1, new: other"
    else:
        for path in tiles.rglob("*.png"):
            write_image(path, np.zeros((32, 32, 3), np.uint8))
        message = "train: 12 images of 16 x 16 pixels and 3 channels then, 12 images of 32 x 32 pixels"
    before = (run / "data.json").read_bytes()
    code, _, err = dcgan("train", "--out", run, "--resume", "--steps", 2)
    assert (code, message in err) == (2, True), err
    assert (run / "data.json").read_bytes() == before


@pytest.mark.slow
def test_data_of_a_relative_folder_is_found_from_other_folders(dcgan, folder_writer, tmp_path, monkeypatch):
    folder_writer(tmp_path / "tiles", classes=3, size=16)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path)
    line = ["train", "--data", "tiles", "--out", tmp_path / "run", *TINY[:-4], "--save-every-steps", "1"]
    assert dcgan(*line, "--steps", 1)[0] == 0
    monkeypatch.chdir(tmp_path / "elsewhere")
    code, _, err = dcgan("train", "--out", tmp_path / "run", "--resume", "--steps", 2)
    assert code == 0, err
    assert load_sampler(tmp_path / "run").config.data == "tiles"
