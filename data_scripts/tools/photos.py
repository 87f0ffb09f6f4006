"""Pairs made of photographs: the photograph is B, and what is computed from it is A.

Photographs are copied as they are. Each goes to train, val or test by its name alone, so that those added later move
none of the others.
"""

from __future__ import annotations

import hashlib
import shlex
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from annotated_types import Interval

from data_scripts.tools.folder_ops import (
    Output,
    by_name,
    find_pictures,
    name_in,
    require_room,
    suffix_for,
    write_folder,
)
from ganvas.errors import UserError
from ganvas.files import read_regular
from ganvas.messages import join_first

if TYPE_CHECKING:
    import numpy as np

    from ganvas.data.raster import Raster

Share = Annotated[float, Interval(ge=0, lt=1)]


@dataclass(frozen=True)
class Recipe:
    """How A is made of a photograph.

    Attributes:
        make: Makes A of [H, W, 3] or [H, W, 1], uint8, uint16 or float32; None leaves the photograph out. Raises
            `UserError` where it cannot.
        domains: What A and B show.
        left_out: What is said of photographs that are left out.
        settings: What dataset.json is to say of how A was made.
    """

    make: Callable[[np.ndarray], np.ndarray | None]
    domains: tuple[str, str]
    left_out: str
    settings: Mapping[str, object]


def write_pairs(photos: Path, out: Path, recipe: Recipe, *, val: float, test: float, overwrite: bool) -> None:
    """Write a dataset of pairs, trainA and trainB and so on, and say what it holds.

    Args:
        photos: Folder of photographs, with subfolders if any; "sub/x" is called "sub_x".
        out: The folder to write.
        recipe: Makes A.
        val: Share of the photographs that is held out for validation.
        test: Share that is held out to the end.
        overwrite: Whether images in ``out`` may go.

    Raises:
        UserError: No photographs, shares that leave nothing, an output that is in the way or cannot be written; or,
            when all others are written, photographs that could not be used.
    """
    if val + test >= 1:
        raise UserError(f"--val {val} and --test {test} leave nothing to train with; together they are less than 1.")
    out = require_room(out, [photos], overwrite=overwrite)
    names = by_name(photos, find_pictures(photos), flat_name)
    splits = {name: split_of(name, val, test) for name in names}
    if "train" not in splits.values():
        raise UserError(f"{photos}: of {len(names)} photographs, none falls to train. Lower --val and --test.")

    def make(name: str) -> Iterable[Output]:
        source = _made(names[name], recipe)
        if source is not None:
            yield f"{splits[name]}A/{name}{suffix_for(source, '.png')}", source
            yield f"{splits[name]}B/{name}{names[name].suffix}", read_regular(names[name])

    description = {
        "name": out.name,
        "domains": dict(zip("ab", recipe.domains, strict=True)),
        "direction": "a2b",
        "settings": {**recipe.settings, "val": val, "test": test},
    }
    absent = write_folder(
        out, list(names), make, doing="making pairs", left_out=recipe.left_out, description=description
    )
    counts = Counter(splits[name] for name in names.keys() - set(absent))
    print(f"{out}: " + ", ".join(f"{counts[split]} {split}" for split in ("train", "val", "test")) + " pairs")
    print(f"A: {recipe.domains[0]}; B: {recipe.domains[1]}")
    if absent:
        print(f"{len(absent)} left out: {recipe.left_out} ({join_first(absent)})")
    print(f"pix2pix train --data {shlex.quote(str(out))} --source-channels 1 --out RUN")


def _made(path: Path, recipe: Recipe) -> Raster | None:
    """Read a photograph and make A of it."""
    from ganvas.data.decode import read_image
    from ganvas.data.raster import Raster

    photo = read_image(path)
    if photo.shape[2] not in (1, 3):
        raise UserError(f"{path}: has {photo.shape[2]} channels; a photograph has 1 or 3.")
    try:
        made = recipe.make(photo)
    except UserError as error:
        raise UserError(f"{path}: {error}") from None
    return None if made is None else Raster.from_array(made)


def flat_name(folder: Path, path: Path) -> str:
    """Name a image by its place, without a folder: "sub_x"."""
    return name_in(folder, path).replace("/", "_")


def split_of(name: str, val: float, test: float) -> str:
    """Draw a split by a image's name alone.

    Args:
        name: Without suffix; systems that write its letters in different ways agree.
        val: Share of val.
        test: Share of test.
    """
    digest = hashlib.sha256(unicodedata.normalize("NFC", name).encode("utf-8", "surrogateescape")).digest()
    place = int.from_bytes(digest[:8], "big") / 2**64
    if place < test:
        return "test"
    return "val" if place < test + val else "train"
