"""Latency of the web page with many visitors, some of them hostile.

    python -m benchmarks.page_load                   a small model of its own, on this machine
    python -m benchmarks.page_load --model RUN       another model
    python -m benchmarks.page_load --rounds 5 --json

Starts the page at a free port of 127.0.0.1. Each good client repeatedly uploads an image, waits for its translation and
downloads it; its latency is that of all three together. This is measured without and with two hostile clients, from
other loopback addresses where the system has them (Linux):

- one sends slow bodies and does not read large answers, on 60 connections;
- one sends huge JSON, and uploads TIFF files whose chain of pages points to itself.

Prints median, 95th percentile and largest latency of the good clients, and how many of their requests had no answer.
"""

import contextlib
import http.client
import io
import json
import math
import os
import secrets
import socket
import statistics
import struct
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tyro
from PIL import Image

from benchmarks.common import table
from ganvas.console import run_command

ROOT = Path(__file__).parents[1]
SIDE = 256
SLOW_CONNECTIONS = 60
HUGE_BYTES = 280 * 10**6
ANSWER_SECONDS = 300.0  # after which a request counts as unanswered


@dataclass(frozen=True)
class Options:
    """Measure the page's latency under load."""

    model: Path | None = None
    """A run or model folder of pix2pix; a small network by default."""
    good: int = 14
    """Good clients."""
    rounds: int = 10
    """Images per client."""
    json: bool = False
    """Print one JSON object."""


@dataclass(frozen=True)
class Latency:
    """Latencies of the good clients.

    Attributes:
        answered: Translated images.
        unanswered: Images without an answer.
        median: Seconds.
        p95: 95th percentile, seconds.
        largest: Seconds.
    """

    answered: int
    unanswered: int
    median: float
    p95: float
    largest: float


class Client:
    """A visitor of the page.

    Args:
        port: The page's, at 127.0.0.1.
        source: The visitor's address.
    """

    def __init__(self, port: int, source: str = "127.0.0.1") -> None:
        self._port, self._source = port, source

    def request(self, method: str, path: str, body: bytes = b"", kind: str = "application/json") -> bytes:
        """Send a request and return the answer's body.

        Raises:
            OSError: The answer is an error, or missing.
        """
        with contextlib.closing(self._connection()) as connection:
            connection.request(method, path, body, {"Content-Type": kind} if body else {})
            answer = connection.getresponse()
            content = answer.read()
            if answer.status != 200:
                raise OSError(f"{answer.status} {content[:200]!r}")
            return content

    def upload(self, name: str, content: bytes) -> str:
        """Upload a file; return its name at the page."""
        boundary = secrets.token_hex(16)
        head = f'--{boundary}\r\nContent-Disposition: form-data; name="files"; filename="{name}"\r\n\r\n'
        body = head.encode() + content + f"\r\n--{boundary}--\r\n".encode()
        path = f"/gradio_api/upload?upload_id={secrets.token_hex(6)}"
        (found,) = json.loads(self.request("POST", path, body, f"multipart/form-data; boundary={boundary}"))
        return str(found)

    def translate(self, path: str) -> dict[str, Any]:
        """Translate an upload; return the page's last message.

        Raises:
            OSError: There is no answer.
        """
        session = secrets.token_hex(6)
        file = {"path": path, "meta": {"_type": "gradio.FileData"}}
        job = {"data": [file, "a2b", False], "fn_index": 0, "session_hash": session}
        self.request("POST", "/gradio_api/queue/join", json.dumps(job).encode())
        with contextlib.closing(self._connection()) as connection:
            connection.request("GET", f"/gradio_api/queue/data?session_hash={session}")
            answer = connection.getresponse()
            done: dict[str, Any] | None = None
            outputs = None
            while done is None and (line := answer.readline()):
                if line.startswith(b"data:"):
                    message = json.loads(line[5:])
                    if message["msg"] == "process_generating" and message.get("success"):
                        outputs = message["output"]["data"]
                    if message["msg"] == "process_completed":
                        done = message
        if done is None:
            raise OSError("the answer ends before the translation")
        return done | {"outputs": outputs}

    def download(self, outputs: list[Any]) -> bytes:
        """Return the translation's file."""
        path = outputs[1]["value"]["path"] if "value" in outputs[1] else outputs[1]["path"]
        return self.request("GET", f"/gradio_api/file={path}")

    def open(self) -> socket.socket:
        """Open a raw connection."""
        return socket.create_connection(("127.0.0.1", self._port), 10, (self._source, 0))

    def _connection(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection("127.0.0.1", self._port, ANSWER_SECONDS, (self._source, 0))


@contextlib.contextmanager
def served(model: Path, *options: str) -> Iterator[int]:
    """Serve a model of pix2pix in a process of its own; yield the port."""
    command = [sys.executable, "-m", "pix2pix", "serve", str(model), "--port", "0", "--device", "cpu", *options]
    server = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert server.stdout is not None
    try:
        address = server.stdout.readline().strip()
        if not address:
            raise SystemExit("the page did not start")
        yield int(address.rpartition(":")[2])
    finally:
        server.terminate()
        server.wait(60)
        server.stdout.close()


def image_file(number: int) -> bytes:
    """Return a PNG of noise."""
    file = io.BytesIO()
    noise = np.random.default_rng(number).integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)
    Image.fromarray(noise).save(file, "PNG")
    return file.getvalue()


def looping_tiff() -> bytes:
    """Return a TIFF whose second page links to itself."""
    tags = [(256, 4, 4), (257, 4, 4), (258, 3, 8), (259, 3, 1), (262, 3, 1), (273, 4, 8), (277, 3, 1), (279, 4, 16)]
    page = struct.pack("<H", len(tags)) + b"".join(
        struct.pack("<HHII", tag, kind, 1, value) for tag, kind, value in tags
    )
    first = 24
    second = first + len(page) + 4
    content = struct.pack("<2sHI", b"II", 42, first) + bytes(16)
    return content + page + struct.pack("<I", second) + page + struct.pack("<I", second)


