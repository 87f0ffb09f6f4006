"""A page in the browser for one model: upload an image or draw one, compare source and result, download the result.

The page requests nothing from any other host. The download is the file that ``translate`` would write; the page shows
an 8-bit preview of it.
"""

import logging
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import gradio as gr
import numpy as np
from fastapi import FastAPI
from PIL import Image

from ganvas.data.encode import write_image
from ganvas.data.layout import splits
from ganvas.errors import UserError
from ganvas.inference.run_data import data_of_run, sample_sources
from ganvas.inference.tiling.plan import Tiling
from ganvas.inference.translator import Translator
from ganvas.inference.web.files import PageFiles
from ganvas.inference.web.guard import Guard
from ganvas.inference.web.jobs import JOBS_PER_CLIENT, Example, Jobs, Service, no_result
from ganvas.inference.web.pad import TEMPLATES, Brush, pad_html, palette_brushes
from ganvas.inference.web.safe_reading import ReadLimits, SafeReader, write_preview
from ganvas.inference.web.server import PageServer
from ganvas.markdown import escape_markdown
from ganvas.models.folder import ModelConfig, load_model

EXAMPLES = 6  # of each direction
KEEP_SECONDS = 3600  # uploads and results
KEEP_UPLOADS = 32  # of the largest size: beyond, the oldest are removed
MAX_JOBS = 4 * JOBS_PER_CLIENT
MAX_WAITING = 24  # jobs beyond those; more are refused
MAX_SESSIONS = 200  # whose components gradio remembers
FONT, MONOSPACE = ["system-ui", "sans-serif"], ["monospace"]  # of the system: none is downloaded


@dataclass(frozen=True)
class PageOptions:
    """What a page shows and accepts.

    Attributes:
        model: A run, a checkpoint or a model folder.
        data: The dataset, for examples and brushes; None is the one of the training, if it exists.
        host: The address that the server listens at.
        max_pixels: Larger images are refused.
        max_bytes: Larger uploads are refused.
        tiling: How large images are cut.
        device: "cpu", "cuda" or "mps".
    """

    model: Path
    data: Path | None
    host: str
    max_pixels: int
    max_bytes: int
    tiling: Tiling
    device: str


