"""A receptive field drawn on a image."""

import math
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw, ImageEnhance, ImageFont

from ganvas.data.tensors import to_display

_Color = tuple[int, int, int]

_FIELD = (255, 200, 0)
_CELL = (0, 225, 255)
_PAPER = (22, 24, 28)
_STRIPES = (88, 92, 100)
_TEXT = (235, 235, 235)
_VEIL = (52, 55, 60)  # over what the unit does not see
_LONG_SIDE = 960  # small images are enlarged, by a whole number, to about this many pixels


@dataclass(frozen=True)
class Box:
    """A rectangle in pixels: pixel p covers p to p + 1. It may lie partly outside of the image."""

    left: float
    top: float
    right: float
    bottom: float


def draw_field(
    picture: np.ndarray, *, field: Box, cell: Box, title: str, field_label: str, cell_label: str
) -> np.ndarray:
    """Draw what a unit sees: the rest of the image is dimmed, stripes stand for padding that it sees beyond.

    Args:
        image: [H, W, C] uint8, uint16 or float32 in [0, 1]; of more than three channels the first three are drawn.
        field: What the unit sees.
        cell: The unit's own place: as wide as the step to the next unit.
        title: First line of the caption.
        field_label: Explains the frame of the field.
        cell_label: Explains the frame of the cell.

    Returns:
        [H', W', 3] uint8.
    """
    H, W = picture.shape[:2]
    sheet = _sheet(field, H, W)
    scale = max(1, round(_LONG_SIDE / max(sheet.right - sheet.left, sheet.bottom - sheet.top)))

    def place(box: Box) -> tuple[int, int, int, int]:
        """Find the box on the drawing."""
        edges = box.left - sheet.left, box.top - sheet.top, box.right - sheet.left, box.bottom - sheet.top
        left, top, right, bottom = (round(scale * edge) for edge in edges)
        return left, top, right, bottom

    width, height = place(sheet)[2:]
    line = max(2, round(max(width, height) / 320))

    # All that the unit could see: stripes, and the image on them. It is shown inside of the field only.
    shown = _striped(width, height, spacing=6 * line)
    enlarged = Image.fromarray(to_display(picture)).resize((W * scale, H * scale), Image.Resampling.NEAREST)
    shown.paste(enlarged, place(Box(0, 0, W, H)))
    drawing = Image.new("RGB", (width, height), _PAPER)
    drawing.paste(_dimmed(enlarged), place(Box(0, 0, W, H)))
    drawing.paste(shown.crop(place(field)), place(field))

    # Where a unit sees its own cell alone, the frame of the field goes around that of the cell.
    _frame(drawing, place(cell), _CELL, line)
    _frame(drawing, place(field), _FIELD, line, gap=line + 1 if cell == field else 0)
    entries = [(None, title), (_swatch(_FIELD, line), field_label), (_swatch(_CELL, line), cell_label)]
    if field.left < 0 or field.top < 0 or field.right > W or field.bottom > H:
        entries.append((_striped(5 * line, 5 * line, spacing=3 * line), "padding, outside of the image"))
    return np.asarray(_with_caption(drawing, entries, line))


def _sheet(field: Box, H: int, W: int) -> Box:
    """Find what must be on the drawing: the image, and the field with some room for its frame."""
    room = max(H, W, field.right - field.left, field.bottom - field.top) / 48
    return Box(
        math.floor(min(0, field.left - room)),
        math.floor(min(0, field.top - room)),
        math.ceil(max(W, field.right + room)),
        math.ceil(max(H, field.bottom + room)),
    )


def _dimmed(picture: Image.Image) -> Image.Image:
    """Take most of the color and contrast away."""
    grey = ImageEnhance.Color(picture).enhance(0.3)
    return Image.blend(grey, Image.new("RGB", picture.size, _VEIL), 0.6)


def _striped(width: int, height: int, spacing: int) -> Image.Image:
    """Make a sheet with diagonal stripes."""
    diagonal = np.add.outer(np.arange(height), np.arange(width)) % spacing
    return Image.fromarray(np.where(diagonal[..., None] * 3 < spacing, _STRIPES, _PAPER).astype(np.uint8))


def _swatch(colour: _Color, line: int) -> Image.Image:
    """Make a sample of a frame for the caption."""
    swatch = Image.new("RGB", (5 * line, 5 * line), _PAPER)
    ImageDraw.Draw(swatch).rectangle((0, 0, 5 * line - 1, 5 * line - 1), outline=colour, width=line)
    return swatch


def _frame(drawing: Image.Image, place: tuple[int, int, int, int], colour: _Color, line: int, gap: int = 0) -> None:
    """Draw a frame around a place, with a dark edge so that it shows on any image; the place itself stays free."""
    left, top, right, bottom = place[0] - gap, place[1] - gap, place[2] + gap, place[3] + gap
    pen = ImageDraw.Draw(drawing)
    pen.rectangle((left - line - 1, top - line - 1, right + line, bottom + line), outline=_PAPER, width=line + 1)
    pen.rectangle((left - line, top - line, right + line - 1, bottom + line - 1), outline=colour, width=line)


def _with_caption(drawing: Image.Image, entries: list[tuple[Image.Image | None, str]], line: int) -> Image.Image:
    """Put lines of text under the drawing, each after a sample of what it explains, if any."""
    margin, pitch = 4 * line, 10 * line
    font = ImageFont.load_default(size=7 * line)
    longest = max(font.getlength(text) + (2 * margin + sample.width if sample else margin) for sample, text in entries)
    width = max(drawing.width, math.ceil(longest) + margin)
    sheet = Image.new("RGB", (width, drawing.height + pitch * len(entries) + 2 * margin), _PAPER)
    sheet.paste(drawing, ((width - drawing.width) // 2, 0))
    pen = ImageDraw.Draw(sheet)
    for row, (sample, text) in enumerate(entries):
        left, middle = margin, drawing.height + margin + pitch * row + pitch // 2
        if sample:
            sheet.paste(sample, (left, middle - sample.height // 2))
            left += sample.width + margin
        pen.text((left, middle), text, fill=_TEXT, font=font, anchor="lm")
    return sheet
