"""``python -m data_scripts preview DIR --augment strong --out sheet.png``: images as a training would see them.

Of pairs, the sheet also proves that both images stay aligned. One grid is drawn into blank images of the source's
and the target's kind, and both go through the training's augmentation together, with the pair's own key. The last
column shows the source's grid in red over the target's in cyan: where they lie on each other, lines are white.

The number beside it is measured in the same way: discs are drawn, one after the other, at the same place in both, and
the number is the largest distance of their centers afterwards.

Ends with 0; with 1 where pairs do not stay aligned; with 2 when it could not look.
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

from ganvas.data.augment import (
    Augmentation,
    AugmentPreset,
    ImageTransform,
    PairTransform,
    build_augmentation,
)
from ganvas.data.palette import is_flat
from ganvas.errors import UserError
from ganvas.options import validate

if TYPE_CHECKING:
    import numpy as np

    from ganvas.data.paired import PairedDataset
    from ganvas.data.palette import Color
    from ganvas.data.shards import Member

# Pixels that marks may be apart: interpolated images of different types differ by hundredths. Nearest neighbors, of
# flat colors, are up to half a pixel off in scaling and again in turning, to all sides alike.
TOLERANCE, NEAREST_TOLERANCE = 0.1, 1.0
MARKS = ((0.2, 0.25), (0.15, 0.7), (0.45, 0.5), (0.6, 0.15), (0.7, 0.85), (0.85, 0.4))  # y, x; no mirror image alike
MARK_RADIUS, DOT_RADIUS = 1 / 16, 1 / 40  # of the side of a piece: to be measured, and to be seen with the grid
LINE_WIDTH = 1 / 128  # of the side of a piece
SMALLEST = 2  # pixels of a piece: radius, and width of a line
CELLS = 7  # of the grid, across a piece; fewer where they would be smaller than
SMALLEST_CELL = 8  # pixels
SHADE = 0.6  # brightness of the images under the grid


@dataclass(frozen=True)
class PreviewOptions:
    """Draw images of a dataset beside what a training sees of them, and measure that pairs stay aligned."""

    data: tyro.conf.Positional[Path]
    """The dataset's folder, with or without pairs."""
    out: Path
    """The sheet, a new image such as sheet.png."""
    augment: AugmentPreset = "paper"
    """As of train. none: whole images. paper: random pieces, half of them mirrored. strong: half of them also turned,
    zoomed and shifted a little, and the colors of 8-bit sources changed a little."""
    image_size: Annotated[int, Interval(ge=16, le=4096)] = 256
    """Pixels a side in training."""
    seed: Annotated[int, Interval(ge=0, lt=2**63)] = 0
    """Seed of the augmentation: the sheet shows the first epoch of a training with this seed."""
    rows: Annotated[int, Interval(ge=1, le=100)] = 6
    """Rows of the sheet, evenly over the split."""
    split: Literal["train", "val", "test"] = "train"
    """Which of the dataset's splits."""
    unpaired: bool = False
    """Take two folders for domains without pairs although their images have the same names."""


@dataclass(frozen=True)
class Sheet:
    """What is drawn, row by row, and what was found."""

    titles: list[str]
    rows: list[list[np.ndarray]]
    names: list[str]
    notes: list[str]
    aligned: bool = True  # as far as there are pairs


def main(argv: Sequence[str]) -> int:
    """Draw a sheet; give the exit code.

    Raises:
        UserError: No dataset, a image that cannot be read, a value out of range, a place that cannot be written.
    """
    options = validate(tyro.cli(PreviewOptions, prog="python -m data_scripts preview", args=list(argv)))
    from ganvas.data.encode import write_image
    from ganvas.data.paired import dataset_info
    from ganvas.evaluation.sheet import contact_sheet

    augmentation = build_augmentation(options.augment, options.image_size, info=dataset_info(options.data))
    unpaired = options.unpaired or _names_differ(options.data, options.split)
    sheet = (_draw_domains if unpaired else _draw_pairs)(options, augmentation)
    write_image(options.out, contact_sheet(sheet.rows, sheet.titles, sheet.names))
    print("\n".join([f"{options.augment}: {_geometry(augmentation)}.", *sheet.notes, str(options.out)]))
    return 0 if sheet.aligned else 1


def _geometry(augmentation: Augmentation) -> str:
    """Put into words where pixels go."""
    load_size, crop_size, jitter = augmentation.load_size, augmentation.crop_size, augmentation.jitter
    steps = [f"scaled to {load_size} pixels a side"]
    if jitter:
        steps.append(
            f"{jitter.fraction:.0%} turned by up to {jitter.rotation:g}°, zoomed by up to {jitter.zoom:.0%} and "
            f"shifted by up to {jitter.shift:.0%}"
        )
    if load_size != crop_size:
        steps.append(f"{crop_size} cut out at random")
    if augmentation.flip:
        steps.append("half mirrored")
    return ", ".join(steps)


