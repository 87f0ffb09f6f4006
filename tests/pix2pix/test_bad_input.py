"""Invalid input of pix2pix ends with exit code 2 and one message that names the problem, and loses nothing."""

import json
import shutil
import struct
import subprocess
import sys
import zlib

import numpy as np
import pytest
from PIL import Image

from ganvas.files import sha256
from ganvas.training import checkpoint as checkpoints


def refused(result, *messages):
    """Check the exit code, and that there is one message without a traceback."""
    code, _, err = result
    assert code == 2, err
    assert "Traceback" not in err
    assert err.count("error:") == 1, err
    for message in messages:
        assert message in err, err


def no_run(out):
    """Check that a refused training left nothing, not even an empty folder."""
    assert not out.exists()


class TestData:
    def test_missing_folder(self, train, tmp_path):
        refused(
            train(tmp_path / "run", data=tmp_path / "nowhere"),
            "nowhere",
            "no such folder",
            "Give --data",
        )
        no_run(tmp_path / "run")

    def test_no_data_option(self, pix2pix, tmp_path):
        refused(pix2pix("train", "--out", tmp_path / "run"), "--data is missing")

    def test_empty_folder(self, train, tmp_path):
        (tmp_path / "data").mkdir()
        refused(train(tmp_path / "run", data=tmp_path / "data"), "no split 'train'", "trainA")

    def test_split_without_images(self, train, tmp_path):
        (tmp_path / "data" / "train").mkdir(parents=True)
        refused(train(tmp_path / "run", data=tmp_path / "data"), "train", "holds no images")

    def test_a_description_that_no_file_can_repeat(self, train, own_pairs, tmp_path):
        """Else the first save would fail, after hours."""
        (own_pairs / "dataset.json").write_text('{"domains": {"a": "\\ud800", "b": "B"}}')
        refused(train(tmp_path / "run", data=own_pairs), "dataset.json: is not valid JSON", "half a character")
        no_run(tmp_path / "run")

    def test_a_description_with_a_word_for_a_switch(self, train, own_pairs, tmp_path):
        (own_pairs / "dataset.json").write_text('{"flip": "no way"}')
        refused(train(tmp_path / "run", data=own_pairs), "dataset.json: flip is 'no way'")
        no_run(tmp_path / "run")

    def test_pair_with_one_half(self, train, tmp_path):
        for side, names in (("trainA", "abcd"), ("trainB", "abe")):
            (tmp_path / "data" / side).mkdir(parents=True)
            for name in names:
                Image.new("RGB", (32, 32)).save(tmp_path / "data" / side / f"{name}.png")
        refused(train(tmp_path / "run", data=tmp_path / "data"), "without a partner", "trainA: c, d", "trainB: e")

    def test_one_domain_missing(self, train, tmp_path):
        (tmp_path / "data" / "trainA").mkdir(parents=True)
        refused(train(tmp_path / "run", data=tmp_path / "data"), "trainB", "there is no such folder")

    def test_empty_val_split_is_named(self, train, own_pairs, tmp_path):
        for image in (own_pairs / "val").iterdir():
            image.unlink()
        result = train(tmp_path / "run", data=own_pairs)
        refused(result, "val: holds no images", "split val is held out for samples and validation")

    def test_halves_of_different_size(self, train, tmp_path):
        for side, size in (("trainA", (32, 32)), ("trainB", (32, 30))):
            (tmp_path / "data" / side).mkdir(parents=True)
            Image.new("RGB", size).save(tmp_path / "data" / side / "x.png")
        refused(train(tmp_path / "run", data=tmp_path / "data"), "x.png", "32x32 and 32x30")

    def test_truncated_jpeg(self, train, own_pairs, tmp_path):
        png, jpeg = (own_pairs / "train" / name for name in ("0.png", "0.jpg"))
        Image.open(png).save(jpeg)
        png.unlink()
        jpeg.write_bytes(jpeg.read_bytes()[:-400])
        refused(train(tmp_path / "run", data=own_pairs), "0.jpg", "cannot be decoded")

    @pytest.mark.slow
    def test_truncated_file_in_a_worker_process(self, train, own_pairs, tmp_path):
        path = own_pairs / "train" / "0.png"
        path.write_bytes(path.read_bytes()[:200])
        refused(train(tmp_path / "run", "--workers", 1, data=own_pairs), "0.png")

    def test_text_file_named_png(self, train, own_pairs, tmp_path):
        (own_pairs / "train" / "0.png").write_text("not an image")
        refused(train(tmp_path / "run", data=own_pairs), "0.png", "is not a readable image")

    def test_image_of_one_pixel(self, train, own_pairs, tmp_path):
        Image.new("RGB", (1, 1)).save(own_pairs / "train" / "0.png")
        refused(train(tmp_path / "run", data=own_pairs), "0.png", "1 pixels wide")

    def test_decompression_bomb(self, train, own_pairs, tmp_path):
        def chunk(kind, content):
            return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

        header = struct.pack(">IIBBBBB", 60000, 60000, 8, 2, 0, 0, 0)
        (own_pairs / "train" / "0.png").write_bytes(
            b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")
        )
        refused(train(tmp_path / "run", data=own_pairs), "0.png", "too many pixels")

    def test_wrong_number_of_channels(self, train, tmp_path):
        refused(train(tmp_path / "run", "--source-channels", 4, "--target-channels", 4), "3 channels, 4 are expected")

    def test_images_smaller_than_the_crop(self, train, tmp_path):
        result = train(tmp_path / "run", "--load-size", 0, "--image-size", 64)
        refused(result, "smaller than the 64", "--image-size")


