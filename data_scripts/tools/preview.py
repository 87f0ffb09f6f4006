"""``python -m data_scripts preview DIR --augment strong --out sheet.png``: images as training sees them.

For pairs, the sheet also shows that both images stay aligned. The same grid is drawn into blank images of the source's
and the target's dtype, and both are augmented together, with the pair's own key. The last column shows the source's
grid in red over the target's in cyan: where they coincide, lines are white.

The number next to it is measured the same way: the largest distance between the centers of discs that were drawn at the
same place in both, one at a time.

The exit code is 0; 1 if pairs do not stay aligned; 2 if the preview could not run.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro
from annotated_types import Interval

from data_scripts.arguments import parse_arguments
from ganvas.data.augment import (
    Augmentation,
    AugmentPreset,
    ImageTransform,
    PairTransform,
    build_augmentation,
)
from ganvas.data.palette import is_flat
from ganvas.errors import UserError

if TYPE_CHECKING:
    import numpy as np

    from ganvas.data.paired import PairedDataset
    from ganvas.data.palette import Color
    from ganvas.data.shards import Member

# Allowed distance in pixels: interpolated images of different dtypes differ by hundredths. Nearest neighbors, for flat
# colors, are up to half a pixel off in resizing and again in rotating.
TOLERANCE, NEAREST_TOLERANCE = 0.1, 1.0
MARKS = ((0.2, 0.25), (0.15, 0.7), (0.45, 0.5), (0.6, 0.15), (0.7, 0.85), (0.85, 0.4))  # y, x; without symmetry
MARK_RADIUS, DOT_RADIUS = 1 / 16, 1 / 40  # of a crop's side: for measuring, and for display with the grid
LINE_WIDTH = 1 / 128  # of a crop's side
MIN_WIDTH = 2  # pixels of a crop: radius, and width of a line
CELLS = 7  # of the grid, across a crop; fewer if they would be smaller than
MIN_CELL = 8  # pixels
SHADE = 0.6  # brightness of the images under the grid


@dataclass(frozen=True)
class PreviewOptions:
    """Draw images of a dataset before and after augmentation, and measure that pairs stay aligned."""

    data: tyro.conf.Positional[Path]
    """Folder of the dataset, paired or unpaired."""
    out: Path
    """Contact sheet to write, such as sheet.png."""
    augment: AugmentPreset = "paper"
    """As for train: none; paper (random crops and flips); strong (also affine jitter, and color jitter of sources)."""
    image_size: Annotated[int, Interval(ge=16, le=4096)] = 256
    """Side of a training crop in pixels."""
    seed: Annotated[int, Interval(ge=0, lt=2**63)] = 0
    """Seed of the augmentation: the sheet shows the first epoch of training with this seed."""
    rows: Annotated[int, Interval(ge=1, le=100)] = 6
    """Rows of the sheet, evenly spread over the split."""
    split: Literal["train", "val", "test"] = "train"
    """Split to draw."""
    unpaired: bool = False
    """Treat two folders as unpaired although their images have the same names."""


@dataclass(frozen=True)
class Sheet:
    """The content of a contact sheet, and the findings."""

    titles: list[str]
    rows: list[list[np.ndarray]]
    names: list[str]
    notes: list[str]
    aligned: bool = True


def main(argv: Sequence[str]) -> int:
    """Run ``python -m data_scripts preview`` and return the exit code.

    Raises:
        UserError: There is no dataset, an image cannot be read, or the sheet cannot be written.
    """
    options = parse_arguments("preview", PreviewOptions, argv)
    from ganvas.data.dataset_info import dataset_info
    from ganvas.data.encode import write_image
    from ganvas.evaluation.sheet import contact_sheet

    augmentation = build_augmentation(options.augment, options.image_size, info=dataset_info(options.data))
    unpaired = options.unpaired or _names_differ(options.data, options.split)
    sheet = (_draw_domains if unpaired else _draw_pairs)(options, augmentation)
    write_image(options.out, contact_sheet(sheet.rows, sheet.titles, sheet.names))
    print("\n".join([f"{options.augment}: {_geometry(augmentation)}.", *sheet.notes, str(options.out)]))
    return 0 if sheet.aligned else 1


def _geometry(augmentation: Augmentation) -> str:
    """Describe an augmentation's geometry."""
    load_size, crop_size, jitter = augmentation.load_size, augmentation.crop_size, augmentation.jitter
    steps = [f"resized to {load_size} pixels a side"]
    if jitter:
        steps.append(
            f"{jitter.fraction:.0%} rotated by up to {jitter.rotation:g}°, zoomed by up to {jitter.zoom:.0%} and "
            f"shifted by up to {jitter.shift:.0%}"
        )
    if load_size != crop_size:
        steps.append(f"randomly cropped to {crop_size}")
    if augmentation.flip:
        steps.append("half flipped")
    return ", ".join(steps)


