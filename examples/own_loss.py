"""Add a loss of your own: gradients of the output should match those of the target, for sharper edges.

python examples/own_loss.py datasets/earth128 runs/own-loss
"""

import argparse
from pathlib import Path

from torch import Tensor

import pix2pix


def gradient_loss(source: Tensor, output: Tensor, target: Tensor) -> Tensor:
    """Return the mean absolute difference of horizontal and vertical gradients; [N, C, H, W] in [-1, 1] each."""
    difference = output - target
    return difference.diff(dim=2).abs().mean() + difference.diff(dim=3).abs().mean()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="dataset of pairs")
    parser.add_argument("out", type=Path, help="folder of the run")
    parser.add_argument("--steps", type=int, default=500)
    arguments = parser.parse_args()

    result = pix2pix.train(
        arguments.data,
        out=arguments.out,
        preset="demo",
        steps=arguments.steps,
        losses={"gradient": (50.0, gradient_loss)},
    )
    print(f"Trained {result.step} steps; metrics.jsonl has loss_g_gradient.")
