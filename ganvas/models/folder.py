"""The model folder: training writes it, everything else reads it.

    model/config.json          architecture, preprocessing, inference mode, training summary
    model/model.safetensors    weights, named NETWORK.PARAMETER
    model/README.md            model card
    model/sample.png           sample outputs, where the training had images for them

The folder alone describes the model: no option of the training has to be repeated.
"""

import copy
import inspect
import re
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
from ganvas.data.likeness import SourceFigures
from ganvas.data.palette import Color, is_color, is_flat
from ganvas.data.resize import resize
from ganvas.data.tensors import to_tensor
from ganvas.errors import UserError
from ganvas.files import new_folder, read_consistently, sha256, write_file
from ganvas.json_files import read_json, write_json
from ganvas.limits import MAX_CHANNELS, MAX_COLORS
from ganvas.messages import shorten
from ganvas.models.foreign import describe_content
from ganvas.models.hub import fetch, hub_name
from ganvas.models.shipped import shipped_model
from ganvas.models.tensors import load_tensors, save_tensors
from ganvas.nn.layers import Norm, Resampling, Statistics, Upsampling
from ganvas.nn.resnet import ResNetGenerator
from ganvas.nn.resunet import ResUNetGenerator
from ganvas.nn.unet import UNetGenerator
from ganvas.options import STRICT, Channels, FolderName, Name, Range, Side, from_json, to_json

KIND = re.compile(r"[a-z][a-z0-9_-]{0,39}")
CONFIG, WEIGHTS, CARD, CHECKPOINT = "config.json", "model.safetensors", "README.md", "checkpoint.json"
SAMPLE = "sample.png"
SHARED = (CONFIG, WEIGHTS, CARD, SAMPLE)  # files that are pushed to the hub and fetched from it

Levels = Annotated[int, Field(ge=1, le=16)]
Rate = Annotated[float, Field(ge=0, lt=1)]

Config = TypeVar("Config")
Network = TypeVar("Network", bound=nn.Module)
Read = TypeVar("Read")


@dataclass(frozen=True)
class NetworkSpec:
    """One generator: its architecture, the arguments of its constructor, and the names of its two domains."""

    __pydantic_config__ = STRICT

    architecture: Literal["unet", "resunet", "resnet", "custom"]
    arguments: dict[str, Any]
    source: Name
    target: Name

    @classmethod
    def of_class(cls, generator: nn.Module, channels: tuple[int, int], source: str, target: str) -> "NetworkSpec":
        """Describe a generator of the user's own by its class; `load_model` needs an instance of it."""
        name = f"{type(generator).__module__}.{type(generator).__qualname__}"
        arguments = {"class_name": name, "in_channels": channels[0], "out_channels": channels[1]}
        return cls("custom", arguments, source, target)


class _Arguments(TypedDict, total=False):
    """Arguments of all architectures.

    The limits are far beyond any use. They bound the time and memory that an untrusted config can take.
    """

    in_channels: Channels
    out_channels: Channels
    base_channels: Annotated[int, Field(ge=1, le=10_000)]
    norm: Norm


@with_config(STRICT)
class ResUNetArguments(_Arguments, total=False):
    """Arguments of a residual U-Net."""

    num_levels: Levels


@with_config(STRICT)
class UNetArguments(_Arguments, total=False):
    """Arguments of a U-Net."""

    num_levels: Levels
    dropout: Rate
    upsampling: Upsampling
    dropout_levels: Annotated[tuple[Annotated[int, Field(ge=0, le=16)], ...], Field(max_length=16)]


@with_config(STRICT)
class ResNetArguments(_Arguments, total=False):
    """Arguments of a ResNet."""

    dropout: Rate
    upsampling: Upsampling
    resampling: Resampling
    num_blocks: Annotated[int, Field(ge=0, le=256)]


def _color(values: Color) -> Color:
    if not is_color(values):
        raise ValueError("a color is red, green and blue, 0 to 255 each")
    return values


