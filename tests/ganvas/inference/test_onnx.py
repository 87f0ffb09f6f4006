"""The ONNX runner against the translator, with a network that negates images."""

import errno
import json
import os
from dataclasses import asdict
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper
from PIL import Image
from torch import nn

from ganvas.data.decode import read_image
from ganvas.data.encode import write_image
from ganvas.data.tensors import to_array
from ganvas.errors import UserError
from ganvas.inference.onnx import OnnxTranslator, main, read, read_preprocessing, write
from ganvas.inference.translator import Translator
from ganvas.models.folder import ModelConfig, NetworkSpec, Preprocessing

MAX_VALUE = {"uint8": 255, "uint16": 65535, "float32": 1}


class Negative(nn.Module):
    def forward(self, x):
        return -x


def save_model(path, **preprocessing):
    """Write an ONNX file of `Negative`; return the translator of the same model."""
    how = Preprocessing(3, 3, 48, **{"resized": True} | preprocessing)
    source, output = (
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 3, "h", "w"]) for name in ("source", "output")
    )
    zero = helper.make_tensor("zero", TensorProto.FLOAT, [1], np.zeros(1, np.float32).tobytes(), raw=True)
    graph = helper.make_graph(
        [helper.make_node("Sub", ["zero", "source"], ["output"])], "negative", [source], [output], [zero]
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    helper.set_model_props(model, {"ganvas": json.dumps({"preprocessing": asdict(how)})})
    onnx.save(model, path)
    spec = NetworkSpec("unet", {}, "A", "B")
    return Translator(ModelConfig("pix2pix", {"a2b": spec}, how), {"a2b": Negative()}, precision="fp32")


@pytest.fixture
def model(tmp_path):
    save_model(tmp_path / "x.onnx")
    return tmp_path / "x.onnx"


def noise(dtype="uint8", shape=(48, 48, 3), seed=0):
    values = np.random.default_rng(seed).random(shape) * MAX_VALUE[dtype]
    return values.astype(dtype) if dtype == "float32" else values.round().astype(dtype)


def run(*arguments):
    return main([str(argument) for argument in arguments])


RANGES = {"source_range": (0, 4095), "source_type": "uint16", "target_range": (-100, 8900), "target_type": "float32"}


@pytest.mark.parametrize("shape", [(48, 48, 3), (100, 75, 3), (30, 40, 1)])
@pytest.mark.parametrize(
    ("dtype", "preprocessing"),
    [
        ("uint8", {}),
        ("uint8", {"resized": False}),
        ("uint16", {}),
        ("float32", {}),
        ("uint16", RANGES),
        ("uint8", {"source_range": (10, 200), "target_range": (0, 60_000), "target_type": "uint16"}),
    ],
)
def test_results_are_the_translators(tmp_path, dtype, shape, preprocessing):
    """Grayscale is repeated for a model of three channels, in both."""
    translator = save_model(tmp_path / "x.onnx", **preprocessing)
    image = noise(dtype, shape) // (16 if preprocessing is RANGES else 1)
    expected, found = translator.translate(image), OnnxTranslator(tmp_path / "x.onnx").translate(image)
    expected = np.broadcast_to(expected.reshape(*shape[:2], -1), (*shape[:2], 3))
    assert found.dtype == expected.dtype
    step = 1 if found.dtype != np.float32 else (0.01 if preprocessing else 1e-5)
    assert np.abs(found.astype(np.float64) - expected).max() <= step


def test_drawn_maps_are_scaled_by_nearest_neighbor_as_in_the_translator(tmp_path):
    colors = ((242, 239, 228), (150, 200, 235))
    translator = save_model(tmp_path / "x.onnx", legend=colors)
    image = np.array(colors, dtype=np.uint8)[(noise(shape=(100, 75)) > 127).astype(int)]
    expected = to_array(translator.prepare(image).values, np.uint8)
    assert {tuple(color) for color in expected.reshape(-1, 3).tolist()} == set(colors)
    np.testing.assert_array_equal(OnnxTranslator(tmp_path / "x.onnx").scaled(image), expected)


def test_values_outside_the_trained_range_are_refused_as_by_the_translator(tmp_path):
    """16-bit images would be nearly white for a model of 8 bits and the range 0 to 255."""
    translator = save_model(tmp_path / "x.onnx", resized=False, source_range=(0, 255))
    with pytest.raises(UserError) as expected:
        translator.translate(noise("uint16"))
    with pytest.raises(UserError) as found:
        OnnxTranslator(tmp_path / "x.onnx").translate(noise("uint16"))
    assert str(found.value) == str(expected.value)


def test_grayscale_is_not_repeated_for_a_model_of_three_stacked_images(tmp_path):
    translator = save_model(tmp_path / "x.onnx", resized=False, source_folders=("red", "green", "blue"))
    for translate in (translator.translate, OnnxTranslator(tmp_path / "x.onnx").translate):
        with pytest.raises(UserError, match="has 1 channels"):
            translate(noise(shape=(48, 48, 1)))


def test_a_folder_is_translated_with_subfolders_and_a_single_image_under_a_new_name(model, tmp_path, capsys):
    for name in ("a.png", "deep/b.npy"):
        write_image(tmp_path / "in" / name, noise())
    (tmp_path / "in" / "notes.pdf").write_text("text")
    for _ in range(2):  # existing results are replaced
        assert run(model, tmp_path / "in", tmp_path / "out") == 0
        assert capsys.readouterr().err.endswith(f"2 images written to {tmp_path / 'out'}\n")
    assert run(model, tmp_path / "in" / "a.png", tmp_path / "new" / "c.png") == 0
    for path in ("out/a.png", "out/deep/b.npy", "new/c.png"):
        assert np.abs(read_image(tmp_path / path).astype(int) - (255 - noise().astype(int))).max() <= 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("no.onnx", "in", "out"), "no such file"),
        (("text.onnx", "in", "out"), "not a valid ONNX file"),
        (("x.onnx", "nowhere", "out"), "no such folder"),
        (("x.onnx", "in", "in"), "is the input folder"),
        (("x.onnx", "two.npy", "out"), "two.npy: the image has 2 channels"),
        (("x.onnx", "first.npy", "out"), "has 48 channels, the model takes 3. Its shape looks like [C"),
    ],
)
def test_bad_arguments_are_one_message(model, tmp_path, capsys, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    Path("text.onnx").write_text("text")
    write_image(tmp_path / "in" / "x.png", noise())
    np.save("two.npy", noise(shape=(48, 48, 2)))
    np.save("first.npy", noise().transpose(2, 0, 1))
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    assert run(*arguments) == 2
    assert message in capsys.readouterr().err
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def npy(array):
    return lambda path: np.save(path, array)


@pytest.mark.parametrize(
    ("name", "save", "message"),
    [
        ("bad.png", lambda path: path.write_text("text"), ""),
        ("empty.npy", Path.touch, "is an empty file"),
        ("row.npy", npy(np.zeros(5, np.uint8)), "expected [H, W] or [H, W, C]"),
        ("hole.npy", npy(np.full((4, 4, 3), np.nan)), "values that are not finite"),
        ("metres.npy", npy(np.full((4, 4, 3), 9000)), "values from 9000 to 9000; this model's floats lie in 0 to 1"),
        ("deep.png", lambda path: write_image(path, np.zeros((4, 4, 3), np.uint16)), "16 bits in several channels"),
    ],
)
def test_an_unreadable_image_does_not_stop_the_others(model, tmp_path, capsys, name, save, message):
    write_image(tmp_path / "in" / "zebra.png", noise())
    save(tmp_path / "in" / name)
    assert run(model, tmp_path / "in", tmp_path / "out") == 2
    err = capsys.readouterr().err
    assert f"{name}: " in err
    assert message in err
    assert [file.name for file in (tmp_path / "out").iterdir()] == ["zebra.png"]


def test_a_failure_of_onnxruntime_does_not_stop_the_others(model, tmp_path, capsys, monkeypatch):
    for name in ("a.png", "b.png"):
        write_image(tmp_path / "in" / name, noise())
    run_session, calls = onnxruntime.InferenceSession.run, []

    def fails_once(*arguments):
        calls.append(arguments)
        if len(calls) == 1:
            raise RuntimeError("[ONNXRuntimeError] : 6 : out of memory")
        return run_session(*arguments)

    monkeypatch.setattr(onnxruntime.InferenceSession, "run", fails_once)
    assert run(model, tmp_path / "in", tmp_path / "out") == 2
    message = f"a.png: the network of {model} cannot translate it ([ONNXRuntimeError] : 6 : out of memory)"
    assert message in capsys.readouterr().err
    assert [file.name for file in (tmp_path / "out").iterdir()] == ["b.png"]


def test_a_full_disk_stops_the_runner_and_leaves_no_partial_file(model, tmp_path, capsys, monkeypatch):
    for name in ("a.png", "b.png", "c.png"):
        write_image(tmp_path / "in" / name, noise())

    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Path, "write_bytes", full)
    assert run(model, tmp_path / "in", tmp_path / "out") == 2
    err = capsys.readouterr().err
    assert err.startswith(f"0 images written to {tmp_path / 'out'}\n")
    assert "1 of 3 images failed" in err
    assert "2 more were not tried" in err
    assert list((tmp_path / "out").iterdir()) == []


