"""Small valid files of every format that the project reads, for `benchmarks.fuzz`."""

import contextlib
import gzip
import hashlib
import io
import json
import re
import struct
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import tifffile
import torch
from PIL import Image

from benchmarks.fuzzing.mutators import join_png
from dcgan.model import DigitModelConfig, build, save_sampler
from ganvas.data.digits import ALL_FILES
from ganvas.data.shards import read_index
from ganvas.inference.upstream.weights import write_upstream
from ganvas.models.folder import ModelConfig, NetworkSpec, Preprocessing, build_generator, save_model
from ganvas.nn.patchgan import make_discriminator
from ganvas.options import to_json
from ganvas.training.checkpoint import Checkpoint, save_checkpoint
from pix2pix.config import Pix2PixConfig

H, W = 16, 24  # of the images
CHANGED = 10**18  # ns: when each file of a case was changed, since an index of a shard holds that of its shard
FORMATS = {".jpg": "jpeg", ".png": "png", ".webp": "webp", ".bmp": "bmp", ".tif": "tiff", ".npy": "npy"}
IMAGE_READERS = ("read", "read", "translate", "tiles", "check", "train", "onnx")

Files = dict[str, bytes]
Repair = Callable[[Files], None]


@dataclass(frozen=True)
class Sample:
    """A folder of valid files, of which one is mutated.

    Attributes:
        format: Row of the table.
        files: Contents by path.
        targets: Files that may be mutated, and the kind of each: what `benchmarks.fuzzing.mutators.mutate` knows of it.
        readers: Names of `benchmarks.fuzzing.readers.READERS`.
        repair: Updates digests in the other files after a mutation.
    """

    format: str
    files: Files
    targets: Mapping[str, str]
    readers: tuple[str, ...]
    repair: Repair | None = None


def make_corpus() -> list[Sample]:
    """Make all samples; the same ones each time, with the same versions of the libraries."""
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as folder:
        makers = (_images, _models, _checkpoints, _upstream_weights, _runs, _datasets, _archives, _digits, _onnx)
        return [sample for make in makers for sample in make(Path(folder))]


# --- images ----------------------------------------------------------------------------------------------------------


def pixels(channels: int, dtype: str = "uint8") -> np.ndarray:
    """Return [H, W, C], or [H, W] of one channel: a gradient with noise, of the full range, floats in [0, 1]."""
    noise = np.random.default_rng(0).random((H, W, channels))
    values = 0.5 * noise + 0.5 * np.linspace(0, 1, W)[None, :, None]
    if channels == 1:
        values = values[:, :, 0]
    return values.astype(dtype) if "f" in dtype else (values * np.iinfo(dtype).max).astype(dtype)


def _saved(write: Callable[..., object], *arguments: Any, **options: Any) -> bytes:
    file = io.BytesIO()
    write(file, *arguments, **options)
    return file.getvalue()


def _png(image: Image.Image) -> bytes:
    return _saved(image.save, "PNG")


def _images(folder: Path) -> Iterator[Sample]:
    for images in (_pillow_images(), _deep_pngs(), _tiffs(), _arrays()):
        for name, content in images.items():
            label = FORMATS[Path(name).suffix]
            yield Sample(label, {name: content}, {name: label}, IMAGE_READERS)


