"""Metrics of image sets of known quality, and the command ``dcgan evaluate``."""

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import dcgan
from dcgan import classifier
from dcgan.__main__ import main
from dcgan.classifier import cached_classifier, train_classifier
from dcgan.config import DcganConfig
from dcgan.data import ImageSet, choose, load_images
from dcgan.evaluation import coverage_and_entropy, measure
from dcgan.labels import LABELS
from dcgan.model import DigitModelConfig, build, load_sampler, save_sampler
from ganvas.evaluation.distribution import frechet_distance
from ganvas.evaluation.feature_networks import FeatureVectors
from ganvas.evaluation.weights import load_feature_network
from ganvas.json_files import write_json
from ganvas.options import to_json

CLASSES = ("columns", "rows", "square")  # as folders sort
ALWAYS = {
    "frechet_distance",
    "kernel_distance",
    "precision",
    "recall",
    "density",
    "coverage",
    "class_coverage",
    "label_entropy",
    "mean_confidence",
    "within_class_diversity",
    "near_copies",
    "checkerboard_energy",
    "speckle",
}


def draw(count, seed, size=16):
    """Return noisy images of three classes in turn, at random positions, with a few stray bright pixels."""
    rng = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % 3
    images = torch.randint(0, 60, (count, 1, size, size), generator=rng, dtype=torch.uint8)
    images[torch.rand(images.shape, generator=rng) < 0.002] = 250
    places = torch.randint(2, size - 6, (count, 2), generator=rng).tolist()
    for image, label, (y, x) in zip(images, labels.tolist(), places, strict=True):
        rows = slice(None) if label == 0 else slice(y, y + 4)
        columns = slice(None) if label == 1 else slice(x, x + 4)
        image[:, rows, columns] = 230
    return ImageSet(images, labels, CLASSES, "shapes", f"{seed:064d}")


