"""Translate, evaluate, report and receptive-field through the real command line, and the same from Python."""

import json
import shutil
import subprocess
import sys
import weakref
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from PIL import Image
from scipy.linalg import sqrtm

import ganvas
import pix2pix as pix2pix_package
from ganvas.data.decode import read_image
from ganvas.data.encode import write_image
from ganvas.data.paired import PairedDataset
from ganvas.files import sha256
from ganvas.inference.translator import Translator
from ganvas.models.folder import load_model
from pix2pix.evaluation import evaluate

ROOT = Path(__file__).parents[2]
PALETTE = {"land": [240, 240, 220], "water": [140, 200, 240]}


def pixels(path):
    with Image.open(path) as image:
        return np.asarray(image)


def image_size(path):
    with Image.open(path) as image:
        return image.size


@pytest.fixture
def maps(tmp_path):
    """A folder of sources in many sizes and kinds."""
    folder, rng = tmp_path / "maps", np.random.default_rng(0)
    folder.mkdir()
    for name, (width, height) in {"a.png": (32, 32), "b.png": (47, 33), "one.png": (1, 1), "c.bmp": (64, 16)}.items():
        Image.fromarray(rng.integers(0, 256, (height, width, 3), dtype=np.uint8)).save(folder / name)
    Image.fromarray(rng.integers(0, 256, (20, 30), dtype=np.uint8)).save(folder / "gray.png")
    cv2.imwrite(str(folder / "deep.png"), rng.integers(0, 65536, (24, 24), dtype=np.uint16))
    (folder / "notes.txt").write_text("not an image")
    return folder


def test_a_folder_keeps_names_sizes_and_depth(pix2pix, trained, maps, tmp_path):
    code, out, err = pix2pix("translate", trained, maps, tmp_path / "out", "--json")
    assert code == 0, err
    written = json.loads(out)
    assert sorted(Path(path).name for path in written["written"]) == sorted(
        path.name for path in maps.iterdir() if path.suffix != ".txt"
    )
    assert written["failed"] == []
    for path in (tmp_path / "out").iterdir():
        before = cv2.imread(str(maps / path.name), cv2.IMREAD_UNCHANGED)
        after = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
        assert after.shape == (*before.shape[:2], 3), path
        assert after.dtype == before.dtype, path


@pytest.fixture
def ranged(trained, tmp_path):
    """A run whose training was on 8 bits with a range of its own."""
    run = shutil.copytree(trained, tmp_path / "ranged")
    config = json.loads((run / "model" / "config.json").read_text())
    config["preprocessing"] |= {"source_range": [0, 255], "target_range": [0, 255]}
    (run / "model" / "config.json").write_text(json.dumps(config))
    return run


@pytest.fixture
def two_depths(tmp_path):
    """A folder with one image of 8 bits, and the same of 16."""
    image = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    write_image(tmp_path / "depths" / "a.png", image)
    write_image(tmp_path / "depths" / "b.png", image.astype(np.uint16) * 257)
    return tmp_path / "depths"


def test_16_bits_are_translated_in_full_by_a_model_of_8(pix2pix, trained, two_depths, tmp_path):
    code, _, err = pix2pix("translate", trained, two_depths, tmp_path / "out", "--precision", "fp32")
    assert code == 0, err
    shallow, deep = (read_image(tmp_path / "out" / name) for name in ("a.png", "b.png"))
    assert (shallow.dtype, deep.dtype) == (np.uint8, np.uint16)
    assert len(np.unique(deep)) > 100
    assert np.abs(deep / 257 - shallow).max() < 0.51


@pytest.mark.parametrize("options", [[], ["--tile", 32, "--overlap", 8]])
def test_16_bits_beyond_the_range_of_a_model_of_8_are_refused(pix2pix, ranged, two_depths, tmp_path, options):
    code, _, err = pix2pix("translate", ranged, two_depths, tmp_path / "out", *options)
    assert code == 2
    assert "b.png: holds uint16 values of" in err
    assert "uint8 images" in err
    assert "a.png: holds" not in err
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["a.png"]


