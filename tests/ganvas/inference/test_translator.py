"""Images and files through translators whose networks are the identity, so that outputs equal inputs."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import rasterio
import torch
from PIL import Image
from rasterio.transform import from_origin
from torch import nn

from ganvas.data.augment import Augmentation, ImageTransform
from ganvas.data.decode import read_image
from ganvas.data.encode import write_image
from ganvas.data.likeness import measure_sources
from ganvas.data.paired import PairedDataset
from ganvas.data.resize import resize
from ganvas.data.tensors import to_array
from ganvas.errors import UserError
from ganvas.inference import translator as translator_module
from ganvas.inference.translator import Translator
from ganvas.models.folder import ModelConfig, NetworkSpec, Preprocessing
from ganvas.nn.cpu_kernels.instance_norm import CpuInstanceNorm2d
from ganvas.nn.resnet import ResNetGenerator

SPEC = NetworkSpec("unet", {}, "A", "B")


class Reversed(nn.Module):
    """Reverses the channels, which tells them apart."""

    def forward(self, x):
        return x.flip(1)


class First(nn.Module):
    """Gives the first of several channels."""

    def forward(self, x):
        return x[:, :1]


class Repeated(nn.Module):
    """Makes one channel five."""

    def forward(self, x):
        return x[:, :1].repeat(1, 5, 1, 1)


def translator(channels=3, out=None, network=None, direction="a2b", **preprocessing):
    how = Preprocessing(channels, out or channels, 32, False, **preprocessing)
    networks = {direction: network or nn.Identity()}
    return Translator(ModelConfig("pix2pix", dict.fromkeys(networks, SPEC), how), networks)


def test_the_network_is_optimized_for_a_cpu():
    network = ResNetGenerator(base_channels=2, num_blocks=1)
    found = translator(network=network).network
    assert sum(isinstance(module, CpuInstanceNorm2d) for module in found.modules()) == 7


def noise(kind, channels, top=None):
    top = top or {"uint8": 255, "uint16": 65535, "float32": 1}[kind]
    values = np.random.default_rng(0).random((7, 9, channels)) * top
    return values.astype(kind) if kind == "float32" else values.round().astype(kind)


@pytest.mark.parametrize("kind", ["uint8", "uint16", "float32"])
@pytest.mark.parametrize("channels", [1, 3, 5])
def test_dtype_size_and_channels_are_kept(kind, channels):
    source = noise(kind, channels)
    output = translator(channels, network=Reversed()).translate(source)
    assert output.dtype == source.dtype
    assert np.abs(output.astype(float) - source[..., ::-1]).max() <= (0 if kind != "float32" else 1e-6)


@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_a_pil_image_returns_a_pil_image(mode):
    source = Image.fromarray(noise("uint8", 3)).convert(mode)
    output = translator(len(mode)).translate(source)
    assert (output.mode, output.size) == (mode, source.size)
    assert np.array_equal(np.asarray(output), np.asarray(source))


@pytest.mark.parametrize(("mode", "channels"), [("I;16", 1), ("F", 1), ("RGBA", 4), ("LA", 2)])
def test_pillow_images_of_other_depths_and_channels_keep_both(mode, channels):
    kind = {"I;16": "uint16", "F": "float32"}.get(mode, "uint8")
    source = Image.fromarray(noise(kind, channels)[:, :, 0] if channels == 1 else noise(kind, channels))
    assert source.mode == mode
    output = translator(channels).translate(source)
    assert (output.mode, output.size) == (source.mode, source.size)
    assert np.allclose(np.asarray(output), np.asarray(source), atol=1e-6)


def test_transparent_pillow_images_are_composed_over_white():
    source = Image.fromarray(np.full((2, 2, 4), (0, 100, 200, 51), np.uint8))  # a fifth of the color
    assert np.array_equal(np.asarray(translator().translate(source))[0, 0], [204, 224, 244])


@pytest.mark.parametrize(("mode", "channels", "out"), [("I", 3, 3), ("RGB", 5, 5), ("I;16", 1, 5), ("RGB", 3, 5)])
def test_modes_that_pillow_lacks_are_refused(mode, channels, out):
    with pytest.raises(UserError, match="Give an array"):
        translator(channels, out, Repeated()).translate(Image.new(mode, (4, 4)))


def test_lists_of_images_keep_order_and_type():
    model = translator(network=Reversed())
    sources = [noise("uint8", 3)[: 3 + i % 2] for i in range(7)] + [noise("uint16", 3)]
    for one, output in zip(sources, model.translate(sources), strict=True):
        assert output.dtype == one.dtype
        assert np.array_equal(output, one[..., ::-1])
    images = model.translate([Image.fromarray(one) for one in sources[:2]])
    assert [(image.mode, image.size) for image in images] == [("RGB", (9, 3)), ("RGB", (9, 4))]
    assert model.translate([]) == []


def test_a_batch_array_returns_an_array():
    batch = np.stack([noise("uint8", 3), 255 - noise("uint8", 3)])
    assert np.array_equal(translator(network=Reversed()).translate(batch), batch[..., ::-1])


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        ("x.png", TypeError, "'x.png' is a path. Open the image first, with PIL.Image.open; or use translate_folder"),
        (Path("x.png"), TypeError, "x.png'. is a path"),
        (["x.png"], TypeError, "'x.png' is a path"),
        ([[[0, 1, 2]], [[0, 1, 2]]], TypeError, "not list. numpy.asarray makes an array of nested lists"),
        (torch.zeros(3, 4, 4), TypeError, "not tensors. Give an array"),
        ([torch.zeros(3, 4, 4)], TypeError, "not tensors. Give an array"),
        ({"a": noise("uint8", 3)}, TypeError, "not dict"),
        (None, TypeError, "not NoneType"),
        (3, TypeError, "not int"),
        (np.zeros((0, 5, 3), np.uint8), ValueError, r"shape is \(0, 5, 3\); give \[H, W, C\]"),
        (np.zeros((5, 0), np.uint8), ValueError, r"shape is \(5, 0, 1\)"),
        (np.zeros((5, 5, 0), np.uint8), ValueError, r"shape is \(5, 5, 0\)"),
        (np.zeros((2, 0, 5, 3), np.uint8), ValueError, r"shape is \(0, 5, 3\)"),
        (np.zeros((0, 5, 5, 3), np.uint8), ValueError, r"shape is \(0, 5, 5, 3\): it holds no image"),
        (np.uint8(3), TypeError, "not uint8"),
        (np.zeros((), np.uint8), ValueError, r"shape is \(\)"),
        (np.zeros(5, np.uint8), ValueError, r"shape is \(5,\)"),
        (np.zeros((1, 2, 5, 5, 3), np.uint8), ValueError, r"shape is \(1, 2, 5, 5, 3\)"),
        (Image.new("RGB", (0, 4)), ValueError, r"shape is \(4, 0, 3\)"),
        (np.zeros((3, 32, 32), np.uint8), UserError, r"has 32 channels, .* like \[C, H, W\]: .*transpose\(1, 2, 0\)"),
        (np.zeros((2, 3, 32, 32), np.uint8), UserError, r"like \[C, H, W\]"),
        (np.zeros((5, 32, 32), np.uint8), UserError, r"has 32 channels, the model takes 3\.$"),
        (np.zeros((5, 5, 3), np.int64), ValueError, "type is int64; allowed are uint8, uint16 and float32"),
    ],
    ids=lambda value: str(getattr(value, "shape", type(value).__name__)) if not isinstance(value, type | str) else None,
)
def test_other_inputs_are_refused_with_the_accepted_types(given, error, message):
    with pytest.raises(error, match=message):
        translator().translate(given)


@pytest.mark.parametrize("kind", [bool, np.int64, np.float64, np.float16])
def test_arrays_of_other_dtypes_are_refused(kind):
    config = ModelConfig("pix2pix", {"a2b": SPEC}, Preprocessing(3, 3, 32, True))
    with pytest.raises(ValueError, match=f"type is {np.dtype(kind)}; allowed are uint8, uint16 and float32"):
        Translator(config, {"a2b": nn.Identity()}).translate(np.zeros((5, 5, 3), kind))


def test_images_of_a_generator_are_translated():
    sources = [noise("uint8", 3), 255 - noise("uint8", 3)]
    outputs = translator(network=Reversed()).translate(iter(sources))
    assert np.array_equal(outputs, np.stack(sources)[..., ::-1])


def in_bf16(precision, kind, **preprocessing):
    """Return whether an image of a dtype is translated in bfloat16."""
    model = translator(1, **preprocessing)
    model.precision = precision
    return model.prepare(noise(kind, 1)).bf16


def test_auto_never_lowers_more_than_8_bits(monkeypatch):
    monkeypatch.setattr(translator_module, "has_native_bf16", lambda device: True)
    assert in_bf16("auto", "uint8")
    assert not in_bf16("auto", "uint16")
    assert not in_bf16("auto", "float32")
    assert not in_bf16("auto", "uint8", target_range=(0, 9000), target_type="uint16")
    assert in_bf16("bf16", "uint16")
    assert not in_bf16("fp32", "uint8")
    monkeypatch.setattr(translator_module, "has_native_bf16", lambda device: False)
    assert not in_bf16("auto", "uint8")
    assert in_bf16("bf16", "uint8")


@pytest.mark.parametrize(("channels", "mode"), [(3, "RGB"), (1, "I;16")])
def test_exif_orientation_is_applied_as_for_files(tmp_path, channels, mode):
    exif = Image.Exif()
    exif[274] = 6
    sideways = noise("uint8" if mode == "RGB" else "uint16", channels)
    Image.fromarray(sideways.squeeze()).save(tmp_path / "x.png", exif=exif)
    model = translator(channels)
    written = model.translate_file(tmp_path / "x.png", tmp_path / "y.png")
    with Image.open(tmp_path / "x.png") as source:
        assert source.mode == mode
        upright = model.translate(source)
    assert (upright.mode, upright.size) == (mode, (7, 9))
    assert np.array_equal(np.atleast_3d(upright), np.rot90(sideways, -1))
    assert np.array_equal(np.atleast_3d(upright), read_image(written))


def test_ranges_of_both_sides():
    """12 bits of 16 in; metres from -100 to 8900 out."""
    model = translator(1, source_range=(0, 4095), target_range=(-100, 8900), target_type="float32")
    source = noise("uint16", 1, 4095)
    output = model.translate(source)
    assert output.dtype == np.float32
    assert np.allclose(output, source / 4095 * 9000 - 100, atol=2e-3)


WIDER = [("uint8", "uint16"), ("uint8", "float32"), ("uint16", "float32")]


@pytest.mark.parametrize(("trained", "given"), WIDER)
def test_values_beyond_the_training_dtypes_range_are_refused(tmp_path, trained, given):
    model = translator(1, source_range=(0, 200), source_type=trained)
    inside, beyond = (np.array([[[0], [100], [top]]], given) for top in (200, 201))
    assert np.array_equal(model.prepare(inside).values[0, 0], [-1, 0, 1])
    message = rf"holds {given} values of 0 to 201; .*{trained} images.* 0 to 200"
    with pytest.raises(UserError, match=f"^the image {message}"):
        model.translate(beyond)
    np.save(tmp_path / "x.npy", beyond)
    with pytest.raises(UserError, match=rf"x\.npy: {message}"):
        model.read(tmp_path / "x.npy")


def test_values_beyond_the_range_are_clipped_as_in_training():
    """In the training's own type or a narrower one; and without a range each type is taken in full."""
    for trained, given in [("uint8", "uint8"), ("uint16", "uint8"), ("uint16", "uint16"), ("float32", "uint16")]:
        model = translator(1, source_range=(0, 200), source_type=trained)
        assert model.prepare(np.full((1, 1, 1), 250, given)).values.item() == 1
    for given, top in (("uint8", 255), ("uint16", 65535), ("float32", 1)):
        assert translator(1).prepare(np.full((1, 1, 1), top, given)).values.item() == 1


