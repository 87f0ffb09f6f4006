"""Where pairs come from: shards, the cache of decoded ones, and what happens to those that cannot be read."""

import json
import re
import shutil
import tempfile

import pytest
from PIL import Image

from data_scripts.__main__ import main as data_scripts
from ganvas.data import paired
from ganvas.data.pairs import find_pairs
from ganvas.data.sampling import epoch_order
from ganvas.files import sha256


def model_digest(run):
    return sha256(run / "model" / "model.safetensors")


def cut_back(run, step):
    """Make a run look as if it had been killed after a step."""
    for folder in (run / "checkpoints").iterdir():
        if folder.name > f"step-{step:08d}":
            shutil.rmtree(folder)


@pytest.fixture(scope="module")
def shards(pairs, tmp_path_factory):
    """The pairs in three training shards and one each for val and test."""
    root = tmp_path_factory.mktemp("shards") / "set"
    assert data_scripts(["shards", str(pairs), str(root), "--pairs-per-shard", "2"]) == 0
    return root


class TestShards:
    @pytest.mark.slow
    def test_training_on_shards_is_the_same_with_workers_and_after_a_resume(self, train, pix2pix, shards, tmp_path):
        code, _, err = train(tmp_path / "run", data=shards)
        assert code == 0, err
        assert "6 pairs" in err
        assert train(tmp_path / "workers", "--workers", 2, data=shards)[0] == 0
        shutil.copytree(tmp_path / "run", tmp_path / "killed")
        cut_back(tmp_path / "killed", 4)
        assert pix2pix("train", "--out", tmp_path / "killed", "--resume")[0] == 0
        digests = {model_digest(tmp_path / name) for name in ("run", "workers", "killed")}
        assert len(digests) == 1

    def test_scores_equal_those_of_files(self, pix2pix, trained, pairs, shards, tmp_path):
        shutil.copytree(trained, tmp_path / "run")  # an evaluation leaves its result in the run
        scores = []
        for data in (pairs, shards):
            code, out, err = pix2pix("evaluate", tmp_path / "run", "--data", data, "--json")
            assert code == 0, err
            scores.append({each["name"]: each["l1"] for each in json.loads(out)["per_picture"]})
        assert scores[0] == scores[1]
        assert len(scores[0]) == 3


class TestStore:
    def test_decode_cache_changes_nothing(self, train, trained, tmp_path):
        assert train(tmp_path / "run", "--cache-gb", 0)[0] == 0
        assert model_digest(tmp_path / "run") == model_digest(trained)

    def test_decode_cache_is_removed(self, train, tmp_path, monkeypatch):
        (tmp_path / "tmp").mkdir()
        monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))
        assert train(tmp_path / "run", "--steps", 2)[0] == 0
        assert train(tmp_path / "other", data=tmp_path / "nowhere")[0] == 2
        assert list((tmp_path / "tmp").iterdir()) == []


def damage(root, *numbers, split="train"):
    for number in numbers:
        (root / split / f"{number}.png").write_text("not a image")


def skipped(err):
    """Read the number at the end; None where nothing was skipped."""
    found = re.search(r"Skipped (\d+) images that could not be read", err)
    return found and int(found[1])


