"""Train pix2pix with an additional loss of your own: image gradients that match the target's, for sharper edges.

python examples/own_loss.py datasets/earth128 runs/own-loss
"""

import argparse
from pathlib import Path

from torch import Tensor

import pix2pix


def gradient_loss(source: Tensor, output: Tensor, target: Tensor) -> Tensor:
    """Return the L1 distance of horizontal and vertical gradients of [N, C, H, W] images in [-1, 1]."""
    difference = output - target
    return difference.diff(dim=2).abs().mean() + difference.diff(dim=3).abs().mean()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="paired dataset")
    parser.add_argument("out", type=Path, help="folder to write the run to")
    parser.add_argument("--steps", type=int, default=500, help="training steps")
    arguments = parser.parse_args()

    result = pix2pix.train(
        arguments.data,
        out=arguments.out,
        preset="demo",
        steps=arguments.steps,
        losses={"gradient": (50.0, gradient_loss)},
    )
    print(f"Trained {result.step} steps; metrics.jsonl contains loss_g_gradient.")
