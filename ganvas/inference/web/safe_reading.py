"""Decode untrusted images in processes that may hang, crash or run out of memory without harm to the caller.

A thread that hangs in a decoder cannot be stopped, and one that holds the interpreter's lock stops all others. So each
file is read by a process of its own, which has a time limit, and written again as a TIFF. The process is forked from a
server that has imported the decoders, which takes a few hundredths of a second; where that is not possible (Windows),
a new process is started, which takes seconds.
"""

import json
import math
import multiprocessing
import os
import signal
import warnings
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from PIL import Image

from ganvas.data.decode import read_image, read_raster
from ganvas.data.encode import write_raster
from ganvas.data.formats import FORMATS
from ganvas.data.tensors import ValueRange, to_display
from ganvas.errors import UserError, WriteError

PREVIEW_SIDE = 1024  # pixels; the preview of a larger image is scaled down
ANSWER_BYTES = 64 * 1024
START_SECONDS = 120.0
BEGUN = b"begun"
LOST = "cannot be decoded (the decoder crashed, or needs too much memory). Remove it, or save it again as PNG."


@dataclass(frozen=True)
class ReadLimits:
    """Limits for reading one image.

    Attributes:
        max_pixels: Larger images are refused before they are decoded.
        seconds: Time from the start of its process; None for a time that suits the pixels.
    """

    max_pixels: int
    seconds: float | None = None

    @property
    def max_side(self) -> int:
        """Pixels of a side, for an aspect ratio of at most 64: longer images would be many tiles of padding."""
        return 8 * math.isqrt(self.max_pixels)

    @property
    def time(self) -> float:
        """Seconds: a busy small machine decodes a megapixel in less than one."""
        return 10 + self.max_pixels / 1e6 if self.seconds is None else self.seconds

    @property
    def memory(self) -> int:
        """Bytes beyond those of the process at its start: a file's tables, and the image in several copies."""
        return 2**30 + 256 * self.max_pixels


@dataclass(frozen=True)
class SafeImage:
    """An untrusted image, read and written again.

    Attributes:
        path: A TIFF with the same pixels, alpha, tags and nodata mask.
        preview: An 8-bit PNG for display.
        size: Height and width.
    """

    path: Path
    preview: Path
    size: tuple[int, int]


class SafeReader:
    """Reads images in processes of their own; may be used in several threads.

    Args:
        limits: The limits for one image.
    """

    def __init__(self, limits: ReadLimits) -> None:
        self.limits = limits
        self._context: Any = multiprocessing.get_context("spawn")
        # There is no fork server on Windows, or where the path of the temporary folder is too long for a socket.
        with suppress(ValueError, ImportError, OSError):
            context: Any = multiprocessing.get_context("forkserver")
            from multiprocessing.forkserver import ensure_running

            context.set_forkserver_preload(["__main__", __name__])
            ensure_running()  # imports in the background
            self._context = context

    def read(self, source: Path, folder: Path, value_range: ValueRange | None = None) -> SafeImage:
        """Read an image.

        Args:
            source: The file.
            folder: Where the results go.
            value_range: The values that become black and white in the preview, as in `to_tensor`.

        Raises:
            UserError: It is animated, or cannot be read within the limits; or the folder cannot be written.
        """
        receiver, sender = self._context.Pipe(duplex=False)
        process = self._context.Process(
            target=_read, args=(sender, source, folder, self.limits, value_range), daemon=True
        )
        with receiver:
            with sender:
                process.start()
            try:
                # The first process waits until the server has imported the decoders, which does not count.
                begun = receiver.poll(START_SECONDS) and receiver.recv_bytes(ANSWER_BYTES) == BEGUN
                answer = None
                if begun and receiver.poll(self.limits.time):
                    answer = json.loads(receiver.recv_bytes(ANSWER_BYTES))
            except (EOFError, OSError):
                answer = {"error": f"{source}: {LOST}"}
            finally:
                process.kill()
                process.join()
                process.close()
        if answer is None:
            raise UserError(f"{source}: takes longer to decode than {self.limits.time:g} s, the limit here.")
        if "error" in answer:
            raise (WriteError if answer.get("is_write_error") else UserError)(answer["error"])
        return SafeImage(_safe_path(folder), _preview_path(folder), tuple(answer["size"]))