def test_evaluate_refuses_what_translate_refuses(pix2pix, ranged, two_depths, tmp_path):
    both = read_image(two_depths / "b.png")
    write_image(tmp_path / "data" / "test" / "x.png", np.concatenate([both, both], axis=1))
    code, _, err = pix2pix("evaluate", ranged, "--data", tmp_path / "data")
    assert code == 2
    assert "x.png: holds uint16 values of" in err


def test_translation_is_deterministic_and_not_the_source(pix2pix, trained, maps, tmp_path):
    for name in ("first", "second"):
        assert pix2pix("translate", trained, maps, tmp_path / name)[0] == 0
    for path in (tmp_path / "first").iterdir():
        assert sha256(path) == sha256(tmp_path / "second" / path.name)
    assert sha256(tmp_path / "first" / "a.png") != sha256(maps / "a.png")


def test_paper_mode_is_random_with_a_seed(pix2pix, trained, maps, tmp_path):
    for name, options in {"plain": [], "x": ["--paper"], "y": ["--paper"], "z": ["--paper", "--seed", "1"]}.items():
        assert pix2pix("translate", trained, maps / "a.png", tmp_path / name / "a.png", *options)[0] == 0
    digests = {name: sha256(tmp_path / name / "a.png") for name in ("plain", "x", "y", "z")}
    assert digests["x"] == digests["y"]
    assert len(set(digests.values())) == 3


def test_one_image_to_a_file_or_into_a_folder(pix2pix, trained, maps, tmp_path):
    assert pix2pix("translate", trained, maps / "b.png", tmp_path / "named.jpg")[0] == 0
    assert image_size(tmp_path / "named.jpg") == (47, 33)
    assert pix2pix("translate", trained, maps / "b.png", tmp_path / "folder")[0] == 0
    assert (tmp_path / "folder" / "b.png").is_file()


def test_native_size_differs_from_trained_size(pix2pix, trained, maps, tmp_path):
    assert pix2pix("translate", trained, maps / "b.png", tmp_path / "t.png")[0] == 0
    assert pix2pix("translate", trained, maps / "b.png", tmp_path / "n.png", "--size", "native")[0] == 0
    assert image_size(tmp_path / "n.png") == (47, 33)
    assert sha256(tmp_path / "n.png") != sha256(tmp_path / "t.png")


@pytest.mark.parametrize("kind", ["pil", np.uint8, np.uint16, np.float32])
def test_translate_returns_the_type_of_its_input(trained, kind):
    array = np.random.default_rng(1).random((33, 47, 3))
    image = {np.uint8: 255, np.uint16: 65535, np.float32: 1}.get(kind, 255) * array
    model = ganvas.load(trained)
    if kind == "pil":
        result = model.translate(Image.fromarray(image.astype(np.uint8)))
        assert isinstance(result, Image.Image)
        assert (result.size, result.mode) == ((47, 33), "RGB")
    else:
        result = model.translate(image.astype(kind))
        assert (result.shape, result.dtype) == ((33, 47, 3), kind)


def test_python_and_command_line_agree_and_match_the_bare_network(pix2pix, trained, maps, tmp_path):
    source = pixels(maps / "a.png")
    for precision in ("auto", "fp32"):
        out = tmp_path / precision / "a.png"
        assert pix2pix("translate", trained, maps / "a.png", out, "--precision", precision)[0] == 0
        assert np.array_equal(ganvas.load(trained, precision=precision).translate(source), pixels(out))
    by_command = pixels(out)
    config, networks = load_model(trained)
    if config.statistics == "running":
        x = torch.from_numpy(source / 127.5 - 1).float().permute(2, 0, 1)[None]
        with torch.no_grad():
            y = networks["a2b"](x)[0].permute(1, 2, 0).numpy()
        assert np.abs((y + 1) * 127.5 - by_command).max() <= 0.51


