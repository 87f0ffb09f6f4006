"""The command ``dcgan``: so far the receptive field of stride-2 stacks; training comes with the next release."""

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
    return run_command("dcgan", _run, argv)


def _run(arguments: list[str]) -> int:
    options = tyro.extras.subcommand_cli_from_dict(
        {"receptive-field": ReceptiveFieldOptions},
        prog="dcgan",
        description="Digits from noise.",
        args=arguments,
    )
    run(options, build_networks, strided_only=True)
    return 0


def build_networks(num_layers: int) -> "Mapping[str, nn.Module]":
    """Build what the convolutions of a DCGAN discriminator look like: stride-2 4x4 layers (Radford et al. 2016)."""
    import torch
    from torch import nn

    from ganvas.nn.layers import DownBlock

    with torch.device("meta"):
        return {"discriminator": nn.Sequential(*(DownBlock(1, 1, norm="none") for _ in range(num_layers)))}


if __name__ == "__main__":
    sys.exit(main())
