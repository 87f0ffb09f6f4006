"""Augmentation of images and pairs, on albumentations: geometry to both images alike, color to the source alone.

`PRESETS` has it by name:

    none      the whole image, scaled to the size of training; nothing is left to chance
    paper     scaled to 286, 256 cut out at random, half of them mirrored (Isola et al. 2017, Sec. 6.2)
    strong    as paper; half of them also turned, zoomed and shifted a little, and the source's colors changed a little

No preset blurs or adds noise: where a translator is to sharpen or to clean its source, that would change the task.

Under strong, a image that shows the flat colors of the dataset's legend is scaled and turned by taking nearest
neighbors (see `ganvas.data.palette`), and its colors stay. The paper scales maps like photographs, and so do paper and
none: tried with nearest neighbors, whose thin lines get steps, the demo's patch statistics were a quarter worse.

Nothing heavy is imported here before it is needed: command lines take the names of the presets from this file.
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
    """Small turns, zooms and shifts; what comes in at the borders is reflected.

    Each image that is moved is sampled once more, so the others let a network see them as sharp as it will in use.

    Attributes:
        fraction: Fraction of images that are moved, 0 to 1.
        rotation: Degrees to either side.
        zoom: Largest change of scale, as a share of it.
        shift: Largest shift to each side, as a share of the height and width.
    """

    fraction: float = 0.5
    rotation: float = 10.0
    zoom: float = 0.1
    shift: float = 0.05


@dataclass(frozen=True)
class Augmentation:
    """What is done to a image or a pair; by default the paper's (Isola et al. 2017, Sec. 6.2).

    Attributes:
        load_size: Pixels a side that both images are scaled to; None keeps their own scale.
        crop_size: Pixels a side of the piece that is cut at random.
        flip: Mirror half of the pairs left to right.
        color: Strength of random brightness, contrast, saturation and hue changes of the source; 0 for none.
        color_is_optional: Leave a source as it is where a change of color has no meaning, instead of refusing it:
            where it is not 8-bit with 1 or 3 channels, and where its colors are the legend's.
        jitter: Small turns, zooms and shifts; None for none.
        palette: Colors that have a meaning each; images that show them are not interpolated.
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
    """Fit a preset to a size of training and a dataset, and let options override it.

    Args:
        preset: Its name.
        image_size: Pixels a side of the pieces that are cut.
        load_size: Pixels a side that images are scaled to before; None takes the preset's share of ``image_size``, 0
            keeps the images' own scale.
        flip: False leaves mirroring out of the preset.
        color: Strength of the changes of the source's colors; None takes the preset's, where they have a meaning.
        info: What the dataset's dataset.json says; strong heeds a legend in it.

    Raises:
        UserError: The legend is no colors by name.
    """
    base = PRESETS[preset]
    assert base.load_size is not None
    if load_size is None:
        load_size = round(image_size * base.load_size / base.crop_size)
    return replace(
        base,
        load_size=load_size or None,
        crop_size=image_size,
        flip=base.flip and flip,
        color=base.color if color is None else color,
        color_is_optional=base.color_is_optional and color is None,
        palette=preset_palette(preset, info),
    )


def preset_palette(preset: AugmentPreset, info: Mapping[str, Any]) -> tuple[Color, ...]:
    """Give the colors of drawn images that a preset takes for flat; none where it interpolates all.

    Raises:
        UserError: The legend is no colors by name.
    """
    return tuple(parse_palette(info).values()) if preset == "strong" else ()


class ImageTransform:
    """Applies an `Augmentation`'s geometry, with randomness from a key alone.

    Args:
        augmentation: What to do; its color is not for images that are themselves to be learned.
    """

    def __init__(self, augmentation: Augmentation) -> None:
        self.augmentation = augmentation

    def __call__(self, picture: np.ndarray, key: Sequence[int]) -> np.ndarray:
        """Transform a image [H, W, C] of any type and channel count.

        Args:
            image: The image.
            key: Whole numbers; equal keys give equal results, in any process.

        Raises:
            UserError: The image is smaller than the piece to cut.
        """
        return self.apply_together([picture], key)[0]

    def resize(self, picture: np.ndarray) -> np.ndarray:
        """Give a image [H, W, C] at the size from which pieces are cut: the part that is alike for all keys.

        Transforming what this gives is the same as transforming the image.
        """
        from ganvas.data.resize import resize

        size = self.augmentation.load_size
        if size is None:
            return picture
        return resize(picture, size, size, flat=is_flat(picture, self.augmentation.palette))

    def apply_together(self, pictures: Sequence[np.ndarray], key: Sequence[int]) -> list[np.ndarray]:
        """Transform one or two images of equal height and width in the same way.

        Raises:
            UserError: They are smaller than the piece to cut.
        """
        size = self.augmentation.crop_size
        H, W = pictures[0].shape[:2]
        if self.augmentation.load_size is None and min(H, W) < size:
            raise UserError(
                f"the image is {W}x{H} pixels, smaller than the {size} to cut from it. "
                "Use a smaller --image-size, or let --load-size scale the images."
            )
        seeds = _Seeds.of(key)
        if self.augmentation.load_size is None and self.augmentation.jitter:
            pictures = _neighborhood(pictures, 2 * size, seeds.neighborhood)
        pictures = [self.resize(picture) for picture in pictures]
        return self._moved(pictures, seeds.geometry) if self._geometry else pictures

    def _moved(self, pictures: Sequence[np.ndarray], seed: int) -> list[np.ndarray]:
        """Apply the random geometry: an "image" is interpolated, a "mask" sampled by nearest neighbors."""
        import numpy as np

        kinds = ["mask" if is_flat(picture, self.augmentation.palette) else "image" for picture in pictures]
        names = [f"{kind}{number}" for number, kind in enumerate(kinds)]
        if "image" in kinds:
            names[kinds.index("image")] = "image"
        named = dict(zip(names, pictures, strict=True))
        # It takes the size from "image", so there must be one.
        _set_random_state(self._geometry, seed)
        moved = self._geometry(**{"image": np.zeros((*pictures[0].shape[:2], 1), np.uint8), **named})
        return [_in_range(moved[name], picture) for name, picture in named.items()]

    @cached_property
    def _geometry(self) -> Any:
        """The random transforms for one or two images of either kind; None where nothing is random."""
        options = self.augmentation
        crops = options.load_size != options.crop_size
        if not (options.jitter or crops or options.flip):
            return None
        A = _albumentations()
        steps = []
        if options.jitter:
            steps.append(_affine(options.jitter))
        if crops:
            steps.append(A.RandomCrop(options.crop_size, options.crop_size))
        if options.flip:
            steps.append(A.HorizontalFlip(p=0.5))
        targets = {f"{kind}{number}": kind for kind in ("image", "mask") for number in (0, 1)}
        return A.Compose(steps, additional_targets=targets)


