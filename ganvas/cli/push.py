"""The command ``push`` of the modules: a model folder to the Hugging Face hub."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import tyro


@dataclass(frozen=True)
class PushOptions:
    """Share a model on the Hugging Face hub, with its card. hub:OWNER/NAME then stands for it in every command."""

    model: tyro.conf.Positional[Path]
    """A run or a model folder."""
    name: tyro.conf.Positional[str]
    """OWNER/NAME: you or your organisation, and the model. It is made if it is not there."""
    licence: str | None = None
    """Licence of the weights, as the hub abbreviates it: mit, apache-2.0, cc-by-4.0 …; the card says it."""
    private: bool = False
    """Make a new repository private."""
    json: bool = False
    """Print one JSON object on standard output and nothing else there."""


def run_push(options: PushOptions, load: Callable[[Path], object]) -> int:
    """Share a model; give the exit code.

    Args:
        options: What the command was given.
        load: Reads a model of the module's kind.

    Raises:
        UserError: As `ganvas.models.push.push_to_hub`.
    """
    from ganvas.models.push import push_to_hub

    address = push_to_hub(options.model, options.name, licence=options.licence, private=options.private, load=load)
    print(json.dumps({"pushed": address}) if options.json else f"{address}\nTo use it: hub:{options.name}")
    return 0
