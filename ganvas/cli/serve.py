"""The command ``serve`` of the modules: a model as a page in the browser. Nothing heavy is imported before parsing."""

import importlib.util
import os
import signal
import socket
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import tyro

from ganvas.errors import UserError
from ganvas.files import temporary_folder

PORTS = 65536
PREFIX = "ganvas-serve-"  # of the folder of a page's files
# gradio asks other hosts for nothing, and keeps no record of what was translated.
QUIET = {"GRADIO_ANALYTICS_ENABLED": "False", "HF_HUB_OFFLINE": "1", "GRADIO_RUN_HISTORY": "False"}
QUIET |= {"GRADIO_ANALYTICS_MAX_EVENTS": "100"}


@dataclass(frozen=True)
class ServeOptions:
    """Open a model as a page in the browser: drop a image or draw one, compare, download. Ctrl-C ends it."""

    model: tyro.conf.Positional[Path]
    """A run, a checkpoint or a model folder."""
    data: Path | None = None
    """The dataset, for example images and the colors of brushes; by default the one of the training, if there."""
    host: str = "127.0.0.1"
    """The address to listen at. Any but 127.0.0.1 lets others in: there is no password."""
    port: int = 7860
    """The port; 0 takes any that is free."""
    max_pixels: int = 4_000_000
    """Refuse images of more pixels."""
    max_megabytes: int = 64
    """Refuse uploads of more."""
    tile: int = 512
    """Pixels a side of the tiles that larger images are cut into, where the page is told to."""
    overlap: int = 64
    """Pixels that neighboring tiles share."""
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    """Where to compute."""


def run_serve(options: ServeOptions) -> int:
    """Serve the page until Ctrl-C or SIGTERM; give the exit code.

    Raises:
        UserError: gradio is not installed, there is no model, it takes more than a page can give, a limit is not
            positive, there is no dataset where one was named, or the address is not free.
    """
    if importlib.util.find_spec("gradio") is None:
        raise UserError("serve needs gradio, which is not installed: pip install 'ganvas[web]'")
    if options.max_pixels < 1 or options.max_megabytes < 1:
        raise UserError("--max-pixels and --max-megabytes: give 1 or more.")
    if options.data is not None and not options.data.is_dir():
        raise UserError(f"--data {options.data}: there is no such folder. Give a dataset's, or leave it out.")
    from ganvas.models.folder import local_model

    with (
        listening_socket(options.host, options.port) as listener,
        temporary_folder(PREFIX) as folder,
        suppress(KeyboardInterrupt),
    ):
        options = replace(options, model=local_model(options.model))  # before gradio is kept from asking the hub
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        files = folder.resolve() / "files"
        files.mkdir()
        # gradio reads these when it is imported; uploads and results lie in a folder that goes with the server.
        os.environ.update(QUIET, GRADIO_TEMP_DIR=str(files))
        from ganvas.device import choose_device
        from ganvas.inference.web.page import serve_page

        serve_page(options, choose_device(options.device), listener, files)
    return 0


def listening_socket(host: str, port: int) -> socket.socket:
    """Take an address of this machine; port 0 stands for any free one.

    Raises:
        UserError: It is taken, or no address of this machine.
    """
    if not 0 <= port < PORTS:
        raise UserError(f"--port {port}: give 0 to {PORTS - 1}; 0 takes any that is free.")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family)
    except OSError as error:
        raise UserError(
            f"--host {host} --port {port}: cannot be listened at ({error.strerror}). Give another port, or 0 for any."
        ) from None
