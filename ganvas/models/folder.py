"""The model folder: what training writes and everything else reads.

    model/config.json          architecture, preprocessing, inference mode, how it was trained
    model/model.safetensors    weights, named NETWORK.PARAMETER
    model/README.md            the model card
    model/sample.png           what it draws, where the training had images to show it on

A model is told by its folder alone: nobody has to repeat the options of its training.
"""

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import numpy as np
import torch
from pydantic import AfterValidator, Field, with_config
from torch import Tensor, nn
from typing_extensions import TypedDict  # pydantic needs this one before Python 3.12

from ganvas.data.arrays import ImageDtype
from ganvas.data.encode import write_image
from ganvas.data.palette import Color, is_color
from ganvas.errors import UserError
from ganvas.files import new_folder, read_consistently, read_json, sha256, write_file, write_json
from ganvas.limits import MAX_CHANNELS, MAX_COLORS
from ganvas.models.foreign import describe_content
from ganvas.models.hub import fetch, hub_name
from ganvas.models.tensors import load_tensors, save_tensors
from ganvas.nn.layers import Norm, Statistics, Upsampling
from ganvas.nn.resnet import ResNetGenerator
from ganvas.nn.unet import UNetGenerator
from ganvas.options import STRICT, Channels, FolderName, Name, Range, Side, from_json, to_json

KINDS = ("pix2pix", "cyclegan", "dcgan")
TRANSLATORS = ("pix2pix", "cyclegan")
CONFIG, WEIGHTS, CARD, CHECKPOINT = "config.json", "model.safetensors", "README.md", "checkpoint.json"
SAMPLE = "sample.png"
SHARED = (CONFIG, WEIGHTS, CARD, SAMPLE)  # what goes to the hub and comes from it

Config = TypeVar("Config")
Network = TypeVar("Network", bound=nn.Module)
Read = TypeVar("Read")


@dataclass(frozen=True)
class NetworkSpec:
    """One generator: its architecture, the arguments it was built with, and what it translates."""

    __pydantic_config__ = STRICT

    architecture: Literal["unet", "resnet"]
    arguments: dict[str, Any]
    source: Name
    target: Name


class _Arguments(TypedDict, total=False):
    """What both architectures take.

    The limits are far beyond any use: they bound the time that a stranger's config takes before its weights are read.
    """

    in_channels: Channels
    out_channels: Channels
    base_channels: Annotated[int, Field(ge=1, le=10_000)]
    norm: Norm
    dropout: Annotated[float, Field(ge=0, lt=1)]
    upsampling: Upsampling


@with_config(STRICT)
class UNetArguments(_Arguments, total=False):
    """The arguments of a U-Net."""

    num_levels: Annotated[int, Field(ge=1, le=16)]
    dropout_levels: Annotated[tuple[Annotated[int, Field(ge=0, le=16)], ...], Field(max_length=16)]


@with_config(STRICT)
class ResNetArguments(_Arguments, total=False):
    """The arguments of a ResNet."""

    num_blocks: Annotated[int, Field(ge=0, le=256)]


def _color(values: Color) -> Color:
    if not is_color(values):
        raise ValueError("a color is red, green and blue, 0 to 255 each")
    return values


@dataclass(frozen=True)
class Preprocessing:
    """What a image goes through before the network.

    Attributes:
        source_channels: Channels of the images that go in; of a cyclegan model, of domain a's.
        target_channels: Channels of the images that come out; of a cyclegan model, of domain b's.
        image_size: Pixels a side that the network was trained at.
        resized: Whether whole images were scaled to that size in training, or pieces cut from them at full scale.
        source_range: The values that the network sees as -1 and 1; of a cyclegan model, domain a's. None is the whole
            range of each image's type.
        target_range: The same of what comes out, or of domain b. None gives images the type of their source.
        target_type: Type of the target images in training, which translations get where a range is given.
        source_type: The same of the source images, for a cyclegan model's way back.
        source_folders: Where several images make one source: their folders' names, in the order of their channels.
        target_folder: The folder of the targets beside those.
        legend: Colors of drawn maps and labels: images in these are scaled by nearest neighbors, as in training;
            empty where it interpolated all.
    """

    __pydantic_config__ = STRICT

    source_channels: Channels
    target_channels: Channels
    image_size: Side
    resized: bool
    source_range: Range | None = None
    target_range: Range | None = None
    source_type: ImageDtype = "uint8"
    target_type: ImageDtype = "uint8"
    source_folders: Annotated[tuple[FolderName, ...], Field(max_length=MAX_CHANNELS)] = ()
    target_folder: FolderName = "b"
    legend: Annotated[tuple[Annotated[Color, AfterValidator(_color)], ...], Field(max_length=MAX_COLORS)] = ()

    def backwards(self) -> "Preprocessing":
        """Give the same of the other direction."""
        return replace(
            self,
            source_channels=self.target_channels,
            target_channels=self.source_channels,
            source_range=self.target_range,
            target_range=self.source_range,
            source_type=self.target_type,
            target_type=self.source_type,
        )


