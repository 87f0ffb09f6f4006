"""Decode images of strangers in processes that may hang, crash or run out of memory without harm to the caller.

A thread that hangs in a decoder cannot be ended, and one that holds the interpreter's lock stops all others. So each
file is read by a process of its own, which is killed when its time is over, and written again as a TIFF of our own. The
process is forked from a server that has imported the decoders, which takes a few hundredths of a second; where that is
not possible (Windows), it starts from nothing, which takes seconds.
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

SHOWN_SIDE = 1024  # pixels; the preview of a larger image is scaled down
ANSWER_BYTES = 64 * 1024
START_SECONDS = 120.0
BEGUN = b"begun"
LOST = "cannot be decoded (the decoder crashed, or needs too much memory). Remove it, or save it again as PNG."


@dataclass(frozen=True)
class ReadLimits:
    """What reading one image may take.

    Attributes:
        max_pixels: Images of more are refused before they are decoded.
        seconds: Time from when its process has started; None for one that suits the pixels.
    """

    max_pixels: int
    seconds: float | None = None

    @property
    def max_side(self) -> int:
        """Pixels of a side: at most a shape of 1 to 64. Longer ones would become many tiles, mostly of padding."""
        return 8 * math.isqrt(self.max_pixels)

    @property
    def time(self) -> float:
        """Seconds: a busy small machine decodes a megapixel in less than one."""
        return 10 + self.max_pixels / 1e6 if self.seconds is None else self.seconds

    @property
    def memory(self) -> int:
        """Bytes beyond what the process has at its start: a file's tables, and the image in several copies."""
        return 2**30 + 256 * self.max_pixels


@dataclass(frozen=True)
class SafeImage:
    """An image of a stranger, read and written again.

    Attributes:
        path: A TIFF with the same pixels, alpha, tags and pixels without data.
        preview: A PNG to look at.
        size: Height and width.
    """

    path: Path
    preview: Path
    size: tuple[int, int]


class SafeReader:
    """Reads images in processes of their own; may be used in several threads.

    Args:
        limits: What reading one may take.
    """

    def __init__(self, limits: ReadLimits) -> None:
        self.limits = limits
        self._context: Any = multiprocessing.get_context("spawn")
        # No such server on Windows, and none where the path of the folder for temporary files is too long for a socket.
        with suppress(ValueError, ImportError, OSError):
            context: Any = multiprocessing.get_context("forkserver")
            from multiprocessing.forkserver import ensure_running

            context.set_forkserver_preload(["__main__", __name__])
            ensure_running()  # it imports meanwhile
            self._context = context

    def read(self, source: Path, folder: Path, value_range: ValueRange | None = None) -> SafeImage:
        """Read an image.

        Args:
            source: The file.
            folder: Where the results go.
            value_range: The values that become black and white in the preview, as in `to_tensor`.

        Raises:
            UserError: It cannot be read within the limits, or moves; or the folder cannot be written.
        """
        here, there = self._context.Pipe(duplex=False)
        process = self._context.Process(
            target=_read, args=(there, source, folder, self.limits, value_range), daemon=True
        )
        with here:
            with there:
                process.start()
            try:
                # The first process waits until the server has imported the decoders, which is not the image's fault.
                begun = here.poll(START_SECONDS) and here.recv_bytes(ANSWER_BYTES) == BEGUN
                answer = None
                if begun and here.poll(self.limits.time):
                    answer = json.loads(here.recv_bytes(ANSWER_BYTES))
            except (EOFError, OSError):
                answer = {"error": f"{source}: {LOST}"}
            finally:
                process.kill()
                process.join()
                process.close()
        if answer is None:
            raise UserError(f"{source}: takes longer to decode than {self.limits.time:g} s, the limit here.")
        if "error" in answer:
            raise (WriteError if answer.get("is_ours") else UserError)(answer["error"])
        return SafeImage(_safe_path(folder), _preview_path(folder), tuple(answer["size"]))


