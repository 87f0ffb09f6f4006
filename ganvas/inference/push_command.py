"""The command ``push`` of the modules: a model folder to the Hugging Face hub."""

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import tyro

from ganvas.errors import UserError

LICENCE = re.compile(r"[a-z0-9][a-z0-9.-]*")
TASKS = {
    "pix2pix": "image-to-image",
    "cyclegan": "image-to-image",
    "dcgan": "unconditional-image-generation",
}  # the hub's words


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
        load: Reads a model of the module's kind, so that none that is damaged is shared.

    Raises:
        UserError: There is no whole model, it has no card, it is a checkpoint, or the hub does not take it.
    """
    from ganvas.files import read_json
    from ganvas.hub import push
    from ganvas.modelfile import CARD, CONFIG, SHARED, find_model, is_checkpoint

    if is_checkpoint(options.model):
        raise UserError(f"{options.model}: is a checkpoint. Give the run: its model is the best by validation.")
    if options.licence is not None and not LICENCE.fullmatch(options.licence):
        raise UserError(f"--licence {options.licence}: give the hub's abbreviation, such as mit or cc-by-4.0.")
    load(options.model)
    folder = find_model(options.model)
    kind = read_json(folder / CONFIG, "a model's config")["kind"]
    card = card_for_hub(_read_card(folder / CARD), options.name, kind, options.licence)
    files: dict[str, Path | bytes] = {name: folder / name for name in SHARED if (folder / name).is_file()}
    address = push(options.name, {**files, CARD: card.encode()}, private=options.private)
    print(json.dumps({"pushed": address}) if options.json else f"{address}\nTo use it: hub:{options.name}")
    return 0


def _read_card(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read ({error}). Write a card, in Markdown: what the model is, "
                        "what it was trained on and its licence. None is shared without.") from None  # fmt: skip


def card_for_hub(card: str, name: str, kind: str, licence: str | None) -> str:
    """Put the hub's metadata before a model card, and the model's name into its examples.

    Args:
        card: Markdown. One that has metadata already keeps them.
        name: OWNER/NAME.
        kind: Of the model: pix2pix, cyclegan or dcgan.
        licence: The hub's abbreviation.

    Raises:
        UserError: The card has metadata, and a licence was given.
    """
    card = card.replace('"this folder"', f'"hub:{name}"').replace("THIS_FOLDER", f"hub:{name}")
    if card.startswith("---"):
        if licence is not None:
            raise UserError(f"--licence {licence}: the card has metadata already. Write the licence there.")
        return card
    lines = ["library_name: ganvas", f"pipeline_tag: {TASKS[kind]}", f"tags: [ganvas, {kind}]"]
    if licence is not None:
        lines.append(f"license: {licence}")
    return "\n".join(["---", *lines, "---", "", card])
