"""A page in the browser for one model: drop a image or draw one, compare source and result, download the result.

The page asks nothing of any host but its own. The download is the file that ``translate`` would write; what the page
shows is a copy of it for the eye.
"""

import base64
import logging
import re
import socket
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from html import escape
from pathlib import Path
from typing import Any

import gradio as gr
import numpy as np
from anyio.to_thread import run_sync
from fastapi import FastAPI
from PIL import Image

from ganvas.cli.serve import ServeOptions
from ganvas.data.dataset_info import dataset_info
from ganvas.data.encode import write_image
from ganvas.data.formats import TIFF_SUFFIXES
from ganvas.data.layout import splits
from ganvas.data.palette import Color, parse_palette
from ganvas.data.tensors import ValueRange
from ganvas.errors import UserError, WriteError
from ganvas.inference.run_data import data_of_run, sample_sources
from ganvas.inference.tiling.plan import Tiling, grid_of
from ganvas.inference.tiling.tiles import translate_tiled
from ganvas.inference.translator import Translator
from ganvas.inference.web.files import PageFiles
from ganvas.inference.web.guard import Guard
from ganvas.inference.web.safe_reading import ReadLimits, SafeImage, SafeReader, write_preview
from ganvas.inference.web.server import PageServer
from ganvas.inference.web.turns import Turns
from ganvas.markdown import escape_markdown
from ganvas.models.folder import ModelConfig, load_model

EXAMPLES = 6  # of each direction
LOSSLESS = TIFF_SUFFIXES | {".npy"}
PAPERS = ("water", "white")  # what an empty sheet shows, where there is such a color
LINES = ("river", "rivers")  # of a legend's names, those that are no areas
PNG_URL = "data:image/png;base64,"
KEPT_SECONDS = 3600  # of uploads and results
KEPT_UPLOADS = 32  # of the largest size: beyond, the oldest are removed
PADDED = 2  # times the limit of pixels, that the network may see with its padding: our choice
# One decoder in four always is another address's, and so is half of the jobs: each is at one of two `Turns`. Turns are
# fair, so the limit is wide: a class behind one address must not be refused.
READERS, READERS_OF_ONE, JOBS_OF_ONE = 4, 3, 64
JOBS = 4 * JOBS_OF_ONE
WAITING = 24  # jobs beyond those; more are refused
SESSIONS = 200  # whose components gradio remembers

FONT, MONOSPACE = ["system-ui", "sans-serif"], ["monospace"]  # the system's, none from elsewhere
CSS = """
#pad-tools { display: flex; flex-wrap: wrap; gap: 0.5rem; align-items: center; margin-bottom: 0.5rem; }
#pad-tools button { padding: 0.3rem 0.8rem; border: 1px solid #8888; border-radius: 0.4rem; cursor: pointer; }
#pad-tools button[data-ink]::before { content: ""; display: inline-block; width: 1em; height: 1em; margin-right: 0.4em;
  vertical-align: -0.12em; border: 1px solid #888; border-radius: 50%; background: var(--ink); }
#pad-tools button[aria-pressed=true] { outline: 3px solid #f97316; }
#pad { width: 100%; max-width: 512px; touch-action: none; cursor: crosshair; image-rendering: pixelated;
  border: 1px solid #8888; }
"""
# Strokes are whole pixels of one color, without smooth edges: the colors of a legend have a meaning each.
SCRIPT = """<script>
(() => {
  let last = null;
  const get = (id) => document.getElementById(id);
  const sheet = (canvas) => {
    const pen = canvas.getContext("2d");
    if (canvas.dataset.ready) return pen;
    pen.fillStyle = canvas.dataset.paper;
    pen.fillRect(0, 0, canvas.width, canvas.height);
    canvas.dataset.ready = "yes";
    return pen;
  };
  const place = (event, canvas) => {
    const box = canvas.getBoundingClientRect();
    return [event.clientX - box.left, event.clientY - box.top].map((v) => Math.floor(v * canvas.width / box.width));
  };
  const stamp = (pen, x, y, radius) => {
    for (let dy = -radius; dy <= radius; dy++) {
      const half = Math.floor(Math.sqrt(radius * radius - dy * dy));
      pen.fillRect(x - half, y + dy, 2 * half + 1, 1);
    }
  };
  const stroke = (event) => {
    const canvas = get("pad"), pen = sheet(canvas), [x, y] = place(event, canvas);
    pen.fillStyle = document.querySelector("#pad-tools [aria-pressed=true]").dataset.ink;
    const steps = Math.max(1, Math.abs(x - last[0]), Math.abs(y - last[1]));
    for (let i = 0; i <= steps; i++) {
      const at = (j, end) => Math.round(last[j] + (end - last[j]) * i / steps);
      stamp(pen, at(0, x), at(1, y), Number(get("pad-size").value));
    }
    last = [x, y];
  };
  window.drawing = () => { sheet(get("pad")); return get("pad").toDataURL("image/png"); };
  document.addEventListener("pointerdown", (event) => {
    if (event.target.id !== "pad" || event.button) return;
    last = place(event, event.target);
    stroke(event);
  });
  document.addEventListener("pointermove", (event) => { if (last) stroke(event); });
  for (const end of ["pointerup", "pointercancel"]) document.addEventListener(end, () => {
    if (last) get("translate-drawing").click();
    last = null;
  });
  document.addEventListener("click", (event) => {
    const brush = event.target.closest("#pad-tools button");
    if (!brush) return;
    if (brush.id === "pad-clear") { delete get("pad").dataset.ready; sheet(get("pad")); return; }
    for (const one of document.querySelectorAll("#pad-tools [data-ink]")) one.ariaPressed = one === brush;
    get("pad-size").value = brush.dataset.size;
  });
  document.addEventListener("input", (event) => {
    if (event.target.id !== "pad-size") return;
    document.querySelector("#pad-tools [aria-pressed=true]").dataset.size = event.target.value;
  });
})();
</script>"""