def serve_page(options: PageOptions, listener: socket.socket, folder: Path) -> None:
    """Load a model and serve its page until the process is interrupted; print the address once it answers.

    Args:
        options: The model and its limits.
        listener: A listening socket.
        folder: Where files are written and served from, also by gradio.

    Raises:
        UserError: There is no model, it takes several images at once, or the tiles do not suit it.
    """
    logging.getLogger("python_multipart").setLevel(logging.ERROR)  # not each malformed upload
    Image.MAX_IMAGE_PIXELS = options.max_pixels  # for images that the reader has passed, too
    reader = SafeReader(ReadLimits(options.max_pixels))  # first, since it starts meanwhile
    files = PageFiles(folder, KEEP_UPLOADS * options.max_bytes, KEEP_SECONDS)
    page, side = load_page(options, reader, folder)
    script = TEMPLATES.get_template("pad.js").render()
    app = gr.mount_gradio_app(
        FastAPI(docs_url=None, redoc_url=None, openapi_url=None),
        page,
        "/",
        footer_links=[],
        show_error=False,
        max_file_size=options.max_bytes,
        ssr_mode=False,
        mcp_server=False,
        theme=gr.themes.Default(font=FONT, font_mono=MONOSPACE),
        css=TEMPLATES.get_template("page.css").render(),
        head=f"<script>{script}</script>",
    )
    files.keep()
    functions = {number: len(function.inputs) for number, function in page.fns.items()}
    # A drawing is a PNG of a canvas with alpha, in base64; without compression it has a byte more per row.
    max_job = min(options.max_bytes, (4 * side + 1) * side * 9 // 8) * 4 // 3 + 2**16
    guard = Guard(app, files, host=options.host, functions=functions, max_upload=options.max_bytes, max_job=max_job)
    host = f"[{options.host}]" if ":" in options.host else options.host
    address = f"http://{host}:{listener.getsockname()[1]}"
    PageServer(guard, partial(print, address, flush=True)).run(sockets=[listener])


def load_page(options: PageOptions, reader: SafeReader, folder: Path) -> tuple[gr.Blocks, int]:
    """Load a model and build its page; return it and the side of its canvas.

    Raises:
        UserError: As `serve_page`.
    """
    config, generators = load_model(options.model)
    if config.preprocessing.source_folders:
        raise UserError(f"{options.model}: takes several images at once, which the page cannot. Use translate.")
    for network in generators.values():
        options.tiling.check(network)
    translators, native = (
        {name: Translator(config, generators, direction=name, device=options.device, size=size) for name in generators}
        for size in ("trained", "native")
    )
    data = options.data or data_of_run(options.model)
    examples = write_examples(config, data, folder / "examples") if data and data.is_dir() else []
    service = Service(translators, native, options.tiling, reader, folder)
    return build_page(config, service, palette_brushes(config, data), examples), config.preprocessing.image_size


def write_examples(config: ModelConfig, data: Path, folder: Path) -> list[Example]:
    """Write sources of the dataset's last split to files of their own, evenly over it.

    Raises:
        UserError: The dataset is not what the model was trained on.
    """
    found = splits(data)
    if not found:
        return []
    examples = []
    for direction in config.networks:
        for number, image in enumerate(sample_sources(config, direction, data, found[-1], EXAMPLES)):
            suffix = "png" if image.dtype == np.uint8 and image.shape[2] < 4 else "tif"
            examples.append(Example(folder / f"{direction}-{number}.{suffix}", direction))
            write_image(examples[-1].path, image)
    return examples


@dataclass(frozen=True)
class Widgets:
    """The parts of the page that do something; optional ones are None."""

    direction: gr.Radio
    upload: gr.File
    tiled: gr.Checkbox
    examples: gr.Gallery | None
    drawing: gr.Textbox | None
    translate_drawing: gr.Button | None
    result: gr.ImageSlider
    download: gr.DownloadButton


def build_page(config: ModelConfig, service: Service, brushes: list[Brush], examples: Sequence[Example]) -> gr.Blocks:
    """Build the page.

    Args:
        config: The model's.
        service: Translates images.
        brushes: What sources are drawn with; empty for a model of other images.
        examples: Images to try.
    """
    title = f"ganvas: {config.kind}"
    with gr.Blocks(title=title, analytics_enabled=False, delete_cache=(KEEP_SECONDS, KEEP_SECONDS)) as page:
        _connect(_lay_out(config, service, brushes, examples), Jobs(service, examples))
    page.max_threads = MAX_JOBS  # gradio's name for it; they wait without threads
    page.state_session_capacity = MAX_SESSIONS
    return page.queue(max_size=MAX_WAITING)


def _lay_out(config: ModelConfig, service: Service, brushes: list[Brush], examples: Sequence[Example]) -> Widgets:
    how, first = config.preprocessing, next(iter(service.translators))
    names = {name: f"{t.spec.source} → {t.spec.target}" for name, t in service.translators.items()}
    gallery = drawing = draw = None
    gr.Markdown(f"# {escape_markdown(', '.join(names.values()))}")
    choices = [(text, name) for name, text in names.items()]
    direction = gr.Radio(choices, value=first, label="Direction", visible=len(names) > 1, elem_id="direction")
    with gr.Row():
        with gr.Column():
            with gr.Tab("Image"):
                label = f"Drop an image (at most {service.reader.limits.max_pixels / 1e6:g} megapixels)"
                upload = gr.File(label=label, type="filepath", elem_id="image")
                info = f"Images larger than {service.tiling.tile} pixels a side are cut into tiles and keep their scale"
                info += f"; others are scaled to {how.image_size} pixels, as in training." if how.resized else "."
                tiled = gr.Checkbox(not how.resized, label="Tile large images", info=info)
                if examples:
                    gallery = gr.Gallery(
                        [_write_example_preview(service, example) for example in examples],
                        label="Examples",
                        columns=3,
                        height="auto",
                        format="png",
                        allow_preview=False,
                        elem_id="examples",
                    )
            source = service.translators[first].preprocessing
            if source.source_channels == 3 and source.source_range is None:
                with gr.Tab("Draw"):
                    gr.HTML(pad_html(brushes, how.image_size))
                    drawing = gr.Textbox(visible=False)
                    draw = gr.Button("Translate the drawing", elem_id="translate-drawing")
        with gr.Column():
            result = gr.ImageSlider(
                label="Source | result", format="png", interactive=False, buttons=["fullscreen"], elem_id="result"
            )
            download = gr.DownloadButton("Download the result", interactive=False, elem_id="download")
    return Widgets(direction, upload, tiled, gallery, drawing, draw, result, download)


def _connect(widgets: Widgets, jobs: Jobs) -> None:
    """Connect events to the functions. `Jobs` deals the turns, since gradio's queue does not distinguish visitors."""
    common: dict[str, Any] = {"concurrency_limit": None, "api_visibility": "private"}
    outputs = [widgets.result, widgets.download]
    choices = [widgets.direction, widgets.tiled]
    # What the visitor changes while a translation runs counts, too.
    gr.on(
        [widgets.upload.upload, widgets.direction.input, widgets.tiled.input],
        jobs.translate_upload,
        [widgets.upload, *choices],
        outputs,
        trigger_mode="always_last",
        **common,
    )
    if widgets.examples:
        widgets.examples.select(jobs.translate_example, widgets.tiled, [*outputs, widgets.direction], **common)
    if widgets.translate_drawing and widgets.drawing:
        widgets.translate_drawing.click(
            jobs.translate_drawing,
            [widgets.drawing, *choices],
            outputs,
            js="(_, ...others) => [window.drawing(), ...others]",
            trigger_mode="always_last",
            **common,
        )
    widgets.upload.clear(no_result, None, outputs, **common)


def _write_example_preview(service: Service, example: Example) -> Path:
    preview = example.path.with_name(f"{example.path.stem}-preview.png")
    write_preview(example.path, preview, service.translators[example.direction].preprocessing.source_range)
    return preview
