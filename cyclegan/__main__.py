"""The command ``cyclegan``: so far the receptive fields of its networks; training comes with the next release."""

import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import tyro

from ganvas.console import run_command
from ganvas.receptive_field_command import ReceptiveFieldOptions, run

if TYPE_CHECKING:
    from torch import nn


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; give its exit code."""
    return run_command("cyclegan", _run, argv)


def _run(arguments: list[str]) -> int:
    options = tyro.extras.subcommand_cli_from_dict(
        {"receptive-field": ReceptiveFieldOptions},
        prog="cyclegan",
        description="Image translation learned without pairs.",
        args=arguments,
    )
    run(options, build_networks)
    return 0


def build_networks(num_layers: int) -> "Mapping[str, nn.Module]":
    """Build the discriminator of one domain (0 layers: the pixel discriminator) and the generator, without weights."""
    import torch

    from ganvas.nn.patchgan import PatchDiscriminator, PixelDiscriminator
    from ganvas.nn.resnet import ResNetGenerator

    with torch.device("meta"):
        discriminator = (
            PatchDiscriminator(3, num_layers=num_layers, norm="instance")
            if num_layers
            else PixelDiscriminator(3, norm="instance")
        )
        return {"discriminator": discriminator, "generator": ResNetGenerator()}


if __name__ == "__main__":
    sys.exit(main())
