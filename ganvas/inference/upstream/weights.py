"""Reading and writing of weights of pytorch-CycleGAN-and-pix2pix, here called upstream.

An upstream .pth file is a plain dict of tensors. The architecture is inferred from their names and shapes, and the
tensors are renamed. No code in the file is ever executed.

In upstream's U-Net each level is nested in the next outer one. With P0 = model.model, P1 = P0.1.model and
P(i+1) = Pi.3.model, level i has its down convolution at Pi.1 with its norm at Pi.2, and its up convolution at Pi.5 with
its norm at Pi.6. The outermost level has them at P0.0 and P0.3; the innermost has the up convolution at Pi.3 with its
norm at Pi.4. The ResNet and the discriminators number their layers in order.
"""

import io
import pickle
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from ganvas.errors import UserError
from ganvas.files import write_file
from ganvas.inference.translator import Translator
from ganvas.log import logger
from ganvas.messages import describe_error, shorten
from ganvas.models.folder import (
    ModelConfig,
    NetworkSpec,
    Preprocessing,
    all_arguments,
    build_empty,
    build_generator,
    load_weights,
)
from ganvas.models.foreign import describe_content
from ganvas.nn.layers import Norm, Statistics
from ganvas.nn.patchgan import make_discriminator

NetG = Literal["unet_128", "unet_256", "resnet_6blocks", "resnet_9blocks"]
MAX_LEVELS = 16
TRACKED = ("running_mean", "running_var", "num_batches_tracked")


@dataclass(frozen=True)
class UpstreamNetwork:
    """A network from a .pth file.

    Attributes:
        network: The network with its weights, in eval mode.
        name: Upstream's name of the network: "unet_256", "resnet_9blocks", "n_layers" or "pixel".
        description: A line about the architecture.
    """

    network: nn.Module
    name: str
    description: str


@dataclass(frozen=True)
class UpstreamGenerator(UpstreamNetwork):
    """A generator from a .pth file.

    Attributes:
        spec: Its architecture and arguments.
        has_unused_averages: Whether the file has running averages of instance norms, which the network does not use.
    """

    spec: NetworkSpec
    has_unused_averages: bool = False


def load_upstream(
    path: Path | str,
    netG: NetG | None = None,
    *,
    image_size: int = 256,
    statistics: Statistics = "picture",
    device: str = "cpu",
) -> Translator:
    """Load a generator of pytorch-CycleGAN-and-pix2pix as a translator; its ``.network`` is the bare module.

    The architecture that was found is logged.

    Args:
        path: The .pth file, such as latest_net_G.pth.
        netG: Upstream's name of the expected architecture; raises an error if the file has another one.
        image_size: Side in pixels that images are scaled to: upstream's --load_size at test time.
        statistics: What batch norm normalizes by: "picture" as upstream by default, "running" as with its --eval.
        device: Device to translate on.

    Raises:
        UserError: As `read_generator`.

    Example:
        >>> import ganvas
        >>> model = ganvas.load_upstream("latest_net_G.pth", netG="resnet_6blocks", image_size=64)
        >>> type(model.network).__name__
        'ResNetGenerator'
    """
    found = read_generator(Path(path), netG, statistics)
    logger.info(f"{path}: {found.description}")
    config = model_config({"a2b": found.spec}, image_size, statistics, kind="upstream")
    return Translator(config, {"a2b": found.network}, device=device)


def model_config(
    generators: dict[Literal["a2b", "b2a"], NetworkSpec], image_size: int, statistics: Statistics, *, kind: str
) -> ModelConfig:
    """Return the config of a model of upstream's generators, whose images are scaled and have 8 bits."""
    arguments = generators.get("a2b", next(iter(generators.values()))).arguments
    return ModelConfig(
        kind=kind,
        networks=generators,
        preprocessing=Preprocessing(arguments["in_channels"], arguments["out_channels"], image_size, resized=True),
        statistics=statistics,
        training={"data": "unknown", "imported_from": "pytorch-CycleGAN-and-pix2pix"},
    )


def read_generator(path: Path, name: str | None = None, statistics: Statistics = "picture") -> UpstreamGenerator:
    """Read an upstream generator.

    Args:
        path: The .pth file.
        name: As in `read_upstream`.
        statistics: What its norms are to normalize by.

    Raises:
        UserError: As `read_upstream`; or the file holds a discriminator, or ``statistics`` is "running" and it has
            running averages of instance norms.
    """
    found = read_upstream(path, name)
    if not isinstance(found, UpstreamGenerator):
        raise UserError(f"{path}: is {found.description}, not a generator. Give the file of a generator.")
    if statistics == "running" and found.has_unused_averages:
        raise UserError(
            f"{path}: --statistics running: its instance norms come with running averages, as PyTorch before 0.4 "
            "stored them; neither ganvas nor current upstream uses them. Leave out --statistics: upstream translates "
            "by each image's own statistics."
        )
    return found


