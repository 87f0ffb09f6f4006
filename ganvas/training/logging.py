"""What a run writes while it trains: metrics.jsonl, TensorBoard, sample images, progress on the terminal."""

import contextlib
import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from torch.utils.tensorboard import SummaryWriter

from ganvas.files import encode_text, new_file, write_error, write_file
from ganvas.json_files import parse_json
from ganvas.training.monitors import Sight

METRICS = "metrics.jsonl"


class RunLog:
    """The records of one run, cut back to the step it continues from.

    Args:
        run: The run's folder.
        start_step: Steps done before; later records of an earlier attempt are removed.
        total_steps: Steps of the whole run, for the progress bar.
        hyperparameters: Flat values for TensorBoard's table; written once, at the start.
    """

    def __init__(self, run: Path, start_step: int, total_steps: int, hyperparameters: Mapping[str, Any]) -> None:
        hyperparameters = {name: _text(value) for name, value in hyperparameters.items()}
        self._run = run
        self._total = total_steps
        try:
            _cut_back(run, start_step)
            self._metrics = (run / METRICS).open("a", encoding="utf-8")
            self._board = SummaryWriter(str(run), purge_step=start_step + 1)
        except OSError as error:
            raise write_error(run / METRICS, error) from None
        if start_step == 0:
            self._board.add_text("config", "\n".join(f"    {name}: {value}" for name, value in hyperparameters.items()))
        self._hyperparameters = dict(hyperparameters)
        self._console = Console(stderr=True)
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[rate]}"),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=self._console,
            disable=not self._console.is_terminal,
        )
        self._task = self._progress.add_task("training", total=total_steps, completed=start_step, rate="")
        self._progress.start()

    def advance(self, step: int) -> None:
        """Move the progress bar."""
        self._progress.update(self._task, completed=step)

    def scalars(self, step: int, values: Mapping[str, float], *, extra: Mapping[str, float] | None = None) -> None:
        """Record named values after ``step`` steps; ``extra`` goes to metrics.jsonl alone.

        Values that are not finite are left out: JSON has no word for them.
        """
        values = {name: value for name, value in values.items() if math.isfinite(value)}
        line = {"step": step, **(extra or {}), **{name: round(value, 6) for name, value in values.items()}}
        self._write(line)
        for name, value in values.items():
            self._board.add_scalar(name, value, step)
        if "images_per_second" in values:
            rate = f"{values['images_per_second']:.1f} images/s"
            self._progress.update(self._task, rate=rate)
        if not self._console.is_terminal:
            text = "  ".join(f"{name} {value:.4g}" for name, value in values.items())
            self._console.print(f"step {step}/{self._total}  {text}", soft_wrap=True, highlight=False)

    def sight(self, step: int, sight: Sight) -> None:
        """Record what the watch saw, and tell the user its warnings."""
        if sight.values:
            self.scalars(step, sight.values)
        for warning in sight.warnings:
            self._write({"step": step, "warning": warning})
            self.say(f"Warning, step {step}: {warning}")

    def _write(self, line: Mapping[str, Any]) -> None:
        try:
            self._metrics.write(json.dumps(line, allow_nan=False) + "\n")
            self._metrics.flush()
        except OSError as error:
            raise write_error(self._run / METRICS, error) from None

    def say(self, message: str) -> None:
        """Print a line for the user, above the progress bar."""
        self._console.print(message, soft_wrap=True, highlight=False, markup=False)

    def samples(self, step: int, sheet: np.ndarray) -> None:
        """Write a sample sheet, uint8 [H, W, 3], to samples/ and TensorBoard."""
        folder = self._run / "samples"
        try:
            with new_file(_sample(folder, step)) as aside:
                Image.fromarray(sheet).save(aside)
        except OSError as error:
            raise write_error(folder, error) from None
        self._board.add_image("samples", sheet, step, dataformats="HWC")

    def sync(self) -> None:
        """Bring all records to the disk; a checkpoint after this never knows more than they do."""
        self._board.flush()
        os.fsync(self._metrics.fileno())

    def final_metrics(self, values: Mapping[str, float]) -> None:
        """Put the run's best metrics beside its hyperparameters in TensorBoard."""
        flat = {k: v if isinstance(v, int | float | str | bool) else str(v) for k, v in self._hyperparameters.items()}
        self._board.add_hparams(flat, {f"best/{name}": value for name, value in values.items()}, run_name=".")

    def close(self) -> None:
        """Close files and the progress bar."""
        self._progress.stop()
        self._metrics.close()
        with contextlib.suppress(OSError):  # a full disk was reported, or everything was synced before
            self._board.close()


def _text(value: Any) -> Any:
    """Return text as TensorBoard takes it; a folder's name that is not UTF-8 becomes escapes."""
    return encode_text(value).decode() if isinstance(value, str) else value


def _sample(folder: Path, step: int) -> Path:
    return folder / f"step-{step:08d}.png"


def _cut_back(run: Path, start_step: int) -> None:
    """Remove the records after ``start_step``, and a last line that a killed process left torn."""
    path = run / METRICS
    if path.exists():
        kept = []
        for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
            try:
                if parse_json(line)["step"] <= start_step:
                    kept.append(line)
            except (LookupError, TypeError, ValueError):
                continue
        write_file(path, "".join(line + "\n" for line in kept))
    for sample in (run / "samples").glob("step-*.png"):
        if sample.stem.removeprefix("step-").isdigit() and int(sample.stem.removeprefix("step-")) > start_step:
            sample.unlink()
