"""Metrics of held-out images during a training, and what the best model is chosen by."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from torch import Tensor

from ganvas.errors import UserError
from ganvas.evaluation.distribution import kernel_bias
from ganvas.evaluation.metric_set import MetricSet, load_metrics
from ganvas.evaluation.metrics import patch_count
from ganvas.evaluation.names import KEYS, MetricOptions
from ganvas.evaluation.results import PairedScores
from ganvas.evaluation.set_statistics import SetStatistics, compare_sets

SMALLEST_RATIO = 1e-3


def _off_by(ratio: float) -> float:
    """Return the factor by which a ratio differs from 1, in either direction."""
    return max(ratio, 1 / max(ratio, SMALLEST_RATIO))


# The best model has the least product of its criteria. A metric that is not lower where a model is better, and above 0,
# gets an error beside it that is: the root mean square error in units of the peak, 1 less the similarity, and so on.
# That of KID, which may be negative, is the biased estimate.
ERRORS: dict[str, Callable[[float], float]] = {
    "psnr": lambda value: 10 ** (-value / 20),
    "ssim": lambda value: 1 - value,
    "ms-ssim": lambda value: 1 - value,
    "sharpness": _off_by,
    "spectrum": _off_by,
}


class Validation:
    """Computes the metrics of held-out images at each validation.

    The true images are the same each time; what the metrics of sets need of them is kept.

    Args:
        options: The metrics that choose the best model, and their networks.
        shown: Metrics that are computed beside those.
        device: Where networks compute.
    """

    def __init__(self, options: MetricOptions, shown: Sequence[str], device: str) -> None:
        self._chosen_by = options.names
        self._metrics: MetricSet = load_metrics(
            replace(options, names=tuple(dict.fromkeys([*shown, *options.names]))), device
        )
        self._targets: dict[str, SetStatistics] = {}

    def criteria(self, *directions: str) -> tuple[str, ...]:
        """Return the names of the logged values that choose the best model, of each direction if there are several."""
        return tuple(
            _label(name, direction, is_error=name in ERRORS or name == "kid")
            for direction in directions or ("",)
            for name in self._chosen_by
        )

    def require(self, targets: Sequence[Tensor], where: str) -> None:
        """Check that true images allow the metrics that choose the best model.

        Args:
            targets: [C, H, W] in [-1, 1] each.
            where: Where they are, for messages.

        Raises:
            UserError: They do not.
        """
        self._metrics.require_count(len(targets), where)
        for target in targets:
            self._metrics.require_image(target, where)
        if set(self._chosen_by) == {"swd"} and len({target.shape for target in targets}) > 1:
            raise UserError(f"--save-best-by swd: needs images of one size, and those of {where} differ in size.")

    def score(
        self, outputs: Sequence[Tensor], targets: Sequence[Tensor], *, direction: str = "", are_pairs: bool
    ) -> dict[str, float]:
        """Return the metrics of outputs, named val_METRIC or val_METRIC_DIRECTION.

        Args:
            outputs: [C, H, W] in [-1, 1] each.
            targets: The true images; with ``are_pairs``, one for each output.
            direction: End of the names.
            are_pairs: Whether metrics of pairs are computed, too.

        Raises:
            UserError: The images allow none of the criteria.
        """
        patches = patch_count(len(outputs), len(targets))
        if direction not in self._targets:
            self._targets[direction] = self._collect(targets, patches)
        drawn, true = self._collect(outputs, patches), self._targets[direction]
        values = {key: score["mean"] for key, score in compare_sets(drawn, true, intervals=False).items()}
        if are_pairs:
            paired = PairedScores(self._metrics)
            for output, target in zip(outputs, targets, strict=True):
                paired.add(output, target)
            values |= paired.means()
        values = {name: values[key] for name, key in KEYS.items() if key in values}
        errors = {name: error(values[name]) for name, error in ERRORS.items() if name in values}
        if drawn.features is not None and true.features is not None and "kid" in values:
            errors["kid"] = values["kid"] + kernel_bias(drawn.features.vectors()) + kernel_bias(true.features.vectors())
        return self._labeled(values, errors, direction)

    def _collect(self, images: Sequence[Tensor], patches: int) -> SetStatistics:
        statistics = SetStatistics(self._metrics, len(images), patches)
        for image in images:
            statistics.add(image)
        return statistics

    def _labeled(self, values: Mapping[str, float], errors: Mapping[str, float], direction: str) -> dict[str, float]:
        """Return values as they are logged, with the errors of those that choose the best model."""
        if not set(values) & set(self._chosen_by):
            raise UserError(
                f"--save-best-by {','.join(self._chosen_by)}: the held-out images allow none of these metrics (images "
                "without detail, or too small, or of several sizes). Choose others."
            )
        chosen = {name: error for name, error in errors.items() if name in self._chosen_by}
        return {_label(name, direction): value for name, value in values.items()} | {
            _label(name, direction, is_error=True): error for name, error in chosen.items()
        }


def _label(name: str, direction: str, *, is_error: bool = False) -> str:
    parts = ["val", name.replace("-", "_"), *(["error"] if is_error else []), *([direction] if direction else [])]
    return "_".join(parts)
