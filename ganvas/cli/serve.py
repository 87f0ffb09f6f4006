"""The command ``serve``: a model as a page in the browser. Nothing heavy is imported before parsing."""

import importlib.util
import os
import signal
import socket
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from ganvas.errors import UserError
from ganvas.files import temporary_folder
from ganvas.options import optional

NUM_PORTS = 65536
PREFIX = "ganvas-serve-"  # of the folder of a page's files
# gradio sends nothing to other hosts, and keeps no record of what was translated.
GRADIO_SETTINGS = {
    "GRADIO_ANALYTICS_ENABLED": "False",
    "GRADIO_ANALYTICS_MAX_EVENTS": "100",
    "GRADIO_RUN_HISTORY": "False",
    "HF_HUB_OFFLINE": "1",
}


@dataclass(frozen=True)
class ServeOptions:
    """Open a model as a page in the browser: drop an image or draw one, compare, download. Ctrl-C ends it.

    Attributes:
        model: A run, a checkpoint or a model folder.
        data: The dataset, for example images and the colors of brushes; by default that of the training, if it exists.
        host: The address to listen at. Any other than 127.0.0.1 lets others in: there is no password.
        port: The port; 0 is any free one.
        max_pixels: Refuse images with more pixels.
        max_megabytes: Refuse larger uploads.
        tile: Pixels per side of the tiles that larger images are cut into, if the visitor wants it.
        overlap: Pixels that neighboring tiles share.
        device: Where to compute.
    """

    model: tyro.conf.Positional[Path]
    data: Annotated[Path | None, optional("DIR")] = None
    host: str = "127.0.0.1"
    port: int = 7860
    max_pixels: int = 4_000_000
    max_megabytes: int = 64
    tile: int = 512
    overlap: int = 64
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"


def run_serve(options: ServeOptions) -> int:
    """Serve the page until Ctrl-C or SIGTERM; return the exit code.

    Raises:
        UserError: gradio is not installed, an option is invalid, the address is not free, or there is no model that
            the page can serve.
    """
    if importlib.util.find_spec("gradio") is None:
        raise UserError("serve needs gradio, which is not installed: pip install 'ganvas[web]'")
    if options.max_pixels < 1 or options.max_megabytes < 1:
        raise UserError("--max-pixels and --max-megabytes must be 1 or more.")
    if options.data is not None and not options.data.is_dir():
        raise UserError(f"--data {options.data}: there is no such folder. Name a dataset's folder, or omit the option.")
    from ganvas.device import choose_device
    from ganvas.inference.tiling.plan import Tiling
    from ganvas.models.folder import local_model

    with (
        listening_socket(options.host, options.port) as listener,
        temporary_folder(PREFIX) as folder,
        suppress(KeyboardInterrupt),
    ):
        model = local_model(options.model)  # before gradio is kept from asking the hub
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        files = folder.resolve() / "files"
        files.mkdir()
        # gradio reads these when it is imported; uploads and results lie in a folder that is removed with the server.
        os.environ.update(GRADIO_SETTINGS, GRADIO_TEMP_DIR=str(files))
        from ganvas.inference.web.page import PageOptions, serve_page

        page = PageOptions(
            model,
            options.data,
            host=options.host,
            max_pixels=options.max_pixels,
            max_bytes=options.max_megabytes * 2**20,
            tiling=Tiling(options.tile, options.overlap),
            device=choose_device(options.device),
        )
        serve_page(page, listener, files)
    return 0


def listening_socket(host: str, port: int) -> socket.socket:
    """Listen at an address of this machine; port 0 is any free one.

    Raises:
        UserError: The address is in use, or not one of this machine.
    """
    if not 0 <= port < NUM_PORTS:
        raise UserError(f"--port {port}: must be 0 to {NUM_PORTS - 1}; 0 is any free port.")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family)
    except OSError as error:
        raise UserError(
            f"--host {host} --port {port}: cannot listen there ({error.strerror}). Use another port, or 0 for any."
        ) from None
