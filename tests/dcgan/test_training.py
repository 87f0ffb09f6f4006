"""Training through the real command line: what a run leaves, exact repeats, resume, every preset and option."""

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
from ganvas.files import sha256
from ganvas.models.tensors import load_tensors
from ganvas.training.config import HardwareConfig
from ganvas.training.fabric import make_fabric

TINY = ["--base-channels", "4", "--batch-size", "8", "--threads", "1", "--steps", "6", "--sample-every-steps", "3"]


def model_digest(run):
    return sha256(run / "model" / "model.safetensors")


def metrics(run):
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def test_what_a_run_leaves(trained):
    steps = [line for line in metrics(trained) if "loss_d" in line]
    assert [line["step"] for line in steps] == [2, 4, 6]
    assert {"loss_d", "loss_g_gan", "accuracy_real", "accuracy_fake", "lr", "images_per_second"} <= set(steps[0])
    assert [line["step"] for line in metrics(trained) if "diversity" in line] == [3, 6]
    assert [line["step"] for line in metrics(trained) if "val_frechet" in line] == [2, 4, 6]
    assert [path.name for path in sorted((trained / "samples").iterdir())] == ["step-00000003.png", "step-00000006.png"]
    names = {path.name for path in (trained / "checkpoints" / "step-00000006").iterdir()}
    assert names == {f"{n}.safetensors" for n in ("G", "D", "G.adam", "D.adam", "G_ema")} | {"checkpoint.json"}
    assert not [path for path in trained.rglob("*") if path.suffix in (".pkl", ".pt", ".pth")]


def test_the_model_says_what_it_is(trained):
    config = load_sampler(trained).config
    assert (config.preset, config.image_size, config.channels, config.num_classes) == ("dcgan", 28, 1, 0)
    assert config.classes == tuple("0123456789")
    assert len(config.data_digest) == 64
    assert config.training["step"] in (2, 4, 6)
    assert "dcgan sample" in (trained / "model" / "README.md").read_text()


def test_samples_show_the_same_noise_in_a_grid(trained):
    first, last = (read_image(path) for path in sorted((trained / "samples").iterdir()))
    assert (
        first.shape == last.shape == (2 * (8 * 29 - 1), 2 * (10 * 29 - 1), 3)
    )  # eight rows, ten columns, twice as large
    assert first.std() > 1


@pytest.mark.slow
@pytest.mark.essential
def test_the_same_seed_gives_the_same_bytes_and_another_does_not(train, trained, tmp_path):
    assert train(tmp_path / "same")[0] == 0
    assert model_digest(tmp_path / "same") == model_digest(trained)
    assert train(tmp_path / "other", "--seed", 1)[0] == 0
    assert model_digest(tmp_path / "other") != model_digest(trained)


@pytest.mark.slow
def test_worker_processes_and_logging_change_nothing(train, tmp_path):
    for name, options in (("one", []), ("two", ["--workers", 2, "--sample-every-steps", 1, "--log-every-steps", 1])):
        assert train(tmp_path / name, *options)[0] == 0
    one, two = (tmp_path / name / "checkpoints" / "step-00000006" / "G.safetensors" for name in ("one", "two"))
    assert sha256(one) == sha256(two)


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.slow
@pytest.mark.essential
def test_each_preset_trains_as_its_document_says(train, tmp_path, preset):
    tiny = ["--batch-size", "8", "--threads", "1", "--steps", "3", "--save-every-steps", "3"]
    code, _, err = train(tmp_path / "run", "--preset", preset, "--leave-out", 0, tiny=tiny)
    assert code == 0, err
    sampler = load_sampler(tmp_path / "run")
    assert sampler.config.preset == preset
    assert sampler.sample(5, seed=0).shape == (5, 1, 28, 28)
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    documents = preset != "dcgan"
    assert (config["optimizer"]["ema"] == 0) == documents
    assert (config["hardware"]["precision"] == "fp32") == documents
    assert (config["data"]["pixel_range"] == "unit") == (preset == "dcgan-5x5")


