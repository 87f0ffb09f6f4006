"""Translation and evaluation of a trained model, both ways."""

import json
import shutil
import weakref

import numpy as np
import pytest
import torch
from PIL import Image

from cyclegan.evaluation import Domain, evaluate
from ganvas.data.decode import read_image
from ganvas.data.encode import write_image
from ganvas.data.tensors import to_array, to_tensor
from ganvas.errors import UserError
from ganvas.evaluation.distribution import frechet_distance
from ganvas.evaluation.feature_networks import FeatureVectors
from ganvas.evaluation.metric_set import load_metrics
from ganvas.evaluation.metrics import l1, sliced_wasserstein
from ganvas.evaluation.names import metric_options
from ganvas.inference.translator import Translator, load


def test_translate_a_folder_in_each_direction(cyclegan, trained, domains, tmp_path):
    for direction, folder in (("a2b", "testA"), ("b2a", "testB")):
        code, out, err = cyclegan(
            "translate", trained, domains / folder, tmp_path / direction, "--direction", direction, "--json"
        )
        assert code == 0, err
        assert len(json.loads(out)["written"]) == len(list((domains / folder).iterdir()))
        for path in (domains / folder).iterdir():
            expected = load(trained, direction=direction).translate(read_image(path))
            assert np.array_equal(read_image(tmp_path / direction / path.name), expected)


def test_direction_is_required(cyclegan, trained, domains, tmp_path):
    code, _, err = cyclegan("translate", trained, domains / "testA", tmp_path / "out")
    assert code == 2
    assert "choose a direction, a2b or b2a" in err


def test_only_a2b_and_b2a_are_directions(cyclegan, trained, domains, tmp_path):
    code, _, err = cyclegan("translate", trained, domains / "testA", tmp_path / "out", "--direction", "forwards")
    assert code == 2
    assert all(word in err for word in ("forwards", "a2b", "b2a"))
    assert not (tmp_path / "out").exists()


def test_evaluate_without_truth(cyclegan, trained, domains):
    code, out, err = cyclegan("evaluate", trained, "--data", domains, "--json")
    assert code == 0, err
    result = json.loads(out)
    of_sets = ("sliced_wasserstein", "sharpness", "spectrum")
    ways = {f"{key}_{direction}" for key in of_sets for direction in ("a2b", "b2a")}
    assert set(result["metrics"]) == ways | {f"{kind}_l1_{d}" for kind in ("cycle", "identity") for d in "ab"}
    assert "baselines" not in result
    translators = {direction: load(trained, direction=direction) for direction in ("a2b", "b2a")}

    def G(direction, image):
        return translators[direction].translate_exactly(image)

    for domain, there, back in (("a", "a2b", "b2a"), ("b", "b2a", "a2b")):
        images = [read_image(path) for path in sorted((domains / f"test{domain.upper()}").iterdir())]
        real = [to_tensor(image) for image in images]
        cycled = [G(back, to_array(G(there, image), np.float32)) for image in images]
        cycle = np.mean([(y - x).abs().mean().item() for x, y in zip(real, cycled, strict=True)])
        identity, other = (
            np.mean([(G(direction, image) - x).abs().mean().item() for image, x in zip(images, real, strict=True)])
            for direction in (back, there)
        )
        assert result["metrics"][f"cycle_l1_{domain}"]["mean"] == pytest.approx(cycle, rel=1e-5)
        assert result["metrics"][f"identity_l1_{domain}"]["mean"] == pytest.approx(identity, rel=1e-5)
        assert identity != pytest.approx(other, rel=1e-3)  # or the wrong generator would go unnoticed
    assert json.loads((trained / "evaluation.json").read_text())["metrics"] == result["metrics"]