def test_translate_folder(trained, maps, tmp_path):
    written = ganvas.load(trained).translate_folder(maps, tmp_path / "out")
    assert len(written) == 6
    assert all(path.is_file() for path in written)


def test_evaluate_equals_an_independent_computation(pix2pix, trained, pairs, tmp_path):
    sheet = tmp_path / "sheet.png"
    code, out, err = pix2pix("evaluate", trained, "--data", pairs, "--json", "--sheet", sheet, "--out", tmp_path / "o")
    assert code == 0, err
    result = json.loads(out)
    assert result["pictures"] == 3
    l1, psnr = [], []
    model = ganvas.load(trained)
    for i in range(3):
        both = pixels(pairs / "test" / f"{i}.png")
        source, target = both[:, :32], both[:, 32:]
        output = model.translate(source.astype(np.float32) / 255)
        difference = 2 * (output - target / 255.0)  # in [-1, 1] images
        l1.append(np.abs(difference).mean())
        psnr.append(10 * np.log10(4 / np.square(difference).mean()))
    assert result["metrics"]["l1"]["mean"] == pytest.approx(np.mean(l1), rel=1e-4)
    assert result["metrics"]["psnr"]["mean"] == pytest.approx(np.mean(psnr), rel=1e-4)
    assert [row["name"] for row in result["per_picture"]] == ["0", "1", "2"]
    assert [row["l1"] for row in result["per_picture"]] == pytest.approx(l1, rel=1e-4)
    low, high = (result["metrics"]["l1"][side] for side in ("low", "high"))
    assert min(l1) - 1e-6 <= low <= np.mean(l1) <= high <= max(l1) + 1e-6
    assert image_size(sheet)[0] > 3 * 32
    assert sorted(path.name for path in (tmp_path / "o").iterdir()) == ["0.png", "1.png", "2.png"]
    assert json.loads((trained / "evaluation.json").read_text()) == result


def independent_detail(images):
    """Mean length of the gradient, and energy above 1/8 cycle a pixel, of [H, W, 3] images in [-1, 1]."""
    gradients, energies = [], []
    for image in images:
        y, x = image[1:, :-1] - image[:-1, :-1], image[:-1, 1:] - image[:-1, :-1]
        gradients.append(np.hypot(x, y).mean())
        window = np.outer(np.hanning(image.shape[0]), np.hanning(image.shape[1]))[:, :, None]
        spectrum = np.abs(np.fft.fft2((image - image.mean(axis=(0, 1))) * window, axes=(0, 1))) ** 2
        rows, columns = (np.fft.fftfreq(side) for side in image.shape[:2])
        energies.append(spectrum[np.hypot(rows[:, None], columns) > 1 / 8].sum())
    return np.mean(gradients), np.mean(energies)


