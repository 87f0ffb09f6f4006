"""Near-duplicates: images that show the same although their pixels differ.

Two steps find them, each with a measure of confidence:

1. A perceptual hash of 64 bits: the signs of the low frequencies of a thumbnail of 32 x 32 pixels. Copies that were
   re-compressed, resized, or changed in brightness or color differ in a few bits, unrelated images in about 32. One
   matrix product compares all with all, so there are no buckets that similar images could overflow.
2. If few bits differ, the peak of the phase correlation at 64 x 64 pixels, 0 to 1. It is also near 1 for a shifted or
   framed copy; images of similar composition, such as horses on a beach, stay below 0.7.

The thresholds were chosen by inspecting results on horse2zebra and maps. Images of one plain color, such as open sea,
are not compared.

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

SIDE = 64  # pixels of a thumbnail
HASHED_SIDE = 32
BITS = 64
MAX_BITS = 16  # that may differ
MIN_LIKENESS = 0.75
PLAIN = 2.0  # standard deviation of a thumbnail, of 255
NEIGHBORS = 8  # near-duplicates of each image that are reported: video frames have too many
BLOCK = 2**22  # distances in memory at a time


@dataclass(frozen=True)
class Sample:
    """Images that training reads together: one image, or those of a pair.

    Attributes:
        name: Its path in the dataset.
        split: "train", "val" or "test".
        content: Equal for samples of exactly the same pixels.
        rows: Rows of its images' thumbnails, in the order of the domains.
    """

    name: str
    split: str
    content: tuple[str, ...]
    rows: tuple[int, ...]


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


def thumbnail(image: np.ndarray) -> np.ndarray:
    """Reduce an image [H, W, C] to [64, 64] uint8: gray, of its first three channels.

    Images of other types than uint8 often use a small part of their range, so they are stretched.
    """
    colors = np.ascontiguousarray(image[:, :, :3])
    if colors.dtype != np.uint8:
        colors = np.nan_to_num(colors.astype(np.float32), posinf=0, neginf=0)
        colors -= colors.min()
        colors *= 255 / (colors.max() or 1)
    small = cv2.resize(colors, (SIDE, SIDE), interpolation=cv2.INTER_AREA).reshape(SIDE, SIDE, -1)
    return np.rint(small.mean(axis=2)).astype(np.uint8)


def is_plain(thumbnail: np.ndarray) -> bool:
    """Return whether a thumbnail has too little contrast to be compared."""
    return bool(thumbnail.std() < PLAIN)


def perceptual_hash(thumbnail: np.ndarray) -> np.ndarray:
    """Compute the hash of a thumbnail, [64] of -1 or 1: the product of two is 64 minus twice the differing bits."""
    small = cv2.resize(thumbnail.astype(np.float32), (HASHED_SIDE, HASHED_SIDE), interpolation=cv2.INTER_AREA)
    low = cv2.dct(small)[1:9, 1:9].ravel()  # without the mean, and what is constant along a side
    return np.where(low > np.median(low), np.float32(1), np.float32(-1))


def likeness(one: np.ndarray, other: np.ndarray) -> float:
    """Compute the peak of the phase correlation of two thumbnails, 0 to 1: 1 for the same, also shifted."""
    window = cv2.createHanningWindow((SIDE, SIDE), cv2.CV_32F)
    first, second = (each.astype(np.float32) - each.mean(dtype=np.float32) for each in (one, other))
    _, peak = cv2.phaseCorrelate(first, second, window)
    return min(1.0, max(0.0, peak))


def find_near_duplicates(samples: Sequence[Sample], thumbnails: np.ndarray) -> list[NearDuplicates]:
    """Find samples that show the same though they are not identical, the most similar first.

    Pairs are near-duplicates if both images are. An image that is plain in both is ignored; samples that are entirely
    plain, or of different numbers of images, are not compared.

    Args:
        samples: What to compare.
        thumbnails: [N, 64, 64] uint8, indexed by the samples' rows.
    """
    plain = np.array([is_plain(each) for each in thumbnails])
    groups: dict[tuple[int, int], list[Sample]] = {}
    for sample in samples:
        hashed = next((place for place, row in enumerate(sample.rows) if not plain[row]), None)
        if hashed is not None:
            groups.setdefault((len(sample.rows), hashed), []).append(sample)
    found = []
    for (_, place), group in groups.items():
        hashes = np.stack([perceptual_hash(thumbnails[sample.rows[place]]) for sample in group])

        def compare(near: tuple[int, int, int], group: list[Sample] = group) -> NearDuplicates | None:
            return _compare(group[near[0]], group[near[1]], near[2], thumbnails, plain)

        found += [each for each in in_parallel(compare, list(_near_hashes(hashes, group)), "comparing") if each]
    return sorted(found, key=lambda each: (each.bits, -each.likeness))


def _near_hashes(hashes: np.ndarray, samples: Sequence[Sample]) -> Iterator[tuple[int, int, int]]:
    """Yield (first, second, bits) of samples that are not identical.

    Each sample is first in at most `NEIGHBORS` of them within its split, and in as many across splits.
    """
    contents: dict[tuple[str, ...], int] = {}
    content = np.array([contents.setdefault(sample.content, len(contents)) for sample in samples])
    split = np.array([sample.split for sample in samples])
    rows = max(1, BLOCK // len(hashes))
    for start in range(0, len(hashes), rows):
        product = hashes[start : start + rows] @ hashes[start:].T
        first, second = np.nonzero(product >= BITS - 2 * MAX_BITS)
        bits = (BITS - product[first, second].astype(int)) // 2
        first, second = first + start, second + start
        keep = (first < second) & (content[first] != content[second])
        first, second, bits = first[keep], second[keep], bits[keep]
        across = split[first] != split[second]
        order = np.lexsort((bits, across, first))
        first, second, bits, across = first[order], second[order], bits[order], across[order]
        new = np.ones(len(first), dtype=bool)  # where a sample's neighbors, within its split or across, begin
        new[1:] = (first[1:] != first[:-1]) | (across[1:] != across[:-1])
        rank = np.arange(len(first)) - np.maximum.accumulate(np.where(new, np.arange(len(first)), 0))
        nearest = rank < NEIGHBORS
        yield from zip(first[nearest].tolist(), second[nearest].tolist(), bits[nearest].tolist(), strict=True)


def _compare(
    first: Sample, second: Sample, bits: int, thumbnails: np.ndarray, plain: np.ndarray
) -> NearDuplicates | None:
    lowest = 1.0
    for one, other in zip(first.rows, second.rows, strict=True):
        if plain[one] and plain[other]:
            continue
        if plain[one] or plain[other]:
            return None
        lowest = min(lowest, likeness(thumbnails[one], thumbnails[other]))
        if lowest < MIN_LIKENESS:
            return None
    return NearDuplicates(first.name, second.name, first.split != second.split, bits, round(lowest, 3))