@pytest.fixture(scope="module")
def shapes():
    """Training set, test set, classifier."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(classifier, "TRAINING_IMAGES", 30 * classifier.BATCH_SIZE)
        train, test = draw(300, 0), draw(90, 1)
        yield train, test, train_classifier(train, test)
    torch.set_num_threads(threads)


def mean(metrics, name):
    return metrics[name]["mean"]


@pytest.mark.slow
@pytest.mark.essential
def test_real_images_reach_the_ceiling(shapes):
    _, test, classifier = shapes
    result = measure(test.images, *shapes, requested_labels=test.labels)
    assert set(result["metrics"]) == ALWAYS | {"label_fidelity"}
    for name in result["metrics"]:
        assert mean(result["metrics"], name) == mean(result["ceiling"], name), name
    # The 5th percentiles of the distances of three classes: two of 30 images are nearer in each.
    assert mean(result["ceiling"], "near_copies") == pytest.approx(2 / 30, abs=1 / 90)
    assert mean(result["metrics"], "label_fidelity") == pytest.approx(classifier.accuracy)
    assert result["classifier"] == {"digest": classifier.digest, "accuracy": classifier.accuracy}
    assert (result["pictures"], result["compared"]) == (90, 90)


def test_every_metric_has_a_label(shapes):
    assert set(LABELS) >= ALWAYS | {"label_fidelity"}


def test_more_images_of_the_distribution_score_near_the_ceiling(shapes):
    fake = draw(240, 2).images
    result = measure(fake, *shapes)
    assert (result["pictures"], result["compared"]) == (240, 90)
    assert "label_fidelity" not in result["metrics"]
    assert sum(result["label_histogram"]) == 240
    for name in ("precision", "recall", "coverage", "within_class_diversity", "mean_confidence"):
        assert mean(result["metrics"], name) == pytest.approx(mean(result["ceiling"], name), abs=0.15), name
    assert mean(result["metrics"], "speckle") == pytest.approx(1, abs=0.5)
    assert mean(result["metrics"], "label_entropy") == pytest.approx(math.log2(3), abs=0.02)
    assert mean(result["metrics"], "class_coverage") == 3


def test_mode_collapse_is_measured(shapes):
    fake = draw(3, 5).images[:1].expand(120, -1, -1, -1)
    result = measure(fake, *shapes)
    ours, real = result["metrics"], result["ceiling"]
    assert sorted(result["label_histogram"]) == [0, 0, 120]
    assert (mean(ours, "class_coverage"), mean(ours, "label_entropy")) == (1, 0)
    assert mean(ours, "within_class_diversity") == pytest.approx(0, abs=1e-3)
    assert mean(ours, "recall") == 0 < mean(real, "recall")
    assert mean(ours, "coverage") < 0.1 < mean(real, "coverage")
    assert mean(ours, "frechet_distance") > 3 * mean(real, "frechet_distance")
    assert mean(ours, "kernel_distance") > 3 * abs(mean(real, "kernel_distance"))


def test_noise_is_measured(shapes):
    fake = torch.randint(0, 256, (100, 1, 16, 16), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    result = measure(fake, *shapes)
    ours, real = result["metrics"], result["ceiling"]
    assert mean(ours, "precision") < 0.5 < mean(real, "precision")
    assert mean(ours, "frechet_distance") > 3 * mean(real, "frechet_distance")
    assert mean(ours, "near_copies") == 0
    assert mean(ours, "checkerboard_energy") > 2 * mean(real, "checkerboard_energy")


def test_memorized_images_are_measured(shapes):
    train, _, _ = shapes
    result = measure(train.images[:100], *shapes)
    assert mean(result["metrics"], "near_copies") == 1


def test_order_of_the_images_does_not_matter_much(shapes):
    """Sets come sorted by class; a part of one must still have all classes."""
    fake = draw(240, 2)
    by_class = fake.images[fake.labels.argsort(stable=True)]
    train, test, classifier = shapes
    by_class_train = replace(train, images=train.images[train.labels.argsort()], labels=train.labels.sort().values)
    mixed, ordered = (
        measure(images, data, test, classifier) for images, data in ((fake.images, train), (by_class, by_class_train))
    )
    for name in ("recall", "coverage"):
        assert mean(ordered["metrics"], name) == pytest.approx(mean(mixed["metrics"], name), abs=0.15)


def test_fidelity_falls_when_another_class_is_drawn(shapes):
    fake = draw(90, 3)
    wrong = measure(fake.images, *shapes, requested_labels=(fake.labels + 1) % 3)
    assert mean(wrong["metrics"], "label_fidelity") <= 0.05
    assert mean(wrong["ceiling"], "label_fidelity") >= 0.95


def test_undefined_metric_is_missing(shapes):
    train, test, classifier = shapes
    dark = replace(train, images=train.images.clamp(max=60))  # nothing bright, so nothing stray
    result = measure(test.images, dark, test, classifier)
    assert "speckle" not in result["metrics"]
    json.dumps(result, allow_nan=False)


def test_coverage_and_entropy(shapes):
    _, _, classifier = shapes
    fake = draw(300, 4)
    covered, entropy = coverage_and_entropy(fake.images, classifier)
    assert (covered, entropy) == (3, pytest.approx(math.log2(3), abs=0.02))
    covered, entropy = coverage_and_entropy(fake.images[fake.labels < 2], classifier)
    assert (covered, entropy) == (2, pytest.approx(1, abs=0.02))


def test_measuring_needs_labels(shapes):
    train, test, classifier = shapes
    with pytest.raises(ValueError, match="labels"):
        measure(test.images, train, replace(test, labels=None), classifier)


def write_folder(root, labelled=True):
    for split, data in (("train", draw(150, 0)), ("test", draw(60, 1))):
        for i, (image, label) in enumerate(zip(data.images.numpy(), data.labels.tolist(), strict=True)):
            folder = root / split / (CLASSES[label] if labelled else "")
            folder.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image[0]).save(folder / f"{i:03d}.png")
    return root


def write_run(run, data, /, **changes):
    """A run's model whose generator has learned nothing."""
    train = load_images(str(data), "train")
    values = {
        "preset": "dcgan",
        "image_size": 16,
        "channels": 1,
        "num_classes": 0,
        "latent_dim": 8,
        "latent": "normal",
        "norm": "batch",
        "base_channels": 4,
        "extra_layers": 0,
        "pixel_range": "signed",
        "classes": train.classes,
        "data": str(data),
        "data_digest": train.digest,
    }
    config = DigitModelConfig(**values | changes)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        generator, _ = build(config)
    save_sampler(run / "model", config, generator, "# a model")
    return run


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_folder(tmp_path_factory.mktemp("data") / "shapes")