def _pillow_images() -> Files:
    rgb, rgba, gray = (Image.fromarray(pixels(c)) for c in (3, 4, 1))
    exif = Image.Exif()
    exif[274], exif[305] = 6, "fuzz"
    palette, bilevel, deep = rgb.quantize(13), gray.convert("1"), Image.fromarray(pixels(1, "uint16"))
    frames = {"save_all": True, "append_images": [rgb.transpose(Image.Transpose.ROTATE_180)]}
    images: dict[str, tuple[Image.Image, str, dict[str, Any]]] = {
        "rgb.jpg": (rgb, "JPEG", {"quality": 80, "exif": exif}),
        "gray.jpg": (gray, "JPEG", {"progressive": True}),
        "cmyk.jpg": (rgb.convert("CMYK"), "JPEG", {}),
        "bilevel.png": (bilevel, "PNG", {}),
        "gray.png": (gray, "PNG", {"transparency": 3}),
        "gray_alpha.png": (rgba.convert("LA"), "PNG", {}),
        "rgb.png": (rgb, "PNG", {"exif": exif, "icc_profile": b"x" * 200, "dpi": (72, 72)}),
        "rgba.png": (rgba, "PNG", {}),
        "gray16.png": (deep, "PNG", {}),
        "animated.png": (rgb, "PNG", frames),
        "gif.png": (palette, "GIF", {}),  # the content decides, not the suffix
        "rgb.webp": (rgb, "WEBP", {"exif": exif}),
        "rgba.webp": (rgba, "WEBP", {"lossless": True}),
        "animated.webp": (rgb, "WEBP", frames),
        "pillow_palette.tif": (palette, "TIFF", {"compression": "tiff_deflate"}),
    }
    for bits in (1, 2, 4, 8):
        few = rgb.quantize(min(2**bits, 200))
        images[f"palette{bits}.png"] = (few, "PNG", {"bits": bits, "transparency": bytes([0, 128])})
    for name, image in (("rgb", rgb), ("rgba", rgba), ("gray", gray), ("palette", palette), ("bilevel", bilevel)):
        images[f"{name}.bmp"] = (image, "BMP", {})
    for compression in ("group4", "tiff_lzw", "jpeg", "raw", "tiff_ccitt"):
        image = bilevel if compression in ("group4", "tiff_ccitt") else rgb
        images[f"pillow_{compression}.tif"] = (image, "TIFF", {"compression": compression})
    return {name: _saved(image.save, form, **options) for name, (image, form, options) in images.items()}


def _deep_pngs() -> Files:
    rows = b"".join(b"\0" + row.tobytes() for row in pixels(2, ">u2"))  # gray and alpha, which no library writes
    header = struct.pack(">IIBBBBB", W, H, 16, 4, 0, 0, 0)
    files = {f"deep{c}.png": cv2.imencode(".png", pixels(c, "uint16"))[1].tobytes() for c in (3, 4)}
    return files | {"deep2.png": join_png([(b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b"")])}


GEO_TAGS = [
    (33550, 12, 3, (0.5, 0.5, 0.0), True),
    (33922, 12, 6, (0.0, 0.0, 0.0, 7.0, 46.0, 0.0), True),
    (34735, 3, 8, (1, 1, 0, 1, 1025, 0, 1, 2), True),
    (42113, 2, 0, "-9999", True),
    (42112, 2, 0, '<GDALMetadata><Item name="STATISTICS_MEAN">1</Item></GDALMetadata>', True),
]


def _tiffs() -> Files:
    rgb, gray, tiles = pixels(3), pixels(1), {"tile": (16, 16)}
    tags = {"description": "a", "software": "b", "resolution": (72, 72), "metadata": None}
    color, black = {"photometric": "rgb"}, {"photometric": "minisblack"}
    images: dict[str, tuple[np.ndarray, dict[str, Any]]] = {
        "stripped": (rgb, {"rowsperstrip": 4, **color, **tags}),
        "tiled": (rgb, color | tiles),
        "planar": (rgb.transpose(2, 0, 1), {"planarconfig": "separate", "rowsperstrip": 4, **color}),
        "big": (rgb, {"bigtiff": True, "compression": "zlib", **color, **tiles}),
        "motorola": (pixels(1, "uint16"), {"byteorder": ">", "rowsperstrip": 5, **black}),
        "predictor": (pixels(3, "uint16"), {"compression": "zlib", "predictor": True, **color}),
        "geo": (pixels(1, "float32"), {"extratags": GEO_TAGS, "metadata": None, **black, **tiles}),
        "pages": (np.stack([gray] * 3), {"metadata": None, **black}),
        "stack": (np.stack([gray] * 4), {"metadata": {"axes": "QYX"}, **black}),
        "ome": (np.stack([gray] * 2), {"ome": True, "metadata": {"axes": "CYX"}, **black}),
        "imagej": (np.stack([gray] * 2), {"imagej": True, "metadata": {"axes": "CYX"}}),
        "cmyk": (pixels(4), {"photometric": "separated", "planarconfig": "contig"}),
        "alpha": (pixels(4), {"extrasamples": ["unassalpha"], **color, **tags}),
        "six": (pixels(6), {"planarconfig": "contig", "extrasamples": [0] * 5, **black}),
        "palette": (gray, {"photometric": "palette", "colormap": np.zeros((3, 256), np.uint16)}),
        "rotated": (rgb, {"extratags": [(274, 3, 1, 6, True)], "compression": "zlib", **color}),
        "white": (gray, {"photometric": "miniswhite"}),
    }
    for compression in ("zlib", "lzw", "packbits", "jpeg", "zstd", "lzma", "webp", "png", "jpeg2000", "lerc"):
        images[compression] = (rgb, {"compression": compression, **color, **tiles})
    for dtype in ("float16", "float32", "float64", "int16", "uint32"):
        images[dtype] = (pixels(1, dtype), {"compression": "zlib", "predictor": dtype == "float32", **black})
    return {f"{name}.tif": _saved(tifffile.imwrite, array, **options) for name, (array, options) in images.items()}


