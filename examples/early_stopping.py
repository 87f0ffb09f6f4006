"""Stop a training when the validation has not improved for some checkpoints.

python examples/early_stopping.py datasets/earth128 runs/early-stopping
"""

import argparse
from pathlib import Path

import pix2pix
from ganvas.training.callbacks import StopTraining


class EarlyStopping:
    """Stops a training after ``patience`` validations without a better value of a metric."""

    def __init__(self, metric: str = "val_l1", patience: int = 3) -> None:
        self.metric, self.patience = metric, patience
        self.best, self.waited = float("inf"), 0

    def on_log(self, step: int, metrics: dict[str, float]) -> None:
        """Compare the metric with the best one so far."""
        if self.metric not in metrics:
            return  # a line of losses
        self.waited = 0 if metrics[self.metric] < self.best else self.waited + 1
        self.best = min(self.best, metrics[self.metric])
        if self.waited >= self.patience:
            raise StopTraining


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="dataset of pairs")
    parser.add_argument("out", type=Path, help="folder of the run")
    parser.add_argument("--steps", type=int, default=500)
    parser.add_argument("--patience", type=int, default=3)
    arguments = parser.parse_args()

    result = pix2pix.train(
        arguments.data,
        out=arguments.out,
        preset="demo",
        steps=arguments.steps,
        save_every_steps=max(1, arguments.steps // 10),
        callbacks=[EarlyStopping(patience=arguments.patience)],
    )
    print(f"{'Complete' if result.complete else 'Stopped early'} after {result.step} steps.")
