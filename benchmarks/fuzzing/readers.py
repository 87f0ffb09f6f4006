"""How the project reads a file of each format, for `benchmarks.fuzz`: the same functions as its commands call."""

import shutil
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np

import ganvas
from benchmarks.fuzzing.corpus import SMALL_RESNET
from data_scripts.sets.unpack import unpack
from data_scripts.tools.check.command import inspect
from dcgan.model import load_sampler
from ganvas.cli.translate import translate_files
from ganvas.data.augment import Augmentation, build_augmentation
from ganvas.data.dataset_info import dataset_info
from ganvas.data.decode import read_raster
from ganvas.data.digits import load_idx_pair
from ganvas.data.paired import PairedDataset
from ganvas.data.palette import parse_palette
from ganvas.data.unpaired import UnpairedDataset
from ganvas.evaluation.report.writer import write_report
from ganvas.inference import onnx
from ganvas.inference.run_data import data_of_run
from ganvas.inference.tiling.plan import Tiling
from ganvas.inference.tiling.tiles import open_source
from ganvas.inference.translator import Translator
from ganvas.inference.upstream.weights import load_upstream, read_upstream
from ganvas.json_files import read_json
from ganvas.models.folder import ModelConfig, NetworkSpec, Preprocessing, build_generator
from ganvas.models.tensors import load_tensors
from ganvas.options import from_json
from ganvas.training.checkpoint import list_checkpoints, load_checkpoint
from ganvas.training.datarecord import DataRecord, check_record
from pix2pix.config import Pix2PixConfig

Reader = Callable[[Path, str], object]

TILING = Tiling(48, 8)
AUGMENTATION = Augmentation(20, 16)


@cache
def translator(size: str) -> Translator:
    """Return a small model in memory: what is tried is the reading of images."""
    spec = NetworkSpec("resnet", SMALL_RESNET, "A", "B")
    config = ModelConfig("pix2pix", {"a2b": spec}, Preprocessing(3, 3, 16, resized=True))
    return Translator(config, {"a2b": build_generator(spec)}, size=size)


def _translate(folder: Path, name: str) -> None:
    translate_files(translator("trained"), folder / name, folder / "out", as_json=False)


def _tiles(folder: Path, name: str) -> None:
    with open_source(folder / name, translator("native"), TILING.tile) as pixels:
        H, W = pixels.height, pixels.width
        pixels.read(0, 0, min(H, TILING.tile), min(W, TILING.tile))
        pixels.read(H - 1, W - 1, 1, 1)
    if max(H, W) <= 4 * TILING.tile:  # a larger one may take its time
        translate_files(translator("native"), folder / name, folder / "out", as_json=False, tiling=TILING)


def _check_image(folder: Path, name: str) -> None:
    for domain in ("trainA", "trainB"):
        (folder / domain).mkdir()
        shutil.copy(folder / name, folder / domain)
    inspect(folder)


def _train(folder: Path, name: str) -> None:
    (folder / "train").mkdir()
    shutil.copy(folder / name, folder / "train")
    PairedDataset(folder, "train", augmentation=AUGMENTATION)[0, 0]
    (folder / "train" / name).unlink()
    for domain in "ab":
        (folder / "train" / domain).mkdir()
        shutil.copy(folder / name, folder / "train" / domain)
    UnpairedDataset(folder, "train", augmentation=None)[0, 0]


def _shards(folder: Path, name: str) -> None:
    pairs = PairedDataset(folder, "train", augmentation=AUGMENTATION)
    for index in range(min(len(pairs), 4)):
        pairs[0, index]


def _load(folder: Path, name: str) -> None:
    ganvas.load(folder, direction="a2b").translate(np.zeros((16, 24, 3), np.uint8))


def _load_checkpoint(folder: Path, name: str) -> None:
    for checkpoint in list_checkpoints(folder):
        ganvas.load(checkpoint).translate(np.zeros((16, 24, 3), np.uint8))


def _checkpoint(folder: Path, name: str) -> None:
    for checkpoint in list_checkpoints(folder):
        load_checkpoint(checkpoint)


def _sample(folder: Path, name: str) -> None:
    load_sampler(folder).sample(2, 0)


def _upstream(folder: Path, name: str) -> None:
    if name.startswith("pixel"):
        read_upstream(folder / name)
    else:
        load_upstream(folder / name, image_size=128).translate(np.zeros((16, 24, 3), np.uint8))


def _train_config(folder: Path, name: str) -> None:
    from_json(Pix2PixConfig, read_json(folder / name, "a run's config"), str(folder / name))


def _dataset_of_run(folder: Path, name: str) -> None:
    if (data := data_of_run(folder)) is not None:
        data.is_dir()


def _description(folder: Path, name: str) -> None:
    info = dataset_info(folder)
    parse_palette(info)
    build_augmentation("strong", 16, info=info)


def _onnx_image(folder: Path, name: str) -> None:
    onnx.write(folder / "out.npy", onnx.read(folder / name, 3))


def _onnx_model(folder: Path, name: str) -> None:
    model = onnx.OnnxTranslator(folder / name)
    model.translate(onnx.read(folder / "image.png", model.how["source_channels"]))


def _unpack(folder: Path, name: str) -> None:
    (folder / "out").mkdir()
    unpack(folder / name, folder / "out", lambda path: path)


READERS: dict[str, Reader] = {
    "check": _check_image,
    "check dataset": lambda folder, name: inspect(folder),
    "check digits": lambda folder, name: inspect(folder / "mnist"),
    "checkpoint": _checkpoint,
    "dataset of run": _dataset_of_run,
    "data record": lambda folder, name: check_record(folder, DataRecord("data", {})),
    "description": _description,
    "digits": lambda folder, name: load_idx_pair(folder, "mnist", "train"),
    "load": _load,
    "load checkpoint": _load_checkpoint,
    "onnx": _onnx_image,
    "onnx model": _onnx_model,
    "read": lambda folder, name: read_raster(folder / name, keep_alpha=True),
    "report": lambda folder, name: write_report(folder, {}),
    "sample": _sample,
    "shards": _shards,
    "tensors": lambda folder, name: load_tensors(folder / name),
    "tiles": _tiles,
    "train": _train,
    "train config": _train_config,
    "translate": _translate,
    "unpack": _unpack,
    "upstream": _upstream,
}
