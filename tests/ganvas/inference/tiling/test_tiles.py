"""Translations in tiles equal those without, keep metadata, and need memory independent of the size."""

import errno
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import rasterio
import tifffile
import torch
from PIL import Image
from rasterio.transform import from_origin
from torch import nn

from ganvas.cli.translate import translate_files
from ganvas.data.decode import read_image
from ganvas.data.encode import write_image
from ganvas.errors import UserError
from ganvas.inference.tiling import tiles
from ganvas.inference.tiling.plan import Plan, Tiling
from ganvas.inference.tiling.seams import seam_measure
from ganvas.inference.tiling.tiles import open_source, translate_tiled
from ganvas.inference.translator import Translator
from ganvas.models.folder import ModelConfig, NetworkSpec, Preprocessing, save_model
from ganvas.nn.resnet import ResNetGenerator
from ganvas.nn.unet import UNetGenerator
from pix2pix.__main__ import main as pix2pix

ROOT = Path(__file__).parents[4]


def translator(network, channels=3, *, statistics="running", size="native", resized=False, source_range=None):
    spec = NetworkSpec("unet", {}, "A", "B")
    how = Preprocessing(channels, channels, 32, resized, source_range, source_range)
    config = ModelConfig("pix2pix", {"a2b": spec}, how, statistics)
    return Translator(config, {"a2b": network}, size=size, precision="fp32")


def noise(H, W, C=3):
    return np.random.default_rng(0).integers(1, 255, (H, W, C), dtype=np.uint8)


def smooth(H, W):
    y, x = np.mgrid[:H, :W]
    waves = [120 + 60 * np.sin(x / (9 + c)) * np.cos(y / (11 - c)) + 50 * (x / W - 0.5) for c in range(3)]
    return np.stack(waves, axis=2).astype(np.uint8)


@pytest.mark.parametrize("interleave", ["pixel", "band"])
@pytest.mark.parametrize(
    "layout", [{}, {"compress": "lzw", "predictor": 2}, {"tiled": True, "blockxsize": 16, "blockysize": 32}]
)
def test_a_geotiff_round_trips(tmp_path, layout, interleave):
    bands = noise(301, 270)
    bands[5, 7] = 0
    where = {"crs": "EPSG:32633", "transform": from_origin(500_000, 5_000_000, 10, 10), "nodata": 0}
    size = {"height": 301, "width": 270, "count": 3, "dtype": "uint8", "interleave": interleave}
    with rasterio.open(tmp_path / "x.tif", "w", **size, **where, **layout) as file:
        file.write(np.moveaxis(bands, 2, 0))
    result = translate_tiled(translator(nn.Identity()), tmp_path / "x.tif", tmp_path / "y.tif", Tiling(64, 16))
    with rasterio.open(tmp_path / "x.tif") as before, rasterio.open(result.path) as after:
        assert (after.crs, after.transform, after.nodata) == (before.crs, before.transform, 0)
        assert np.array_equal(np.moveaxis(after.read(), 0, 2), bands)


def test_five_float_channels_with_a_range_round_trip(tmp_path):
    image = np.random.default_rng(0).uniform(200, 900, (100, 130, 5)).astype(np.float32)
    write_image(tmp_path / "x.tif", image)
    model = translator(nn.Identity(), 5, source_range=(0.0, 1000.0))
    model.preprocessing = model.preprocessing.__class__(
        5, 5, 32, False, (0.0, 1000.0), (0.0, 1000.0), target_type="float32"
    )
    result = translate_tiled(model, tmp_path / "x.tif", tmp_path / "y.png", Tiling(64, 16))
    assert result.path == tmp_path / "y.tif"
    assert np.allclose(read_image(result.path), image, atol=1e-3)


def test_exact_instance_norm_equals_one_pass(tmp_path):
    image = noise(90, 110)
    image[:, :50] //= 4
    write_image(tmp_path / "x.png", image)
    torch.manual_seed(0)
    norms = [nn.InstanceNorm2d(3), nn.Conv2d(3, 3, 1), nn.ReLU(), nn.InstanceNorm2d(3), nn.Conv2d(3, 3, 1), nn.Tanh()]
    model = translator(nn.Sequential(*norms))
    whole = model.translate(image).astype(int)
    result = translate_tiled(model, tmp_path / "x.png", tmp_path / "y.png", Tiling(32, 8, exact=True))
    assert np.abs(read_image(result.path).astype(int) - whole).max() <= 1
    assert result.passes == 2
    assert np.array_equal(model.translate(image), whole)


