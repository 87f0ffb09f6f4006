"""Decisions by validation: the best step, and the mode of batch norm at inference."""

import math
from collections.abc import Callable, Mapping, Sequence

from torch import nn

from ganvas.nn.layers import BatchNorm2d, Statistics

MIN_METRIC = 1e-6  # smaller metrics count as this: an exact zero would outweigh every other metric


def combined_score(metrics: Mapping[str, float], criteria: Sequence[str]) -> float:
    """Return the score by which models of one run are compared; lower is better.

    It is the geometric mean of the criteria, so that 1% less of any of them counts the same. Their units, and the
    contrast of the images, are only a constant factor; so would be their values at a first validation.

    Args:
        metrics: Metrics by name.
        criteria: Names of metrics that are lower where a model is better. Those that a dataset does not allow are
            missing from every validation of a run, and left out.

    Returns:
        NaN where a criterion is not finite.

    Raises:
        ValueError: There are metrics, but no criterion is among them.
    """
    values = [metrics[name] for name in criteria if name in metrics]
    if not values:
        raise ValueError(f"metrics are {', '.join(metrics)}; at least one of {', '.join(criteria)} is needed")
    if not all(map(math.isfinite, values)):
        return math.nan
    return math.exp(math.fsum(math.log(max(value, MIN_METRIC)) for value in values) / len(values))


def default_statistics(generators: Sequence[nn.Module], images_per_pass: int) -> Statistics:
    """Return the mode of batch norm that inference uses until a validation has compared both: that of the training.

    Args:
        generators: What is used for inference.
        images_per_pass: Images that batch norm sees at once in training.
    """
    return "picture" if images_per_pass == 1 and _have_batch_norm(generators) else "running"


def compare_statistics(
    generators: Sequence[nn.Module], validate: Callable[[Statistics], dict[str, float]], criteria: Sequence[str]
) -> tuple[Statistics, dict[str, float]]:
    """Validate generators in both modes of batch norm; once if they have none.

    Args:
        generators: What is validated.
        validate: Returns metrics by name in a mode.
        criteria: As in `combined_score`.

    Returns:
        The mode with the lower score, and its metrics. Where there are two modes, the criteria of each are added, named
        CRITERION_MODE.
    """
    modes: tuple[Statistics, ...] = ("running", "picture") if _have_batch_norm(generators) else ("running",)
    metrics = {mode: validate(mode) for mode in modes}
    scores = {mode: combined_score(metrics[mode], criteria) for mode in modes}
    better = min(modes, key=lambda mode: scores[mode] if math.isfinite(scores[mode]) else math.inf)
    if len(modes) == 1:
        return better, metrics[better]
    of_each = {f"{name}_{mode}": metrics[mode][name] for name in criteria if name in metrics[better] for mode in modes}
    return better, metrics[better] | of_each


def _have_batch_norm(networks: Sequence[nn.Module]) -> bool:
    return any(isinstance(module, BatchNorm2d) for network in networks for module in network.modules())