class TestOptions:
    @pytest.mark.parametrize(
        ("options", "message"),
        [
            (["--lr", "-1"], "lr is -1.0"),
            (["--lr", "nan"], "lr is nan"),
            (["--batch-size", "0"], "--batch-size is 0"),
            (["--beta1", "1"], "beta1 is 1.0"),
            (["--image-size", "4"], "--image-size is 4"),
            (["--gan-loss", "wgangp"], "--discriminator-norm"),
            (["--lambda-gan", "0", "--lambda-l1", "0"], "nothing to train with"),
            (["--patch-layers", "4"], "--image-size 32 is too small"),
            (["--load-size", "16"], "--load-size 16 is smaller"),
            (["--decay-steps", "7"], "--decay-steps 7 is more than --steps 6"),
            (["--steps", "None", "--decay-steps", "7"], "--decay-steps 7 belongs to --steps"),
            (["--lambda-gp", "5"], "lambda_gp 5: --gan-loss vanilla has no gradient penalty"),
            (["--r1", "1"], "--r1 1 with --discriminator-norm batch"),
            (["--r2", "1", "--discriminator-norm", "spectral"], "r2 1 with --discriminator-norm spectral"),
            (["--r1", "1", "--gan-loss", "wgangp", "--discriminator-norm", "none"], "--r1 1 with --gan-loss wgangp"),
            (["--penalty-every", "4"], "penalty_every 4: there is no penalty"),
            (["--r1", "1", "--lambda-gan", "0", "--discriminator-norm", "none"], "--r1 1.0 with --lambda-gan 0"),
            (["--diff-augment", "color", "--lambda-gan", "0"], "--diff-augment color with --lambda-gan 0"),
            (["--lambda-features", "1", "--lambda-gan", "0"], "lambda_features 1.0 with --lambda-gan 0"),
            (["--discriminator-scales", "2", "--lambda-gan", "0"], "discriminator_scales 2 with --lambda-gan 0"),
            (["--gan-loss", "hinge", "--lambda-gan", "0"], "--gan-loss hinge with --lambda-gan 0"),
            (["--gan-loss", "wgangp", "--discriminator-norm", "spectral"], "both bound the gradient"),
            (["--lambda-l1-end", "200"], "lambda_l1_end 200 is more than --lambda-l1 100"),
            (["--generator", "resunet", "--dropout", "0.1"], "dropout 0.1 with --generator resunet"),
            (
                ["--discriminator-scales", "4", "--patch-layers", "1"],
                "--patch-layers 1 at 4 scales, which needs 48 pixels",
            ),
            (["--save-best-by", "l1"], "--save-best-by l1: l1 and psnr alone keep the most blurred model. Add"),
            (["--save-best-by", "l1,ssmi"], "--save-best-by: there is no metric 'ssmi'. Did you mean ssim?"),
            (["--save-best-by", "swd,ms-ssim"], "val: is 32x32 pixels; ms-ssim needs 176 pixels a side"),
            (["--save-best-by", "fid", "--feature-weights", "no.pt"], "no.pt: there is no such file"),
            (["--feature-weights", "no.pt"], "no.pt: none of --save-best-by l1,swd needs it. Add fid or kid"),
        ],
    )
    def test_bad_values(self, train, tmp_path, options, message):
        refused(train(tmp_path / "run", *options), message)
        no_run(tmp_path / "run")

    def test_plateau_without_validation(self, train, own_pairs, tmp_path):
        shutil.rmtree(own_pairs / "val")
        result = train(tmp_path / "run", "--schedule", "plateau", data=own_pairs)
        refused(result, "has no val split (it has: train, test)", "Choose another schedule")
        no_run(tmp_path / "run")

    def test_best_model_without_validation(self, train, own_pairs, tmp_path):
        shutil.rmtree(own_pairs / "val")
        result = train(tmp_path / "run", "--save-best-by", "swd,ssim", data=own_pairs)
        refused(result, "--save-best-by swd,ssim follows the validations", "has no val split (it has: train, test)")
        no_run(tmp_path / "run")

    def test_no_length(self, pix2pix, pairs, tmp_path):
        result = pix2pix("train", "--data", pairs, "--out", tmp_path / "run", "--epochs", 0, "--decay-epochs", 0)
        refused(result, "nothing to do")

    def test_unknown_option(self, train, tmp_path):
        code, _, err = train(tmp_path / "run", "--learning-rate", "1")
        assert code == 2
        assert "--learning-rate" in err

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            (lambda c: c["optimizer"].update(lr=-1), "lr is -1"),
            (lambda c: c["optimizer"].update(learning_rate=1), "learning_rate: there is no such option"),
            (lambda c: c.update(colour="red"), "colour: there is no such option"),
            (lambda c: c["data"].update(image_size="big"), "image_size is 'big'"),
            (lambda c: c.update(format_version=99), "format version 99"),
        ],
    )
    def test_bad_config(self, pix2pix, trained, tmp_path, change, message):
        config = json.loads((trained / "config.json").read_text())
        change(config)
        (tmp_path / "config.json").write_text(json.dumps(config))
        result = pix2pix("train", "--config", tmp_path / "config.json", "--out", tmp_path / "run")
        refused(result, "config.json", message)
        no_run(tmp_path / "run")

    @pytest.mark.parametrize(
        ("content", "message"), [("{", "is not valid JSON"), ("[]", "not a JSON object"), (None, "no such file")]
    )
    def test_no_config(self, pix2pix, tmp_path, content, message):
        if content is not None:
            (tmp_path / "config.json").write_text(content)
        refused(
            pix2pix("train", "--config", tmp_path / "config.json", "--out", tmp_path / "run"), "config.json", message
        )


