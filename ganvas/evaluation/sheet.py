"""A contact sheet: images in a labelled grid, to be looked at."""

import math
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from ganvas.data.images import to_display

_PAPER = (226, 227, 229)
_INK = (38, 40, 44)
_SMALLEST_SIDE = 96  # pixels: smaller images are enlarged by a whole number, so that titles fit and eyes can see


def contact_sheet(
    rows: Sequence[Sequence[np.ndarray]], column_titles: Sequence[str], row_titles: Sequence[str] | None = None
) -> np.ndarray:
    """Lay images out in a grid with titles.

    All cells are as large as the largest image; smaller ones stand in the middle of theirs. Nothing is scaled, but
    for grids of very small images, which are enlarged alike without smoothing.

    Args:
        rows: Images [H, W, C] row by row, uint8, uint16 or float32 in [0, 1], each row as long as the titles. Of
            more than three channels the first three are shown, of two the first.
        column_titles: One a column; shortened where it is wider than its column.
        row_titles: One a row, at the left; none when not given.

    Returns:
        [H', W', 3] uint8.

    Raises:
        ValueError: There are no images, or the titles do not fit in number.
    """
    _check_counts(rows, column_titles, row_titles)
    pictures = [[Image.fromarray(to_display(picture)) for picture in row] for row in rows]
    width = max(picture.width for row in pictures for picture in row)
    height = max(picture.height for row in pictures for picture in row)
    scale = math.ceil(_SMALLEST_SIDE / max(width, height))
    width, height = width * scale, height * scale

    # All measures follow the size of a cell, so that a sheet looks alike at every size of image.
    text = round(min(max(width / 11, 11), 24))
    gutter = max(3, text // 3)
    margin = 2 * gutter
    font = ImageFont.load_default(size=text)
    titles = [_shortened(title, font, width) for title in column_titles]
    labels = [_shortened(title, font, 2 * width) for title in row_titles or [""] * len(rows)]
    longest = max(font.getlength(label) for label in labels)
    left = margin + (math.ceil(longest) + margin if longest else 0)
    top = margin + round(1.7 * text)

    size = (
        left + len(titles) * (width + gutter) - gutter + margin,
        top + len(rows) * (height + gutter) - gutter + margin,
    )
    sheet = Image.new("RGB", size, _PAPER)
    pen = ImageDraw.Draw(sheet)
    for column, title in enumerate(titles):
        middle = left + column * (width + gutter) + width / 2
        pen.text((middle, (margin + top) / 2), title, fill=_INK, font=font, anchor="mm")
    for row, label in enumerate(labels):
        y = top + row * (height + gutter)
        pen.text((left - margin, y + height / 2), label, fill=_INK, font=font, anchor="rm")
        for column, picture in enumerate(pictures[row]):
            x = left + column * (width + gutter)
            shown = picture.resize((picture.width * scale, picture.height * scale), Image.Resampling.NEAREST)
            sheet.paste(shown, (x + (width - shown.width) // 2, y + (height - shown.height) // 2))
    return np.array(sheet)


def _check_counts(
    rows: Sequence[Sequence[np.ndarray]], column_titles: Sequence[str], row_titles: Sequence[str] | None
) -> None:
    if not rows or not column_titles or any(len(row) != len(column_titles) for row in rows):
        lengths = sorted({len(row) for row in rows})
        raise ValueError(f"rows hold {lengths} images; expected {len(column_titles)}, as many as there are titles")
    if row_titles is not None and len(row_titles) != len(rows):
        raise ValueError(f"there are {len(row_titles)} row titles; expected {len(rows)}, as many as there are rows")


def _shortened(title: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, width: float) -> str:
    """Cut a title off with an ellipsis where it is wider than ``width`` pixels."""
    if font.getlength(title) <= width:
        return title
    while title and font.getlength(title + "…") > width:
        title = title[:-1]
    return title.rstrip() + "…"
