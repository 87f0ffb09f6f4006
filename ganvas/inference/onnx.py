"""Translate images by an exported ONNX file, where torch is not installed: numpy, onnxruntime and Pillow suffice.

    python -m ganvas.inference.onnx MODEL.onnx INPUT OUTPUT

INPUT is a image or a folder, whose subfolders are kept; OUTPUT a folder, or a file for one image. 8-bit images of
one to four channels, 16-bit gray ones and gray floats go in and come out with the same depth; arrays (.npy, [H, W, C])
of uint8, uint16 and float32 and of any number of channels, too. Other numbers are taken as float32.
"""

import argparse
import io
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
from ganvas.data.formats import ENCODING, IMAGE_SUFFIXES, require_file_name, require_output_folder
from ganvas.data.listing import describe_empty, describe_unread, list_folder
from ganvas.data.palette import is_color, is_flat
from ganvas.data.resize import resize
from ganvas.errors import UserError, WriteError
from ganvas.files import parse_json, require_writable, write_file
from ganvas.inference.images import to_pillow, with_channels
from ganvas.limits import MAX_CHANNELS, MAX_COLORS, MAX_SIDE, is_value_range

EXTERNAL_DATA = b"\x0a\x08location\x12"  # in a tensor's protobuf: the name of another file with its values
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
        if EXTERNAL_DATA in path.read_bytes():
            raise UserError(f"{path}: has weights in other files, which are not opened. Export it to a single file.")
        try:
            self.session = onnxruntime.InferenceSession(str(path), providers=onnxruntime.get_available_providers())
        except Exception as error:  # its own exceptions share no class
            raise UserError(f"{path}: is no ONNX file that can be run ({str(error).splitlines()[0]}).") from None
        self.how = _preprocessing(path, self.session.get_modelmeta().custom_metadata_map.get("ganvas"))

    def translate(self, picture: np.ndarray) -> np.ndarray:
        """Translate [H, W, C], uint8, uint16 or float32, as the model's file says; the same size comes out.

        Gray is repeated for a model of three channels.

        Raises:
            ValueError: It is no array [H, W, C], has no pixels, or another type.
            UserError: It has another number of channels than the model takes, values that are not finite, floats
                beyond [0, 1] where the model has no range of its own, or values as `require_trained_range`; or the
                network cannot take it.
        """
        is_stacked = bool(self.how.get("source_folders"))
        picture = to_model_input(picture, self.how["source_channels"], is_stacked=is_stacked)
        self._require(picture)
        H, W = picture.shape[:2]
        low, high = self.how["source_range"] or (0.0, TOP[picture.dtype.name])
        picture = self._scaled(picture) if self.how["resized"] else picture
        source = ((picture.astype(np.float32) - low) * np.float32(2 / (high - low)) - 1).clip(-1, 1)
        output = self._run(source.transpose(2, 0, 1)[None])  # [1, C, H, W]
        result = resize(output[0].transpose(1, 2, 0), H, W).clip(-1, 1)
        kind = picture.dtype.name if self.how["target_range"] is None else self.how["target_type"]
        low, high = self.how["target_range"] or (0.0, TOP[kind])
        scaled = (result + 1) * np.float32((high - low) / 2) + np.float32(low)
        return scaled.astype(kind) if kind == "float32" else np.rint(scaled).clip(0, TOP[kind]).astype(kind)

    def _require(self, picture: np.ndarray) -> None:
        kind = picture.dtype.name
        low, high = float(picture.min()), float(picture.max())
        if not np.isfinite([low, high]).all():
            raise UserError("the image has values that are not finite (NaN or infinite). Fill them.")
        if kind == "float32" and self.how["source_range"] is None and (low < -TOLERANCE or high > 1 + TOLERANCE):
            raise UserError(f"the image has values from {low:g} to {high:g}; this model's floats lie in 0 to 1.")
        require_trained_range(picture, self.how["source_range"], self.how["source_type"], "the image")

    def _run(self, source: np.ndarray) -> np.ndarray:
        try:
            return self.session.run(None, {"source": source})[0]
        except Exception as error:  # its own exceptions share no class
            raise UserError(f"the network cannot translate it ({str(error).splitlines()[0]}).") from None

    def _scaled(self, picture: np.ndarray) -> np.ndarray:
        """Return a source image [H, W, C] at the size that the network was trained with."""
        size = self.how["image_size"]
        return resize(picture, size, size, flat=is_flat(picture, map(tuple, self.how.get("legend", ()))))