def _arrays() -> Files:
    arrays = [pixels(3), pixels(1, "uint16"), pixels(3, "float32"), np.asfortranarray(pixels(3, "float64")),
              pixels(1, "int16").astype(">i2")]  # fmt: skip
    return {f"{array.dtype.name}.npy": _saved(np.save, array) for array in arrays}


# --- models and runs -------------------------------------------------------------------------------------------------

SMALL_RESNET = {"in_channels": 3, "out_channels": 3, "base_channels": 2, "num_blocks": 1}
SMALL_UNET = {"in_channels": 3, "out_channels": 3, "base_channels": 2, "num_levels": 4, "dropout_levels": [0]}


def small_model(kind: str, networks: Mapping[str, NetworkSpec]) -> ModelConfig:
    """Return the config of a model for images of 16 pixels, with every entry that a model folder may have."""
    values = Preprocessing(3, 3, 16, resized=True, source_range=(0, 255), target_range=(0, 255), legend=((0, 0, 0),))
    training = {"step": 1, "data": "x", "metrics": {"val_l1": 0.5}}
    return ModelConfig(kind, dict(networks), values, training=training)  # type: ignore[arg-type]


UNET, RESNET = NetworkSpec("unet", SMALL_UNET, "A", "B"), NetworkSpec("resnet", SMALL_RESNET, "B", "A")


def _save_model(folder: Path, kind: str, networks: Mapping[str, NetworkSpec]) -> Files:
    weights = {direction: build_generator(spec) for direction, spec in networks.items()}
    save_model(folder, small_model(kind, networks), weights, "# card")
    return _contents(folder)


def _contents(folder: Path) -> Files:
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def _models(folder: Path) -> Iterator[Sample]:
    digits = DigitModelConfig("dcgan", 28, 1, 0, 8, "normal", "batch", 4, 0, "signed", ("0", "1"), "mnist", "0")
    save_sampler(folder / "digits", digits, build(digits)[0], "# card")
    targets = {"config.json": "json", "model.safetensors": "safetensors"}
    for files, reader in (
        (_save_model(folder / "pix2pix", "pix2pix", {"a2b": UNET}), "load"),
        (_save_model(folder / "cyclegan", "cyclegan", {"a2b": RESNET, "b2a": RESNET}), "load"),
        (_contents(folder / "digits"), "sample"),
    ):
        yield Sample("model folder", files, targets, (reader,), _repair_model)
        yield Sample("config.json", files, {"config.json": "json"}, (reader,), _repair_model)
        weights = {"x.safetensors": files["model.safetensors"]}
        yield Sample("safetensors", weights, {"x.safetensors": "safetensors"}, ("tensors",))


def _repair_model(files: Files) -> None:
    """Write the digest of the weights into a config that still has an entry for it."""
    digest = hashlib.sha256(files["model.safetensors"]).hexdigest()
    config = re.sub(rb'"weights_sha256": "[^"]*"', f'"weights_sha256": "{digest}"'.encode(), files["config.json"])
    files["config.json"] = config