@dataclass(frozen=True)
class Brush:
    """A color to draw with; ``thin`` for what is a line on the map, such as a river."""

    colour: Color
    thin: bool = False


BLACK_ON_WHITE: Mapping[str, Brush] = {"black": Brush((0, 0, 0)), "white": Brush((255, 255, 255))}


@dataclass(frozen=True)
class Served:
    """A model's ways to translate, and the limits of what it is given.

    Attributes:
        whole: Translators by direction.
        native: The same, which scale no image, for those that are cut into tiles.
        tiling: How images larger than a tile are cut.
        reader: Reads what visitors send.
        folder: Where results are written.
    """

    whole: Mapping[str, Translator]
    native: Mapping[str, Translator]
    tiling: Tiling
    reader: SafeReader
    folder: Path

    def is_tiled(self, size: tuple[int, int], tiled: bool) -> bool:
        """Return whether an image of a height and width is cut into tiles."""
        return tiled and max(size) > self.tiling.tile

    def check_size(self, way: str, size: tuple[int, int], tiled: bool) -> None:
        """Refuse an image that the network sees with so much padding that it is beyond the limit.

        Raises:
            UserError: It is.
        """
        if not self.is_tiled(size, tiled) and self.whole[way].resizes:
            return
        H, W = map(grid_of(self.native[way].network).padded, size)
        limit = PADDED * self.reader.limits.max_pixels
        if limit < H * W:
            raise UserError(
                f"The image has {size[1]}x{size[0]} pixels, which become {W}x{H} with the network's padding; the limit "
                f"here is {limit:,}. Give one that is less narrow."
            )


@dataclass(frozen=True)
class Example:
    """A image to try: its file, and the direction that it is a source of."""

    path: Path
    direction: str


