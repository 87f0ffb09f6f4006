"""The commands export and import, with both modules' command lines."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

import ganvas
from cyclegan.__main__ import main as cyclegan_main
from ganvas.data.images import write_image
from ganvas.inference.onnx import OnnxTranslator
from ganvas.inference.peer import write_peer
from ganvas.modelfile import ModelConfig, NetworkSpec, Preprocessing, build_generator, load_model, save_model
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
    return {way: network.state_dict() for way, network in load_model(path)[1].items()}


def equal(first, second):
    return all(torch.equal(value, second[name]) for name, value in first.items())


def test_to_that_tool_and_back(pix2pix, model, tmp_path):
    code, out, err = pix2pix("export", model, "--peer", tmp_path / "latest_net_G.pth", "--json")
    assert (code, err) == (0, "")
    assert json.loads(out)["load it with"] == "--netG unet_128 --norm batch --ngf 2"
    code, out, err = pix2pix("import", tmp_path / "latest_net_G.pth", tmp_path / "back", "--image-size", 128)
    assert code == 0, err
    assert out.startswith("a2b: unet_128, 3 to 3 channels, ngf 2, norm batch, from latest_net_G.pth\n")
    assert equal(weights(model)["a2b"], weights(tmp_path / "back")["a2b"])
    picture = np.random.default_rng(0).integers(0, 256, (90, 70, 3), dtype=np.uint8)
    before, after = (ganvas.load(path).translate(picture) for path in (model, tmp_path / "back"))
    assert np.array_equal(before, after)


def test_both_ways_of_a_cyclegan(cyclegan, both, tmp_path):
    for way, name in (("a2b", "A"), ("b2a", "B")):  # there netG_A is from A to B
        code, _, err = cyclegan("export", both, "--direction", way, "--peer", tmp_path / f"latest_net_G_{name}.pth")
        assert code == 0, err
    files = (tmp_path / "latest_net_G_A.pth", tmp_path / "latest_net_G_B.pth")
    code, _, err = cyclegan("import", *files, tmp_path / "back")
    assert code == 0, err
    before, after = weights(both), weights(tmp_path / "back")
    assert equal(before["a2b"], after["a2b"])
    assert equal(before["b2a"], after["b2a"])
    assert not equal(before["a2b"], after["b2a"])
    assert load_model(tmp_path / "back")[0].kind == "cyclegan"


def test_generators_that_do_not_lead_back_are_refused(cyclegan, tmp_path):
    files = (tmp_path / "latest_net_G_A.pth", tmp_path / "latest_net_G_B.pth")
    for file, out_channels in zip(files, (1, 3), strict=True):
        spec = replace(SPEC, arguments=SPEC.arguments | {"out_channels": out_channels})
        write_peer(file, build_generator(spec), spec)
    code, out, err = cyclegan("import", *files, tmp_path / "model")
    assert (code, out) == (2, "")
    assert f"{files[0]}, {files[1]}: the generator b2a translates 3 to 3 channels, but" in err
    assert "have 1 and 3. Take generators" in err
    assert not (tmp_path / "model").exists()


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")
def test_an_onnx_file(pix2pix, model, tmp_path):
    picture = np.random.default_rng(0).integers(0, 256, (128, 128, 3), dtype=np.uint8)
    write_image(tmp_path / "real" / "x.png", picture)
    code, out, err = pix2pix("export", model, tmp_path / "x.onnx", "--data", tmp_path / "real", "--json")
    assert code == 0, err
    said = json.loads(out)
    assert 0 < said["largest difference"] <= 1e-4
    assert said["megabytes"] == pytest.approx((tmp_path / "x.onnx").stat().st_size / 1e6, abs=0.06)
    expected = ganvas.load(model, precision="fp32").translate(picture)
    apart = OnnxTranslator(tmp_path / "x.onnx").translate(picture).astype(int) - expected
    assert np.abs(apart).max() <= 1


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["export", "MODEL"], "give one output"),
        (["export", "MODEL", "x.onnx", "--peer", "x.pth"], "give one output"),
        (["export", "MODEL", "x.tflite"], "ends with .onnx or .pt2"),
        (["export", "MODEL", "x.pth"], "are written by --peer x.pth"),
        (["export", "MODEL", "x.pt2", "--weights", "fp16"], "--weights fp16: is for .onnx"),
        (["export", "MODEL", "x.onnx", "--weights", "int8"], "chooses its scales by real pictures"),
        (["export", "nowhere", "x.onnx"], "there is no such folder"),
        (["import", "nowhere.pth", "out"], "there is no such file"),
        (["import", "nowhere.pth", "out", "--image-size", "0"], "--image-size 0"),
        (["import", "nowhere.pth", "MODEL"], "is there already"),
    ],
)
def test_bad_input(pix2pix, model, tmp_path, monkeypatch, arguments, said):
    monkeypatch.chdir(tmp_path)
    code, out, err = pix2pix(*(str(model) if word == "MODEL" else word for word in arguments))
    assert (code, out) == (2, "")
    assert said in err
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_a_direction_has_to_be_chosen(cyclegan, both, tmp_path):
    code, _, err = cyclegan("export", both, tmp_path / "x.onnx")
    assert code == 2
    assert "choose a direction" in err
