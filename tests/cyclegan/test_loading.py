"""Images of two domains: the cache of decoded ones, and what happens to those that cannot be read."""

import pytest

from ganvas.data.sampling import epoch_order
from ganvas.files import sha256


def model_digest(run):
    return sha256(run / "model" / "model.safetensors")


@pytest.mark.slow
def test_decode_cache_changes_nothing(train, trained, tmp_path):
    assert train(tmp_path / "run", "--cache-gb", 0, "--workers", 1)[0] == 0
    assert model_digest(tmp_path / "run") == model_digest(trained)


@pytest.mark.slow
def test_images_that_cannot_be_read_stop_a_run_or_are_skipped(train, own_domains, tmp_path):
    for bad in ("trainA/trainA-2.png", "testB/testB-0.png"):
        (own_domains / bad).write_text("not a image")
    code, _, err = train(tmp_path / "stopped", data=own_domains)
    assert code == 2
    assert "testB-0.png: is not a readable image" in err
    assert "split test is held out" in err
    assert not (tmp_path / "stopped").exists()
    code, _, err = train(tmp_path / "run", "--on-error", "skip", data=own_domains)
    assert code == 0, err
    assert err.count("trainA-2.png: is not a readable image") == 1
    assert err.count("testB-0.png: is not a readable image") == 1  # sampled and monitored, never trained on
    assert "Skipped 1 images that could not be read" in err


@pytest.mark.slow
@pytest.mark.essential
def test_run_stopped_by_a_bad_image_resumes_in_another_folder(cyclegan, train, trained, own_domains, tmp_path):
    run, order = tmp_path / "run", epoch_order(6, 0, 0)
    file = own_domains / "trainA" / f"trainA-{order[4]}.png"
    content = file.read_bytes()
    file.write_bytes(content[:60] + bytes(len(content) - 60))  # the same name and size
    code, _, err = train(run, "--save-every-steps", 100, data=own_domains)
    assert code == 2
    assert "Everything up to step 4 is saved. Continue with: cyclegan train --out" in err
    file.write_bytes(content)
    own_domains.rename(tmp_path / "moved")
    (tmp_path / "moved" / "trainB" / "new.png").write_bytes(content)
    line = ["train", "--out", run, "--resume", "--save-every-steps", 2, "--data", tmp_path / "moved"]
    code, _, err = cyclegan(*line)
    assert (code, "train b: 4 files then, 5 files now, new: new.png" in err) == (2, True)
    (tmp_path / "moved" / "trainB" / "new.png").unlink()
    code, _, err = cyclegan(*line)
    assert code == 0, err
    assert model_digest(run) == model_digest(trained)


def test_shards_of_pairs_are_refused_with_advice(train, own_domains, tmp_path):
    (tmp_path / "shards").mkdir()
    (tmp_path / "shards" / "train-000000.tar").write_bytes(b"")
    code, _, err = train(tmp_path / "run", data=tmp_path / "shards")
    assert code == 2
    assert "Pairs are for the command pix2pix" in err