def test_evaluate_by_names(cyclegan, trained, domains, feature_file):
    names = ["--metrics", "fid,kid,swd,spectrum", "--feature-weights", feature_file]
    code, out, err = cyclegan("evaluate", trained, "--data", domains, "--json", *names)
    assert code == 0, err
    result = json.loads(out)
    counts = {domain: len(list((domains / f"test{domain}").iterdir())) for domain in "AB"}
    metrics = load_metrics(metric_options("fid,kid", feature_weights=feature_file), "cpu")
    for direction, source, target in (("a2b", "A", "B"), ("b2a", "B", "A")):
        translator, sets = load(trained, direction=direction), []
        for folder, change in ((f"test{source}", translator.translate_exactly), (f"test{target}", to_tensor)):
            paths = sorted((domains / folder).iterdir())
            sets.append(FeatureVectors(metrics.features))
            for path in paths:
                sets[-1].add(change(read_image(path)))
        output, real = (each.vectors().double() for each in sets)
        fid = result["metrics"][f"fid_{direction}"]
        assert fid["mean"] == pytest.approx(frechet_distance(real, output), rel=1e-4)
        assert fid["n"] == min(counts.values())
        protocol = result["protocol"][direction]
        assert (protocol["n"], protocol["n_real"]) == (counts[source], counts[target])
        assert protocol["real"] == f"{counts[source]} images of train against {counts[target]} of test"
        assert {f"{key}_{direction}" for key in ("fid", "kid", "sliced_wasserstein", "spectrum")} <= set(result["real"])


def test_a_metric_of_pairs_is_refused_where_there_are_none(cyclegan, trained, domains):
    code, _, err = cyclegan("evaluate", trained, "--data", domains, "--metrics", "swd,ms-ssim")
    assert code == 2
    assert "--metrics ms-ssim: compares an image with its own target" in err
    assert '"pairs" in dataset.json' in err


@pytest.mark.slow
@pytest.mark.essential
def test_evaluate_against_the_truth(cyclegan, train, domains_with_truth, tmp_path):
    assert train(tmp_path / "run", data=domains_with_truth)[0] == 0
    code, out, err = cyclegan(
        "evaluate", tmp_path / "run", "--data", domains_with_truth, "--json", "--sheet", tmp_path / "sheet.png"
    )
    assert code == 0, err
    result = json.loads(out)
    assert {f"{m}_{w}" for m in ("l1", "psnr", "ssim") for w in ("a2b", "b2a")} <= set(result["metrics"])
    translator, scores = load(tmp_path / "run", direction="a2b"), []
    for i in range(3):
        a, b = (read_image(domains_with_truth / f"test{d}" / f"{i}.png") for d in "AB")
        b = to_tensor(b)[None]
        scores.append(l1(translator.translate_exactly(a)[None], b).item())
    assert result["metrics"]["l1_a2b"]["mean"] == pytest.approx(np.mean(scores), rel=1e-5)
    trivial = {f"{how} {where}" for how in ("flat", "colors matched") for where in ("to train", "to the truth")}
    assert set(result["baselines"]) == {
        f"{name} {direction}" for name in {"copy"} | trivial for direction in ("a2b", "b2a")
    }
    assert result["baselines"]["copy a2b"]["l1"] == pytest.approx(result["baselines"]["copy b2a"]["l1"])
    flat, truth = (
        torch.cat([to_tensor(read_image(path)).flatten(1) for path in sorted(folder.iterdir())], dim=1)
        for folder in (domains_with_truth / "trainB", domains_with_truth / "testB")
    )
    for where, color in (("to train", flat), ("to the truth", truth)):
        expected = (truth - color.median(dim=1).values[:, None]).abs().mean().item()
        assert result["baselines"][f"flat {where} a2b"]["l1"] == pytest.approx(expected, rel=1e-5)
    assert result["baselines"]["flat to the truth a2b"]["l1"] < result["baselines"]["copy a2b"]["l1"]
    assert read_image(tmp_path / "sheet.png").shape[1] > 4 * 96
    assert json.loads((tmp_path / "run" / "evaluation.json").read_text()) == result
    assert cyclegan("report", tmp_path / "run")[0] == 0
    assert "colors matched" in (tmp_path / "run" / "report.html").read_text()


