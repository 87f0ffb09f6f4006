"""Metrics of sets against independent formulas, and the checks before them."""

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.linalg import sqrtm

from ganvas.errors import UserError
from ganvas.evaluation.detail import gradient_magnitude, octave_energies
from ganvas.evaluation.metric_set import MetricSet, load_metrics
from ganvas.evaluation.metrics import bootstrap_interval, patch_count, sliced_wasserstein
from ganvas.evaluation.names import MetricOptions
from ganvas.evaluation.real import RealAgainstReal, RealImages, other_split
from ganvas.evaluation.results import differences, format_score
from ganvas.evaluation.set_statistics import SetStatistics, compare_sets, ratio_interval


def images(count, channels=3, side=32, seed=0, scale=1.0):
    generator = torch.Generator().manual_seed(seed)
    return (torch.rand(count, channels, side, side, generator=generator) * 2 - 1) * scale


@pytest.fixture(scope="module")
def every(feature_file, distance_file):
    """All metrics of sets, with a small feature network."""
    names = ("swd", "fid", "kid", "sharpness", "spectrum", "lpips")
    return load_metrics(MetricOptions(names, feature_file, distance_file), "cpu")


def statistics(metrics, given, patches=None):
    collected = SetStatistics(metrics, len(given), patches or patch_count(len(given), len(given)))
    for image in given:
        collected.add(image)
    return collected


def reference_features(given, path):
    """Features of [n, 3, H, W] in [-1, 1], with Pillow and the TorchScript file alone: [n, D] in double precision."""
    module, rows = torch.jit.load(path), []
    for image in given:
        pixels = np.rint((image.permute(1, 2, 0).numpy().astype(np.float64) + 1) * 127.5).astype(np.uint8)
        resized = np.asarray(Image.fromarray(pixels).resize((299, 299), Image.Resampling.BICUBIC))
        rows.append(module(torch.from_numpy(resized.copy()).permute(2, 0, 1)[None])[0].detach().double().numpy())
    return np.stack(rows)


def reference_fid(x, y):
    """Heusel et al. 2017, Eq. 6, by SciPy's matrix root."""
    first, second = np.cov(x, rowvar=False), np.cov(y, rowvar=False)
    gap = x.mean(axis=0) - y.mean(axis=0)
    return gap @ gap + np.trace(first + second - 2 * sqrtm(first @ second).real)


def reference_kid(x, y):
    """The unbiased squared discrepancy, pair by pair."""
    d = x.shape[1]

    def kernel(a, b):
        return (a @ b / d + 1) ** 3

    def within(z):
        n = len(z)
        return sum(kernel(z[i], z[j]) for i in range(n) for j in range(n) if i != j) / (n * (n - 1))

    between = sum(kernel(a, b) for a in x for b in y) / (len(x) * len(y))
    return within(x) + within(y) - 2 * between


@pytest.mark.filterwarnings("ignore:.*torch.jit.load:FutureWarning")
def test_fid_and_kid_equal_independent_computations(every, feature_file):
    real, fake = images(40), images(40, seed=1, scale=0.6) + 0.2
    scores = compare_sets(statistics(every, fake), statistics(every, real))
    x, y = (reference_features(each, feature_file) for each in (real, fake))
    fid, kid = reference_fid(x, y), reference_kid(x, y)
    assert fid > 1e-3
    assert kid > 1e-4
    assert scores["fid"]["mean"] == pytest.approx(fid, rel=1e-5)
    assert scores["kid"]["mean"] == pytest.approx(kid, rel=1e-5)
    assert (scores["fid"]["n"], scores["kid"]["n"], scores["kid"]["subset_size"]) == (40, 40, 40)