def test_images_are_decoded_as_by_translate(tmp_path):
    rgba = np.dstack([noise(), np.full((48, 48), 128, np.uint8)])
    Image.fromarray(rgba).save(tmp_path / "clear.png")
    assert np.abs(read(tmp_path / "clear.png", 3).astype(int) - read_image(tmp_path / "clear.png", 3)).max() <= 1
    values = noise("float32")[:, :, 0]
    Image.fromarray(values).save(tmp_path / "float.tif")
    assert np.array_equal(read(tmp_path / "float.tif", 1), values[:, :, None])
    exif = Image.Exif()
    exif[274] = 6
    Image.fromarray(noise()).save(tmp_path / "turned.png", exif=exif)
    assert np.array_equal(read(tmp_path / "turned.png", 3), np.rot90(noise(), -1))


@pytest.mark.parametrize("suffix", [".jpg", ".webp"])
def test_images_are_encoded_as_by_translate(tmp_path, suffix):
    write(tmp_path / f"a{suffix}", noise())
    write_image(tmp_path / f"b{suffix}", noise())
    assert (tmp_path / f"a{suffix}").read_bytes() == (tmp_path / f"b{suffix}").read_bytes()


KEY, VALUE = b"\x0a\x08location", b"\x12\x05b.bin"  # fields of a StringStringEntryProto


