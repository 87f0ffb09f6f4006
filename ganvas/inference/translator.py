"""A trained model as a function of images."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
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
from ganvas.data.likeness import LIMIT
from ganvas.data.listing import images_with_stem
from ganvas.data.nodata import apply_nodata
from ganvas.data.palette import is_flat
from ganvas.data.raster import Raster
from ganvas.data.resize import resize
from ganvas.data.tensors import require_range, to_array, to_tensor
from ganvas.data.tiff_tags import Tags
from ganvas.device import Precision, has_native_bf16
from ganvas.errors import UserError, add_place_to_errors
from ganvas.inference.batches import MAX_BATCH, Source, in_batches
from ganvas.inference.folder import translate_jobs
from ganvas.inference.images import from_pillow, to_pillow
from ganvas.inference.jobs import Jobs, find_jobs
from ganvas.inference.optimize import optimized_for_inference
from ganvas.log import logger
from ganvas.models.folder import ModelConfig, load_model
from ganvas.nn.cpu_kernels import optimize_for_cpu
from ganvas.nn.layers import set_norm_statistics

Given = TypeVar("Given", Image.Image, np.ndarray)

# Our choice: four images of 256x256. On a CPU larger batches are not faster, and take more memory.
BATCH_PIXELS = 4 * 256 * 256


class Translator:
    """A model that translates images; deterministic unless ``paper`` is set.

    Args:
        config: The model's config.
        generators: Its networks by direction, "a2b" and "b2a".
        direction: The direction to translate; optional if there is only one. "AtoB" and "BtoA" work too.
        device: "cpu", "cuda" or "mps".
        size: "trained" scales images to the size of the training images and back, if the training scaled; "native"
            never scales.
        precision: What convolutions compute in. "auto" is bfloat16 for 8-bit images whose translations have 8 bits
            too, on CPUs with native bfloat16, and float32 otherwise.
        paper: Translate as the paper does at test time: with dropout, and with each image's own statistics in batch
            norm (Isola et al. 2017, Sec. 3.4). Dropout is seeded again for each image.
        seed: Seed of the dropout.

    Attributes:
        direction: The direction, "a2b" or "b2a".
        network: The generator, in eval mode.
        resizes: Whether images are scaled to the size of the training images and back.

    Raises:
        UserError: The model does not have the direction, or has two and none was chosen.
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
            raise UserError("this model translates in both directions: choose a direction, a2b or b2a.")
        direction = next(iter(generators)) if direction is None else DIRECTIONS.get(direction, direction)
        if direction not in generators:
            raise UserError(f"direction {direction} is not in this model; it has {', '.join(generators)}.")
        self.config, self.direction = config, direction
        self.precision, self.paper, self.seed = precision, paper, seed
        self.spec = next(spec for name, spec in config.networks.items() if name == direction)
        self.preprocessing = config.preprocessing_of(direction)
        self.device = torch.device(device)
        self.resizes = size == "trained" and self.preprocessing.resized
        self._training_sources = next((each for name, each in config.sources.items() if name == direction), None)
        self._optimized: dict[bool, nn.Module] = {}
        self.network = generators[direction].to(self.device).to(memory_format=torch.channels_last).eval()
        optimize_for_cpu(self.network)
        set_norm_statistics(self.network, "picture" if paper else config.statistics)
        if paper:
            for module in self.network.modules():
                if isinstance(module, nn.Dropout):
                    module.train()

    @overload
    def translate(self, image: Given) -> Given: ...

    @overload
    def translate(self, image: Sequence[Given]) -> list[Given]: ...

    def translate(self, image: Any) -> Any:
        """Translate one image or several; the type, size and depth stay.

        Grayscale images are repeated for a model of three channels. Translations have the channels of the model's
        targets.

        Args:
            image: A PIL image, or an array [H, W, C] or [H, W], uint8 or uint16 of full range, or float32 in [0, 1];
                for a model with a range of its own, any of these dtypes in that range. Or a list of those, of any
                sizes; or images of one size as one array [N, H, W, C].

        Returns:
            The same type and size (a PIL image upright, as its EXIF says; [H, W] stays so if there is one channel) and
            the same dtype; for a model with a target range, the dtype of its training.

        Raises:
            TypeError: Something is neither an image nor an array.
            ValueError: An array has no pixels, or another shape or dtype.
            UserError: An image has the wrong number of channels or values that `require_values` refuses, or its
                translation does not fit into a PIL image.

        Example:
            >>> import ganvas
            >>> import numpy as np
            >>> ganvas.load("runs/earth").translate(np.zeros((20, 30, 3), np.uint16)).shape
            (20, 30, 3)
        """
        if isinstance(image, np.ndarray) and image.ndim == 4:
            if not len(image):
                raise ValueError(f"the array's shape is {image.shape}: it holds no image.")
            return np.stack(self.translate_batch(list(image)))
        if isinstance(image, np.ndarray | Image.Image):
            return _like(image, self.translate_batch([self._as_array(image)])[0])
        images = _as_list(image)
        outputs = self.translate_batch([self._as_array(each) for each in images])
        return [_like(each, output) for each, output in zip(images, outputs, strict=True)]

    def _as_array(self, image: Image.Image | np.ndarray) -> np.ndarray:
        """Convert an image to [H, W, C]."""
        if isinstance(image, Image.Image):
            return from_pillow(image, self.preprocessing.source_channels)
        return image[:, :, None] if image.ndim == 2 else image

    def translate_batch(self, images: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Translate arrays [H, W, C] of any sizes; dtypes and ranges are those of `translate`.

        Raises:
            UserError: As `prepare`.
        """
        sources = [self.prepare(image) for image in images]
        outputs: dict[int, np.ndarray] = {}
        for batch in in_batches(range(len(sources)), sources.__getitem__, self.max_batch_size):
            outputs |= zip(batch, self.translate_sources([sources[i] for i in batch]), strict=True)
        return [outputs[i] for i in range(len(sources))]

    def prepare(self, image: np.ndarray, path: Path | None = None) -> Source:
        """Convert an array [H, W, C] to the network's input.

        The first image that is unlike those of the training is reported, by its file ``path`` if there is one.

        Raises:
            ValueError: It is not [H, W, C], has no pixels, or another dtype.
            UserError: It has the wrong number of channels, or values that `require_values` refuses.
        """
        how = self.preprocessing
        image = to_model_input(image, how.source_channels, is_stacked=bool(how.source_folders))
        H, W = image.shape[:2]
        self.require_values(image)
        values = to_tensor(self.scaled(image), how.source_range)
        self._warn_if_unlike(values, "the image" if path is None else str(path))
        return Source(values.to(self.device), (H, W), image.dtype, self._uses_bf16(image.dtype))

    def _warn_if_unlike(self, values: Tensor, what: str) -> None:
        """Warn of the first image [C, H, W] that is unlike those of the training; a model translates anything."""
        if self._training_sources is None or (distance := self._training_sources.distance(values)) <= LIMIT:
            return
        self._training_sources = None  # once is enough
        logger.warning(
            "Warning: %s: is unlike the images of %s that the model was trained on: %.1f times as far from their mean "
            "as the farthest of them, in colors, contrast and detail. Its translation may be meaningless. Others are "
            "not reported.",
            what,
            self.spec.source,
            distance,
        )

    def scaled(self, image: np.ndarray) -> np.ndarray:
        """Return a source image [H, W, C] at the size of the training images, if the training scaled."""
        if not self.resizes:
            return image
        size, colors = self.preprocessing.image_size, self.preprocessing.legend
        return resize(image, size, size, flat=is_flat(image, colors))

    def _uses_bf16(self, dtype: DTypeLike) -> bool:
        if self.precision != "auto":
            return self.precision == "bf16"
        has_8_bits = np.dtype(dtype) == np.dtype(self._target_dtype(dtype)) == np.uint8
        return has_8_bits and self.device.type == "cpu" and has_native_bf16("cpu")

    def _target_dtype(self, source_dtype: DTypeLike) -> DTypeLike:
        """Return the dtype of a translation."""
        how = self.preprocessing
        return source_dtype if how.target_range is None else how.target_type

    def max_batch_size(self, source: Source) -> int:
        """Return how many such sources go through the network together; dropout is seeded for each image alone."""
        H, W = source.values.shape[-2:]
        return 1 if self.paper else max(1, min(MAX_BATCH, BATCH_PIXELS // (H * W)))

    @torch.inference_mode()
    def translate_sources(self, sources: Sequence[Source]) -> list[np.ndarray]:
        """Translate sources of one batch key; return [H, W, C] each, independent of the others."""
        bf16 = sources[0].bf16
        if bf16 not in self._optimized:
            self._optimized[bf16] = optimized_for_inference(self.network, bf16=bf16)
        x = torch.stack([source.values for source in sources])  # [N, C, H, W]
        x = x.to(torch.bfloat16 if bf16 else torch.float32, memory_format=torch.channels_last)
        with self._seeded():
            y = self._optimized[bf16](x).float()
        outputs = zip(y.split(1), sources, strict=True)
        return [self.to_image(_resized(output[0], *source.size), source.dtype) for output, source in outputs]

    def to_image(self, output: Tensor, source_dtype: DTypeLike) -> np.ndarray:
        """Convert an output [C, H, W] in [-1, 1] to [H, W, C] in the source's dtype, or in the model's range."""
        return to_array(output, self._target_dtype(source_dtype), self.preprocessing.target_range)

    def translate_exactly(self, image: np.ndarray) -> Tensor:
        """Translate a source image [H, W, C_in] in float32, whatever ``precision`` is, for measurements.

        Returns:
            [C_out, H, W] in [-1, 1] on the CPU, not rounded.

        Raises:
            UserError: As `prepare`.
        """
        source = self.prepare(image)
        return _resized(self.translate_tensor(source.values[None])[0], *source.size)

    @torch.inference_mode()
    def translate_tensor(self, source: Tensor) -> Tensor:
        """Apply the original network in float32, without scaling.

        Args:
            source: [N, C_in, H, W] in [-1, 1].

        Returns:
            [N, C_out, H, W] in [-1, 1] on the CPU.
        """
        with self._seeded():
            y = self.network(source.to(self.device, memory_format=torch.channels_last))
        return y.float().clamp(-1, 1).cpu()

    @contextmanager
    def _seeded(self) -> Iterator[None]:
        """Seed the dropout of ``paper``; the caller's random state is restored afterwards."""
        devices = [self.device] if self.device.type == "cuda" else []
        with torch.random.fork_rng(devices, enabled=self.paper):
            if self.paper:
                torch.manual_seed(self.seed)
            yield

    def translate_folder(self, source: Path | str, target: Path | str, *, overwrite: bool = False) -> list[Path]:
        """Translate all images of a folder and its subfolders into another folder, under the same names.

        Args:
            source: The folder; or a single image.
            target: The folder for the translations; or a file, for a single image.
            overwrite: Translate images again whose translations exist. A single image is always translated.

        Returns:
            The files of the translations in the order of their sources, with those that existed already.

        Raises:
            UserError: A folder is missing or empty, or one contains the other; some images failed (raised after all
                others are done); or the disk is full (finished translations are kept).

        Example:
            >>> import ganvas
            >>> for file in ganvas.load("runs/earth").translate_folder("maps", "terrain"):
            ...     print(file.as_posix())
            terrain/1.png
            terrain/2.png
        """
        result = translate_jobs(self, self.find_jobs(Path(source), Path(target), overwrite=overwrite))
        result.raise_failures()
        return result.files

    def find_jobs(self, source: Path, target: Path, *, overwrite: bool = False) -> Jobs:
        """Pair the images of a folder with the files of their translations, as `translate_folder` does."""
        folders = self.preprocessing.source_folders
        return find_jobs(source, target, self.possible_files, source_folders=folders, overwrite=overwrite)

    def read(self, source: Path) -> Raster:
        """Read a source image, stacked from all source folders if the model has several.

        Raises:
            UserError: A file is missing, unreadable, or not what the model takes.
        """
        how = self.preprocessing
        if how.source_folders:
            stack = [_same_name(source.parent.parent / folder, source.stem) for folder in how.source_folders]
            image = read_stacked(stack, how.source_channels)
        else:
            image = read_raster(source, how.source_channels)
        self.require_values(image.array, source)
        return image

    def require_values(self, image: np.ndarray, path: Path | None = None) -> None:
        """Check that the values of an image [H, W, C] are finite and in the range of the training.

        Raises:
            UserError: As `require_range` and `require_trained_range`.
        """
        how, what = self.preprocessing, "the image" if path is None else f"{path}:"
        require_range(image, how.source_range, what)
        require_trained_range(image, how.source_range, how.source_type, what)

    def translate_file(self, source: Path, target: Path) -> Path:
        """Translate a file; size, depth, TIFF tags and pixels without data stay.

        Returns:
            The file written: ``target``, or a TIFF with that name if the format of ``target`` cannot hold the image.
        """
        image = self.read(source)
        return self.write(target, self.translate_batch([image.array])[0], image.tags, image.nodata_mask)

    def write(self, target: Path, output: np.ndarray, tags: Tags, nodata_mask: np.ndarray) -> Path:
        """Write a translation with the tags and nodata pixels of its source; return the file of `translate_file`."""
        path = self._file_for(target, output)
        write_image(path, *apply_nodata(path.suffix, output, nodata_mask, tags))
        return path

    def possible_files(self, target: Path) -> list[Path]:
        """Return the files that a translation for ``target`` may be written to, before its source is read."""
        how = self.preprocessing
        dtypes = get_args(ImageDtype) if how.target_range is None else (how.target_type,)
        blanks = (np.zeros((1, 1, how.target_channels), dtype) for dtype in dtypes)
        return list(dict.fromkeys(self._file_for(target, blank) for blank in blanks))

    def _file_for(self, target: Path, output: np.ndarray) -> Path:
        exactly = self.preprocessing.target_range is not None
        return target if format_supports(target.suffix, output, exactly=exactly) else target.with_suffix(".tif")


def load(
    path: Path | str,
    *,
    kinds: Sequence[str] = (),
    generator: nn.Module | None = None,
    direction: str | None = None,
    device: str = "cpu",
    size: str = "trained",
    precision: Precision = "auto",
    paper: bool = False,
    seed: int = 0,
) -> Translator:
    """Load a model that translates images.

    Args:
        path: A run, a checkpoint or a model folder; "earth", a model that comes with ganvas; or "hub:OWNER/NAME", a
            model on the Hugging Face hub.
        kinds: Allowed kinds of models; by default all that translate images.
        generator: For a model trained with a generator of the user's own: an instance of its class.
        direction: As in `Translator`.
        device: As in `Translator`.
        size: As in `Translator`.
        precision: As in `Translator`.
        paper: As in `Translator`.
        seed: As in `Translator`.

    Raises:
        UserError: The model is missing, damaged or of another kind, or does not have the direction.

    Example:
        >>> import ganvas
        >>> from PIL import Image
        >>> model = ganvas.load("runs/earth")
        >>> model.translate(Image.new("RGB", (30, 20))).size
        (30, 20)
    """
    config, generators = load_model(path, kinds, generator)
    with add_place_to_errors(path):
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


def _as_list(given: Any) -> list[Image.Image | np.ndarray]:
    """Return several images as a list.

    Raises:
        TypeError: Something is not an image.
    """
    is_one = isinstance(given, str | bytes | PathLike | Mapping | Tensor) or not isinstance(given, Iterable)
    images = [given] if is_one else list(given)
    for each in images:
        if not isinstance(each, np.ndarray | Image.Image):
            raise TypeError(_describe_wrong_type(each))
    return images


def _describe_wrong_type(given: object) -> str:
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


def _like(image: Image.Image | np.ndarray, output: np.ndarray) -> Image.Image | np.ndarray:
    """Convert a translation [H, W, C] to the type of its source; to [H, W] if that has no channels and this has one."""
    if isinstance(image, Image.Image):
        result, profile = to_pillow(output), image.info.get("icc_profile")
        if profile_fits(profile, output.shape[2] - (output.shape[2] in (2, 4))):
            result.info["icc_profile"] = profile  # saved by Pillow with the image
        return result
    return output[:, :, 0] if image.ndim == 2 and output.shape[2] == 1 else output


def _same_name(folder: Path, name: str) -> Path:
    found = images_with_stem(folder, name)
    if len(found) != 1:
        raise UserError(f"{folder}: has {len(found)} images called {name}; expected one, as for the other images.")
    return folder / found[0]


def _resized(x: Tensor, H: int, W: int) -> Tensor:
    """Scale [C, H', W'] to [C, H, W] on the CPU."""
    if x.shape[-2:] == (H, W):
        return x
    return torch.from_numpy(resize(x.permute(1, 2, 0).cpu().numpy(), H, W)).permute(2, 0, 1)