@pytest.mark.parametrize("sizes", [(20,) * 12, (20, 28) * 6])
@pytest.mark.slow
def test_memory_does_not_grow_with_the_number_of_images(trained, own_domains, monkeypatch, sizes):
    write_pairs(own_domains, sizes, sizes)
    held, most = [], []

    def tracked(function, of):
        def call(*arguments):
            result = function(*arguments)
            held.append(weakref.ref(of(result)))
            most.append(sum(reference() is not None for reference in held))
            return result

        return call

    monkeypatch.setattr(Domain, "read", tracked(Domain.read, lambda image: image))
    monkeypatch.setattr(Translator, "translate_exactly", tracked(Translator.translate_exactly, lambda image: image))
    assert evaluate(trained, data=own_domains)["pictures"] == 24
    assert len(most) > 24 * 5
    assert max(most) <= 8  # of one image and of the one before


def write_pairs(root, sizes_a, sizes_b):
    """Replace the test images by pairs of these sizes."""
    rng = np.random.default_rng(0)
    for domain, sizes in (("A", sizes_a), ("B", sizes_b)):
        shutil.rmtree(root / f"test{domain}")
        (root / f"test{domain}").mkdir()
        for i, size in enumerate(sizes):
            photo = rng.integers(0, 256, (size, size, 3), dtype=np.uint8)
            Image.fromarray(photo).save(root / f"test{domain}" / f"{i}.png")
    (root / "dataset.json").write_text('{"pairs": true}')


def test_pairs_of_unequal_sizes_are_noted_and_not_compared(cyclegan, trained, own_domains):
    write_pairs(own_domains, (20, 20), (20, 28))
    code, out, err = cyclegan("evaluate", trained, "--data", own_domains, "--json")
    assert code == 0, err
    result = json.loads(out)
    assert not {"l1_a2b", "l1_b2a"} & set(result["metrics"])
    message = f"{own_domains / 'testA' / '1.png'} is 20x20 pixels and {own_domains / 'testB' / '1.png'} 28x28"
    assert message in result["notes"][0]
    assert message in err


def test_patches_of_images_of_several_sizes_have_the_networks_size(cyclegan, trained, own_domains):
    write_pairs(own_domains, (20, 28, 16), (20, 28, 16))
    code, out, err = cyclegan("evaluate", trained, "--data", own_domains, "--json")
    assert code == 0, err
    result = json.loads(out)
    assert "l1_a2b" in result["metrics"]
    assert "16 pixels a side" in err
    for direction, source, target in (("a2b", "testA", "testB"), ("b2a", "testB", "testA")):
        translator = load(trained, direction=direction)
        sources, targets = (
            [translator.prepare(read_image(own_domains / folder / f"{i}.png")).values[None] for i in range(3)]
            for folder in (source, target)
        )
        with torch.no_grad():
            outputs = torch.cat([translator.network(one) for one in sources])
        expected = sliced_wasserstein(outputs, torch.cat(targets)).mean
        assert result["metrics"][f"sliced_wasserstein_{direction}"]["mean"] == pytest.approx(expected, rel=1e-4)
        expected = sliced_wasserstein(torch.cat(sources), torch.cat(targets)).mean
        assert result["baselines"][f"copy {direction}"]["sliced_wasserstein"] == pytest.approx(expected, rel=1e-4)


@pytest.mark.slow
def test_patches_of_a_model_of_crops_are_central(cyclegan, train, own_domains, tmp_path):
    assert train(tmp_path / "run", "--load-size", 0, "--steps", 2, data=own_domains)[0] == 0
    write_pairs(own_domains, (20, 28), (20, 28))
    code, out, err = cyclegan("evaluate", tmp_path / "run", "--data", own_domains, "--json")
    assert code == 0, err
    sources, targets = (
        torch.stack(
            [
                to_tensor(read_image(own_domains / folder / f"{i}.png"))[:, edge:-edge, edge:-edge]
                for i, edge in ((0, 2), (1, 6))
            ]
        )
        for folder in ("testA", "testB")
    )
    expected = sliced_wasserstein(sources, targets).mean
    assert json.loads(out)["baselines"]["copy a2b"]["sliced_wasserstein"] == pytest.approx(expected, rel=1e-4)