def _checkpoints(folder: Path) -> Iterator[Sample]:
    model = _save_model(folder / "shared", "pix2pix", {"a2b": UNET})
    state = {"schedule": {"step": 1}, "best": {"val_l1": 0.5}, "rng": [1, 2, 3]}
    state |= {"model_state": {"networks": {"a2b": "G"}, "statistics": "running"}}
    tensors = {"G": build_generator(UNET).state_dict(), "G.adam": {"0.exp_avg": torch.zeros(3, 4)}}
    save_checkpoint(folder / "run", Checkpoint(1, tensors, state))
    files = _contents(folder / "run") | {f"model/{name}": content for name, content in model.items()}
    inside = "checkpoints/step-00000001"
    kinds = {f"{inside}/checkpoint.json": "json", f"{inside}/G.safetensors": "safetensors"}
    yield Sample("checkpoint", files, kinds, ("checkpoint", "load checkpoint"), _repair_checkpoint)


def _repair_checkpoint(files: Files) -> None:
    """Write the digests of the files and of itself into a checkpoint.json that is still a JSON object."""
    name = next(name for name in files if name.endswith("checkpoint.json"))
    with contextlib.suppress(ValueError, TypeError, AttributeError, RecursionError):  # no longer a checkpoint
        info = json.loads(files[name])
        info.pop("digest", None)
        for file in info.get("files", {}):
            if content := files.get(f"{name.rpartition('/')[0]}/{file}"):
                info["files"][file] = hashlib.sha256(content).hexdigest()
        digest = hashlib.sha256(json.dumps(info, sort_keys=True).encode()).hexdigest()
        files[name] = json.dumps(info | {"digest": digest}).encode()


def _upstream_weights(folder: Path) -> Iterator[Sample]:
    unet = replace(UNET, arguments=SMALL_UNET | {"num_levels": 7, "base_channels": 1})
    resnet = replace(RESNET, arguments=SMALL_RESNET | {"num_blocks": 6})
    for name, spec in (("unet7.pth", unet), ("resnet.pth", resnet)):
        write_upstream(folder / name, build_generator(spec), spec)
    pixel = make_discriminator(3, base_channels=2, num_layers=0, norm="batch").state_dict()
    torch.save({name.replace("layers.", "net."): value for name, value in pixel.items()}, folder / "pixel.pth")
    weights = torch.load(folder / "resnet.pth", weights_only=True)
    torch.save(weights, folder / "old.pth", _use_new_zipfile_serialization=False)
    for name, kind in (("unet7.pth", "zip"), ("resnet.pth", "zip"), ("pixel.pth", "zip"), ("old.pth", "pickle")):
        yield Sample("pth", {name: (folder / name).read_bytes()}, {name: kind}, ("upstream",))


def _runs(folder: Path) -> Iterator[Sample]:
    log: list[dict[str, Any]] = [
        {"step": n, "epoch": 0, "seconds": n / 2, "lr": 2e-4, "loss_g": 1 / n, "loss_d": 0.7, "val_l1": 0.5}
        for n in (1, 2, 3)
    ]
    log[1] |= {"images_per_second": 3.5, "val_ssim": 0.5}
    score = {"l1": {"mean": 0.1, "low": 0.05, "high": 0.2}}
    files = {
        "config.json": _json(to_json(Pix2PixConfig())),
        "model/config.json": _json(to_json(small_model("pix2pix", {"a2b": UNET}))),
        "model/model.safetensors": b"not read",
        "metrics.jsonl": b"".join(json.dumps(line).encode() + b"\n" for line in [*log, {"step": 3, "warning": "x"}]),
        "evaluation.json": _json({"data": "x", "split": "test", "pictures": 3, "metrics": score, "baseline": score}),
        "samples/step-00000001.png": _png(Image.fromarray(pixels(3))),
    }
    kinds = {name: name.rpartition(".")[2] for name in files if not name.endswith(".safetensors")}
    yield Sample("metrics.jsonl", files, {"metrics.jsonl": "jsonl"}, ("report",))
    yield Sample("run", files, kinds, ("report",))
    yield Sample("run", files, {"config.json": "json"}, ("train config", "dataset of run"))
    part = {"training": True, "summary": "1 files", "order": "0", "content": "0", "sizes": {"x.png": 5}}
    record = {"data.json": _json({"place": "data", "parts": {"train a": part, "train b": part}})}
    yield Sample("run", record, {"data.json": "json"}, ("data record",))


def _json(values: object) -> bytes:
    return json.dumps(values, indent=2).encode()


# --- datasets and archives -------------------------------------------------------------------------------------------


def _tar(members: Mapping[str, bytes]) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as tar:
        for name, content in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return file.getvalue()


