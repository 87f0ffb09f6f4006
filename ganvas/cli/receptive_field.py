"""The command ``receptive-field``: the receptive fields of a network, as a table and drawn on an image.

Torch and Pillow are imported when the command runs, so that ``--help`` does not wait for them.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from ganvas.errors import UserError
from ganvas.options import optional

if TYPE_CHECKING:
    import numpy as np
    from rich.console import Console
    from torch import nn

    from ganvas.nn.receptive_field import TracedLayer

IMAGE_SIZE = 256  # pixels a side for the table where no image is given; the papers' size


@dataclass(frozen=True)
class ReceptiveFieldOptions:
    """Show what an output of the discriminator sees, layer by layer, as a table and drawn on an image.

    Attributes:
        layers: Stride-2 layers of the discriminator, 1 to 6; 0 is the pixel discriminator.
        target: Wanted receptive field in pixels; the nearest number of layers is used instead of --layers.
        json: Print one JSON object instead of tables.
        image: Image to draw one logit's receptive field on; also the size that the tables are for.
        out: File of the drawing.
        row: Row of the logit that is drawn, from 0; the middle one by default.
        column: Column of that logit, from 0; the middle one by default.
    """

    layers: int = 3
    target: Annotated[int | None, optional("INT")] = None
    json: bool = False
    image: Annotated[Path | None, optional("FILE")] = None
    out: Annotated[Path | None, optional("DIR")] = None
    row: Annotated[int | None, optional("INT")] = None
    column: Annotated[int | None, optional("INT")] = None


def run(
    options: ReceptiveFieldOptions,
    build_networks: Callable[[int], Mapping[str, nn.Module]],
    *,
    strided_only: bool = False,
) -> None:
    """Print the receptive fields of networks on standard output, and draw one logit's on an image if asked.

    Args:
        options: The command's options.
        build_networks: Builds the networks by name for a number of stride-2 layers (0: the pixel discriminator). The
            first one is drawn. Weights are not used: the device "meta" is enough.
        strided_only: The discriminator has stride-2 layers only, unlike a PatchGAN: 0 layers are none.

    Raises:
        UserError: An option is out of range, or an image cannot be read, is too small, or cannot be written.
    """
    from ganvas.data.decode import read_image
    from ganvas.data.encode import write_image
    from ganvas.nn.receptive_field import trace

    choice = _check_options(options, lambda layers: next(iter(build_networks(layers).values())), strided_only)
    num_layers = options.layers if choice is None else choice[0]
    networks = build_networks(num_layers)
    image = read_image(options.image) if options.image else None
    H, W = image.shape[:2] if image is not None else (IMAGE_SIZE, IMAGE_SIZE)
    try:
        tables = {name: trace(network, (H, W)) for name, network in networks.items()}
    except ValueError as error:
        raise UserError(f"{options.image}: {error}" if options.image else str(error)) from error

    if options.json:
        record = {
            "layers": num_layers,
            "target": options.target,
            "exact": choice[1] == options.target if choice else None,
            "picture_size": [H, W],
            "networks": {name: table_as_json(table) for name, table in tables.items()},
            "drawing": str(options.out) if options.out else None,
        }
        print(json.dumps(record, indent=2))
    else:
        _print_tables(options, choice, (H, W), tables)

    if image is not None and options.out is not None:
        name, network = next(iter(networks.items()))
        rows, columns = tables[name][-1].output_size
        unit = _unit("--row", options.row, rows), _unit("--column", options.column, columns)
        write_image(options.out, _draw(image, name, network, unit, (rows, columns)))


def _check_options(
    options: ReceptiveFieldOptions, build: Callable[[int], nn.Module], strided_only: bool
) -> tuple[int, int] | None:
    """Check the options; return the number of layers for --target and their receptive field."""
    from ganvas.nn.receptive_field import MAX_LAYERS, find_num_layers

    min_layers = 1 if strided_only else 0
    if not min_layers <= options.layers <= MAX_LAYERS:
        pixel = "" if strided_only else ", and 0 for the pixel discriminator"
        raise UserError(f"--layers is {options.layers}; allowed are 1 to {MAX_LAYERS}{pixel}")
    if options.target is not None and options.target < 1:
        raise UserError(f"--target is {options.target}; a receptive field has at least 1 pixel")
    if (options.image is None) != (options.out is None):
        raise UserError("--image and --out go together: the image to draw on, and the file for the drawing")
    if options.image is None and (options.row is not None or options.column is not None):
        raise UserError("--row and --column choose the logit to draw; give --image and --out, too")
    if options.target is None:
        return None
    return find_num_layers(options.target, build, min_layers=min_layers)


def _unit(option: str, unit: int | None, units: int) -> int:
    """Return the unit asked for, or the middle one."""
    if unit is not None and not 0 <= unit < units:
        raise UserError(f"{option} is {unit}; the output has 0 to {units - 1}")
    return units // 2 if unit is None else unit


def _draw(
    image: np.ndarray, name: str, network: nn.Module, unit: tuple[int, int], output_size: tuple[int, int]
) -> np.ndarray:
    """Draw the receptive field of one unit on ``image``: [H, W, C] of any dtype to [H', W', 3] uint8."""
    from ganvas.cli.receptive_field_drawing import Box, draw_receptive_field
    from ganvas.nn.receptive_field import receptive_field

    (row, column), (rows, columns) = unit, output_size
    vertical, horizontal = receptive_field(network, "height"), receptive_field(network, "width")
    y, x = vertical.span(row), horizontal.span(column)
    if y is None or x is None:
        raise UserError(f"output {row}, {column} of the {name} sees nothing of the image; choose another")

    # A unit's cell is centered on its receptive field. Centers count from the center of pixel 0, boxes from its edge.
    center_y = vertical.first_center + vertical.jump * row + 0.5
    center_x = horizontal.first_center + horizontal.jump * column + 0.5
    half_y, half_x = vertical.jump / 2, horizontal.jump / 2
    size = f"{y[1] - y[0] + 1} x {x[1] - x[0] + 1} pixels"
    return draw_receptive_field(
        image,
        receptive_field=Box(x[0], y[0], x[1] + 1, y[1] + 1),
        cell=Box(center_x - half_x, center_y - half_y, center_x + half_x, center_y + half_y),
        title=f"{name}, output at row {row}, column {column} of {rows} x {columns}",
        receptive_field_label=f"sees {size}: rows {y[0]} to {y[1]}, columns {x[0]} to {x[1]}",
        cell_label=f"its cell, {vertical.jump:g} x {horizontal.jump:g} pixels",
    )


def table_as_json(table: list[TracedLayer]) -> dict[str, object]:
    """Return the layers of a network as JSON values, with the receptive field after the last one."""
    rows: list[dict[str, object]] = [
        {
            "name": layer.name,
            "layer": str(layer),
            "size": layer.receptive_field.size,
            "jump": layer.receptive_field.jump,
            "first_centre": layer.receptive_field.first_center,
            "output_size": list(layer.output_size),
        }
        for layer in table
    ]
    last = {key: rows[-1][key] for key in ("size", "jump", "first_centre", "output_size")}
    return {**last, "layers": rows}


def _print_tables(
    options: ReceptiveFieldOptions,
    choice: tuple[int, int] | None,
    image_size: tuple[int, int],
    tables: Mapping[str, list[TracedLayer]],
) -> None:
    """Print one table for each network."""
    from rich.console import Console

    console = Console(file=sys.stdout, highlight=False, markup=False)
    if choice:
        num_layers, size = choice
        nearest = f"the nearest to {options.target}: no number of layers gives that"
        verdict = "exactly" if size == options.target else nearest
        console.print(f"--layers {num_layers} sees {size} x {size} pixels, {verdict}.\n", soft_wrap=True)
    for name, layers in tables.items():
        print_table(console, name, layers, image_size)
        size = layers[-1].receptive_field.size
        more = ": more than the whole image" if size >= max(image_size) else ""
        console.print(f"Each output of the {name} sees {size} x {size} pixels{more}.", soft_wrap=True)
        console.print()
    if options.out:
        console.print(f"drawn: {options.out}", soft_wrap=True)


def print_table(console: Console, name: str, layers: list[TracedLayer], image_size: tuple[int, int]) -> None:
    """Print a network's layers with the receptive field, jump, first center and output size after each."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    H, W = image_size
    table = Table(
        title=f"{name}, input {H} x {W}",
        title_justify="left",
        box=SIMPLE_HEAD,
        pad_edge=False,
        padding=(0, 1, 0, 0),
    )
    table.add_column("name")
    table.add_column("layer")
    for title in ("field", "jump", "first\ncenter", "output"):
        table.add_column(title, justify="right", no_wrap=True, vertical="bottom")
    for layer in layers:
        rows, columns = layer.output_size
        seen = layer.receptive_field
        numbers = (f"{seen.size}", f"{seen.jump:g}", f"{seen.first_center:g}")
        table.add_row(layer.name or "(itself)", str(layer), *numbers, f"{rows} x {columns}")
    console.print(table)
