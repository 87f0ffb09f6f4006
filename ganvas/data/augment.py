"""Augmentation of images and pairs with albumentations: geometry for both images alike, color for the source alone.

`PRESETS`:

    none      resized to the training size; nothing is random
    paper     resized to 286, random crop of 256, horizontal flip of half of them (Isola et al. 2017, Sec. 6.2)
    strong    as paper; half of them also with a small rotation, zoom and shift, and color jitter of the source

No preset blurs or adds noise: for a translator that sharpens or denoises, that would change the task.

With strong, images in the flat colors of the dataset's palette are resized and rotated with nearest neighbors (see
`ganvas.data.palette`), and their colors stay. The paper resizes maps like photographs, and so do paper and none: with
nearest neighbors, whose thin lines get steps, the demo's patch statistics were a quarter worse.

Heavy imports are deferred: command lines import the names of the presets from this file.
"""

from __future__ import annotations

import os
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from ganvas.data.palette import Color, is_flat, parse_palette
from ganvas.errors import UserError

if TYPE_CHECKING:
    import numpy as np

AugmentPreset = Literal["none", "paper", "strong"]

CUBIC, NEAREST, REFLECT_101 = 2, 0, 4  # OpenCV's flags


@dataclass(frozen=True)
class AffineJitter:
    """Random rotation, zoom and shift by small amounts; borders are reflected.

    It resamples an image once more, so the unchanged ones let a network see images as sharp as in use.

    Attributes:
        fraction: Fraction of images that are changed, 0 to 1.
        rotation: Largest rotation in degrees, to either side.
        zoom: Largest relative change of scale.
        shift: Largest shift to each side, as a fraction of the height and width.
    """

    fraction: float = 0.5
    rotation: float = 10.0
    zoom: float = 0.1
    shift: float = 0.05


@dataclass(frozen=True)
class Augmentation:
    """Augmentation of an image or a pair; the defaults are the paper's (Isola et al. 2017, Sec. 6.2).

    Attributes:
        load_size: Pixels a side that images are resized to; None keeps their own size.
        crop_size: Pixels a side of the random crop.
        flip: Flip half of the pairs horizontally.
        color: Strength of random brightness, contrast, saturation and hue of the source; 0 for none.
        color_is_optional: Leave a source unchanged where color jitter has no meaning, instead of raising an error:
            where it is not 8-bit with 1 or 3 channels, and where it is drawn in the palette.
        jitter: Random rotation, zoom and shift; None for none.
        palette: Colors of classes; images drawn in them are not interpolated.

    Example:
        >>> import numpy as np
        >>> crop = ImageTransform(Augmentation(load_size=None, crop_size=4, flip=False))
        >>> crop(np.zeros((8, 8, 3), np.uint8), key=(0, 1, 2)).shape
        (4, 4, 3)
    """

    load_size: int | None = 286
    crop_size: int = 256
    flip: bool = True
    color: float = 0.0
    color_is_optional: bool = False
    jitter: AffineJitter | None = None
    palette: tuple[Color, ...] = ()


PRESETS: Mapping[AugmentPreset, Augmentation] = {
    "none": Augmentation(load_size=256, flip=False),
    "paper": Augmentation(),
    "strong": Augmentation(color=0.2, color_is_optional=True, jitter=AffineJitter()),
}


def build_augmentation(
    preset: AugmentPreset,
    image_size: int,
    *,
    load_size: int | None = None,
    flip: bool = True,
    color: float | None = None,
    info: Mapping[str, Any],
) -> Augmentation:
    """Build the augmentation of a preset for a training size and a dataset, with options that override it.

    Args:
        preset: Its name.
        image_size: Pixels a side of the crops.
        load_size: Pixels a side that images are resized to before; None for the preset's ratio to ``image_size``, 0
            for the images' own size.
        flip: False disables the preset's flip.
        color: Strength of color jitter; None for the preset's, where it has a meaning.
        info: The content of dataset.json: strong uses its legend, and ``"flip": false`` disables flips.

    Raises:
        UserError: The legend is invalid.
    """
    base = PRESETS[preset]
    assert base.load_size is not None
    if load_size is None:
        load_size = round(image_size * base.load_size / base.crop_size)
    return replace(
        base,
        load_size=load_size or None,
        crop_size=image_size,
        flip=base.flip and flip and info.get("flip", True),
        color=base.color if color is None else color,
        color_is_optional=base.color_is_optional and color is None,
        palette=preset_palette(preset, info),
    )