def _names_differ(root: Path, split: str) -> bool:
    """Tell whether a split is two folders most of whose names differ, and so no pairs."""
    from ganvas.data.listing import stem
    from ganvas.data.unpaired import find_domains

    try:
        stems = [{stem(path.name) for path in domain} for domain in find_domains(root, split)]
    except UserError:  # pairs side by side, or nothing that can be shown: whoever looks for pairs says what is wrong
        return False
    return 2 * len(stems[0] & stems[1]) <= min(map(len, stems))


def _draw_domains(options: PreviewOptions, augmentation: Augmentation) -> Sheet:
    """Draw images of both domains, before and after."""
    from ganvas.data.decode import read_image
    from ganvas.data.unpaired import find_domains

    transform = ImageTransform(augmentation)
    domains = find_domains(options.data, options.split)
    rows, names = [], []
    for indices in zip(*(_spread(len(files), min(options.rows, *map(len, domains))) for files in domains), strict=True):
        paths = [files[index] for files, index in zip(domains, indices, strict=True)]
        pictures = [read_image(path) for path in paths]
        keys = [(options.seed, 0, index, domain) for domain, index in enumerate(indices)]
        rows.append(_before_and_after(pictures, list(map(transform, pictures, keys)), augmentation))
        names.append(" | ".join(path.stem for path in paths))
    return Sheet(_titles(options), rows, names, ["Two domains without pairs: colors are not changed."])


def _draw_pairs(options: PreviewOptions, augmentation: Augmentation) -> Sheet:
    """Draw pairs before and after, and where a grid in both went."""
    pairs = _open_pairs(options.data, options.split)
    transform, probing = PairTransform(augmentation), PairTransform(replace(augmentation, color=0.0))
    rows, names, coloured = [], [], 0
    probes: list[Probe] = []
    for index in _spread(len(pairs), options.rows):
        pair, key = pairs.pair(index), (options.seed, 0, index)
        row = _before_and_after(pair, transform(*pair, key), augmentation)
        probe = Probe(probing, *pair, key)
        rows.append([*row, overlay(row[2:], probe.moved(probe.grid()))])
        names.append(f"{pairs.name(index)}: {probe.shift:.2f} px")
        probes.append(probe)
        coloured += transform.changes_color(pair[0])
    aligned = all(probe.shift <= probe.tolerance for probe in probes)
    notes = [_colour_note(augmentation, coloured, len(rows)), _shift_note(probes, aligned=aligned)]
    return Sheet([*_titles(options), "red + cyan = white"], rows, names, notes, aligned)


def _open_pairs(root: Path, split: str) -> PairedDataset:
    """Open pairs with the channels that the first has, and any values: the sheet shows each by its own range."""
    from ganvas.data.paired import PairedDataset, find_pairs

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
    """Tell the channels with which a training reads a image: gray ones are read as color ones."""
    from ganvas.data.decode import read_image

    found = read_image(file) if isinstance(file, Path) else file.read().array
    return 3 if found.shape[2] == 1 else found.shape[2]


def _before_and_after(
    pictures: Sequence[np.ndarray], moved: Sequence[np.ndarray], augmentation: Augmentation
) -> list[np.ndarray]:
    """Give whole images, scaled to the size of the pieces, and then what became of them; all 8-bit."""
    scaled = map(ImageTransform(replace(augmentation, load_size=augmentation.crop_size)).resize, pictures)
    return [_visible(shown, like) for shown, like in zip((*scaled, *moved), (*pictures, *pictures), strict=True)]


def _visible(picture: np.ndarray, like: np.ndarray) -> np.ndarray:
    """Bring a image that is not 8-bit to 8 bits, by the range of another's values."""
    from ganvas.data.tensors import to_array, to_tensor

    if picture.dtype == "uint8":
        return picture
    low, high = float(like.min()), float(like.max())
    return to_array(to_tensor(picture, (low, high if high > low else low + 1)), "uint8")


def _titles(options: PreviewOptions) -> list[str]:
    from ganvas.data.paired import dataset_info, domain_names

    a, b = domain_names(dataset_info(options.data))
    return [a, b, f"{a}, {options.augment}", f"{b}, {options.augment}"]


def _colour_note(augmentation: Augmentation, coloured: int, rows: int) -> str:
    if not augmentation.color:
        return "Colors are not changed."
    why = "" if coloured == rows else "; elsewhere it is in flat colors of the legend, or not 8-bit of 1 or 3 channels"
    return f"Colors of the source are changed in {coloured} of {rows} pairs{why}."


def _shift_note(probes: Sequence[Probe], *, aligned: bool) -> str:
    verdict = "stay aligned" if aligned else "do NOT stay aligned"
    nearest = any(probe.tolerance == NEAREST_TOLERANCE for probe in probes)
    why = "; flat colors take nearest neighbors, to the pixel" if nearest else ""
    largest = max(probe.shift for probe in probes)
    return f"Source and target {verdict}: marks in both are {largest:.2f} pixels apart at most{why}."


