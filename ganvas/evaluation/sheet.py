"""A contact sheet: images in a grid with titles."""

import math
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from ganvas.data.tensors import to_display

_PAPER = (226, 227, 229)
_INK = (38, 40, 44)
_MIN_SIDE = 96  # pixels: smaller images are enlarged by a whole factor, so that titles fit and details are visible


def evenly(count: int, most: int) -> list[int]:
    """Return at most ``most`` of the indices below ``count``, evenly spread."""
    return sorted(set(np.linspace(0, count - 1, min(most, count)).round().astype(int).tolist()))


def contact_sheet(
    rows: Sequence[Sequence[np.ndarray]], column_titles: Sequence[str], row_titles: Sequence[str] | None = None
) -> np.ndarray:
    """Lay out images in a grid with titles.

    All cells have the size of the largest image; smaller ones are centered. Only very small images are enlarged, all
    by the same factor and without smoothing.

    Args:
        rows: Images [H, W, C] row by row, uint8, uint16 or float32 in [0, 1], one per title. Of more than three
            channels the first three are shown, of two the first.
        column_titles: One per column; shortened where it is wider than its column.
        row_titles: One per row, at the left.

    Returns:
        [H', W', 3] uint8.

    Raises:
        ValueError: There are no images, or the number of titles does not match.
    """
    _check_counts(rows, column_titles, row_titles)
    images = [[Image.fromarray(to_display(image)) for image in row] for row in rows]
    width = max(image.width for row in images for image in row)
    height = max(image.height for row in images for image in row)
    scale = math.ceil(_MIN_SIDE / max(width, height))
    width, height = width * scale, height * scale

    # All measures follow the size of a cell, so that sheets of all image sizes look alike.
    text = round(min(max(width / 11, 11), 24))
    gutter = max(3, text // 3)
    margin = 2 * gutter
    font = ImageFont.load_default(size=text)
    titles = [_shorten(title, font, width) for title in column_titles]
    labels = [_shorten(title, font, 2 * width) for title in row_titles or [""] * len(rows)]
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
        for column, image in enumerate(images[row]):
            x = left + column * (width + gutter)
            shown = image.resize((image.width * scale, image.height * scale), Image.Resampling.NEAREST)
            sheet.paste(shown, (x + (width - shown.width) // 2, y + (height - shown.height) // 2))
    return np.array(sheet)


def _check_counts(
    rows: Sequence[Sequence[np.ndarray]], column_titles: Sequence[str], row_titles: Sequence[str] | None
) -> None:
    if not rows or not column_titles or any(len(row) != len(column_titles) for row in rows):
        lengths = sorted({len(row) for row in rows})
        raise ValueError(f"rows have {lengths} images; expected {len(column_titles)}, one per column title")
    if row_titles is not None and len(row_titles) != len(rows):
        raise ValueError(f"there are {len(row_titles)} row titles; expected {len(rows)}, one per row")


def _shorten(title: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, width: float) -> str:
    """Truncate a title that is wider than ``width`` pixels, with an ellipsis."""
    if font.getlength(title) <= width:
        return title
    while title and font.getlength(title + "…") > width:
        title = title[:-1]
    return title.rstrip() + "…"
