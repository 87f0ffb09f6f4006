from pathlib import Path

import pytest

from ganvas.errors import UserError
from ganvas.evaluation.names import DEFAULT, OF_SETS, metric_options, parse_names, require_criteria


def test_names_are_read_in_their_order_and_once():
    assert parse_names("--metrics", "fid, L1,ms_ssim,l1,") == ("fid", "l1", "ms-ssim")
    assert parse_names("metrics", ["kid", "swd"]) == ("kid", "swd")
    assert parse_names("--metrics", ",".join(DEFAULT)) == DEFAULT


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "--metrics is empty"),
        (" , ", "--metrics is empty"),
        ("l1,ssmi", "there is no metric 'ssmi'. Did you mean ssim?"),
        ("lpisp", "Did you mean lpips?"),
        ("frechet inception", "there is no metric 'frechet inception'. Metrics: l1, psnr"),
    ],
)
def test_bad_names_are_refused(text, message):
    with pytest.raises(UserError) as error:
        parse_names("--metrics", text)
    assert message in str(error.value)


def test_metrics_of_pairs_are_refused_where_there_are_none():
    with pytest.raises(UserError, match="--save-best-by ssim: compares an image with its own target"):
        parse_names("--save-best-by", "swd,ssim", tuple(OF_SETS))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"feature_weights": "net.pt"}, "--feature-weights net.pt: none of --metrics l1,swd needs it. Add fid or kid"),
        ({"lpips_weights": Path("net.pt")}, "--lpips-weights net.pt: none of --metrics l1,swd needs it. Add lpips"),
        ({"kid_subset_size": 10}, "--kid-subset-size 10: none of --metrics l1,swd needs it. Add kid"),
    ],
)
def test_options_without_their_metric_are_refused(options, message):
    with pytest.raises(UserError) as error:
        metric_options("l1,swd", **options)
    assert message in str(error.value)


def test_a_subset_of_one_image_is_refused():
    with pytest.raises(UserError, match="--kid-subset-size is 1; a subset needs at least 2"):
        metric_options("kid", kid_subset_size=1)
    assert metric_options("kid,fid", kid_subset_size=2, feature_weights="n.pt").feature_weights == Path("n.pt")


@pytest.mark.parametrize("names", [("l1",), ("psnr",), ("l1", "psnr"), ("sharpness",), ("spectrum", "sharpness")])
def test_criteria_that_choose_a_bad_model_are_refused(names):
    with pytest.raises(UserError, match=f"--save-best-by {','.join(names)}: .* Add a metric of another kind"):
        require_criteria(names)


@pytest.mark.parametrize("names", [("l1", "swd"), ("lpips",), ("kid",), ("l1", "spectrum"), ("psnr", "sharpness")])
def test_other_criteria_are_allowed(names):
    require_criteria(names)
