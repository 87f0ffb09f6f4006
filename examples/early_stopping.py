"""Stop a training run when a validation metric has stopped improving.

python examples/early_stopping.py datasets/earth128 runs/early-stopping
"""

import argparse
from pathlib import Path

import pix2pix
from ganvas import StopTraining


class EarlyStopping:
    """Callback that stops a training run after ``patience`` validations without a lower value of a metric."""

    def __init__(self, metric: str = "val_l1", patience: int = 3) -> None:
        self.metric, self.patience = metric, patience
        self.best, self.waited = float("inf"), 0

    def on_log(self, step: int, metrics: dict[str, float]) -> None:
        """Compare the metric with its best value so far."""
        if self.metric not in metrics:
            return  # this line of the log holds losses
        self.waited = 0 if metrics[self.metric] < self.best else self.waited + 1
        self.best = min(self.best, metrics[self.metric])
        if self.waited >= self.patience:
            raise StopTraining


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="paired dataset")
    parser.add_argument("out", type=Path, help="folder to write the run to")
    parser.add_argument("--steps", type=int, default=500, help="training steps")
    parser.add_argument("--patience", type=int, default=3, help="validations without improvement")
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
