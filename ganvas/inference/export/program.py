"""A generator for other runtimes: ONNX files and torch.export programs, compared with the original before they appear.

Translators take images of any number, height and width, [N, C, H, W] in [-1, 1], and give the same. What has to be
done to a image before and after stands in an ONNX file's metadata, as JSON under "ganvas"; `ganvas.inference.onnx`
reads it. Other networks, such as `dcgan`'s, are described by an `Exportable` of their own.
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
LEAST_SIDE = 64  # pixels, of the images to compare on
TOLERANCE = 1e-4  # of the network's range of 2; rounding alone stays below 1e-5


@dataclass(frozen=True)
class Exportable:
    """A network as another runtime is to see it.

    Attributes:
        network: In eval mode, on the CPU, in float32; takes ``inputs`` in their order and gives one tensor.
        inputs: The inputs' names, and the axes of each whose size stays open.
        output: The output's name.
        example: Inputs to trace the network with.
        random: Inputs to compare on; at least one.
        real: The same from real data; int8 chooses its scales by them.
        about: What a program has to know to use the file; for its metadata.
    """

    network: nn.Module
    inputs: Mapping[str, tuple[int, ...]]
    output: str
    example: tuple[Tensor, ...]
    random: Sequence[tuple[Tensor, ...]]
    real: Sequence[tuple[Tensor, ...]]
    about: Mapping[str, Any]


@dataclass(frozen=True)
class Differences:
    """How far an exported network's outputs are from the original's, both in [-1, 1].

    Attributes:
        largest: Of all output values of all inputs.
        mean: Of all output values of the worst input.
    """

    largest: float
    mean: float


def export_translator(
    translator: Translator, path: Path, *, weights: Weights = "fp32", pictures: Sequence[np.ndarray] = ()
) -> Differences:
    """Write a translator as `export` does.

    Args:
        translator: The model, on the CPU.
        path: The file to write, .onnx or .pt2.
        weights: As in `export`.
        images: Real source images, [H, W, C] each, to compare beside random ones.

    Raises:
        UserError: As `export`.
    """
    spec, how = translator.spec, translator.preprocessing
    chance = torch.Generator().manual_seed(0)
    example, *random = (
        (torch.rand(N, how.source_channels, H, W, generator=chance) * 2 - 1,) for N, H, W in _sizes(translator.network)
    )
    what = Exportable(
        network=translator.network,
        inputs={"source": (0, 2, 3)},
        output="output",
        example=example,
        random=random,
        real=[(translator.prepare(picture).values[None],) for picture in pictures],
        about={"source": spec.source, "target": spec.target, "preprocessing": asdict(how)},
    )
    return export(what, path, weights=weights)


def _sizes(network: nn.Module) -> list[tuple[int, int, int]]:
    """Give images, height and width of the example, then of what is compared.

    The network mirrors images out to whole squares of its grid. So the example has several squares, of other numbers
    down and across, that no number is taken for fixed; and what is compared becomes one square, two and four.
    """
    L = max(LEAST_SIDE, grid_of(network).least)
    return [(2, L + 13, 2 * L + 53), (1, L, L), (2, L - 27, L + 26), (1, 2 * L, L + 1)]


def export(what: Exportable, path: Path, *, weights: Weights = "fp32") -> Differences:
    """Write an ONNX file (opset 20) or a torch.export program, which runs without ganvas, as the suffix says.

    Args:
        what: The network.
        path: The file to write, .onnx or .pt2.
        weights: Of an ONNX file of one input. "fp16" halves it; "int8" quarters it, and chooses the scales of its whole
            numbers by real inputs. Their differences are a loss to be known, and refuse nothing as long as they are
            finite.

    Raises:
        ValueError: Smaller weights of a network of several inputs.
        UserError: Another suffix, a package or real inputs are missing, the place cannot be written, or a file computes
            something else than PyTorch (in fp32) or what is not finite; it is not written then.
    """
    suffix = path.suffix.lower()
    if suffix == ".onnx":
        return _export_onnx(what, path, weights)
    if suffix != ".pt2":
        raise UserError(f"{path}: give a name that ends with .onnx or .pt2.")
    if weights != "fp32":
        raise UserError(f"--weights {weights}: is for .onnx; a program keeps the model's own.")
    return _export_program(what, path)


def summary(path: Path, found: Differences) -> dict[str, str | float]:
    """Say what was written and how far it is from the original."""
    return {
        "written": str(path),
        "megabytes": round(path.stat().st_size / 1e6, 1),
        "largest difference": found.largest,
        "mean difference": found.mean,
    }


def _export_onnx(what: Exportable, path: Path, weights: Weights) -> Differences:
    for package in ("onnx", "onnxscript", "onnxruntime"):
        if importlib.util.find_spec(package) is None:
            raise UserError(f"{path}: ONNX needs the package {package}. Run: pip install 'ganvas[onnx]'")
    if weights != "fp32" and len(what.inputs) > 1:
        raise ValueError(f"weights are {weights!r}; of a network of {len(what.inputs)} inputs they can be 'fp32'")
    if weights == "int8" and not what.real:
        raise UserError(f"{path}: int8 chooses its scales by real images. Give a folder of them.")
    with new_file(path) as aside:
        _write_onnx(replace(what, network=_Half(what.network)) if weights == "fp16" else what, aside)
        if weights == "int8":
            _quantize(aside, what)
        found = _compare(what, _onnx_session(aside, what))
        if weights == "fp32":
            _refuse(found, path, "ONNX Runtime")
        elif not math.isfinite(found.largest):
            raise UserError(
                f"{path}: was not written, since with --weights {weights} not all outputs are finite, or not of the "
                "original's shape. Take fp32."
            )
    return found


def _export_program(what: Exportable, path: Path) -> Differences:
    content = io.BytesIO()  # torch's own writer ends the process where the disk is full
    torch.export.save(_traced(what), content)
    found = _compare(what, torch.export.load(content).module())
    _refuse(found, path, "the program")
    write_file(path, content.getvalue())
    return found


class _Half(nn.Module):
    """A network of one input in half precision, behind the single-precision interface of the original."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = copy.deepcopy(network).half()

    def forward(self, source: Tensor) -> Tensor:
        return self.network(source.half()).float()


