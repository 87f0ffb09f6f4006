"""Near-duplicates: pictures that show the same although their pixels differ.

Two steps find them, and both say how sure they are:

1. A hash of 64 bits, the signs of the low frequencies of a picture of 32 x 32 pixels (a "perceptual hash"). Copies that
   were saved anew, scaled, or changed in brightness or colour differ in a few bits; unrelated pictures in 32, give or
   take. All are compared with all by one matrix product, so there is no bucket that similar pictures could overflow.
2. Where few bits differ, the peak of the phase correlation of both at 64 x 64 pixels, 0 to 1. It is near 1 also when
   one picture is the other, shifted or framed; pictures that are merely composed alike, such as a horse on a beach,
   stay below 0.7.

Limits were chosen by looking at what is found on horse2zebra and maps. Pictures of one plain colour, such as open sea,
are too plain to compare.

References:
    Zauner 2010, "Implementation and benchmarking of perceptual image hash functions", Sec. 3.2.1.
    Kuglin and Hines 1975, "The phase correlation image alignment method".
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from data_scripts.tools.folder_ops import in_parallel

SIDE = 64  # pixels of a view
HASHED_SIDE = 32
BITS = 64
MOST_BITS = 16  # that may differ
LEAST_LIKENESS = 0.75
PLAIN = 2.0  # standard deviation of a view, of 255
NEAREST = 8  # near-duplicates that are looked for, of each image: a film has too many to name
BLOCK = 2**22  # distances that are held in memory at a time


@dataclass(frozen=True)
class Sample:
    """What a training takes together: a image, or all images of a pair.

    Attributes:
        name: Its place in the dataset.
        split: "train", "val" or "test".
        content: Equal for samples of exactly the same pixels.
        views: Rows of its images' views, in the order of the domains.
    """

    name: str
    split: str
    content: tuple[str, ...]
    views: tuple[int, ...]


@dataclass(frozen=True)
class NearDuplicates:
    """Two samples that show the same.

    Attributes:
        first: Name of one.
        second: Name of the other.
        across_splits: Whether they are in different splits.
        bits: How many of 64 bits of their hashes differ.
        likeness: Peak of their phase correlation, 0 to 1; of pairs, the lower one.
    """

    first: str
    second: str
    across_splits: bool
    bits: int
    likeness: float


def view(picture: np.ndarray) -> np.ndarray:
    """Give what is compared of a image [H, W, C]: [64, 64] uint8, gray; of many channels, of the first three.

    Deeper images often use a small part of their range, so theirs is stretched.
    """
    colours = np.ascontiguousarray(picture[:, :, :3])
    if colours.dtype != np.uint8:
        colours = np.nan_to_num(colours.astype(np.float32), posinf=0, neginf=0)
        colours -= colours.min()
        colours *= 255 / (colours.max() or 1)
    small = cv2.resize(colours, (SIDE, SIDE), interpolation=cv2.INTER_AREA).reshape(SIDE, SIDE, -1)
    return np.rint(small.mean(axis=2)).astype(np.uint8)


def is_plain(seen: np.ndarray) -> bool:
    """Tell whether a view has too little in it to be compared."""
    return bool(seen.std() < PLAIN)


def code(seen: np.ndarray) -> np.ndarray:
    """Give the hash of a view, [64] of -1 or 1: the product of two is 64, less twice the bits that differ."""
    small = cv2.resize(seen.astype(np.float32), (HASHED_SIDE, HASHED_SIDE), interpolation=cv2.INTER_AREA)
    low = cv2.dct(small)[1:9, 1:9].ravel()  # without the mean, and what is constant along a side
    return np.where(low > np.median(low), np.float32(1), np.float32(-1))


def likeness(one: np.ndarray, other: np.ndarray) -> float:
    """Give the peak of the phase correlation of two views, 0 to 1: 1 for the same, also shifted."""
    window = cv2.createHanningWindow((SIDE, SIDE), cv2.CV_32F)
    first, second = (each.astype(np.float32) - each.mean(dtype=np.float32) for each in (one, other))
    _, peak = cv2.phaseCorrelate(first, second, window)
    return min(1.0, max(0.0, peak))


def find_near_duplicates(samples: Sequence[Sample], views: np.ndarray) -> list[NearDuplicates]:
    """Find samples that show the same though they are not identical, the surest first.

    Samples of pairs are near-duplicates if both images are. A image that is plain in both says nothing; samples
    that are plain altogether are not compared, nor are samples of different numbers of images.

    Args:
        samples: What to compare.
        views: The views that samples name by row, [N, 64, 64].
    """
    plain = np.array([is_plain(seen) for seen in views])
    groups: dict[tuple[int, int], list[Sample]] = {}
    for sample in samples:
        rich = [place for place, row in enumerate(sample.views) if not plain[row]]
        if rich:
            groups.setdefault((len(sample.views), rich[0]), []).append(sample)
    found = []
    for (_, place), group in groups.items():
        codes = np.stack([code(views[sample.views[place]]) for sample in group])
        near = list(_near_codes(codes, group))

        def compare(pair: tuple[int, int, int], group: list[Sample] = group) -> NearDuplicates | None:
            return _compared(group[pair[0]], group[pair[1]], pair[2], views, plain)

        found += [each for each in in_parallel(compare, near, "comparing") if each]
    return sorted(found, key=lambda each: (each.bits, -each.likeness))


def _near_codes(codes: np.ndarray, samples: Sequence[Sample]) -> Iterator[tuple[int, int, int]]:
    """Give (first, second, bits) of samples that are not identical; each has as first at most `NEAREST` in its split.

    It has as many in other splits.
    """
    contents: dict[tuple[str, ...], int] = {}
    content = np.array([contents.setdefault(sample.content, len(contents)) for sample in samples])
    split = np.array([sample.split for sample in samples])
    rows = max(1, BLOCK // len(codes))
    for start in range(0, len(codes), rows):
        product = codes[start : start + rows] @ codes[start:].T
        first, second = np.nonzero(product >= BITS - 2 * MOST_BITS)
        bits = (BITS - product[first, second].astype(int)) // 2
        first, second = first + start, second + start
        keep = (first < second) & (content[first] != content[second])
        first, second, bits = first[keep], second[keep], bits[keep]
        across = split[first] != split[second]
        order = np.lexsort((bits, across, first))
        first, second, bits, across = first[order], second[order], bits[order], across[order]
        new = np.ones(len(first), dtype=bool)  # where a sample's neighbors in its split, or in others, begin
        new[1:] = (first[1:] != first[:-1]) | (across[1:] != across[:-1])
        rank = np.arange(len(first)) - np.maximum.accumulate(np.where(new, np.arange(len(first)), 0))
        nearest = rank < NEAREST
        yield from zip(first[nearest].tolist(), second[nearest].tolist(), bits[nearest].tolist(), strict=True)


def _compared(first: Sample, second: Sample, bits: int, views: np.ndarray, plain: np.ndarray) -> NearDuplicates | None:
    least = 1.0
    for one, other in zip(first.views, second.views, strict=True):
        if plain[one] and plain[other]:
            continue
        if plain[one] or plain[other]:
            return None
        least = min(least, likeness(views[one], views[other]))
        if least < LEAST_LIKENESS:
            return None
    return NearDuplicates(first.name, second.name, first.split != second.split, bits, round(least, 3))
