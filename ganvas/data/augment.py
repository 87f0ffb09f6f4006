"""Augmentation of pairs, on albumentations: geometry to both pictures alike, colour to the source alone."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from ganvas.errors import UserError


@dataclass(frozen=True)
class Augmentation:
    """What is done to a pair.

    The paper's: scale to 286, cut 256 at random, mirror half of them (Isola et al. 2017, Sec. 6.2).

    Attributes:
        load_size: Pixels a side that both pictures are scaled to; None keeps their own scale.
        crop_size: Pixels a side of the piece that is cut at random.
        flip: Mirror half of the pairs left to right.
        colour: Strength of random brightness, contrast, saturation and hue changes of the source; 0 for none.
    """

    load_size: int | None = 286
    crop_size: int = 256
    flip: bool = True
    colour: float = 0.0


class PictureTransform:
    """Applies an `Augmentation`'s geometry, with randomness from a key alone.

    Args:
        augmentation: What to do; its colour is not for pictures that are themselves to be learned.
    """

    def __init__(self, augmentation: Augmentation) -> None:
        self.augmentation = augmentation

    def __call__(self, picture: np.ndarray, key: Sequence[int]) -> np.ndarray:
        """Transform a picture [H, W, C] of any type and channel count.

        Args:
            picture: The picture.
            key: Whole numbers; equal keys give equal results, in any process.

        Raises:
            UserError: The picture is smaller than the piece to cut.
        """
        return self.alike([picture], key)[0]

    def scaled(self, picture: np.ndarray) -> np.ndarray:
        """Give a picture [H, W, C] at the size from which pieces are cut: the part that is alike for all keys.

        Transforming what this gives is the same as transforming the picture.
        """
        if self.augmentation.load_size is None:
            return picture
        return _in_range(self._resize(image=picture)["image"], picture)

    def alike(self, pictures: Sequence[np.ndarray], key: Sequence[int]) -> list[np.ndarray]:
        """Transform pictures of equal height and width in the same way.

        Raises:
            UserError: They are smaller than the piece to cut.
        """
        size = self.augmentation.crop_size
        H, W = pictures[0].shape[:2]
        if self.augmentation.load_size is None and min(H, W) < size:
            raise UserError(
                f"the picture is {W}x{H} pixels, smaller than the {size} to cut from it. "
                "Use a smaller --image-size, or let --load-size scale the pictures."
            )
        self._geometry.set_random_seed(int(np.random.SeedSequence(list(key)).generate_state(2)[0]))
        first, *others = pictures
        named = {f"other{number}": other for number, other in enumerate(others)}
        moved = self._geometry(image=first, **named)
        return [_in_range(moved[name], before) for name, before in {"image": first, **named}.items()]

    @cached_property
    def _resize(self) -> Any:
        size = self.augmentation.load_size
        return _albumentations().Resize(size, size, interpolation=2, area_for_downscale="image")

    @cached_property
    def _geometry(self) -> Any:
        A = _albumentations()
        options = self.augmentation
        steps = [] if options.load_size is None else [self._resize]
        if options.load_size != options.crop_size:
            steps.append(A.RandomCrop(options.crop_size, options.crop_size))
        if options.flip:
            steps.append(A.HorizontalFlip(p=0.5))
        return A.Compose(steps, additional_targets={"other0": "image"})


class PairTransform:
    """Applies an `Augmentation` to pairs, with randomness from a key alone.

    Args:
        augmentation: What to do.
    """

    def __init__(self, augmentation: Augmentation) -> None:
        self.augmentation = augmentation
        self._move = PictureTransform(augmentation)

    def __call__(
        self, source: np.ndarray, target: np.ndarray, key: tuple[int, int, int]
    ) -> tuple[np.ndarray, np.ndarray]:
        """Transform a pair of [H, W, C] pictures of equal height and width, of any types and channel counts.

        Args:
            source: First picture.
            target: Second picture.
            key: (seed, epoch, index); equal keys give equal results, in any process.

        Raises:
            UserError: A picture is smaller than the piece to cut, or colour is asked for where it has no meaning.
        """
        source, target = self._move.alike([source, target], key)
        if self.augmentation.colour:
            if source.shape[2] not in (1, 3) or source.dtype != np.uint8:
                raise UserError(
                    f"--colour works on 8-bit pictures of 1 or 3 channels; these have {source.shape[2]} of "
                    f"{source.dtype}. Leave it out."
                )
            self._colour.set_random_seed(int(np.random.SeedSequence(key).generate_state(2)[1]))
            source = self._colour(image=source)["image"]
        return source, target

    def scaled(self, picture: np.ndarray) -> np.ndarray:
        """Give either picture of a pair as `PictureTransform.scaled` does."""
        return self._move.scaled(picture)

    @cached_property
    def _colour(self) -> Any:
        c = self.augmentation.colour
        return _albumentations().Compose(
            [_albumentations().ColorJitter(brightness=c, contrast=c, saturation=c, hue=min(0.5, c / 4), p=1.0)]
        )


def _in_range(scaled: np.ndarray, original: np.ndarray) -> np.ndarray:
    """Keep floats in the range they came in: cubic interpolation overshoots at edges, and only integers saturate."""
    return scaled.clip(original.min(), original.max()) if scaled.dtype == np.float32 else scaled


def _albumentations() -> Any:
    """Import late (it takes seconds), and without its question to the package index for newer versions."""
    os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")
    import albumentations

    return albumentations
