"""Metrics of real images against real ones, for comparison with those of generated images."""

from collections.abc import Callable, Collection
from dataclasses import dataclass

from torch import Tensor

from ganvas.errors import UserError
from ganvas.evaluation.metric_set import MetricSet
from ganvas.evaluation.metrics import patch_count
from ganvas.evaluation.set_statistics import Score, SetStatistics, compare_sets
from ganvas.evaluation.sheet import evenly
from ganvas.log import track

SPLITS = ("train", "val", "test")  # in the order of preference
SMALLEST_HALF = 2  # images: a covariance needs two
BIASED = {"sliced_wasserstein", "fid"}  # metrics that are larger for fewer images; KID's estimator is unbiased


@dataclass(frozen=True)
class RealImages:
    """Real images of another split.

    Attributes:
        split: Its name.
        count: How many images it has.
        read: Returns the image of an index, [C, H, W] in [-1, 1].
    """

    split: str
    count: int
    read: Callable[[int], Tensor]


class RealAgainstReal:
    """Scores real images in the place of a model's.

    The first choice are as many images of another split as the model makes, evenly over it. Without such a split, the
    true images with even numbers are compared with those of odd ones: half as many, so biased distances are larger.

    Args:
        metrics: The metrics.
        outputs: Images that the model makes.
        targets: True images that they are compared with.
        split: The split of those.
        other: Images of another split, at least ``outputs``; None where there is none.
    """

    def __init__(self, metrics: MetricSet, outputs: int, targets: int, split: str, other: RealImages | None) -> None:
        self._outputs, self._other = outputs, other
        self._half = targets // 2
        patches = patch_count(self._half, self._half)
        self._halves = [] if other else [SetStatistics(metrics, self._half, patches) for _ in range(2)]
        self._metrics = metrics
        self._added = 0
        if other is not None:
            self.sets = f"{outputs} images of {other.split} against {targets} of {split}"
        else:
            self.sets = f"{self._half} images of {split} against {self._half} others"

    def add(self, target: Tensor) -> None:
        """Add a true image [C, H, W] in [-1, 1]."""
        if self._halves and self._added < 2 * self._half:
            self._halves[self._added % 2].add(target)
        self._added += 1

    def compare(self, targets: SetStatistics) -> tuple[dict[str, Score], list[str]]:
        """Return the scores by key, and notes on them, once all true images have been added.

        Args:
            targets: The true images' statistics.
        """
        if self._other is not None:
            try:
                return compare_sets(self._read(self._other, targets.num_patches), targets), []
            except UserError as error:  # of images that the evaluation itself does not need
                return {}, [f"No scores of real against real images: {error}"]
        scores = compare_sets(*self._halves) if self._half >= SMALLEST_HALF else {}
        return scores, [self._halves_note()] if set(scores) & BIASED else []

    def _read(self, other: RealImages, num_patches: int) -> SetStatistics:
        statistics = SetStatistics(self._metrics, self._outputs, num_patches)
        numbers = evenly(other.count, self._outputs)
        for number in track(numbers, f"real images of {other.split}", len(numbers)):
            statistics.add(other.read(number))
        return statistics

    def _halves_note(self) -> str:
        return (
            f"Real against real images: no other split has {self._outputs} images, so these are two halves of "
            f"{self._half}. Distances of fewer images are larger: the model's own may be lower than these."
        )


def other_split(
    split: str, available: Collection[str], count: int, open_split: Callable[[str], RealImages]
) -> RealImages | None:
    """Return the real images of another split that has enough of them; None if there is none.

    Args:
        split: The split that is evaluated.
        available: Those that the dataset has.
        count: How many images are needed.
        open_split: Lists the images of a split.
    """
    for name in SPLITS:
        if name == split or name not in available:
            continue
        try:
            images = open_split(name)
        except UserError:  # a split of another layout, or an empty one
            continue
        if images.count >= count:
            return images
    return None