@pytest.mark.filterwarnings("ignore:.*torch.jit.load:FutureWarning")
def test_evaluate_by_names(pix2pix, trained, pairs, feature_file, distance_file):
    names = ["l1", "lpips", "fid", "kid", "swd", "sharpness", "spectrum"]
    networks = ["--feature-weights", feature_file, "--lpips-weights", distance_file]
    code, out, err = pix2pix("evaluate", trained, "--data", pairs, "--json", "--metrics", ",".join(names), *networks)
    assert code == 0, err
    result = json.loads(out)
    found = result["metrics"]
    assert set(found) == {"sliced_wasserstein" if name == "swd" else name for name in names}
    model = ganvas.load(trained)
    both = [pixels(pairs / "test" / f"{i}.png") for i in range(3)]
    outputs = [2 * model.translate(image[:, :32].astype(np.float32) / 255) - 1 for image in both]
    targets = [image[:, 32:] / 127.5 - 1 for image in both]

    largest = [np.abs(x - y).max() for x, y in zip(outputs, targets, strict=True)]
    assert found["lpips"]["mean"] == pytest.approx(np.mean(largest), rel=1e-4)
    assert [row["lpips"] for row in result["per_picture"]] == pytest.approx(largest, rel=1e-4)
    detail = np.divide(independent_detail(outputs), independent_detail(targets))
    assert [found["sharpness"]["mean"], found["spectrum"]["mean"]] == pytest.approx(detail, rel=1e-3)
    assert found["sharpness"]["low"] <= found["sharpness"]["mean"] <= found["sharpness"]["high"]

    network, features = torch.jit.load(feature_file), []
    for images in (outputs, targets):
        eight_bits = [Image.fromarray(np.rint((image + 1) * 127.5).astype(np.uint8)) for image in images]
        resized = [np.array(image.resize((299, 299), Image.Resampling.BICUBIC)) for image in eight_bits]
        features.append(network(torch.from_numpy(np.stack(resized)).permute(0, 3, 1, 2)).detach().double().numpy())
    x, y = features  # [3, 6] each
    gap = x.mean(axis=0) - y.mean(axis=0)
    root = sqrtm(np.cov(x, rowvar=False) @ np.cov(y, rowvar=False)).real
    expected = gap @ gap + x.var(axis=0, ddof=1).sum() + y.var(axis=0, ddof=1).sum() - 2 * np.trace(root)
    assert found["fid"]["mean"] == pytest.approx(expected, rel=1e-3)
    assert found["fid"]["n"] == found["kid"]["n"] == found["kid"]["subset_size"] == 3
    assert set(result["real"]) == {"sliced_wasserstein", "fid", "kid", "sharpness", "spectrum"}
    assert result["protocol"]["real"] == "3 images of train against 3 of test"
    assert result["protocol"]["features"]["sha256"] == sha256(feature_file)
    assert result["protocol"]["lpips"]["sha256"] == sha256(distance_file)
    assert (result["protocol"]["size"], result["protocol"]["n"]) == ("32x32", 3)
    assert "FID of 3 images" in result["notes"][0]
    assert evaluate(trained, data=pairs)["protocol"].keys() == {"images", "size", "range", "n", "n_real", "real"}


def test_real_images_are_scored_like_a_model(pix2pix, trained, own_pairs, tmp_path):
    """A split against its own images in another split is as near as can be."""
    for path in (own_pairs / "train").iterdir():
        path.unlink()
    for path in (own_pairs / "test").iterdir():
        shutil.copy(path, own_pairs / "train" / path.name)
    code, out, err = pix2pix("evaluate", trained / "model", "--data", own_pairs, "--json")
    assert code == 0, err
    real = json.loads(out)["real"]
    assert real["sliced_wasserstein"]["mean"] == pytest.approx(0, abs=1e-6)
    assert real["sharpness"]["mean"] == real["spectrum"]["mean"] == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--metrics", "l1,ssmi"], "--metrics: there is no metric 'ssmi'. Did you mean ssim?"),
        (["--metrics", "ms-ssim"], "0.png: is 32x32 pixels; ms-ssim needs 176 pixels a side. Leave ms-ssim out."),
        (["--feature-weights", "net.pt"], "--feature-weights net.pt: none of --metrics l1,psnr"),
        (["--metrics", "kid", "--kid-subset-size", "4"], "--kid-subset-size 4: PAIRS: test has only 3 images"),
        (["--metrics", "fid", "--feature-weights", "none.pt"], "--feature-weights none.pt: there is no such file"),
    ],
)
def test_bad_metrics_are_refused(pix2pix, trained, pairs, feature_file, options, message):
    if "--kid-subset-size" in options:
        options = [*options, "--feature-weights", feature_file]
    code, out, err = pix2pix("evaluate", trained, "--data", pairs, *options)
    assert code == 2
    assert message.replace("PAIRS", str(pairs)) in err
    assert out == ""
    assert err.strip().startswith("pix2pix: error:")
    assert "\n" not in err.strip()


