"""A page in the browser for one model: drop a picture or draw one, compare source and result, download the result.

The page asks nothing of any host but its own. The download is the file that ``translate`` would write; what the page
shows is a copy of it for the eye.
"""

import base64
import sys
import tempfile
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

import gradio as gr
import numpy as np
from PIL import Image

from ganvas.data.encoding import FORMATS, TIFF_SUFFIXES
from ganvas.data.images import ValueRange, for_the_eye, read_image, write_image
from ganvas.data.layout import splits
from ganvas.data.legend import Colour, legend_of
from ganvas.data.paired import dataset_info
from ganvas.errors import UserError, WriteError
from ganvas.files import open_regular
from ganvas.inference.run_data import data_of_run, some_sources
from ganvas.inference.serve_command import ServeOptions
from ganvas.inference.tile_plan import Tiling
from ganvas.inference.tiles import translate_tiled
from ganvas.inference.translator import Translator
from ganvas.markdown import escape_markdown
from ganvas.modelfile import ModelConfig, load_model

EXAMPLES = 6  # of each direction
SHOWN_SIDE = 1024  # pixels; the preview of a larger picture is scaled down
LOSSLESS = TIFF_SUFFIXES | {".npy"}
PAPERS = ("water", "white")  # what an empty sheet shows, where there is such a colour
LINES = ("river", "rivers")  # of a legend's names, those that are no areas
PNG_URL = "data:image/png;base64,"
KEPT_SECONDS = 3600  # of uploads

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
# Strokes are whole pixels of one colour, without smooth edges: the colours of a legend have a meaning each.
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
    """A colour to draw with; ``thin`` for what is a line on the map, such as a river."""

    colour: Colour
    thin: bool = False


BLACK_ON_WHITE: Mapping[str, Brush] = {"black": Brush((0, 0, 0)), "white": Brush((255, 255, 255))}


@dataclass(frozen=True)
class Served:
    """A model's ways to translate, and the limits of what it is given.

    Attributes:
        whole: Translators by direction.
        native: The same, which scale no picture, for those that are cut into tiles.
        tiling: How pictures larger than a tile are cut.
        max_pixels: Pictures of more are refused.
        max_bytes: Drawings of more are refused, as uploads are.
    """

    whole: Mapping[str, Translator]
    native: Mapping[str, Translator]
    tiling: Tiling
    max_pixels: int
    max_bytes: int


@dataclass(frozen=True)
class Example:
    """A picture to try: its file, and the direction that it is a source of."""

    path: Path
    direction: str


def open_page(options: ServeOptions, device: str, port: int, folder: Path) -> gr.Blocks:
    """Read a model and serve its page in threads of its own.

    Args:
        options: What the command was given.
        device: Where to compute; "cpu", "cuda", "mps".
        port: A free port.
        folder: Where results and examples are written.

    Raises:
        UserError: There is no model, it takes several pictures at once, or the tiles do not suit it.
    """
    Image.MAX_IMAGE_PIXELS = options.max_pixels  # whichever library reads a picture heeds it
    warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # `_longer_side` says it
    config, generators = load_model(options.model)
    if config.preprocessing.source_folders:
        raise UserError(f"{options.model}: takes several pictures at once, which the page cannot. Use translate.")
    tiling = Tiling(options.tile, options.overlap)
    for network in generators.values():
        tiling.check(network)
    whole, native = (
        {way: Translator(config, generators, direction=way, device=device, size=size) for way in generators}
        for size in ("trained", "native")
    )
    served = Served(whole, native, tiling, options.max_pixels, options.max_megabytes * 2**20)
    data = options.data or data_of_run(options.model)
    examples = _examples(config, data, folder / "examples") if data and data.is_dir() else []
    page = build_page(config, served, _brushes(config, data), examples, folder)
    page.launch(
        server_name=options.host,
        server_port=port,
        max_file_size=served.max_bytes,
        prevent_thread_lock=True,
        quiet=True,
        share=False,
        ssr_mode=False,
        footer_links=[],
        theme=gr.themes.Default(font=FONT, font_mono=MONOSPACE),
        css=CSS,
        head=SCRIPT,
    )
    return page