def _traced(what: Exportable) -> torch.export.ExportedProgram:
    """Trace a network with sizes left open."""
    sizes = tuple(dict.fromkeys(axes, torch.export.Dim.DYNAMIC) for axes in what.inputs.values())
    program = torch.export.export(what.network, what.example, dynamic_shapes=sizes)
    # What the tracer noticed of the example's memory layout (such as that cropping its output needs a copy) would
    # refuse every size for which it is otherwise. Results do not depend on it: the comparison takes such sizes.
    if hasattr(program, "_guards_code"):
        program._guards_code.clear()
    return program


def _write_onnx(what: Exportable, path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter's remarks on itself
        program = torch.onnx.export(
            _traced(what),
            (),
            input_names=list(what.inputs),
            output_names=[what.output],
            opset_version=OPSET,
            dynamo=True,
            verbose=False,
        )
    assert program is not None  # it is None where torch writes the file itself
    program.model.metadata_props["ganvas"] = json.dumps(what.about)
    program.save(path, external_data=False)


def _quantize(path: Path, what: Exportable) -> None:
    """Turn convolutions to whole numbers: weights by channel, activations by the range they have on real inputs."""
    from onnxruntime import quantization

    class Sources(quantization.CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self.left = iter(what.real)

        def get_next(self) -> dict[str, np.ndarray] | None:
            source = next(self.left, None)
            return None if source is None else _arrays(what, source)

    with _quiet_log():
        quantization.quantize_static(
            path,
            path,
            Sources(),
            quant_format=quantization.QuantFormat.QDQ,
            op_types_to_quantize=["Conv", "ConvTranspose"],
            per_channel=True,
            weight_type=quantization.QuantType.QInt8,
            activation_type=quantization.QuantType.QUInt8,
        )


@contextlib.contextmanager
def _quiet_log() -> Iterator[None]:
    """Keep back the quantizer's advice to optimize first; that step fixes the sizes that are to stay open."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)


def _arrays(what: Exportable, inputs: tuple[Tensor, ...]) -> dict[str, np.ndarray]:
    return {name: each.numpy() for name, each in zip(what.inputs, inputs, strict=True)}


def _onnx_session(path: Path, what: Exportable) -> Callable[..., Tensor]:
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return lambda *inputs: torch.from_numpy(session.run(None, _arrays(what, inputs))[0])


@torch.no_grad()
def _compare(what: Exportable, exported: Callable[..., Tensor]) -> Differences:
    """Compare on random inputs and on real ones; outputs of another shape are infinitely far."""
    apart = []
    for inputs in (*what.random, *what.real):
        found, expected = exported(*inputs), what.network(*inputs).float()
        same = found.shape == expected.shape
        apart.append((found - expected).abs() if same else torch.full((1,), torch.inf))
    # Unlike Python's, the largest of a tensor is NaN wherever one stands.
    largest, mean = (torch.stack([measure(one) for one in apart]).max().item() for measure in (torch.max, torch.mean))
    return Differences(largest, mean)


def _refuse(found: Differences, path: Path, what: str) -> None:
    if not found.largest <= TOLERANCE:  # NaN is refused, too
        raise UserError(
            f"{path}: was not written, since {what} computes something else than PyTorch: the largest difference is "
            f"{found.largest:.2g}, allowed are {TOLERANCE:g}. Try other versions of torch and onnxruntime."
        )