def read_upstream(path: Path | str, name: str | None = None) -> UpstreamNetwork:
    """Read an upstream generator or discriminator.

    Args:
        path: The .pth file.
        name: Upstream's name of the expected network, such as "unet_256"; None accepts any.

    Raises:
        UserError: The file is missing or damaged, contains code, holds an unknown network, or one of another name.
    """
    path = Path(path)
    weights = _load(path)
    try:
        found = _network(weights, path)
    except (LookupError, ValueError, TypeError, RuntimeError) as error:  # from names or shapes of no known network
        raise UserError(
            f"{path}: has names of pytorch-CycleGAN-and-pix2pix, but not the tensors of one of its networks "
            f"({describe_error(error)}). Give a file such as latest_net_G.pth as that tool wrote it."
        ) from None
    if name is not None and name != found.name:
        raise UserError(f"{path}: holds {found.name}, not {name}. Leave the name out, or give another file.")
    return found


def _network(weights: Mapping[str, Tensor], path: Path) -> UpstreamNetwork:
    """Build the network that the tensors' names imply, and load its weights."""
    if "model.model.0.weight" in weights:
        return _unet(weights, path)
    if _is_convolution(weights, "model.10.conv_block.0"):
        raise UserError(
            f"{path}: holds a ResNet whose blocks pad with zeros (padding_type='zero'). Only reflection padding, as "
            "in that tool's --netG resnet_…, is supported."
        )
    if _is_convolution(weights, "model.10.conv_block.1"):
        return _resnet(weights, path)
    if "model.0.weight" in weights or "net.0.weight" in weights:
        return _discriminator(weights, path)
    first = ", ".join(map(shorten, list(weights)[:3]))
    raise UserError(
        f"{path}: holds no network of pytorch-CycleGAN-and-pix2pix (it has {first}, …). "
        "Its U-Nets, ResNets, PatchGANs and pixel discriminators are supported."
    )


def write_upstream(path: Path, network: nn.Module, spec: NetworkSpec) -> str:
    """Write a generator as a .pth file for upstream.

    Returns:
        The options with which upstream loads it, without those that are always its defaults.

    Raises:
        UserError: Upstream has no such architecture, or the file cannot be written.
    """
    arguments: dict[str, Any] = {"dropout": 0, "upsampling": "resize"} | all_arguments(spec)  # what a resunet does
    modules: dict[str, str] = {}
    name: str = spec.architecture
    if spec.architecture == "unet":
        modules, name = _unet_modules(arguments["num_levels"]), f"unet_{2 ** arguments['num_levels']}"
    elif spec.architecture == "resnet":
        blocks = arguments["num_blocks"]
        modules, name = _resnet_modules(blocks, bool(arguments["dropout"])), f"resnet_{blocks}blocks"
    if (
        name not in get_args(NetG)
        or arguments["upsampling"] != "transpose"
        or arguments.get("resampling", "strided") != "strided"
        or arguments["norm"] not in ("batch", "instance")
    ):
        raise UserError(
            f"{path}: pytorch-CycleGAN-and-pix2pix has U-Nets of 7 and 8 levels and ResNets of 6 and 9 blocks, with "
            "batch or instance norm, strided and transposed convolutions; this generator is none of them. Export it to "
            "ONNX instead."
        )
    weights = {_renamed(key, modules): value.cpu().clone() for key, value in network.state_dict().items()}
    content = io.BytesIO()  # torch's own file writer may abort the process if the disk is full
    torch.save(weights, content)
    write_file(path, content.getvalue())
    return _options(name, arguments)


def _options(name: str, arguments: Mapping[str, Any]) -> str:
    """Return upstream's options for a generator: those that depend on its model, and those without its defaults."""
    options = f"--netG {name} --norm {arguments['norm']}"
    if not arguments["dropout"]:
        options += " --no_dropout"
    for option, argument, default in (
        ("ngf", "base_channels", 64),
        ("input_nc", "in_channels", 3),
        ("output_nc", "out_channels", 3),
    ):
        if arguments[argument] != default:
            options += f" --{option} {arguments[argument]}"
    return options