def preset_palette(preset: AugmentPreset, info: Mapping[str, Any]) -> tuple[Color, ...]:
    """Return the colors of images that a preset does not interpolate; empty where it interpolates all.

    Raises:
        UserError: The legend is invalid.
    """
    return tuple(parse_palette(info).values()) if preset == "strong" else ()


class ImageTransform:
    """Applies the geometry of an `Augmentation`, with randomness from a key alone.

    Args:
        augmentation: Its color is ignored: it is not for images that are themselves to be learned.
    """

    def __init__(self, augmentation: Augmentation) -> None:
        self.augmentation = augmentation

    def __call__(self, image: np.ndarray, key: Sequence[int]) -> np.ndarray:
        """Transform [H, W, C] of any dtype and number of channels.

        Args:
            image: The image.
            key: Integers; equal keys give equal results, in any process.

        Raises:
            UserError: The image is smaller than the crop.
        """
        return self.apply_together([image], key)[0]

    def resize(self, image: np.ndarray) -> np.ndarray:
        """Return [H, W, C] at the size from which it is cropped: the deterministic first step of the transform.

        Transforming the result is the same as transforming the image.
        """
        from ganvas.data.resize import resize

        size = self.augmentation.load_size
        if size is None:
            return image
        return resize(image, size, size, flat=is_flat(image, self.augmentation.palette))

    def apply_together(self, images: Sequence[np.ndarray], key: Sequence[int]) -> list[np.ndarray]:
        """Transform one or two images of equal height and width in the same way.

        Raises:
            UserError: They are smaller than the crop.
        """
        size = self.augmentation.crop_size
        H, W = images[0].shape[:2]
        if self.augmentation.load_size is None and min(H, W) < size:
            raise UserError(
                f"the image is {W}x{H} pixels, smaller than the {size} to cut from it. "
                "Use a smaller --image-size, or let --load-size scale the images."
            )
        seeds = _Seeds.of(key)
        if self.augmentation.load_size is None and self.augmentation.jitter:
            images = _crop_neighborhood(images, 2 * size, seeds.neighborhood)
        images = [self.resize(image) for image in images]
        return self._apply_geometry(images, seeds.geometry) if self._geometry else images

    def _apply_geometry(self, images: Sequence[np.ndarray], seed: int) -> list[np.ndarray]:
        """Apply the random geometry: an "image" is interpolated, a "mask" sampled by nearest neighbors."""
        import numpy as np

        targets = ["mask" if is_flat(image, self.augmentation.palette) else "image" for image in images]
        names = [f"{target}{number}" for number, target in enumerate(targets)]
        if "image" in targets:
            names[targets.index("image")] = "image"
        named = dict(zip(names, images, strict=True))
        # The library takes the size from "image", so there must be one.
        _set_random_state(self._geometry, seed)
        result = self._geometry(**{"image": np.zeros((*images[0].shape[:2], 1), np.uint8), **named})
        return [_clip_floats(result[name], image) for name, image in named.items()]

    @cached_property
    def _geometry(self) -> Any:
        """The random transforms for one or two images of either target; None where nothing is random."""
        options = self.augmentation
        crops = options.load_size != options.crop_size
        if not (options.jitter or crops or options.flip):
            return None
        A = _albumentations()
        steps = []
        if jitter := options.jitter:
            steps.append(
                A.Affine(
                    rotate=(-jitter.rotation, jitter.rotation),
                    scale=(1 - jitter.zoom, 1 + jitter.zoom),
                    keep_ratio=True,
                    translate_percent=(-jitter.shift, jitter.shift),
                    interpolation=CUBIC,
                    mask_interpolation=NEAREST,
                    border_mode=REFLECT_101,
                    p=jitter.fraction,
                )
            )
        if crops:
            steps.append(A.RandomCrop(options.crop_size, options.crop_size))
        if options.flip:
            steps.append(A.HorizontalFlip(p=0.5))
        targets = {f"{target}{number}": target for target in ("image", "mask") for number in (0, 1)}
        return A.Compose(steps, additional_targets=targets)


