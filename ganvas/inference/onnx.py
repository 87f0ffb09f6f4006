"""Translate pictures by an exported ONNX file, where torch is not installed: numpy, onnxruntime and Pillow suffice.

    python -m ganvas.inference.onnx MODEL.onnx INPUT OUTPUT

INPUT is a picture or a folder, OUTPUT a folder, or a file for one picture. 8-bit pictures of one to four channels and
16-bit gray ones go in and come out with the same depth; arrays (.npy, [H, W, C]) of any type and channel count too.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from PIL import Image, ImageOps, UnidentifiedImageError

from ganvas.data.legend import is_flat
from ganvas.errors import UserError

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".npy")
MODES = {1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}
TOP = {"uint8": 255.0, "uint16": 65535.0, "float32": 1.0}


class OnnxTranslator:
    """One exported model, ready to translate.

    Args:
        path: The ONNX file.

    Raises:
        UserError: It is missing, damaged, or not from ganvas.
    """

    def __init__(self, path: Path) -> None:
        if not path.is_file():
            raise UserError(f"{path}: there is no such file.")
        try:
            self.session = onnxruntime.InferenceSession(str(path), providers=onnxruntime.get_available_providers())
        except Exception as error:  # its own exceptions share no class
            raise UserError(f"{path}: is no ONNX file that can be run ({str(error).splitlines()[0]}).") from None
        about = self.session.get_modelmeta().custom_metadata_map.get("ganvas")
        if about is None:
            raise UserError(f"{path}: has no metadata of ganvas. Export it with pix2pix or cyclegan export.")
        known = json.loads(about)
        if known.get("kind") == "dcgan":
            raise UserError(f"{path}: draws from noise, and translates nothing; docs/export.md shows how to run it.")
        self.how: dict[str, Any] = known["preprocessing"]

    def translate(self, picture: np.ndarray) -> np.ndarray:
        """Translate [H, W, C], uint8, uint16 or float32, as the model's file says; the same size comes out.

        Raises:
            UserError: It has another number of channels than the model takes, or another type.
        """
        wanted = self.how["source_channels"]
        if picture.shape[2] != wanted or picture.dtype.name not in TOP:
            raise UserError(
                f"the picture has {picture.shape[2]} channels of {picture.dtype}; the model takes {wanted}."
            )
        H, W = picture.shape[:2]
        low, high = self.how["source_range"] or (0.0, TOP[picture.dtype.name])
        values = ((picture.astype(np.float32) - low) * np.float32(2 / (high - low)) - 1).clip(-1, 1)
        source = self._scaled(picture, values) if self.how["resized"] else values  # [H, W, C]
        output = self.session.run(None, {"source": source.transpose(2, 0, 1)[None]})[0]  # [1, C, H, W]
        result = _resized(output[0].transpose(1, 2, 0), H, W).clip(-1, 1)
        kind = picture.dtype.name if self.how["target_range"] is None else self.how["target_type"]
        low, high = self.how["target_range"] or (0.0, TOP[kind])
        scaled = (result + 1) * np.float32((high - low) / 2) + np.float32(low)
        return scaled.astype(kind) if kind == "float32" else np.rint(scaled).clip(0, TOP[kind]).astype(kind)

    def _scaled(self, picture: np.ndarray, values: np.ndarray) -> np.ndarray:
        """Scale a picture's values [H, W, C] to the size of the training; one in a legend's colours by neighbours."""
        S = self.how["image_size"]
        if not is_flat(picture, map(tuple, self.how.get("legend", ()))):
            return _resized(values, S, S)
        rows, columns = (((np.arange(S) + 0.5) * side / S).astype(int) for side in picture.shape[:2])
        return values[rows][:, columns]


def _resized(values: np.ndarray, H: int, W: int) -> np.ndarray:
    """Scale [H', W', C] float32 to [H, W, C], bicubic and smoothed where it becomes smaller."""
    if values.shape[:2] == (H, W):
        return np.ascontiguousarray(values)
    channels = [Image.fromarray(np.ascontiguousarray(channel)) for channel in np.moveaxis(values, 2, 0)]
    return np.stack([np.asarray(c.resize((W, H), Image.Resampling.BICUBIC)) for c in channels], axis=2)


def read(path: Path, channels: int) -> np.ndarray:
    """Read a picture as [H, W, C].

    Raises:
        UserError: It cannot be read.
    """
    try:
        if path.suffix.lower() == ".npy":
            array = np.load(path, allow_pickle=False)
            return array[:, :, None] if array.ndim == 2 else array
        with Image.open(path) as file:
            picture = ImageOps.exif_transpose(file)
            if picture.mode.startswith("I;16"):
                return np.asarray(picture).astype(np.uint16)[:, :, None]
            array = np.asarray(picture.convert(MODES.get(channels, picture.mode)))
            return array[:, :, None] if array.ndim == 2 else array
    except (OSError, ValueError, SyntaxError, UnidentifiedImageError, Image.DecompressionBombError) as error:
        raise UserError(f"{path}: cannot be read ({error}).") from None


def write(path: Path, picture: np.ndarray) -> None:
    """Write [H, W, C] by the file's suffix, aside first.

    Raises:
        UserError: The format does not hold it, or the place cannot be written.
    """
    aside = path.with_name(f".{path.stem}.new{path.suffix}")
    try:
        if path.suffix.lower() == ".npy":
            np.save(aside, picture)
        else:
            Image.fromarray(picture[:, :, 0] if picture.shape[2] == 1 else picture).save(aside)
        aside.replace(path)
    except (OSError, ValueError, TypeError) as error:
        raise UserError(f"{path}: cannot be written ({error}). A .npy file holds any picture.") from None
    finally:
        aside.unlink(missing_ok=True)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; give the exit code."""
    parser = argparse.ArgumentParser(prog="python -m ganvas.inference.onnx", description="Translate by an ONNX file.")
    parser.add_argument("model", type=Path)
    parser.add_argument("input", type=Path, help="a picture or a folder of pictures")
    parser.add_argument("output", type=Path, help="a folder; or a file's name, for one picture")
    options = parser.parse_args(argv)
    try:
        translator = OnnxTranslator(options.model)
        jobs = _jobs(options.input, options.output)
    except UserError as error:
        return _complain([str(error)])
    failures = []
    for source, target in jobs:
        try:
            write(target, translator.translate(read(source, translator.how["source_channels"])))
        except UserError as error:
            failures.append(str(error))
    print(f"{len(jobs) - len(failures)} pictures written to {options.output}", file=sys.stderr)
    return _complain(failures)


def _jobs(source: Path, target: Path) -> list[tuple[Path, Path]]:
    if source.is_file():
        single = target if target.suffix.lower() in SUFFIXES else target / source.name
        single.parent.mkdir(parents=True, exist_ok=True)
        return [(source, single)]
    if not source.is_dir():
        raise UserError(f"{source}: there is no such file or folder.")
    if target.exists() and target.resolve() == source.resolve():
        raise UserError(f"{target}: is the input folder. Give another one, so that no source is overwritten.")
    files = sorted(path for path in source.iterdir() if path.suffix.lower() in SUFFIXES)
    if not files:
        raise UserError(f"{source}: holds no pictures ({', '.join(SUFFIXES)}).")
    target.mkdir(parents=True, exist_ok=True)
    return [(file, target / file.name) for file in files]


def _complain(failures: Sequence[str]) -> int:
    for failure in failures:
        print(f"error: {failure}", file=sys.stderr)
    return 2 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