def slow_bodies(client: Client, stop: threading.Event) -> None:
    """Send a byte a second on many connections, and read nothing of large answers on as many."""
    head = b"POST /gradio_api/upload?upload_id=a HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 1000000\r\n"
    head += b"Content-Type: multipart/form-data; boundary=a\r\n\r\n--a\r\n"
    head += b'Content-Disposition: form-data; name="files"; filename="a.png"\r\n\r\n'
    sockets: list[socket.socket] = []
    while not stop.wait(1):
        while len(sockets) < SLOW_CONNECTIONS:
            try:
                sockets.append(client.open())
                sockets[-1].sendall(head if len(sockets) % 2 else b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
            except OSError:
                break
        for connection in list(sockets):
            try:
                connection.sendall(b"-")
            except OSError:
                connection.close()
                sockets.remove(connection)
    for connection in sockets:
        connection.close()


def huge_and_hanging(client: Client, stop: threading.Event) -> None:
    """Send huge JSON, and files that hang their reader."""
    part = b"[" * 65536
    chunk = f"{len(part):x}\r\n".encode() + part + b"\r\n"
    head = b"POST /gradio_api/queue/join HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
    bodies = ((f"Content-Length: {HUGE_BYTES}".encode(), part), (b"Transfer-Encoding: chunked", chunk))
    while not stop.is_set():
        for length, block in bodies:
            with contextlib.suppress(OSError), client.open() as connection:
                connection.sendall(head + length + b"\r\n\r\n")
                for _ in range(HUGE_BYTES // len(part)):
                    if stop.is_set():
                        return
                    connection.sendall(block)
        with contextlib.suppress(OSError):
            client.translate(client.upload("loop.tif", looping_tiff()))
        stop.wait(0.2)


def send_images(port: int, number: int, rounds: int) -> list[float]:
    """Have images translated, one after the other; return their latencies, infinite where there was no answer."""
    client, latencies = Client(port), []
    for turn in range(rounds):
        began = time.perf_counter()
        try:
            answer = client.translate(client.upload(f"{number}.png", image_file(number * rounds + turn)))
            if not answer["success"] or not client.download(answer["outputs"]):
                raise OSError(str(answer))
            latencies.append(time.perf_counter() - began)
        except (OSError, http.client.HTTPException, ValueError) as error:
            print(f"client {number}: {error}", file=sys.stderr)
            latencies.append(math.inf)
    return latencies


def measure(port: int, good: int, rounds: int, hostile: bool) -> Latency:
    """Run the clients; return the latencies of the good ones."""
    stop = threading.Event()
    attacks = [(slow_bodies, "127.0.0.2"), (huge_and_hanging, "127.0.0.3")] if hostile else []
    threads = []
    for attack, address in attacks:
        client = Client(port, address if sys.platform == "linux" else "127.0.0.1")
        threads.append(threading.Thread(target=attack, args=(client, stop), daemon=True))
        threads[-1].start()
    with ThreadPoolExecutor(good) as pool:
        found = list(pool.map(lambda number: send_images(port, number, rounds), range(good)))
    stop.set()
    for thread in threads:
        thread.join(ANSWER_SECONDS)
    latencies = [latency for each in found for latency in each]
    answered = sorted(latency for latency in latencies if latency < math.inf)
    if not answered:
        return Latency(0, len(latencies), math.inf, math.inf, math.inf)
    p95 = answered[math.ceil(0.95 * len(answered)) - 1]
    return Latency(len(answered), len(latencies) - len(answered), statistics.median(answered), p95, answered[-1])


def small_model(folder: Path) -> Path:
    """Write an untrained model with a small network, so that the page is what is measured."""
    from ganvas.models.folder import ModelConfig, NetworkSpec, Preprocessing, build_generator, save_model

    arguments = {"in_channels": 3, "out_channels": 3, "base_channels": 8, "num_blocks": 2}
    spec = NetworkSpec("resnet", arguments, "a", "b")
    config = ModelConfig("pix2pix", {"a2b": spec}, Preprocessing(3, 3, image_size=SIDE, resized=True))
    save_model(folder, config, {"a2b": build_generator(spec)}, "# Card\n")
    return folder


def run(options: Options) -> dict[str, Latency]:
    """Measure without and with hostile clients."""
    with tempfile.TemporaryDirectory() as folder, served(options.model or small_model(Path(folder) / "model")) as port:
        measure(port, 1, 1, hostile=False)  # the first image pays for the set-up
        return {
            name: measure(port, options.good, options.rounds, hostile=name == "with two hostile clients")
            for name in ("good clients alone", "with two hostile clients")
        }


def main(arguments: list[str]) -> int:
    """Measure and print; return the exit code."""
    options = tyro.cli(Options, prog="python -m benchmarks.page_load", args=arguments)
    results = run(options)
    if options.json:
        print(json.dumps({name: asdict(latency) for name, latency in results.items()} | {"cpus": os.cpu_count()}))
        return 0
    rows = [
        (name, each.answered, each.unanswered, *(f"{value:.2f}" for value in (each.median, each.p95, each.largest)))
        for name, each in results.items()
    ]
    print(f"{options.good} good clients, {options.rounds} images of {SIDE}x{SIDE} each; seconds")
    print(table(("clients", "answered", "unanswered", "median", "95%", "largest"), rows))
    return 0


if __name__ == "__main__":
    sys.exit(run_command("benchmarks.page_load", main))
