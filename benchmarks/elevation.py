"""Fit and measure the table that reads elevation from the colors of ``etopo1.jpg``, for the Earth dataset's contours.

    pip download --no-deps itur && unzip itur-*.whl 'itur/data/1511/v2_topo.npz'
    python -m benchmarks.elevation --truth itur/data/1511/v2_topo.npz

The truth is the topography of ITU-R P.1511-2 on a grid of 5', as the PyPI package itur holds it. Blocks of 18 degrees
are for fitting and for measuring in turn, like the squares of a chessboard; the table that is written has seen only
those for fitting.
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np
import tyro
from PIL import Image
from scipy import ndimage

from data_scripts.sets.earth_elevation import BINS, TABLE, color_cells, read_elevation
from data_scripts.sets.earth_places import BLOCK_DEGREES, LATITUDE_LIMIT
from data_scripts.sets.earth_world import basemap_folder
from ganvas.console import run_command

MIN_PIXELS = 10  # in a cell that is not filled from its neighbors
EDGES = (0, 200, 500, 1000, 2000, 3000, 5000)  # meters


@dataclass(frozen=True)
class Options:
    """Fit the table on one half of the world, measure it on the other, and write it into the package."""

    truth: Path
    """v2_topo.npz of the package itur."""
    keep: bool = False
    """Measure the table that is there, and write nothing."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run ``python -m benchmarks.elevation`` and return the exit code."""
    return run_command("elevation", _run, argv)


def _run(argv: list[str]) -> int:
    options = tyro.cli(Options, args=argv, prog="python -m benchmarks.elevation")
    image = basemap_folder() / "etopo1.jpg"
    with Image.open(image) as file:
        colors = np.asarray(file)
    cells, is_water = color_cells(colors)
    truth = read_truth(options.truth, is_water.shape)
    is_fitted, is_measured = chessboard(is_water.shape)
    is_land = ~is_water & (truth != 0)
    if not options.keep:
        table = fit_table(cells[is_land & is_fitted], truth[is_land & is_fitted])
        np.savez_compressed(TABLE, elevation=np.rint(table).astype(np.int16))
    part = is_land & is_measured
    for line in measure(read_elevation(image)[part], truth[part]):
        print(line)
    return 0


def read_truth(path: Path, shape: tuple[int, ...]) -> np.ndarray:
    """Read the topography in meters, resampled to the pixels of an image of the world: float32 [H, W]."""
    with np.load(path) as file:
        inner = file["arr_0"][2:-2, 2:-2].astype(np.float32)  # without the repeated borders: [2160, 4320] cells of 5'
    return cv2.resize(inner, shape[::-1], interpolation=cv2.INTER_LINEAR)


def chessboard(shape: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Return which pixels [H, W] of the dataset's latitudes are for fitting, and which for measuring."""
    row, column = np.indices(shape)
    degree = shape[1] // 360
    is_even = (row // (BLOCK_DEGREES * degree) + column // (BLOCK_DEGREES * degree)) % 2 == 0
    is_used = np.abs(90 - (row + 0.5) / degree) < LATITUDE_LIMIT
    return is_used & is_even, is_used & ~is_even


def fit_table(cells: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Return the mean elevation of each cell, BINS; cells with few pixels get that of the nearest other one."""
    number = np.bincount(cells, minlength=np.prod(BINS))
    total = np.bincount(cells, truth, minlength=np.prod(BINS))
    is_known = (number >= MIN_PIXELS).reshape(BINS)
    table = (total / np.maximum(number, 1)).reshape(BINS)
    # Hue is a circle: the nearest cell is looked for in three turns of it.
    nearest = ndimage.distance_transform_edt(
        ~np.concatenate([is_known] * 3), return_distances=False, return_indices=True
    )
    turn = BINS[0]
    hue, saturation, value = nearest[:, turn : 2 * turn]
    return table[hue % turn, saturation, value]


def measure(found: np.ndarray, truth: np.ndarray) -> list[str]:
    """Return lines with the correlation, and the mean absolute error in bands of elevation."""
    error = np.abs(found - truth)
    lines = [f"correlation {np.corrcoef(found, truth)[0, 1]:.3f} on {truth.size} pixels"]
    for low, high in pairwise(EDGES):
        part = (truth > low) & (truth <= high)
        if part.any():
            lines.append(f"{low:5} to {high:4} m: mean error {error[part].mean():4.0f} m, of {part.sum():7} pixels")
    return lines


if __name__ == "__main__":
    sys.exit(main())