def write_preview(source: Path, target: Path, value_range: ValueRange | None) -> None:
    """Write an 8-bit PNG of an image, of at most `PREVIEW_SIDE` pixels a side.

    Raises:
        UserError: The image cannot be read.
        OSError: The PNG cannot be written.
    """
    image = Image.fromarray(to_display(read_image(source), value_range))
    image.thumbnail((PREVIEW_SIDE, PREVIEW_SIDE))
    image.save(target)


def _safe_path(folder: Path) -> Path:
    return folder / "source.tif"


def _preview_path(folder: Path) -> Path:
    return folder / "source-preview.png"


def _read(answers: Connection, source: Path, folder: Path, limits: ReadLimits, value_range: ValueRange | None) -> None:
    """Read an image, in a process that does nothing else, and send the answer."""
    answers.send_bytes(BEGUN)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C ends the caller, which kills this process
    if hasattr(signal, "setitimer"):
        signal.setitimer(signal.ITIMER_REAL, limits.time + 5)  # even if the caller was killed
    _limit_memory(limits.memory)
    with suppress(OSError, AttributeError):
        os.nice(10)  # the page and its network come first
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # messages of decoders, some of them written in C
    warnings.simplefilter("ignore")
    Image.MAX_IMAGE_PIXELS = limits.max_pixels  # all code that reads an image with Pillow respects it
    answer: dict[str, Any]
    try:
        answer = {"size": _rewrite(source, folder, limits, value_range)}
    except (WriteError, OSError) as error:
        answer = {"error": str(error), "is_write_error": True}
    except UserError as error:
        answer = {"error": str(error)}
    except Exception as error:  # decoders raise anything
        answer = {"error": f"{source}: cannot be decoded ({type(error).__name__}). Remove it, or save it again as PNG."}
    answers.send_bytes(json.dumps(answer).encode()[:ANSWER_BYTES])


def _limit_memory(more: int) -> None:
    """Limit the memory of this process to ``more`` bytes beyond what it has, on Linux."""
    with suppress(ImportError, OSError, ValueError):
        import resource

        pages = int(Path("/proc/self/statm").read_text().split()[0])
        resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + more,) * 2)


def _rewrite(source: Path, folder: Path, limits: ReadLimits, value_range: ValueRange | None) -> tuple[int, int]:
    _check_header(source, limits)
    try:
        raster = read_raster(source, keep_alpha=True)
    except UserError as error:
        if isinstance(error.__context__, Image.DecompressionBombError | Image.DecompressionBombWarning):
            raise _too_large(source, limits) from None
        raise
    H, W = raster.array.shape[:2]
    _check_size(source, H, W, limits)
    write_raster(_safe_path(folder), raster)
    write_preview(_safe_path(folder), _preview_path(folder), value_range)
    return H, W


def _check_header(path: Path, limits: ReadLimits) -> None:
    """Refuse images that are too large or animated, by the header, before they are decoded."""
    try:
        with Image.open(path, formats=FORMATS) as image:
            W, H = image.size
            # A camera's JPEG may hold its thumbnails, and a TIFF has pages: neither is an animation.
            is_animated = image.format in ("GIF", "WEBP", "PNG") and getattr(image, "is_animated", False)
    except Image.DecompressionBombError:
        raise _too_large(path, limits) from None
    except Exception:
        return  # not a format of Pillow: reading it decides
    _check_size(path, H, W, limits)
    if is_animated:
        raise UserError(f"{path}: is an animation. Use a single image, such as one frame saved as PNG.")


def _check_size(path: Path, height: int, width: int, limits: ReadLimits) -> None:
    if height * width > limits.max_pixels:
        raise UserError(f"{path}: has {width}x{height} pixels; the limit here is {limits.max_pixels:,}. Scale it down.")
    if max(height, width) > limits.max_side:
        raise UserError(
            f"{path}: has {width}x{height} pixels; a side may have {limits.max_side:,} here. Cut it into parts."
        )


def _too_large(path: Path, limits: ReadLimits) -> UserError:
    return UserError(f"{path}: has more than {limits.max_pixels:,} pixels, the limit here. Scale it down.")
