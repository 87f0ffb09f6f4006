"""Translation and evaluation of a trained model, both ways."""

import json
import shutil

import numpy as np
import pytest

from ganvas.data.images import read_image
from ganvas.evaluation.metrics import l1
from ganvas.inference.translator import load


def test_translate_a_folder_each_way(cyclegan, trained, domains, tmp_path):
    for way, folder in (("a2b", "testA"), ("b2a", "testB")):
        code, out, err = cyclegan("translate", trained, domains / folder, tmp_path / way, "--direction", way, "--json")
        assert code == 0, err
        assert len(json.loads(out)["written"]) == len(list((domains / folder).iterdir()))
        for path in (domains / folder).iterdir():
            expected = load(trained, direction=way).translate(read_image(path))
            assert np.array_equal(read_image(tmp_path / way / path.name), expected)


def test_the_direction_must_be_said(cyclegan, trained, domains, tmp_path):
    code, _, err = cyclegan("translate", trained, domains / "testA", tmp_path / "out")
    assert code == 2
    assert "--direction" in err


def test_evaluate_without_truth(cyclegan, trained, domains):
    code, out, err = cyclegan("evaluate", trained, "--data", domains, "--json")
    assert code == 0, err
    result = json.loads(out)
    ways = {"sliced_wasserstein_a2b", "sliced_wasserstein_b2a"}
    assert set(result["metrics"]) == ways | {f"{kind}_l1_{d}" for kind in ("cycle", "identity") for d in "ab"}
    assert "baselines" not in result
    assert json.loads((trained / "evaluation.json").read_text())["metrics"] == result["metrics"]


def test_evaluate_against_the_truth(cyclegan, train, domains_with_truth, tmp_path):
    assert train(tmp_path / "run", data=domains_with_truth)[0] == 0
    code, out, err = cyclegan(
        "evaluate", tmp_path / "run", "--data", domains_with_truth, "--json", "--sheet", tmp_path / "sheet.png"
    )
    assert code == 0, err
    result = json.loads(out)
    assert {f"{m}_{w}" for m in ("l1", "psnr", "ssim") for w in ("a2b", "b2a")} <= set(result["metrics"])
    translator, scores = load(tmp_path / "run", direction="a2b"), []
    from ganvas.data.images import to_tensor

    for i in range(3):
        a, b = (to_tensor(read_image(domains_with_truth / f"test{d}" / f"{i}.png"))[None] for d in "AB")
        scores.append(l1(translator.translate_tensor(a), b).item())
    assert result["metrics"]["l1_a2b"]["mean"] == pytest.approx(np.mean(scores), rel=1e-5)
    assert set(result["baselines"]) == {f"{n} {w}" for n in ("flat", "copy", "colours matched") for w in ("a2b", "b2a")}
    assert result["baselines"]["copy a2b"]["l1"] == pytest.approx(result["baselines"]["copy b2a"]["l1"])
    assert result["baselines"]["flat a2b"]["l1"] < result["baselines"]["copy a2b"]["l1"]
    assert read_image(tmp_path / "sheet.png").shape[1] > 4 * 96


def test_report(cyclegan, trained):
    code, _, err = cyclegan("report", trained)
    assert code == 0, err
    assert "A → B" in (trained / "report.html").read_text()


def test_a_model_of_one_direction(cyclegan, trained, domains, tmp_path):
    shutil.copytree(trained / "model", tmp_path / "model")
    path = tmp_path / "model" / "config.json"
    config = json.loads(path.read_text())
    del config["networks"]["b2a"]
    path.write_text(json.dumps(config))
    code, _, err = cyclegan("evaluate", tmp_path / "model", "--data", domains)
    assert code == 2
    assert "direction b2a is not in this model; it has a2b" in err
    assert cyclegan("translate", tmp_path / "model", domains / "testA", tmp_path / "out", "--direction", "a2b")[0] == 0


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ("--channels-b 1", "--lambda-identity 0"),
        ("--gan-loss wgangp --discriminator-norm batch", "batch norm mixes the pictures"),
        ("--lambda-cycle 0", "nothing ties a translation to its source"),
        ("--batch-size 3 --accumulate 2", "does not divide"),
        ("--patch-layers 3", "needs 24 pixels"),
        ("--load-size 8", "smaller than --image-size"),
        ("--pool-size -1", "pool_size"),
    ],
)
def test_options_that_do_not_go_together(train, tmp_path, options, said):
    code, _, err = train(tmp_path / "run", *options.split())
    assert code == 2
    assert said in err
    assert err.count("error:") == 1


def test_bad_folders(train, own_domains, tmp_path):
    code, _, err = train(tmp_path / "run", data=tmp_path / "none")
    assert (code, "no such folder" in err) == (2, True)
    shutil.rmtree(own_domains / "trainB")
    code, _, err = train(tmp_path / "run", data=own_domains)
    assert (code, "trainB: is missing" in err) == (2, True)
    assert not (tmp_path / "run" / "model").exists()


def test_data_is_required(cyclegan, tmp_path):
    code, _, err = cyclegan("train", "--out", tmp_path / "run")
    assert (code, "--data is missing" in err) == (2, True)
