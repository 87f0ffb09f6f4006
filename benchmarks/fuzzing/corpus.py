"""Small valid files of every format that the project reads, for `benchmarks.fuzz`."""

import gzip
import hashlib
import io
import json
import struct
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import tifffile
import torch
from PIL import Image

from benchmarks.fuzzing.images import join_png
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
        makers = (_images, _arrays, _models, _weights, _runs, _datasets, _archives, _digits, _onnx)
        return [sample for make in makers for sample in make(Path(folder))]


# --- images ----------------------------------------------------------------------------------------------------------


def pixels(channels: int, kind: str = "uint8") -> np.ndarray:
    """Return [H, W, C]: a gradient with noise, of the full range, floats in [0, 1]."""
    noise = np.random.default_rng(0).random((H, W, channels))
    values = 0.5 * noise + 0.5 * np.linspace(0, 1, W)[None, :, None]
    if kind.startswith("float"):
        return values.astype(kind)
    return (values * np.iinfo(kind).max).astype(kind)


def _images(folder: Path) -> Iterator[Sample]:
    for name, content in [*_pillow_images(), *_deep_pngs(), *_tiffs()]:
        yield _image(name, content)


def _image(name: str, content: bytes) -> Sample:
    label = FORMATS[Path(name).suffix]
    return Sample(label, {name: content}, {name: label}, IMAGE_READERS)


def _pillow_images() -> Iterator[tuple[str, bytes]]:
    rgb, rgba, gray = (Image.fromarray(pixels(c).squeeze()) for c in (3, 4, 1))
    exif = Image.Exif()
    exif[274], exif[305] = 6, "fuzz"
    palette = rgb.quantize(13)
    yield "rgb.jpg", _saved(rgb, "JPEG", quality=80, exif=exif)
    yield "gray.jpg", _saved(gray, "JPEG", progressive=True)
    yield "cmyk.jpg", _saved(rgb.convert("CMYK"), "JPEG")
    yield "bilevel.png", _saved(gray.convert("1"), "PNG")
    yield "gray.png", _saved(gray, "PNG", transparency=3)
    yield "gray_alpha.png", _saved(rgba.convert("LA"), "PNG")
    yield "rgb.png", _saved(rgb, "PNG", exif=exif, icc_profile=b"x" * 200, dpi=(72, 72))
    yield "rgba.png", _saved(rgba, "PNG")
    yield "gray16.png", _saved(Image.fromarray(pixels(1, "uint16").squeeze()), "PNG")
    yield "animated.png", _saved(rgb, "PNG", save_all=True, append_images=[rgb.transpose(Image.Transpose.ROTATE_180)])
    for bits in (1, 2, 4, 8):
        few = rgb.quantize(2**bits if bits < 8 else 200)
        yield f"palette{bits}.png", _saved(few, "PNG", bits=bits, transparency=bytes([0, 128]))
    yield "rgb.webp", _saved(rgb, "WEBP", exif=exif)
    yield "rgba.webp", _saved(rgba, "WEBP", lossless=True)
    yield "animated.webp", _saved(rgb, "WEBP", save_all=True, append_images=[rgb.transpose(Image.Transpose.ROTATE_180)])
    for name, image in (
        ("rgb", rgb),
        ("rgba", rgba),
        ("gray", gray),
        ("palette", palette),
        ("bilevel", gray.convert("1")),
    ):
        yield f"{name}.bmp", _saved(image, "BMP")
    yield "gif.png", _saved(palette, "GIF")  # what a file is shows in its content
    for compression in ("group4", "tiff_lzw", "jpeg", "raw", "tiff_ccitt"):
        image = gray.convert("1") if compression in ("group4", "tiff_ccitt") else rgb
        yield f"pillow_{compression}.tif", _saved(image, "TIFF", compression=compression)
    yield "pillow_palette.tif", _saved(palette, "TIFF", compression="tiff_deflate")


def _saved(image: Image.Image, form: str, **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, form, **options)
    return file.getvalue()


def _deep_pngs() -> Iterator[tuple[str, bytes]]:
    for channels in (3, 4):
        yield f"deep{channels}.png", cv2.imencode(".png", pixels(channels, "uint16"))[1].tobytes()
    rows = b"".join(b"\0" + row.tobytes() for row in pixels(2, ">u2"))  # gray and alpha, which no library writes
    header = struct.pack(">IIBBBBB", W, H, 16, 4, 0, 0, 0)
    yield "deep2.png", join_png([(b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b"")])


