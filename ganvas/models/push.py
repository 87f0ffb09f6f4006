"""Upload of a model folder with its card to the Hugging Face hub, from where ``hub:OWNER/NAME`` loads it."""

import re
import shutil
from collections.abc import Callable
from pathlib import Path

from ganvas.errors import UserError
from ganvas.files import temporary_folder, write_file
from ganvas.json_files import read_json
from ganvas.models.folder import CARD, CONFIG, SHARED, find_model, is_checkpoint, load_model, read_model
from ganvas.models.hub import upload

LICENSE = re.compile(r"[a-z0-9][a-z0-9.-]*")


def push_to_hub(
    path: Path | str,
    name: str,
    *,
    license: str | None = None,
    private: bool = False,
    load: Callable[[Path], object] = load_model,
    task: str = "image-to-image",
) -> str:
    """Upload a model and its card to the Hugging Face hub; "hub:OWNER/NAME" then works wherever a model is given.

    Args:
        path: A run or a model folder.
        name: OWNER/NAME: you or your organization, and the model. The repository is created if needed.
        license: License of the weights as the hub abbreviates it: "mit", "apache-2.0", "cc-by-4.0" …
        private: Whether a new repository is private.
        load: Loads the model, so that no damaged one is uploaded; for a digit model, ``dcgan.model.load_sampler``.
        task: The hub's name for what the model does (``pipeline_tag``).

    Returns:
        The URL of the repository.

    Raises:
        UserError: The model is missing, damaged or a checkpoint, it has no card, or the hub refuses it.

    Example:
        ```python
        ganvas.push_to_hub("runs/earth", "someone/earth", license="mit")
        ganvas.load("hub:someone/earth")
        ```
    """
    path = Path(path)
    if is_checkpoint(path):
        raise UserError(f"{path}: is a checkpoint. Give the run: its model is the best by validation.")
    if license is not None and not LICENSE.fullmatch(license):
        raise UserError(f"license {license!r}: give the hub's abbreviation, such as mit or cc-by-4.0.")
    with temporary_folder("ganvas-push-") as copy:  # a training may replace the model during the upload
        read_model(path, lambda: _copy(find_model(path), copy))
        try:
            load(copy)
        except UserError as error:
            raise UserError(str(error).replace(str(copy), str(find_model(path)))) from None
        kind = read_json(copy / CONFIG, "a model's config")["kind"]
        card = _read_card(copy / CARD, find_model(path)).replace('"this folder"', f'"hub:{name}"')
        card = _with_metadata(card.replace("THIS_FOLDER", f"hub:{name}"), kind, task, license)
        write_file(copy / CARD, card)
        return upload(name, copy, SHARED, private=private)


def _copy(folder: Path, copy: Path) -> None:
    for file in SHARED:
        (copy / file).unlink(missing_ok=True)
        if (folder / file).is_file():
            shutil.copyfile(folder / file, copy / file)


def _read_card(path: Path, folder: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = str(error).replace(str(path.parent), str(folder))
        raise UserError(
            f"{folder / path.name}: cannot be read ({reason}). Write a model card in Markdown: what the model does, "
            "what it was trained on, and its license. Models are not uploaded without one."
        ) from None


def _with_metadata(card: str, kind: str, task: str, license: str | None) -> str:
    """Put the hub's metadata in front of a card, unless it has its own."""
    if card.startswith("---"):
        if license is not None:
            raise UserError(f"license {license!r}: the card has metadata already. Write the license there.")
        return card
    lines = ["library_name: ganvas", f"pipeline_tag: {task}", f"tags: [ganvas, {kind}]"]
    if license is not None:
        lines.append(f"license: {license}")
    return "\n".join(["---", *lines, "---", "", card])
