"""The command ``receptive-field`` of the three modules: what a network's output sees, as a table and on a image.

Torch and Pillow are imported once the command runs, so that ``--help`` does not wait for them.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ganvas.errors import UserError

if TYPE_CHECKING:
    import numpy as np
    from rich.console import Console
    from torch import nn

    from ganvas.nn.receptive_field import LayerChoice, TracedLayer

PICTURE_SIZE = 256  # pixels a side for the table where no image is given; the papers' size


@dataclass(frozen=True)
class ReceptiveFieldOptions:
    """Show what an output of the discriminator sees, layer by layer, as a table and drawn on a image."""

    layers: int = 3
    """Stride-2 layers of the discriminator, 1 to 6; 0 is the pixel discriminator."""

    target: int | None = None
    """Wanted field in pixels: the layers whose field is nearest are taken, instead of --layers."""

    json: bool = False
    """Print one JSON object instead of tables."""

    image: Path | None = None
    """Image to draw one logit's field on; also the size that the tables count with."""

    out: Path | None = None
    """Where the drawing goes."""

    row: int | None = None
    """Row of the logit that is drawn, from 0; the middle one by default."""

    column: int | None = None
    """Column of that logit, from 0; the middle one by default."""


def run(
    options: ReceptiveFieldOptions,
    build_networks: Callable[[int], Mapping[str, nn.Module]],
    *,
    strided_only: bool = False,
) -> None:
    """Print the receptive fields of networks on standard output, and draw one logit's field if asked.

    Args:
        options: What the user asked for.
        build_networks: Gives the networks by name for a number of stride-2 layers (0: the pixel discriminator). The
            first one is the one that is drawn. Weights are never looked at: the device "meta" is enough.
        strided_only: The discriminator is its stride-2 layers alone, not a PatchGAN: what --target searches among.

    Raises:
        UserError: An option is out of its range, or a image cannot be read, is too small, or cannot be written.
    """
    from ganvas.data.decode import read_image
    from ganvas.data.encode import write_image
    from ganvas.nn.receptive_field import trace

    choice = _choose_layers(options, strided_only)
    networks = build_networks(choice.num_layers if choice else options.layers)
    picture = read_image(options.image) if options.image else None
    H, W = picture.shape[:2] if picture is not None else (PICTURE_SIZE, PICTURE_SIZE)
    try:
        tables = {name: trace(network, (H, W)) for name, network in networks.items()}
    except ValueError as error:
        raise UserError(f"{options.image}: {error}" if options.image else str(error)) from error

    if options.json:
        print(json.dumps(_as_json(options, choice, (H, W), tables), indent=2))
    else:
        _print_tables(options, choice, (H, W), tables)

    if picture is not None and options.out is not None:
        name, network = next(iter(networks.items()))
        rows, columns = tables[name][-1].output_size
        unit = _unit("--row", options.row, rows), _unit("--column", options.column, columns)
        write_image(options.out, _draw(picture, name, network, unit, (rows, columns)))


def _choose_layers(options: ReceptiveFieldOptions, strided_only: bool) -> LayerChoice | None:
    """Check the options, and find the layers for --target."""
    from ganvas.nn.receptive_field import MAX_LAYERS, layers_for, patchgan_layers, strided_layers

    fewest = 1 if strided_only else 0
    if not fewest <= options.layers <= MAX_LAYERS:
        pixel = "" if strided_only else ", and 0 for the pixel discriminator"
        raise UserError(f"--layers is {options.layers}; allowed are 1 to {MAX_LAYERS}{pixel}")
    if options.target is not None and options.target < 1:
        raise UserError(f"--target is {options.target}; a field has at least 1 pixel")
    if (options.image is None) != (options.out is None):
        raise UserError("--image and --out go together: the image to draw on, and the file for the drawing")
    if options.image is None and (options.row is not None or options.column is not None):
        raise UserError("--row and --column choose the logit to draw; give --image and --out, too")
    stack = strided_layers if strided_only else patchgan_layers
    return layers_for(options.target, stack, fewest) if options.target is not None else None


def _unit(option: str, unit: int | None, units: int) -> int:
    """Take the unit asked for, or the middle one."""
    if unit is not None and not 0 <= unit < units:
        raise UserError(f"{option} is {unit}; the output has 0 to {units - 1}")
    return units // 2 if unit is None else unit