def _names_differ(root: Path, split: str) -> bool:
    """Return whether a split is two folders most of whose names differ, so that they are not pairs."""
    from ganvas.data.listing import stem
    from ganvas.data.unpaired import find_domains

    try:
        stems = [{stem(path.name) for path in domain} for domain in find_domains(root, split)]
    except UserError:  # side-by-side pairs, or no dataset: `find_pairs` will say what is wrong
        return False
    return 2 * len(stems[0] & stems[1]) <= min(map(len, stems))


def _draw_domains(options: PreviewOptions, augmentation: Augmentation) -> Sheet:
    """Draw images of both domains, before and after."""
    from ganvas.data.decode import read_image
    from ganvas.data.unpaired import find_domains
    from ganvas.evaluation.sheet import evenly

    transform = ImageTransform(augmentation)
    domains = find_domains(options.data, options.split)
    rows, names = [], []
    for indices in zip(*(evenly(len(files), min(options.rows, *map(len, domains))) for files in domains), strict=True):
        paths = [files[index] for files, index in zip(domains, indices, strict=True)]
        images = [read_image(path) for path in paths]
        keys = [(options.seed, 0, index, domain) for domain, index in enumerate(indices)]
        rows.append(_before_and_after(images, list(map(transform, images, keys)), augmentation))
        names.append(" | ".join(path.stem for path in paths))
    return Sheet(_titles(options), rows, names, ["Unpaired domains: colors are not changed."])


def _draw_pairs(options: PreviewOptions, augmentation: Augmentation) -> Sheet:
    """Draw pairs before and after, and where a grid in both moved."""
    from ganvas.evaluation.sheet import evenly

    pairs = _open_pairs(options.data, options.split)
    transform, probing = PairTransform(augmentation), PairTransform(replace(augmentation, color=0.0))
    rows, names, recolored = [], [], 0
    probes: list[Probe] = []
    for index in evenly(len(pairs), options.rows):
        pair, key = pairs.pair(index), (options.seed, 0, index)
        row = _before_and_after(pair, transform(*pair, key), augmentation)
        probe = Probe(probing, *pair, key)
        rows.append([*row, overlay(row[2:], probe.moved(probe.grid()))])
        names.append(f"{pairs.name(index)}: {probe.shift:.2f} px")
        probes.append(probe)
        recolored += transform.changes_color(pair[0])
    aligned = all(probe.shift <= probe.tolerance for probe in probes)
    notes = [_color_note(augmentation, recolored, len(rows)), _shift_note(probes, aligned=aligned)]
    return Sheet([*_titles(options), "red + cyan = white"], rows, names, notes, aligned)


def _open_pairs(root: Path, split: str) -> PairedDataset:
    """Open pairs with the channels of the first, and any values: the sheet shows each in its own range."""
    from ganvas.data.paired import PairedDataset
    from ganvas.data.pairs import find_pairs

    first = find_pairs(root, split)[0]
    a, b = _channels(first.a), _channels(first.b or first.a)
    all_values = (-math.inf, math.inf)
    return PairedDataset(
        root,
        split,
        augmentation=None,
        source_channels=a,
        target_channels=b,
        source_range=all_values,
        target_range=all_values,
    )


