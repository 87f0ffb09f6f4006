"""Export of networks to ONNX files and torch.export programs, compared with the original before they are written.

Translators take any number of images of any size, [N, C, H, W] in [-1, 1], and return the same. The preprocessing is
in an ONNX file's metadata, as JSON under "ganvas", where `ganvas.inference.onnx` reads it. Other networks, such as
generators of images from noise, are described by an `Exportable`.
"""

import contextlib
import copy
import importlib.util
import io
import json
import logging
import math
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from ganvas.errors import UserError
from ganvas.files import new_file, write_file
from ganvas.inference.tiling.plan import grid_of
from ganvas.inference.translator import Translator

Weights = Literal["fp32", "fp16", "int8"]
OPSET = 20
MIN_SIDE = 64  # pixels, of the images to compare on
TOLERANCE = 1e-4  # of the network's range of 2; rounding errors stay below 1e-5


@dataclass(frozen=True)
class Exportable:
    """A network and its interface in another runtime.

    Attributes:
        network: The network, in eval mode, on the CPU, in float32; takes ``inputs`` in their order, returns one tensor.
        inputs: Names of the inputs, and the dynamic axes of each.
        output: Name of the output.
        example: Inputs to trace the network with.
        random: Inputs to compare on; at least one.
        real: Inputs from real data, to compare on and to calibrate int8.
        metadata: Information for users of the file.
    """

    network: nn.Module
    inputs: Mapping[str, tuple[int, ...]]
    output: str
    example: tuple[Tensor, ...]
    random: Sequence[tuple[Tensor, ...]]
    real: Sequence[tuple[Tensor, ...]]
    metadata: Mapping[str, Any]


@dataclass(frozen=True)
class Differences:
    """Absolute differences between the outputs of an exported network and the original, both in [-1, 1].

    Attributes:
        largest: Maximum over all outputs.
        mean: Mean over the output values of the worst input.
    """

    largest: float
    mean: float


def export_translator(
    translator: Translator, path: Path, *, weights: Weights = "fp32", images: Sequence[np.ndarray] = ()
) -> Differences:
    """Export a translator as `export` does.

    Args:
        translator: The model, on the CPU.
        path: The file to write, .onnx or .pt2.
        weights: As in `export`.
        images: Real source images [H, W, C] to compare on, in addition to random ones.

    Raises:
        UserError: As `export`.
    """
    spec, how = translator.spec, translator.preprocessing
    generator = torch.Generator().manual_seed(0)
    example, *random = (
        (torch.rand(N, how.source_channels, H, W, generator=generator) * 2 - 1,)
        for N, H, W in _sizes(translator.network)
    )
    exportable = Exportable(
        network=translator.network,
        inputs={"source": (0, 2, 3)},
        output="output",
        example=example,
        random=random,
        real=[(translator.prepare(image).values[None],) for image in images],
        metadata={"source": spec.source, "target": spec.target, "preprocessing": asdict(how)},
    )
    return export(exportable, path, weights=weights)


def _sizes(network: nn.Module) -> list[tuple[int, int, int]]:
    """Return number, height and width of the images of the example and of the random inputs.

    The network pads images to whole steps of its grid. The example has several steps, another number in each direction,
    so that the exporter takes no number for a constant; the random inputs have one, two and four.
    """
    L = max(MIN_SIDE, grid_of(network).min_size)
    return [(2, L + 13, 2 * L + 53), (1, L, L), (2, L - 27, L + 26), (1, 2 * L, L + 1)]


def export(exportable: Exportable, path: Path, *, weights: Weights = "fp32") -> Differences:
    """Write an ONNX file (opset 20) or a torch.export program, which run without ganvas.

    Args:
        exportable: The network.
        path: The file to write, .onnx or .pt2.
        weights: Weights of an ONNX file with one input. "fp16" halves the file; "int8" quarters it, and is calibrated
            with real inputs. Their differences are reported, and accepted as long as they are finite.

    Raises:
        ValueError: fp16 or int8 for a network with several inputs.
        UserError: The suffix is unknown, a package or real inputs are missing, the file cannot be written, or the
            exported network differs from the original (fp32) or is not finite; nothing is written then.
    """
    suffix = path.suffix.lower()
    if suffix == ".onnx":
        return _export_onnx(exportable, path, weights)
    if suffix != ".pt2":
        raise UserError(f"{path}: give a name that ends with .onnx or .pt2.")
    if weights != "fp32":
        raise UserError(f"--weights {weights}: is for .onnx; a program keeps the model's own weights.")
    return _export_program(exportable, path)


def summary(path: Path, found: Differences) -> dict[str, str | float]:
    """Return the size of an exported file and its differences from the original, by label."""
    return {
        "written": str(path),
        "megabytes": round(path.stat().st_size / 1e6, 1),
        "largest difference": found.largest,
        "mean difference": found.mean,
    }