@pytest.mark.parametrize(
    ("network", "statistics"),
    [
        (lambda: UNetGenerator(base_channels=4, num_levels=4, norm="instance", dropout=0), "running"),
        (lambda: UNetGenerator(base_channels=4, num_levels=4, norm="batch", dropout=0), "running"),
        (lambda: UNetGenerator(base_channels=4, num_levels=4, norm="batch", dropout=0), "picture"),
        (lambda: ResNetGenerator(base_channels=4, num_blocks=1), "running"),
    ],
    ids=["unet-instance", "unet-running", "unet-picture", "resnet"],
)
@pytest.mark.slow
def test_tiles_add_no_seams(tmp_path, network, statistics):
    image = smooth(333, 301)  # no multiple of the grid
    write_image(tmp_path / "x.tif", image)
    torch.manual_seed(0)
    model = translator(network(), statistics=statistics)
    whole = model.translate(image)
    result = translate_tiled(model, tmp_path / "x.tif", tmp_path / "y.tif", Tiling(160, 64, exact=True))
    apart = np.abs(read_image(result.path).astype(int) - whole)
    plan = Plan.of(333, 301, Tiling(160, 64), model.network)
    assert result.tiles == plan.tiles == 9
    assert result.seam == pytest.approx(seam_measure(whole, plan.rows.borders, plan.columns.borders), abs=0.02)
    assert apart.mean() < 0.5
    shared_by_none = translate_tiled(model, tmp_path / "x.tif", tmp_path / "z.tif", Tiling(160, 64, shared=False))
    own = np.abs(read_image(shared_by_none.path).astype(int) - whole)
    if result.passes:
        assert own.mean() > 5 * apart.mean()
    else:
        assert np.array_equal(own, apart)


@pytest.mark.slow
def test_statistics_of_few_tiles_are_close_to_those_of_all(tmp_path):
    write_image(tmp_path / "x.tif", smooth(300, 420))
    torch.manual_seed(0)
    model = translator(UNetGenerator(base_channels=4, num_levels=3, norm="instance", dropout=0))
    sampled, exact = (
        translate_tiled(model, tmp_path / "x.tif", tmp_path / f"{exact}.tif", Tiling(64, 16, exact=exact))
        for exact in (False, True)
    )
    assert 12 <= sampled.sampled <= tiles.SAMPLES < exact.sampled == exact.tiles == sampled.tiles
    assert 0 < exact.uncertainty < 0.3
    apart = np.abs(read_image(sampled.path).astype(int) - read_image(exact.path))
    assert 0 < apart.mean() < 6
    assert f"approximate norm statistics, from {sampled.sampled} of {sampled.tiles} tiles" in sampled.describe()
    assert f"; norm statistics from all {exact.tiles} tiles" in exact.describe()


def test_without_exact_statistics_are_approximate(tmp_path):
    write_image(tmp_path / "x.tif", smooth(100, 100))
    torch.manual_seed(0)
    model = translator(UNetGenerator(base_channels=2, num_levels=3, norm="instance", dropout=0))
    few = translate_tiled(model, tmp_path / "x.tif", tmp_path / "y.tif", Tiling(64, 16))
    assert few.sampled == few.tiles == 4
    assert "approximate norm statistics, from 4 of 4 tiles" in few.describe()


def test_progress_is_reported_for_each_tile(tmp_path):
    write_image(tmp_path / "x.tif", smooth(100, 100))
    torch.manual_seed(0)
    model = translator(UNetGenerator(base_channels=2, num_levels=3, norm="instance", dropout=0))
    told = []
    result = translate_tiled(
        model, tmp_path / "x.tif", tmp_path / "y.tif", Tiling(64, 16), lambda done, total: told.append((done, total))
    )
    done, totals = zip(*told, strict=True)
    assert list(done) == sorted(done)
    assert set(totals) == {done[-1]}
    assert len(done) >= result.tiles + result.passes * result.sampled


def test_a_model_that_scales_images_is_refused(tmp_path):
    write_image(tmp_path / "x.tif", smooth(64, 64))
    with pytest.raises(UserError, match="size='native'"):
        translate_tiled(
            translator(nn.Identity(), size="trained", resized=True),
            tmp_path / "x.tif",
            tmp_path / "y.tif",
            Tiling(32, 0),
        )
    assert not (tmp_path / "y.tif").exists()
    native = translator(nn.Identity(), resized=True)
    result = translate_tiled(native, tmp_path / "x.tif", tmp_path / "y.tif", Tiling(32, 0))
    assert "at the image's own scale, while the training scaled images to 32 pixels" in result.describe()
    plain = translate_tiled(translator(nn.Identity()), tmp_path / "x.tif", tmp_path / "y.tif", Tiling(32, 0))
    assert "own scale" not in plain.describe()


