"""What the evaluations of all modules have in common: means with intervals, and files written once figures are shown.

The figures of an evaluation take long; a folder that cannot be written must not cost them. So they are printed first.
"""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from ganvas.evaluation.metrics import bootstrap_interval
from ganvas.files import write_json

EVALUATION = "evaluation.json"
FEWEST_FOR_INTERVAL = 2  # images
NO_INTERVAL = "No 95% intervals: one image says nothing about the spread."


def mean_and_interval(values: np.ndarray) -> dict[str, float]:
    """Return the mean of one value an image, and its 95% interval where there are at least two images.

    Args:
        values: [N], N at least 1.

    Returns:
        "mean", "low" and "high"; of one image "mean" alone.
    """
    if len(values) < FEWEST_FOR_INTERVAL:
        return {"mean": float(values.mean())}
    return vars(bootstrap_interval(values))


def format_score(values: Mapping[str, float]) -> str:
    """Return a mean, and its interval where there is one, for a table."""
    interval = f" [{values['low']:.4f}, {values['high']:.4f}]" if "low" in values else ""
    return f"{values['mean']:.4f}{interval}"


def keep_with_run(model: Path, result: Mapping[str, object]) -> None:
    """Write the figures into a run's folder, for its report; nothing is written where the model is not a run's own.

    Raises:
        UserError: The folder cannot be written.
    """
    if (model / "model").is_dir():
        write_json(model / EVALUATION, result)
