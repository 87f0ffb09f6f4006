"""The page in a real browser, served by a process of its own."""

import base64
import http.client
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import pytest
import torch
from PIL import Image

from benchmarks.page_load import Client
from cyclegan.__main__ import main as cyclegan
from data_scripts.sets.earth import describe_colors
from ganvas.data.decode import read_image
from ganvas.inference.tiling.plan import Tiling
from ganvas.inference.tiling.tiles import translate_tiled
from ganvas.inference.translator import load
from ganvas.models.folder import ModelConfig, NetworkSpec, Preprocessing, build_generator, save_model
from pix2pix.__main__ import main as pix2pix

pytestmark = pytest.mark.slow

pytest.importorskip("gradio", reason="gradio is not installed (extra web)")

ROOT = Path(__file__).parents[4]
COLORS = describe_colors("topo")
LINES = COLORS["lines"]
SIDE = 64
COLOURS = Preprocessing(3, 3, image_size=SIDE, resized=True)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run of domains map and terrain, with its dataset beside it; the network has learned nothing."""
    root = tmp_path_factory.mktemp("page")
    (root / "data" / "test").mkdir(parents=True)
    (root / "data" / "dataset.json").write_text(json.dumps(COLORS))
    rng = np.random.default_rng(0)
    for number in range(2):
        both = rng.integers(0, 256, (SIDE, 2 * SIDE, 3), dtype=np.uint8)
        Image.fromarray(both).save(root / "data" / "test" / f"{number}.png")
    (root / "run").mkdir()
    (root / "run" / "config.json").write_text(json.dumps({"data": {"data": str(root / "data")}}))
    write_model(root / "run" / "model", "pix2pix", {"a2b": ("map", "terrain")})
    return root / "run"


def write_model(folder, kind, ways, how=COLOURS):
    torch.manual_seed(0)
    channels = {"in_channels": how.source_channels, "out_channels": how.target_channels}
    arguments = {**channels, "base_channels": 4, "num_blocks": 1}
    specs = {way: NetworkSpec("resnet", arguments, *domains) for way, domains in ways.items()}
    config = ModelConfig(kind, specs, how)
    save_model(folder, config, {way: build_generator(spec) for way, spec in specs.items()}, "# A card\n")


def start(program, *arguments, temporary=None):
    """Serve a page; ``temporary`` is where the process writes what goes with it."""
    process = subprocess.Popen(
        [sys.executable, "-m", program, "serve", *map(str, arguments), "--port", "0", "--device", "cpu"],
        cwd=ROOT,
        env=os.environ | ({} if temporary is None else {"TMPDIR": str(temporary)}),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    return process, process.stdout.readline().strip()


def stop(process):
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=30)
    return process.returncode, out, err


@pytest.fixture(scope="module")
def temporary(tmp_path_factory):
    """Where the server of `address` writes."""
    return tmp_path_factory.mktemp("served")


@pytest.fixture(scope="module")
def address(run, temporary):
    limits = "--max-pixels", "100000", "--max-megabytes", "1", "--tile", "96", "--overlap", "32"
    process, address = start("pix2pix", run, *limits, temporary=temporary)
    assert address.startswith("http://127.0.0.1:")
    yield address
    assert stop(process) == (0, "", "")
    assert not list(temporary.glob("ganvas-serve-*"))


@pytest.fixture
def page(browser, address):
    yield from visited(browser, address)


def visited(browser, address):
    context = browser.new_context(viewport={"width": 1200, "height": 900})
    page = context.new_page()
    page.hosts = set()
    page.on("request", lambda request: page.hosts.add(urlsplit(request.url).hostname))
    page.goto(address)
    page.wait_for_selector("#image")
    yield page
    assert page.hosts - {None} == {"127.0.0.1"}  # None: data and blobs
    context.close()


def downloaded(page, folder):
    page.wait_for_selector("#download:not([disabled])", timeout=60_000)
    page.wait_for_function("document.querySelectorAll('#result img').length >= 2")
    with page.expect_download() as event:
        page.click("#download")
    path = folder / event.value.suggested_filename
    event.value.save_as(path)
    return path


def assert_same_image(found, expected):
    """Compare two image files: in bfloat16, another number of threads gives other roundings."""
    assert found.suffix == expected.suffix
    images = [read_image(path) for path in (found, expected)]
    assert images[0].dtype == images[1].dtype
    assert_close(*images)


def assert_close(found, expected):
    assert found.shape == expected.shape
    difference = np.abs(found.astype(np.float64) - expected.astype(np.float64))
    step = np.iinfo(expected.dtype).max / 255
    largest, mean = (2, 1 / 4) if expected.dtype == np.uint8 else (1, 1 / 20)  # deeper ones are computed in float32
    assert difference.max() <= largest * step
    assert difference.mean() <= mean * step


def upload(page, path):
    page.set_input_files("#image input[type=file]", str(path))


def image_bytes(size):
    file = io.BytesIO()
    Image.new("RGB", size, "red").save(file, "PNG")
    return file.getvalue()


@pytest.mark.essential
def test_an_uploaded_image_is_translated_as_by_translate(page, run, tmp_path):
    source = tmp_path / "coast.png"
    Image.fromarray(np.random.default_rng(1).integers(0, 256, (50, 70, 3), dtype=np.uint8)).save(source)
    upload(page, source)
    found = downloaded(page, tmp_path / "found")
    expected = load(run).translate_file(source, tmp_path / "expected" / "coast.png")
    assert found.name == "coast.png"
    assert_same_image(found, expected)


def test_16_bits_stay_16_bits(page, run, tmp_path):
    source = tmp_path / "deep.tif"
    deep = np.random.default_rng(2).integers(0, 65536, (40, 48), dtype=np.uint16)
    Image.fromarray(deep).save(source)
    upload(page, source)
    found = downloaded(page, tmp_path / "found")
    expected = load(run).translate_file(source, tmp_path / "expected" / "deep.tif")
    assert_same_image(found, expected)


def test_a_coast_is_drawn_in_the_palettes_colors_and_translated_at_once(page, run, tmp_path, temporary):
    page.get_by_role("tab", name="Draw").click()
    assert page.locator("#pad-tools [data-ink]").all_inner_texts() == ["land", "water", "lake", *LINES]
    box = page.locator("#pad").bounding_box()
    page.mouse.move(box["x"] + box["width"] / 4, box["y"] + box["height"] / 4)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2, steps=5)
    page.mouse.up()
    found = np.asarray(Image.open(downloaded(page, tmp_path)))

    encoded = page.evaluate("window.drawing()").partition(",")[2]
    drawing = np.asarray(Image.open(io.BytesIO(base64.b64decode(encoded))).convert("RGB"))
    assert {tuple(color) for color in drawing.reshape(-1, 3).tolist()} == {(242, 239, 228), (150, 200, 235)}
    assert tuple(drawing[SIDE * 3 // 8, SIDE * 3 // 8]) == (242, 239, 228)
    assert_close(found, load(run).translate(drawing))
    # Of the drawing itself only the preview is left; "drawing.png" is the result.
    results = [path for path in temporary.glob("ganvas-serve-*/files/result-*/*") if path.name == "drawing.png"]
    assert results
    for result in results:
        assert {path.name for path in result.parent.iterdir()} == {
            "drawing.png",
            "source-preview.png",
            "result-preview.png",
        }


@pytest.mark.parametrize("name", ["rivers", "100 m", "1000 m"])
def test_a_line_is_thin_and_each_brush_keeps_its_size(page, name):
    page.get_by_role("tab", name="Draw").click()
    size = page.locator("#pad-size")
    land, line = (page.locator("#pad-tools").get_by_role("button", name=each, exact=True) for each in ("land", name))
    assert size.input_value() == str(SIDE // 20)
    size.fill("5")
    line.click()
    assert (size.input_value(), line.get_attribute("aria-pressed")) == ("0", "true")
    box = page.locator("#pad").bounding_box()
    scale = box["width"] / SIDE
    page.mouse.move(box["x"] + 10.5 * scale, box["y"] + 20.5 * scale)
    page.mouse.down()
    page.mouse.move(box["x"] + 30.5 * scale, box["y"] + 20.5 * scale, steps=4)
    page.mouse.up()
    encoded = page.evaluate("window.drawing()").partition(",")[2]
    drawing = np.asarray(Image.open(io.BytesIO(base64.b64decode(encoded))).convert("RGB"))
    rows, columns = np.nonzero((drawing == LINES[name]).all(axis=2))
    assert set(rows) == {20}
    assert set(columns) == set(range(10, 31))
    land.click()
    assert size.input_value() == "5"


@pytest.mark.parametrize("name", ["wide.tif", "wide.npy"])
def test_a_large_image_is_tiled_on_request(page, run, tmp_path, name):
    source = tmp_path / name
    y, x = np.mgrid[:150, :210]
    waves = np.stack([128 + 100 * np.sin(x / (7 + c)) * np.cos(y / 9) for c in range(3)], axis=2).astype(np.uint8)
    np.save(source, waves) if name.endswith(".npy") else Image.fromarray(waves).save(source)
    upload(page, source)
    scaled = downloaded(page, tmp_path / "scaled")
    assert_same_image(scaled, load(run).translate_file(source, tmp_path / "expected" / "wide.tif"))
    tiled = translate_tiled(load(run, size="native"), source, tmp_path / "expected" / "tiled.tif", Tiling(96, 32))
    assert tiled.tiles == 6
    shown = "[...document.querySelectorAll('#result img')].map((image) => image.src).join()"
    before = page.evaluate(shown)
    page.get_by_label("Tile large images").check()
    page.wait_for_function(f"before => {shown} !== before", arg=before, timeout=30_000)
    found = downloaded(page, tmp_path / "tiled")
    assert_same_image(found, tiled.path)
    with pytest.raises(AssertionError):
        assert_same_image(found, scaled)


def test_an_example_of_the_dataset_is_translated(page, run, tmp_path):
    page.locator("#examples button:has(img)").first.click()
    found = np.asarray(Image.open(downloaded(page, tmp_path)))
    with Image.open(run.parent / "data" / "test" / "0.png") as both:
        assert_close(found, load(run).translate(np.asarray(both)[:, :SIDE]))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("huge.png", image_bytes((500, 300)), "huge.png: has 500x300 pixels"),
        ("notes.txt", b"no image", "notes.txt: is not a readable image."),
    ],
)
def test_a_bad_upload_is_one_message(page, name, content, message, tmp_path):
    (tmp_path / name).write_bytes(content)
    upload(page, tmp_path / name)
    assert_one_message(page, message)


def assert_one_message(page, said):
    toast = page.locator(".toast-body")
    toast.first.wait_for(timeout=60_000)
    assert toast.count() == 1
    assert said in toast.inner_text()
    assert "/tmp" not in toast.inner_text()
    assert page.locator("#download").is_disabled()


@pytest.mark.parametrize(
    ("drawing", "said"),
    [
        ("'data:image/png;base64,' + 'A'.repeat(1500000)", "The request is larger than the limit of this page."),
        ("'not base64'", "The browser sent no drawing."),
    ],
)
def test_a_bad_drawing_is_one_message(page, drawing, said):
    page.get_by_role("tab", name="Draw").click()
    page.evaluate(f"window.drawing = () => {drawing}")
    page.click("#translate-drawing")
    assert_one_message(page, said)


def test_an_unwritable_server_folder_is_reported(browser, run, tmp_path):
    process, address = start("pix2pix", run, temporary=tmp_path)
    visit = visited(browser, address)
    page = next(visit)
    (folder,) = tmp_path.glob("ganvas-serve-*")
    shutil.rmtree(folder)
    page.get_by_role("tab", name="Draw").click()
    page.click("#translate-drawing")
    assert_one_message(page, "The server could not read or write a file; its disk may be full. Try again later.")
    assert next(visit, None) is None
    code, out, err = stop(process)
    assert (code, out) == (0, "")
    assert err.count("No such file or directory") == len(err.splitlines()) == 1


def test_after_a_bad_upload_there_is_no_result_to_download(page, tmp_path):
    good, bad = tmp_path / "good.png", tmp_path / "bad.png"
    Image.new("RGB", (40, 30), "red").save(good)
    bad.write_text("no image")
    upload(page, good)
    downloaded(page, tmp_path)
    page.get_by_label("Clear").click()
    page.wait_for_selector("#download[disabled]")
    upload(page, good)
    downloaded(page, tmp_path)
    page.evaluate("window.drawing = () => 'not base64'")
    page.get_by_role("tab", name="Draw").click()
    page.click("#translate-drawing")
    assert_one_message(page, "The browser sent no drawing.")
    page.wait_for_function("document.querySelectorAll('#result img').length === 0")


def visitor(address):
    return Client(urlsplit(address).port)


def test_answers_name_no_path_of_the_machine(address, run, temporary):
    client = visitor(address)
    path = client.upload("x.png", image_bytes((20, 20)))
    good = client.translate(path)
    bad = client.translate(client.upload("bad.png", b"no image"))
    assert (good["success"], bad["success"]) == (True, False)
    assert Image.open(io.BytesIO(client.download(good["outputs"]))).size == (20, 20)
    assert path.startswith("/files/")
    texts = [client.request("GET", "/").decode(), path, json.dumps(good), json.dumps(bad)]
    for text in texts:
        for secret in (tempfile.gettempdir(), str(temporary), "ganvas-serve", str(ROOT), str(Path.home()) + "/"):
            assert secret not in text


@pytest.mark.parametrize(
    ("path", "headers", "status"),
    [
        ("/", {"Host": "attacker.example"}, 421),
        ("/gradio_api/info", {}, 404),
        ("/gradio_api/file=http://127.0.0.1:1/x.png", {}, 404),
    ],
)
def test_the_guard_protects_the_page(address, path, headers, status):
    connection = http.client.HTTPConnection(urlsplit(address).netloc, timeout=60)
    connection.request("GET", path, headers=headers)
    assert connection.getresponse().status == status
    connection.close()


def test_leftovers_of_a_killed_page_are_removed(tmp_path):
    arguments = {"in_channels": 3, "out_channels": 3, "base_channels": 4, "num_levels": 6}
    specs = {"a2b": NetworkSpec("unet", arguments, "a", "b")}
    config = ModelConfig("pix2pix", specs, Preprocessing(3, 3, image_size=SIDE, resized=False))
    save_model(tmp_path / "model", config, {"a2b": build_generator(specs["a2b"])}, "# A card\n")
    foreign = tmp_path / "ganvas-serve-notes"
    foreign.mkdir()
    (foreign / "mine.txt").write_text("mine")
    process, address = start("pix2pix", tmp_path / "model", temporary=tmp_path)
    visitor(address).upload("x.png", image_bytes((20, 20)))
    process.kill()
    process.communicate()
    (left,) = (path.parent for path in tmp_path.glob("ganvas-serve-*/files"))
    assert list(left.glob("files/*/x.png"))
    for folder in (left, foreign):
        os.utime(folder, (time.time() - 3600,) * 2)
    process, address = start("pix2pix", tmp_path / "model", "--max-pixels", "20000", temporary=tmp_path)
    (new,) = (path.parent for path in tmp_path.glob("ganvas-serve-*/files"))
    assert new != left
    assert not left.exists()

    # The same page, with limits: an image whose padding is most of what the network would see.
    client = visitor(address)
    answer = client.translate(client.upload("narrow.png", image_bytes((1100, 3))))
    assert not answer["success"]
    assert "1100x3 pixels, which become 1152x64 with the network" in answer["output"]["error"]
    assert client.translate(client.upload("x.png", image_bytes((150, 120))))["success"]
    assert stop(process) == (0, "", "")
    assert [path.name for path in tmp_path.glob("ganvas-serve-*")] == [foreign.name]
    assert (foreign / "mine.txt").read_text() == "mine"


@pytest.fixture(scope="module")
def heights(tmp_path_factory):
    """The address of a model from 10 bits to metres, with its dataset, that takes uploads of one megabyte."""
    root = tmp_path_factory.mktemp("heights")
    (root / "data" / "test").mkdir(parents=True)
    values = np.random.default_rng(0).integers(0, 1024, (SIDE, 2 * SIDE), dtype=np.uint16)
    Image.fromarray(values).save(root / "data" / "test" / "0.tif")
    ranges = {"source_range": (0, 1023), "target_range": (-100, 8900), "target_type": "float32"}
    write_model(root / "model", "pix2pix", {"a2b": ("map", "heights")}, Preprocessing(1, 1, SIDE, True, **ranges))
    process, address = start("pix2pix", root / "model", "--data", root / "data", "--max-megabytes", "1")
    yield address
    assert stop(process) == (0, "", "")


@pytest.fixture
def page_of_heights(browser, heights):
    yield from visited(browser, heights)


def images(page, selector):
    """Return the images that a part of the page shows, as arrays of one channel."""
    sources = page.locator(f"{selector} img").evaluate_all("images => images.map((image) => image.src)")
    return [np.asarray(Image.open(io.BytesIO(page.request.get(source).body())).convert("L")) for source in sources]


def test_values_of_a_value_range_are_stretched_for_display(page_of_heights, tmp_path):
    page = page_of_heights
    page.locator("#examples img").first.wait_for()
    (example,) = images(page, "#examples")
    assert (example.min(), example.max()) == (0, 255)

    source = np.tile(np.arange(0, 1024, 16, dtype=np.uint16), (SIDE, 1))
    Image.fromarray(source).save(tmp_path / "x.tif")
    upload(page, tmp_path / "x.tif")
    heights = read_image(downloaded(page, tmp_path / "found"))[:, :, 0]
    assert heights.dtype == np.float32
    shown = images(page, "#result")
    for expected in (source / 1023 * 255, (heights + 100) / 9000 * 255):
        assert min(np.abs(image - expected).max() for image in shown) < 1


def test_an_upload_of_too_many_bytes_is_one_message(page_of_heights, tmp_path):
    values = np.random.default_rng(0).integers(0, 256, (1000, 2000), dtype=np.uint8)
    Image.fromarray(values).save(tmp_path / "large.png")
    assert 2e6 < (tmp_path / "large.png").stat().st_size < 2.1e6
    upload(page_of_heights, tmp_path / "large.png")
    assert_one_message(page_of_heights, "exceed the maximum allowed size of 1.0 Mb")


def test_a_cyclegan_model_asks_for_the_direction(browser, tmp_path):
    write_model(tmp_path / "both", "cyclegan", {"a2b": ("horse", "zebra"), "b2a": ("zebra", "horse")})
    process, address = start("cyclegan", tmp_path / "both")
    source = tmp_path / "x.png"
    Image.fromarray(np.random.default_rng(3).integers(0, 256, (64, 64, 3), dtype=np.uint8)).save(source)
    context = browser.new_context()
    page = context.new_page()
    page.goto(address)
    page.get_by_label("zebra → horse").check()
    upload(page, source)
    found = downloaded(page, tmp_path / "found")
    expected = load(tmp_path / "both", direction="b2a").translate_file(source, tmp_path / "expected" / "x.png")
    other = load(tmp_path / "both", direction="a2b").translate_file(source, tmp_path / "other" / "x.png")
    context.close()
    assert stop(process)[0] == 0
    assert_same_image(found, expected)
    with pytest.raises(AssertionError):
        assert_same_image(found, other)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--port", "70000"], "must be 0 to 65535"),
        (["--host", "192.0.2.1", "--port", "0"], "cannot listen there"),
        (["--max-pixels", "0"], "must be 1 or more"),
        (["--data", "nowhere", "--port", "0", "--tile", "4"], "--data nowhere: there is no such folder"),
        (["--port", "0", "--tile", "4"], "this network needs 8 pixels"),
    ],
)
def test_a_bad_option_is_one_message(in_process, run, options, said):
    code, out, err = in_process(pix2pix)("serve", run, *options)
    assert (code, out) == (2, "")
    assert said in err


def test_without_gradio_the_message_names_what_to_install(in_process, monkeypatch, tmp_path):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    code, _, err = in_process(cyclegan)("serve", tmp_path)
    assert code == 2
    assert "pip install 'ganvas[web]'" in err
