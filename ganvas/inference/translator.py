"""A trained model as a function from picture to picture."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import DTypeLike
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F

from ganvas.data.images import (
    IMAGE_SUFFIXES,
    Picture,
    holds,
    list_images,
    read_picture,
    read_stacked,
    require_range,
    to_array,
    to_tensor,
    write_image,
)
from ganvas.errors import UserError
from ganvas.modelfile import ModelConfig, load_model
from ganvas.nn.layers import set_statistics


class Translator:
    """One model, ready to translate; deterministic unless ``paper`` is set.

    Args:
        config: What the model folder says of the model.
        generators: Its networks by direction, "a2b" and "b2a".
        direction: Which of them translates; may be left out where there is one.
        device: Where it runs; "cpu", "cuda", "mps".
        size: "trained" scales a picture to the size of the training pictures before the network and back after it,
            where the training did; "native" never scales.
        paper: Translate as the paper does at test time: dropout on, and each picture's own statistics in batch norm
            (Isola et al. 2017, Sec. 3.4). The noise is drawn from ``seed`` anew for each picture.
        seed: Of the noise.

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
        paper: bool = False,
        seed: int = 0,
    ) -> None:
        if direction is None and len(generators) > 1:
            raise UserError("this model translates both ways: choose a direction, a2b or b2a.")
        direction = direction or next(iter(generators))
        if direction not in generators:
            raise UserError(f"direction {direction} is not in this model; it has {', '.join(generators)}.")
        self.config, self.paper, self.seed = config, paper, seed
        self.spec = next(spec for way, spec in config.networks.items() if way == direction)
        backwards = config.kind == "cyclegan" and direction == "b2a"  # it describes the way from a to b
        self.preprocessing = config.preprocessing.backwards() if backwards else config.preprocessing
        self.device = torch.device(device)
        self._resize = size == "trained" and self.preprocessing.resized
        self.network = generators[direction].to(self.device).to(memory_format=torch.channels_last).eval()
        set_statistics(self.network, "picture" if paper else config.statistics)
        if paper:
            for module in self.network.modules():
                if isinstance(module, nn.Dropout):
                    module.train()

    def translate(self, picture: "Image.Image | np.ndarray") -> "Image.Image | np.ndarray":
        """Translate one picture; the same kind, size and depth come out.

        Args:
            picture: A PIL image, or an array [H, W, C] or [H, W], uint8 or uint16 of full range, or float32 in [0, 1];
                of a model with a range of its own, any type in that range.

        Returns:
            The same kind and size, and the same type; of a model with a range of its own, the type it was trained with.

        Raises:
            UserError: The picture has another number of channels than the model takes.
        """
        if isinstance(picture, Image.Image):
            mode = "L" if self.preprocessing.source_channels == 1 else "RGB"
            result = self.translate(np.asarray(picture.convert(mode)))
            assert isinstance(result, np.ndarray)
            return Image.fromarray(result)
        array = picture[:, :, None] if picture.ndim == 2 else picture
        output = self.translate_batch([array])[0]
        return output[:, :, 0] if output.shape[2] == 1 and picture.ndim == 2 else output

    def translate_batch(self, pictures: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Translate arrays [H, W, C] of one size and type at once; types and ranges are as in `translate`.

        Raises:
            UserError: The pictures have another number of channels than the model takes.
        """
        wanted = self.preprocessing.source_channels
        for picture in pictures:
            if picture.shape[2] != wanted:
                raise UserError(f"the picture has {picture.shape[2]} channels, the model takes {wanted}.")
        source = torch.stack([to_tensor(picture, self.preprocessing.source_range) for picture in pictures])
        return [self.as_picture(one, pictures[0].dtype) for one in self.translate_tensor(source)]

    def as_picture(self, output: Tensor, source_type: DTypeLike) -> np.ndarray:
        """Give an output [C, H, W] in [-1, 1] as [H, W, C] of the source's type, or in the model's range and type."""
        how = self.preprocessing
        return to_array(output, source_type if how.target_range is None else how.target_type, how.target_range)

    @torch.inference_mode()
    def translate_tensor(self, source: Tensor) -> Tensor:
        """Translate [N, C_in, H, W] in [-1, 1] to [N, C_out, H, W] float32 in [-1, 1] on the CPU."""
        H, W = source.shape[-2:]
        x = self.network_input(source.to(self.device, memory_format=torch.channels_last))
        if self.paper:
            torch.manual_seed(self.seed)
        y = self.network(x).float()
        return _resized(y, H, W).clamp(-1, 1).cpu()

    def network_input(self, source: Tensor) -> Tensor:
        """Scale [N, C, H, W] to what the network was trained with, where the training scaled."""
        S = self.preprocessing.image_size
        return _resized(source, S, S) if self._resize else source

    def translate_folder(self, source: Path | str, target: Path | str) -> list[Path]:
        """Translate every picture of a folder (or one file) into another folder, under the same names.

        Raises:
            UserError: A folder is missing or empty, a picture cannot be read or written.
        """
        source, target = Path(source), Path(target)
        files = [source] if source.is_file() else list_images(source)
        if not files:
            raise UserError(f"{source}: holds no pictures. Give a folder of pictures or one picture.")
        return [self.translate_file(file, target / file.name) for file in files]

    def read(self, source: Path) -> Picture:
        """Read a source picture, or all that make one: those of its name in the folders beside its own.

        Raises:
            UserError: One is missing or cannot be read, or they are not what the model takes.
        """
        how = self.preprocessing
        if how.source_folders:
            beside = [_namesake(source.parent.parent / folder, source.stem) for folder in how.source_folders]
            picture = read_stacked(beside, how.source_channels)
        else:
            picture = read_picture(source, how.source_channels)
        require_range(picture.array, how.source_range, source)
        return picture

    def translate_file(self, source: Path, target: Path) -> Path:
        """Translate one file into another, which keeps size, depth and a TIFF's tags; pixels without data stay so.

        Returns:
            The file written: ``target``, or a TIFF of that name where its format does not hold the picture.
        """
        picture = self.read(source)
        output, tags = picture.tags.punched(self.translate_batch([picture.array])[0], picture.holes)
        if not holds(target.suffix, output, exactly=self.preprocessing.target_range is not None):
            target = target.with_suffix(".tif")
        write_image(target, output, tags)
        return target


def load(
    path: Path | str,
    *,
    direction: str | None = None,
    device: str = "cpu",
    size: str = "trained",
    paper: bool = False,
    seed: int = 0,
) -> Translator:
    """Read a model and make it ready to translate.

    Args:
        path: A run folder, a checkpoint folder or a model folder.
        direction: As in `Translator`, and so the others.

    Raises:
        UserError: There is no model, it is damaged, or it does not translate in this direction.
    """
    config, generators = load_model(Path(path))
    return Translator(config, generators, direction=direction, device=device, size=size, paper=paper, seed=seed)


def _namesake(folder: Path, stem: str) -> Path:
    found = [folder / f"{stem}{suffix}" for suffix in sorted(IMAGE_SUFFIXES) if (folder / f"{stem}{suffix}").is_file()]
    if len(found) != 1:
        raise UserError(f"{folder}: has {len(found)} pictures called {stem}; one is expected, beside the others.")
    return found[0]


def _resized(x: Tensor, H: int, W: int) -> Tensor:
    if x.shape[-2:] == (H, W):
        return x
    return F.interpolate(x, (H, W), mode="bicubic", align_corners=False, antialias=True)
