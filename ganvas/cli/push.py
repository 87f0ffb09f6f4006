"""The command ``push``: a model folder to the Hugging Face hub."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from ganvas.options import optional


@dataclass(frozen=True)
class PushOptions:
    """Upload a model and its card to the Hugging Face hub. hub:OWNER/NAME then works wherever a model is given.

    Attributes:
        model: A run or a model folder.
        name: You or your organization, and the model. The repository is created if needed.
        license: License of the weights as the hub abbreviates it, for the card: mit, apache-2.0, cc-by-4.0 …
        private: Make a new repository private.
        json: Print one JSON object on standard output and nothing else there.
    """

    model: tyro.conf.Positional[Annotated[Path, tyro.conf.arg(metavar="MODEL")]]
    name: tyro.conf.Positional[Annotated[str, tyro.conf.arg(metavar="OWNER/NAME")]]
    license: Annotated[str | None, optional("LICENSE")] = None
    private: bool = False
    json: bool = False


def run_push(
    options: PushOptions, *, load: Callable[[Path], object] | None = None, task: str = "image-to-image"
) -> int:
    """Upload a model and return the exit code; ``load`` and ``task`` are those of `push_to_hub`.

    Raises:
        UserError: As `ganvas.models.push.push_to_hub`.
    """
    from ganvas.models.folder import load_model
    from ganvas.models.push import push_to_hub

    url = push_to_hub(
        options.model,
        options.name,
        license=options.license,
        private=options.private,
        load=load or load_model,
        task=task,
    )
    print(json.dumps({"pushed": url}) if options.json else f"{url}\nTo use it: hub:{options.name}")
    return 0