@dataclass(frozen=True)
class ModelConfig:
    """The content of config.json.

    Attributes:
        kind: "pix2pix" or "cyclegan".
        networks: Generators by direction: "a2b", "b2a".
        preprocessing: What a image goes through.
        statistics: What batch norm normalizes by: running averages, or each image's own statistics.
        training: Step, metrics and data of the training, for people and reports.
        weights_sha256: Digest of the weights that belong to this file.
    """

    __pydantic_config__ = STRICT

    kind: Literal["pix2pix", "cyclegan"]
    networks: Annotated[dict[Literal["a2b", "b2a"], NetworkSpec], Field(min_length=1)]
    preprocessing: Preprocessing
    statistics: Statistics = "running"
    training: dict[str, Any] = field(default_factory=dict)
    weights_sha256: str = ""

    def preprocessing_of(self, way: str) -> Preprocessing:
        """Give what images of a direction go through; a cyclegan model's is described from a to b."""
        backwards = self.kind == "cyclegan" and way == "b2a"
        return self.preprocessing.backwards() if backwards else self.preprocessing


def build_generator(spec: NetworkSpec, where: str = "the model") -> nn.Module:
    """Build a generator, its weights still at their start.

    Raises:
        UserError: The arguments are none of that architecture.
    """
    where = f"{where}: arguments of the {spec.architecture}"
    if spec.architecture == "unet":
        return UNetGenerator(**from_json(UNetArguments, spec.arguments, where))
    return ResNetGenerator(**from_json(ResNetArguments, spec.arguments, where))


def build_empty(build: Callable[[], Network]) -> Network:
    """Build a network without memory for its weights, which `load_weights` gives it."""
    with torch.device("meta"):
        return build()


def all_arguments(spec: NetworkSpec) -> dict[str, Any]:
    """Give what a generator was built with, and the defaults of what was left out."""
    kind = UNetGenerator if spec.architecture == "unet" else ResNetGenerator
    return {name: one.default for name, one in inspect.signature(kind).parameters.items()} | spec.arguments


def require_channels(config: ModelConfig, where: str) -> None:
    """Refuse a generator that takes or gives other channels than the model's images have.

    So the two of a cyclegan model are each other's reverse.

    Args:
        config: The model's.
        where: Its files, for the message.

    Raises:
        UserError: There is one.
    """
    for way, spec in config.networks.items():
        how, arguments = config.preprocessing_of(way), all_arguments(spec)
        found = arguments["in_channels"], arguments["out_channels"]
        if found != (how.source_channels, how.target_channels):
            raise UserError(
                f"{where}: the generator {way} translates {found[0]} to {found[1]} channels, but the model's images "
                f"have {how.source_channels} and {how.target_channels}. Take generators and files of one training."
            )


def save_model(
    folder: Path, config: object, networks: Mapping[str, nn.Module], card: str, sample: np.ndarray | None = None
) -> None:
    """Write a model folder whole, in the place of an older one.

    Args:
        folder: Where.
        config: What to write beside the weights: `ModelConfig`, or a module's own class; its ``weights_sha256`` is
            filled in here.
        networks: The networks by name; of a translator, by direction as in ``config.networks``.
        card: The model card, Markdown.
        sample: What the card shows, uint8 [H, W, 3].

    Raises:
        UserError: The disk is full or the place is not writable; an older model is untouched.
    """
    weights = {f"{name}.{key}": value for name, net in networks.items() for key, value in net.state_dict().items()}
    with new_folder(folder) as aside:
        save_tensors(aside / WEIGHTS, weights)
        write_json(aside / CONFIG, to_json(config) | {"weights_sha256": sha256(aside / WEIGHTS)})
        write_file(aside / CARD, card)
        if sample is not None:
            write_image(aside / SAMPLE, sample)


