import math

import pytest
import torch

from ganvas.errors import UserError
from ganvas.evaluation.metrics import l1, ms_ssim, psnr, sliced_wasserstein, ssim
from ganvas.evaluation.names import DEFAULT, KEYS, OF_SETS, criterion_options
from ganvas.evaluation.validation import Validation


def images(count, side=32, seed=0, scale=1.0):
    generator = torch.Generator().manual_seed(seed)
    return [(torch.rand(3, side, side, generator=generator) * 2 - 1) * scale for _ in range(count)]


def validation(chosen, shown=(), **files):
    return Validation(criterion_options(chosen, **files), shown, "cpu")


def test_values_are_the_means_of_the_metrics():
    outputs, targets = images(4, seed=1, scale=0.5), images(4)
    scores = validation("l1,swd", DEFAULT).score(outputs, targets, are_pairs=True)
    x, y = torch.stack(outputs), torch.stack(targets)
    for metric in (l1, psnr, ssim):
        assert scores[f"val_{metric.__name__}"] == pytest.approx(metric(x, y).mean().item(), rel=1e-5)
    assert scores["val_swd"] == pytest.approx(sliced_wasserstein(x, y).mean, rel=1e-6)
    assert scores["val_sharpness"] == pytest.approx(0.5, rel=0.05)
    assert scores["val_spectrum"] == pytest.approx(0.25, rel=0.1)
    assert list(scores) == [f"val_{name}" for name in DEFAULT]


def test_all_metrics_can_choose_the_best_model(feature_file, distance_file):
    chosen = validation(",".join(KEYS), feature_weights=feature_file, lpips_weights=distance_file)
    targets = images(3, side=176)
    near, far = ([a + d for a, d in zip(targets, images(3, 176, 1, size), strict=True)] for size in (0.05, 0.6))
    better, worse = (chosen.score(outputs, targets, are_pairs=True) for outputs in (near, far))
    assert len(chosen.criteria()) == len(KEYS)
    for name in chosen.criteria():
        assert 0 < better[name] < worse[name], name
        assert math.isfinite(worse[name])


def test_errors_are_lower_where_a_model_is_better():
    outputs, targets = images(2, side=176, seed=1, scale=0.5), images(2, side=176)
    chosen = validation("psnr,ssim,ms-ssim,sharpness")
    assert chosen.criteria() == ("val_psnr_error", "val_ssim_error", "val_ms_ssim_error", "val_sharpness_error")
    scores, x, y = chosen.score(outputs, targets, are_pairs=True), torch.stack(outputs), torch.stack(targets)
    assert scores["val_psnr_error"] == pytest.approx(10 ** (-psnr(x, y).mean().item() / 20), rel=1e-5)
    assert scores["val_ssim_error"] == pytest.approx(1 - ssim(x, y).mean().item(), rel=1e-5)
    assert scores["val_ms_ssim_error"] == pytest.approx(1 - ms_ssim(x, y).mean().item(), rel=1e-5)
    assert scores["val_sharpness_error"] == pytest.approx(1 / scores["val_sharpness"])
    assert scores["val_sharpness_error"] == pytest.approx(2, rel=0.05)


def test_the_error_of_a_kernel_distance_is_never_negative(feature_file):
    chosen = validation("kid", feature_weights=feature_file)
    equal, other = (chosen.score(images(3, seed=seed), images(3), are_pairs=False) for seed in (0, 1))
    assert equal["val_kid"] < 0
    assert equal["val_kid_error"] == pytest.approx(0, abs=1e-12)
    assert other["val_kid_error"] > 0


def test_directions_are_validated_apart():
    chosen = validation("swd,sharpness", allowed=tuple(OF_SETS))
    a, b, c = images(3), images(3, seed=1), images(3, seed=2, scale=0.5)
    found = chosen.score(a, b, direction="a2b", are_pairs=False) | chosen.score(c, a, direction="b2a", are_pairs=False)
    again = chosen.score(c, b, direction="a2b", are_pairs=False)
    expected = {"val_swd_a2b", "val_swd_b2a", "val_sharpness_error_a2b", "val_sharpness_error_b2a"}
    assert set(chosen.criteria("a2b", "b2a")) == expected
    assert found["val_swd_b2a"] == pytest.approx(sliced_wasserstein(torch.stack(c), torch.stack(a)).mean, rel=1e-6)
    assert again["val_swd_a2b"] == pytest.approx(sliced_wasserstein(torch.stack(c), torch.stack(b)).mean, rel=1e-6)


def test_images_that_no_criterion_allows_are_refused(feature_file):
    different = [*images(2), *images(1, side=40)]
    with pytest.raises(UserError, match=r"--save-best-by swd: needs images of one size, and those of data: val differ"):
        validation("swd").require(different, "data: val")
    validation("l1,swd").require(different, "data: val")
    with pytest.raises(UserError, match=r"data: val: is 32x32 pixels; ms-ssim needs 176"):
        validation("ms-ssim").require(different, "data: val")
    with pytest.raises(UserError, match=r"data: val: has 1 image; fid compares sets"):
        validation("fid", feature_weights=feature_file).require(images(1), "data: val")
    flat = [torch.zeros(3, 32, 32)] * 2
    with pytest.raises(UserError, match=r"--save-best-by swd,spectrum: .* allow none of these metrics"):
        validation("swd,spectrum").score([*images(1), *images(1, side=40)], [flat[0], flat[1][:, :30]], are_pairs=False)


def test_files_of_a_training_are_named_as_python_takes_them(tmp_path):
    with pytest.raises(UserError, match=r"^feature_weights .*n.pt: there is no such file"):
        validation("kid", feature_weights=tmp_path / "n.pt")
    with pytest.raises(UserError, match=r"^lpips_weights n.pt: none of --save-best-by l1,swd needs it"):
        criterion_options("l1,swd", lpips_weights="n.pt")
