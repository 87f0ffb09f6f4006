"""The command ``report``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import tyro

if TYPE_CHECKING:
    from ganvas.evaluation.labels import MetricLabel


@dataclass(frozen=True)
class ReportOptions:
    """Write RUN/report.html: curves, metrics and samples of a run on one page.

    Attributes:
        run: The run's folder.
    """

    run: tyro.conf.Positional[Path]


def run_report(options: ReportOptions, labels: Mapping[str, MetricLabel]) -> int:
    """Write the report, and print its path; return the exit code."""
    from ganvas.evaluation.report.writer import write_report

    print(write_report(options.run, labels))
    return 0