def local_model(path: Path | str) -> Path:
    """Give the place of a model on this machine: a path as it stands; what hub:OWNER/NAME means is fetched.

    Raises:
        UserError: There is no such model on the hub, or it cannot be reached.
    """
    name = hub_name(path)
    return Path(path) if name is None else fetch(name, SHARED)


def find_model(path: Path) -> Path:
    """Return the model folder of a run folder, that of a checkpoint's run, or the folder itself.

    Raises:
        UserError: There is none.
    """
    folders = _places(path)
    for folder in folders:
        if (folder / CONFIG).is_file() and (folder / WEIGHTS).is_file():
            return folder
    if not path.exists():
        raise UserError(f"{path}: there is no such folder. Give a run, a checkpoint or a model folder.")
    if is_checkpoint(path):
        raise UserError(
            f"{path}: its networks are described by {folders[0]}, which does not exist. Resume the run until it has "
            "saved a model, or move the checkpoint back into its run."
        )
    raise UserError(f"{path}: holds no model ({CONFIG} and {WEIGHTS}). Give a run whose training has saved one.")


def _places(path: Path) -> tuple[Path, ...]:
    """Return the folders that `find_model` looks into."""
    if not is_checkpoint(path):
        return path, path / "model"
    # A link may lead to the checkpoint from elsewhere, or from RUN/checkpoints to another disk.
    paths = path.absolute(), path.resolve()
    models = [each.parent.parent / "model" for each in paths]
    return (next((model for model in models if model.is_dir()), models[0]),)


def read_model(path: Path, read: Callable[[], Read]) -> Read:
    """Return what ``read`` reads of the model of a path, all of one version: a training may be replacing it."""
    is_run = not is_checkpoint(path) and path.is_dir() and not (path / WEIGHTS).exists()
    return read_consistently([path / "model"] if is_run else _places(path)[:1], read)


def load_model(path: Path | str, kinds: Sequence[str] = TRANSLATORS) -> tuple[ModelConfig, dict[str, nn.Module]]:
    """Read a translator: its config, and its generators in eval mode on the CPU.

    Args:
        path: A run folder (its best model), a checkpoint folder (that step's) or a model folder; or hub:OWNER/NAME.
        kinds: What it may be.

    Raises:
        UserError: It is missing or damaged, of another kind, or its weights do not fit its architecture, or that
            its images.
    """
    path = local_model(path)
    return read_model(path, partial(_load, path, kinds))


def _load(path: Path, kinds: Sequence[str]) -> tuple[ModelConfig, dict[str, nn.Module]]:
    folder = find_model(path)
    config = at_checkpoint(read_config(folder, ModelConfig, kinds), path)
    weights = read_weights(path, list(config.networks), config.weights_sha256)
    generators = {}
    for way, spec in config.networks.items():
        generator = build_empty(partial(build_generator, spec, str(folder / CONFIG)))
        load_weights(generator, weights[way], str(path))
        generators[str(way)] = generator.eval()
    require_channels(config, str(folder / CONFIG))
    return config, generators


def read_config(folder: Path, config_class: type[Config], kinds: Sequence[str]) -> Config:
    """Read the config of a model folder.

    Args:
        folder: As `find_model` gives it.
        config_class: What `save_model` was given.
        kinds: Values of "kind" that such a model may have.

    Raises:
        UserError: It is unreadable, or a model of another kind.
    """
    values = read_json(folder / CONFIG, "a model's config")
    kind = values.get("kind")
    if kind in KINDS and kind not in kinds:
        raise UserError(f"{folder}: is a model of {kind}. Use the command {kind} with it.")
    return from_json(config_class, values, str(folder / CONFIG))