def build_page(
    config: ModelConfig,
    served: Served,
    brushes: Mapping[str, Brush],
    examples: Sequence[Example],
    folder: Path,
) -> gr.Blocks:
    """Lay out the page and say what its parts do.

    Args:
        config: The model's.
        served: The model's ways to translate.
        brushes: By name, with which sources are drawn; empty for a model of other pictures.
        examples: Pictures to try.
        folder: Where results are written.
    """
    ways = {way: f"{t.spec.source} → {t.spec.target}" for way, t in served.whole.items()}

    def answer(path: str | None, way: str, tiled: bool, progress: gr.Progress) -> Any:
        if path is None:
            return gr.skip(), gr.skip()
        with _told(Path(path)):
            return _translated(served, way, tiled, Path(path), folder, progress)

    # gradio finds a bar by this default.
    def answer_upload(path: str | None, way: str, tiled: bool, bar: gr.Progress = gr.Progress()) -> Any:  # noqa: B008
        return answer(path, way, tiled, bar)

    def answer_drawing(drawing: str, way: str, tiled: bool, bar: gr.Progress = gr.Progress()) -> Any:  # noqa: B008
        with _told(folder), tempfile.TemporaryDirectory(prefix="drawing-", dir=folder) as place:
            return answer(str(_drawn(drawing, Path(place), served.max_bytes)), way, tiled, bar)

    def answer_example(tiled: bool, selected: gr.SelectData, bar: gr.Progress = gr.Progress()) -> Any:  # noqa: B008
        example = examples[selected.index]
        return *answer(str(example.path), example.direction, tiled, bar), example.direction

    with gr.Blocks(title=f"ganvas: {config.kind}", analytics_enabled=False, delete_cache=(KEPT_SECONDS,) * 2) as page:
        gr.Markdown(f"# {escape_markdown(', '.join(ways.values()))}")
        first = next(iter(ways))
        choices = [(words, way) for way, words in ways.items()]
        can_be_drawn = _can_be_drawn(served.whole[first])
        direction = gr.Radio(choices, value=first, label="Direction", visible=len(ways) > 1, elem_id="direction")
        with gr.Row():
            with gr.Column():
                with gr.Tab("Picture"):
                    limit = f"Drop a picture (at most {served.max_pixels / 1e6:g} megapixels)"
                    file = gr.File(label=limit, type="filepath", elem_id="picture")
                    on_tiles = _on_tiles(config, served.tiling)
                    tiled = gr.Checkbox(not config.preprocessing.resized, label="Tile large pictures", info=on_tiles)
                    if examples:
                        ranges = {way: t.preprocessing.source_range for way, t in served.whole.items()}
                        shown = [_preview(example.path, ranges[example.direction]) for example in examples]
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
        # One at a time: the network uses all cores anyway.
        share: dict[str, Any] = {"concurrency_id": "translate", "concurrency_limit": 1, "api_visibility": "private"}
        outputs = [slider, download]
        changes = [file.upload, direction.input, tiled.input]
        gr.on(changes, answer_upload, [file, direction, tiled], outputs, **share)
        if examples:
            gallery.select(answer_example, tiled, [*outputs, direction], **share)
        if can_be_drawn:
            read = "(_, ...others) => [window.drawing(), ...others]"
            given = [drawing, direction, tiled]
            draw.click(answer_drawing, given, outputs, js=read, trigger_mode="always_last", **share)
    return page


@contextmanager
def _told(path: Path) -> Iterator[None]:
    """Make one message for the visitor of an expected failure.

    Args:
        path: Where the server has the picture: the message gives its name alone.
    """
    try:
        yield
    except (WriteError, OSError) as error:
        print(error, file=sys.stderr)
        raise _message("The server could not read or write a file; its disk may be full. Try again later.") from None
    except UserError as error:
        raise _message(str(error).replace(str(path), path.name)) from None


def _message(text: str) -> gr.Error:
    """Give a message that stays until the visitor closes it."""
    return gr.Error(escape(text), duration=None, print_exception=False)


def _on_tiles(config: ModelConfig, tiling: Tiling) -> str:
    """Say what the choice of tiles means."""
    how = config.preprocessing
    text = f"A picture of more than {tiling.tile} pixels a side is cut into tiles, at its own scale"
    return f"{text}; else it is scaled to {how.image_size} pixels, as in training." if how.resized else f"{text}."