@dataclass(frozen=True)
class Probe:
    """Sends drawings through the augmentation of a pair.

    Attributes:
        transform: The augmentation, but for colors.
        source: First image of the pair, [H, W, C].
        target: Second image.
        key: Of the pair.
    """

    transform: PairTransform
    source: np.ndarray
    target: np.ndarray
    key: tuple[int, int, int]

    def moved(self, drawing: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Draw into blank images of both kinds, and give what becomes of it in each.

        Args:
            drawing: [H, W] bool.

        Returns:
            Strength of the drawing in the transformed source and target, 0 to 1, [S, S] each.
        """
        import numpy as np

        inks = [_inks(picture, self.transform.augmentation.palette) for picture in (self.source, self.target)]
        source, target = (np.where(drawing[:, :, None], ink, paper) for paper, ink in inks)
        moved = self.transform(source, target, self.key)
        a, b = (_strength(picture, *colours) for picture, colours in zip(moved, inks, strict=True))
        return a, b

    @cached_property
    def shift(self) -> float:
        """How far apart marks are that were drawn at one place, at most; in pixels."""
        return max(_apart(*self.moved(disc)) for disc in self.discs(MARK_RADIUS))

    @property
    def tolerance(self) -> float:
        """How far apart they may be, by the way in which the two images are sampled."""
        legend = self.transform.augmentation.palette
        return TOLERANCE if is_flat(self.source, legend) == is_flat(self.target, legend) else NEAREST_TOLERANCE

    def discs(self, radius: float) -> Iterator[np.ndarray]:
        """Draw discs at `MARKS`, one by one.

        Args:
            radius: As a share of a side of the piece.

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

        cells = min(CELLS, max(1, len(self._places) // SMALLEST_CELL))
        lines = [
            np.arange(length) % self._length(axis, 1 / cells) < self._length(axis, LINE_WIDTH)
            for axis, length in enumerate(self.source.shape[:2])
        ]
        return np.logical_or.reduce([lines[0][:, None] | lines[1], *self.discs(DOT_RADIUS)])

    def _length(self, axis: int, share: float) -> float:
        """Give a share of the height or width of the transformed source in pixels of the source itself."""
        import numpy as np

        places = self._places
        return max(float(np.ptp(places[:, :, axis])) * max(share, SMALLEST / len(places)), 1)

    @cached_property
    def _places(self) -> np.ndarray:
        """Where in the source, y and x, each pixel of the transformed one comes from: [S, S, 2]."""
        import numpy as np

        coordinates = np.moveaxis(np.indices(self.source.shape[:2], dtype=np.float32), 0, 2)
        return self.transform(coordinates, coordinates, self.key)[0]


def _inks(picture: np.ndarray, legend: Sequence[Color]) -> tuple[np.ndarray, np.ndarray]:
    """Choose two colors [C], for paper and ink, with which a image of the same kind is drawn."""
    import numpy as np

    from ganvas.data.arrays import FULL_RANGE

    if is_flat(picture, legend):
        inverse = tuple(255 - value for value in legend[0])
        other = next(colour for colour in (*legend, inverse) if colour != legend[0])
        colours = [np.array(legend[0]), np.array(other)]
    else:
        top = FULL_RANGE[picture.dtype]
        colours = [np.full(picture.shape[2], top * share) for share in (0.25, 0.75)]
    paper, ink = (colour.astype(picture.dtype) for colour in colours)
    return paper, ink


def _strength(picture: np.ndarray, paper: np.ndarray, ink: np.ndarray) -> np.ndarray:
    """Tell how much ink there is at each pixel, [H, W] from 0 to 1, by the channel that shows it best."""
    import numpy as np

    contrast = ink.astype(np.float64) - paper
    best = np.abs(contrast).argmax()
    return ((picture[:, :, best] - float(paper[best])) / contrast[best]).clip(0, 1)


def _apart(a: np.ndarray, b: np.ndarray) -> float:
    """Measure the distance between the centers of two drawings [S, S], in pixels; infinite where one is empty."""
    import numpy as np

    if not (a.any() and b.any()):
        return math.inf
    middles = [[np.average(places, weights=ink) for places in np.indices(ink.shape)] for ink in (a, b)]
    return math.dist(*middles)


def overlay(pictures: Sequence[np.ndarray], grids: Sequence[np.ndarray]) -> np.ndarray:
    """Draw the first grid in red and the second in cyan over the darkened mean of both images.

    Args:
        images: [S, S, C] uint8 each.
        grids: Strength of the grid in each, [S, S], 0 to 1.

    Returns:
        [S, S, 3] uint8: white lines where both are, colored ones where they are not.
    """
    import numpy as np

    from ganvas.data.tensors import to_display

    ground = SHADE * np.mean([to_display(picture).mean(axis=2) for picture in pictures], axis=0)
    red, cyan = (ground + (255 - ground) * grid for grid in grids)
    return np.rint(np.stack([red, cyan, cyan], axis=2)).astype(np.uint8)


def _spread(length: int, count: int) -> list[int]:
    """Choose at most ``count`` indices, evenly over the whole length."""
    import numpy as np

    return sorted({round(i) for i in np.linspace(0, length - 1, min(count, length))})
