"""Pictures of two domains: the store of decoded ones, and what happens to those that cannot be read."""

from ganvas.files import sha256


def model_digest(run):
    return sha256(run / "model" / "model.safetensors")


def test_the_store_changes_nothing(train, trained, tmp_path):
    assert train(tmp_path / "run", "--cache-gb", 0, "--workers", 1)[0] == 0
    assert model_digest(tmp_path / "run") == model_digest(trained)


def test_pictures_that_cannot_be_read_stop_a_run_or_are_skipped(train, own_domains, tmp_path):
    for bad in ("trainA/trainA-2.png", "testB/testB-0.png"):
        (own_domains / bad).write_text("not a picture")
    code, _, err = train(tmp_path / "stopped", data=own_domains)
    assert code == 2
    assert "is no picture" in err
    code, _, err = train(tmp_path / "run", "--on-error", "skip", data=own_domains)
    assert code == 0, err
    assert err.count("trainA-2.png: is no picture") == 1
    assert err.count("testB-0.png: is no picture") == 1  # sampled and watched, never trained on
    assert "Pictures skipped because they could not be read: 1," in err


def test_shards_of_pairs_are_refused_with_the_way_to_use_them(train, own_domains, tmp_path):
    (tmp_path / "shards").mkdir()
    (tmp_path / "shards" / "train-000000.tar").write_bytes(b"")
    code, _, err = train(tmp_path / "run", data=tmp_path / "shards")
    assert code == 2
    assert "Pairs are for the command pix2pix" in err