def test_the_other_metrics_of_sets_equal_their_functions(every):
    real, fake = images(6), images(6, seed=1, scale=0.7)
    scores = compare_sets(statistics(every, fake), statistics(every, real))
    assert set(scores) == {"sliced_wasserstein", "fid", "kid", "sharpness", "spectrum"}
    assert scores["sliced_wasserstein"]["mean"] == pytest.approx(sliced_wasserstein(fake, real).mean, rel=1e-5)
    expected = gradient_magnitude(fake).mean() / gradient_magnitude(real).mean()
    assert scores["sharpness"]["mean"] == pytest.approx(expected.item(), rel=1e-5)
    assert scores["sharpness"]["mean"] == pytest.approx(0.7, rel=0.03)
    energies = octave_energies(fake).mean(dim=0) / octave_energies(real).mean(dim=0)
    assert scores["spectrum"]["2_to_4_pixels"] == pytest.approx(energies[0].item(), rel=1e-5)
    assert scores["spectrum"]["4_to_8_pixels"] == pytest.approx(energies[1].item(), rel=1e-5)
    assert scores["spectrum"]["mean"] == pytest.approx(0.49, rel=0.05)


def test_sets_of_different_sizes(every):
    scores = compare_sets(statistics(every, images(9, seed=1), 500), statistics(every, images(5), 500))
    assert scores["kid"] == {"mean": scores["kid"]["mean"], "n": 5, "subset_size": 5}
    assert every.protocol(9, 5)["kid"]["subsets"] == 100
    assert every.protocol(5, 5)["kid"]["subsets"] == 1


def test_small_images_have_no_spectrum_and_constant_ones_no_ratio(every):
    small = compare_sets(statistics(every, images(4, side=12)), statistics(every, images(4, side=12)))
    assert "spectrum" not in small
    assert small["sharpness"]["mean"] == 1
    flat = compare_sets(statistics(every, images(4)), statistics(every, torch.zeros(4, 3, 32, 32)))
    assert not {"spectrum", "sharpness"} & set(flat)


def test_interval_of_a_ratio():
    rng = np.random.default_rng(0)
    target = rng.uniform(1, 5, 400)
    paired = ratio_interval(0.8 * target, target, are_pairs=True)
    assert paired == pytest.approx({"low": 0.8, "high": 0.8})
    apart = ratio_interval(0.8 * target, target, are_pairs=False)
    # Of a quotient of independent means: the relative variances add up.
    half_width = 1.96 * 0.8 * (2 * target.var() / 400) ** 0.5 / target.mean()
    assert apart["high"] - 0.8 == pytest.approx(half_width, rel=0.1)
    assert 0.8 - apart["low"] == pytest.approx(half_width, rel=0.1)
    means = bootstrap_interval(target)
    assert ratio_interval(target, np.ones(400), are_pairs=True)["low"] == pytest.approx(means.low)
    assert ratio_interval([1.0], [2.0], are_pairs=True) == ratio_interval([1.0] * 2, [0.0] * 2, are_pairs=True) == {}


def test_too_few_images_are_refused_by_name(every):
    with pytest.raises(UserError, match=r"^data: test: has 1 image; fid compares sets of 2 images or more"):
        every.require_count(1, "data: test")
    every.require_count(2, "data: test")
    chosen = MetricSet(("kid",), every.features, kid_subset_size=10)
    with pytest.raises(UserError, match=r"--kid-subset-size 10: data: test has only 9 images. Use at most 9"):
        chosen.require_count(9, "data: test")
    chosen.require_count(10, "data: test")
    assert chosen.subset_size(1000) == 10


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((5, 200, 200), "x.png: has 5 channels; the network of lpips takes 1 or 3. Leave lpips out."),
        ((3, 200, 30), "x.png: is 30x200 pixels; ms-ssim needs 176 pixels a side. Leave ms-ssim out."),
    ],
)
def test_images_unfit_for_a_metric_are_refused(every, shape, message):
    metrics = MetricSet(("ms-ssim", "lpips", "fid"), every.features, every.lpips)
    with pytest.raises(UserError) as error:
        metrics.require_image(torch.zeros(shape), "x.png")
    assert str(error.value) == message
    metrics.require_image(torch.zeros(1, 176, 200), "x.png")
    with pytest.raises(UserError, match=r"is 30x200 pixels; lpips needs 31"):
        MetricSet(("lpips",), None, every.lpips).require_image(torch.zeros(3, 200, 30), "x.png")