def serve_page(options: ServeOptions, device: str, listener: socket.socket, folder: Path) -> None:
    """Read a model and serve its page until the process is interrupted; print the address once it answers.

    Args:
        options: What the command was given.
        device: Where to compute; "cpu", "cuda", "mps".
        listener: A socket that listens.
        folder: Where files are written and served from; it is gradio's, too.

    Raises:
        UserError: There is no model, it takes several images at once, or the tiles do not suit it.
    """
    logging.getLogger("python_multipart").setLevel(logging.ERROR)  # not each malformed upload
    Image.MAX_IMAGE_PIXELS = options.max_pixels  # for images that the reader has passed, too
    reader = SafeReader(ReadLimits(options.max_pixels))  # first, since it starts meanwhile
    max_upload = options.max_megabytes * 2**20
    files = PageFiles(folder, KEPT_UPLOADS * max_upload, KEPT_SECONDS)
    page, side = _load_page(options, device, reader, folder)
    page.state_session_capacity = SESSIONS
    app = gr.mount_gradio_app(
        FastAPI(docs_url=None, redoc_url=None, openapi_url=None),
        page,
        "/",
        footer_links=[],
        show_error=False,
        max_file_size=max_upload,
        ssr_mode=False,
        mcp_server=False,
        theme=gr.themes.Default(font=FONT, font_mono=MONOSPACE),
        css=CSS,
        head=SCRIPT,
    )
    files.keep()
    functions = {number: len(function.inputs) for number, function in page.fns.items()}
    # A drawing is a PNG of a sheet with alpha, in base64; without compression it has a byte more each row.
    max_job = min(max_upload, (4 * side + 1) * side * 9 // 8) * 4 // 3 + 2**16
    guard = Guard(app, files, host=options.host, functions=functions, max_upload=max_upload, max_job=max_job)
    port = listener.getsockname()[1]
    address = f"http://{f'[{options.host}]' if ':' in options.host else options.host}:{port}"
    PageServer(guard, partial(print, address, flush=True)).run(sockets=[listener])


def _load_page(options: ServeOptions, device: str, reader: SafeReader, folder: Path) -> tuple[gr.Blocks, int]:
    """Read a model and build its page; return the side of its sheet, too.

    Raises:
        UserError: As `serve_page`.
    """
    config, generators = load_model(options.model)
    if config.preprocessing.source_folders:
        raise UserError(f"{options.model}: takes several images at once, which the page cannot. Use translate.")
    tiling = Tiling(options.tile, options.overlap)
    for network in generators.values():
        tiling.check(network)
    whole, native = (
        {way: Translator(config, generators, direction=way, device=device, size=size) for way in generators}
        for size in ("trained", "native")
    )
    data = options.data or data_of_run(options.model)
    examples = _examples(config, data, folder / "examples") if data and data.is_dir() else []
    served = Served(whole, native, tiling, reader, folder)
    return build_page(config, served, _brushes(config, data), examples), config.preprocessing.image_size


def build_page(
    config: ModelConfig,
    served: Served,
    brushes: Mapping[str, Brush],
    examples: Sequence[Example],
) -> gr.Blocks:
    """Lay out the page and say what its parts do.

    Args:
        config: The model's.
        served: The model's ways to translate.
        brushes: By name, with which sources are drawn; empty for a model of other images.
        examples: Images to try.
    """
    ways = {way: f"{t.spec.source} → {t.spec.target}" for way, t in served.whole.items()}
    work = Work(served)

    # gradio finds a bar by this default.
    async def answer_upload(
        path: str | None,
        way: str,
        tiled: bool,
        visitor: gr.Request,
        bar: gr.Progress = gr.Progress(),  # noqa: B008
    ) -> AsyncIterator[Any]:
        if path is None:
            yield gr.skip(), gr.skip()
            return
        async for answer in work.answers(lambda _: Path(path), way, tiled, visitor, bar):
            yield answer

    async def answer_drawing(
        drawing: str | None,
        way: str,
        tiled: bool,
        visitor: gr.Request,
        bar: gr.Progress = gr.Progress(),  # noqa: B008
    ) -> AsyncIterator[Any]:
        async for answer in work.answers(partial(_drawn, drawing or ""), way, tiled, visitor, bar):
            yield answer

    async def answer_example(
        tiled: bool,
        selected: gr.SelectData,
        visitor: gr.Request,
        bar: gr.Progress = gr.Progress(),  # noqa: B008
    ) -> AsyncIterator[Any]:
        if not 0 <= selected.index < len(examples):
            raise _message("There is no such example.")
        example = examples[selected.index]
        async for answer in work.answers(lambda _: example.path, example.direction, tiled, visitor, bar):
            yield *answer, example.direction

    with gr.Blocks(title=f"ganvas: {config.kind}", analytics_enabled=False, delete_cache=(KEPT_SECONDS,) * 2) as page:
        gr.Markdown(f"# {escape_markdown(', '.join(ways.values()))}")
        first = next(iter(ways))
        choices = [(words, way) for way, words in ways.items()]
        can_be_drawn = _can_be_drawn(served.whole[first])
        direction = gr.Radio(choices, value=first, label="Direction", visible=len(ways) > 1, elem_id="direction")
        with gr.Row():
            with gr.Column():
                with gr.Tab("Raster"):
                    limit = f"Drop a image (at most {served.reader.limits.max_pixels / 1e6:g} megapixels)"
                    file = gr.File(label=limit, type="filepath", elem_id="picture")
                    on_tiles = _on_tiles(config, served.tiling)
                    tiled = gr.Checkbox(not config.preprocessing.resized, label="Tile large images", info=on_tiles)
                    if examples:
                        ranges = {way: t.preprocessing.source_range for way, t in served.whole.items()}
                        shown = [_example_preview(example, ranges[example.direction]) for example in examples]
                        gallery = gr.Gallery(
                            shown,
                            label="Examples",
                            columns=3,
                            height="auto",
                            format="png",
                            allow_preview=False,
                            elem_id="examples",
                        )
                if can_be_drawn:
                    with gr.Tab("Draw"):
                        gr.HTML(_pad(brushes or BLACK_ON_WHITE, config.preprocessing.image_size))
                        drawing = gr.Textbox(visible=False)
                        draw = gr.Button("Translate the drawing", elem_id="translate-drawing")
            with gr.Column():
                slider = gr.ImageSlider(
                    label="Source | result", format="png", interactive=False, buttons=["fullscreen"], elem_id="result"
                )
                download = gr.DownloadButton("Download the result", interactive=False, elem_id="download")
        # `Work` deals the turns: gradio's own queue knows no visitors.
        share: dict[str, Any] = {"concurrency_limit": None, "api_visibility": "private"}
        outputs = [slider, download]
        changes = [file.upload, direction.input, tiled.input]
        # What the visitor changes while an answer is on its way counts as well.
        gr.on(changes, answer_upload, [file, direction, tiled], outputs, trigger_mode="always_last", **share)
        if examples:
            gallery.select(answer_example, tiled, [*outputs, direction], **share)
        if can_be_drawn:
            read = "(_, ...others) => [window.drawing(), ...others]"
            given = [drawing, direction, tiled]
            draw.click(answer_drawing, given, outputs, js=read, trigger_mode="always_last", **share)
        file.clear(_no_result, None, outputs, **share)
    page.max_threads = JOBS  # gradio's name for it; they wait without threads
    return page.queue(max_size=WAITING)


Source = Callable[[Path], Path]


class Work:
    """Translates what visitors send; their images take turns at the decoders and at the network.

    Args:
        served: The model's ways to translate.
    """

    def __init__(self, served: Served) -> None:
        self._served = served
        self._reading = Turns(READERS, READERS_OF_ONE, JOBS_OF_ONE)
        self._translating = Turns(1, 1, JOBS_OF_ONE)  # the network uses all cores anyway

    async def answers(
        self, source: Source, way: str, tiled: bool, visitor: gr.Request, progress: gr.Progress
    ) -> AsyncIterator[tuple[Any, Any]]:
        """Translate an image; yield the slider's images and the download, or those of `_no_result`.

        Args:
            source: Returns the image's file, which it may write to a folder that it is given: then it is removed.
            way: Direction.
            tiled: Whether to cut a large image into tiles.
            visitor: Who asks.
            progress: The visitor's bar.

        Raises:
            gr.Error: The message to the visitor of an expected failure.
        """
        client = visitor.client.host if visitor.client else ""
        try:
            with _told(self._served.folder):
                answer = await self._translate(source, way, tiled, client, progress)
        except gr.Error:
            yield _no_result()  # the one before is not of this image
            raise
        yield answer

    async def _translate(
        self, source: Source, way: str, tiled: bool, client: str, progress: gr.Progress
    ) -> tuple[Any, Any]:
        served = self._served
        folder = Path(tempfile.mkdtemp(prefix="result-", dir=served.folder))
        path = source(folder)
        value_range = served.whole[way].preprocessing.source_range
        try:
            async with self._reading.turn(client):
                image = await run_sync(served.reader.read, path, folder, value_range)
        finally:
            if path.parent == folder:
                path.unlink()
        try:
            served.check_size(way, image.size, tiled)
            target = folder / f"{path.stem}{'.tif' if path.suffix.lower() in LOSSLESS else '.png'}"
            async with self._translating.turn(client):
                return await run_sync(_translated, served, way, tiled, image, target, progress)
        except UserError as error:
            raise type(error)(str(error).replace(str(image.path), path.name)) from None
        finally:
            image.path.unlink(missing_ok=True)


def _no_result() -> tuple[Any, Any]:
    """Return an empty slider and a download that offers nothing."""
    return None, gr.DownloadButton(value=None, interactive=False)


@contextmanager
def _told(folder: Path) -> Iterator[None]:
    """Make one message for the visitor of an expected failure.

    Args:
        folder: Where the server has the visitor's files: a message shows only their names.
    """
    try:
        yield
    except (WriteError, OSError) as error:
        print(error, file=sys.stderr)
        raise _message("The server could not read or write a file; its disk may be full. Try again later.") from None
    except UserError as error:
        path = re.compile(re.escape(str(folder)) + r"[/\\][^/\\]+[/\\]")
        raise _message(path.sub("", str(error))) from None


def _message(text: str) -> gr.Error:
    """Give a message that stays until the visitor closes it."""
    return gr.Error(escape(text), duration=None, print_exception=False)


def _on_tiles(config: ModelConfig, tiling: Tiling) -> str:
    """Say what the choice of tiles means."""
    how = config.preprocessing
    text = f"A image of more than {tiling.tile} pixels a side is cut into tiles, at its own scale"
    return f"{text}; else it is scaled to {how.image_size} pixels, as in training." if how.resized else f"{text}."


def _translated(
    served: Served, way: str, tiled: bool, image: SafeImage, target: Path, progress: gr.Progress
) -> tuple[Any, Any]:
    """Translate an image, in tiles if it is larger than one; return the slider's images and the download."""
    if served.is_tiled(image.size, tiled):
        advance = lambda done, total: progress((done, total), unit="tiles")  # noqa: E731
        written = translate_tiled(served.native[way], image.path, target, served.tiling, advance).path
    else:
        written = served.whole[way].translate_file(image.path, target)
    preview = target.parent / "result-preview.png"
    write_preview(written, preview, served.whole[way].preprocessing.target_range)
    return (image.preview, preview), gr.DownloadButton(value=str(written), interactive=True)


def _example_preview(example: Example, value_range: ValueRange | None) -> Path:
    preview = example.path.with_name(f"{example.path.stem}-preview.png")
    write_preview(example.path, preview, value_range)
    return preview


def _drawn(drawing: str, folder: Path) -> Path:
    """Write a drawing, a PNG as a data URL, to a file in a folder.

    Raises:
        UserError: It is none.
    """
    try:
        content = base64.b64decode(drawing.removeprefix(PNG_URL), validate=True)
    except ValueError:
        raise UserError("The browser sent no drawing.") from None
    path = folder / "drawing.png"
    path.write_bytes(content)
    return path


def _can_be_drawn(translator: Translator) -> bool:
    how = translator.preprocessing
    return how.source_channels == 3 and how.source_range is None


def _pad(brushes: Mapping[str, Brush], side: int) -> str:
    """Draw the pad: its brushes, and a sheet of ``side`` pixels a side."""
    paper = next((name for name in PAPERS if name in brushes), next(iter(brushes)))
    first = next(name for name in brushes if name != paper or len(brushes) == 1)
    codes = {name: "#" + bytes(brush.colour).hex() for name, brush in brushes.items()}
    sizes = {name: 0 if brush.thin else side // 20 for name, brush in brushes.items()}  # 0 is a line of one pixel
    buttons = "".join(
        f'<button type="button" data-ink="{codes[name]}" data-size="{sizes[name]}" style="--ink: {codes[name]}" '
        f'aria-pressed="{str(name == first).lower()}">{escape(name)}</button>'
        for name in brushes
    )
    return (
        f'<div id="pad-tools">{buttons}<label>size <input type="range" id="pad-size" min="0" max="{max(1, side // 8)}" '
        f'value="{sizes[first]}"></label><button type="button" id="pad-clear">clear</button></div>'
        f'<canvas id="pad" width="{side}" height="{side}" data-paper="{codes[paper]}" '
        f'style="background: {codes[paper]}"></canvas>'
    )


def _brushes(config: ModelConfig, data: Path | None) -> Mapping[str, Brush]:
    """Give what domain a is drawn with, as the model says it or its dataset: the legend's areas, and its lines.

    Returns:
        Brushes by name; none for a source that is not drawn.

    Raises:
        UserError: The legend or the lines are no colors by name.
    """
    if "a2b" not in config.networks:
        return {}
    info = config.training if config.training.get("legend") or data is None else dataset_info(data)
    areas, lines = parse_palette(info), parse_palette({"legend": info.get("lines", {})})
    brushes = {name: Brush(colour, thin=name in LINES) for name, colour in areas.items()}
    return brushes | {name: Brush(colour, thin=True) for name, colour in lines.items()}


def _examples(config: ModelConfig, data: Path, folder: Path) -> list[Example]:
    """Write sources of the dataset's last split to files of their own, evenly over it.

    Raises:
        UserError: The dataset is not what the model was trained on.
    """
    there = splits(data)
    if not there:
        return []
    found = []
    for way in config.networks:
        for number, picture in enumerate(sample_sources(config, way, data, there[-1], EXAMPLES)):
            path = folder / f"{way}-{number}.{'png' if picture.dtype == np.uint8 and picture.shape[2] < 4 else 'tif'}"
            write_image(path, picture)
            found.append(Example(path, way))
    return found
