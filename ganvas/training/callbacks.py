"""Callbacks of a training, and the loggers that come with ganvas.

A callback is any object with some of these methods; they are called in the first process only:

    on_train_start()
    on_log(step, metrics)         after each line of metrics.jsonl; metrics is a dict of floats
    on_images(step, image)        after each sample image, uint8 [H, W, 3]
    on_checkpoint(step, path)     after each checkpoint
    on_train_end(result)          with a `ganvas.training.run.TrainResult`

Raise `StopTraining` in one of them to end the training early; everything is saved, and the run can be resumed.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

METHODS = ("on_train_start", "on_log", "on_images", "on_checkpoint", "on_train_end")


class StopTraining(Exception):
    """Raised by a callback to end the training after the current step.

    Example:
        >>> class StopAfter:
        ...     def on_log(self, step, metrics):
        ...         if step >= 1000:
        ...             raise StopTraining
    """


class Callbacks:
    """Calls all callbacks in turn.

    Attributes:
        stop_requested: Whether one of them raised `StopTraining`.
    """

    def __init__(self, callbacks: Sequence[object]) -> None:
        self._callbacks = callbacks
        self.stop_requested = False

    def notify(self, method: str, *arguments: object) -> None:
        """Call one of `METHODS` of all callbacks that have it."""
        for callback in self._callbacks:
            try:
                if function := getattr(callback, method, None):
                    function(*arguments)
            except StopTraining:
                self.stop_requested = True


def require_callbacks(callbacks: Sequence[object]) -> None:
    """Check that objects are callbacks.

    Raises:
        TypeError: One has none of the methods.
    """
    for callback in callbacks:
        if not any(callable(getattr(callback, method, None)) for method in METHODS):
            raise TypeError(f"{callback!r} is not a callback: it has none of {', '.join(METHODS)}")


class TensorBoard:
    """Writes metrics, sample images and hyperparameters for TensorBoard; every run has one.

    Args:
        folder: Folder of the run.
        start_step: Later records of an earlier attempt are hidden.
        hyperparameters: Flat options of the run.
    """

    def __init__(self, folder: Path, start_step: int, hyperparameters: Mapping[str, Any]) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._writer = SummaryWriter(str(folder), purge_step=start_step + 1)
        simple = (int, float, str, bool)
        self._hyperparameters = {k: v if isinstance(v, simple) else str(v) for k, v in hyperparameters.items()}
        if start_step == 0:
            lines = (f"    {name}: {value}" for name, value in hyperparameters.items())
            self._writer.add_text("config", "\n".join(lines))

    def on_log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Add a point to each curve."""
        for name, value in metrics.items():
            self._writer.add_scalar(name, value, step)

    def on_images(self, step: int, image: np.ndarray) -> None:
        """Add a sample image."""
        self._writer.add_image("samples", image, step, dataformats="HWC")

    def add_final_metrics(self, metrics: Mapping[str, float]) -> None:
        """Add the best metrics to the table of hyperparameters."""
        best = {f"best/{name}": value for name, value in metrics.items()}
        self._writer.add_hparams(self._hyperparameters, best, run_name=".")

    def flush(self) -> None:
        """Write everything to the disk."""
        self._writer.flush()

    def close(self) -> None:
        """Close the file."""
        self._writer.close()


class WandbLogger:
    """Logs metrics and sample images to Weights & Biases (``pip install wandb``).

    Args:
        options: Options of ``wandb.init``, such as project and name.

    Example:
        ```python
        pix2pix.train("datasets/earth", out="run", callbacks=[WandbLogger(project="earth")])
        ```
    """

    def __init__(self, **options: Any) -> None:
        import wandb  # type: ignore[import-not-found]

        self._wandb, self._run = wandb, wandb.init(**options)

    def on_log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Log metrics."""
        self._run.log(dict(metrics), step=step)

    def on_images(self, step: int, image: np.ndarray) -> None:
        """Log a sample image."""
        self._run.log({"samples": self._wandb.Image(image)}, step=step)

    def on_train_end(self, result: object) -> None:
        """Finish the run."""
        self._run.finish()


class MLflowLogger:
    """Logs metrics and sample images to MLflow (``pip install mlflow``).

    Args:
        options: Options of ``mlflow.start_run``, such as run_name.

    Example:
        ```python
        pix2pix.train("datasets/earth", out="run", callbacks=[MLflowLogger(run_name="earth")])
        ```
    """

    def __init__(self, **options: Any) -> None:
        import mlflow  # type: ignore[import-not-found]

        self._mlflow = mlflow
        mlflow.start_run(**options)

    def on_log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Log metrics."""
        self._mlflow.log_metrics(dict(metrics), step=step)

    def on_images(self, step: int, image: np.ndarray) -> None:
        """Log a sample image."""
        self._mlflow.log_image(image, f"samples/step-{step:08d}.png")

    def on_train_end(self, result: object) -> None:
        """End the run."""
        self._mlflow.end_run()
