"""A trained model as a function from picture to picture."""

from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any, TypeVar, get_args, overload

import numpy as np
import torch
from numpy.typing import DTypeLike
from PIL import Image
from torch import Tensor, nn

from ganvas.console import DIRECTIONS
from ganvas.data.arrays import ImageDtype, require_trained_range, to_model_input
from ganvas.data.decode import read_raster, read_stacked
from ganvas.data.decode_basic import profile_fits
from ganvas.data.encode import format_supports, write_image
from ganvas.data.listing import images_with_stem
from ganvas.data.nodata import apply_nodata
from ganvas.data.palette import is_flat
from ganvas.data.raster import Raster
from ganvas.data.resize import resize
from ganvas.data.tensors import require_range, to_array, to_tensor
from ganvas.data.tiff_tags import Tags
from ganvas.device import Precision, has_native_bf16
from ganvas.errors import UserError
from ganvas.inference.batches import MAX_BATCH, in_batches
from ganvas.inference.folder import find_jobs, translate_jobs
from ganvas.inference.images import from_pillow, to_pillow
from ganvas.inference.optimize import optimized_for_inference
from ganvas.models.folder import TRANSLATORS, ModelConfig, load_model
from ganvas.nn.layers import set_norm_statistics

Given = TypeVar("Given", Image.Image, np.ndarray)

# Our choice: four images of 256x256. On a CPU larger batches gave no more images a second, and take more memory.
BATCH_PIXELS = 4 * 256 * 256


@dataclass(frozen=True)
class Source:
    """A image as the network sees it, and what its translation is to be.

    Attributes:
        values: [C, H, W] in [-1, 1], scaled where the training scaled.
        size: Height and width of the image.
        kind: Type of the image.
        bf16: Whether it is translated in bfloat16.
    """

    values: Tensor
    size: tuple[int, int]
    kind: DTypeLike
    bf16: bool

    @property
    def batch_key(self) -> Hashable:
        """Sources that are alike in this may go through the network together."""
        return tuple(self.values.shape), self.bf16


