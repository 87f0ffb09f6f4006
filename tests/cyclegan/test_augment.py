"""The option --augment: what it changes in a run, and configs from before it was there."""

import json

import pytest

from ganvas.files import sha256


def model_digest(run):
    return sha256(run / "model" / "model.safetensors")


@pytest.mark.slow
@pytest.mark.essential
def test_config_without_the_option_gives_the_same_bytes(cyclegan, trained, tmp_path):
    config = json.loads((trained / "config.json").read_text())
    del config["data"]["augment"]
    (tmp_path / "config.json").write_text(json.dumps(config))
    code, _, err = cyclegan("train", "--config", tmp_path / "config.json", "--out", tmp_path / "run")
    assert code == 0, err
    assert model_digest(tmp_path / "run") == model_digest(trained)


@pytest.mark.slow
@pytest.mark.essential
def test_strong_trains_and_workers_change_nothing(train, trained, tmp_path):
    for name, options in (("run", ()), ("workers", ("--workers", 2, "--cache-gb", 0))):
        code, _, err = train(tmp_path / name, "--augment", "strong", *options)
        assert code == 0, err
    assert model_digest(tmp_path / "run") == model_digest(tmp_path / "workers")
    assert model_digest(tmp_path / "run") != model_digest(trained)


@pytest.mark.slow
def test_paper_without_a_crop_and_without_mirroring_is_none(train, tmp_path):
    assert train(tmp_path / "paper", "--load-size", 16, "--no-flip")[0] == 0
    assert train(tmp_path / "none", "--augment", "none", "--load-size", 16)[0] == 0
    assert model_digest(tmp_path / "paper") == model_digest(tmp_path / "none")
