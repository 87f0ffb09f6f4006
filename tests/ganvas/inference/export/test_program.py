"""Exported networks against their originals, and the runner that needs no torch, in a process that has none."""

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
from PIL import Image
from torch import nn

from ganvas.data.decode import read_image
from ganvas.data.encode import write_image
from ganvas.data.tensors import to_array
from ganvas.errors import UserError, WriteError
from ganvas.inference.export import program as export
from ganvas.inference.export.program import export_translator
from ganvas.inference.onnx import OnnxTranslator, _read_preprocessing, main, read, write
from ganvas.inference.translator import Translator
from ganvas.models.folder import ModelConfig, NetworkSpec, Preprocessing, build_generator
from ganvas.nn.resnet import ResNetGenerator
from ganvas.nn.unet import UNetGenerator

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning"),
]

NETWORKS = {
    "unet": NetworkSpec("unet", {"base_channels": 16, "num_levels": 4}, "map", "terrain"),
    "resnet": NetworkSpec("resnet", {"base_channels": 4, "num_blocks": 2}, "horse", "zebra"),
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
    chance = np.random.default_rng(seed)
    rows, columns = np.mgrid[0:H, 0:W]
    waves = [127 + 100 * np.sin(rows / (5 + c) + columns / (9 - c) + seed) for c in range(3)]
    return (np.stack(waves, axis=2) + chance.normal(0, 8, (H, W, 3))).clip(0, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """One file of each kind, with the model and the differences that were reported."""
    folder = tmp_path_factory.mktemp("exported")
    made = {}
    for name, statistics in (("unet", "picture"), ("resnet", "running")):
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


@pytest.mark.parametrize("name", ["unet", "resnet"])
@pytest.mark.parametrize("shape", [(1, 64, 64), (3, 21, 50), (1, 9, 130)])
@pytest.mark.essential
def test_another_runtime_computes_the_same_at_any_size(exported, name, shape):
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


def test_the_file_is_valid_and_says_what_it_takes(exported):
    _, path, _ = exported["unet"]
    model = onnx.load(path)
    onnx.checker.check_model(model, full_check=True)
    sizes = model.graph.input[0].type.tensor_type.shape.dim
    assert [bool(size.dim_param) for size in sizes] == [True, False, True, True]
    assert [opset.version for opset in model.opset_import if opset.domain == ""] == [20]
    about = json.loads(next(p.value for p in model.metadata_props if p.key == "ganvas"))
    assert (about["source"], about["target"], about["preprocessing"]["image_size"]) == ("map", "terrain", 48)


def test_smaller_weights_and_what_they_cost(exported):
    size = {name: exported[name][1].stat().st_size for name in ("unet", "fp16", "int8")}
    assert size["fp16"] < 0.7 * size["unet"]
    assert size["int8"] < 0.5 * size["unet"]
    for name, most in (("fp16", 0.01), ("int8", 0.1)):
        model, path, found = exported[name]
        assert 0 < found.mean < most
        picture = photo(48, 48, 9)
        apart = np.abs(OnnxTranslator(path).translate(picture).astype(int) - model.translate(picture)).mean() / 127.5
        assert apart < 2 * most


def test_int8_without_pictures_is_refused(tmp_path):
    with pytest.raises(UserError, match="chooses its scales by real images"):
        export_translator(translator(), tmp_path / "x.onnx", weights="int8")


def test_a_file_that_differs_is_not_left(tmp_path, monkeypatch):
    monkeypatch.setattr(export, "_onnx_session", lambda path, what: lambda source: source * float("nan"))
    monkeypatch.setattr(export, "_write_onnx", lambda what, path: path.write_bytes(b"x"))
    with pytest.raises(UserError, match="was not written, since ONNX Runtime computes something else"):
        export_translator(translator(), tmp_path / "x.onnx")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("weights", "said"), [("fp32", "computes something else"), ("fp16", "not all outputs are")])
def test_a_single_value_that_is_no_number_is_noticed_on_any_input(tmp_path, monkeypatch, weights, said):
    def wrong(path, what):
        def run(source):
            output = what.network(source).clone()
            if source is what.real[-1][0]:
                output[0, 0, 0, 0] = torch.nan
            return output

        return run

    monkeypatch.setattr(export, "_onnx_session", wrong)
    monkeypatch.setattr(export, "_write_onnx", lambda what, path: path.write_bytes(b"x"))
    with pytest.raises(UserError, match=f"was not written, since .*{said}"):
        export_translator(translator(), tmp_path / "x.onnx", weights=weights, images=[photo(40, 60), photo(50, 40)])
    assert list(tmp_path.iterdir()) == []


def test_what_is_compared_has_several_inner_sizes():
    """Images that are all mirrored out to one size would hide a size taken for fixed."""
    for network, square in ((UNetGenerator(base_channels=1), 256), (ResNetGenerator(base_channels=1, num_blocks=1), 4)):
        _, *compared = export._sizes(network)
        inner = {(-(-H // square), -(-W // square)) for _, H, W in compared}
        assert len(inner) == 3
        assert {1, 2} == {N for N, _, _ in compared}


def test_an_output_of_another_shape_is_no_equal_one(tmp_path, monkeypatch):
    monkeypatch.setattr(export, "_onnx_session", lambda path, what: lambda source: what.network(source)[:1])
    monkeypatch.setattr(export, "_write_onnx", lambda what, path: path.write_bytes(b"x"))
    with pytest.raises(UserError, match="the largest difference is inf"):
        export_translator(translator(), tmp_path / "x.onnx")


def test_a_package_that_is_missing_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == "onnxscript" else True)
    with pytest.raises(UserError, match=r"needs the package onnxscript.*ganvas\[onnx\]"):
        export_translator(translator(), tmp_path / "x.onnx")


GENERATORS = [
    ("unet", {"num_levels": 7, "norm": "batch", "upsampling": "resize", "in_channels": 2}),
    ("unet", {"num_levels": 8, "norm": "instance", "out_channels": 4}),
    ("resnet", {"num_blocks": 6, "norm": "batch", "upsampling": "resize", "in_channels": 4, "out_channels": 2}),
    ("resnet", {"num_blocks": 9, "norm": "none"}),
    ("unet", {"num_levels": 7, "norm": "none"}),
    ("unet", {"num_levels": 8, "norm": "batch"}),
    ("resnet", {"num_blocks": 6, "norm": "instance", "upsampling": "resize"}),
    ("resnet", {"num_blocks": 9, "norm": "instance"}),
]


@pytest.mark.skipif("GANVAS_SLOW" not in os.environ, reason="takes minutes: set GANVAS_SLOW=1 to export them all")
@pytest.mark.parametrize(("architecture", "arguments"), GENERATORS)
def test_every_generator_is_exported_and_compared(tmp_path, architecture, arguments):
    torch.manual_seed(0)
    spec = NetworkSpec(architecture, arguments | {"base_channels": 2}, "A", "B")
    network = build_generator(spec)
    how = Preprocessing(arguments.get("in_channels", 3), arguments.get("out_channels", 3), 64, resized=False)
    for statistics in ("picture", "running") if arguments["norm"] == "batch" else ("picture",):
        model = Translator(ModelConfig("pix2pix", {"a2b": spec}, how, statistics), {"a2b": network}, precision="fp32")
        assert 0 < export_translator(model, tmp_path / "x.onnx").largest <= 1e-4


def test_a_program_of_torch(tmp_path):
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


def test_scaling_is_the_translators(exported):
    model, path, _ = exported["unet"]
    image = photo(100, 75)
    difference = np.abs(OnnxTranslator(path).translate(image).astype(int) - model.translate(image))
    assert difference.max() <= 1


def test_a_map_in_the_legends_colours_is_scaled_by_neighbours_there_too(tmp_path):
    colours = ((242, 239, 228), (150, 200, 235))
    model = translator(legend=colours)
    export_translator(model, tmp_path / "x.onnx", images=[photo(40, 60)])
    picture = np.array(colours, dtype=np.uint8)[(photo(100, 75)[:, :, 0] > 127).astype(int)]
    runner = OnnxTranslator(tmp_path / "x.onnx")
    inside = to_array(model.prepare(picture).values, np.uint8)
    assert {tuple(colour) for colour in inside.reshape(-1, 3).tolist()} == set(colours)
    np.testing.assert_array_equal(runner.scaled(picture), inside)


def test_one_picture_and_arrays(exported, tmp_path):
    model, path, _ = exported["unet"]
    values = np.random.default_rng(0).random((48, 48, 3)).astype(np.float32)
    np.save(tmp_path / "x.npy", values)
    assert main([str(path), str(tmp_path / "x.npy"), str(tmp_path / "deep" / "y.npy")]) == 0
    assert np.abs(np.load(tmp_path / "deep" / "y.npy") - model.translate(values)).max() <= 1e-4


def test_a_bad_picture_is_named_and_the_others_are_done(exported, tmp_path, capsys):
    _, path, _ = exported["unet"]
    write_image(tmp_path / "in" / "good.png", photo(48, 48))
    (tmp_path / "in" / "bad.png").write_text("text")
    assert main([str(path), str(tmp_path / "in"), str(tmp_path / "out")]) == 2
    assert "bad.png: is no image that can be read" in capsys.readouterr().err
    assert [file.name for file in (tmp_path / "out").iterdir()] == ["good.png"]


def test_bad_files_and_places(exported, tmp_path, capsys):
    _, path, _ = exported["unet"]
    (tmp_path / "text.onnx").write_text("text")
    (tmp_path / "empty").mkdir()
    write_image(tmp_path / "in" / "x.png", photo(48, 48))
    write_image(tmp_path / "two.npy", photo(48, 48)[..., :2])
    np.save(tmp_path / "first.npy", photo(48, 48).transpose(2, 0, 1))
    for arguments, said in {
        (tmp_path / "no.onnx", tmp_path / "in", tmp_path / "out"): "no such file",
        (tmp_path / "text.onnx", tmp_path / "in", tmp_path / "out"): "no ONNX file",
        (path, tmp_path / "nowhere", tmp_path / "out"): "no such file or folder",
        (path, tmp_path / "empty", tmp_path / "out"): "holds no images",
        (path, tmp_path / "in", tmp_path / "in"): "would lie in the input folder",
        (path, tmp_path / "in", tmp_path / "in" / "out"): "would lie in the input folder",
        (path, tmp_path / "in" / "x.png", tmp_path / "in" / "x.png"): "is the image itself",
        (path, tmp_path / "in" / "x.png", tmp_path / "in"): "is the image itself",
        (path, tmp_path / "in", tmp_path / "text.onnx"): "text.onnx: is a file",
        (path, tmp_path / "in" / "x.png", tmp_path / "text.onnx"): "text.onnx: .onnx images cannot be written",
        (path, tmp_path / "in" / "x.png", tmp_path / "out.gif"): "out.gif: .gif images cannot be written",
        (path, tmp_path / "in", tmp_path / "y.png"): "y.png: is the name of an image file",
        (path, tmp_path / "two.npy", tmp_path / "out"): "two.npy: the image has 2 channels",
        (path, tmp_path / "first.npy", tmp_path / "out"): "has 48 channels, the model takes 3. Its shape looks like [C",
    }.items():
        before = contents(tmp_path)
        assert main([str(argument) for argument in arguments]) == 2
        assert said in capsys.readouterr().err
        assert contents(tmp_path) == before


def contents(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def npy(array):
    return lambda path: np.save(path, array)


BAD_PICTURES = [
    ("empty.npy", Path.touch, "is an empty file"),
    ("row.npy", npy(np.zeros(5, np.uint8)), "expected [H, W] or [H, W, C]"),
    ("words.npy", npy(np.full((4, 4, 3), "x")), "values of the type <U1 are no image"),
    ("nothing.npy", npy(np.zeros((0, 4, 3), np.uint8)), "expected [H, W] or [H, W, C]"),
    ("hole.npy", npy(np.full((4, 4, 3), np.nan)), "values that are not finite"),
    ("metres.npy", npy(np.full((4, 4, 3), 9000)), "values from 9000 to 9000; this model's floats lie in 0 to 1"),
    ("deep.png", lambda path: write_image(path, np.zeros((4, 4, 3), np.uint16)), "16 bits in several channels"),
    ("deep.tif", lambda path: write_image(path, np.zeros((4, 4, 3), np.uint16)), "16 bits in several channels"),
    ("whole.tif", lambda path: Image.fromarray(np.zeros((4, 4), np.int32)).save(path), "whole numbers of 32 bits"),
    ("print.png", lambda path: Image.new("RGB", (8, 8)).save(path, "EPS"), "is a PostScript document"),
]


@pytest.mark.parametrize(("name", "save", "said"), BAD_PICTURES)
def test_a_picture_that_the_runner_cannot_take_stops_no_other(exported, tmp_path, capsys, name, save, said):
    (tmp_path / "in").mkdir()
    save(tmp_path / "in" / name)
    write_image(tmp_path / "in" / "zebra.png", photo(48, 48))
    assert main([str(exported["unet"][1]), str(tmp_path / "in"), str(tmp_path / "out")]) == 2
    err = capsys.readouterr().err
    assert f"{name}: " in err
    assert said in err
    assert [file.name for file in (tmp_path / "out").iterdir()] == ["zebra.png"]


def test_a_picture_that_onnxruntime_fails_on_stops_no_other(exported, tmp_path, capsys, monkeypatch):
    for name in ("a.png", "b.png"):
        write_image(tmp_path / "in" / name, photo(48, 48))
    run, calls = onnxruntime.InferenceSession.run, []

    def fails_once(*arguments):
        calls.append(arguments)
        if len(calls) == 1:
            raise RuntimeError("[ONNXRuntimeError] : 6 : out of memory")
        return run(*arguments)

    monkeypatch.setattr(onnxruntime.InferenceSession, "run", fails_once)
    assert main([str(exported["unet"][1]), str(tmp_path / "in"), str(tmp_path / "out")]) == 2
    assert "a.png: the network cannot translate it ([ONNXRuntimeError] : 6 : out of memory)" in capsys.readouterr().err
    assert [file.name for file in (tmp_path / "out").iterdir()] == ["b.png"]


@pytest.mark.parametrize(
    "about",
    [
        "{",
        "[1]",
        "{}",
        '{"preprocessing": 7}',
        '{"preprocessing": {}}',
        '{"preprocessing": {"source_channels": 3, "image_size": 48, "resized": true, "source_type": "uint8", '
        '"target_type": "text"}}',
        '{"preprocessing": {"source_channels": 3, "image_size": 48, "resized": true, "target_type": "uint8"}}',
        '{"preprocessing": {"source_channels": 3, "image_size": 48, "resized": true, "source_type": "uint8", '
        '"target_type": "uint8", "source_range": [5]}}',
    ],
)
def test_metadata_that_say_nothing_are_one_message(exported, tmp_path, capsys, about):
    model = onnx.load(exported["unet"][1])
    next(p for p in model.metadata_props if p.key == "ganvas").value = about
    onnx.save(model, tmp_path / "x.onnx")
    write_image(tmp_path / "in" / "x.png", photo(48, 48))
    assert main([str(tmp_path / "x.onnx"), str(tmp_path / "in"), str(tmp_path / "out")]) == 2
    assert "x.onnx: its metadata do not say what a image goes through" in capsys.readouterr().err


def test_the_runner_keeps_subfolders_and_passes_hidden_files_over(exported, tmp_path):
    for name in ("a.png", "deep/b.png", ".hidden.png", ".trash/c.png"):
        write_image(tmp_path / "in" / name, photo(48, 48))
    assert main([str(exported["unet"][1]), str(tmp_path / "in"), str(tmp_path / "out")]) == 0
    assert {str(path.relative_to(tmp_path / "out")) for path in contents(tmp_path / "out")} == {
        "a.png",
        str(Path("deep", "b.png")),
    }


def test_the_runner_reads_transparency_and_floats_as_translate_does(tmp_path):
    clear = Image.fromarray(np.dstack([photo(20, 30), np.full((20, 30), 128, np.uint8)]))
    clear.save(tmp_path / "clear.png")
    assert np.abs(read(tmp_path / "clear.png", 3).astype(int) - read_image(tmp_path / "clear.png", 3)).max() <= 1
    values = np.random.default_rng(0).random((20, 30), dtype=np.float32)
    Image.fromarray(values).save(tmp_path / "float.tif")
    assert np.array_equal(read(tmp_path / "float.tif", 1), values[:, :, None])


def test_the_runner_turns_a_photo_upright_once(tmp_path):
    exif = Image.Exif()
    exif[274] = 6
    Image.fromarray(photo(20, 30)).save(tmp_path / "turned.png", exif=exif)
    assert np.array_equal(read(tmp_path / "turned.png", 3), np.rot90(photo(20, 30), -1))


@pytest.mark.parametrize("suffix", [".jpg", ".webp"])
def test_the_runner_encodes_as_translate_does(tmp_path, suffix):
    write(tmp_path / f"ours{suffix}", photo(60, 40))
    write_image(tmp_path / f"theirs{suffix}", photo(60, 40))
    assert (tmp_path / f"ours{suffix}").read_bytes() == (tmp_path / f"theirs{suffix}").read_bytes()


def full_disk(*_, **__):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_full_disk_ends_the_runner_and_leaves_nothing_half_written(exported, tmp_path, capsys, monkeypatch):
    for name in ("a.png", "b.png", "c.png"):
        write_image(tmp_path / "in" / name, photo(48, 48))
    monkeypatch.setattr(Path, "write_bytes", full_disk)
    assert main([str(exported["unet"][1]), str(tmp_path / "in"), str(tmp_path / "out")]) == 2
    assert capsys.readouterr().err.splitlines() == [
        f"0 images written to {tmp_path / 'out'}",
        f"ganvas.inference.onnx: error: {tmp_path / 'out' / 'a.png'}: cannot be written "
        f"({os.strerror(errno.ENOSPC)}). Make room or choose another place; nothing was damaged.",
        "2 more images were not tried.",
    ]
    assert list((tmp_path / "out").iterdir()) == []


@pytest.mark.parametrize(("name", "writer"), [("x.onnx", (onnx_ir, "save")), ("x.pt2", (Path, "write_bytes"))])
def test_an_export_onto_a_full_disk_leaves_what_was_there(tmp_path, monkeypatch, name, writer):
    (tmp_path / name).write_bytes(b"before")
    monkeypatch.setattr(*writer, full_disk)
    with pytest.raises(WriteError, match=r"cannot be written \(No space"):
        export_translator(translator(), tmp_path / name)
    assert contents(tmp_path) == {tmp_path / name: b"before"}


def test_weights_in_other_files_are_not_opened(exported, tmp_path):
    model = onnx.load(exported["unet"][1])
    onnx.save(model, tmp_path / "a.onnx", save_as_external_data=True, location="b.bin", size_threshold=0)
    assert (tmp_path / "b.bin").exists()
    with pytest.raises(UserError, match="has weights in other files, which are not opened"):
        OnnxTranslator(tmp_path / "a.onnx")


def test_a_range_of_its_own(tmp_path):
    """12 bits in, metres out: the runner does what the translator does."""
    model = translator(
        resized=False, source_range=(0, 4095), target_range=(-100, 8900), source_type="uint16", target_type="float32"
    )
    export_translator(model, tmp_path / "x.onnx")
    picture = np.random.default_rng(1).integers(0, 4096, (32, 40, 3), dtype=np.uint16)
    output = OnnxTranslator(tmp_path / "x.onnx").translate(picture)
    assert output.dtype == np.float32
    assert np.abs(output - model.translate(picture)).max() <= 0.5  # of 9,000


def test_a_wider_type_than_the_trainings_may_not_have_values_beyond_the_range_in_the_runner_either(tmp_path, capsys):
    """16 bits would be nearly all white to a model of 8 bits and the range 0:255."""
    model = translator(resized=False, source_range=(0, 255))
    export_translator(model, tmp_path / "x.onnx")
    deep = np.random.default_rng(1).integers(0, 65536, (48, 48, 3), dtype=np.uint16)
    write_image(tmp_path / "deep.npy", deep)
    assert main([str(tmp_path / "x.onnx"), str(tmp_path / "deep.npy"), str(tmp_path / "out.npy")]) == 2
    with pytest.raises(UserError) as error:
        model.translate(deep)
    assert "the image holds uint16 values of " in str(error.value)
    assert f"deep.npy: {error.value}\n" in capsys.readouterr().err
    assert not (tmp_path / "out.npy").exists()
    runner = OnnxTranslator(tmp_path / "x.onnx")
    assert np.abs(runner.translate(deep // 257) - model.translate(deep // 257).astype(int)).max() <= 257


@pytest.mark.parametrize("kind", ["uint8", "uint16", "float32"])
def test_the_runner_repeats_gray_for_a_model_of_three_channels_as_translate_does(exported, tmp_path, capsys, kind):
    model, path, _ = exported["unet"]
    gray = photo(48, 48)[:, :, :1].astype(np.float32) / 255 * {"uint8": 255, "uint16": 65535, "float32": 1}[kind]
    for name in ("gray.npy", "gray.tif"):
        write_image(tmp_path / name, gray.astype(kind))
        assert main([str(path), str(tmp_path / name), str(tmp_path / f"{name}.npy")]) == 0, capsys.readouterr().err
        expected = read_image(model.translate_file(tmp_path / name, tmp_path / "expected.npy"))
        output = np.load(tmp_path / f"{name}.npy")
        assert (output.shape, output.dtype) == (expected.shape, expected.dtype) == ((48, 48, 3), np.dtype(kind))
        step = {"uint8": 1, "uint16": 257, "float32": 1 / 255}[kind]
        assert np.abs(output.astype(np.float64) - expected).max() <= step


def test_gray_is_not_repeated_for_a_model_of_three_stacked_pictures(tmp_path):
    model = translator(resized=False, source_folders=("red", "green", "blue"))
    export_translator(model, tmp_path / "x.onnx")
    for translate in (model.translate, OnnxTranslator(tmp_path / "x.onnx").translate):
        with pytest.raises(UserError, match="has 1 channels"):
            translate(photo(48, 48)[:, :, :1])


@pytest.mark.parametrize(
    "change",
    [
        *(
            {name: values}
            for name in ("source_range", "target_range")
            for values in ([1, 1], [2, 1], [0, 1e39], [True, 2], 5)
        ),
        *({"legend": values} for values in (5, [5], [[1, 2, 256]], [[1, 2]], [[1, 2, 3]] * 4097)),
        *({"image_size": size} for size in (0, 8193, 60_000, 10**12, True, 64.0)),
        *({"source_channels": count} for count in (0, -1, 10**6, True)),
        {"source_folders": 5},
        {"resized": 1},
        {"target_type": "object"},
        {"target_type": ["uint8"]},
    ],
)
def test_metadata_of_a_stranger_are_checked(change):
    good = {
        "source_channels": 3,
        "image_size": 64,
        "resized": True,
        "source_type": "uint8",
        "target_type": "uint8",
        "source_range": [0, 255],
        "target_range": None,
        "legend": [[1, 2, 3]],
    }
    path = Path("x.onnx")
    assert _read_preprocessing(path, json.dumps({"preprocessing": good})) == good
    with pytest.raises(UserError, match=r"x\.onnx: its metadata do not say"):
        _read_preprocessing(path, json.dumps({"preprocessing": good | change}))


@pytest.mark.parametrize("about", ["[" * 100_000, '{"preprocessing": {"image_size": ' + "9" * 5000 + "}}"])
def test_metadata_that_break_a_reader_are_one_message(about):
    with pytest.raises(UserError, match=r"x\.onnx: its metadata do not say"):
        _read_preprocessing(Path("x.onnx"), about)


@pytest.mark.parametrize("module", ["ganvas.inference.onnx", "ganvas.inference.export.program"])
def test_onnxruntime_does_not_report_its_use(tmp_path, module):
    code = f"import importlib; importlib.import_module('{module}'); import onnxruntime, time; time.sleep(0.5)"
    environment = {name: value for name, value in os.environ.items() if name != "ORT_DISABLE_TELEMETRY"}
    environment |= {"HOME": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path / "cache")}
    subprocess.run([sys.executable, "-c", code], check=True, env=environment)
    assert list(tmp_path.rglob("*onnxruntime*")) == []