def test_missing_distance_is_noted(cyclegan, trained, own_domains):
    write_pairs(own_domains, (6, 6), (6, 6))
    code, out, err = cyclegan("evaluate", trained, "--data", own_domains, "--json")
    assert code == 0, err
    assert "sliced_wasserstein_a2b" not in json.loads(out)["metrics"]
    assert json.loads(out)["notes"][0].startswith("No sliced Wasserstein distance")
    assert "No sliced Wasserstein distance" in err


@pytest.mark.parametrize(("limit", "count"), [(1, 2), (2, 4), (99, 5)])
def test_a_limit_holds_for_each_domain(cyclegan, trained, domains, limit, count):
    code, out, err = cyclegan("evaluate", trained, "--data", domains, "--limit", limit, "--json")
    assert code == 0, err
    assert json.loads(out)["pictures"] == count


def test_limit_of_zero_is_refused(cyclegan, trained, domains):
    code, _, err = cyclegan("evaluate", trained, "--data", domains, "--limit", 0)
    assert (code, "--limit is 0" in err) == (2, True)


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
    results = [
        json.loads(cyclegan("evaluate", path, "--data", domains, "--json")[1]) for path in (tmp_path / "model", trained)
    ]
    of_one, of_both = (result["metrics"] for result in results)
    assert of_one == {name: score for name, score in of_both.items() if name.endswith("_a2b")}
    with pytest.raises(UserError, match=r"model: direction b2a is not in this model"):
        load(tmp_path / "model", direction="b2a")
    for direction, expected in (("a2b", 0), ("b2a", 2)):
        arguments = (tmp_path / "model", domains / "testA", tmp_path / direction, "--direction", direction)
        assert cyclegan("translate", *arguments)[0] == expected


@pytest.mark.parametrize("direction", ["a2b", "b2a"])
def test_a_model_of_one_direction_reads_the_other_domain_as_its_targets(
    train, own_domains, tmp_path, cyclegan, direction
):
    """One domain is gray and of 16 bits: its images need that domain's channels and range."""
    for path in own_domains.glob("*B/*.png"):
        write_image(path, read_image(path)[..., :1].astype(np.uint16) * 10)
    options = ["--objective", "fastcut", "--direction", direction, "--pool-size", 50, "--nce-patches", 9, "--steps", 1]
    options += ["--value-range", "0:255", "--value-range-b", "0:2550"]
    assert train(tmp_path / "run", *options, data=own_domains)[0] == 0
    code, out, err = cyclegan(
        "evaluate", tmp_path / "run", "--data", own_domains, "--json", "--metrics", "sharpness,spectrum"
    )
    assert code == 0, err
    result = json.loads(out)
    assert {name.rpartition("_")[2] for name in result["metrics"]} == {direction}
    assert result["pictures"] == 5
    # The real images of the target domain are compared with one another, so their values are in range.
    assert 0.5 < result["real"][f"sharpness_{direction}"]["mean"] < 2


def test_a_model_of_another_kind_is_not_scored(cyclegan, trained, domains, tmp_path):
    shutil.copytree(trained / "model", tmp_path / "model")
    path = tmp_path / "model" / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"kind": "pix2pix"}))
    code, _, err = cyclegan("evaluate", tmp_path / "model", "--data", domains)
    assert code == 2
    assert "is a model of pix2pix. Use the command pix2pix with it." in err


@pytest.mark.parametrize("writer", ["ganvas.evaluation.results.write_json", "ganvas.data.encode.write_image"])
def test_metrics_are_printed_before_a_full_disk_is_reported(cyclegan, trained, domains, tmp_path, full_disk, writer):
    full_disk(writer)
    code, out, err = cyclegan("evaluate", trained, "--data", domains, "--json", "--sheet", tmp_path / "sheet.png")
    assert code == 2
    assert "cannot be written (No space left on device)" in err
    assert json.loads(out)["pictures"] == 5
    assert (tmp_path / "sheet.png").exists() == ("json" in writer)


def test_one_image_has_no_interval(cyclegan, trained, domains):
    code, out, err = cyclegan("evaluate", trained / "model", "--data", domains, "--json", "--limit", 1)
    assert code == 0, err
    result = json.loads(out)
    assert all("mean" in score and not {"low", "high"} & set(score) for score in result["metrics"].values())
    assert result["notes"] == ["No 95% intervals: one image says nothing about the spread."]