class Translator:
    """One model, ready to translate; deterministic unless ``paper`` is set.

    Args:
        config: What the model folder says of the model.
        generators: Its networks by direction, "a2b" and "b2a".
        direction: Which of them translates; may be left out where there is one. "AtoB" and "BtoA" are understood, too.
        device: Where it runs; "cpu", "cuda", "mps".
        size: "trained" scales a image to the size of the training images before the network and back after it,
            where the training did; "native" never scales.
        precision: What convolutions compute in. "auto" is bfloat16 for images of 8 bits whose translations have 8
            bits too, on a CPU that multiplies it natively; else float32.
        paper: Translate as the paper does at test time: dropout on, and each image's own statistics in batch norm
            (Isola et al. 2017, Sec. 3.4). The noise is drawn from ``seed`` again for each image.
        seed: Of the noise.

    Attributes:
        direction: Which way it translates.
        resizes: Whether images are scaled to the training's size and back.

    Raises:
        UserError: The direction is not in the model.
    """

    def __init__(
        self,
        config: ModelConfig,
        generators: dict[str, nn.Module],
        *,
        direction: str | None = None,
        device: str = "cpu",
        size: str = "trained",
        precision: Precision = "auto",
        paper: bool = False,
        seed: int = 0,
    ) -> None:
        if direction is None and len(generators) > 1:
            raise UserError("this model translates both ways: choose a direction, a2b or b2a.")
        direction = next(iter(generators)) if direction is None else DIRECTIONS.get(direction, direction)
        if direction not in generators:
            raise UserError(f"direction {direction} is not in this model; it has {', '.join(generators)}.")
        self.config, self.direction = config, direction
        self.precision, self.paper, self.seed = precision, paper, seed
        self.spec = next(spec for way, spec in config.networks.items() if way == direction)
        self.preprocessing = config.preprocessing_of(direction)
        self.device = torch.device(device)
        self.resizes = size == "trained" and self.preprocessing.resized
        self._optimized: dict[bool, nn.Module] = {}
        self.network = generators[direction].to(self.device).to(memory_format=torch.channels_last).eval()
        set_norm_statistics(self.network, "picture" if paper else config.statistics)
        if paper:
            for module in self.network.modules():
                if isinstance(module, nn.Dropout):
                    module.train()

    @overload
    def translate(self, picture: Given) -> Given: ...

    @overload
    def translate(self, picture: Sequence[Given]) -> list[Given]: ...

    def translate(self, picture: Any) -> Any:
        """Translate a image, or several; the same kind, size and depth come out.

        Gray images are repeated for a model of three channels. Translations have the channels of the model's targets.

        Args:
            image: A PIL image, or an array [H, W, C] or [H, W], uint8 or uint16 of full range, or float32 in [0, 1];
                of a model with a range of its own, any type in that range. Or a list of those, of any sizes; or
                images of one size as one array [N, H, W, C].

        Returns:
            The same kind and size (a PIL image upright, as its EXIF says; [H, W] of one channel stays so), and the same
                type; of a model with a range of its own, the type it was trained with.

        Raises:
            TypeError: Something is neither an image nor an array.
            ValueError: An array has no pixels, or another shape or type.
            UserError: A image has another number of channels than the model takes, values that `require_values`
                refuses, or a translation that is more than Pillow holds.
        """
        if isinstance(picture, np.ndarray) and picture.ndim == 4:
            if not len(picture):
                raise ValueError(f"the array's shape is {picture.shape}: it holds no image.")
            return np.stack(self.translate_batch(list(picture)))
        if isinstance(picture, np.ndarray | Image.Image):
            return _alike(self.translate_batch([self._as_array(picture)])[0], picture)
        pictures = _several(picture)
        outputs = self.translate_batch([self._as_array(one) for one in pictures])
        return [_alike(output, one) for output, one in zip(outputs, pictures, strict=True)]

    def _as_array(self, picture: Image.Image | np.ndarray) -> np.ndarray:
        """Give a image as [H, W, C]."""
        if isinstance(picture, Image.Image):
            return from_pillow(picture, self.preprocessing.source_channels)
        return picture[:, :, None] if picture.ndim == 2 else picture

    def translate_batch(self, pictures: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Translate arrays [H, W, C] of any sizes; types and ranges are as in `translate`.

        Raises:
            UserError: As `prepare`.
        """
        sources = [self.prepare(picture) for picture in pictures]
        outputs: dict[int, np.ndarray] = {}
        for numbers in in_batches(
            range(len(sources)), lambda i: sources[i].batch_key, lambda i: self.max_batch_size(sources[i])
        ):
            outputs |= zip(numbers, self.translate_sources([sources[i] for i in numbers]), strict=True)
        return [outputs[i] for i in range(len(sources))]

    def prepare(self, picture: np.ndarray) -> Source:
        """Bring an array [H, W, C] to what the network takes; gray is repeated for a model of three channels.

        Raises:
            ValueError: It is no array [H, W, C], has no pixels, or another type.
            UserError: It has another number of channels than the model takes, or as `require_values`.
        """
        how = self.preprocessing
        picture = to_model_input(picture, how.source_channels, is_stacked=bool(how.source_folders))
        H, W = picture.shape[:2]
        self.require_values(picture)
        values = to_tensor(self.scaled(picture), how.source_range).to(self.device)
        return Source(values, (H, W), picture.dtype, self._in_bf16(picture.dtype))

    def scaled(self, picture: np.ndarray) -> np.ndarray:
        """Return a source image [H, W, C] at the size that the network was trained with, where the training scaled."""
        if not self.resizes:
            return picture
        size, colors = self.preprocessing.image_size, self.preprocessing.legend
        return resize(picture, size, size, flat=is_flat(picture, colors))

    def _in_bf16(self, source_type: DTypeLike) -> bool:
        if self.precision != "auto":
            return self.precision == "bf16"
        how = self.preprocessing
        target_type = source_type if how.target_range is None else how.target_type
        small = np.dtype(source_type) == np.uint8 and np.dtype(target_type) == np.uint8
        return small and self.device.type == "cpu" and has_native_bf16("cpu")

    def max_batch_size(self, source: Source) -> int:
        """Tell how many such sources go through the network together; noise is drawn for each image alone."""
        H, W = source.values.shape[-2:]
        return 1 if self.paper else max(1, min(MAX_BATCH, BATCH_PIXELS // (H * W)))

    @torch.inference_mode()
    def translate_sources(self, sources: Sequence[Source]) -> list[np.ndarray]:
        """Translate sources of one group; give [H, W, C] each. No image's translation depends on the others."""
        bf16 = sources[0].bf16
        if bf16 not in self._optimized:
            self._optimized[bf16] = optimized_for_inference(self.network, bf16=bf16)
        x = torch.stack([source.values for source in sources])  # [N, C, H, W]
        x = x.to(torch.bfloat16 if bf16 else torch.float32, memory_format=torch.channels_last)
        with self._noise():
            y = self._optimized[bf16](x).float()
        outputs = zip(y.split(1), sources, strict=True)
        return [self.as_picture(_resized(output[0], *source.size), source.kind) for output, source in outputs]

    def as_picture(self, output: Tensor, source_type: DTypeLike) -> np.ndarray:
        """Give an output [C, H, W] in [-1, 1] as [H, W, C] of the source's type, or in the model's range and type."""
        how = self.preprocessing
        return to_array(output, source_type if how.target_range is None else how.target_type, how.target_range)

    def translate_exactly(self, picture: np.ndarray) -> Tensor:
        """Translate a source image in float32 throughout, for measurements; ``precision`` is ignored.

        Args:
            image: [H, W, C_in], as in `translate`.

        Returns:
            [C_out, H, W] in [-1, 1] on the CPU, not rounded.

        Raises:
            UserError: As `prepare`.
        """
        source = self.prepare(picture)
        return _resized(self.translate_tensor(source.values[None])[0], *source.size)

    @torch.inference_mode()
    def translate_tensor(self, source: Tensor) -> Tensor:
        """Apply the network as it is, in float32: [N, C_in, H, W] in [-1, 1] to [N, C_out, H, W] on the CPU.

        Nothing is scaled, and no batch norm is folded.
        """
        with self._noise():
            y = self.network(source.to(self.device, memory_format=torch.channels_last))
        return y.float().clamp(-1, 1).cpu()

    @contextmanager
    def _noise(self) -> Iterator[None]:
        """Seed the dropout of ``paper``; the caller's own random numbers go on as if nothing had been drawn."""
        devices = [self.device] if self.device.type == "cuda" else []
        with torch.random.fork_rng(devices, enabled=self.paper):
            if self.paper:
                torch.manual_seed(self.seed)
            yield

    def translate_folder(
        self, source: Path | str, target: Path | str, *, overwrite: bool = False, progress: bool = False
    ) -> list[Path]:
        """Translate every image of a folder and its subfolders into another folder, under the same names.

        Args:
            source: The folder; or one image.
            target: The folder for the translations.
            overwrite: Translate also what is there already. One image on its own is always translated.
            progress: Show a bar on standard error.

        Returns:
            The translations' files in the order of their sources, with those that were there already.

        Raises:
            UserError: A folder is missing or empty, or they lie in one another; after all good images are done, some
                could not be read; the disk is full, and what was done is kept.
        """
        jobs = find_jobs(self, Path(source), Path(target), overwrite=overwrite)
        result = translate_jobs(self, jobs, progress=progress)
        result.complain()
        return result.files

    def read(self, source: Path) -> Raster:
        """Read a source image, or all that make one: those of its name in the folders beside its own.

        Raises:
            UserError: One is missing or cannot be read, or they are not what the model takes.
        """
        how = self.preprocessing
        if how.source_folders:
            beside = [_namesake(source.parent.parent / folder, source.stem) for folder in how.source_folders]
            picture = read_stacked(beside, how.source_channels)
        else:
            picture = read_raster(source, how.source_channels)
        self.require_values(picture.array, source)
        return picture

    def require_values(self, picture: np.ndarray, path: Path | None = None) -> None:
        """Refuse a image [H, W, C] whose values the network cannot be given.

        Args:
            image: Of any supported type.
            path: Its file, for the message, where it comes from one.

        Raises:
            UserError: As `require_range` and `require_trained_range`.
        """
        how, what = self.preprocessing, "the image" if path is None else f"{path}:"
        require_range(picture, how.source_range, what)
        require_trained_range(picture, how.source_range, how.source_type, what)

    def translate_file(self, source: Path, target: Path) -> Path:
        """Translate one file into another, which keeps size, depth and a TIFF's tags; pixels without data stay so.

        Returns:
            The file written: ``target``, or a TIFF of that name where its format does not hold the image.
        """
        picture = self.read(source)
        return self.write(target, self.translate_batch([picture.array])[0], picture.tags, picture.nodata_mask)

    def write(self, target: Path, output: np.ndarray, tags: Tags, holes: np.ndarray) -> Path:
        """Write a translation with the tags and holes of its source; give the file, as `translate_file` does."""
        path = self._held(target, output)
        write_image(path, *apply_nodata(path.suffix, output, holes, tags))
        return path

    def possible_files(self, target: Path) -> list[Path]:
        """List the files that a translation called ``target`` may become; mostly one is known before it is read."""
        how = self.preprocessing
        kinds = get_args(ImageDtype) if how.target_range is None else (how.target_type,)
        blanks = (np.zeros((1, 1, how.target_channels), kind) for kind in kinds)
        return list(dict.fromkeys(self._held(target, blank) for blank in blanks))

    def _held(self, target: Path, output: np.ndarray) -> Path:
        exactly = self.preprocessing.target_range is not None
        return target if format_supports(target.suffix, output, exactly=exactly) else target.with_suffix(".tif")


def load(
    path: Path | str,
    *,
    kinds: Sequence[str] = TRANSLATORS,
    direction: str | None = None,
    device: str = "cpu",
    size: str = "trained",
    precision: Precision = "auto",
    paper: bool = False,
    seed: int = 0,
) -> Translator:
    """Read a model and make it ready to translate.

    Args:
        path: A run folder, a checkpoint folder or a model folder; or "hub:OWNER/NAME", a model on the Hugging Face hub.
        kinds: What the model may be.
        direction: As in `Translator`, and so the others.

    Raises:
        UserError: There is no model, it is damaged, or it does not translate in this direction.
    """
    config, generators = load_model(path, kinds)
    return Translator(
        config,
        generators,
        direction=direction,
        device=device,
        size=size,
        precision=precision,
        paper=paper,
        seed=seed,
    )


def _several(given: Any) -> list[Image.Image | np.ndarray]:
    """Return several images as a list.

    Raises:
        TypeError: They are no images, or only one thing that is none.
    """
    is_one = isinstance(given, str | bytes | PathLike | Mapping | Tensor) or not isinstance(given, Iterable)
    images = [given] if is_one else list(given)
    for one in images:
        if not isinstance(one, np.ndarray | Image.Image):
            raise TypeError(_not_an_image(one))
    return images


def _not_an_image(given: object) -> str:
    if isinstance(given, str | PathLike):
        return (
            f"translate takes images, and {given!r} is a path. Open the image first, with PIL.Image.open; or use "
            "translate_folder, which takes paths."
        )
    if isinstance(given, Tensor):
        return "translate takes images, not tensors. Give an array [H, W, C]: tensor.permute(1, 2, 0).numpy()."
    return (
        "translate takes a Pillow image, a NumPy array [H, W, C] or [H, W], or a list of those, not "
        f"{type(given).__name__}. numpy.asarray makes an array of nested lists."
    )


def _alike(output: np.ndarray, picture: Image.Image | np.ndarray) -> Image.Image | np.ndarray:
    """Give a translation [H, W, C] as the kind of its source; [H, W] where that had no channels and this has one."""
    if isinstance(picture, Image.Image):
        image, profile = to_pillow(output), picture.info.get("icc_profile")
        if profile_fits(profile, output.shape[2] - (output.shape[2] in (2, 4))):
            image.info["icc_profile"] = profile  # which Pillow saves with it
        return image
    return output[:, :, 0] if picture.ndim == 2 and output.shape[2] == 1 else output


def _namesake(folder: Path, name: str) -> Path:
    found = images_with_stem(folder, name)
    if len(found) != 1:
        raise UserError(f"{folder}: has {len(found)} images called {name}; one is expected, beside the others.")
    return folder / found[0]


def _resized(x: Tensor, H: int, W: int) -> Tensor:
    """Scale [C, H', W'] to [C, H, W] on the CPU."""
    if x.shape[-2:] == (H, W):
        return x
    return torch.from_numpy(resize(x.permute(1, 2, 0).cpu().numpy(), H, W)).permute(2, 0, 1)