BAD_FLOATS = [
    (255.0, {}, "the image has values from 0 to 255, while floats without a range have to lie in 0 to 1"),
    (-0.1, {}, "the image has values from -0.1 to 0"),
    (np.nan, {}, "the image has values that are not finite"),
    (np.inf, {"source_range": (0, 9000), "source_type": "float32"}, "the image has values that are not finite"),
]


@pytest.mark.parametrize(("value", "how", "message"), BAD_FLOATS)
def test_invalid_floats_are_refused_as_in_files(tmp_path, value, how, message):
    model = translator(1, **how)
    source = np.zeros((4, 4, 1), np.float32)
    source[1, 2] = value
    for given in (source, source[None], [source], Image.fromarray(source[:, :, 0])):
        with pytest.raises(UserError, match=f"^{message}"):
            model.translate(given)
    np.save(tmp_path / "x.npy", source)
    with pytest.raises(UserError, match=message.replace("the image", r"x\.npy:")):
        model.read(tmp_path / "x.npy")


def test_floats_slightly_beyond_0_to_1_are_accepted():
    edges = np.array([[[-5e-4], [1.0005]]], np.float32)
    assert np.array_equal(translator(1).translate(edges), [[[0], [1]]])


def test_ranges_are_exchanged_in_the_reverse_direction_of_a_bidirectional_model():
    ranges = {"source_range": (0, 10), "target_range": (0, 1000), "source_type": "float32", "target_type": "uint16"}
    how = Preprocessing(1, 1, 32, False, **ranges)
    networks = {"a2b": nn.Identity(), "b2a": nn.Identity()}
    config = ModelConfig("cyclegan", dict.fromkeys(networks, SPEC), how)
    a, b = np.full((2, 2, 1), 5, np.float32), np.full((2, 2, 1), 500, np.uint16)
    assert np.array_equal(Translator(config, networks, direction="a2b").translate(a), b)
    assert np.allclose(Translator(config, networks, direction="b2a").translate(b), a, atol=1e-5)
    # Of one direction, the preprocessing is that direction's, whichever it is.
    assert np.array_equal(translator(1, direction="b2a", **ranges).translate(a), b)