@dataclass(frozen=True)
class Preprocessing:
    """How images are converted to the network's input and its output back to images.

    Of a bidirectional model, "source" is domain a and "target" domain b.

    Attributes:
        source_channels: Channels of source images.
        target_channels: Channels of target images.
        image_size: Side of the training images in pixels.
        resized: Whether training scaled images to that size; otherwise it cropped them at their own scale.
        source_range: Values that the network sees as -1 and 1; None for the full range of each image's dtype.
        target_range: The same for target images; None gives a translation the dtype and range of its source.
        target_type: Dtype of the target images in training, which translations get if there is a target range.
        source_type: Dtype of the source images in training.
        source_folders: If several images are stacked to one source: their folders, in the order of the channels.
        target_folder: The folder of the targets next to those.
        legend: Colors of drawn maps and labels. Images in these colors are scaled by nearest neighbor, as in
            training; empty if training interpolated all images.
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

    def to_input(self, image: np.ndarray) -> Tensor:
        """Return a source image [H, W, C] as the network takes it, [C, H, W] in [-1, 1]: scaled if training scaled."""
        if self.resized:
            image = resize(image, self.image_size, self.image_size, flat=is_flat(image, self.legend))
        return to_tensor(image, self.source_range)

    def reversed(self) -> "Preprocessing":
        """Return the preprocessing of the opposite direction."""
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
    """The config.json of a translator.

    Attributes:
        kind: The command that the model belongs to.
        networks: Generators by direction: "a2b", "b2a".
        preprocessing: Conversion of images, described from a to b if the model is bidirectional.
        statistics: What batch norm normalizes by: "running" averages, or those of each "picture".
        training: Step, metrics and data of the training, for cards and reports.
        weights_sha256: Digest of the weights that belong to this file.
        sources: What the source images of the training have in common, by direction, to notice others.
    """

    __pydantic_config__ = STRICT

    kind: Annotated[str, Field(pattern=f"^{KIND.pattern}$")]
    networks: Annotated[dict[Literal["a2b", "b2a"], NetworkSpec], Field(min_length=1)]
    preprocessing: Preprocessing
    statistics: Statistics = "running"
    training: dict[str, Any] = field(default_factory=dict)
    weights_sha256: str = ""
    sources: dict[Literal["a2b", "b2a"], SourceFigures] = field(default_factory=dict)

    @property
    def is_bidirectional(self) -> bool:
        """Whether the model translates a to b and b to a."""
        return len(self.networks) > 1

    def preprocessing_of(self, direction: str) -> Preprocessing:
        """Return the preprocessing of a direction: "a2b" or "b2a"."""
        is_reverse = self.is_bidirectional and direction == "b2a"
        return self.preprocessing.reversed() if is_reverse else self.preprocessing


def build_generator(spec: NetworkSpec, where: str = "the model") -> nn.Module:
    """Build a generator with freshly initialized weights.

    Raises:
        UserError: The architecture does not take these arguments.
    """
    if spec.architecture == "custom":
        name = shorten(str(spec.arguments.get("class_name")))
        raise UserError(
            f"{where}: has a generator of the user's own class {name}. Load it in Python: "
            "ganvas.load(path, generator=an instance of that class)."
        )
    where = f"{where}: arguments of the {spec.architecture}"
    if spec.architecture == "unet":
        return UNetGenerator(**from_json(UNetArguments, spec.arguments, where))
    if spec.architecture == "resunet":
        return ResUNetGenerator(**from_json(ResUNetArguments, spec.arguments, where))
    return ResNetGenerator(**from_json(ResNetArguments, spec.arguments, where))


def build_empty(build: Callable[[], Network]) -> Network:
    """Build a network on the meta device; `load_weights` allocates its memory."""
    with torch.device("meta"):
        return build()


def all_arguments(spec: NetworkSpec) -> dict[str, Any]:
    """Return the arguments of a generator, with the defaults of those that the spec leaves out."""
    if spec.architecture == "custom":
        return spec.arguments
    network = {"unet": UNetGenerator, "resunet": ResUNetGenerator, "resnet": ResNetGenerator}[spec.architecture]
    return {name: one.default for name, one in inspect.signature(network).parameters.items()} | spec.arguments


def require_channels(config: ModelConfig, where: str) -> None:
    """Check that all generators have the channels that the preprocessing describes.

    Raises:
        UserError: One differs; the message names ``where``, the model's files.
    """
    for direction, spec in config.networks.items():
        how, arguments = config.preprocessing_of(direction), all_arguments(spec)
        found = arguments["in_channels"], arguments["out_channels"]
        if found != (how.source_channels, how.target_channels):
            raise UserError(
                f"{where}: the generator {direction} translates {found[0]} to {found[1]} channels, but the model's "
                f"images have {how.source_channels} and {how.target_channels}. Use generators of one training."
            )


def save_model(
    folder: Path, config: object, networks: Mapping[str, nn.Module], card: str, sample: np.ndarray | None = None
) -> None:
    """Write a model folder atomically; an older one at the same place is replaced.

    Args:
        folder: The model folder.
        config: `ModelConfig` or a module's own class; its ``weights_sha256`` is filled in here.
        networks: Networks by name; of a translator, by direction as in ``config.networks``.
        card: The model card in Markdown.
        sample: Sample outputs for the card, uint8 [H, W, 3].

    Raises:
        UserError: The disk is full or the folder is not writable; an older model is untouched.
    """
    weights = {f"{name}.{key}": value for name, net in networks.items() for key, value in net.state_dict().items()}
    with new_folder(folder) as aside:
        save_tensors(aside / WEIGHTS, weights)
        write_json(aside / CONFIG, to_json(config) | {"weights_sha256": sha256(aside / WEIGHTS)})
        write_file(aside / CARD, card)
        if sample is not None:
            write_image(aside / SAMPLE, sample)


def local_model(path: Path | str) -> Path:
    """Return a local path: the path itself, that of a model that comes with ganvas, or a download of hub:OWNER/NAME.

    Raises:
        UserError: There is no such model on the hub or in ganvas, or the hub cannot be reached.
    """
    if (name := hub_name(path)) is not None:
        return fetch(name, SHARED)
    return shipped_model(path) or Path(path)


def find_model(path: Path) -> Path:
    """Return the model folder of a run or of a checkpoint's run, or the model folder itself.

    Raises:
        UserError: There is no model.
    """
    folders = _candidates(path)
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


def _candidates(path: Path) -> tuple[Path, ...]:
    """Return the folders in which `find_model` looks."""
    if not is_checkpoint(path):
        return path, path / "model"
    # A symbolic link may point to the checkpoint from elsewhere, or from RUN/checkpoints to another disk.
    paths = path.absolute(), path.resolve()
    models = [each.parent.parent / "model" for each in paths]
    return (next((model for model in models if model.is_dir()), models[0]),)


def read_model(path: Path, read: Callable[[], Read]) -> Read:
    """Return the result of ``read``, repeated while a training replaces the model under it."""
    is_run = not is_checkpoint(path) and path.is_dir() and not (path / WEIGHTS).exists()
    return read_consistently([path / "model"] if is_run else _candidates(path)[:1], read)


def load_model(
    path: Path | str, kinds: Sequence[str] = (), generator: nn.Module | None = None
) -> tuple[ModelConfig, dict[str, nn.Module]]:
    """Load a translator: its config, and its generators by direction, in eval mode on the CPU.

    Args:
        path: A run (its best model), a checkpoint (that step) or a model folder; "earth", which comes with ganvas; or
            hub:OWNER/NAME.
        kinds: Allowed kinds; by default all that translate images.
        generator: For a model trained with a generator of the user's own: an instance of its class, which is copied.

    Raises:
        UserError: The model is missing, damaged or of another kind, or its weights, architecture and preprocessing
            contradict one another.
    """
    path = local_model(path)
    return read_model(path, partial(_load, path, kinds, generator))


def _load(path: Path, kinds: Sequence[str], given: nn.Module | None) -> tuple[ModelConfig, dict[str, nn.Module]]:
    folder = find_model(path)
    config = at_checkpoint(read_config(folder, ModelConfig, kinds), path)
    weights = read_weights(path, list(config.networks), config.weights_sha256)
    generators = {}
    for direction, spec in config.networks.items():
        if spec.architecture == "custom" and given is not None:
            generator = copy.deepcopy(given).cpu()
        else:
            generator = build_empty(partial(build_generator, spec, str(folder / CONFIG)))
        load_weights(generator, weights[direction], str(path))
        generators[str(direction)] = generator.eval()
    require_channels(config, str(folder / CONFIG))
    return config, generators


def read_config(folder: Path, config_class: type[Config], kinds: Sequence[str] = ()) -> Config:
    """Read the config of a model folder.

    Args:
        folder: The model folder.
        config_class: The class that `save_model` was given.
        kinds: Allowed kinds; by default all that translate images.

    Raises:
        UserError: The config is unreadable, or describes a model of another kind.
    """
    values = read_json(folder / CONFIG, "a model's config")
    kind = values.get("kind")
    is_other = kind not in kinds if kinds else "networks" not in values  # which every translator has
    if is_other and isinstance(kind, str) and KIND.fullmatch(kind):
        raise UserError(f"{folder}: is a model of {kind}. Use the command {kind} with it.")
    return from_json(config_class, values, str(folder / CONFIG))


def at_checkpoint(config: Config, path: Path) -> Config:
    """Return a config with the step and the batch norm mode of a checkpoint; unchanged if ``path`` is none.

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
    """Return whether a folder is a checkpoint."""
    return (path / CHECKPOINT).is_file()