class PairTransform:
    """Applies an `Augmentation` to pairs, with randomness from a key alone."""

    def __init__(self, augmentation: Augmentation) -> None:
        self.augmentation = augmentation
        self._image_transform = ImageTransform(augmentation)
        self.resize = self._image_transform.resize

    def __call__(
        self, source: np.ndarray, target: np.ndarray, key: tuple[int, int, int]
    ) -> tuple[np.ndarray, np.ndarray]:
        """Transform a pair of [H, W, C] images of equal height and width, of any dtypes and numbers of channels.

        Args:
            source: First image.
            target: Second image.
            key: (seed, epoch, index); equal keys give equal results, in any process.

        Raises:
            UserError: The images are smaller than the crop, or color jitter is set where it has no meaning.
        """
        changes_color = self.changes_color(source)
        source, target = self._image_transform.apply_together([source, target], key)
        if changes_color:
            _set_random_state(self._color_jitter, _Seeds.of(key).color)
            source = self._color_jitter(image=source)["image"]
        return source, target

    def changes_color(self, source: np.ndarray) -> bool:
        """Return whether color jitter applies to a source [H, W, C].

        Raises:
            UserError: It is required and has no meaning for this image.
        """
        options = self.augmentation
        if not options.color:
            return False
        has_meaning = source.shape[2] in (1, 3) and source.dtype == "uint8"
        if not has_meaning and not options.color_is_optional:
            raise UserError(
                f"color works on 8-bit images of 1 or 3 channels; these have {source.shape[2]} of "
                f"{source.dtype}. Leave it out."
            )
        return has_meaning and not (options.color_is_optional and is_flat(source, options.palette))

    @cached_property
    def _color_jitter(self) -> Any:
        A, c = _albumentations(), self.augmentation.color
        return A.Compose([A.ColorJitter(brightness=c, contrast=c, saturation=c, hue=min(0.5, c / 4), p=1.0)])


class _Seeds(NamedTuple):
    """Independent seeds from one key."""

    geometry: int
    color: int
    neighborhood: int

    @classmethod
    def of(cls, key: Sequence[int]) -> _Seeds:
        import numpy as np

        return cls(*map(int, np.random.SeedSequence(list(key)).generate_state(3)))


def _crop_neighborhood(images: Sequence[np.ndarray], size: int, seed: int) -> list[np.ndarray]:
    """Crop at most ``size`` pixels a side from all images, so that no large image is rotated as a whole."""
    import numpy as np

    H, W = images[0].shape[:2]
    top, left = np.random.default_rng(seed).integers([max(1, H - size + 1), max(1, W - size + 1)])
    return [image[top : top + size, left : left + size] for image in images]


def _set_random_state(transform: Any, seed: int) -> None:
    """Let all parts of a Compose draw from the same two generators.

    Its own `set_random_seed` gives every part a generator of the same seed, which correlates crop, flip and shift.
    """
    import numpy as np

    numpy_seed, python_seed = np.random.SeedSequence(seed).generate_state(2)
    transform.set_random_state(np.random.default_rng(numpy_seed), random.Random(int(python_seed)))


def _clip_floats(result: np.ndarray, original: np.ndarray) -> np.ndarray:
    """Clip floats to the range of the original: cubic interpolation overshoots at edges, and only integers saturate."""
    return result.clip(original.min(), original.max()) if result.dtype == "float32" else result


def _albumentations() -> Any:
    """Import the library late, which takes seconds, and without its request to the package index."""
    os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")
    import albumentations

    return albumentations