def _translated(
    served: Served, way: str, tiled: bool, source: Path, folder: Path, progress: gr.Progress
) -> tuple[Any, Any]:
    """Translate a file, in tiles if it is larger than one; give the slider's pictures and the download."""
    side = _longer_side(source, served.max_pixels)
    suffix = ".tif" if source.suffix.lower() in LOSSLESS else ".png"
    target = Path(tempfile.mkdtemp(prefix="result-", dir=folder)) / f"{source.stem}{suffix}"
    if tiled and side > served.tiling.tile:
        advance = lambda done, total: progress((done, total), unit="tiles")  # noqa: E731
        written = translate_tiled(served.native[way], source, target, served.tiling, advance).path
    else:
        written = served.whole[way].translate_file(source, target)
    how = served.whole[way].preprocessing
    pictures = _preview(source, how.source_range), _preview(written, how.target_range)
    return pictures, gr.DownloadButton(value=str(written), interactive=True)


def _longer_side(path: Path, max_pixels: int) -> int:
    """Refuse a picture of too many pixels before it is decoded, and one that moves; give the longer side.

    Raises:
        UserError: It is one of them, or cannot be read.
    """
    try:
        with open_regular(path) as file, Image.open(file, formats=FORMATS) as picture:
            W, H = picture.size
            # A camera's JPEG may hold its thumbnails, and a TIFF has pages: neither moves.
            moves = picture.format in ("GIF", "WEBP", "PNG") and getattr(picture, "is_animated", False)
    except Image.DecompressionBombError:
        raise _too_large(path, max_pixels) from None
    except Exception:  # a damaged file makes its decoder raise anything; decoding it in full says what is wrong
        return _decoded_side(path, max_pixels)
    if max_pixels < W * H:
        raise UserError(f"{path}: has {W}x{H} pixels; the limit here is {max_pixels:,}. Scale it down.")
    if moves:
        raise UserError(f"{path}: is an animation. Give a single picture, such as one frame saved as PNG.")
    return max(W, H)


def _decoded_side(path: Path, max_pixels: int) -> int:
    """Give the longer side of what Pillow does not know: an array, or a TIFF of many channels."""
    try:
        return max(read_image(path).shape[:2])  # heeds the limit, too
    except UserError as error:
        if isinstance(error.__context__, Image.DecompressionBombError):
            raise _too_large(path, max_pixels) from None
        raise


def _too_large(path: Path, max_pixels: int) -> UserError:
    return UserError(f"{path}: has more than {max_pixels:,} pixels, the limit here. Scale it down.")


def _preview(path: Path, value_range: ValueRange | None) -> np.ndarray:
    picture = Image.fromarray(for_the_eye(read_image(path), value_range))
    picture.thumbnail((SHOWN_SIDE, SHOWN_SIDE))
    return np.asarray(picture)


def _drawn(drawing: str, folder: Path, max_bytes: int) -> Path:
    """Write a drawing, a PNG as a data URL, to a file in a folder.

    Raises:
        UserError: It is none, or has more than ``max_bytes``.
    """
    code = drawing.removeprefix(PNG_URL)
    if 3 * len(code) > 4 * max_bytes:  # four characters are three bytes
        raise UserError(f"The drawing has more than {max_bytes // 2**20} MB, the limit here.")
    try:
        content = base64.b64decode(code, validate=True)
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
    """Give what domain a is drawn with, as the model says it or its data set: the legend's areas, and its lines.

    Returns:
        Brushes by name; none for a source that is not drawn.

    Raises:
        UserError: The legend or the lines are no colours by name.
    """
    if "a2b" not in config.networks:
        return {}
    info = config.training if config.training.get("legend") or data is None else dataset_info(data)
    areas, lines = legend_of(info), legend_of({"legend": info.get("lines", {})})
    brushes = {name: Brush(colour, thin=name in LINES) for name, colour in areas.items()}
    return brushes | {name: Brush(colour, thin=True) for name, colour in lines.items()}


def _examples(config: ModelConfig, data: Path, folder: Path) -> list[Example]:
    """Write sources of the data set's last split to files of their own, evenly over it.

    Raises:
        UserError: The data set is not what the model was trained on.
    """
    there = splits(data)
    if not there:
        return []
    found = []
    for way in config.networks:
        for number, picture in enumerate(some_sources(config, way, data, there[-1], EXAMPLES)):
            path = folder / f"{way}-{number}.{'png' if picture.dtype == np.uint8 and picture.shape[2] < 4 else 'tif'}"
            write_image(path, picture)
            found.append(Example(path, way))
    return found
