"""The drawing pad: brushes in the colors of the model's palette, on a canvas that draws without anti-aliasing.

Gradio's ImageEditor smooths the edges of strokes. A smoothed edge mixes two classes of a palette into a color that may
mean a third, so the pad is a canvas with a script of its own.
"""

import base64
from dataclasses import dataclass
from pathlib import Path

from jinja2 import Environment, PackageLoader

from ganvas.data.dataset_info import dataset_info
from ganvas.data.palette import Color, parse_palette
from ganvas.errors import UserError
from ganvas.models.folder import ModelConfig

PAPERS = ("water", "white")  # the colors that fill an empty canvas, where there is such a brush
LINES = ("river", "rivers")  # names in a palette that are lines, not areas
PNG_URL = "data:image/png;base64,"
TEMPLATES = Environment(
    loader=PackageLoader("ganvas.inference.web"), autoescape=True, trim_blocks=True, lstrip_blocks=True
)


@dataclass(frozen=True)
class Brush:
    """A color to draw with; ``is_line`` for what is a line on the map, such as a river."""

    name: str
    color: Color
    is_line: bool = False

    @property
    def code(self) -> str:
        """The color as CSS writes it."""
        return "#" + bytes(self.color).hex()


BLACK_ON_WHITE = (Brush("black", (0, 0, 0)), Brush("white", (255, 255, 255)))


def palette_brushes(config: ModelConfig, data: Path | None) -> list[Brush]:
    """Return brushes for the areas and then the lines of domain a, from the model's config or else its dataset.

    Raises:
        UserError: The legend or the lines of dataset.json are not colors by name.
    """
    if "a2b" not in config.networks:
        return []
    info = config.training if config.training.get("legend") or data is None else dataset_info(data)
    areas, lines = parse_palette(info), parse_palette({"legend": info.get("lines", {})})
    return [
        *(Brush(name, color, is_line=name in LINES) for name, color in areas.items() if name not in lines),
        *(Brush(name, color, is_line=True) for name, color in lines.items()),
    ]


def pad_html(brushes: list[Brush], side: int) -> str:
    """Return the pad with a canvas of ``side`` pixels a side; without brushes it draws in black and white."""
    shown = [
        # A brush of size 0 draws a line of one pixel.
        {"name": brush.name, "code": brush.code, "size": 0 if brush.is_line else side // 20}
        for brush in brushes or BLACK_ON_WHITE
    ]
    by_name = {brush["name"]: brush for brush in shown}
    paper = next((by_name[name] for name in PAPERS if name in by_name), shown[0])
    first = next((brush for brush in shown if brush is not paper), paper)
    return TEMPLATES.get_template("pad.html").render(
        brushes=shown, paper=paper, first=first, side=side, max_size=max(1, side // 8)
    )


def write_drawing(url: str, folder: Path) -> Path:
    """Write a drawing, a PNG as a data URL, to a file in a folder.

    Raises:
        UserError: It is not base64.
    """
    try:
        content = base64.b64decode(url.removeprefix(PNG_URL), validate=True)
    except ValueError:
        raise UserError("The browser sent no drawing.") from None
    path = folder / "drawing.png"
    path.write_bytes(content)
    return path