def test_python_takes_names_and_refuses_a_typo(trained, pairs):
    assert set(pix2pix_package.evaluate(trained, pairs, metrics=["psnr"])["metrics"]) == {"psnr"}
    with pytest.raises(ganvas.UserError, match="Did you mean psnr"):
        pix2pix_package.evaluate(trained, pairs, metrics="pnsr")


def test_memory_does_not_grow_with_the_number_of_images(trained, own_pairs, monkeypatch):
    for number in range(10):
        shutil.copy(own_pairs / "test" / "0.png", own_pairs / "test" / f"copy-{number}.png")
    (own_pairs / "dataset.json").write_text(json.dumps({"legend": PALETTE}))
    held, most = [], []

    def tracked(function):
        def call(*arguments):
            results = function(*arguments)
            for result in results if isinstance(results, tuple) else [results]:
                held.append(weakref.ref(result))
            most.append(sum(reference() is not None for reference in held))
            return results

        return call

    monkeypatch.setattr(PairedDataset, "pair", tracked(PairedDataset.pair))
    monkeypatch.setattr(Translator, "translate_exactly", tracked(Translator.translate_exactly))
    assert evaluate(trained, data=own_pairs)["pictures"] == 13
    assert len(most) == 3 * 13
    assert max(most) <= 6  # source, target and output of one pair, and of the one before


def test_evaluate_with_the_trivial_baseline(pix2pix, trained, own_pairs):
    (own_pairs / "dataset.json").write_text(json.dumps({"name": "blobs", "legend": PALETTE}))
    code, out, err = pix2pix("evaluate", trained, "--data", own_pairs, "--json")
    assert code == 0, err
    result = json.loads(out)
    medians = []
    for path in sorted((own_pairs / "test").iterdir()):
        both = pixels(path).astype(int)
        medians.append((np.abs(both[:, :32, None] - list(PALETTE.values())).sum(axis=3).argmin(axis=2), both[:, 32:]))
    classes, targets = (np.concatenate(each) for each in zip(*medians, strict=True))
    painted = np.zeros(targets.shape)
    for number in range(2):
        painted[classes == number] = np.rint(np.median(targets[classes == number], axis=0))
    assert result["baseline"]["l1"]["mean"] == pytest.approx(np.abs(painted - targets).mean() / 127.5, abs=1e-6)
    # The targets are two flat colors with noise of at most 20 of 255 around them.
    assert 0 < result["baseline"]["l1"]["mean"] < 2 * 20 / 255
    gap = result["metrics"]["l1"]["mean"] - result["baseline"]["l1"]["mean"]
    assert result["l1_minus_baseline"]["mean"] == pytest.approx(gap)


@pytest.mark.parametrize("command", ["evaluate", "translate"])
def test_a_model_of_another_kind_is_refused(pix2pix, trained, pairs, tmp_path, command):
    shutil.copytree(trained / "model", tmp_path / "model")
    path = tmp_path / "model" / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"kind": "cyclegan"}))
    places = {"evaluate": ["--data", pairs], "translate": [pairs, tmp_path / "out"]}[command]
    code, _, err = pix2pix(command, tmp_path / "model", *places)
    assert code == 2
    assert "is a model of cyclegan. Use the command cyclegan with it." in err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--sheet", "sheet.txt"], "sheet.txt: .txt is not an image format"),
        (["--sheet", "file/sheet.png"], "sheet.png: "),
        (["--sheet", "."], ""),
        (["--out", "file/sheet.png"], "sheet.png: "),
        (["--out", "out.png"], "out.png"),
    ],
)
def test_bad_outputs_are_refused_first(pix2pix, pairs, tmp_path, monkeypatch, options, message):
    monkeypatch.setattr("pix2pix.evaluation.load", None)  # calling it would be another error
    (tmp_path / "file").touch()
    code, _, err = pix2pix("evaluate", tmp_path, "--data", pairs, options[0], tmp_path / options[1])
    assert code == 2
    assert message in err


