"""What the command sample does: grids of drawn images, walks between them, and the animation of a training."""

import difflib
import io
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

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

if TYPE_CHECKING:
    from dcgan.__main__ import Sample

ANIMATIONS = {".gif": "GIF", ".webp": "WEBP"}
LASTS = 8000  # milliseconds, so that a training of any length is told in a breath
SHORTEST, LONGEST = 50, 500  # milliseconds a frame is shown
HOLD = 2500  # milliseconds that the last frame is shown
MOST_FRAMES = 160  # as many as LASTS holds of the shortest
SMALLEST_SIDE = 56  # pixels: smaller images are enlarged by a whole number, so that eyes can see
MOST_PIXELS = 80_000_000  # of a grid; from some more on, readers of images warn of a bomb
NAMED_CLASSES = 12  # that an error message lists


def run_sample(options: "Sample") -> int:
    """Draw a grid; or, when OUT ends with .gif or .webp, animate the samples of a training.

    Raises:
        UserError: No model, no samples, bad labels, or a place that cannot be written.
    """
    _check(options)
    animates = options.out.suffix.lower() in ANIMATIONS
    result = _animate(options) if animates else _draw(options)
    if options.json:
        print(json.dumps({"written": str(options.out), **result}))
    else:
        count = f"{result['frames']} frames" if animates else f"{result['rows'] * result['cols']} images"
        print(f"{count} written to {options.out}", file=sys.stderr)
    return 0


def _check(options: "Sample") -> None:
    if options.rows < 1 or options.cols < 1:
        raise UserError(f"--rows {options.rows} --cols {options.cols}: give at least 1 of each.")
    if options.interpolate and options.cols < 2:
        raise UserError("--interpolate --cols 1: a row has two ends. Give --cols 2 or more.")
    require_seed(options.seed)