def _channels(file: Path | Member) -> int:
    """Return the channels with which training reads an image: grayscale is read as color."""
    from ganvas.data.decode import read_image

    found = read_image(file) if isinstance(file, Path) else file.read().array
    return 3 if found.shape[2] == 1 else found.shape[2]


def _before_and_after(
    images: Sequence[np.ndarray], augmented: Sequence[np.ndarray], augmentation: Augmentation
) -> list[np.ndarray]:
    """Return full images, resized to the crops' size, and the augmented ones; all uint8."""
    resized = map(ImageTransform(replace(augmentation, load_size=augmentation.crop_size)).resize, images)
    return [_to_uint8(shown, like) for shown, like in zip((*resized, *augmented), (*images, *images), strict=True)]


def _to_uint8(image: np.ndarray, like: np.ndarray) -> np.ndarray:
    """Map an image to uint8, by the range of another's values if it is of another dtype."""
    from ganvas.data.tensors import to_array, to_tensor

    if image.dtype == "uint8":
        return image
    low, high = float(like.min()), float(like.max())
    return to_array(to_tensor(image, (low, high if high > low else low + 1)), "uint8")


def _titles(options: PreviewOptions) -> list[str]:
    from ganvas.data.dataset_info import dataset_info, domain_names

    a, b = domain_names(dataset_info(options.data))
    return [a, b, f"{a}, {options.augment}", f"{b}, {options.augment}"]


def _color_note(augmentation: Augmentation, recolored: int, rows: int) -> str:
    if not augmentation.color:
        return "Colors are not changed."
    why = "" if recolored == rows else "; others are in the legend's flat colors, or not 8-bit with 1 or 3 channels"
    return f"Colors of the source are changed in {recolored} of {rows} pairs{why}."


def _shift_note(probes: Sequence[Probe], *, aligned: bool) -> str:
    verdict = "stay aligned" if aligned else "do NOT stay aligned"
    nearest = any(probe.tolerance == NEAREST_TOLERANCE for probe in probes)
    why = "; flat colors are sampled by nearest neighbors" if nearest else ""
    largest = max(probe.shift for probe in probes)
    return f"Source and target {verdict}: marks in both are at most {largest:.2f} pixels apart{why}."