def test_huge_images_need_windowed_reading_and_writing(tmp_path, monkeypatch):
    write_image(tmp_path / "x.png", smooth(64, 64))
    write_image(tmp_path / "x.tif", smooth(64, 64))
    model = translator(nn.Identity())
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 64 * 64 - 1)
    with pytest.raises(UserError, match=r"x\.png: this format cannot be read by windows.*Save it as a tiled TIFF"):
        translate_tiled(model, tmp_path / "x.png", tmp_path / "y.tif", Tiling(32, 0))
    with pytest.raises(UserError, match=r"y\.png: 64x64 pixels.*ends in \.tif"):
        translate_tiled(model, tmp_path / "x.tif", tmp_path / "y.png", Tiling(32, 0))
    assert translate_tiled(model, tmp_path / "x.tif", tmp_path / "y.tif", Tiling(32, 0)).tiles == 4
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 64 * 64)
    assert translate_tiled(model, tmp_path / "x.png", tmp_path / "y.png", Tiling(32, 0)).tiles == 4
    (tmp_path / "bad.png").write_text("no image")
    with pytest.raises(UserError, match=r"bad\.png: is not a readable image"):
        translate_tiled(model, tmp_path / "bad.png", tmp_path / "y.png", Tiling(32, 0))


def test_a_truncated_source_leaves_no_partial_file(tmp_path):
    path = tmp_path / "x.tif"
    tifffile.imwrite(path, noise(200, 200), photometric="rgb", compression="zlib", rowsperstrip=20)
    with tifffile.TiffFile(path) as file:
        end = file.pages.first.dataoffsets[7]
    content = path.read_bytes()
    path.write_bytes(content[:end] + bytes(50) + content[end + 50 :])
    (tmp_path / "y.tif").write_bytes(b"before")
    told = []
    with pytest.raises(UserError, match=r"x\.tif: cannot be decoded"):
        translate_tiled(
            translator(nn.Identity()), path, tmp_path / "y.tif", Tiling(64, 0), lambda *done: told.append(done)
        )
    assert len(told) >= 4
    assert (tmp_path / "y.tif").read_bytes() == b"before"
    assert sorted(file.name for file in tmp_path.iterdir()) == ["x.tif", "y.tif"]


@pytest.mark.filterwarnings("ignore::UserWarning:PIL.TiffImagePlugin")  # the fallback's own
def test_a_damaged_header_is_one_message(tmp_path):
    path = tmp_path / "x.tif"
    tifffile.imwrite(path, noise(40, 50), photometric="rgb", compression="zlib", rowsperstrip=7)
    content = path.read_bytes()
    with tifffile.TiffFile(path) as file:
        places = [tag.offset + byte for tag in file.pages.first.tags for byte in range(12)]
    messages = 0
    for place in places:
        for value in (0, 255):
            path.write_bytes(content[:place] + bytes([value]) + content[place + 1 :])
            try:
                with open_source(path, translator(nn.Identity()), 8) as pixels:
                    assert pixels.read(0, 0, 8, 8).array.shape == (8, 8, 3)
            except UserError as error:
                assert str(error).startswith(f"{path}: ")
                messages += 1
    assert len(places) / 2 < messages < 1.5 * len(places)


def three_pictures(folder):
    for name in "abc":
        write_image(folder / f"{name}.tif", noise(40, 50))
    return folder


def test_a_damaged_image_does_not_stop_the_others(tmp_path):
    path = three_pictures(tmp_path / "in") / "b.tif"
    tifffile.imwrite(path, noise(40, 50), photometric="rgb", compression="zlib", rowsperstrip=7)
    with tifffile.TiffFile(path, mode="r+") as file:
        file.pages.first.tags["RowsPerStrip"].overwrite(0)
    with pytest.raises(UserError, match=r"1 of 3 images failed:\n.*b\.tif: "):
        translate_files(translator(nn.Identity()), path.parent, tmp_path / "out", as_json=True, tiling=Tiling(32, 0))
    assert sorted(file.name for file in (tmp_path / "out").iterdir()) == ["a.tif", "c.tif"]


