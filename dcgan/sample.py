"""Grids of images, interpolations between them, and the animation of a training."""

import difflib
import io
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from dcgan.grid import grid
from dcgan.model import DigitModelConfig, Sampler, load_sampler, require_seed
from ganvas.data.decode import read_image
from ganvas.data.encode import write_image
from ganvas.device import choose_device
from ganvas.errors import UserError
from ganvas.files import write_error, write_file

ANIMATIONS = {".gif": "GIF", ".webp": "WEBP"}
DURATION = 8000  # milliseconds of an animation
MIN_FRAME, MAX_FRAME = 50, 500  # milliseconds of a frame
LAST_FRAME = 2500  # milliseconds
MAX_FRAMES = DURATION // MIN_FRAME
MIN_SIDE = 56  # pixels: smaller images are enlarged by an integer factor
MAX_PIXELS = 80_000_000  # of a grid; readers of images warn of decompression bombs above 89 million
MAX_NAMED_CLASSES = 12  # in an error message


def draw_grid(
    model: Path,
    out: Path,
    *,
    rows: int = 10,
    cols: int = 10,
    seed: int = 0,
    labels: str | None = None,
    interpolate: bool = False,
    device: str = "auto",
) -> dict[str, Any]:
    """Draw rows x cols images; each row of a model with labels shows one class.

    Args:
        model: A run, a checkpoint or a model folder.
        out: The image to write.
        rows: Rows of the grid.
        cols: Images in a row.
        seed: Seed of the noise.
        labels: Classes of the rows, by number or name with commas between; all by default.
        interpolate: Each row goes from one image to another.
        device: Where to compute.

    Returns:
        "rows", "cols", "scale" (by which images are enlarged) and "labels" (class of each row, or None).

    Raises:
        UserError: There is no model, a value is out of range, a label is unknown, or the image cannot be written.
    """
    if rows < 1 or cols < 1:
        raise UserError(f"--rows {rows} --cols {cols}: give at least 1 of each.")
    if interpolate and cols < 2:
        raise UserError("--interpolate --cols 1: a row has two ends. Give --cols 2 or more.")
    require_seed(seed)
    sampler = load_sampler(model, choose_device(device))
    size = sampler.config.image_size
    classes = _row_classes(labels, rows, sampler.config)
    scale = -(-MIN_SIDE // size)
    pixels = rows * cols * (size * scale) ** 2
    if pixels > MAX_PIXELS:
        raise UserError(
            f"--rows {rows} --cols {cols}: the image would have {pixels:,} pixels; the maximum is {MAX_PIXELS:,}. "
            "Give smaller numbers."
        )
    latents = interpolated_latents(sampler, rows, cols, seed) if interpolate else sampler.latents(rows * cols, seed)
    y = torch.tensor(classes).repeat_interleave(cols) if classes else None
    sheet = grid(sampler.draw(latents, y), cols)
    write_image(out, sheet.repeat(scale, axis=0).repeat(scale, axis=1))
    return {"rows": rows, "cols": cols, "scale": scale, "labels": classes}


def interpolated_latents(sampler: Sampler, rows: int, cols: int, seed: int) -> Tensor:
    """Interpolate between two random latents in each row.

    Normal latents lie near a sphere and are interpolated along it: a straight line would pass near the origin, where
    the generator was not trained (White 2016, Sec. 2.1). Uniform ones are interpolated linearly.

    Returns:
        [rows * cols, latent_dim], row by row, including both ends.
    """
    start, end = sampler.latents(2 * rows, seed)[:, None].chunk(2)  # [rows, 1, latent_dim] each
    t = torch.linspace(0, 1, cols)[:, None]  # [cols, 1]
    path = torch.lerp(start, end, t) if sampler.config.latent == "uniform" else slerp(start, end, t)
    return path.flatten(0, 1)


def slerp(a: Tensor, b: Tensor, t: Tensor | float) -> Tensor:
    """Interpolate spherically: the direction from a's to b's at a constant rate, the length linearly.

    Args:
        a: Vectors at t = 0, [..., d].
        b: Vectors at t = 1, [..., d]. Between opposite ones the direction is arbitrary.
        t: 0 to 1, [..., 1] or a number.

    Returns:
        [..., d] in a's dtype.

    Reference: White 2016, "Sampling Generative Networks", Sec. 2.1, whose formula is for vectors of equal length.
    """
    start, end = a.double(), b.double()
    length_a, length_b = start.norm(dim=-1, keepdim=True), end.norm(dim=-1, keepdim=True)
    tiny = torch.finfo(torch.float64).tiny
    u, v = start / length_a.clamp(min=tiny), end / length_b.clamp(min=tiny)
    cosine = (u * v).sum(-1, keepdim=True)
    normal = v - cosine * u  # the component of v orthogonal to u
    sine = normal.norm(dim=-1, keepdim=True)
    angle = t * torch.atan2(sine, cosine)
    direction = angle.cos() * u + angle.sin() * normal / sine.clamp(min=tiny)
    return (direction * (length_a + t * (length_b - length_a))).to(a.dtype)


def _row_classes(labels: str | None, rows: int, config: DigitModelConfig) -> list[int] | None:
    """Return the class of each row: those of --labels, by default all, in turn; None for a model without labels.

    Raises:
        UserError: A label is unknown, there are more than rows, or the model has no labels.
    """
    if not config.num_classes:
        if labels is not None:
            raise UserError(
                f"--labels {labels}: this model was trained without labels. Leave --labels out, or train a model with "
                "dcgan train --conditional."
            )
        return None
    if labels is None:
        chosen = list(range(config.num_classes))
    else:
        chosen = [_find_class(label.strip(), config) for label in labels.split(",")]
        if len(chosen) > rows:
            raise UserError(f"--labels {labels}: each takes a row, and --rows is {rows}. Give --rows {len(chosen)}.")
    return [chosen[row % len(chosen)] for row in range(rows)]


def _find_class(label: str, config: DigitModelConfig) -> int:
    """Return the class of a name, ignoring case, or else of a number."""
    names = [name.casefold() for name in config.classes]
    if label.casefold() in names:
        return names.index(label.casefold())
    numbers = [str(number) for number in range(config.num_classes)]
    if label in numbers:
        return numbers.index(label)
    near = difflib.get_close_matches(label.casefold(), names, n=1)
    hint = f" Did you mean {config.classes[names.index(near[0])]}?" if near else ""
    listed = ", ".join(config.classes[:MAX_NAMED_CLASSES]) + (", …" if len(config.classes) > MAX_NAMED_CLASSES else "")
    raise UserError(
        f"--labels: {label!r} is none of this model's {config.num_classes} classes, numbered 0 to "
        f"{config.num_classes - 1}: {listed}.{hint}"
    )


def animate(run: Path, out: Path) -> dict[str, Any]:
    """Write an animation of the images that a training drew from the same noise; return the number of "frames".

    Raises:
        UserError: There are no images, they differ in size, or the animation cannot be written.
    """
    files = sorted((run / "samples").glob("step-*.png"))
    if not files:
        raise UserError(
            f"{run}: has no samples/step-*.png for an animation. Give a run's folder; or, for a grid of "
            "images, a name that ends with .png."
        )
    chosen = np.linspace(0, len(files) - 1, min(len(files), MAX_FRAMES)).round().astype(int)
    frames = [_read_frame(files[i]) for i in chosen]
    odd = next((i for i, frame in zip(chosen, frames, strict=True) if frame.size != frames[0].size), None)
    if odd is not None:
        raise UserError(f"{files[odd]}: differs in size from {files[0].name}. Remove the images of one training.")
    frame_duration = int(np.clip(DURATION / len(frames), MIN_FRAME, MAX_FRAME)) // 10 * 10  # GIF has centiseconds
    content = io.BytesIO()
    frames[0].save(
        content,
        format=ANIMATIONS[out.suffix.lower()],
        save_all=True,
        append_images=frames[1:],
        duration=[frame_duration] * (len(frames) - 1) + [LAST_FRAME],
        loop=0,  # forever
        lossless=True,  # of WebP; GIF always is
    )
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise write_error(out, error) from None
    write_file(out, content.getvalue())
    return {"frames": len(frames)}


def _read_frame(path: Path) -> Image.Image:
    """Read an image; gray that is stored as color becomes gray, which fits into GIF's 256 colors."""
    array = read_image(path, channels=3)
    is_gray = (array == array[..., :1]).all()
    return Image.fromarray(array[..., 0] if is_gray else array)