@pytest.mark.slow
def test_a_tutorials_system_is_shared_as_its_training_ends(train, tmp_path):
    """What pixels alone call the best step of a run that swings may be one of a single class."""
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
def test_each_option_trains(train, tmp_path, options):
    tiny = ["--batch-size", "8", "--threads", "1", "--steps", "2", "--save-every-steps", "2"]
    if "dcgan-5x5" not in options and "mlp" not in options:
        tiny += ["--base-channels", "4"]
    code, _, err = train(tmp_path / "run", *options.split(), tiny=tiny)
    assert code == 0, err
    weights = load_tensors(tmp_path / "run" / "model" / "model.safetensors")
    assert all(torch.isfinite(value).all() for value in weights.values())


def test_a_folder_of_color_pictures_trains(dcgan, folder_writer, tmp_path):
    folder = folder_writer(tmp_path / "tiles", classes=3, size=16)
    tiny = ["--base-channels", "4", "--batch-size", "8", "--threads", "1", "--steps", "4", "--conditional"]
    code, _, err = dcgan("train", "--data", folder, "--out", tmp_path / "run", *tiny)
    assert code == 0, err
    config = load_sampler(tmp_path / "run").config
    assert (config.channels, config.image_size, config.classes) == (3, 16, ("class-0", "class-1", "class-2"))


@pytest.mark.slow
def test_a_relative_folder_is_found_from_every_other(dcgan, folder_writer, tmp_path, monkeypatch):
    folder_writer(tmp_path / "tiles", classes=3, size=16)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path)
    line = ["train", "--data", "tiles", "--out", tmp_path / "run", *TINY[:-4], "--save-every-steps", "1"]
    assert dcgan(*line, "--steps", 1)[0] == 0
    code, _, err = dcgan(*line, "--steps", 2, "--resume")  # the line of the run, with --resume at its end
    assert code == 0, err
    monkeypatch.chdir(tmp_path / "elsewhere")
    code, _, err = dcgan("train", "--out", tmp_path / "run", "--resume", "--steps", 3)
    assert code == 0, err
    assert load_sampler(tmp_path / "run").config.data == "tiles"
    assert str(tmp_path) not in (tmp_path / "run" / "model" / "README.md").read_text()


@pytest.mark.parametrize("K", [1, 3, 7, 10, 11, 100])
def test_samples_have_a_class_in_each_column_as_long_as_there_are_columns(tmp_path, monkeypatch, K):
    asked = []
    monkeypatch.setattr(
        "dcgan.trainer.Sampler.draw", lambda self, z, labels: asked.append(labels) or torch.zeros(80, 1, 16, 16).byte()
    )
    config = DcganConfig()
    config = replace(config, model=replace(config.model, conditional=True, base_channels=4))
    data = ImageSet(torch.zeros(200, 1, 16, 16).byte(), torch.arange(200) % K, tuple(map(str, range(K))), "own", "")
    build_training(config, data, tmp_path, make_fabric(HardwareConfig(device="cpu"))).trainer.sample()
    sheet = asked[0].view(8, 10)
    if K <= 10:
        assert sheet[0].tolist() == [column % K for column in range(10)]
        assert (sheet == sheet[0]).all()
    else:
        assert sheet.flatten().tolist() == [place % K for place in range(80)]


