"""Translate images with an exported ONNX file; needs only numpy, onnxruntime and Pillow, not torch.

    python -m ganvas.inference.onnx MODEL.onnx INPUT OUTPUT

INPUT is an image or a folder, whose subfolders are kept; OUTPUT is a folder, or a file for a single image. 8-bit images
of one to four channels, 16-bit grayscale images and float grayscale images keep their depth, and so do arrays (.npy,
[H, W, C]) of uint8, uint16 and float32 with any number of channels. Other numbers are read as float32.
"""

import argparse
import io
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from PIL import Image

from ganvas.console import run_command
from ganvas.data.arrays import TOLERANCE, require_trained_range, to_model_input
from ganvas.data.decode_basic import read_basic
from ganvas.data.formats import ENCODING
from ganvas.data.listing import describe_unread
from ganvas.data.palette import is_color, is_flat
from ganvas.data.resize import resize
from ganvas.errors import UserError, WriteError, add_place_to_errors
from ganvas.files import write_file
from ganvas.inference.images import to_pillow, with_channels
from ganvas.inference.jobs import FolderResult, Job, find_jobs
from ganvas.json_files import parse_json
from ganvas.limits import MAX_CHANNELS, MAX_COLORS, MAX_SIDE, is_value_range
from ganvas.log import logger
from ganvas.messages import describe_error

# In a tensor's protobuf: the key of another file with its values, after its length (8, maybe with leading zeros).
EXTERNAL_DATA = re.compile(rb"(\x08|\x88\x80*\x00)location")
MAX_VALUE = {"uint8": 255.0, "uint16": 65535.0, "float32": 1.0}


class OnnxTranslator:
    """An exported model that translates images.

    Attributes:
        path: The ONNX file.
        how: The preprocessing, as in the file's metadata.

    Raises:
        UserError: The file is missing, damaged, or was not exported by ganvas.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        if not path.is_file():
            raise UserError(f"{path}: there is no such file.")
        if EXTERNAL_DATA.search(path.read_bytes()):
            raise UserError(f"{path}: has weights in other files, which are not opened. Export it to a single file.")
        try:
            self.session = onnxruntime.InferenceSession(str(path), providers=onnxruntime.get_available_providers())
            metadata = self.session.get_modelmeta().custom_metadata_map  # fails if they are not UTF-8
        except Exception as error:  # onnxruntime's exceptions share no class
            raise UserError(f"{path}: is not a valid ONNX file ({describe_error(error)}).") from None
        self.how = read_preprocessing(path, metadata.get("ganvas"))

    def translate(self, image: np.ndarray) -> np.ndarray:
        """Translate [H, W, C], uint8, uint16 or float32, to the same size.

        Grayscale is repeated for a model of three channels.

        Raises:
            ValueError: The array is not [H, W, C], has no pixels, or another dtype.
            UserError: The number of channels is wrong; values are not finite, outside [0, 1] for floats without a
                range, or refused by `require_trained_range`; or the network fails.
        """
        is_stacked = bool(self.how.get("source_folders"))
        image = to_model_input(image, self.how["source_channels"], is_stacked=is_stacked)
        self._require_values(image)
        H, W = image.shape[:2]
        low, high = self.how["source_range"] or (0.0, MAX_VALUE[image.dtype.name])
        image = self.scaled(image)
        source = ((image.astype(np.float32) - low) * np.float32(2 / (high - low)) - 1).clip(-1, 1)
        output = self._run(source.transpose(2, 0, 1)[None])  # [1, C, H, W]
        result = resize(output[0].transpose(1, 2, 0), H, W).clip(-1, 1)
        dtype = image.dtype.name if self.how["target_range"] is None else self.how["target_type"]
        low, high = self.how["target_range"] or (0.0, MAX_VALUE[dtype])
        values = (result + 1) * np.float32((high - low) / 2) + np.float32(low)
        return values.astype(dtype) if dtype == "float32" else np.rint(values).clip(0, MAX_VALUE[dtype]).astype(dtype)

    def scaled(self, image: np.ndarray) -> np.ndarray:
        """Return a source image [H, W, C] at the size of the training images, if the training scaled."""
        if not self.how["resized"]:
            return image
        size = self.how["image_size"]
        return resize(image, size, size, flat=is_flat(image, map(tuple, self.how.get("legend", ()))))

    def _require_values(self, image: np.ndarray) -> None:
        low, high = float(image.min()), float(image.max())
        if not np.isfinite([low, high]).all():
            raise UserError("the image has values that are not finite (NaN or infinite). Fill them.")
        is_plain_float = image.dtype == np.float32 and self.how["source_range"] is None
        if is_plain_float and (low < -TOLERANCE or high > 1 + TOLERANCE):
            raise UserError(f"the image has values from {low:g} to {high:g}; this model's floats lie in 0 to 1.")
        require_trained_range(image, self.how["source_range"], self.how["source_type"], "the image")

    def _run(self, source: np.ndarray) -> np.ndarray:
        """Return the network's output [1, C, H, W]."""
        try:
            output = self.session.run(None, {"source": source})[0]
        except Exception as error:  # onnxruntime's exceptions share no class
            raise UserError(f"the network of {self.path} cannot translate it ({describe_error(error)}).") from None
        if not isinstance(output, np.ndarray) or output.dtype != np.float32 or output.ndim != 4 or not output.size:
            raise UserError(f"the network of {self.path} returns something other than images. Export it again.")
        return output