@pytest.fixture(scope="module")
def cache(folder, tmp_path_factory):
    """A cache that holds the folder's classifier."""
    home = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GANVAS_CACHE", str(home))
        patch.setattr(classifier, "TRAINING_IMAGES", 25 * classifier.BATCH_SIZE)
        cached_classifier(load_images(str(folder), "train"), load_images(str(folder), "test"))
    return home


@pytest.fixture
def evaluate(cache, monkeypatch, capsys):
    """Run the command in this process; give its exit code, standard output and standard error."""
    monkeypatch.setenv("GANVAS_CACHE", str(cache))
    monkeypatch.setattr(classifier, "train_classifier", lambda *_: pytest.fail("the classifier is cached"))

    def run(*arguments):
        capsys.readouterr()
        code = main(["evaluate", *map(str, arguments), "--samples", "100"])
        out, err = capsys.readouterr()
        return code, out, err

    return run


@pytest.fixture
def run(folder, tmp_path):
    return write_run(tmp_path / "run", folder)


@pytest.mark.slow
@pytest.mark.essential
def test_command_prints_one_json_object_and_keeps_it(evaluate, run, folder):
    code, out, err = evaluate(run, "--json")
    assert code == 0, err
    result = json.loads(out)
    assert json.loads((run / "evaluation.json").read_text()) == result
    assert set(result["metrics"]) <= ALWAYS
    assert set(result["metrics"]) == set(result["ceiling"])
    assert (result["data"], result["split"], result["pictures"], result["compared"]) == (str(folder), "test", 100, 60)
    assert sum(result["label_histogram"]) == 100
    assert dcgan.evaluate(run, samples=100) == result
    assert json.loads(evaluate(run, "--json", "--seed", 1)[1])["metrics"] != result["metrics"]


def write_options(run, **data):
    """The options of a run, beside its model."""
    config = DcganConfig()
    write_json(run / "config.json", to_json(replace(config, data=replace(config.data, **data))))


@pytest.mark.parametrize("place", ["", "model"])
def test_data_is_found_by_the_config_of_the_run(evaluate, folder, tmp_path, place):
    run = write_run(tmp_path / "run", folder, data="shapes")
    write_options(run, data=str(folder))
    code, out, err = evaluate(run / place, "--json")
    assert code == 0, err
    assert json.loads(out)["data"] == str(folder)


@pytest.mark.parametrize(("there", "given"), [(True, False), (False, False), (True, True)])
def test_named_sets_are_read_where_the_training_read_them(evaluate, folder, tmp_path, monkeypatch, there, given):
    run = write_run(tmp_path / "run", folder, data="mnist")
    root = tmp_path / "sets"
    if there:
        root.mkdir()
    write_options(run, data="mnist", data_root=root)
    asked = []

    def opened(data, split, *, root, **_):
        asked.append((data, root))
        return load_images(str(folder), split)

    monkeypatch.setattr("dcgan.evaluation.load_images", opened)
    code, _, err = evaluate(run, *(["--data-root", tmp_path / "other"] if given else []))
    assert code == 0, err
    assert set(asked) == {("mnist", tmp_path / "other" if given else root if there else None)}


def test_the_report_shows_an_evaluation(evaluate, run, capsys):
    assert evaluate(run)[0] == 0
    (run / "config.json").write_text("{}")
    assert main(["report", str(run)]) == 0
    page = Path(capsys.readouterr().out.strip()).read_text()
    assert "Fréchet distance" in page
    assert "real test images" in page


def test_table_shows_the_ceiling(evaluate, run):
    code, out, err = evaluate(run / "model")
    assert code == 0, err
    for words in ("real test images", "Fréchet distance", "100 images drawn", "60 images of each set"):
        assert words in out
    assert not (run / "model" / "evaluation.json").exists()  # only a run has one