@pytest.mark.parametrize("writer", ["ganvas.evaluation.results.write_json", "ganvas.data.encode.write_image"])
@pytest.mark.parametrize("options", [["--json"], []])
def test_metrics_are_printed_before_a_full_disk_is_reported(
    pix2pix, trained, pairs, tmp_path, full_disk, writer, options
):
    full_disk(writer)
    places = ["--sheet", tmp_path / "sheet.png", "--out", tmp_path / "out"]
    code, out, err = pix2pix("evaluate", trained, "--data", pairs, *places, *options)
    assert code == 2
    assert "cannot be written (No space left on device)" in err
    if options:
        assert json.loads(out)["pictures"] == 3
    else:
        assert "psnr" in out
    assert (tmp_path / "sheet.png").exists() == ("json" in writer)


@pytest.mark.parametrize("palette", [False, True])
def test_one_image_has_no_interval(pix2pix, trained, own_pairs, palette):
    for path in sorted((own_pairs / "test").iterdir())[1:]:
        path.unlink()
    if palette:
        (own_pairs / "dataset.json").write_text(json.dumps({"legend": PALETTE}))
    code, out, err = pix2pix("evaluate", trained / "model", "--data", own_pairs, "--json")
    assert code == 0, err
    result = json.loads(out)
    scores = [*result["metrics"].values(), *result.get("baseline", {}).values()]
    scores += [result["l1_minus_baseline"]] if palette else []
    assert len(scores) == (13 if palette else 6)
    assert all("mean" in score and not {"low", "high"} & set(score) for score in scores)
    assert result["notes"] == ["No 95% intervals: one image says nothing about the spread."]
    code, out, err = pix2pix("evaluate", trained / "model", "--data", own_pairs)
    assert "[" not in out
    assert "No 95% intervals" in err


def test_evaluate_prints_a_table(pix2pix, trained, pairs):
    code, out, _ = pix2pix("evaluate", trained, "--data", pairs)
    assert code == 0
    for word in ("l1", "psnr", "ssim", "3 images of test"):
        assert word in out


def test_missing_distance_is_explained(pix2pix, trained, own_pairs, tmp_path):
    first = min((own_pairs / "test").iterdir())
    with Image.open(first) as image:
        larger = image.resize((image.width + 8, image.height + 4))
    larger.save(first)
    code, out, err = pix2pix("evaluate", trained / "model", "--data", own_pairs, "--json")
    assert code == 0, err
    assert "No sliced Wasserstein distance: it needs images of one size" in " ".join(err.split())
    result = json.loads(out)
    assert "sliced_wasserstein" not in result["metrics"]
    assert len(result["notes"]) == 1


def test_report(pix2pix, trained):
    code, out, err = pix2pix("report", trained)
    assert code == 0, err
    assert Path(out.strip()).read_text().startswith("<!DOCTYPE html>")


def test_receptive_field(pix2pix, maps, tmp_path):
    code, out, _ = pix2pix("receptive-field", "--target", 70, "--json")
    assert code == 0
    result = json.loads(out)
    assert (result["layers"], result["exact"]) == (3, True)
    assert result["networks"]["discriminator"]["size"] == 70
    drawing = tmp_path / "field.png"
    code, _, err = pix2pix("receptive-field", "--layers", 1, "--image", maps / "a.png", "--out", drawing)
    assert code == 0, err
    assert drawing.is_file()


@pytest.mark.slow
def test_json_is_alone_on_standard_output(process, trained, maps, tmp_path):
    out, _ = process("translate", trained, maps, tmp_path / "out", "--json").communicate(timeout=120)
    assert len(json.loads(out)["written"]) == 6


@pytest.mark.slow
def test_import_alone_loads_no_torch():
    code = "import ganvas, sys; print('torch' in sys.modules); ganvas.load; print('torch' in sys.modules)"
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert result.stdout.split() == ["False", "True"]