def test_sheet_that_cannot_be_written_is_refused_first(cyclegan, trained, domains, tmp_path, monkeypatch):
    monkeypatch.setattr("cyclegan.evaluation.load_model", None)  # calling it would be another error
    code, _, err = cyclegan("evaluate", trained, "--data", domains, "--sheet", tmp_path / "sheet.txt")
    assert code == 2
    assert "sheet.txt: .txt is not an image format" in err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("--channels-a 3 --channels-b 1", "--lambda-identity 0"),
        ("--channels-b 1", "--lambda-identity 0"),
        ("--gan-loss wgangp --discriminator-norm batch", "batch norm mixes images"),
        ("--lambda-cycle 0", "nothing ties a translation to its source"),
        ("--batch-size 3 --grad-accum-steps 2", "does not divide"),
        ("--patch-layers 3", "needs 24 pixels"),
        ("--load-size 8", "smaller than --image-size"),
        ("--levels 3", "levels 3: only --generator unet has levels"),
        ("--generator unet", "num_blocks 1: only --generator resnet has blocks"),
        ("--schedule plateau", "has no val split (it has: train, test)"),
        ("--decay-steps 7", "--decay-steps 7 is more than --steps 6"),
        ("--steps None --decay-steps 7", "--decay-steps 7 belongs to --steps"),
        ("--lambda-gp 5", "lambda_gp 5: --gan-loss lsgan has no gradient penalty"),
        ("--save-best-by l1,swd", "--save-best-by l1: compares an image with its own target"),
        ("--save-best-by sharpness", "sharpness and spectrum alone ignore where the detail is"),
        ("--save-best-by swd", "has no val split (it has: train, test)"),
        ("--direction b2a", "--direction b2a with --objective cycle, which trains both"),
        ("--lambda-nce 1", "--lambda-nce 1 with --objective cycle, which has no PatchNCE"),
        ("--nce-patches 9", "--nce-patches 9 with --objective cycle, which has no PatchNCE"),
        ("--r1 1 --discriminator-norm batch", "--r1 1 with --discriminator-norm batch"),
        ("--resampling blur --generator unet --num-blocks None", "--resampling blur with --generator unet"),
        ("--resampling blur --upsampling resize", "--upsampling resize with --resampling blur, which has its own"),
        ("--norm layer --base-channels 3", "--base-channels 3 with --norm layer, which normalizes over the channels"),
        ("--discriminator-resampling blur --patch-layers 0", "discriminator_resampling blur with --patch-layers 0"),
    ],
)
def test_bad_combinations(train, tmp_path, options, message):
    code, _, err = train(tmp_path / "run", *options.split())
    assert code == 2
    assert message in err
    assert err.count("error:") == 1


@pytest.mark.parametrize("objective", ["cut", "fastcut"])
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("--lambda-cycle 5", "--lambda-cycle 5 with --objective {}, which has no cycles"),
        ("--lambda-identity 0", "--lambda-identity 0 with --objective {}, which has no cycles"),
        ("--pool-size 3", "pool_size 3 with --objective {}, which trains D on the newest"),
        ("--batch-size 2 --grad-accum-steps 2", "--grad-accum-steps 2 with --objective {}, which does not"),
        ("--activation-checkpointing", "--activation-checkpointing with --objective {}, which does not"),
        ("--generator unet --num-blocks None", "--objective {} compares features of a ResNet"),
        ("--lambda-nce 0", "nothing ties a translation to its source"),
        ("--norm batch", "--norm batch with --objective {}: an image's features would depend on the other images"),
        ("--dropout 0.5", "dropout 0.5 with --objective {}: features of the same image would differ"),
        ("--nce-patches 17", "has 16 locations in the generator's blocks, and --objective {} compares 17 patches"),
    ],
)
def test_options_that_cut_ignores(train, tmp_path, objective, options, message):
    given = ["--objective", objective, "--pool-size", 50, "--nce-patches", 16, *options.split()]
    code, _, err = train(tmp_path / "run", *given)
    assert code == 2
    assert message.format(objective) in err
    assert err.count("error:") == 1
    assert not (tmp_path / "run").exists()