class TestOnError:
    @pytest.mark.slow
    def test_bad_image_is_skipped_reported_once_and_counted(self, train, own_pairs, tmp_path):
        damage(own_pairs, 3)
        code, _, err = train(tmp_path / "run", "--on-error", "skip", "--steps", 18, data=own_pairs)
        assert code == 0, err
        assert err.count("3.png: is not a readable image") == 1
        assert skipped(err) == 3  # three epochs of six pairs

    @pytest.mark.slow
    def test_skipping_changes_nothing_without_bad_images(self, train, trained, tmp_path):
        code, _, err = train(tmp_path / "run", "--on-error", "skip", "--workers", 1)
        assert code == 0, err
        assert skipped(err) is None
        assert model_digest(tmp_path / "run") == model_digest(trained)

    @pytest.mark.slow
    @pytest.mark.essential
    def test_resumed_run_skips_the_same_images(self, train, pix2pix, own_pairs, tmp_path):
        damage(own_pairs, 1, 4)
        arguments = ["--on-error", "skip", "--steps", 12]
        assert train(tmp_path / "whole", *arguments, data=own_pairs)[0] == 0
        code, _, err = train(tmp_path / "killed", *arguments, "--workers", 2, "--keep-checkpoints", 9, data=own_pairs)
        assert code == 0, err
        assert skipped(err) == 4
        cut_back(tmp_path / "killed", 6)
        code, _, err = pix2pix("train", "--out", tmp_path / "killed", "--resume")
        assert code == 0, err
        assert skipped(err) == 4
        assert model_digest(tmp_path / "killed") == model_digest(tmp_path / "whole")

    @pytest.mark.parametrize("workers", [0, 2])
    @pytest.mark.slow
    def test_run_stopped_by_a_bad_image_loses_no_step(self, train, pix2pix, trained, own_pairs, tmp_path, workers):
        """Of epoch 0, the image that comes fifth; no checkpoint would be due before step 100."""
        run, kept = tmp_path / "run", tmp_path / "kept.png"
        file = own_pairs / "train" / f"{epoch_order(6, 0, 0)[4]}.png"
        shutil.copyfile(file, kept)
        file.write_bytes(file.read_bytes()[:200])
        code, _, err = train(run, "--save-every-steps", 100, "--workers", workers, data=own_pairs)
        assert code == 2
        assert err.count("error:") == 1
        assert f"{file.name}: " in err
        assert f"Everything up to step 4 is saved. Continue with: pix2pix train --out {run} --resume" in err
        assert "--on-error skip" in err
        assert [folder.name for folder in (run / "checkpoints").iterdir()] == ["step-00000004"]
        shutil.copytree(run, tmp_path / "skipping")
        code, _, err = pix2pix("train", "--out", tmp_path / "skipping", "--resume", "--on-error", "skip")
        assert code == 0, err
        assert skipped(err) == 1
        shutil.copyfile(kept, file)
        code, _, err = pix2pix("train", "--out", run, "--resume", "--save-every-steps", 2)
        assert code == 0, err
        assert f"Warning: {own_pairs}: changed since" in err
        checkpoint = run / "checkpoints" / "step-00000006"
        for name in ("G", "D", "G.adam", "D.adam"):
            assert sha256(checkpoint / f"{name}.safetensors") == sha256(
                trained / "checkpoints" / "step-00000006" / f"{name}.safetensors"
            )

    @pytest.mark.parametrize("split", ["val", "train"])
    def test_a_bad_held_out_image_is_reported_before_the_first_step(self, train, own_pairs, tmp_path, split):
        if split == "train":
            shutil.rmtree(own_pairs / "val")  # then samples show training images
        damage(own_pairs, 0, split=split)
        code, _, err = train(tmp_path / "run", data=own_pairs)
        assert code == 2
        assert "0.png: is not a readable image" in err
        assert ("split val is held out" in err) == (split == "val")
        assert not (tmp_path / "run").exists()

    @pytest.mark.parametrize("arguments", [[], ["--on-error", "skip"]])
    def test_image_removed_after_listing(self, train, own_pairs, tmp_path, monkeypatch, arguments):
        def lose(root, split):
            found = find_pairs(root, split)
            (root / split / "0.png").unlink()
            return found

        monkeypatch.setattr(paired, "find_pairs", lose)
        code, _, err = train(tmp_path / "run", *arguments, data=own_pairs)
        assert "0.png: there is no such image" in err
        if arguments:
            assert code == 0, err
            for split in ("train", "val"):
                assert err.count(f"{own_pairs / split / '0.png'}: there is no such image") == 1
            assert skipped(err) == 1
        else:
            assert code == 2
            assert err.count("error:") == 1

    def test_images_of_a_wrong_size_are_skipped(self, train, own_pairs, tmp_path):
        Image.new("RGB", (7, 4)).save(own_pairs / "train" / "0.png")
        Image.new("RGB", (16, 8)).save(own_pairs / "train" / "1.png")
        code, _, err = train(tmp_path / "run", "--on-error", "skip", "--load-size", 0, data=own_pairs)
        assert code == 0, err
        assert "0.png: is 7 pixels wide" in err
        assert "1.png: the image is 8x8 pixels, smaller than the 32" in err

    def test_dataset_without_readable_images_is_refused(self, train, own_pairs, tmp_path):
        damage(own_pairs, *range(6))
        code, _, err = train(tmp_path / "run", "--on-error", "skip", data=own_pairs)
        assert code == 2
        assert "0.png: is not a readable image" in err
        assert "No other of 6 source images looked at can be read." in err
        assert not (tmp_path / "run" / "checkpoints").exists()

    @pytest.mark.slow
    def test_two_processes_share_counts_and_the_decode_cache(self, process, own_pairs, tmp_path, monkeypatch):
        damage(own_pairs, 0, 4)
        (tmp_path / "tmp").mkdir()
        monkeypatch.setenv("TMPDIR", str(tmp_path / "tmp"))
        options = ["--image-size", "32", "--levels", "3", "--base-channels", "4", "--discriminator-channels", "4"]
        options += ["--patch-layers", "1", "--threads", "1", "--steps", "6", "--save-every-steps", "3"]
        options += ["--device", "cpu", "--devices", "2", "--data", own_pairs, "--on-error", "skip"]
        together = process("train", *options, "--out", tmp_path / "run")
        _, err = together.communicate(timeout=240)
        assert together.returncode == 0, err
        assert skipped(err) == 4  # two epochs, whichever process met them
        assert list((tmp_path / "tmp").glob("ganvas-*")) == []
