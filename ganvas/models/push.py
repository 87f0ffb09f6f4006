"""A model folder to the Hugging Face hub, whole and with its card, from where ``hub:OWNER/NAME`` fetches it."""

import re
import shutil
from collections.abc import Callable
from pathlib import Path

from ganvas.errors import UserError
from ganvas.files import encode_text, read_json, temporary_folder
from ganvas.models.folder import CARD, CONFIG, SHARED, find_model, is_checkpoint, load_model, read_model
from ganvas.models.hub import push

LICENCE = re.compile(r"[a-z0-9][a-z0-9.-]*")
TASKS = {
    "pix2pix": "image-to-image",
    "cyclegan": "image-to-image",
    "dcgan": "unconditional-image-generation",
}  # the hub's words


def push_to_hub(
    path: Path | str,
    name: str,
    *,
    licence: str | None = None,
    private: bool = False,
    load: Callable[[Path], object] = load_model,
) -> str:
    """Share a model on the Hugging Face hub, with its card. "hub:OWNER/NAME" then stands for it everywhere.

    Args:
        path: A run or a model folder.
        name: OWNER/NAME: you or your organisation, and the model. It is made if it is not there.
        license: Of the weights, as the hub abbreviates it: "mit", "apache-2.0", "cc-by-4.0" …; the card says it.
        private: Whether a new repository is private.
        load: Reads the model, so that none that is damaged is shared; of a digit model, ``dcgan.model.load_sampler``.

    Returns:
        Its address.

    Raises:
        UserError: There is no whole model, it has no card, it is a checkpoint, or the hub does not take it.
    """
    path = Path(path)
    if is_checkpoint(path):
        raise UserError(f"{path}: is a checkpoint. Give the run: its model is the best by validation.")
    if licence is not None and not LICENCE.fullmatch(licence):
        raise UserError(f"license {licence!r}: give the hub's abbreviation, such as mit or cc-by-4.0.")
    with temporary_folder("ganvas-push-") as copy:  # a training may replace the model while it is sent
        read_model(path, lambda: _copy(find_model(path), copy))
        try:
            load(copy)
        except UserError as error:
            raise UserError(str(error).replace(str(copy), str(find_model(path)))) from None
        kind = read_json(copy / CONFIG, "a model's config")["kind"]
        card = card_for_hub(_read_card(copy / CARD, find_model(path)), name, kind, licence)
        files: dict[str, Path | bytes] = {file: copy / file for file in SHARED if (copy / file).is_file()}
        return push(name, {**files, CARD: encode_text(card)}, private=private)


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
        raise UserError(f"{folder / path.name}: cannot be read ({reason}). Write a card, in Markdown: what it is, "
                        "what it was trained on and its license. None is shared without.") from None  # fmt: skip


def card_for_hub(card: str, name: str, kind: str, licence: str | None) -> str:
    """Put the hub's metadata before a model card, and the model's name into its examples.

    Args:
        card: Markdown. One that has metadata already keeps them.
        name: OWNER/NAME.
        kind: Of the model: pix2pix, cyclegan or dcgan.
        license: The hub's abbreviation.

    Raises:
        UserError: The card has metadata, and a license was given.
    """
    card = card.replace('"this folder"', f'"hub:{name}"').replace("THIS_FOLDER", f"hub:{name}")
    if card.startswith("---"):
        if licence is not None:
            raise UserError(f"license {licence!r}: the card has metadata already. Write the license there.")
        return card
    lines = ["library_name: ganvas", f"pipeline_tag: {TASKS[kind]}", f"tags: [ganvas, {kind}]"]
    if licence is not None:
        lines.append(f"license: {licence}")
    return "\n".join(["---", *lines, "---", "", card])
