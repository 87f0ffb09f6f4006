"""Monitors of a training: cheap figures that show a failure while there is time to act, with plain advice.

A GAN's losses do not tell whether it works: they stay finite while the generator draws one image over and over.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol


@dataclass(frozen=True)
class HealthReport:
    """What a check of a training found.

    Attributes:
        values: Figures for the records.
        warnings: What is wrong and what helps, a line each.
    """

    values: dict[str, float] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)


class Monitor(Protocol):
    """Checks a training at each sample image. Its state is part of a checkpoint, as JSON values."""

    def check(self, losses: Mapping[str, float]) -> HealthReport:
        """Check the training, given the mean losses since the last check."""

    def state_dict(self) -> dict[str, Any]:
        """Return what the next check depends on."""

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` returned."""