def _tiffs() -> Iterator[tuple[str, bytes]]:
    rgb, gray = pixels(3), pixels(1)[:, :, 0]
    geo = [(33550, 12, 3, (0.5, 0.5, 0.0), True), (33922, 12, 6, (0.0, 0.0, 0.0, 7.0, 46.0, 0.0), True),
           (34735, 3, 8, (1, 1, 0, 1, 1025, 0, 1, 2), True), (42113, 2, 0, "-9999", True),
           (42112, 2, 0, '<GDALMetadata><Item name="STATISTICS_MEAN">1</Item></GDALMetadata>', True)]  # fmt: skip
    tags = {"description": "a", "software": "b", "resolution": (72, 72), "metadata": None}
    yield "stripped.tif", _tiff(rgb, rowsperstrip=4, photometric="rgb", **tags)
    yield "tiled.tif", _tiff(rgb, tile=(16, 16), photometric="rgb")
    yield "planar.tif", _tiff(rgb.transpose(2, 0, 1), planarconfig="separate", photometric="rgb", rowsperstrip=4)
    yield "big.tif", _tiff(rgb, bigtiff=True, photometric="rgb", tile=(16, 16), compression="zlib")
    yield "motorola.tif", _tiff(pixels(1, "uint16"), byteorder=">", photometric="minisblack", rowsperstrip=5)
    for compression in ("zlib", "lzw", "packbits", "jpeg", "zstd", "lzma", "webp", "png", "jpeg2000", "lerc"):
        yield f"{compression}.tif", _tiff(rgb, compression=compression, photometric="rgb", tile=(16, 16))
    yield "predictor.tif", _tiff(pixels(3, "uint16"), compression="zlib", predictor=True, photometric="rgb")
    for kind in ("float16", "float32", "float64", "int16", "uint32"):
        values = pixels(1, kind)[:, :, 0]
        yield f"{kind}.tif", _tiff(values, compression="zlib", predictor=kind == "float32", photometric="minisblack")
    yield (
        "geo.tif",
        _tiff(pixels(1, "float32")[:, :, 0], photometric="minisblack", extratags=geo, metadata=None, tile=(16, 16)),
    )
    yield "pages.tif", _tiff(np.stack([gray, gray, gray]), photometric="minisblack", metadata=None)
    yield "stack.tif", _tiff(np.stack([gray] * 4), photometric="minisblack", metadata={"axes": "QYX"})
    yield "ome.tif", _tiff(np.stack([gray, gray]), photometric="minisblack", ome=True, metadata={"axes": "CYX"})
    yield "imagej.tif", _tiff(np.stack([gray, gray]), imagej=True, metadata={"axes": "CYX"})
    yield "cmyk.tif", _tiff(pixels(4), photometric="separated", planarconfig="contig")
    yield "alpha.tif", _tiff(pixels(4), photometric="rgb", extrasamples=["unassalpha"], **tags)
    yield "six.tif", _tiff(pixels(6), photometric="minisblack", planarconfig="contig", extrasamples=[0] * 5)
    yield "palette.tif", _tiff(gray, photometric="palette", colormap=np.zeros((3, 256), np.uint16))
    yield "turned.tif", _tiff(rgb, photometric="rgb", extratags=[(274, 3, 1, 6, True)], compression="zlib")
    yield "white.tif", _tiff(gray, photometric="miniswhite")


def _tiff(array: np.ndarray, **options: Any) -> bytes:
    file = io.BytesIO()
    tifffile.imwrite(file, array, **options)
    return file.getvalue()


def _arrays(folder: Path) -> Iterator[Sample]:
    arrays = {
        "uint8": pixels(3), "uint16": pixels(1, "uint16")[:, :, 0], "float32": pixels(3, "float32"),
        "float64": np.asfortranarray(pixels(3, "float64")), "int16": pixels(1, "int16").astype(">i2"),
    }  # fmt: skip
    for name, array in arrays.items():
        file = io.BytesIO()
        np.save(file, array)
        yield _image(f"{name}.npy", file.getvalue())


# --- models and runs -------------------------------------------------------------------------------------------------

SMALL_RESNET = {"in_channels": 3, "out_channels": 3, "base_channels": 2, "num_blocks": 1}
SMALL_UNET = {"in_channels": 3, "out_channels": 3, "base_channels": 2, "num_levels": 4, "dropout_levels": [0]}


def small_model(kind: str, networks: Mapping[str, NetworkSpec]) -> ModelConfig:
    """Return the config of a model for images of 16 pixels, with every entry that a model folder may have."""
    values = Preprocessing(3, 3, 16, resized=True, source_range=(0, 255), target_range=(0, 255), legend=((0, 0, 0),))
    training = {"step": 1, "data": "x", "metrics": {"val_l1": 0.5}}
    return ModelConfig(kind, dict(networks), values, training=training)  # type: ignore[arg-type]