def at_checkpoint(config: Config, path: Path) -> Config:
    """Return the config of a run's model with a checkpoint's own step and mode of batch norm.

    Args:
        config: A `ModelConfig`, or a module's own class.
        path: A checkpoint folder; of any other folder, the config is right as it is.

    Raises:
        UserError: The checkpoint is damaged.
    """
    if not is_checkpoint(path):
        return config
    info = _checkpoint_info(path)
    changes: dict[str, Any] = {"training": {"step": info.step}}
    if info.state.model_state.statistics is not None:
        changes["statistics"] = info.state.model_state.statistics
    return replace(config, **changes)  # type: ignore[type-var]  # all configs are dataclasses


def is_checkpoint(path: Path) -> bool:
    """Return whether a folder is a checkpoint of a training."""
    return (path / CHECKPOINT).is_file()


def read_weights(path: Path, networks: Sequence[str], digest: str) -> dict[str, dict[str, Tensor]]:
    """Read the weights of some networks: by network, then by parameter.

    Args:
        path: A run, a checkpoint or a model folder. Of a checkpoint, the running average where one was kept.
        networks: Their names, as `save_model` was given them.
        digest: SHA-256 of the model folder's weights.

    Raises:
        UserError: They are missing or damaged.
    """
    if is_checkpoint(path):
        return {network: _from_checkpoint(path, network) for network in networks}
    file = find_model(path) / WEIGHTS
    if sha256(file) != digest:
        if (what := describe_content(file)) is not None:
            raise UserError(f"{file}: {what}")
        raise UserError(f"{file}: is damaged (its digest differs from {CONFIG}'s). Copy the folder again.")
    weights: dict[str, dict[str, Tensor]] = {network: {} for network in networks}
    for name, value in load_tensors(file).items():
        network, _, parameter = name.partition(".")
        weights.setdefault(network, {})[parameter] = value
    return weights


@dataclass(frozen=True)
class _ModelState:
    """What a checkpoint says of the model that it is: its files of the model's networks, and its mode of batch norm."""

    networks: dict[str, str]
    statistics: Statistics | None = None  # of translators


@dataclass(frozen=True)
class _RunState:
    model_state: _ModelState


@dataclass(frozen=True)
class _CheckpointInfo:
    """What is read of checkpoint.json where a checkpoint is used as a model."""

    step: Annotated[int, Field(ge=0)]
    files: dict[str, str]
    state: _RunState


def _checkpoint_info(folder: Path) -> _CheckpointInfo:
    file = folder / CHECKPOINT
    return from_json(_CheckpointInfo, read_json(file, "a checkpoint"), str(file))


def _from_checkpoint(folder: Path, network: str) -> dict[str, Tensor]:
    info = _checkpoint_info(folder)
    name = info.state.model_state.networks.get(network, network)
    file = folder / f"{name}.safetensors"
    if not file.is_file() or sha256(file) != info.files.get(file.name):
        raise UserError(f"{file}: is missing or damaged. Take another checkpoint, or the run's folder.")
    weights = load_tensors(file)
    if not name.endswith("_ema"):
        return weights
    return {key.removeprefix("network."): value for key, value in weights.items() if key.startswith("network.")}


def load_weights(network: nn.Module, weights: Mapping[str, Any], where: str) -> None:
    """Put weights into a network of the same architecture. One of `build_empty` gets its memory here.

    Raises:
        UserError: Names, shapes or types differ; the first differences are named.
    """
    expected = network.state_dict()
    wrong = [name for name in expected if name not in weights or not _fits(weights[name], expected[name])]
    wrong += [name for name in weights if name not in expected]
    if wrong:
        found = [f"{n} {tuple(weights[n].shape) if n in weights else 'missing'}" for n in wrong[:3]]
        raise UserError(
            f"{where}: comes from another architecture; {len(wrong)} weights do not fit ({', '.join(found)}, …). "
            "Use the options it was trained with."
        )
    if any(value.is_meta for value in expected.values()):
        network.to_empty(device="cpu")
    network.load_state_dict(dict(weights))


def _fits(value: Tensor, expected: Tensor) -> bool:
    return value.shape == expected.shape and value.is_floating_point() == expected.is_floating_point()
