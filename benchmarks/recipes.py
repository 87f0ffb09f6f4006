"""Which parts of today's recipes help pix2pix at equal CPU time?

    python -m benchmarks.recipes --data datasets/earth128 --out runs/recipes
    python -m benchmarks.recipes --step-time --only 2017,paired

Each recipe trains at 128 pixels on one thread for as many steps as take equal CPU time, by the costs of all recipes'
steps, which are measured in turn in one process and kept in OUT/costs.json. docs/recipes.md has the results.
"""

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
import tyro
from lightning_fabric import Fabric

from benchmarks.paired import compare
from benchmarks.step_tools import noise_batch
from benchmarks.variants import Variant, costs_table, equal_time, known_costs, selected, step_times
from ganvas.console import run_command
from ganvas.errors import UserError
from ganvas.training.config import with_options
from ganvas.training.trainer import GanNetworks
from pix2pix.config import preset
from pix2pix.networks import build_networks, generator_spec
from pix2pix.trainer import build_step

# All have the size of the demo. Terrain is lit from the northwest, so that a mirrored tile would be wrong.
COMMON: dict[str, Any] = {"preset": "demo", "augment": "none", "ema": 0.995}
OF_2017: dict[str, Any] = {
    "upsampling": "transpose",
    "norm": "batch",
    "discriminator_norm": "batch",
    "gan_loss": "vanilla",
    "r1": 0.0,
    "r2": 0.0,
    "lambda_l1": 300.0,
    "lambda_l1_end": None,
}
HINGE = OF_2017 | {
    "upsampling": "resize",
    "discriminator_norm": "none",
    "gan_loss": "hinge",
    "r1": 0.02,
    "lambda_l1": 50.0,
}
PAIRED = HINGE | {"gan_loss": "relativistic", "r2": 0.02}
RESUNET: dict[str, Any] = {"generator": "resunet", "base_channels": 16, "norm": "group", "upsampling": "transpose"}

RECIPES: dict[str, dict[str, Any]] = {
    "2017": OF_2017,
    "2017-augmented": OF_2017 | {"augment": "paper"},  # mirrored, too, unless dataset.json forbids it
    "hinge": HINGE,
    "hinge-augmented": HINGE | {"augment": "paper"},
    "hinge-transpose": HINGE | {"upsampling": "transpose"},
    "hinge-no-penalty": HINGE | {"r1": 0.0},
    "hinge-r1-0.2": HINGE | {"r1": 0.2},
    "hinge-spectral": HINGE | {"r1": 0.0, "discriminator_norm": "spectral"},
    "hinge-l1-20": HINGE | {"lambda_l1": 20.0},
    "hinge-l1-100-20": HINGE | {"lambda_l1": 100.0, "lambda_l1_end": 20.0},
    "hinge-features": HINGE | {"lambda_features": 10.0},
    "hinge-two-scales": HINGE | {"discriminator_scales": 2},
    "hinge-augment": HINGE | {"diff_augment": ("translation", "cutout")},
    "hinge-lr-d": HINGE | {"lr_discriminator": 4e-4},
    "hinge-group": HINGE | {"norm": "group"},
    "hinge-no-norm": HINGE | {"norm": "none"},
    "hinge-resunet": HINGE | RESUNET,
    "paired": PAIRED,
    "paired-r-0.1": PAIRED | {"r1": 0.1, "r2": 0.1},
    "paired-l1-20": PAIRED | {"lambda_l1": 20.0},
    "paired-features": PAIRED | {"lambda_features": 10.0},
    "paired-no-norm": PAIRED | {"norm": "none"},
    "paired-resunet": PAIRED | RESUNET,
}


@dataclass(frozen=True)
class Options:
    """Train recipes for equal time and compare them."""

    data: Path | None = None
    """Dataset of pairs."""
    out: Path | None = None
    """Folder of the runs, the figures and the sheet."""
    minutes: float = 5.0
    """CPU time of each."""
    seeds: int = 2
    """Seeds of each."""
    split: str = "test"
    """Split to measure on."""
    direction: Literal["a2b", "b2a"] = "a2b"
    """As for pix2pix train."""
    only: str | None = None
    """Recipes and seeds to train, separated by commas: hinge-seed0,hinge-r1*."""
    step_time: bool = False
    """Measure the time of a step of each recipe instead; needs no data."""


def main(arguments: list[str]) -> int:
    """Run the benchmark; return the exit code."""
    options = tyro.cli(Options, prog="python -m benchmarks.recipes", args=arguments)
    common = COMMON | {"direction": options.direction}
    variants = [
        Variant(name, common | changes, seed) for seed in range(options.seeds) for name, changes in RECIPES.items()
    ]
    chosen = selected(variants, options.only)
    if options.step_time:
        print(costs_table(step_costs({each.name: each.options for each in chosen})))
    elif options.data is None or options.out is None:
        raise UserError("--data and --out are missing: name the dataset, and the folder of the runs.")
    else:
        every = {name: common | changes for name, changes in RECIPES.items()}
        costs = known_costs(options.out / "costs.json", list(every), lambda: step_costs(every))
        steps = equal_time(chosen, costs, options.minutes)
        compare(chosen, options.data, options.out, split=options.split, steps=steps)
    return 0


def step_costs(recipes: Mapping[str, dict[str, Any]], rounds: int = 7) -> dict[str, float]:
    """Return the seconds of a step of each recipe, measured in turn on one thread."""
    torch.set_num_threads(1)
    steps = {}
    for name, given in recipes.items():
        options = dict(given)
        config = with_options(preset(options.pop("preset", None)), options)
        G, D = build_networks(generator_spec(config.data, config.model, "a", "b"), config)
        fabric = Fabric(accelerator="cpu", devices=1)
        networks = GanNetworks(fabric, {"G": G, "D": D}, {"a2b": "G"}, config.optimizer, config.hardware)
        steps[name] = build_step(config, networks), config.regularization.penalty_every
        shape = (config.data.batch_size, 3, config.data.image_size, config.data.image_size)
    return step_times(steps, noise_batch(("source", "target"), shape, "cpu"), rounds)


if __name__ == "__main__":
    sys.exit(run_command("benchmarks.recipes", main))
