"""Pairs made from photographs: B is the photograph, A is computed from it.

Photographs are copied unchanged. A photograph's split depends on its name alone, so adding photographs moves no others.
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
    find_images,
    name_in,
    prepare_output,
    suffix_for,
    write_folder,
)
from ganvas.errors import UserError, add_place_to_errors
from ganvas.files import read_regular
from ganvas.messages import join_first

if TYPE_CHECKING:
    import numpy as np

Fraction = Annotated[float, Interval(ge=0, lt=1)]


@dataclass(frozen=True)
class Recipe:
    """How A is made from a photograph.

    Attributes:
        make: Computes A from [H, W, 3] or [H, W, 1], uint8, uint16 or float32; None skips the photograph. Raises
            `UserError` where it cannot.
        domains: Names of A and B.
        skip_reason: Why photographs are skipped.
        settings: How A was made, for dataset.json.
    """

    make: Callable[[np.ndarray], np.ndarray | None]
    domains: tuple[str, str]
    skip_reason: str
    settings: Mapping[str, object]


def write_pairs(photos: Path, out: Path, recipe: Recipe, *, val: float, test: float, overwrite: bool) -> None:
    """Write a dataset of pairs (trainA, trainB and so on), and print a summary.

    Args:
        photos: Folder of photographs and subfolders; "sub/x" is named "sub_x".
        out: The folder to write.
        recipe: Makes A.
        val: Fraction of the photographs for validation.
        test: Fraction for testing.
        overwrite: Whether images in ``out`` may be replaced.

    Raises:
        UserError: There are no photographs, no train images remain, or the output exists or cannot be written; or,
            after the others are written, photographs failed.
    """
    from ganvas.data.decode import read_image
    from ganvas.data.raster import Raster

    if val + test >= 1:
        raise UserError(f"--val {val} and --test {test} leave no train images; their sum must be below 1.")
    out = prepare_output(out, [photos], overwrite=overwrite)
    names = by_name(photos, find_images(photos), lambda folder, path: name_in(folder, path).replace("/", "_"))
    splits = {name: split_of(name, val, test) for name in names}
    if "train" not in splits.values():
        raise UserError(f"{photos}: none of {len(names)} photographs falls to train. Lower --val and --test.")

    def make(name: str) -> Iterable[Output]:
        path = names[name]
        photo = read_image(path)
        if photo.shape[2] not in (1, 3):
            raise UserError(f"{path}: has {photo.shape[2]} channels; a photograph has 1 or 3.")
        with add_place_to_errors(path):
            source = recipe.make(photo)
        if source is not None:
            raster = Raster.from_array(source)
            yield f"{splits[name]}A/{name}{suffix_for(raster, '.png')}", raster
            yield f"{splits[name]}B/{name}{path.suffix}", read_regular(path)

    description = {
        "name": out.name,
        "domains": dict(zip("ab", recipe.domains, strict=True)),
        "direction": "a2b",
        "settings": {**recipe.settings, "val": val, "test": test},
    }
    skipped = write_folder(
        out, list(names), make, title="making pairs", skip_reason=recipe.skip_reason, description=description
    )
    counts = Counter(splits[name] for name in names.keys() - set(skipped))
    print(f"{out}: " + ", ".join(f"{counts[split]} {split}" for split in ("train", "val", "test")) + " pairs")
    print(f"A: {recipe.domains[0]}; B: {recipe.domains[1]}")
    if skipped:
        print(f"{len(skipped)} skipped: {recipe.skip_reason} ({join_first(skipped)})")
    print(f"pix2pix train --data {shlex.quote(str(out))} --out RUN")


def split_of(name: str, val: float, test: float) -> str:
    """Assign a split by a hash of an image's name.

    Args:
        name: Without suffix; the encoding of accents does not matter.
        val: Fraction of val.
        test: Fraction of test.
    """
    digest = hashlib.sha256(unicodedata.normalize("NFC", name).encode("utf-8", "surrogateescape")).digest()
    position = int.from_bytes(digest[:8], "big") / 2**64
    if position < test:
        return "test"
    return "val" if position < test + val else "train"
