"""Exported networks against their originals, and the ONNX runner in a process without torch."""

import errno
import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import onnx
import onnx_ir
import onnxruntime
import pytest
import torch
from torch import nn

from ganvas.data.decode import read_image
from ganvas.data.encode import write_image
from ganvas.errors import UserError, WriteError
from ganvas.inference.export import program as export
from ganvas.inference.export.program import export_translator
from ganvas.inference.onnx import OnnxTranslator
from ganvas.inference.translator import Translator
from ganvas.models.folder import ModelConfig, NetworkSpec, Preprocessing, build_generator
from ganvas.nn.resnet import ResNetGenerator
from ganvas.nn.unet import UNetGenerator

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")

NETWORKS = {
    "unet": NetworkSpec("unet", {"base_channels": 16, "num_levels": 4}, "map", "terrain"),
    "resnet": NetworkSpec("resnet", {"base_channels": 4, "num_blocks": 2}, "horse", "zebra"),
    "resunet": NetworkSpec("resunet", {"base_channels": 4, "num_levels": 3}, "map", "terrain"),
}


def translator(name="unet", statistics="picture", **preprocessing):
    torch.manual_seed(0)
    spec = NETWORKS[name]
    network = build_generator(spec)
    for parameter in network.parameters():
        nn.init.normal_(parameter, 0, 0.2)
    how = Preprocessing(3, 3, 48, **{"resized": True} | preprocessing)
    return Translator(ModelConfig("pix2pix", {"a2b": spec}, how, statistics), {"a2b": network}, precision="fp32")


def photo(H, W, seed=0):
    """Smooth colors with some noise, as photographs have."""
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[0:H, 0:W]
    waves = [127 + 100 * np.sin(rows / (5 + c) + columns / (9 - c) + seed) for c in range(3)]
    return (np.stack(waves, axis=2) + rng.normal(0, 8, (H, W, 3))).clip(0, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """One file of each kind, with the model and the differences that were reported."""
    folder = tmp_path_factory.mktemp("exported")
    made = {}
    for name, statistics in (("unet", "picture"), ("resnet", "running"), ("resunet", "running")):
        model = translator(name, statistics)
        made[name] = (
            model,
            folder / f"{name}.onnx",
            export_translator(model, folder / f"{name}.onnx", images=[photo(40, 60)]),
        )
    for weights in ("fp16", "int8"):
        model, path = made["unet"][0], folder / f"{weights}.onnx"
        made[weights] = (
            model,
            path,
            export_translator(model, path, weights=weights, images=[photo(64, 64, n) for n in range(4)]),
        )
    return made


@pytest.mark.parametrize("name", ["unet", "resnet", "resunet"])
@pytest.mark.parametrize("shape", [(1, 64, 64), (3, 21, 50), (1, 9, 130)])
@pytest.mark.slow
@pytest.mark.essential
def test_onnxruntime_agrees_at_any_size(exported, name, shape):
    model, path, found = exported[name]
    N, H, W = shape
    source = torch.rand(N, 3, H, W) * 2 - 1
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    output = session.run(["output"], {"source": source.numpy()})[0]
    with torch.no_grad():
        expected = model.network(source).numpy()
    assert output.shape == expected.shape
    assert np.abs(output - expected).max() <= 1e-4
    assert 0 < found.largest <= 1e-4


@pytest.mark.slow
def test_the_file_is_valid_and_has_metadata(exported):
    _, path, _ = exported["unet"]
    model = onnx.load(path)
    onnx.checker.check_model(model, full_check=True)
    sizes = model.graph.input[0].type.tensor_type.shape.dim
    assert [bool(size.dim_param) for size in sizes] == [True, False, True, True]
    assert [opset.version for opset in model.opset_import if opset.domain == ""] == [20]
    about = json.loads(next(p.value for p in model.metadata_props if p.key == "ganvas"))
    assert (about["source"], about["target"], about["preprocessing"]["image_size"]) == ("map", "terrain", 48)


@pytest.mark.slow
def test_smaller_weights_and_their_differences(exported):
    size = {name: exported[name][1].stat().st_size for name in ("unet", "fp16", "int8")}
    assert size["fp16"] < 0.7 * size["unet"]
    assert size["int8"] < 0.5 * size["unet"]
    for name, most in (("fp16", 0.01), ("int8", 0.1)):
        model, path, found = exported[name]
        assert 0 < found.mean < most
        image = photo(48, 48, 9)
        apart = np.abs(OnnxTranslator(path).translate(image).astype(int) - model.translate(image)).mean() / 127.5
        assert apart < 2 * most


def test_int8_without_images_is_refused(tmp_path):
    with pytest.raises(UserError, match="is calibrated with real images"):
        export_translator(translator(), tmp_path / "x.onnx", weights="int8")


def test_a_file_that_differs_is_not_written(tmp_path, monkeypatch):
    monkeypatch.setattr(export, "_onnx_session", lambda path, what: lambda source: source * float("nan"))
    monkeypatch.setattr(export, "_write_onnx", lambda what, path: path.write_bytes(b"x"))
    with pytest.raises(UserError, match="was not written, since ONNX Runtime and PyTorch compute different outputs"):
        export_translator(translator(), tmp_path / "x.onnx")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("weights", "message"), [("fp32", "compute different outputs"), ("fp16", "not all outputs are")]
)
def test_a_nan_on_any_input_is_refused(tmp_path, monkeypatch, weights, message):
    def wrong(path, what):
        def run(source):
            output = what.network(source).clone()
            if source is what.real[-1][0]:
                output[0, 0, 0, 0] = torch.nan
            return output

        return run

    monkeypatch.setattr(export, "_onnx_session", wrong)
    monkeypatch.setattr(export, "_write_onnx", lambda what, path: path.write_bytes(b"x"))
    with pytest.raises(UserError, match=f"was not written, since .*{message}"):
        export_translator(translator(), tmp_path / "x.onnx", weights=weights, images=[photo(40, 60), photo(50, 40)])
    assert list(tmp_path.iterdir()) == []