def _models(folder: Path) -> Iterator[Sample]:
    unet, resnet = NetworkSpec("unet", SMALL_UNET, "A", "B"), NetworkSpec("resnet", SMALL_RESNET, "B", "A")
    for kind, networks in (("pix2pix", {"a2b": unet}), ("cyclegan", {"a2b": resnet, "b2a": resnet})):
        save_model(
            folder / kind, small_model(kind, networks), {w: build_generator(s) for w, s in networks.items()}, "# card"
        )
    digits = DigitModelConfig("dcgan", 28, 1, 0, 8, "normal", "batch", 4, 0, "signed", ("0", "1"), "mnist", "0")
    save_sampler(folder / "digits", digits, build(digits)[0], "# card")
    targets = {"config.json": "json", "model.safetensors": "safetensors"}
    for name, reader in (("pix2pix", "load"), ("cyclegan", "load"), ("digits", "sample")):
        files = _contents(folder / name)
        yield Sample("model folder", files, targets, (reader,), _repair_model)
        yield Sample("config.json", files, {"config.json": "json"}, (reader,), _repair_model)
        weights = {"x.safetensors": files["model.safetensors"]}
        yield Sample("safetensors", weights, {"x.safetensors": "safetensors"}, ("tensors",))
    sharing = {f"model/{name}": content for name, content in _contents(folder / "pix2pix").items()}
    state = {"schedule": {"step": 1}, "best": {"val_l1": 0.5}, "rng": [1, 2, 3]}
    state |= {"model_state": {"networks": {"a2b": "G"}, "statistics": "running"}}
    tensors = {"G": build_generator(unet).state_dict(), "G.adam": {"0.exp_avg": torch.zeros(3, 4)}}
    save_checkpoint(folder / "run", Checkpoint(1, tensors, state))
    files = {**_contents(folder / "run"), **sharing}
    inside = "checkpoints/step-00000001"
    kinds = {f"{inside}/checkpoint.json": "json", f"{inside}/G.safetensors": "safetensors"}
    yield Sample("checkpoint", files, kinds, ("checkpoint", "load checkpoint"), _repair_checkpoint)


def _contents(folder: Path) -> Files:
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def _repair_model(files: Files) -> None:
    """Write the digest of the weights into a config, unless it is no longer there to be replaced."""
    digest = hashlib.sha256(files["model.safetensors"]).hexdigest().encode()
    start = files["config.json"].rfind(b'"weights_sha256": "')
    if start >= 0:
        config, at = files["config.json"], start + len(b'"weights_sha256": "')
        files["config.json"] = config[:at] + digest + config[at + 64 :]


def _repair_checkpoint(files: Files) -> None:
    """Write the digests of the files and of itself into a checkpoint.json that is still a JSON object."""
    name = next(name for name in files if name.endswith("checkpoint.json"))
    try:
        info = json.loads(files[name])
        info.pop("digest", None)
        for file in info.get("files", {}):
            content = files.get(f"{name.rpartition('/')[0]}/{file}")
            info["files"][file] = hashlib.sha256(content).hexdigest() if content else info["files"][file]
        digest = hashlib.sha256(json.dumps(info, sort_keys=True).encode()).hexdigest()
        files[name] = json.dumps(info | {"digest": digest}).encode()
    except (ValueError, TypeError, AttributeError, RecursionError):  # no checkpoint any more: it stays as it is
        return


def _weights(folder: Path) -> Iterator[Sample]:
    for levels in (7, 8):
        spec = NetworkSpec("unet", SMALL_UNET | {"num_levels": levels, "base_channels": 1}, "A", "B")
        write_upstream(folder / f"unet{levels}.pth", build_generator(spec), spec)
    spec = NetworkSpec("resnet", SMALL_RESNET | {"num_blocks": 6}, "A", "B")
    write_upstream(folder / "resnet.pth", build_generator(spec), spec)
    pixel = make_discriminator("pixel", 3, base_channels=2, num_layers=1, norm="batch").state_dict()
    names = {name: name.replace("layers.", "net.") for name in pixel}
    torch.save({names[name]: value for name, value in pixel.items()}, folder / "pixel.pth")
    weights = torch.load(folder / "resnet.pth", weights_only=True)
    torch.save(weights, folder / "old.pth", _use_new_zipfile_serialization=False)
    for name in ("unet7.pth", "resnet.pth", "pixel.pth", "old.pth"):
        kind = "pickle" if name == "old.pth" else "zip"
        yield Sample("pth", {name: (folder / name).read_bytes()}, {name: kind}, ("upstream",))


