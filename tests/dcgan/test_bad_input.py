"""Invalid input of dcgan ends with exit code 2 and one message that names the problem, and loses nothing."""

import numpy as np
import pytest

from ganvas.data.encode import write_image


def refused(result, *messages):
    """Check the exit code, and that there is one message without a traceback."""
    code, _, err = result
    assert code == 2, err
    assert "Traceback" not in err
    assert err.count("error:") == 1, err
    for message in messages:
        assert message in err, err


@pytest.fixture
def own_digits(idx_writer, tmp_path):
    """A small "mnist" that a test may damage; the file of its training images."""
    write, draw = idx_writer
    write(tmp_path / "data" / "mnist", *draw(40), "train", zipped=False)
    write(tmp_path / "data" / "mnist", *draw(20), "t10k", zipped=False)
    folder = tmp_path / "data" / "mnist"
    return tmp_path / "data", folder / "train-images-idx3-ubyte"


class TestData:
    def train(self, dcgan, tmp_path, *arguments):
        result = dcgan("train", "--out", tmp_path / "run", "--steps", 2, "--threads", 1, *arguments)
        assert not (tmp_path / "run").exists()
        return result

    def test_no_data_option(self, dcgan, tmp_path):
        refused(self.train(dcgan, tmp_path), "--data is missing", "mnist5k")

    def test_plateau_without_validation(self, dcgan, tmp_path):
        result = self.train(dcgan, tmp_path, "--data", "mnist5k", "--preset", "mlp", "--schedule", "plateau")
        refused(result, "--schedule plateau: --preset mlp")

    def test_unknown_dataset(self, dcgan, tmp_path):
        refused(self.train(dcgan, tmp_path, "--data", "mnits"), "mnits", "Did you mean mnist?")

    def test_truncated_file(self, dcgan, tmp_path, own_digits):
        root, images = own_digits
        images.write_bytes(images.read_bytes()[:-100])
        refused(self.train(dcgan, tmp_path, "--data", "mnist", "--data-root", root), f"{images}: is cut short")

    def test_unsupported_size(self, dcgan, tmp_path, folder_writer):
        folder = folder_writer(tmp_path / "set", size=20)
        result = self.train(dcgan, tmp_path, "--data", folder)
        refused(result, "image_size is 20", "28, 16, 32, 64 and 128", "Give one of these as --image-size")

    @pytest.mark.parametrize(
        ("channels", "advice"),
        [
            (3, "Use --image-size 28 --channels 1 to make them so, or --preset dcgan"),
            (5, "Use --preset dcgan"),
        ],
    )
    @pytest.mark.slow
    @pytest.mark.essential
    def test_unsupported_images_of_a_preset(self, dcgan, tmp_path, channels, advice):
        for name in ("a.tif", "b.tif"):
            write_image(tmp_path / "set" / name, np.zeros((16, 16, channels), np.uint8))
        line = ["--data", tmp_path / "set", "--preset", "dcgan-upsample"]
        refused(self.train(dcgan, tmp_path, *line), f"not 16 x 16 with {channels}", advice)
        if channels == 3:
            code, _, err = dcgan("train", *line, "--out", tmp_path / "run", "--steps", 1, *advice.split()[1:5])
            assert code == 0, err

    def test_single_image(self, dcgan, tmp_path, folder_writer):
        folder = folder_writer(tmp_path / "set", classes=1, each=1)
        refused(
            self.train(dcgan, tmp_path, "--data", folder),
            f"{folder}: leaves 1 image to learn from, and 2 is the minimum",
        )

    def test_missing_labels(self, dcgan, tmp_path, folder_writer):
        folder = folder_writer(tmp_path / "set", classes=1)
        refused(
            self.train(dcgan, tmp_path, "--data", folder / "class-0", "--conditional"),
            "has no labels",
            "a folder of its own",
        )


class TestOptions:
    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ("--preset mlp --conditional", "never takes labels"),
            ("--preset mlp --base-channels 8", "as its tutorial has it"),
            ("--preset dcgan-5x5 --leave-out 0 --base-channels 6", "multiple of 4"),
            ("--extra-layers 1", "belongs to --preset dcgan-5x5"),
            ("--gan-loss hinge --label-smoothing 0.1", "no labels to smooth"),
            ("--preset dcgan-5x5", "--leave-out 5000: mnist has 200 images"),
            ("--preset dcgan-transpose --image-size 32", "28 x 28 gray"),
            ("--preset mlp --batch-size 1", "--batch-size 1: batch norm of dense layers"),
            ("--preset conditional --batch-size 1", "Give 2 or more, or --norm none"),
            ("--channels 2", "--channels 2: mnist is gray"),
            ("--leave-out 199", "leaves 1 image"),
            ("--label-smoothing 1", "--label-smoothing is 1"),
            ("--image-size 15", "--image-size is 15"),
            ("--channels 0", "--channels is 0"),
        ],
    )
    def test_bad_combinations(self, train, tmp_path, options, message):
        refused(train(tmp_path / "run", *options.split(), tiny=["--steps", "2", "--threads", "1"]), message)


class TestModels:
    @pytest.mark.parametrize("seed", [-1, 2**63, 10**30])
    def test_bad_seed(self, dcgan, trained, tmp_path, seed):
        for command in (["sample", trained, tmp_path / "x.png"], ["evaluate", trained]):
            refused(dcgan(*command, "--seed", seed), f"--seed {seed}: give 0 to 2^63 - 1")

    def test_no_model(self, dcgan, tmp_path):
        for command in (["sample", tmp_path / "none", tmp_path / "x.png"], ["evaluate", tmp_path / "none"]):
            refused(dcgan(*command), "none", "no such folder")

    def test_damaged_model(self, dcgan, trained, tmp_path):
        folder = tmp_path / "model"
        folder.mkdir()
        for name in ("config.json", "model.safetensors"):
            (folder / name).write_bytes((trained / "model" / name).read_bytes())
        weights = bytearray((folder / "model.safetensors").read_bytes())
        weights[-1] ^= 1
        (folder / "model.safetensors").write_bytes(weights)
        refused(dcgan("sample", folder, tmp_path / "x.png"), "model.safetensors", "is damaged")