def _export_onnx(exportable: Exportable, path: Path, weights: Weights) -> Differences:
    for package in ("onnx", "onnxscript", "onnxruntime"):
        if importlib.util.find_spec(package) is None:
            raise UserError(f"{path}: ONNX needs the package {package}. Run: pip install 'ganvas[onnx]'")
    if weights != "fp32" and len(exportable.inputs) > 1:
        raise ValueError(f"weights are {weights!r}; a network with {len(exportable.inputs)} inputs allows only 'fp32'")
    if weights == "int8" and not exportable.real:
        raise UserError(f"{path}: int8 is calibrated with real images. Give a folder of them.")
    with new_file(path) as aside:
        network = _HalfPrecision(exportable.network) if weights == "fp16" else exportable.network
        _write_onnx(replace(exportable, network=network), aside)
        if weights == "int8":
            _quantize(aside, exportable)
        found = _compare(exportable, _onnx_session(aside, exportable))
        if weights == "fp32":
            _require_equal(found, path, "ONNX Runtime")
        elif not math.isfinite(found.largest):
            raise UserError(
                f"{path}: was not written, since with --weights {weights} not all outputs are finite or of the "
                "original's shape. Use fp32."
            )
    return found


def _export_program(exportable: Exportable, path: Path) -> Differences:
    content = io.BytesIO()  # torch's own file writer aborts the process if the disk is full
    torch.export.save(_traced(exportable), content)
    found = _compare(exportable, torch.export.load(content).module())
    _require_equal(found, path, "the program")
    write_file(path, content.getvalue())
    return found


class _HalfPrecision(nn.Module):
    """A network of one input that computes in half precision, with single-precision input and output."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = copy.deepcopy(network).half()

    def forward(self, source: Tensor) -> Tensor:
        return self.network(source.half()).float()


def _traced(exportable: Exportable) -> torch.export.ExportedProgram:
    """Trace a network with dynamic sizes."""
    sizes = tuple(dict.fromkeys(axes, torch.export.Dim.DYNAMIC) for axes in exportable.inputs.values())
    program = torch.export.export(exportable.network, exportable.example, dynamic_shapes=sizes)
    # The tracer adds guards on the example's memory layout (such as whether cropping needs a copy), which would refuse
    # other sizes. Results do not depend on them: the comparison includes such sizes.
    if hasattr(program, "_guards_code"):
        program._guards_code.clear()
    return program


def _write_onnx(exportable: Exportable, path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about the exporter's own internals
        program = torch.onnx.export(
            _traced(exportable),
            (),
            input_names=list(exportable.inputs),
            output_names=[exportable.output],
            opset_version=OPSET,
            dynamo=True,
            verbose=False,
        )
    assert program is not None  # None only if torch writes the file
    program.model.metadata_props["ganvas"] = json.dumps(exportable.metadata)
    program.save(path, external_data=False)


def _quantize(path: Path, exportable: Exportable) -> None:
    """Quantize convolutions: weights by channel, activations by their range on real inputs."""
    from onnxruntime import quantization

    class Reader(quantization.CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self.inputs = iter(exportable.real)

        def get_next(self) -> dict[str, np.ndarray] | None:
            inputs = next(self.inputs, None)
            return None if inputs is None else _arrays(exportable, inputs)

    with _quiet_log():
        quantization.quantize_static(
            path,
            path,
            Reader(),
            quant_format=quantization.QuantFormat.QDQ,
            op_types_to_quantize=["Conv", "ConvTranspose"],
            per_channel=True,
            weight_type=quantization.QuantType.QInt8,
            activation_type=quantization.QuantType.QUInt8,
        )


@contextlib.contextmanager
def _quiet_log() -> Iterator[None]:
    """Silence the quantizer's advice to preprocess the model, which would fix its dynamic sizes."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)


def _arrays(exportable: Exportable, inputs: tuple[Tensor, ...]) -> dict[str, np.ndarray]:
    return {name: each.numpy() for name, each in zip(exportable.inputs, inputs, strict=True)}


def _onnx_session(path: Path, exportable: Exportable) -> Callable[..., Tensor]:
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return lambda *inputs: torch.from_numpy(session.run(None, _arrays(exportable, inputs))[0])


@torch.no_grad()
def _compare(exportable: Exportable, exported: Callable[..., Tensor]) -> Differences:
    """Compare on all inputs; the difference of outputs of unequal shapes is infinite."""
    differences = []
    for inputs in (*exportable.random, *exportable.real):
        found, expected = exported(*inputs), exportable.network(*inputs).float()
        is_comparable = found.shape == expected.shape
        differences.append((found - expected).abs() if is_comparable else torch.full((1,), torch.inf))
    # Unlike Python's max, that of a tensor is NaN if any value is.
    largest, mean = (torch.stack([f(each) for each in differences]).max().item() for f in (torch.max, torch.mean))
    return Differences(largest, mean)


def _require_equal(found: Differences, path: Path, runtime: str) -> None:
    if not found.largest <= TOLERANCE:  # also refuses NaN
        raise UserError(
            f"{path}: was not written, since {runtime} and PyTorch compute different outputs: the largest difference "
            f"is {found.largest:.2g}, allowed is {TOLERANCE:g}. Try other versions of torch and onnxruntime."
        )