def _load(path: Path) -> dict[str, Tensor]:
    """Read the dict of tensors, without the prefix that training on several GPUs leaves.

    Torch's own error messages are not passed on: some advise to execute the code in the file.
    """
    if not path.is_file():
        raise UserError(f"{path}: {'is a folder' if path.is_dir() else 'there is no such file'}. Give a .pth file.")
    if (what := describe_content(path)) is not None:
        raise UserError(f"{path}: {what}")
    try:
        # Memory mapping copies nothing before shapes are compared. Files of old versions do not support it; reading
        # from a buffer allocates no more than it has, whatever length such a file claims.
        is_zip = zipfile.is_zipfile(path)
        source = path if is_zip else io.BytesIO(path.read_bytes())
        content = torch.load(source, map_location="cpu", weights_only=True, mmap=is_zip)
    except pickle.UnpicklingError:
        raise UserError(
            f"{path}: is not a plain dict of tensors. Files that contain code are refused, and nothing in it was "
            "executed. If the file is damaged, copy it again."
        ) from None
    except Exception as error:  # damaged bytes can raise anything: IndexError, TypeError, OverflowError …
        raise UserError(
            f"{path}: is not a plain dict of tensors, or damaged ({type(error).__name__}). Copy it again, or give a "
            "file such as latest_net_G.pth as that tool wrote it."
        ) from None
    if not isinstance(content, Mapping) or not all(isinstance(value, Tensor) for value in content.values()):
        raise UserError(f"{path}: is not a dict of tensors. Give a file such as latest_net_G.pth.")
    size = sum(value.numel() * value.element_size() for value in content.values())
    if size > path.stat().st_size:
        raise UserError(
            f"{path}: claims tensors of {size:,} bytes in a file of {path.stat().st_size:,}. Copy it again, or give a "
            "file such as latest_net_G.pth as that tool wrote it."
        )
    return {str(name).removeprefix("module."): value for name, value in content.items()}


def _unet(weights: Mapping[str, Tensor], path: Path) -> UpstreamGenerator:
    levels = min(max(key.count(".model.") for key in weights), MAX_LEVELS)
    modules = _unet_modules(levels)
    first, last = weights["model.model.0.weight"], weights.get("model.model.3.weight")
    arguments = {
        "in_channels": first.shape[1],
        "out_channels": first.shape[1] if last is None else last.shape[1],
        "base_channels": first.shape[0],
        "num_levels": levels,
        "norm": _norm(weights, modules["down.1.1"], modules["down.1.2"]),
        "dropout_levels": list(range(1, max(1, levels - 4))),  # as upstream; used only in training
    }
    return _generator("unet", arguments, modules, weights, path, f"unet_{2**levels}")


def _unet_modules(levels: int) -> dict[str, str]:
    """Return upstream's name of each module of a U-Net."""
    modules, inside = {"down.0.1": "model.model.0", f"up.{levels - 1}.1": "model.model.3"}, "model.model.1.model"
    for level in range(1, levels):
        innermost = level == levels - 1
        up, up_norm = (3, 4) if innermost else (5, 6)
        modules |= {f"down.{level}.1": f"{inside}.1", f"down.{level}.2": f"{inside}.2"}
        step = levels - 1 - level  # up layers are numbered from the innermost
        modules |= {f"up.{step}.1": f"{inside}.{up}", f"up.{step}.2": f"{inside}.{up_norm}"}
        inside += ".3.model"
    return modules


def _resnet(weights: Mapping[str, Tensor], path: Path) -> UpstreamGenerator:
    blocks = len({key.split(".")[1] for key in weights if ".conv_block." in key})
    with_dropout = _is_convolution(weights, "model.10.conv_block.6")
    modules = _resnet_modules(blocks, with_dropout)
    first, last = weights["model.1.weight"], weights.get(f"model.{blocks + 17}.weight")
    arguments = {
        "in_channels": first.shape[1],
        "out_channels": first.shape[1] if last is None else last.shape[0],
        "base_channels": first.shape[0],
        "num_blocks": blocks,
        "norm": _norm(weights, "model.1", "model.2"),
        "dropout": 0.5 if with_dropout else 0.0,
    }
    return _generator("resnet", arguments, modules, weights, path, f"resnet_{blocks}blocks")


def _resnet_modules(blocks: int, with_dropout: bool) -> dict[str, str]:
    """Return upstream's name of each module of a ResNet: layers have the same numbers, except in the blocks."""
    modules = {f"layers.{n}": f"model.{n}" for n in (1, 2, 4, 5, 7, 8)}
    second = 6 if with_dropout else 5
    for n in range(10, 10 + blocks):
        theirs = {1: 1, 2: 2, 6: second, 7: second + 1}
        modules |= {f"layers.{n}.body.{ours}": f"model.{n}.conv_block.{number}" for ours, number in theirs.items()}
    return modules | {f"layers.{10 + blocks + n}": f"model.{10 + blocks + n}" for n in (0, 1, 3, 4, 7)}


