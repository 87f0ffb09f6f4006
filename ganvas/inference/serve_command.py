"""The command ``serve`` of the modules: a model as a page in the browser. Nothing heavy is imported before parsing."""

import importlib.util
import os
import signal
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import tyro

from ganvas.errors import UserError
from ganvas.files import temporary_folder

PORTS = 65536
QUIET = {"GRADIO_ANALYTICS_ENABLED": "False", "HF_HUB_OFFLINE": "1"}  # gradio asks other hosts for nothing


@dataclass(frozen=True)
class ServeOptions:
    """Open a model as a page in the browser: drop a picture or draw one, compare, download. Ctrl-C ends it."""

    model: tyro.conf.Positional[Path]
    """A run, a checkpoint or a model folder."""
    data: Path | None = None
    """The data set, for example pictures and the colours of brushes; by default the one of the training, if there."""
    host: str = "127.0.0.1"
    """The address to listen at. Any but 127.0.0.1 lets others in: there is no password."""
    port: int = 7860
    """The port; 0 takes any that is free."""
    max_pixels: int = 4_000_000
    """Refuse pictures of more pixels."""
    max_megabytes: int = 64
    """Refuse uploads of more."""
    tile: int = 512
    """Pixels a side of the tiles that larger pictures are cut into, where the page is told to."""
    overlap: int = 64
    """Pixels that neighbouring tiles share."""
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    """Where to compute."""


def run_serve(options: ServeOptions, choose_device: Callable[[str], str]) -> int:
    """Serve the page until Ctrl-C or SIGTERM; give the exit code.

    Args:
        options: What the command was given.
        choose_device: Finds the device that an option means; the training's own way.

    Raises:
        UserError: gradio is not installed, there is no model, it takes more than a page can give, a limit is not
            positive, there is no data set where one was named, or the address is not free.
    """
    if importlib.util.find_spec("gradio") is None:
        raise UserError("serve needs gradio, which is not installed: pip install 'ganvas[web]'")
    if options.max_pixels < 1 or options.max_megabytes < 1:
        raise UserError("--max-pixels and --max-megabytes: give 1 or more.")
    if options.data is not None and not options.data.is_dir():
        raise UserError(f"--data {options.data}: there is no such folder. Give a data set's, or leave it out.")
    port = free_port(options.host, options.port)
    from ganvas.modelfile import local_model

    options = replace(options, model=local_model(options.model))  # before gradio is kept from asking the hub
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with temporary_folder("ganvas-serve-") as folder:
        # gradio reads these when it is imported; uploads and results lie in a folder that goes with the server.
        os.environ.update(QUIET, GRADIO_TEMP_DIR=str(folder))
        from ganvas.inference.page import open_page

        page = open_page(options, choose_device(options.device), port, folder)
        try:  # whoever reads the address may end it at once
            print(f"http://{f'[{options.host}]' if ':' in options.host else options.host}:{port}", flush=True)
            while True:  # on Windows, Ctrl-C does not end a wait without a time
                time.sleep(1)
        except KeyboardInterrupt:
            return 0
        finally:
            page.close(verbose=False)


def free_port(host: str, port: int) -> int:
    """Find out whether an address is free; port 0 stands for any free one, whose number is given.

    Raises:
        UserError: It is taken, or no address of this machine.
    """
    if not 0 <= port < PORTS:
        raise UserError(f"--port {port}: give 0 to {PORTS - 1}; 0 takes any that is free.")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        with socket.create_server((host, port), family=family) as found:
            return int(found.getsockname()[1])
    except OSError as error:
        raise UserError(
            f"--host {host} --port {port}: cannot be listened at ({error.strerror}). Give another port, or 0 for any."
        ) from None