class PairTransform:
    """Applies an `Augmentation` to pairs, with randomness from a key alone.

    Args:
        augmentation: What to do.
    """

    def __init__(self, augmentation: Augmentation) -> None:
        self.augmentation = augmentation
        self._move = ImageTransform(augmentation)

    def __call__(
        self, source: np.ndarray, target: np.ndarray, key: tuple[int, int, int]
    ) -> tuple[np.ndarray, np.ndarray]:
        """Transform a pair of [H, W, C] images of equal height and width, of any types and channel counts.

        Args:
            source: First image.
            target: Second image.
            key: (seed, epoch, index); equal keys give equal results, in any process.

        Raises:
            UserError: A image is smaller than the piece to cut, or color is asked for where it has no meaning.
        """
        changes_color = self.changes_color(source)
        source, target = self._move.apply_together([source, target], key)
        if changes_color:
            _set_random_state(self._color, _Seeds.of(key).color)
            source = self._color(image=source)["image"]
        return source, target

    def resize(self, picture: np.ndarray) -> np.ndarray:
        """Give either image of a pair as `ImageTransform.resize` does."""
        return self._move.resize(picture)

    def changes_color(self, source: np.ndarray) -> bool:
        """Tell whether the colors of a source [H, W, C] are changed.

        Raises:
            UserError: They are to be, and that has no meaning.
        """
        options = self.augmentation
        if not options.color:
            return False
        has_meaning = source.shape[2] in (1, 3) and source.dtype == "uint8"
        if not has_meaning and not options.color_is_optional:
            raise UserError(
                f"--color works on 8-bit images of 1 or 3 channels; these have {source.shape[2]} of "
                f"{source.dtype}. Leave it out."
            )
        return has_meaning and not (options.color_is_optional and is_flat(source, options.palette))

    @cached_property
    def _color(self) -> Any:
        c = self.augmentation.color
        return _albumentations().Compose(
            [_albumentations().ColorJitter(brightness=c, contrast=c, saturation=c, hue=min(0.5, c / 4), p=1.0)]
        )


class _Seeds(NamedTuple):
    """Independent seeds from one key."""

    geometry: int
    color: int
    neighborhood: int

    @classmethod
    def of(cls, key: Sequence[int]) -> _Seeds:
        import numpy as np

        return cls(*map(int, np.random.SeedSequence(list(key)).generate_state(3)))


def _neighborhood(pictures: Sequence[np.ndarray], size: int, seed: int) -> list[np.ndarray]:
    """Cut at most ``size`` pixels a side out of all images, so that no large image is turned as a whole."""
    import numpy as np

    H, W = pictures[0].shape[:2]
    top, left = np.random.default_rng(seed).integers([max(1, H - size + 1), max(1, W - size + 1)])
    return [picture[top : top + size, left : left + size] for picture in pictures]


def _set_random_state(transform: Any, seed: int) -> None:
    """Let all parts of a Compose draw from the same two generators, one after another.

    Its own `set_random_seed` starts a generator of the same seed in every part, so that crop, flip and shift would
    always go together.
    """
    import numpy as np

    of_numpy, of_python = np.random.SeedSequence(seed).generate_state(2)
    transform.set_random_state(np.random.default_rng(of_numpy), random.Random(int(of_python)))


def _affine(jitter: AffineJitter) -> Any:
    return _albumentations().Affine(
        rotate=(-jitter.rotation, jitter.rotation),
        scale=(1 - jitter.zoom, 1 + jitter.zoom),
        keep_ratio=True,
        translate_percent=(-jitter.shift, jitter.shift),
        interpolation=CUBIC,
        mask_interpolation=NEAREST,
        border_mode=REFLECT_101,
        p=jitter.fraction,
    )


def _in_range(scaled: np.ndarray, original: np.ndarray) -> np.ndarray:
    """Keep floats in the range they came in: cubic interpolation overshoots at edges, and only integers saturate."""
    return scaled.clip(original.min(), original.max()) if scaled.dtype == "float32" else scaled


def _albumentations() -> Any:
    """Import late (it takes seconds), and without its question to the package index for newer versions."""
    os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")
    import albumentations

    return albumentations