def test_protocol_names_networks_by_their_digest(every):
    found = every.protocol(40, 40)
    assert found["features"]["sha256"] == every.features.digest
    assert found["features"]["dimensions"] == 6
    assert found["lpips"]["sha256"] == every.lpips.digest
    assert found["kid"] == {"estimator": "unbiased", "subset_size": 40, "subsets": 1}
    assert MetricSet(("l1", "swd")).protocol(40, 40) == {}


# --- real against real ---


def test_as_many_images_of_another_split_are_compared(every):
    target, other = images(6), images(20, seed=1)
    real = RealAgainstReal(every, 6, 6, "test", RealImages("train", 20, lambda index: other[index]))
    for image in target:
        real.add(image)
    targets = statistics(every, target)
    scores, notes = real.compare(targets)
    chosen = other[[0, 4, 8, 11, 15, 19]]  # evenly
    assert scores == compare_sets(statistics(every, chosen), targets)
    assert notes == []
    assert real.sets == "6 images of train against 6 of test"


def test_halves_are_compared_where_no_other_split_has_enough(every):
    target = images(7)
    real = RealAgainstReal(every, 7, 7, "test", None)
    for image in target:
        real.add(image)
    scores, notes = real.compare(statistics(every, target))
    first, second = (statistics(every, target[start:6:2]) for start in (0, 1))
    assert scores == compare_sets(first, second)
    assert real.sets == "3 images of test against 3 others"
    assert len(notes) == 1
    assert "two halves of 3" in notes[0]


def test_an_unreadable_image_of_the_other_split_costs_only_this_comparison(every):
    def read(index):
        raise UserError("x.png: cannot be decoded.")

    scores, notes = RealAgainstReal(every, 2, 2, "test", RealImages("train", 2, read)).compare(
        statistics(every, images(2))
    )
    assert scores == {}
    assert notes == ["No scores of real against real images: x.png: cannot be decoded."]


def test_the_first_split_with_enough_images_is_chosen():
    counts = {"train": 9, "val": 3, "test": 20}

    def open_split(name):
        if name == "val":
            raise UserError("no images")
        return RealImages(name, counts[name], lambda index: torch.zeros(3, 8, 8))

    def chosen(split, count, available=tuple(counts)):
        found = other_split(split, available, count, open_split)
        return found and found.split

    assert chosen("test", 9) == "train"
    assert chosen("test", 10) is None
    assert chosen("train", 10) == "test"
    assert chosen("train", 10, ["train", "val"]) is None


def test_differences_of_protocols_are_named():
    first = {"n": 3, "features": {"sha256": "1" * 64, "resize": "a"}, "kid": {"subset_size": 3}}
    assert differences(first, first) == []
    assert differences(first, {"n": 3, "features": {"sha256": "1" * 64, "resize": "a"}}) == []
    other = {"n": 4, "features": {"sha256": "2" * 64, "resize": "a"}}
    assert differences(first, other) == [f"features.sha256: {'1' * 24}…, here {'2' * 24}…", "n: 3, here 4"]


@pytest.mark.parametrize(
    ("score", "text"),
    [
        ({"mean": 0.12345, "low": 0.1, "high": 0.2}, "0.1235 [0.1000, 0.2000]"),
        ({"mean": 0.00003}, "0.0000"),
        ({"mean": 0.0000312345, "n": 97}, "3.12e-05 (n = 97)"),
        ({"mean": 25.71289, "n": 2048}, "25.7129 (n = 2,048)"),
    ],
)
def test_scores_are_shown(score, text):
    assert format_score(score) == text