def test_conditional_model_draws_every_class(evaluate, folder, tmp_path):
    conditional = write_run(tmp_path / "run", folder, num_classes=3)
    code, out, err = evaluate(conditional, "--json")
    assert code == 0, err
    result = json.loads(out)
    assert 0 <= mean(result["metrics"], "label_fidelity") <= 0.7  # it has learned nothing
    assert mean(result["ceiling"], "label_fidelity") == pytest.approx(result["classifier"]["accuracy"])


def test_drawn_images_are_written(evaluate, run, tmp_path):
    assert evaluate(run, "--out", tmp_path / "drawn")[0] == 0
    written = sorted((tmp_path / "drawn").iterdir())
    assert len(written) == 100
    with Image.open(written[0]) as image:
        assert (image.size, image.mode) == ((16, 16), "L")
        assert np.asarray(image).std() > 0


@pytest.mark.parametrize("writer", ["ganvas.evaluation.results.write_json", "ganvas.data.encode.write_image"])
def test_metrics_are_printed_before_a_full_disk_is_reported(evaluate, run, tmp_path, full_disk, writer):
    full_disk(writer)
    out_folder = tmp_path / "drawn"
    code, out, err = evaluate(run, "--json", "--out", out_folder)
    assert code == 2
    assert "cannot be written (No space left on device)" in err
    assert json.loads(out)["pictures"] == 100
    assert out_folder.exists() == ("json" in writer)


def test_bad_output_folder_is_refused_first(evaluate, run, tmp_path, monkeypatch):
    monkeypatch.setattr("dcgan.evaluation.load_sampler", None)  # calling it would be another error
    (tmp_path / "file").touch()
    for place, message in {
        "file": "is a file",
        "file/x": "cannot be written",
        "x.png": "is the name of an image",
    }.items():
        code, _, err = evaluate(run, "--out", tmp_path / place)
        assert (code, message in err) == (2, True)


def test_comparison_shows_both(evaluate, run, folder, tmp_path):
    other = write_run(tmp_path / "other", folder, latent="uniform")
    _, theirs, _ = evaluate(other, "--json")
    for given in (other, other / "evaluation.json"):
        code, out, err = evaluate(run, "--compare", given, "--json")
        assert code == 0, err
        assert json.loads(out)["compared_with"]["metrics"] == json.loads(theirs)["metrics"]
    assert "compared_with" not in json.loads((run / "evaluation.json").read_text())
    code, out, _ = evaluate(run, "--compare", other)
    assert code == 0
    assert f"{json.loads(theirs)['metrics']['frechet_distance']['mean']:.3f}" in out


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"classifier": {"digest": "0" * 64, "accuracy": 1.0}}, "another classifier (000000000000"),
        ({"pictures": 200}, "Give --samples 200"),
        ({"metrics": 3}, "metrics is 3"),
    ],
)
def test_evaluations_that_are_not_comparable_are_refused(evaluate, run, tmp_path, changes, message):
    _, out, _ = evaluate(run, "--json")
    (tmp_path / "other.json").write_text(json.dumps(json.loads(out) | changes))
    code, out, err = evaluate(run, "--compare", tmp_path / "other.json")
    assert (code, out) == (2, "")
    assert message in err


def test_comparison_with_a_translators_evaluation_is_refused(evaluate, run, tmp_path):
    (tmp_path / "other.json").write_text('{"model": "earth", "metrics": {"l1": {"mean": 0.1}}}')
    code, _, err = evaluate(run, "--compare", tmp_path / "other.json")
    assert code == 2
    assert "not an evaluation by dcgan evaluate" in err


def test_changed_training_images_are_warned_of(evaluate, folder, tmp_path):
    code, out, err = evaluate(write_run(tmp_path / "run", folder, data_digest="1" * 64), "--json")
    assert code == 0
    assert json.loads(out)["pictures"] == 100
    assert "the training images differ from" in err