@pytest.fixture
def run_copy(trained, tmp_path):
    """A finished run with one checkpoint, that a test may change."""
    run = tmp_path / "copy"
    shutil.copytree(trained, run)
    oldest = sorted((run / "checkpoints").iterdir())[:-1]
    for folder in oldest:
        shutil.rmtree(folder)
    return run


def only_checkpoint(run):
    (folder,) = (run / "checkpoints").iterdir()
    return folder


def flip(file):
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(bytes(content))


def contents(run):
    """Return all files but those of the lock."""
    files = (path for path in run.rglob("*") if path.is_file() and not path.name.startswith(".training"))
    return {path.relative_to(run): path.read_bytes() for path in files}


class TestOtherRuns:
    @pytest.mark.slow
    def test_second_training_in_the_folder_is_refused(self, pix2pix, run_copy):
        before = contents(run_copy)
        code = (
            "import sys; from pathlib import Path; from lightning_fabric import Fabric\n"
            "from ganvas.training.lock import locked_run\n"
            "with locked_run(Path(sys.argv[1]), Fabric(accelerator='cpu', devices=1)):\n"
            "    print('held', flush=True); sys.stdin.read()"
        )
        holder = subprocess.Popen(
            [sys.executable, "-c", code, str(run_copy)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        with holder:
            assert holder.stdout.readline() == "held\n"
            resume = ("train", "--out", run_copy, "--resume", "--steps", 8)
            refused(pix2pix(*resume), "another training writes there", f"process {holder.pid} on", "--out another")
            assert contents(run_copy) == before
            holder.kill()  # which leaves no stale lock
        code, _, err = pix2pix(*resume)
        assert code == 0, err


class TestResume:
    def resume(self, pix2pix, run):
        return pix2pix("train", "--out", run, "--resume", "--steps", 8)

    def test_nothing_to_resume(self, pix2pix, tmp_path):
        refused(self.resume(pix2pix, tmp_path / "run"), "config.json: there is no such file")

    def test_model_without_checkpoints(self, pix2pix, run_copy):
        shutil.rmtree(run_copy / "checkpoints")
        before = contents(run_copy)
        refused(self.resume(pix2pix, run_copy), "has a model, but no checkpoint to resume from", "--out")
        assert contents(run_copy) == before

    @pytest.mark.slow
    def test_run_without_checkpoints_starts_again(self, pix2pix, run_copy):
        for name in ("checkpoints", "model", "samples"):
            shutil.rmtree(run_copy / name)
        code, _, err = self.resume(pix2pix, run_copy)
        assert code == 0, err
        assert "has no checkpoint yet; training starts from its first step" in err
        assert (run_copy / "checkpoints" / "step-00000008").is_dir()

    @pytest.mark.parametrize("name", ["G.safetensors", "D.adam.safetensors", "checkpoint.json"])
    def test_flipped_byte(self, pix2pix, run_copy, name):
        flip(only_checkpoint(run_copy) / name)
        refused(self.resume(pix2pix, run_copy), name)

    def test_missing_file(self, pix2pix, run_copy):
        (only_checkpoint(run_copy) / "G.adam.safetensors").unlink()
        refused(self.resume(pix2pix, run_copy), "G.adam.safetensors", "is missing")

    def test_another_architecture(self, pix2pix, run_copy):
        config = json.loads((run_copy / "config.json").read_text())
        config["model"]["base_channels"] = 8
        (run_copy / "config.json").write_text(json.dumps(config))
        refused(self.resume(pix2pix, run_copy), "another architecture", "down.0")

    def test_newer_format(self, pix2pix, run_copy):
        file = only_checkpoint(run_copy) / "checkpoint.json"
        info = json.loads(file.read_text())
        file.write_text(json.dumps(info | {"format_version": 99}))
        refused(self.resume(pix2pix, run_copy), "format version 99", "Install the newer")


def test_diverging_training_stops_and_keeps_finite_checkpoints(train, pix2pix, tmp_path):
    run = tmp_path / "run"
    refused(train(run, "--lr", 1e30, "--precision", "fp32", "--gan-loss", "lsgan"), "non-finite", "--lr")
    for folder in (run / "checkpoints").glob("step-*"):
        for values in checkpoints.load_checkpoint(folder).tensors["G"].values():
            assert np.isfinite(values.float().numpy()).all()


class TestModel:
    def test_missing_model(self, pix2pix, pairs, tmp_path):
        result = pix2pix("translate", tmp_path / "nothing", pairs / "test", tmp_path / "out")
        refused(result, "nothing", "no such folder")
        assert not (tmp_path / "out").exists()

    def test_folder_without_a_model(self, pix2pix, pairs, tmp_path):
        refused(pix2pix("translate", pairs, pairs / "test", tmp_path / "out"), "holds no model")

    def test_flipped_byte(self, pix2pix, pairs, run_copy, tmp_path):
        flip(run_copy / "model" / "model.safetensors")
        refused(pix2pix("translate", run_copy, pairs / "test", tmp_path / "out"), "model.safetensors", "damaged")

    def test_unknown_key(self, pix2pix, pairs, run_copy, tmp_path):
        file = run_copy / "model" / "config.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | {"colour": "red"}))
        refused(pix2pix("translate", run_copy, pairs / "test", tmp_path / "out"), "colour", "no such option")

    def test_unfit_arguments(self, pix2pix, pairs, run_copy, tmp_path):
        file = run_copy / "model" / "config.json"
        config = json.loads(file.read_text())
        config["networks"]["a2b"]["arguments"]["wings"] = 2
        file.write_text(json.dumps(config))
        refused(pix2pix("translate", run_copy, pairs / "test", tmp_path / "out"), "wings")

    def test_bad_image_among_good_ones(self, pix2pix, trained, tmp_path):
        (tmp_path / "in").mkdir()
        for name in ("a", "c"):
            Image.new("RGB", (32, 32), "white").save(tmp_path / "in" / f"{name}.png")
        (tmp_path / "in" / "b.png").write_text("no image")
        refused(pix2pix("translate", trained, tmp_path / "in", tmp_path / "out"), "1 of 3 images failed", "b.png")
        assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["a.png", "c.png"]

    def test_output_is_the_input(self, pix2pix, trained, own_pairs):
        before = sha256(own_pairs / "test" / "0.png")
        refused(pix2pix("translate", trained, own_pairs / "test", own_pairs / "test"), "is the input folder")
        assert sha256(own_pairs / "test" / "0.png") == before