def _runs(folder: Path) -> Iterator[Sample]:
    log = [
        {"step": n, "epoch": 0, "seconds": n / 2, "lr": 2e-4, "loss_g": 1 / n, "loss_d": 0.7, "val_l1": 0.5}
        for n in (1, 2, 3)
    ]
    log[1] |= {"images_per_second": 3.5, "val_ssim": 0.5}
    score = {"l1": {"mean": 0.1, "low": 0.05, "high": 0.2}}
    evaluation = {"data": "x", "split": "test", "pictures": 3, "metrics": score, "baseline": score}
    files = {
        "config.json": _json(to_json(Pix2PixConfig())),
        "model/config.json": _json(to_json(small_model("pix2pix", {"a2b": NetworkSpec("unet", SMALL_UNET, "A", "B")}))),
        "model/model.safetensors": b"not read",
        "metrics.jsonl": b"".join(json.dumps(line).encode() + b"\n" for line in [*log, {"step": 3, "warning": "x"}]),
        "evaluation.json": _json(evaluation),
        "samples/step-00000001.png": _saved(Image.fromarray(pixels(3)), "PNG"),
    }
    kinds = {name: name.rpartition(".")[2] for name in files if not name.endswith(".safetensors")}
    yield Sample("metrics.jsonl", files, {"metrics.jsonl": "jsonl"}, ("report",))
    yield Sample("run", files, kinds, ("report",))
    yield Sample("run", files, {"config.json": "json"}, ("train config", "dataset of run"))


def _json(values: object) -> bytes:
    return json.dumps(values, indent=2).encode()


# --- datasets and archives -------------------------------------------------------------------------------------------


def _datasets(folder: Path) -> Iterator[Sample]:
    info = {"name": "x", "domains": {"a": "map", "b": "terrain"}, "licence": "CC0", "pairs": True,
            "legend": {"water": [0, 0, 255], "land": [0, 255, 0]}, "pictures": {"train": 1}}  # fmt: skip
    pair = _saved(Image.fromarray(pixels(3)), "PNG")
    files = {"dataset.json": _json(info), "train/x.png": pair}
    yield Sample("dataset.json", files, {"dataset.json": "json"}, ("description", "check dataset"))
    shard = folder / "train-000000.tar"
    with tarfile.open(shard, "w") as tar:
        for name, content in (
            ("0.a.png", pair),
            ("0.b.png", pair),
            ("notes.txt", b"x"),
            ("sub/1.a.png", pair),
            ("sub/1.b.png", pair),
        ):
            _add(tar, name, content)
    index = read_index(shard)
    places = {"names": index.names, "places": index.places.tolist()}
    header = {"format_version": 1, "size": shard.stat().st_size, "mtime_ns": CHANGED}
    files = {shard.name: shard.read_bytes(), f"{shard.name}.index.json": json.dumps(header | places).encode()}
    yield Sample("shard", {shard.name: files[shard.name]}, {shard.name: "tar"}, ("shards",))
    yield Sample("shard", files, {f"{shard.name}.index.json": "json"}, ("shards",))
    yield Sample("shard", files, {shard.name: "tar"}, ("shards",), _repair_index)


def _repair_index(files: Files) -> None:
    """Write the shard's new size into its index."""
    shard, index = sorted(files)
    files[index] = json.dumps(json.loads(files[index]) | {"size": len(files[shard])}).encode()


def _add(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(content)
    tar.addfile(member, io.BytesIO(content))


def _archives(folder: Path) -> Iterator[Sample]:
    contents = [(f"set/train{domain}/{number}.jpg", bytes([number]) * 700) for domain in "AB" for number in range(3)]
    zipped, tarred = io.BytesIO(), io.BytesIO()
    with zipfile.ZipFile(zipped, "w") as file:
        for number, (name, content) in enumerate(contents):
            method = zipfile.ZIP_DEFLATED if number % 2 else zipfile.ZIP_STORED
            file.writestr(zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0)), content, compress_type=method)
    with tarfile.open(fileobj=tarred, mode="w") as tar:
        for name, content in contents:
            _add(tar, name, content)
    yield Sample("archive", {"set.zip": zipped.getvalue()}, {"set.zip": "zip"}, ("unpack",))
    packed = gzip.compress(tarred.getvalue(), mtime=0)
    yield Sample("archive", {"set.tgz": packed}, {"set.tgz": "gzip"}, ("unpack",))
    yield Sample("archive", {"set.tar": tarred.getvalue()}, {"set.tar": "tar"}, ("unpack",))


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
    image = _saved(Image.fromarray(pixels(3)), "PNG")
    yield Sample("onnx", {"x.onnx": model.SerializeToString(), "image.png": image}, {"x.onnx": "onnx"}, ("onnx model",))