def _zip(members: Mapping[str, bytes]) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as packed:
        for number, (name, content) in enumerate(members.items()):
            method = zipfile.ZIP_DEFLATED if number % 2 else zipfile.ZIP_STORED
            packed.writestr(zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0)), content, compress_type=method)
    return file.getvalue()


def _datasets(folder: Path) -> Iterator[Sample]:
    info = {"name": "x", "domains": {"a": "map", "b": "terrain"}, "license": "CC0", "pairs": True,
            "legend": {"water": [0, 0, 255], "land": [0, 255, 0]}, "pictures": {"train": 1}}  # fmt: skip
    pair = _png(Image.fromarray(pixels(3)))
    files = {"dataset.json": _json(info), "train/x.png": pair}
    yield Sample("dataset.json", files, {"dataset.json": "json"}, ("description", "check dataset"))
    shard = folder / "train-000000.tar"
    shard.write_bytes(
        _tar(dict.fromkeys(("0.a.png", "0.b.png", "sub/1.a.png", "sub/1.b.png"), pair) | {"notes.txt": b"x"})
    )
    index = read_index(shard)
    header = {"format_version": 1, "size": shard.stat().st_size, "mtime_ns": CHANGED}
    places = {"names": index.names, "places": index.places.tolist()}
    files = {shard.name: shard.read_bytes(), f"{shard.name}.index.json": json.dumps(header | places).encode()}
    yield Sample("shard", {shard.name: files[shard.name]}, {shard.name: "tar"}, ("shards",))
    yield Sample("shard", files, {f"{shard.name}.index.json": "json"}, ("shards",))
    yield Sample("shard", files, {shard.name: "tar"}, ("shards",), _repair_index)


def _repair_index(files: Files) -> None:
    """Write the shard's new size into its index."""
    shard, index = sorted(files)
    files[index] = json.dumps(json.loads(files[index]) | {"size": len(files[shard])}).encode()


def _archives(folder: Path) -> Iterator[Sample]:
    members = {f"set/train{domain}/{number}.jpg": bytes([number]) * 700 for domain in "AB" for number in range(3)}
    tar = _tar(members)
    archives = {"zip": _zip(members), "tar": tar, "tgz": gzip.compress(tar, mtime=0)}
    for suffix, content in archives.items():
        kind = "gzip" if suffix == "tgz" else suffix
        yield Sample("archive", {f"set.{suffix}": content}, {f"set.{suffix}": kind}, ("unpack",))


def _digits(folder: Path) -> Iterator[Sample]:
    images, labels = np.zeros((3, 28, 28), np.uint8), np.arange(3, dtype=np.uint8)
    files = {}
    for name in ALL_FILES:
        array = images if "images" in name else labels
        idx = bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">u4").tobytes() + array.tobytes()
        files[f"mnist/{name}.gz"] = gzip.compress(idx, mtime=0)
    targets = dict.fromkeys((f"mnist/{name}.gz" for name in ALL_FILES[:2]), "gzip")
    yield Sample("mnist", files, targets, ("digits", "check digits"))


def _onnx(folder: Path) -> Iterator[Sample]:
    """Make a small exported model by hand: the exporter takes half a minute, and the runner reads no more than this."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    weight = np.random.default_rng(0).normal(0, 0.2, (3, 3, 3, 3)).astype(np.float32)
    size = [None, 3, None, None]
    graph = helper.make_graph(
        [helper.make_node("Conv", ["source", "w"], ["y"], pads=[1] * 4), helper.make_node("Tanh", ["y"], ["output"])],
        "g",
        [helper.make_tensor_value_info("source", TensorProto.FLOAT, size)],
        [helper.make_tensor_value_info("output", TensorProto.FLOAT, size)],
        [numpy_helper.from_array(weight, "w")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    about = {"source": "A", "target": "B", "preprocessing": to_json(small_model("pix2pix", {}).preprocessing)}
    helper.set_model_props(model, {"ganvas": json.dumps(about)})
    assert isinstance(model, onnx.ModelProto)
    image = _png(Image.fromarray(pixels(3)))
    yield Sample("onnx", {"x.onnx": model.SerializeToString(), "image.png": image}, {"x.onnx": "onnx"}, ("onnx model",))
