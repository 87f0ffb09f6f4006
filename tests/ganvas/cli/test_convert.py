"""The commands export and import, with both modules' command lines."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

import ganvas
from cyclegan.__main__ import main as cyclegan_main
from ganvas.data.encode import write_image
from ganvas.inference.export import program as export
from ganvas.inference.export.program import Differences
from ganvas.inference.onnx import OnnxTranslator
from ganvas.inference.upstream.weights import write_upstream
from ganvas.models.folder import ModelConfig, NetworkSpec, Preprocessing, build_generator, load_model, save_model
from ganvas.training.checkpoint import Checkpoint, save_checkpoint
from pix2pix.__main__ import main as pix2pix_main

SPEC = NetworkSpec("unet", {"base_channels": 2, "num_levels": 7}, "A", "B")


@pytest.fixture
def pix2pix(in_process):
    return in_process(pix2pix_main)


@pytest.fixture
def cyclegan(in_process):
    return in_process(cyclegan_main)


def generator():
    network = build_generator(SPEC)
    for parameter in network.parameters():
        nn.init.normal_(parameter, 0, 0.3)
    return network


@pytest.fixture
def model(tmp_path):
    torch.manual_seed(0)
    config = ModelConfig("pix2pix", {"a2b": SPEC}, Preprocessing(3, 3, 128, True), "picture")
    save_model(tmp_path / "model", config, {"a2b": generator()}, "")
    return tmp_path / "model"


@pytest.fixture
def both(tmp_path):
    torch.manual_seed(1)
    config = ModelConfig("cyclegan", {"a2b": SPEC, "b2a": SPEC}, Preprocessing(3, 3, 128, True))
    save_model(tmp_path / "both", config, {"a2b": generator(), "b2a": generator()}, "")
    return tmp_path / "both"


def weights(path):
    return {direction: network.state_dict() for direction, network in load_model(path)[1].items()}


def equal(first, second):
    return all(torch.equal(value, second[name]) for name, value in first.items())


@pytest.mark.slow
def test_export_to_upstream_and_back(pix2pix, model, tmp_path):
    code, out, err = pix2pix("export", model, "--peer", tmp_path / "latest_net_G.pth", "--json")
    assert (code, err) == (0, "")
    assert json.loads(out)["load it with"] == "--netG unet_128 --norm batch --ngf 2"
    code, out, err = pix2pix("import", tmp_path / "latest_net_G.pth", tmp_path / "back", "--image-size", 128)
    assert code == 0, err
    assert out.startswith("a2b: unet_128, 3 to 3 channels, ngf 2, norm batch, from latest_net_G.pth\n")
    assert equal(weights(model)["a2b"], weights(tmp_path / "back")["a2b"])
    image = np.random.default_rng(0).integers(0, 256, (90, 70, 3), dtype=np.uint8)
    before, after = (ganvas.load(path).translate(image) for path in (model, tmp_path / "back"))
    assert np.array_equal(before, after)


@pytest.mark.parametrize(
    ("norm", "statistics", "says_eval"),
    [("batch", "running", True), ("batch", "picture", False), ("instance", "running", False)],
)
def test_upstream_options_name_the_statistics(pix2pix, tmp_path, norm, statistics, says_eval):
    spec = NetworkSpec("resnet", {"base_channels": 2, "num_blocks": 6, "norm": norm}, "A", "B")
    config = ModelConfig("pix2pix", {"a2b": spec}, Preprocessing(3, 3, 128, True), statistics)
    save_model(tmp_path / "model", config, {"a2b": build_generator(spec)}, "")
    code, out, err = pix2pix("export", tmp_path / "model", "--peer", tmp_path / "x.pth", "--json")
    assert code == 0, err
    assert json.loads(out)["load it with"].split().count("--eval") == says_eval


def test_both_directions_of_a_cyclegan(cyclegan, both, tmp_path):
    for direction, name in (("a2b", "A"), ("b2a", "B")):  # there netG_A is from A to B
        code, _, err = cyclegan(
            "export", both, "--direction", direction, "--peer", tmp_path / f"latest_net_G_{name}.pth"
        )
        assert code == 0, err
    files = (tmp_path / "latest_net_G_A.pth", tmp_path / "latest_net_G_B.pth")
    code, _, err = cyclegan("import", *files, tmp_path / "back")
    assert code == 0, err
    before, after = weights(both), weights(tmp_path / "back")
    assert equal(before["a2b"], after["a2b"])
    assert equal(before["b2a"], after["b2a"])
    assert not equal(before["a2b"], after["b2a"])
    assert load_model(tmp_path / "back")[0].kind == "cyclegan"


def test_generators_that_are_not_inverse_are_refused(cyclegan, tmp_path):
    files = (tmp_path / "latest_net_G_A.pth", tmp_path / "latest_net_G_B.pth")
    for file, out_channels in zip(files, (1, 3), strict=True):
        spec = replace(SPEC, arguments=SPEC.arguments | {"out_channels": out_channels})
        write_upstream(file, build_generator(spec), spec)
    code, out, err = cyclegan("import", *files, tmp_path / "model")
    assert (code, out) == (2, "")
    assert f"{files[0]}, {files[1]}: the generator b2a translates 3 to 3 channels, but" in err
    assert "have 1 and 3. Use generators" in err
    assert not (tmp_path / "model").exists()


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")
@pytest.mark.slow
def test_an_onnx_file(pix2pix, model, tmp_path):
    image = np.random.default_rng(0).integers(0, 256, (128, 128, 3), dtype=np.uint8)
    write_image(tmp_path / "real" / "x.png", image)
    code, out, err = pix2pix("export", model, tmp_path / "x.onnx", "--data", tmp_path / "real", "--json")
    assert code == 0, err
    message = json.loads(out)
    assert 0 < message["largest difference"] <= 1e-4
    assert (message["real images"], message["taken from"]) == (1, str(tmp_path / "real"))
    assert message["megabytes"] == pytest.approx((tmp_path / "x.onnx").stat().st_size / 1e6, abs=0.06)
    expected = ganvas.load(model, precision="fp32").translate(image)
    apart = OnnxTranslator(tmp_path / "x.onnx").translate(image).astype(int) - expected
    assert np.abs(apart).max() <= 1


def numbered(number, *, size=8, channels=3):
    """An image filled with its number; odd ones are of domain b."""
    return np.full((size, size, channels), number, np.uint8)


@pytest.fixture
def pairs(tmp_path):
    """Six pairs of test and two of train, numbered from 0 and from 100."""
    for split, first, count in (("train", 100, 2), ("test", 0, 6)):
        for number in range(first, first + 2 * count, 2):
            both = np.concatenate([numbered(number), numbered(number + 1)], axis=1)
            write_image(tmp_path / "data" / split / f"{number:03}.png", both)
    return tmp_path / "data"


@pytest.fixture
def domains(tmp_path):
    for split, count in (("train", 3), ("test", 5)):
        for number in range(2 * count):
            write_image(tmp_path / "data" / f"{split}{'AB'[number % 2]}" / f"{number:03}.png", numbered(number))
    return tmp_path / "data"


@pytest.fixture
def compared(monkeypatch):
    """Write no file: keep the images that it would have been compared on."""
    kept = []

    def export_translator(translator, path, *, weights, images):
        kept[:] = images
        path.write_bytes(weights.encode())
        return Differences(0.0, 0.0)

    monkeypatch.setattr(export, "export_translator", export_translator)
    return kept


def a_run(folder, data, config, networks=None):
    """A run folder of a model, whose config names its dataset."""
    save_model(folder / "model", config, networks or {direction: generator() for direction in config.networks}, "")
    (folder / "config.json").write_text(json.dumps({"data": {"data": str(data)}}))
    return folder


def numbers(compared):
    return [int(image[0, 0, 0]) for image in compared]


@pytest.mark.parametrize(("direction", "expected"), [("a2b", [0, 4, 8]), ("b2a", [1, 5, 9])])
@pytest.mark.parametrize("given", ["run", "run/model", "run/checkpoints/step-00000001"])
def test_without_data_sources_of_the_runs_last_split_are_compared_on(
    pix2pix, tmp_path, pairs, compared, direction, expected, given
):
    config = ModelConfig("pix2pix", {direction: SPEC}, Preprocessing(3, 3, 128, True))
    network = generator()
    run = a_run(tmp_path / "run", pairs, config, {direction: network})
    state = {"model_state": {"networks": {direction: "G"}, "statistics": "running"}}
    save_checkpoint(run, Checkpoint(1, {"G": network.state_dict()}, state))
    code, out, err = pix2pix("export", tmp_path / given, tmp_path / "x.pt2", "--json")
    assert (code, err) == (0, "")
    assert numbers(compared) == expected
    assert all(image.shape == (8, 8, 3) for image in compared)
    message = json.loads(out)
    assert (message["real images"], message["taken from"]) == (3, f"{pairs}, test")


@pytest.mark.parametrize(("direction", "expected"), [("a2b", [0, 4, 8]), ("b2a", [1, 5, 9])])
def test_without_data_the_domain_of_the_direction_is_compared_on(
    cyclegan, tmp_path, domains, compared, direction, expected
):
    config = ModelConfig("cyclegan", {"a2b": SPEC, "b2a": SPEC}, Preprocessing(3, 3, 128, True))
    run = a_run(tmp_path / "run", domains, config)
    code, out, err = cyclegan("export", run, tmp_path / "x.pt2", "--direction", direction)
    assert (code, err) == (0, "")
    assert numbers(compared) == expected
    assert out.endswith(f"real images: 3\ntaken from: {domains}, test\n")


def test_int8_is_calibrated_with_training_images(pix2pix, tmp_path, pairs, compared):
    run = a_run(tmp_path / "run", pairs, ModelConfig("pix2pix", {"a2b": SPEC}, Preprocessing(3, 3, 128, True)))
    code, out, err = pix2pix("export", run, tmp_path / "x.onnx", "--weights", "int8")
    assert (code, err) == (0, "")
    assert numbers(compared) == [100, 102]
    assert f"taken from: {pairs}, train\n" in out


def test_a_model_of_crops_is_compared_on_central_crops(pix2pix, tmp_path, compared):
    rows = np.arange(40, dtype=np.uint8)[:, None, None].repeat(100, axis=1).repeat(3, axis=2)
    write_image(tmp_path / "data" / "test" / "x.png", rows)
    run = a_run(
        tmp_path / "run", tmp_path / "data", ModelConfig("pix2pix", {"a2b": SPEC}, Preprocessing(3, 3, 16, False))
    )
    code, _, err = pix2pix("export", run, tmp_path / "x.pt2")
    assert (code, err) == (0, "")
    assert np.array_equal(compared[0], rows[12:28, :16])


def test_stacked_sources_of_a_range_are_compared_on(pix2pix, tmp_path, compared):
    for name, number in (("radar", 5), ("sun", 9), ("b", 0)):
        write_image(tmp_path / "data" / "test" / name / "x.tif", np.full((8, 8, 1), number, np.float32))
    how = Preprocessing(
        2, 1, 128, True, source_range=(0, 10), target_range=(0, 10), source_type="float32", target_type="float32",
        source_folders=("radar", "sun"),
    )  # fmt: skip
    spec = replace(SPEC, arguments=SPEC.arguments | {"in_channels": 2, "out_channels": 1})
    config = ModelConfig("pix2pix", {"a2b": spec}, how)
    run = a_run(tmp_path / "run", tmp_path / "data", config, {"a2b": build_generator(spec)})
    code, _, err = pix2pix("export", run, tmp_path / "x.pt2")
    assert (code, err) == (0, "")
    assert np.array_equal(compared[0], np.full((8, 8, 2), (5, 9), np.float32))


def lose(data):
    data.rename(data.with_name("elsewhere"))


def damage(data):
    (data / "test" / "000.png").write_text("text")


@pytest.mark.parametrize(
    ("happens", "message"),
    [
        (lose, "the run's dataset, does not exist; use --data"),
        (damage, "the run's data cannot be read: "),
        (lambda data: (data.parent / "run" / "config.json").write_text("{"), "the run's data cannot be read: "),
        (lambda data: (data.parent / "run" / "config.json").write_text("{}"), "the model is not part of a run"),
        (lambda data: (data.parent / "run" / "config.json").unlink(), "the model is not part of a run"),
    ],
)
def test_without_images_the_export_warns_and_continues(pix2pix, tmp_path, pairs, compared, happens, message):
    run = a_run(tmp_path / "run", pairs, ModelConfig("pix2pix", {"a2b": SPEC}, Preprocessing(3, 3, 128, True)))
    happens(pairs)
    code, out, err = pix2pix("export", run, tmp_path / "x.pt2", "--json")
    assert (code, err) == (0, "")
    assert compared == []
    found = json.loads(out)
    assert found["real images"] == 0
    assert message in found["no real images since"]
    assert "taken from" not in found


def test_an_unreadable_dataset_does_not_stop_an_export(pix2pix, tmp_path, pairs, compared, monkeypatch):
    run = a_run(tmp_path / "run", pairs, ModelConfig("pix2pix", {"a2b": SPEC}, Preprocessing(3, 3, 128, True)))

    def refuse(folder):
        raise PermissionError(13, "Permission denied", str(folder))

    monkeypatch.setattr("ganvas.data.layout.splits", refuse)
    code, out, err = pix2pix("export", run, tmp_path / "x.pt2", "--json")
    assert (code, err, compared) == (0, "", [])
    assert "Permission denied" in json.loads(out)["no real images since"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["export", "MODEL"], "give one output"),
        (["export", "MODEL", "x.onnx", "--peer", "x.pth"], "give one output"),
        (["export", "MODEL", "x.tflite"], "ends with .onnx or .pt2"),
        (["export", "MODEL", "x.pth"], "use --peer x.pth"),
        (["export", "MODEL", "x.pt2", "--weights", "fp16"], "--weights fp16: is for .onnx"),
        (
            ["export", "MODEL", "x.onnx", "--weights", "int8"],
            "--weights int8: needs real images for calibration. Give a folder with --data: the model is not part",
        ),
        (["export", "nowhere", "x.onnx"], "there is no such folder"),
        (["import", "nowhere.pth", "out"], "there is no such file"),
        (["import", "nowhere.pth", "out", "--image-size", "0"], "--image-size 0"),
        (["import", "nowhere.pth", "MODEL"], "exists already"),
    ],
)
def test_bad_input(pix2pix, model, tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    code, out, err = pix2pix(*(str(model) if word == "MODEL" else word for word in arguments))
    assert (code, out) == (2, "")
    assert message in err
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_a_direction_is_required(cyclegan, both, tmp_path):
    code, _, err = cyclegan("export", both, tmp_path / "x.onnx")
    assert code == 2
    assert "choose a direction" in err