def write_preview(source: Path, target: Path, value_range: ValueRange | None) -> None:
    """Write a PNG of 8 bits of an image, of at most `SHOWN_SIDE` pixels a side.

    Raises:
        UserError: It cannot be read.
        OSError: The place cannot be written.
    """
    image = Image.fromarray(to_display(read_image(source), value_range))
    image.thumbnail((SHOWN_SIDE, SHOWN_SIDE))
    image.save(target)


def _safe_path(folder: Path) -> Path:
    return folder / "source.tif"


def _preview_path(folder: Path) -> Path:
    return folder / "source-preview.png"


def _read(answers: Connection, source: Path, folder: Path, limits: ReadLimits, value_range: ValueRange | None) -> None:
    """Read an image in this process, which is for that alone, and send what came of it."""
    answers.send_bytes(BEGUN)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C ends the caller, which ends this
    if hasattr(signal, "setitimer"):
        signal.setitimer(signal.ITIMER_REAL, limits.time + 5)  # ends this even where the caller was killed
    _limit_memory(limits.memory)
    with suppress(OSError, AttributeError):
        os.nice(10)  # the page and its network come first
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # what decoders say of a stranger's file, some of them in C
    warnings.simplefilter("ignore")
    Image.MAX_IMAGE_PIXELS = limits.max_pixels  # whichever library reads a image heeds it
    answer: dict[str, Any]
    try:
        answer = {"size": _rewrite(source, folder, limits, value_range)}
    except (WriteError, OSError) as error:
        answer = {"error": str(error), "is_ours": True}
    except UserError as error:
        answer = {"error": str(error)}
    except Exception as error:  # a decoder's own kind
        answer = {"error": f"{source}: cannot be decoded ({type(error).__name__}). Remove it, or save it again as PNG."}
    answers.send_bytes(json.dumps(answer).encode()[:ANSWER_BYTES])


def _limit_memory(more: int) -> None:
    """Let this process take so many bytes more, where the system can count them."""
    with suppress(ImportError, OSError, ValueError):
        import resource

        pages = int(Path("/proc/self/statm").read_text().split()[0])
        resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + more,) * 2)


def _rewrite(source: Path, folder: Path, limits: ReadLimits, value_range: ValueRange | None) -> tuple[int, int]:
    _check_header(source, limits)
    try:
        picture = read_raster(source, keep_alpha=True)
    except UserError as error:
        if isinstance(error.__context__, Image.DecompressionBombError | Image.DecompressionBombWarning):
            raise _too_large(source, limits) from None
        raise
    H, W = picture.array.shape[:2]
    _check_size(source, H, W, limits)
    write_raster(_safe_path(folder), picture)
    write_preview(_safe_path(folder), _preview_path(folder), value_range)
    return H, W


def _check_header(path: Path, limits: ReadLimits) -> None:
    """Refuse an image by its header, before it is decoded: one that is too large, and one that moves.

    Raises:
        UserError: It is one of them.
    """
    try:
        with Image.open(path, formats=FORMATS) as picture:
            W, H = picture.size
            # A camera's JPEG may hold its thumbnails, and a TIFF has pages: neither moves.
            moves = picture.format in ("GIF", "WEBP", "PNG") and getattr(picture, "is_animated", False)
    except Image.DecompressionBombError:
        raise _too_large(path, limits) from None
    except Exception:
        return  # not for Pillow: the one who reads it will know, or say so
    _check_size(path, H, W, limits)
    if moves:
        raise UserError(f"{path}: is an animation. Give a single image, such as one frame saved as PNG.")


def _check_size(path: Path, height: int, width: int, limits: ReadLimits) -> None:
    if height * width > limits.max_pixels:
        raise UserError(f"{path}: has {width}x{height} pixels; the limit here is {limits.max_pixels:,}. Scale it down.")
    if max(height, width) > limits.max_side:
        raise UserError(
            f"{path}: has {width}x{height} pixels; a side may have {limits.max_side:,} here. Cut it into parts."
        )


def _too_large(path: Path, limits: ReadLimits) -> UserError:
    return UserError(f"{path}: has more than {limits.max_pixels:,} pixels, the limit here. Scale it down.")