def read_weights(path: Path, networks: Sequence[str], digest: str) -> dict[str, dict[str, Tensor]]:
    """Read weights by network and parameter.

    Args:
        path: A run, a checkpoint (its EMA weights, if it has any) or a model folder.
        networks: Names of the networks, as given to `save_model`.
        digest: SHA-256 of the model folder's weights.

    Raises:
        UserError: The weights are missing or damaged.
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
    """The part of a checkpoint's state that describes its model: files of the networks and batch norm mode."""

    networks: dict[str, Annotated[str, Field(pattern=r"^[\w.-]{1,200}$")]]
    statistics: Statistics | None = None  # translators only


@dataclass(frozen=True)
class _RunState:
    model_state: _ModelState


@dataclass(frozen=True)
class _CheckpointInfo:
    """The fields of checkpoint.json that are needed to use a checkpoint as a model."""

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
        raise UserError(f"{file}: is missing or damaged. Use another checkpoint, or the run's folder.")
    return load_tensors(file)


def load_weights(network: nn.Module, weights: Mapping[str, Any], where: str) -> None:
    """Load weights into a network of the same architecture; a network of `build_empty` gets its memory here.

    Raises:
        UserError: Names, shapes or dtypes differ; the message lists the first differences.
    """
    expected = network.state_dict()
    wrong = [name for name in expected if name not in weights or not _fits(weights[name], expected[name])]
    wrong += [name for name in weights if name not in expected]
    if wrong:
        found = [f"{shorten(n)} {tuple(weights[n].shape) if n in weights else 'missing'}" for n in wrong[:3]]
        raise UserError(
            f"{where}: comes from another architecture; {len(wrong)} weights do not fit ({', '.join(found)}, …). "
            "Use the options it was trained with."
        )
    if any(value.is_meta for value in expected.values()):
        network.to_empty(device="cpu")
    network.load_state_dict(dict(weights))


def _fits(value: Tensor, expected: Tensor) -> bool:
    return value.shape == expected.shape and value.is_floating_point() == expected.is_floating_point()