def test_upstream_names_of_directions_are_accepted():
    networks = {"a2b": nn.Identity(), "b2a": Reversed()}
    config = ModelConfig("cyclegan", dict.fromkeys(networks, SPEC), Preprocessing(3, 3, 32, False))
    for words, source in (("AtoB", noise("uint8", 3)), ("BtoA", noise("uint8", 3)[..., ::-1])):
        model = Translator(config, networks, direction=words)
        assert np.array_equal(model.translate(noise("uint8", 3)), source)
    with pytest.raises(UserError, match="direction AtoC is not in this model; it has a2b, b2a"):
        Translator(config, networks, direction="AtoC")


def test_another_number_of_channels_is_refused():
    with pytest.raises(UserError, match="has 3 channels, the model takes 5"):
        translator(5).translate(noise("uint8", 3))


@pytest.mark.parametrize("kind", ["uint8", "uint16", "float32"])
def test_gray_is_repeated_for_a_model_of_three_channels(tmp_path, kind):
    model, gray = translator(), noise(kind, 1)
    expected = gray.repeat(3, axis=2)
    np.save(tmp_path / "x.npy", gray)
    write_image(tmp_path / "x.tif", gray)
    files = [read_image(model.translate_file(tmp_path / name, tmp_path / f"of-{name}")) for name in ("x.npy", "x.tif")]
    batch = model.translate(np.stack([gray, gray]))
    for output in (model.translate(gray), model.translate(gray[:, :, 0]), *model.translate([gray]), *batch, *files):
        assert (output.shape, output.dtype) == (expected.shape, gray.dtype)
        assert np.abs(output.astype(np.float64) - expected).max() <= (0 if kind != "float32" else 1e-6)