def test_mirrored_patches_need_an_even_size(train, tmp_path):
    given = "--objective fastcut --pool-size 50 --nce-patches 16 --image-size 17 --load-size 17"
    code, _, err = train(tmp_path / "run", *given.split())
    assert code == 2
    assert "--image-size 17 with --objective fastcut" in err
    assert "Use an even number." in err


@pytest.mark.parametrize("objective", ["cut", "fastcut"])
def test_features_of_both_domains_need_equal_channels(train, tmp_path, objective):
    given = f"--objective {objective} --pool-size 50 --nce-patches 16 --channels-a 3 --channels-b 1"
    code, _, err = train(tmp_path / "run", *given.split())
    assert code == 2
    assert "channels_a 3 and channels_b 1 differ" in err
    assert "Use --objective cycle --lambda-identity 0" in err


@pytest.mark.parametrize("option", ["--objective", "--preset"])
def test_an_option_without_a_value_is_one_message(cyclegan, domains, tmp_path, option):
    code, _, err = cyclegan("train", "--data", domains, "--out", tmp_path / "run", option)
    assert code == 2
    assert f"Missing value for argument '{option}'" in err
    assert "usage:" not in err


def test_another_objective_cannot_be_resumed(cyclegan, trained, tmp_path):
    shutil.copytree(trained, tmp_path / "run")
    code, _, err = cyclegan("train", "--out", tmp_path / "run", "--resume", "--objective", "cut")
    assert code == 2
    assert "it cannot change --objective (was 'cycle', now 'cut')" in err
    assert "epochs" not in err  # of the objective's preset


@pytest.mark.parametrize(
    ("options", "layers", "seen"),
    [
        ("", 3, 70),
        ("--resampling blur", 3, 70 + 2 * (1 + 2 + 4)),  # a filter [1, 2, 1] at the jump of each layer
        ("--resampling blur --target 84", 3, 84),
        ("--resampling blur --target 40", 2, 34 + 2 * (1 + 2)),
        ("--resampling blur --target 1", 0, 1),
    ],
)
def test_receptive_field(cyclegan, options, layers, seen):
    code, out, err = cyclegan("receptive-field", "--json", *options.split())
    assert code == 0, err
    result = json.loads(out)
    assert (result["layers"], result["networks"]["discriminator"]["size"]) == (layers, seen)


def no_folder(root):
    shutil.rmtree(root)


def no_domain(root):
    shutil.rmtree(root / "trainB")


def empty_domain(root):
    no_domain(root)
    (root / "trainB").mkdir()


def side_by_side(root):
    no_domain(root)
    (root / "trainA").rename(root / "train")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (no_folder, "there is no such folder"),
        (no_domain, "trainB: there is no such folder, while"),
        (empty_domain, "trainB: holds no images"),
        (side_by_side, "Pairs are for the command pix2pix"),
    ],
)
def test_bad_folders(train, own_domains, tmp_path, damage, message):
    damage(own_domains)
    code, _, err = train(tmp_path / "run", data=own_domains)
    assert (code, err.count("error:")) == (2, 1)
    assert message in err
    assert not (tmp_path / "run").exists()


def test_bad_val_split_is_named(train, own_domains, tmp_path):
    shutil.rmtree(own_domains / "testB")
    code, _, err = train(tmp_path / "run", data=own_domains)
    assert code == 2
    assert "testB: there is no such folder" in err
    assert "split test is held out for samples and validation" in err


def test_wrong_channels_are_refused_with_options_of_this_command(train, tmp_path):
    code, _, err = train(tmp_path / "run", "--channels-a", 4, "--channels-b", 4)
    assert code == 2
    assert "3 channels, 4 are expected" in err
    assert "source_channels" not in err


def test_data_is_required(cyclegan, tmp_path):
    code, _, err = cyclegan("train", "--out", tmp_path / "run")
    assert (code, "--data is missing" in err) == (2, True)