@pytest.mark.parametrize(
    "entry",
    [
        KEY + VALUE,
        VALUE + KEY,
        KEY.replace(b"\x08", b"\x88\0") + VALUE[:-1],
        KEY.replace(b"\x08", b"\x88\x80\0") + b"\x12\3bin",
    ],
    ids=["as written", "value first", "length in two bytes", "length in three bytes"],
)
def test_weights_in_other_files_are_not_opened(model, tmp_path, entry):
    """Protobuf allows the fields in any order, and leading zeros in a length."""
    content = onnx.load(model)
    onnx.save(content, tmp_path / "a.onnx", save_as_external_data=True, location="b.bin", size_threshold=0)
    assert (tmp_path / "b.bin").exists()
    whole = (tmp_path / "a.onnx").read_bytes()
    assert whole.count(KEY + VALUE) == 1
    (tmp_path / "a.onnx").write_bytes(whole.replace(KEY + VALUE, entry))
    with pytest.raises(UserError, match="has weights in other files, which are not opened"):
        OnnxTranslator(tmp_path / "a.onnx")


GOOD = {
    "source_channels": 3,
    "image_size": 64,
    "resized": True,
    "source_type": "uint8",
    "target_type": "uint8",
    "source_range": [0, 255],
    "target_range": None,
    "legend": [[1, 2, 3]],
}


@pytest.mark.parametrize(
    ("operator", "element"), [("Shape", TensorProto.INT64), ("Flatten", TensorProto.FLOAT), ("SequenceConstruct", None)]
)
def test_an_invalid_output_is_one_message(model, operator, element):
    content = onnx.load(model)
    content.graph.node[0].CopyFrom(helper.make_node(operator, ["source"], ["output"]))
    if element is None:
        value = helper.make_tensor_sequence_value_info("output", TensorProto.FLOAT, None)
    else:
        value = helper.make_tensor_value_info("output", element, None)
    content.graph.output[0].CopyFrom(value)
    onnx.save(content, model)
    with pytest.raises(UserError, match=r"the network of .*x\.onnx returns something other than images"):
        OnnxTranslator(model).translate(noise())


def test_metadata_that_are_not_utf8_are_one_message(model):
    model.write_bytes(model.read_bytes().replace(b"source_range", b"source\xff\xffnge"))
    with pytest.raises(UserError, match=r"x\.onnx: is not a valid ONNX file"):
        OnnxTranslator(model)


@pytest.mark.parametrize(
    "change",
    [
        *(
            {name: values}
            for name in ("source_range", "target_range")
            for values in ([1, 1], [2, 1], [5], [0, 1e39], [True, 2], 5)
        ),
        *({"legend": values} for values in (5, [5], [[1, 2, 256]], [[1, 2]], [[1, 2, 3]] * 4097)),
        *({"image_size": size} for size in (0, 8193, 10**12, True, 64.0)),
        *({"source_channels": count} for count in (0, 10**6, True)),
        {"source_folders": 5},
        {"resized": 1},
        {"target_type": "object"},
        {"target_type": ["uint8"]},
        {"source_type": None},
    ],
)
def test_untrusted_metadata_are_checked(change):
    path = Path("x.onnx")
    assert read_preprocessing(path, json.dumps({"preprocessing": GOOD})) == GOOD
    with pytest.raises(UserError, match=r"x\.onnx: its metadata do not describe the preprocessing"):
        read_preprocessing(path, json.dumps({"preprocessing": GOOD | change}))


@pytest.mark.parametrize("name", sorted(GOOD.keys() - {"legend"}))
def test_metadata_have_every_field_that_the_runner_uses(name):
    incomplete = {key: value for key, value in GOOD.items() if key != name}
    with pytest.raises(UserError, match=r"x\.onnx: its metadata do not describe the preprocessing"):
        read_preprocessing(Path("x.onnx"), json.dumps({"preprocessing": incomplete}))


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        (None, "has no metadata from ganvas"),
        *((text, "do not describe") for text in ("{", "[1]", "{}", '{"preprocessing": 7}', '{"preprocessing": {}}')),
        ("[" * 100_000, "do not describe"),
        ('{"preprocessing": {"image_size": ' + "9" * 5000 + "}}", "do not describe"),
        ('{"kind": "dcgan", "latent": "N(0, 1)"}', "generates images from noise"),
    ],
    ids=lambda value: str(value)[:20],
)
def test_metadata_without_preprocessing_are_one_message(metadata, message):
    with pytest.raises(UserError, match=rf"x\.onnx: .*{message}"):
        read_preprocessing(Path("x.onnx"), metadata)
