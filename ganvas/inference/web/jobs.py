"""What the page does with visitors' images: reads them safely, translates them in turn, reports failures."""

import re
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from html import escape
from pathlib import Path
from typing import Any

import gradio as gr
from anyio.to_thread import run_sync

from ganvas.data.formats import TIFF_SUFFIXES
from ganvas.errors import UserError, WriteError
from ganvas.inference.tiling.plan import Tiling, grid_of
from ganvas.inference.tiling.tiles import translate_tiled
from ganvas.inference.translator import Translator
from ganvas.inference.web.pad import write_drawing
from ganvas.inference.web.safe_reading import SafeImage, SafeReader, write_preview
from ganvas.inference.web.turns import Turns
from ganvas.log import logger

LOSSLESS = TIFF_SUFFIXES | {".npy"}
MAX_PADDING = 2  # times the limit of pixels, that the network may see with its padding: our choice
# One decoder in four, and half of all jobs, are always left to other addresses. Turns are fair, so the limit is wide: a
# class behind one address must not be refused.
READERS, READERS_PER_CLIENT, JOBS_PER_CLIENT = 4, 3, 64

Answer = tuple[Any, Any]  # what the slider and the download button show


@dataclass(frozen=True)
class Service:
    """A model's directions, and the limits of what it is given.

    Attributes:
        translators: By direction.
        native: The same, but scaling no image, for those that are cut into tiles.
        tiling: How images larger than a tile are cut.
        reader: Reads what visitors send.
        folder: Where results are written.
    """

    translators: Mapping[str, Translator]
    native: Mapping[str, Translator]
    tiling: Tiling
    reader: SafeReader
    folder: Path

    def is_tiled(self, size: tuple[int, int], tiled: bool) -> bool:
        """Return whether an image of a height and width is cut into tiles."""
        return tiled and max(size) > self.tiling.tile

    def check_size(self, direction: str, size: tuple[int, int], tiled: bool) -> None:
        """Refuse an image that the network's padding makes larger than the limit.

        Raises:
            UserError: It is one.
        """
        if not self.is_tiled(size, tiled) and self.translators[direction].resizes:
            return
        H, W = map(grid_of(self.native[direction].network).padded, size)
        limit = MAX_PADDING * self.reader.limits.max_pixels
        if limit < H * W:
            raise UserError(
                f"The image has {size[1]}x{size[0]} pixels, which become {W}x{H} with the network's padding; the limit "
                f"here is {limit:,}. Use one that is less narrow."
            )

    def translate(
        self, direction: str, tiled: bool, image: SafeImage, target: Path, progress: gr.Progress
    ) -> tuple[Path, Path]:
        """Translate an image, in tiles if it is larger than one; return the file written and a preview of it."""
        if self.is_tiled(image.size, tiled):

            def advance(done: int, total: int) -> None:
                progress((done, total), unit="tiles")

            written = translate_tiled(self.native[direction], image.path, target, self.tiling, advance).path
        else:
            written = self.translators[direction].translate_file(image.path, target)
        preview = target.parent / "result-preview.png"
        write_preview(written, preview, self.translators[direction].preprocessing.target_range)
        return written, preview


@dataclass(frozen=True)
class Example:
    """An image to try: its file, and the direction that it is a source of."""

    path: Path
    direction: str