def _draw(options: "Sample") -> dict[str, Any]:
    """Draw rows x cols images; of a model with labels, a row is of one class."""
    sampler = load_sampler(options.model, choose_device(options.device))
    rows, cols = options.rows, options.cols
    classes = _row_classes(options.labels, rows, sampler.config)
    scale = -(-SMALLEST_SIDE // sampler.config.image_size)
    pixels = rows * cols * (sampler.config.image_size * scale) ** 2
    if pixels > MOST_PIXELS:
        raise UserError(
            f"--rows {rows} --cols {cols}: make a image of {pixels:,} pixels; at most {MOST_PIXELS:,} are written. "
            "Give smaller numbers."
        )
    if options.interpolate:
        latents = walks(sampler, rows, cols, options.seed)
    else:
        latents = sampler.latents(rows * cols, options.seed)
    labels = torch.tensor(classes).repeat_interleave(cols) if classes else None
    sheet = grid(sampler.draw(latents, labels), cols)
    write_image(options.out, sheet.repeat(scale, axis=0).repeat(scale, axis=1))
    return {"rows": rows, "cols": cols, "scale": scale, "labels": classes}


def walks(sampler: Sampler, rows: int, cols: int, seed: int) -> Tensor:
    """Walk from one latent to another in each row.

    Normal latents lie near a sphere, so a walk between them goes along it: a straight one would pass through the
    middle, where the generator was never trained (White 2016, Sec. 2.1). Uniform ones fill a cube, which a straight
    walk never leaves.

    Returns:
        [rows * cols, latent_dim], row by row; both ends are among them.
    """
    start, end = sampler.latents(2 * rows, seed)[:, None].chunk(2)  # [rows, 1, latent_dim] each
    t = torch.linspace(0, 1, cols)[:, None]  # [cols, 1]
    walk = torch.lerp(start, end, t) if sampler.config.latent == "uniform" else slerp(start, end, t)
    return walk.flatten(0, 1)


def slerp(a: Tensor, b: Tensor, t: Tensor | float) -> Tensor:
    """Interpolate spherically: the direction turns evenly from a's to b's, the length changes linearly.

    Args:
        a: [..., d], the vectors at t = 0.
        b: [..., d], the vectors at t = 1. Of opposite ones no shortest way is singled out, and some way is taken.
        t: 0 to 1, [..., 1] or a number.

    Returns:
        [..., d] in a's type.

    Reference: White 2016, "Sampling Generative Networks", Sec. 2.1. Turning the direction apart from the length is our
    choice: the formula itself is for ends of one length.
    """
    start, end = a.double(), b.double()
    long_a, long_b = start.norm(dim=-1, keepdim=True), end.norm(dim=-1, keepdim=True)
    tiny = torch.finfo(torch.float64).tiny
    u, v = start / long_a.clamp(min=tiny), end / long_b.clamp(min=tiny)
    cosine = (u * v).sum(-1, keepdim=True)
    across = v - cosine * u  # the part of v at right angles to u
    sine = across.norm(dim=-1, keepdim=True)
    angle = t * torch.atan2(sine, cosine)
    direction = angle.cos() * u + angle.sin() * across / sine.clamp(min=tiny)
    return (direction * (long_a + t * (long_b - long_a))).to(a.dtype)


def _row_classes(labels: str | None, rows: int, config: DigitModelConfig) -> list[int] | None:
    """Give each row its class: those asked for in turn, or all; none for a model without labels.

    Raises:
        UserError: A label is no class, there are more than rows, or the model takes none.
    """
    if not config.num_classes:
        if labels is not None:
            raise UserError(
                f"--labels {labels}: this model was trained without labels and draws what it likes. Leave --labels "
                "out, or train a model with dcgan train --conditional."
            )
        return None
    if labels is None:
        chosen = list(range(config.num_classes))
    else:
        chosen = [_class(label.strip(), config) for label in labels.split(",")]
        if len(chosen) > rows:
            raise UserError(f"--labels {labels}: each takes a row, and --rows is {rows}. Give --rows {len(chosen)}.")
    return [chosen[row % len(chosen)] for row in range(rows)]


def _class(label: str, config: DigitModelConfig) -> int:
    """Find a class by its name, in any case, or else by its number."""
    names = [name.casefold() for name in config.classes]
    if label.casefold() in names:
        return names.index(label.casefold())
    numbers = [str(number) for number in range(config.num_classes)]
    if label in numbers:
        return numbers.index(label)
    near = difflib.get_close_matches(label.casefold(), names, n=1)
    hint = f" Did you mean {config.classes[names.index(near[0])]}?" if near else ""
    listed = ", ".join(config.classes[:NAMED_CLASSES]) + (", …" if len(config.classes) > NAMED_CLASSES else "")
    raise UserError(
        f"--labels: {label!r} is none of this model's {config.num_classes} classes, numbered 0 to "
        f"{config.num_classes - 1}: {listed}.{hint}"
    )


def _animate(options: "Sample") -> dict[str, Any]:
    """Make an animation of the images that the training drew from the same noise all along."""
    useless = [
        f"--{name}"
        for name in ("rows", "cols", "seed", "labels", "interpolate")
        if getattr(options, name) != getattr(type(options), name)
    ]
    if useless:
        raise UserError(
            f"{options.out}: {options.out.suffix} is for the animation of a training, whose images are drawn "
            f"already; it takes no {', '.join(useless)}. For a grid of images, give a name that ends with .png."
        )
    files = sorted((options.model / "samples").glob("step-*.png"))
    if not files:
        raise UserError(
            f"{options.model}: has no samples/step-*.png, of which the animation is made. Give a run's folder; or, "
            "for a grid of images, a name that ends with .png."
        )
    chosen = np.unique(np.linspace(0, len(files) - 1, min(len(files), MOST_FRAMES)).round().astype(int))
    frames = [_frame(files[i]) for i in chosen]
    odd = next((i for i, frame in zip(chosen, frames, strict=True) if frame.size != frames[0].size), None)
    if odd is not None:
        raise UserError(f"{files[odd]}: differs in size from {files[0].name}. Remove the images of one training.")
    each = int(np.clip(LASTS / len(frames), SHORTEST, LONGEST)) // 10 * 10  # GIF counts hundredths of a second
    content = io.BytesIO()
    frames[0].save(
        content,
        format=ANIMATIONS[options.out.suffix.lower()],
        save_all=True,
        append_images=frames[1:],
        duration=[each] * (len(frames) - 1) + [HOLD],
        loop=0,  # for ever
        lossless=True,  # WebP's; GIF has nothing else
    )
    _write(options.out, content.getvalue())
    return {"frames": len(frames)}


def _frame(path: Path) -> Image.Image:
    """Read a image; gray that was written as color becomes gray, of which GIF's 256 colors hold all."""
    array = read_image(path, channels=3)
    is_gray = (array == array[..., :1]).all()
    return Image.fromarray(array[..., 0] if is_gray else array)


def _write(path: Path, content: bytes) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise write_error(path, error) from None
    write_file(path, content)