def read_preprocessing(path: Path, metadata: str | None) -> dict[str, Any]:
    """Read and check the preprocessing in a file's metadata.

    Raises:
        UserError: The metadata are not from ganvas, or the model does not translate images.
    """
    if metadata is None:
        raise UserError(f"{path}: has no metadata from ganvas. Export the model with ganvas.")
    try:
        values = parse_json(metadata)
    except ValueError:
        values = None
    values = values if isinstance(values, dict) else {}
    if "latent" in values:
        raise UserError(f"{path}: generates images from noise and translates none; docs/export.md shows how to run it.")
    how = values.get("preprocessing")
    if not isinstance(how, dict) or not _is_complete(how):
        raise UserError(f"{path}: its metadata do not describe the preprocessing. Export it again.")
    return how


def _is_complete(how: dict[str, Any]) -> bool:
    ranges, legend = [how.get(name, ()) for name in ("source_range", "target_range")], how.get("legend", [])
    return (
        _is_count(how.get("source_channels"), MAX_CHANNELS)
        and _is_count(how.get("image_size"), MAX_SIDE)
        and isinstance(how.get("resized"), bool)
        and all(how.get(name) in list(MAX_VALUE) for name in ("source_type", "target_type"))
        and all(values is None or is_value_range(values) for values in ranges)
        and isinstance(how.get("source_folders", []), list)
        and isinstance(legend, list)
        and len(legend) <= MAX_COLORS
        and all(map(is_color, legend))
    )


def _is_count(value: object, maximum: int) -> bool:
    return type(value) is int and 1 <= value <= maximum


def read(path: Path, channels: int) -> np.ndarray:
    """Read an image as [H, W, C]; alpha is composed over white unless ``channels`` includes it.

    Raises:
        UserError: The file is unreadable, or has more bits than Pillow supports.
    """
    found = read_basic(path)
    return found.array if found.is_array else with_channels(found.array, found.alpha, channels)


def write(path: Path, image: np.ndarray) -> None:
    """Write [H, W, C] atomically, in the format of the suffix.

    Raises:
        UserError: The format cannot hold the image, or the file cannot be written.
    """
    content, suffix = io.BytesIO(), path.suffix.lower()
    try:
        if suffix == ".npy":
            np.save(content, image)
        else:
            to_pillow(image).save(content, Image.registered_extensions().get(suffix), **ENCODING.get(suffix, {}))
    except (OSError, ValueError, UserError) as error:
        raise UserError(f"{path}: the format cannot hold this image ({error}). Use .npy.") from None
    write_file(path, content.getvalue())


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return the exit code."""
    return run_command("ganvas.inference.onnx", _run, argv)


def _run(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m ganvas.inference.onnx", description="Translate with an ONNX file.")
    parser.add_argument("model", type=Path)
    parser.add_argument("input", type=Path, help="an image or a folder of images")
    parser.add_argument("output", type=Path, help="a folder; or a file, for a single image")
    options = parser.parse_args(arguments)
    translator = OnnxTranslator(options.model)
    jobs = find_jobs(options.input, options.output, overwrite=True)
    if unread := describe_unread(jobs.unread):
        logger.info(unread)
    written: list[Path] = []
    failed: list[str] = []
    for job in jobs.todo:
        try:
            _translate_file(translator, job)
            written.append(job.target)
        except UserError as error:
            failed.append(str(error))
            if isinstance(error, WriteError):  # the next write would fail, too
                break
    logger.info(f"{len(written)} images written to {options.output}")
    FolderResult(written, [], failed, len(jobs.todo) - len(written) - len(failed)).raise_failures()
    return 0


def _translate_file(translator: OnnxTranslator, job: Job) -> None:
    image = read(job.source, translator.how["source_channels"])
    with add_place_to_errors(job.source):
        output = translator.translate(image)
    write(job.target, output)


if __name__ == "__main__":
    sys.exit(main())
