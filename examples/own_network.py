"""Train pix2pix with a generator of your own, then load the model.

python examples/own_network.py datasets/earth128 runs/own-network
"""

import argparse
from pathlib import Path

from torch import Tensor, nn

import ganvas
import pix2pix


class SmallGenerator(nn.Module):
    """Three convolutions at full resolution: [N, 3, H, W] to [N, 3, H, W], both in [-1, 1]."""

    def __init__(self, channels: int = 16) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(3, channels, 5, padding=2),
            nn.LeakyReLU(0.2),
            nn.Conv2d(channels, channels, 5, padding=2),
            nn.LeakyReLU(0.2),
            nn.Conv2d(channels, 3, 5, padding=2),
            nn.Tanh(),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Translate [N, 3, H, W] in [-1, 1]."""
        return self.layers(x)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="paired dataset")
    parser.add_argument("out", type=Path, help="folder to write the run to")
    parser.add_argument("--steps", type=int, default=500, help="training steps")
    arguments = parser.parse_args()

    pix2pix.train(
        arguments.data, out=arguments.out, preset="demo", steps=arguments.steps, ema=0.0, generator=SmallGenerator()
    )
    model = ganvas.load(arguments.out, generator=SmallGenerator())
    print(f"Loaded a model that translates {model.spec.source} to {model.spec.target}.")