def _draw(
    picture: np.ndarray, name: str, network: nn.Module, unit: tuple[int, int], output_size: tuple[int, int]
) -> np.ndarray:
    """Draw what one unit sees of ``image``: [H, W, C] of any type in, [H', W', 3] uint8 out."""
    from ganvas.cli.receptive_field_drawing import Box, draw_field
    from ganvas.nn.receptive_field import receptive_field

    (row, column), (rows, columns) = unit, output_size
    down, across = receptive_field(network, "height"), receptive_field(network, "width")
    y, x = down.span(row), across.span(column)
    if y is None or x is None:
        raise UserError(f"output {row}, {column} of the {name} sees nothing of the image; choose another")

    # A unit's cell lies around its center. Centers count from the middle of pixel 0, boxes from its edge.
    centre_y = down.first_centre + down.jump * row + 0.5
    centre_x = across.first_centre + across.jump * column + 0.5
    half_y, half_x = down.jump / 2, across.jump / 2
    seen = f"{y[1] - y[0] + 1} x {x[1] - x[0] + 1} pixels"
    return draw_field(
        picture,
        field=Box(x[0], y[0], x[1] + 1, y[1] + 1),
        cell=Box(centre_x - half_x, centre_y - half_y, centre_x + half_x, centre_y + half_y),
        title=f"{name}, output at row {row}, column {column} of {rows} x {columns}",
        field_label=f"sees {seen}: rows {y[0]} to {y[1]}, columns {x[0]} to {x[1]}",
        cell_label=f"its cell, {down.jump:g} x {across.jump:g} pixels",
    )


# ---- Tables ----


def _as_json(
    options: ReceptiveFieldOptions,
    choice: LayerChoice | None,
    picture_size: tuple[int, int],
    tables: Mapping[str, list[TracedLayer]],
) -> dict[str, object]:
    """Lay out everything that the tables say, and more exactly."""
    return {
        "layers": choice.num_layers if choice else options.layers,
        "target": options.target,
        "exact": choice.exact if choice else None,
        "picture_size": list(picture_size),
        "networks": {name: table_as_json(table) for name, table in tables.items()},
        "drawing": str(options.out) if options.out else None,
    }


def table_as_json(table: list[TracedLayer]) -> dict[str, object]:
    """Lay out a network's layers, and the field after the last one."""
    rows: list[dict[str, object]] = [
        {
            "name": layer.name,
            "layer": str(layer),
            "size": layer.field.size,
            "jump": layer.field.jump,
            "first_centre": layer.field.first_centre,
            "output_size": list(layer.output_size),
        }
        for layer in table
    ]
    last = {key: rows[-1][key] for key in ("size", "jump", "first_centre", "output_size")}
    return {**last, "layers": rows}


def _print_tables(
    options: ReceptiveFieldOptions,
    choice: LayerChoice | None,
    picture_size: tuple[int, int],
    tables: Mapping[str, list[TracedLayer]],
) -> None:
    """Print one table a network, for people."""
    from rich.console import Console

    console = Console(file=sys.stdout, highlight=False, markup=False)
    if choice:
        sees = f"{choice.size} x {choice.size} pixels"
        verdict = "exactly" if choice.exact else f"the nearest to {options.target}: no number of layers gives that"
        console.print(f"--layers {choice.num_layers} sees {sees}, {verdict}.\n", soft_wrap=True)
    for name, layers in tables.items():
        print_table(console, name, layers, picture_size)
        console.print(_in_words(name, layers[-1], picture_size), soft_wrap=True)
        console.print()
    if options.out:
        console.print(f"drawn: {options.out}", soft_wrap=True)


def print_table(console: Console, name: str, layers: list[TracedLayer], picture_size: tuple[int, int]) -> None:
    """Print a network's layers with the field, jump, first center and output size after each."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    H, W = picture_size
    table = Table(
        title=f"{name}, input {H} x {W}",
        title_justify="left",
        box=SIMPLE_HEAD,
        pad_edge=False,
        padding=(0, 1, 0, 0),
    )
    table.add_column("name")
    table.add_column("layer")
    for title in ("field", "jump", "first\ncentre", "output"):
        table.add_column(title, justify="right", no_wrap=True, vertical="bottom")
    for layer in layers:
        rows, columns = layer.output_size
        numbers = (f"{layer.field.size}", f"{layer.field.jump:g}", f"{layer.field.first_centre:g}")
        table.add_row(layer.name or "(itself)", str(layer), *numbers, f"{rows} x {columns}")
    console.print(table)


def _in_words(name: str, last: TracedLayer, picture_size: tuple[int, int]) -> str:
    size = last.field.size
    whole = ": more than the whole image" if size >= max(picture_size) else ""
    return f"Each output of the {name} sees {size} x {size} pixels{whole}."