@pytest.mark.parametrize("kind", ["uint8", "uint16", "float32"])
def test_gray_output_keeps_the_type(kind):
    model, gray = translator(3, 1, First()), noise(kind, 1)[:, :, 0]
    for output in (model.translate(gray), np.asarray(model.translate(Image.fromarray(gray)))):
        assert (output.shape, output.dtype) == (gray.shape, gray.dtype)
        assert np.allclose(output, gray, atol=1e-6)
    if kind != "uint8":
        with pytest.raises(UserError, match=f"Pillow has no image of 3 channels of {kind}. Give an array"):
            translator().translate(Image.fromarray(gray))


def test_georeference_and_nodata_are_kept(tmp_path):
    bands = noise("uint16", 5)
    bands[2, 3] = 9
    where = {"crs": "EPSG:32633", "transform": from_origin(500_000, 5_000_000, 10, 10), "nodata": 9}
    with rasterio.open(tmp_path / "x.tif", "w", height=7, width=9, count=5, dtype="uint16", **where) as file:
        file.write(np.moveaxis(bands, 2, 0))
    written = translator(5, network=Reversed()).translate_file(tmp_path / "x.tif", tmp_path / "out" / "x.tif")
    with rasterio.open(tmp_path / "x.tif") as before, rasterio.open(written) as after:
        assert (after.crs, after.transform, after.nodata) == (before.crs, before.transform, 9)
        assert after.dtypes == before.dtypes
        read = np.moveaxis(after.read(), 0, 2)
    assert (read[2, 3] == 9).all()
    holes = (bands == 9).any(axis=2)
    assert np.array_equal(read[~holes], bands[~holes][:, ::-1])