def _preprocessing(path: Path, about: str | None) -> dict[str, Any]:
    """Read what a image goes through out of a file's metadata.

    Raises:
        UserError: They are not ganvas's, or a file's that translates nothing.
    """
    if about is None:
        raise UserError(f"{path}: has no metadata of ganvas. Export it with pix2pix or cyclegan export.")
    try:
        known = parse_json(about)
    except ValueError:
        known = None
    known = known if isinstance(known, dict) else {}
    if known.get("kind") == "dcgan":
        raise UserError(f"{path}: draws from noise, and translates nothing; docs/export.md shows how to run it.")
    how = known.get("preprocessing")
    if not isinstance(how, dict) or not _is_complete(how):
        raise UserError(f"{path}: its metadata do not say what a image goes through. Export it again.")
    return how


def _is_complete(how: dict[str, Any]) -> bool:
    ranges, legend = [how.get(name) for name in ("source_range", "target_range")], how.get("legend", [])
    return (
        _is_count(how.get("source_channels"), MAX_CHANNELS)
        and _is_count(how.get("image_size"), MAX_SIDE)
        and isinstance(how.get("resized"), bool)
        and all(how.get(name) in list(TOP) for name in ("source_type", "target_type"))
        and all(values is None or is_value_range(values) for values in ranges)  # none is the whole range of the type
        and isinstance(how.get("source_folders", []), list)
        and isinstance(legend, list)
        and len(legend) <= MAX_COLORS
        and all(map(is_color, legend))
    )


def _is_count(value: object, most: int) -> bool:
    return type(value) is int and 1 <= value <= most


def read(path: Path, channels: int) -> np.ndarray:
    """Read a image as [H, W, C]: alpha is composed over white where ``channels`` does not count it.

    Raises:
        UserError: It cannot be read, or has more bits than Pillow reads.
    """
    found = read_basic(path)
    return found.array if found.is_array else with_channels(found.array, found.alpha, channels)


def write(path: Path, picture: np.ndarray) -> None:
    """Write [H, W, C] by the file's suffix; it appears whole or not at all.

    Raises:
        UserError: The format does not hold it, or the place cannot be written.
    """
    content, suffix = io.BytesIO(), path.suffix.lower()
    try:
        if suffix == ".npy":
            np.save(content, picture)
        else:
            to_pillow(picture).save(content, Image.registered_extensions().get(suffix), **ENCODING.get(suffix, {}))
    except (OSError, ValueError, UserError) as error:
        raise UserError(f"{path}: the format does not hold this image ({error}). A .npy file holds any.") from None
    write_file(path, content.getvalue())


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; give the exit code."""
    return run_command("ganvas.inference.onnx", _run, argv)


def _run(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m ganvas.inference.onnx", description="Translate by an ONNX file.")
    parser.add_argument("model", type=Path)
    parser.add_argument("input", type=Path, help="a image or a folder of images")
    parser.add_argument("output", type=Path, help="a folder; or a file's name, for one image")
    options = parser.parse_args(arguments)
    translator = OnnxTranslator(options.model)
    jobs = _jobs(options.input, options.output)
    written, failures = 0, []
    for source, target in jobs:
        try:
            _translate_file(translator, source, target)
            written += 1
        except UserError as error:
            failures.append(str(error))
            if isinstance(error, WriteError):  # the next write would fail, too
                failures.append(f"{len(jobs) - written - len(failures)} more images were not tried.")
                break
    print(f"{written} images written to {options.output}", file=sys.stderr)
    if failures:
        raise UserError("\n".join(failures))
    return 0


def _translate_file(translator: OnnxTranslator, source: Path, target: Path) -> None:
    picture = read(source, translator.how["source_channels"])
    try:
        output = translator.translate(picture)
    except UserError as error:
        raise UserError(f"{source}: {error}") from None
    write(target, output)


def _jobs(source: Path, target: Path) -> list[tuple[Path, Path]]:
    """Pair every input with its output, as ``translate`` does.

    Raises:
        UserError: There are no images, or results would lie among the sources.
    """
    if source.is_file():
        single = target if require_file_name(target, IMAGE_SUFFIXES) else target / source.name
        if single.exists() and single.samefile(source):
            raise UserError(f"{single}: is the image itself. Give another name, so that it is not overwritten.")
        require_writable(single.parent, is_folder=True)
        return [(source, single)]
    if not source.is_dir():
        raise UserError(f"{source}: there is no such file or folder.")
    require_output_folder(target)
    listing = list_folder(source, recursive=True)
    if not listing.images:
        raise UserError(f"{source}: {describe_empty(listing.unread)}")
    if unread := describe_unread(listing.unread):
        print(unread, file=sys.stderr)
    jobs = [(file, target / file.relative_to(source)) for file in listing.images]
    for folder in {output.parent.resolve() for _, output in jobs}:
        if any(one.exists() and one.samefile(source) for one in (folder, *folder.parents)):
            raise UserError(
                f"{target}: results would lie in the input folder. Give another one: results are no sources."
            )
    return jobs


if __name__ == "__main__":
    sys.exit(main())
