"""What a run writes while it trains: metrics.jsonl, sample images, TensorBoard, and progress on the terminal."""

import contextlib
import json
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from rich.progress import MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from ganvas.files import encode_text, new_file, write_error, write_file
from ganvas.json_files import parse_json
from ganvas.log import console, logger, progress_bar
from ganvas.training.callbacks import Callbacks, TensorBoard
from ganvas.training.monitors import HealthReport

METRICS = "metrics.jsonl"
SAMPLES = "samples"


class RunRecords:
    """The records of one run, cut back to the step that it continues from.

    Args:
        run: The run's folder.
        start_step: Steps done before; later records of an earlier attempt are removed.
        total_steps: Steps of the run.
        hyperparameters: Flat options of the run.
        callbacks: The user's, called after ganvas's own records.

    Attributes:
        callbacks: TensorBoard's and the user's.
    """

    def __init__(
        self,
        run: Path,
        start_step: int,
        total_steps: int,
        hyperparameters: Mapping[str, Any],
        callbacks: Sequence[object] = (),
    ) -> None:
        self._run, self._total = run, total_steps
        try:
            _cut_back(run, start_step)
            self._metrics = (run / METRICS).open("a", encoding="utf-8")
            self._board = TensorBoard(run, start_step, {k: _to_text(v) for k, v in hyperparameters.items()})
        except OSError as error:
            raise write_error(run / METRICS, error) from None
        self.callbacks = Callbacks([self._board, *callbacks])
        rate = TextColumn("{task.fields[rate]}")
        self._progress = progress_bar(MofNCompleteColumn(), rate, TimeElapsedColumn(), TimeRemainingColumn())
        self._task = self._progress.add_task("training", total=total_steps, completed=start_step, rate="")
        self._progress.start()

    def advance(self, step: int) -> None:
        """Move the progress bar."""
        self._progress.update(self._task, completed=step)

    def log(self, step: int, values: Mapping[str, float], *, extra: Mapping[str, float] | None = None) -> None:
        """Record named values after ``step`` steps. Values that are not finite are left out, as JSON has none.

        Args:
            step: Steps done.
            values: Values by name.
            extra: Recorded in metrics.jsonl only.
        """
        values = {name: value for name, value in values.items() if math.isfinite(value)}
        self._write({"step": step, **(extra or {}), **{name: round(value, 6) for name, value in values.items()}})
        if "images_per_second" in values:
            self._progress.update(self._task, rate=f"{values['images_per_second']:.1f} images/s")
        if not console().is_terminal:
            text = "  ".join(f"{name} {value:.4g}" for name, value in values.items())
            logger.info("step %d/%d  %s", step, self._total, text)
        self.callbacks.notify("on_log", step, values)

    def health(self, step: int, report: HealthReport) -> None:
        """Record what the monitor found, and show it."""
        if report.values:
            self.log(step, report.values)
        for warning in report.warnings:
            self._write({"step": step, "warning": warning})
            logger.warning("Warning, step %d: %s", step, warning)
        for note in report.notes:
            self._write({"step": step, "note": note})
            logger.info("Step %d: %s", step, note)

    def _write(self, line: Mapping[str, Any]) -> None:
        try:
            self._metrics.write(json.dumps(line, allow_nan=False) + "\n")
            self._metrics.flush()
        except OSError as error:
            raise write_error(self._run / METRICS, error) from None

    def images(self, step: int, image: np.ndarray) -> None:
        """Write a sample image, uint8 [H, W, 3]."""
        folder = self._run / SAMPLES
        try:
            with new_file(folder / f"step-{step:08d}.png") as aside:
                Image.fromarray(image).save(aside)
        except OSError as error:
            raise write_error(folder, error) from None
        self.callbacks.notify("on_images", step, image)

    def sync(self) -> None:
        """Write all records to the disk, so that no checkpoint is ahead of them."""
        self._board.flush()
        os.fsync(self._metrics.fileno())

    def final_metrics(self, metrics: Mapping[str, float]) -> None:
        """Record the run's best metrics."""
        self._board.add_final_metrics(metrics)

    def close(self) -> None:
        """Close files and the progress bar."""
        self._progress.stop()
        self._metrics.close()
        with contextlib.suppress(OSError):  # a full disk was reported, or everything was synced before
            self._board.close()


def _to_text(value: Any) -> Any:
    """Return text as TensorBoard takes it: a folder's name that is not UTF-8 is escaped."""
    return encode_text(value).decode() if isinstance(value, str) else value


def _cut_back(run: Path, start_step: int) -> None:
    """Remove the records after ``start_step``, and a last line that a killed process left incomplete."""
    path = run / METRICS
    if path.exists():
        kept = []
        for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
            with contextlib.suppress(LookupError, TypeError, ValueError):
                if parse_json(line)["step"] <= start_step:
                    kept.append(line)
        write_file(path, "".join(line + "\n" for line in kept))
    for sample in (run / SAMPLES).glob("step-*.png"):
        number = sample.stem.removeprefix("step-")
        if number.isdigit() and int(number) > start_step:
            sample.unlink()