class Jobs:
    """The page's functions; visitors take turns at the decoders and at the network.

    Each yields what the slider and the download button show. gradio fills in ``visitor`` and ``bar``, which it finds
    by its default.

    Args:
        service: The model.
        examples: Images to try.
    """

    def __init__(self, service: Service, examples: Sequence[Example]) -> None:
        self._service, self._examples = service, examples
        self._reading = Turns(READERS, READERS_PER_CLIENT, JOBS_PER_CLIENT)
        self._translating = Turns(1, 1, JOBS_PER_CLIENT)  # the network uses all cores anyway

    async def translate_upload(
        self,
        path: str | None,
        direction: str,
        tiled: bool,
        visitor: gr.Request,
        bar: gr.Progress = gr.Progress(),  # noqa: B008
    ) -> AsyncIterator[Any]:
        """Translate an uploaded file."""
        if path is None:
            yield gr.skip(), gr.skip()
            return
        async for answer in self._answers(lambda _: Path(path), direction, tiled, visitor, bar):
            yield answer

    async def translate_drawing(
        self,
        drawing: str | None,
        direction: str,
        tiled: bool,
        visitor: gr.Request,
        bar: gr.Progress = gr.Progress(),  # noqa: B008
    ) -> AsyncIterator[Any]:
        """Translate a drawing, a PNG as a data URL."""
        async for answer in self._answers(partial(write_drawing, drawing or ""), direction, tiled, visitor, bar):
            yield answer

    async def translate_example(
        self,
        tiled: bool,
        selected: gr.SelectData,
        visitor: gr.Request,
        bar: gr.Progress = gr.Progress(),  # noqa: B008
    ) -> AsyncIterator[Any]:
        """Translate an example in its direction, which is yielded, too."""
        if not 0 <= selected.index < len(self._examples):
            raise _error("There is no such example.")
        example = self._examples[selected.index]
        async for answer in self._answers(lambda _: example.path, example.direction, tiled, visitor, bar):
            yield *answer, example.direction

    async def _answers(
        self, source: Callable[[Path], Path], direction: str, tiled: bool, visitor: gr.Request, progress: gr.Progress
    ) -> AsyncIterator[Answer]:
        """Translate an image.

        Args:
            source: Returns the image's file. If it writes it to the folder that it is given, the file is removed.
            direction: "a2b" or "b2a".
            tiled: Whether a large image is cut into tiles.
            visitor: Who sent it.
            progress: The visitor's bar.

        Raises:
            gr.Error: The message to the visitor of an expected failure.
        """
        client = visitor.client.host if visitor.client else ""
        try:
            with _errors_for_visitors(self._service.folder):
                answer = await self._translate(source, direction, tiled, client, progress)
        except gr.Error:
            yield no_result()  # the result before is of another image
            raise
        yield answer

    async def _translate(
        self, source: Callable[[Path], Path], direction: str, tiled: bool, client: str, progress: gr.Progress
    ) -> Answer:
        service = self._service
        folder = Path(tempfile.mkdtemp(prefix="result-", dir=service.folder))
        path = source(folder)
        value_range = service.translators[direction].preprocessing.source_range
        try:
            async with self._reading.turn(client):
                image = await run_sync(service.reader.read, path, folder, value_range)
        finally:
            if path.parent == folder:
                path.unlink()
        try:
            service.check_size(direction, image.size, tiled)
            target = folder / f"{path.stem}{'.tif' if path.suffix.lower() in LOSSLESS else '.png'}"
            async with self._translating.turn(client):
                written, preview = await run_sync(service.translate, direction, tiled, image, target, progress)
        except UserError as error:
            raise type(error)(str(error).replace(str(image.path), path.name)) from None
        finally:
            image.path.unlink(missing_ok=True)
        return (image.preview, preview), gr.DownloadButton(value=str(written), interactive=True)


def no_result() -> Answer:
    """Return an empty slider and a disabled download."""
    return None, gr.DownloadButton(value=None, interactive=False)


@contextmanager
def _errors_for_visitors(folder: Path) -> Iterator[None]:
    """Turn expected failures into messages to the visitor, without the folder of the server's files."""
    try:
        yield
    except (WriteError, OSError) as error:
        logger.error(error)
        raise _error("The server could not read or write a file; its disk may be full. Try again later.") from None
    except UserError as error:
        path = re.compile(re.escape(str(folder)) + r"[/\\][^/\\]+[/\\]")
        raise _error(path.sub("", str(error))) from None


def _error(text: str) -> gr.Error:
    """Return a message that stays until the visitor closes it."""
    return gr.Error(escape(text), duration=None, print_exception=False)