def test_other_classes_are_refused(evaluate, folder, tmp_path):
    code, _, err = evaluate(write_run(tmp_path / "run", folder, num_classes=4, classes=tuple("abcd")))
    assert code == 2
    assert "has 3 classes, and the model draws 4" in err


@pytest.mark.parametrize("few", ["--samples", "test images"])
def test_too_few_images_are_refused(evaluate, run, folder, tmp_path, capsys, few):
    if few == "--samples":
        code = main(["evaluate", str(run), "--samples", "49"])
    else:
        data = write_folder(tmp_path / "small")
        for path in sorted((data / "test").rglob("*.png"))[:20]:
            path.unlink()
        code = main(["evaluate", str(write_run(tmp_path / "of-small", data))])
    assert code == 2
    assert f"{few}: {49 if few == '--samples' else 40} are too few" in capsys.readouterr().err


def test_images_without_labels_are_refused(tmp_path, capsys):
    data = write_folder(tmp_path / "bare", labelled=False)
    assert main(["evaluate", str(write_run(tmp_path / "run", data)), "--samples", "100"]) == 2
    assert "has no labels" in capsys.readouterr().err


def test_a_folder_without_a_model_is_refused(tmp_path, capsys):
    assert main(["evaluate", str(tmp_path)]) == 2
    assert "holds no model" in capsys.readouterr().err


def test_further_metrics_are_computed_for_drawn_and_real_images(evaluate, run, folder, feature_file):
    code, out, err = evaluate(run, "--json", "--metrics", "swd,fid,kid", "--feature-weights", feature_file)
    assert code == 0, err
    result = json.loads(out)
    network = load_feature_network(feature_file, "cpu")

    def features(images):
        collected = FeatureVectors(network)
        for image in images[choose(len(images), 60)]:
            collected.add(image / 127.5 - 1)
        return collected.vectors()

    train, test = (load_images(str(folder), split).images for split in ("train", "test"))
    drawn = load_sampler(run).sample(100, 0)
    for column, images in (("metrics", drawn), ("ceiling", test)):
        expected = frechet_distance(features(train), features(images))
        assert result[column]["fid"]["mean"] == pytest.approx(expected, rel=1e-4)
        assert result[column]["fid"]["n"] == 60
        assert {"swd", "kid"} & set(result[column]) == {"kid"}
        assert "sliced_wasserstein" in result[column]
    assert result["metrics"]["fid"]["mean"] > result["ceiling"]["fid"]["mean"]
    assert result["protocol"]["features"]["sha256"] == network.digest
    assert result["protocol"]["real"] == "60 test images against 60 of training"
    assert "FID of 60 images" in result["notes"][0]
    assert {"swd", "fid"} & set(json.loads(evaluate(run, "--json")[1])["metrics"]) == set()


def test_other_protocols_are_not_compared(evaluate, run, tmp_path, feature_file):
    options = ["--json", "--metrics", "fid", "--feature-weights", feature_file]
    first = json.loads(evaluate(run, *options)[1])
    (tmp_path / "same.json").write_text(json.dumps(first))
    code, out, err = evaluate(run, *options, "--compare", tmp_path / "same.json")
    assert code == 0, err
    assert json.loads(out)["compared_with"]["metrics"]["fid"] == first["metrics"]["fid"]
    first["protocol"]["features"]["sha256"] = "0" * 64
    (tmp_path / "other.json").write_text(json.dumps(first))
    code, _, err = evaluate(run, *options, "--compare", tmp_path / "other.json")
    assert code == 2
    assert "was measured by another protocol (features.sha256: 000000" in err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--metrics", "l1"], "--metrics l1: compares an image with its own target, and these images have none"),
        (["--metrics", "fdi"], "there is no metric 'fdi'. Did you mean fid?"),
        (["--feature-weights", "n.pt"], "--feature-weights n.pt: no metric needs it. Add --metrics fid,kid."),
        (["--metrics", "kid", "--feature-weights", "n.pt"], "--feature-weights n.pt: there is no such file"),
    ],
)
def test_bad_further_metrics_are_refused(evaluate, run, options, message):
    code, _, err = evaluate(run, *options)
    assert code == 2
    assert message in err