@dataclass(frozen=True)
class Probe:
    """Augments drawings as a pair.

    Attributes:
        transform: The augmentation, without colors.
        source: First image of the pair, [H, W, C].
        target: Second image, [H, W, C'].
        key: The pair's key.
    """

    transform: PairTransform
    source: np.ndarray
    target: np.ndarray
    key: tuple[int, int, int]

    def moved(self, drawing: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Draw into blank images of the source's and the target's dtype, and augment them.

        Args:
            drawing: [H, W] bool.

        Returns:
            Strength of the drawing in the augmented source and target, 0 to 1, [S, S] each.
        """
        import numpy as np

        inks = [_inks(image, self.transform.augmentation.palette) for image in (self.source, self.target)]
        source, target = (np.where(drawing[:, :, None], ink, paper) for paper, ink in inks)
        moved = self.transform(source, target, self.key)
        a, b = (_strength(image, *colors) for image, colors in zip(moved, inks, strict=True))
        return a, b

    @cached_property
    def shift(self) -> float:
        """The largest distance in pixels between marks that were drawn at the same place."""
        return max(_distance(*self.moved(disc)) for disc in self.discs(MARK_RADIUS))

    @property
    def tolerance(self) -> float:
        """The allowed distance, by how the two images are sampled."""
        palette = self.transform.augmentation.palette
        return TOLERANCE if is_flat(self.source, palette) == is_flat(self.target, palette) else NEAREST_TOLERANCE

    def discs(self, radius: float) -> Iterator[np.ndarray]:
        """Draw discs at `MARKS`, one at a time.

        Args:
            radius: As a fraction of a crop's side.

        Yields:
            [H, W] bool.
        """
        import numpy as np

        places = self._places
        S = len(places)
        y, x = np.ogrid[: self.source.shape[0], : self.source.shape[1]]
        height, width = (self._length(axis, radius) for axis in (0, 1))
        for down, across in MARKS:
            top, left = places[int(down * S), int(across * S)]
            yield ((y - top) / height) ** 2 + ((x - left) / width) ** 2 <= 1

    def grid(self) -> np.ndarray:
        """Draw a grid, and dots at `MARKS`: [H, W] bool."""
        import numpy as np

        cells = min(CELLS, max(1, len(self._places) // MIN_CELL))
        lines = [
            np.arange(length) % self._length(axis, 1 / cells) < self._length(axis, LINE_WIDTH)
            for axis, length in enumerate(self.source.shape[:2])
        ]
        return np.logical_or.reduce([lines[0][:, None] | lines[1], *self.discs(DOT_RADIUS)])

    def _length(self, axis: int, fraction: float) -> float:
        """Convert a fraction of the augmented source's height or width to pixels of the source."""
        import numpy as np

        places = self._places
        return max(float(np.ptp(places[:, :, axis])) * max(fraction, MIN_WIDTH / len(places)), 1)

    @cached_property
    def _places(self) -> np.ndarray:
        """The place in the source, y and x, of each pixel of the augmented one: [S, S, 2]."""
        import numpy as np

        coordinates = np.moveaxis(np.indices(self.source.shape[:2], dtype=np.float32), 0, 2)
        return self.transform(coordinates, coordinates, self.key)[0]


def _inks(image: np.ndarray, palette: Sequence[Color]) -> tuple[np.ndarray, np.ndarray]:
    """Return the colors [C] of paper and ink for a drawing of an image's dtype and channels."""
    import numpy as np

    from ganvas.data.arrays import FULL_RANGE

    if is_flat(image, palette):
        inverse = tuple(255 - value for value in palette[0])
        other = next(color for color in (*palette, inverse) if color != palette[0])
        colors = [np.array(palette[0]), np.array(other)]
    else:
        top = FULL_RANGE[image.dtype]
        colors = [np.full(image.shape[2], top * level) for level in (0.25, 0.75)]
    paper, ink = (color.astype(image.dtype) for color in colors)
    return paper, ink


def _strength(image: np.ndarray, paper: np.ndarray, ink: np.ndarray) -> np.ndarray:
    """Return the amount of ink at each pixel, [H, W] from 0 to 1, by the channel of the highest contrast."""
    import numpy as np

    contrast = ink.astype(np.float64) - paper
    best = np.abs(contrast).argmax()
    return ((image[:, :, best] - float(paper[best])) / contrast[best]).clip(0, 1)


def _distance(a: np.ndarray, b: np.ndarray) -> float:
    """Return the distance between the centers of two drawings [S, S] in pixels; infinite if one is empty."""
    import numpy as np

    if not (a.any() and b.any()):
        return math.inf
    centers = [[np.average(places, weights=ink) for places in np.indices(ink.shape)] for ink in (a, b)]
    return math.dist(*centers)


def overlay(images: Sequence[np.ndarray], grids: Sequence[np.ndarray]) -> np.ndarray:
    """Draw the first grid in red and the second in cyan over the darkened mean of both images.

    Args:
        images: [S, S, C] uint8 each.
        grids: Strength of the grid in each, [S, S], 0 to 1.

    Returns:
        [S, S, 3] uint8: white lines where the grids coincide, colored ones elsewhere.
    """
    import numpy as np

    from ganvas.data.tensors import to_display

    ground = SHADE * np.mean([to_display(image).mean(axis=2) for image in images], axis=0)
    red, cyan = (ground + (255 - ground) * grid for grid in grids)
    return np.rint(np.stack([red, cyan, cyan], axis=2)).astype(np.uint8)
