"""Drawing of a receptive field on an image."""

import math
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw, ImageEnhance, ImageFont

from ganvas.data.tensors import to_display

_Color = tuple[int, int, int]

_RECEPTIVE_FIELD = (255, 200, 0)
_CELL = (0, 225, 255)
_PAPER = (22, 24, 28)
_STRIPES = (88, 92, 100)
_TEXT = (235, 235, 235)
_VEIL = (52, 55, 60)  # over what the unit does not see
_LONG_SIDE = 960  # small images are enlarged, by an integer factor, to about this many pixels


@dataclass(frozen=True)
class Box:
    """A rectangle in pixels: pixel p covers p to p + 1. It may be partly outside of the image."""

    left: float
    top: float
    right: float
    bottom: float


def draw_receptive_field(
    image: np.ndarray, *, receptive_field: Box, cell: Box, title: str, receptive_field_label: str, cell_label: str
) -> np.ndarray:
    """Draw the receptive field of a unit: the rest of the image is dimmed, padding that it sees is striped.

    Args:
        image: [H, W, C] uint8, uint16 or float32 in [0, 1]; of more than three channels the first three are drawn.
        receptive_field: The receptive field.
        cell: The unit's own place, one jump wide.
        title: First line of the caption.
        receptive_field_label: Explains the frame of the receptive field.
        cell_label: Explains the frame of the cell.

    Returns:
        [H', W', 3] uint8.
    """
    H, W = image.shape[:2]
    canvas = _canvas(receptive_field, H, W)
    scale = max(1, round(_LONG_SIDE / max(canvas.right - canvas.left, canvas.bottom - canvas.top)))

    def place(box: Box) -> tuple[int, int, int, int]:
        """Return the corners of a box in the drawing."""
        edges = box.left - canvas.left, box.top - canvas.top, box.right - canvas.left, box.bottom - canvas.top
        left, top, right, bottom = (round(scale * edge) for edge in edges)
        return left, top, right, bottom

    width, height = place(canvas)[2:]
    line = max(2, round(max(width, height) / 320))

    # The image on stripes, of which the receptive field is shown, above the dimmed image.
    seen = _striped(width, height, spacing=6 * line)
    enlarged = Image.fromarray(to_display(image)).resize((W * scale, H * scale), Image.Resampling.NEAREST)
    seen.paste(enlarged, place(Box(0, 0, W, H)))
    drawing = Image.new("RGB", (width, height), _PAPER)
    drawing.paste(_dimmed(enlarged), place(Box(0, 0, W, H)))
    drawing.paste(seen.crop(place(receptive_field)), place(receptive_field))

    # Around equal boxes, the frame of the receptive field goes around that of the cell.
    _frame(drawing, place(cell), _CELL, line)
    _frame(drawing, place(receptive_field), _RECEPTIVE_FIELD, line, gap=line + 1 if cell == receptive_field else 0)
    entries = [
        (None, title),
        (_swatch(_RECEPTIVE_FIELD, line), receptive_field_label),
        (_swatch(_CELL, line), cell_label),
    ]
    if receptive_field.left < 0 or receptive_field.top < 0 or receptive_field.right > W or receptive_field.bottom > H:
        entries.append((_striped(5 * line, 5 * line, spacing=3 * line), "padding, outside of the image"))
    return np.asarray(_with_caption(drawing, entries, line))


def _canvas(receptive_field: Box, H: int, W: int) -> Box:
    """Return what the drawing covers: the image, and the receptive field with a margin for its frame."""
    sides = receptive_field.right - receptive_field.left, receptive_field.bottom - receptive_field.top
    margin = max(H, W, *sides) / 48
    return Box(
        math.floor(min(0, receptive_field.left - margin)),
        math.floor(min(0, receptive_field.top - margin)),
        math.ceil(max(W, receptive_field.right + margin)),
        math.ceil(max(H, receptive_field.bottom + margin)),
    )


def _dimmed(image: Image.Image) -> Image.Image:
    """Return an image with little color and contrast."""
    gray = ImageEnhance.Color(image).enhance(0.3)
    return Image.blend(gray, Image.new("RGB", image.size, _VEIL), 0.6)


def _striped(width: int, height: int, spacing: int) -> Image.Image:
    """Return an image of diagonal stripes."""
    diagonal = np.add.outer(np.arange(height), np.arange(width)) % spacing
    return Image.fromarray(np.where(diagonal[..., None] * 3 < spacing, _STRIPES, _PAPER).astype(np.uint8))


def _swatch(color: _Color, line: int) -> Image.Image:
    """Return a sample of a frame for the caption."""
    swatch = Image.new("RGB", (5 * line, 5 * line), _PAPER)
    ImageDraw.Draw(swatch).rectangle((0, 0, 5 * line - 1, 5 * line - 1), outline=color, width=line)
    return swatch


def _frame(drawing: Image.Image, place: tuple[int, int, int, int], color: _Color, line: int, gap: int = 0) -> None:
    """Draw a frame around a place, with a dark edge so that it is visible on any image."""
    left, top, right, bottom = place[0] - gap, place[1] - gap, place[2] + gap, place[3] + gap
    pen = ImageDraw.Draw(drawing)
    pen.rectangle((left - line - 1, top - line - 1, right + line, bottom + line), outline=_PAPER, width=line + 1)
    pen.rectangle((left - line, top - line, right + line - 1, bottom + line - 1), outline=color, width=line)


def _with_caption(drawing: Image.Image, entries: list[tuple[Image.Image | None, str]], line: int) -> Image.Image:
    """Return the drawing with lines of text below it, each after a sample of what it explains, if any."""
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