def _generator(
    architecture: Literal["unet", "resnet"],
    arguments: dict[str, Any],
    modules: Mapping[str, str],
    weights: Mapping[str, Tensor],
    path: Path,
    name: str,
) -> UpstreamGenerator:
    spec = NetworkSpec(architecture, arguments, "A", "B")
    network = build_empty(partial(build_generator, spec, str(path)))
    _fill(network, modules, weights, path, arguments["norm"])
    channels = f"{arguments['in_channels']} to {arguments['out_channels']} channels"
    description = f"{name}, {channels}, ngf {arguments['base_channels']}, norm {arguments['norm']}"
    has_averages = any(key.endswith(".running_mean") for key in weights)
    return UpstreamGenerator(network.eval(), name, description, spec, has_averages and arguments["norm"] == "instance")


def _discriminator(weights: Mapping[str, Tensor], path: Path) -> UpstreamNetwork:
    """Read a PatchGAN (model.0, then model.2 and its norm, …) or a pixel discriminator (net.0, net.2, net.3, net.5)."""
    kind: Literal["patch", "pixel"] = "pixel" if "net.0.weight" in weights else "patch"
    prefix = "net" if kind == "pixel" else "model"
    numbers = sorted({int(key.split(".")[1]) for key in weights if key.startswith(f"{prefix}.")})
    first = weights[f"{prefix}.0.weight"]
    norm = _norm(weights, f"{prefix}.2", f"{prefix}.3")
    layers = len([n for n in numbers if weights.get(f"{prefix}.{n}.weight", first[0]).ndim == 4]) - 2
    network = build_empty(
        lambda: make_discriminator(
            first.shape[1],
            base_channels=first.shape[0],
            num_layers=0 if kind == "pixel" else min(max(1, layers), MAX_LEVELS),
            norm=norm,
        )
    )
    _fill(network, _discriminator_modules(kind, layers), weights, path, norm)
    name = "pixel" if kind == "pixel" else "n_layers"
    layered = "" if kind == "pixel" else f" with {layers} stride-2 layers"
    description = f"a {kind} discriminator{layered}, {first.shape[1]} channels, ndf {first.shape[0]}, norm {norm}"
    return UpstreamNetwork(network.eval(), name, description)


def _discriminator_modules(kind: Literal["patch", "pixel"], layers: int) -> dict[str, str]:
    """Return upstream's name of each module of a discriminator."""
    if kind == "pixel":
        return {f"layers.{n}": f"net.{n}" for n in (0, 2, 3, 5)}
    modules = {"layers.0.0": "model.0"}
    for n in range(1, layers):
        modules |= {f"layers.{n}.0": f"model.{3 * n - 1}", f"layers.{n}.1": f"model.{3 * n}"}
    widen = {layers: 3 * layers - 1, layers + 1: 3 * layers, layers + 3: 3 * layers + 2}
    return modules | {f"layers.{ours}": f"model.{theirs}" for ours, theirs in widen.items()}


def _is_convolution(weights: Mapping[str, Tensor], module: str) -> bool:
    return f"{module}.weight" in weights and weights[f"{module}.weight"].ndim == 4


def _norm(weights: Mapping[str, Tensor], convolution: str, norm: str) -> Norm:
    """Infer the norm: upstream's batch norm has weights, and its convolutions have a bias only before instance norm."""
    if f"{norm}.weight" in weights:
        return "batch"
    return "instance" if f"{convolution}.bias" in weights else "none"


def _fill(
    network: nn.Module, modules: Mapping[str, str], weights: Mapping[str, Tensor], path: Path, norm: Norm
) -> None:
    """Load upstream's tensors into a network.

    Tensors that upstream lacks are zero: the count of batches in old files, and biases before batch norm. Running
    averages of instance norms, which old files have, are dropped.

    Raises:
        UserError: Names or shapes differ.
    """
    left = {key: value for key, value in weights.items() if norm != "instance" or key.rpartition(".")[2] not in TRACKED}
    found = {}
    for key, value in network.state_dict().items():
        theirs = _renamed(key, modules)
        if theirs in left:
            found[key] = left.pop(theirs)
        elif key.endswith((".bias", ".num_batches_tracked")):
            found[key] = torch.zeros(value.shape, dtype=value.dtype)
    load_weights(network, found | left, str(path))


def _renamed(key: str, modules: Mapping[str, str]) -> str:
    module, _, entry = key.rpartition(".")
    return f"{modules[module]}.{entry}"