def test_unsupported_outputs_become_tiff(tmp_path):
    write_image(tmp_path / "x.jpg", noise("uint8", 1))
    written = translator(1, 5, Repeated()).translate_file(tmp_path / "x.jpg", tmp_path / "y.jpg")
    assert written == tmp_path / "y.tif"
    assert read_image(written).shape == (7, 9, 5)
    metres = translator(1, target_range=(0, 9000), target_type="uint16")
    written = metres.translate_file(tmp_path / "x.jpg", tmp_path / "z.jpg")
    assert written == tmp_path / "z.tif"
    read = read_image(tmp_path / "x.jpg").astype(float)
    assert np.abs(read_image(written) - read / 255 * 9000).max() <= 0.5 + 1e-2


def test_nothing_random_remains():
    model, source = translator(), torch.rand(2, 3, 8, 8) * 2 - 1
    assert torch.equal(model.translate_tensor(source), model.translate_tensor(source))


@pytest.mark.parametrize("kind", ["uint8", "uint16", "float32"])
@pytest.mark.parametrize("channels", [1, 3, 5])
@pytest.mark.parametrize("side", [5, 24])
def test_preprocessing_equals_that_of_training(tmp_path, kind, channels, side):
    image = noise(kind, channels)
    how = Preprocessing(channels, channels, side, True)
    model = Translator(ModelConfig("pix2pix", {"a2b": SPEC}, how), {"a2b": nn.Identity()}, precision="fp32")
    for split in ("val", "train"):
        for domain in "AB":
            write_image(tmp_path / f"{split}{domain}" / "x.tif", image)
    whole = Augmentation(side, side, flip=False)
    channel_counts = {"source_channels": channels, "target_channels": channels}
    validation = PairedDataset(tmp_path, "val", augmentation=whole, **channel_counts)[0, 0]["source"]
    training = PairedDataset(tmp_path, "train", augmentation=whole, **channel_counts)[5, 0]["source"]
    assert torch.equal(model.prepare(image).values, validation)
    assert torch.equal(training, validation)
    top = {"uint8": 255, "uint16": 65535, "float32": 1}[kind]
    expected = resize(resize(image, side, side).astype(np.float32) / top * 2 - 1, *image.shape[:2])
    exact = model.translate_exactly(image).permute(1, 2, 0).numpy()  # of a network that changes nothing
    np.testing.assert_allclose(exact, expected, atol=1e-5)
    step = 0 if kind == "float32" else 0.5 / top
    np.testing.assert_allclose(model.translate(image) / top, (expected + 1) / 2, atol=step + 1e-5)