@pytest.mark.slow
def test_pictures_of_five_channels_train_and_are_drawn(dcgan, tmp_path):
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
def test_mnist5k_from_training_to_figures_with_the_network_away(dcgan, tmp_path, monkeypatch):
    """The judge is trained on the way, for a fortieth of its time and against a lower bar."""
    monkeypatch.setattr(socket.socket, "connect", lambda *_: pytest.fail("the network was asked"))
    monkeypatch.setenv("GANVAS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(classifier, "SEEN", classifier.SEEN // 40)
    monkeypatch.setitem(classifier.BARS, "mnist5k", 0.9)
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
def test_the_preset_that_leaves_out_5000_learns_from_all_of_mnist5k(dcgan, tmp_path):
    tiny = ["--batch-size", "8", "--threads", "1", "--steps", "2"]
    code, _, err = dcgan("train", "--data", "mnist5k", "--preset", "dcgan-5x5", "--out", tmp_path / "run", *tiny)
    assert code == 0, err
    assert "4000 images of mnist5k" in err


@pytest.mark.slow
def test_a_generator_that_draws_one_picture_is_warned_of(train, tmp_path):
    """Rates this small teach nothing: the first images stay, and they are alike."""
    code, _, err = train(tmp_path / "run", "--lr", "1e-9", "--ema", "0")
    assert code == 0
    assert err.count("Mode collapse") == 1
    assert "--label-smoothing 0.1" in err and "--beta1" not in err and "--preset dcgan" not in err
    warned = [line for line in metrics(tmp_path / "run") if "warning" in line]
    assert [line["step"] for line in warned] == [6]
    code, _, err = train(tmp_path / "run", "--resume", "--steps", 12, tiny=[])
    assert code == 0, err
    assert "Mode collapse" not in err  # it is still the one that was told of
    _, _, err = train(tmp_path / "tutorial", "--lr", "1e-9", "--preset", "dcgan-5x5", "--leave-out", 0)
    assert "What helps: --beta1 0.5, or --preset dcgan." in err


def test_the_watch_compares_with_all_kinds_of_pictures_though_they_come_sorted(dcgan, tmp_path):
    """300 black images, then 300 white ones: the first 256 alone would have no spread to compare with."""
    for label, gray in enumerate((0, 255)):
        (tmp_path / "set" / str(label)).mkdir(parents=True)
        for i in range(300):
            write_image(tmp_path / "set" / str(label) / f"{i}.png", np.full((16, 16, 1), gray, np.uint8))
    code, _, err = dcgan("train", "--data", tmp_path / "set", "--out", tmp_path / "run", *TINY, "--lr", "1e-9")
    assert code == 0, err
    assert all(line["diversity"] < 0.1 for line in metrics(tmp_path / "run") if "diversity" in line)


@pytest.mark.slow
def test_where_a_classifier_is_at_hand_few_classes_are_recorded_and_warned_of(train, tmp_path, monkeypatch):
    class OnlyOnes:
        def predict(self, images):
            return torch.ones(len(images), dtype=torch.long), torch.ones(len(images))

    monkeypatch.setattr("dcgan.trainer.find_cached", lambda data: OnlyOnes())
    code, _, err = train(tmp_path / "run")
    assert code == 0
    assert err.count("Mode collapse") == 1
    assert "10% as many kinds" in err
    seen = [line["label_entropy"] for line in metrics(tmp_path / "run") if "diversity" in line]
    assert seen == [0, 0]
    assert train(tmp_path / "conditional", "--conditional")[0] == 0  # it draws what it is asked for
    assert not any("label_entropy" in line for line in metrics(tmp_path / "conditional"))


LONG = ["--base-channels", "4", "--batch-size", "8", "--threads", "1", "--steps", "200", "--save-every-steps", "3"]
LONG += ["--log-every-steps", "1"]


@pytest.mark.parametrize("preset", ["dcgan", "conditional"])
@pytest.mark.slow
@pytest.mark.essential
def test_killed_at_random_instants_it_ends_with_the_same_bytes(dcgan, killed_and_resumed, digits, tmp_path, preset):
    options = LONG if preset == "dcgan" else [*LONG[2:], "--preset", preset]
    arguments, run = ["train", "--data", "mnist", "--data-root", digits, *options], tmp_path / "killed"
    code, _, err = dcgan(*arguments, "--out", tmp_path / "unbroken")
    assert code == 0, err
    code, err = killed_and_resumed("dcgan", arguments, run, kills=2, longest=0.5)
    assert code == 0, err
    assert model_digest(run) == model_digest(tmp_path / "unbroken")
    clean = [(line["step"], line["loss_d"]) for line in metrics(tmp_path / "unbroken") if "loss_d" in line]
    assert [(line["step"], line["loss_d"]) for line in metrics(run) if "loss_d" in line] == clean


def test_a_resume_may_not_change_the_preset(train, dcgan, tmp_path):
    assert train(tmp_path / "run")[0] == 0
    code, _, err = dcgan("train", "--out", tmp_path / "run", "--resume", "--preset", "mlp")
    assert code == 2
    assert "--preset (was 'dcgan', now 'mlp')" in err


class TestDataOfAResumedRun:
    @pytest.fixture
    def run(self, dcgan, folder_writer, tmp_path):
        folder_writer(tmp_path / "tiles", classes=3, each=4, size=16)
        options = ["--base-channels", "4", "--batch-size", "4", "--threads", "1", "--steps", "1", "--conditional"]
        code, _, err = dcgan("train", "--data", tmp_path / "tiles", "--out", tmp_path / "run", *options)
        assert code == 0, err
        return tmp_path / "run"

    def resume(self, dcgan, run, steps, *options):
        code, _, err = dcgan("train", "--out", run, "--resume", "--steps", steps, *options)
        return code, err

    def test_the_same_data_is_not_mentioned(self, dcgan, run, tmp_path):
        code, err = self.resume(dcgan, run, 2)
        assert (code, "learned from" in err) == (0, False)

    @pytest.mark.slow
    def test_moved_data_may_be_named(self, dcgan, run, tmp_path):
        (tmp_path / "tiles").rename(tmp_path / "moved")
        assert self.resume(dcgan, run, 2)[0] == 2
        code, err = self.resume(dcgan, run, 2, "--data", tmp_path / "moved")
        assert (code, "learned from" in err) == (0, False)
        assert self.resume(dcgan, run, 3)[0] == 0

    def test_other_images_are_warned_of_once(self, dcgan, run, tmp_path):
        write_image(tmp_path / "tiles" / "class-1" / "0.png", np.zeros((16, 16, 3), np.uint8))
        code, err = self.resume(dcgan, run, 2)
        assert code == 0, err
        assert err.count("Warning:") == 1
        assert f"tiles: changed since {run} learned from it. train: other content." in err
        code, err = self.resume(dcgan, run, 3)
        assert (code, "Warning:" in err) == (0, False)

    def test_other_images_in_another_place_are_refused(self, dcgan, run, tmp_path):
        (tmp_path / "tiles").rename(tmp_path / "moved")
        write_image(tmp_path / "moved" / "class-1" / "0.png", np.zeros((16, 16, 3), np.uint8))
        code, err = self.resume(dcgan, run, 2, "--data", tmp_path / "moved")
        assert (code, "moved: is not the data that" in err, "train: other content" in err) == (2, True, True)

    @pytest.mark.parametrize("change", ["class", "image", "size"])
    @pytest.mark.slow
    def test_other_classes_and_numbers_are_refused(self, dcgan, run, tmp_path, change):
        tiles = tmp_path / "tiles"
        if change == "class":
            (tiles / "class-1").rename(tiles / "other")
            said = "classes: missing: class-1, new: other"
        elif change == "image":
            (tiles / "class-1" / "0.png").unlink()
            said = "then, 11 images of 16 x 16 pixels"
        else:
            for path in tiles.rglob("*.png"):
                write_image(path, np.zeros((32, 32, 3), np.uint8))
            said = "then, 12 images of 32 x 32 pixels"
        before = (run / "data.json").read_bytes()
        code, err = self.resume(dcgan, run, 2)
        assert code == 2
        assert ("train: 12 images of 16 x 16 pixels and 3 channels then" in err) == (change != "class")
        assert said in err
        assert (run / "data.json").read_bytes() == before
