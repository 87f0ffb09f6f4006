"""A generator for other runtimes: ONNX files and torch.export programs, compared with the original before they appear.

They take pictures of any number, height and width, [N, C, H, W] in [-1, 1], and give the same. What has to be done to
a picture before and after stands in an ONNX file's metadata, as JSON under "ganvas"; `ganvas.inference.onnx` reads it.
"""

import contextlib
import copy
import importlib.util
import json
import logging
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from ganvas.data.images import to_tensor
from ganvas.errors import UserError
from ganvas.files import new_file
from ganvas.inference.translator import Translator

Weights = Literal["fp32", "fp16", "int8"]
OPSET = 20
EXAMPLE = (2, 77, 53)  # pictures, height, width: multiples of nothing, so that no size is taken for fixed
COMPARED = ((1, 64, 64), (2, 37, 90), (1, 128, 96))
TOLERANCE = 1e-4  # of the network's range of 2; rounding alone stays below 1e-5


@dataclass(frozen=True)
class Differences:
    """How far an exported network's outputs are from the original's, both in [-1, 1].

    Attributes:
        largest: Of all output values of all pictures.
        mean: Of all output values of the worst picture.
    """

    largest: float
    mean: float


def export_onnx(
    translator: Translator, path: Path, *, weights: Weights = "fp32", pictures: Sequence[np.ndarray] = ()
) -> Differences:
    """Write an ONNX file (opset 20).

    Args:
        translator: The model, on the CPU.
        path: The file to write.
        weights: "fp16" halves the file; "int8" quarters it, and chooses the scales of its whole numbers by
            ``pictures``. Their differences are a loss to be known, and refuse nothing.
        pictures: Real source pictures, [H, W, C] each, to compare beside random ones.

    Raises:
        UserError: A package or pictures are missing, the place cannot be written, or an fp32 file computes something
            else than PyTorch; it is not written then.
    """
    for package in ("onnx", "onnxscript", "onnxruntime"):
        if importlib.util.find_spec(package) is None:
            raise UserError(f"{path}: ONNX needs the package {package}. Run: pip install 'ganvas[onnx]'")
    if weights == "int8" and not pictures:
        raise UserError(f"{path}: int8 chooses its scales by real pictures. Give a folder of them.")
    real = _as_seen(translator, pictures)
    with new_file(path) as aside:
        _write_onnx(_Half(translator.network) if weights == "fp16" else translator.network, translator, aside)
        if weights == "int8":
            _quantize(aside, [source.numpy() for source in real])
        found = _compare(translator, _onnx_session(aside), real)
        if weights == "fp32":
            _refuse(found, path, "ONNX Runtime")
    return found


def export_program(translator: Translator, path: Path, *, pictures: Sequence[np.ndarray] = ()) -> Differences:
    """Write a torch.export program (.pt2), which runs without ganvas.

    Raises:
        UserError: The place cannot be written, or the program computes something else; it is not written then.
    """
    real = _as_seen(translator, pictures)
    with new_file(path) as aside:
        torch.export.save(_traced(translator.network, translator), aside)
        program = torch.export.load(aside).module()
        found = _compare(translator, program, real)
        _refuse(found, path, "the program")
    return found


def _as_seen(translator: Translator, pictures: Sequence[np.ndarray]) -> list[Tensor]:
    """Give pictures as the network sees them: [1, C, H, W] each."""
    values = (to_tensor(picture, translator.preprocessing.source_range)[None] for picture in pictures)
    return [translator.network_input(source) for source in values]


class _Half(nn.Module):
    """A network in half precision behind the single-precision interface of the original."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = copy.deepcopy(network).half()

    def forward(self, source: Tensor) -> Tensor:
        return self.network(source.half()).float()


def _traced(network: nn.Module, translator: Translator) -> torch.export.ExportedProgram:
    """Trace a network with sizes left open."""
    N, H, W = EXAMPLE
    example = torch.rand(N, translator.preprocessing.source_channels, H, W)
    sizes = dict.fromkeys((0, 2, 3), torch.export.Dim.DYNAMIC)
    program = torch.export.export(network, (example,), dynamic_shapes={"source": sizes})
    # What the tracer noticed of the example's memory layout (such as that cropping its output needs a copy) would
    # refuse every size for which it is otherwise. Results do not depend on it: the comparison takes such sizes.
    if hasattr(program, "_guards_code"):
        program._guards_code.clear()
    return program


def _write_onnx(network: nn.Module, translator: Translator, path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter's remarks on itself
        program = torch.onnx.export(
            _traced(network, translator),
            (),
            input_names=["source"],
            output_names=["output"],
            opset_version=OPSET,
            dynamo=True,
            verbose=False,
        )
    assert program is not None  # it is None where torch writes the file itself
    spec, how = translator.spec, translator.preprocessing
    about = {"source": spec.source, "target": spec.target, "preprocessing": asdict(how)}
    program.model.metadata_props["ganvas"] = json.dumps(about)
    program.save(path, external_data=False)


def _quantize(path: Path, sources: Sequence[np.ndarray]) -> None:
    """Turn convolutions to whole numbers: weights by channel, activations by the range they have on ``sources``."""
    from onnxruntime import quantization

    class Sources(quantization.CalibrationDataReader):
        def __init__(self) -> None:
            self.left = iter(sources)

        def get_next(self) -> dict[str, np.ndarray] | None:
            source = next(self.left, None)
            return None if source is None else {"source": source}

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
    """Keep back the quantizer's advice to optimise first; that step fixes the sizes that are to stay open."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)


def _onnx_session(path: Path) -> Callable[[Tensor], Tensor]:
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return lambda source: torch.from_numpy(session.run(None, {"source": source.numpy()})[0])


@torch.no_grad()
def _compare(translator: Translator, exported: Callable[[Tensor], Tensor], real: Sequence[Tensor]) -> Differences:
    """Compare on random pictures of several sizes and on real ones."""
    chance = torch.Generator().manual_seed(0)
    C = translator.preprocessing.source_channels
    random = [torch.rand(N, C, H, W, generator=chance) * 2 - 1 for N, H, W in COMPARED]
    apart = [(exported(source) - translator.network(source).float()).abs() for source in [*random, *real]]
    return Differences(max(one.max().item() for one in apart), max(one.mean().item() for one in apart))


def _refuse(found: Differences, path: Path, what: str) -> None:
    if not found.largest <= TOLERANCE:  # NaN is refused, too
        raise UserError(
            f"{path}: was not written, since {what} computes something else than PyTorch: the largest difference is "
            f"{found.largest:.2g}, allowed are {TOLERANCE:g}. Try other versions of torch and onnxruntime."
        )