class TestPalette:
    COLORS = ((242, 239, 228), (150, 200, 235))

    def drawn(self, H, W):
        blocks = np.random.default_rng(0).integers(0, 2, (H // 8, W // 8)).repeat(8, axis=0).repeat(8, axis=1)
        return np.array(self.COLORS, dtype=np.uint8)[blocks]

    @pytest.mark.parametrize("size", [(64, 96), (128, 48)])
    def test_a_drawn_map_is_scaled_as_in_training(self, size):
        source = self.drawn(*size)
        how = Preprocessing(3, 3, 32, True, legend=self.COLORS)
        model = Translator(ModelConfig("pix2pix", {"a2b": SPEC}, how), {"a2b": nn.Identity()})
        found = to_array(model.prepare(source).values, np.uint8)
        whole = Augmentation(32, 32, flip=False, palette=self.COLORS)
        np.testing.assert_array_equal(found, ImageTransform(whole)(source, (0,)))
        assert {tuple(color) for color in found.reshape(-1, 3).tolist()} == set(self.COLORS)

    def test_other_images_and_models_without_a_palette_are_interpolated(self):
        for palette, source in (((), self.drawn(64, 96)), (self.COLORS, noise("uint8", 3).repeat(9, axis=0))):
            how = Preprocessing(3, 3, 32, True, legend=palette)
            model = Translator(ModelConfig("pix2pix", {"a2b": SPEC}, how), {"a2b": nn.Identity()})
            found = to_array(model.prepare(source).values, np.uint8).reshape(-1, 3)
            kept = set(map(tuple, source.reshape(-1, 3).tolist()))
            assert sum(tuple(color) not in kept for color in found.tolist()) > len(found) / 20


def profile(space):
    """As much of an ICC profile as says its color space: ICC.1:2022, Sec. 7.2.8."""
    return bytes(16) + space + bytes(140)


@pytest.mark.parametrize(
    ("space", "channels", "is_kept"), [(b"RGB ", 3, True), (b"RGB ", 1, False), (b"CMYK", 3, False)]
)
def test_a_color_profile_is_kept_for_channels_of_its_space(tmp_path, space, channels, is_kept):
    model = translator(3, channels, nn.Identity() if channels == 3 else First())
    source = Image.fromarray(noise("uint8", 3))
    source.info["icc_profile"] = profile(space)
    assert model.translate(source).info.get("icc_profile") == (profile(space) if is_kept else None)
    source.save(tmp_path / "x.png")
    with Image.open(model.translate_file(tmp_path / "x.png", tmp_path / "y.png")) as result:
        assert result.info.get("icc_profile") == (profile(space) if is_kept else None)


def test_a_transparent_gray_is_the_same_in_all_modes(tmp_path):
    """Chunk tRNS counts in the file's units, also of 16 bits: PNG 1.2, Sec. 4.2.1.1."""
    deep = np.array([[1000, 2000]], np.uint16)
    Image.fromarray(deep).save(tmp_path / "x.png", transparency=1000)
    model = translator(1)
    assert model.read(tmp_path / "x.png").array.ravel().tolist() == [65535, 2000]
    with Image.open(tmp_path / "x.png") as image:
        assert np.asarray(model.translate(image)).ravel().tolist() == [65535, 2000]


def test_a_damaged_pillow_image_is_one_message(tmp_path):
    Image.fromarray(noise("uint8", 3)).save(tmp_path / "x.png")
    (tmp_path / "x.png").write_bytes((tmp_path / "x.png").read_bytes()[:90])
    with Image.open(tmp_path / "x.png") as image, pytest.raises(UserError, match="the image: cannot be decoded"):
        translator().translate(image)


def test_the_first_image_unlike_those_of_the_training_is_reported(tmp_path, caplog):
    rng = np.random.default_rng(0)

    def like(dtype=np.uint8):
        return (rng.random((24, 24, 3)) * 40 + 200).astype(dtype)

    how = Preprocessing(3, 3, 16, True)
    sources = measure_sources(lambda index: how.to_input(like()), 40)
    config = ModelConfig("pix2pix", {"a2b": SPEC}, how, sources={"a2b": sources})
    model = Translator(config, {"a2b": nn.Identity()})
    model.translate(like())
    assert not caplog.records
    for name, image in (("a", like()), ("b", 255 - like()), ("c", 255 - like())):
        write_image(tmp_path / "in" / f"{name}.png", image)
    model.translate_folder(tmp_path / "in", tmp_path / "out")
    (record,) = caplog.records
    assert f"{tmp_path / 'in' / 'b.png'}: is unlike the images of A" in record.getMessage()
    Translator(config, {"a2b": nn.Identity()}).translate(255 - like())
    assert "Warning: the image: is unlike" in caplog.records[1].getMessage()
    assert not Translator(replace(config, sources={}), {"a2b": nn.Identity()}).translate(255 - like()).max() > 60
    assert len(caplog.records) == 2