def test_inputs_to_compare_on_have_several_padded_sizes():
    """Images that are all mirrored out to one size would hide a size taken for fixed."""
    for network, square in ((UNetGenerator(base_channels=1), 256), (ResNetGenerator(base_channels=1, num_blocks=1), 4)):
        _, *compared = export._sizes(network)
        inner = {(-(-H // square), -(-W // square)) for _, H, W in compared}
        assert len(inner) == 3
        assert {1, 2} == {N for N, _, _ in compared}


def test_outputs_of_another_shape_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(export, "_onnx_session", lambda path, what: lambda source: what.network(source)[:1])
    monkeypatch.setattr(export, "_write_onnx", lambda what, path: path.write_bytes(b"x"))
    with pytest.raises(UserError, match="the largest difference is inf"):
        export_translator(translator(), tmp_path / "x.onnx")


def test_a_missing_package_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == "onnxscript" else True)
    with pytest.raises(UserError, match=r"needs the package onnxscript.*ganvas\[onnx\]"):
        export_translator(translator(), tmp_path / "x.onnx")


GENERATORS = [
    ("unet", {"num_levels": 7, "norm": "batch", "upsampling": "resize", "in_channels": 2}),
    ("unet", {"num_levels": 8, "norm": "instance", "out_channels": 4}),
    ("resnet", {"num_blocks": 6, "norm": "batch", "upsampling": "resize", "in_channels": 4, "out_channels": 2}),
    ("resnet", {"num_blocks": 9, "norm": "none"}),
    ("resnet", {"num_blocks": 6, "norm": "instance", "resampling": "blur"}),
    ("unet", {"num_levels": 7, "norm": "none"}),
    ("resnet", {"num_blocks": 9, "norm": "instance"}),
]


@pytest.mark.slow
@pytest.mark.parametrize(("architecture", "arguments"), GENERATORS)
def test_every_generator_is_exported_and_compared(tmp_path, architecture, arguments):
    torch.manual_seed(0)
    spec = NetworkSpec(architecture, arguments | {"base_channels": 2}, "A", "B")
    network = build_generator(spec)
    how = Preprocessing(arguments.get("in_channels", 3), arguments.get("out_channels", 3), 64, resized=False)
    for statistics in ("picture", "running") if arguments["norm"] == "batch" else ("picture",):
        model = Translator(ModelConfig("pix2pix", {"a2b": spec}, how, statistics), {"a2b": network}, precision="fp32")
        assert 0 < export_translator(model, tmp_path / "x.onnx").largest <= 1e-4


@pytest.mark.slow
def test_a_torch_export_program(tmp_path):
    model = translator()
    found = export_translator(model, tmp_path / "x.pt2", images=[photo(40, 60)])
    assert found.largest <= 1e-4
    program = torch.export.load(tmp_path / "x.pt2").module()
    for shape in ((2, 3, 33, 70), (1, 3, 64, 64), (1, 3, 5, 200)):
        source = torch.rand(shape) * 2 - 1
        with torch.no_grad():
            assert (program(source) - model.network(source)).abs().max() <= 1e-5


BARE = ("numpy", "onnxruntime", "PIL", "ganvas", "flatbuffers", "google")


@pytest.fixture
def bare(tmp_path):
    """A folder with the packages that the runner may use, and no others."""
    folder = tmp_path / "packages"
    folder.mkdir()
    for name in BARE:
        found = find_spec(name)
        if found is None or not found.submodule_search_locations:
            continue
        package = Path(next(iter(found.submodule_search_locations)))
        (folder / name).symlink_to(package)
        for libraries in package.parent.glob(f"{ {'PIL': 'pillow'}.get(name, name) }.libs"):
            (folder / libraries.name).symlink_to(libraries)
    return folder


def run_bare(packages, *arguments):
    """Run Python without its own packages."""
    command = [sys.executable, "-S", *map(str, arguments)]
    environment = {"PYTHONPATH": str(packages), "PATH": "", "SYSTEMROOT": ""}
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


@pytest.mark.slow
def test_the_runner_needs_no_torch(exported, bare, tmp_path):
    model, path, _ = exported["unet"]
    assert run_bare(bare, "-c", "import torch").returncode == 1
    for n in range(2):
        write_image(tmp_path / "in" / f"{n}.png", photo(48, 48, n))
    done = run_bare(bare, "-m", "ganvas.inference.onnx", path, tmp_path / "in", tmp_path / "out")
    assert (done.returncode, done.stderr) == (0, f"2 images written to {tmp_path / 'out'}\n")
    for n in range(2):
        output = read_image(tmp_path / "out" / f"{n}.png")
        assert np.abs(output.astype(int) - model.translate(photo(48, 48, n))).max() <= 1


def contents(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def full_disk(*_, **__):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.slow
@pytest.mark.parametrize(("name", "writer"), [("x.onnx", (onnx_ir, "save")), ("x.pt2", (Path, "write_bytes"))])
def test_a_full_disk_keeps_the_old_export(tmp_path, monkeypatch, name, writer):
    (tmp_path / name).write_bytes(b"before")
    monkeypatch.setattr(*writer, full_disk)
    with pytest.raises(WriteError, match=r"cannot be written \(No space"):
        export_translator(translator(), tmp_path / name)
    assert contents(tmp_path) == {tmp_path / name: b"before"}


@pytest.mark.slow
@pytest.mark.parametrize("module", ["ganvas.inference.onnx", "ganvas.inference.export.program"])
def test_onnxruntime_telemetry_is_off(tmp_path, module):
    code = f"import importlib; importlib.import_module('{module}'); import onnxruntime, time; time.sleep(0.5)"
    environment = {name: value for name, value in os.environ.items() if name != "ORT_DISABLE_TELEMETRY"}
    environment |= {"HOME": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path / "cache")}
    subprocess.run([sys.executable, "-c", code], check=True, env=environment)
    assert list(tmp_path.rglob("*onnxruntime*")) == []