def test_a_full_disk_is_one_message_and_keeps_finished_images(tmp_path, monkeypatch):
    write, written = tifffile.imwrite, []

    def until_full(path, squares, **how):
        if written:
            path.write_bytes(next(squares).tobytes())
            raise OSError(errno.ENOSPC, "No space left on device")
        written.append(path)
        write(path, squares, **how)

    arguments = translator(nn.Identity()), three_pictures(tmp_path / "in"), tmp_path / "out"
    monkeypatch.setattr(tifffile, "imwrite", until_full)
    with pytest.raises(UserError, match=r"1 of 3 images failed:\n.*b\.tif: .*No space left.*\n1 more were not tried"):
        translate_files(*arguments, as_json=True, tiling=Tiling(32, 0))
    assert [file.name for file in (tmp_path / "out").iterdir()] == ["a.tif"]
    monkeypatch.undo()
    assert translate_files(*arguments, as_json=True, tiling=Tiling(32, 0)) == 0
    assert sorted(file.name for file in (tmp_path / "out").iterdir()) == ["a.tif", "b.tif", "c.tif"]


def test_the_command_prints_one_json_object(tmp_path, in_process):
    torch.manual_seed(0)
    arguments = {"base_channels": 2, "num_levels": 3, "norm": "instance"}
    config = ModelConfig("pix2pix", {"a2b": NetworkSpec("unet", arguments, "A", "B")}, Preprocessing(3, 3, 32, True))
    save_model(tmp_path / "model", config, {"a2b": UNetGenerator(**arguments)}, "# A card\n")
    write_image(tmp_path / "x.tif", smooth(100, 120))
    code, out, err = in_process(pix2pix)(
        "translate",
        tmp_path / "model",
        tmp_path / "x.tif",
        tmp_path / "y.tif",
        "--tile",
        "64",
        "--overlap",
        "16",
        "--json",
    )
    assert code == 0
    (one,) = json.loads(out)["tiled"]
    assert (one["path"], one["tiles"], one["tile"], one["sampled"]) == (str(tmp_path / "y.tif"), 6, [64, 64], 6)
    assert 0.5 < one["seam"] < 2
    assert one["trained_at"] == 32
    assert "Traceback" not in err
    assert tifffile.imread(tmp_path / "y.tif").shape == (100, 120, 3)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--tile", "4"], "needs 8 pixels"),
        (["--tile", "16"], "Give --tile 24 or more"),
        (["--tile", "32", "--paper"], "--paper: all tiles would get the same dropout"),
    ],
)
def test_the_command_refuses_invalid_tiles(tmp_path, in_process, options, message):
    config = ModelConfig(
        "pix2pix",
        {"a2b": NetworkSpec("unet", {"base_channels": 2, "num_levels": 3}, "A", "B")},
        Preprocessing(3, 3, 32, True),
    )
    save_model(tmp_path / "model", config, {"a2b": UNetGenerator(base_channels=2, num_levels=3)}, "# A card\n")
    write_image(tmp_path / "x.tif", smooth(50, 50))
    code, _, err = in_process(pix2pix)(
        "translate", tmp_path / "model", tmp_path / "x.tif", tmp_path / "y.tif", "--overlap", "16", *options
    )
    assert code == 2
    assert message in err
    assert not (tmp_path / "y.tif").exists()


# Windows and macOS tell the peak otherwise, or tell that of the process that started this one.
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux's own count of memory")
@pytest.mark.slow
def test_memory_does_not_grow_with_the_image(tmp_path):
    script = (
        "import sys, torch; from pathlib import Path; from benchmarks.tiles import *\n"
        "torch.set_num_threads(1)\n"
        "source = draw_waves(Path(sys.argv[1]) / 'x.tif', 1500, int(sys.argv[2]))\n"
        "network = UNetGenerator(base_channels=2, num_levels=2, norm='batch', dropout=0)\n"
        "translate_tiled(make_translator(network, 'running'), source, source.with_name('y.tif'), Tiling(256, 32))\n"
        "print(next(line.split()[1] for line in open('/proc/self/status') if line.startswith('VmHWM')))\n"
    )
    narrow, wide = (
        int(subprocess.check_output([sys.executable, "-c", script, tmp_path, str(width)], cwd=ROOT)) / 1000
        for width in (1500, 6000)
    )
    # Four times as many pixels: 81 MB more as floats, in and out each; a part of the file may be kept decoded.
    assert -30 < wide - narrow < 60
