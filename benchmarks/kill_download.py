"""Safety of the downloads: kill one at a random instant, check what it left, kill the next, let a third one finish.

    python -m benchmarks.kill_download --kills 100

zip and tar.gz in turn, with and without a digest. Real processes, SIGKILL, a server on this machine that sends at a
steady pace. Exit code 0 when no kill left a partial dataset and each set was finished correctly, with nothing left
over; else 1.
"""

import contextlib
import hashlib
import http.server
import io
import multiprocessing
import os
import random
import sys
import tarfile
import tempfile
import threading
import time
import zipfile
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from multiprocessing.context import ForkServerContext, SpawnContext
from multiprocessing.synchronize import Event
from pathlib import Path

import tyro

from data_scripts.sets.catalog import FOLDERS, Layout, PublishedSet
from data_scripts.sets.published import fetch
from ganvas.console import run_command

PATHS: Mapping[Layout, str] = {"unpaired": "/set.zip", "paired": "/set.tar.gz"}  # on the server
BLOCKS = 100  # in which a server sends the archive


@dataclass(frozen=True)
class Options:
    """Kill downloads."""

    kills: int = 100
    """Number of kills, two for each dataset."""
    pictures: int = 200
    """Files in each archive."""
    seconds: float = 1.0
    """Duration of a download."""
    seed: int = 0
    """Seed of the instants."""


def make_files(layout: Layout, count: int) -> dict[str, bytes]:
    """Make incompressible files of 4 kB in the folders of a layout."""
    rng, folders = random.Random(0), FOLDERS[layout]
    return {f"{folders[number % len(folders)]}/{number}.jpg": rng.randbytes(4096) for number in range(count)}


def pack(layout: Layout, files: Mapping[str, bytes]) -> bytes:
    """Pack files as the published sets are: pairs as tar.gz, two domains as zip."""
    file = io.BytesIO()
    if layout == "unpaired":
        with zipfile.ZipFile(file, "w") as packed:
            for name, content in files.items():
                packed.writestr(f"set/{name}", content)
    else:
        with tarfile.open(fileobj=file, mode="w:gz") as tar:
            for name, content in files.items():
                member = tarfile.TarInfo(f"set/{name}")
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))
    return file.getvalue()


class Server(http.server.ThreadingHTTPServer):
    """A server that sends files, or the rest of them, at a steady pace.

    Args:
        contents: The files by path, "/set.zip".
        seconds: Duration of a download.
    """

    def __init__(self, contents: Mapping[str, bytes], seconds: float) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.contents, self.seconds, self.sent = contents, seconds, 0

    def handle_error(self, request: object, client_address: object) -> None:
        """Ignore clients that were killed."""


class Handler(http.server.BaseHTTPRequestHandler):
    """Handler of one request."""

    server: Server

    def log_message(self, format: str, *arguments: object) -> None:
        """Log nothing."""

    def do_GET(self) -> None:
        """Send a file from the requested byte on."""
        content = self.server.contents[self.path]
        first = int(self.headers.get("Range", "bytes=0-").removeprefix("bytes=").removesuffix("-"))
        self.send_response(206 if first else 200)
        if first:
            self.send_header("Content-Range", f"bytes {first}-{len(content) - 1}/{len(content)}")
        self.send_header("ETag", '"1"')
        self.send_header("Content-Length", str(len(content) - first))
        self.end_headers()
        step = -(-len(content) // BLOCKS)
        for place in range(first, len(content), step):
            self.wfile.write(content[place : place + step])
            self.server.sent += len(content[place : place + step])
            time.sleep(self.server.seconds / BLOCKS)


@contextlib.contextmanager
def serving(contents: Mapping[str, bytes], seconds: float) -> Iterator[Server]:
    """Run a server in a thread."""
    with Server(contents, seconds) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


def begin(wanted: PublishedSet, out: Path, begun: Event) -> None:
    """Fetch the set, in a process that will be killed."""
    with Path(os.devnull).open("w") as nowhere, contextlib.redirect_stderr(nowhere):
        begun.set()
        fetch(wanted, out, allow_http=True)


def finish(wanted: PublishedSet, out: Path) -> None:
    """Fetch the set, in this process."""
    with contextlib.redirect_stderr(io.StringIO()):
        fetch(wanted, out, allow_http=True)


def fresh_processes() -> SpawnContext | ForkServerContext:
    """Return the fastest way to start processes that share nothing with this one."""
    if os.name == "nt":
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["data_scripts.sets.published", "filelock", "rich.progress"])
    return context


def kill(wanted: PublishedSet, out: Path, after: float) -> str:
    """Kill a process that fetches the set, so many seconds after it began; return what it was doing."""
    context = fresh_processes()
    begun = context.Event()
    victim = context.Process(target=begin, args=(wanted, out, begun))
    victim.start()
    begun.wait()
    time.sleep(after)
    victim.kill()
    victim.join()
    aside = out.with_name(f".{out.name}.download")
    if out.exists():
        return "done"
    if any(out.parent.glob(f".{out.name}.new-*")):
        return "unpacking"
    return "downloading" if any(aside.glob("*.part")) else "between"


def read_files(out: Path) -> dict[str, bytes]:
    """Read all files."""
    return {path.relative_to(out).as_posix(): path.read_bytes() for path in out.rglob("*.jpg")}


def offered(server: Server, layout: Layout, *, has_digest: bool) -> PublishedSet:
    """Describe the set that a server offers."""
    path = PATHS[layout]
    archive = server.contents[path]
    return PublishedSet(
        name="random",
        layout=layout,
        domains=("a", "b"),
        addresses=(f"http://127.0.0.1:{server.server_port}{path}",),
        size=len(archive),
        license="random bytes",
        digest=f"sha256:{hashlib.sha256(archive).hexdigest()}" if has_digest else None,
    )


def main(arguments: list[str]) -> int:
    """Run the check; return the exit code."""
    options = tyro.cli(Options, prog="python -m benchmarks.kill_download", args=arguments)
    expected = {layout: make_files(layout, options.pictures) for layout in PATHS}
    archives = {path: pack(layout, expected[layout]) for layout, path in PATHS.items()}
    rng, states, faults = random.Random(options.seed), Counter[str](), 0
    with serving(archives, options.seconds) as server, tempfile.TemporaryDirectory() as folder:
        sets = [offered(server, layout, has_digest=has_digest) for has_digest in (True, False) for layout in PATHS]
        began = time.monotonic()
        finish(sets[0], Path(folder) / "unbroken" / "set")
        duration = time.monotonic() - began
        print(f"unbroken: {options.pictures} files, {sets[0].size / 1e6:.1f} MB, {duration:.2f} s")
        server.sent, size = 0, 0
        for number in range(options.kills // 2):
            wanted = sets[number % len(sets)]
            files, out = expected[wanted.layout], Path(folder) / str(number) / "set"
            partial = False
            for _ in range(2):
                states[kill(wanted, out, rng.uniform(0, duration))] += 1
                partial |= out.exists() and read_files(out) != files
            finish(wanted, out)
            left = sorted(path.name for path in out.parent.iterdir() if path != out)
            wrong = read_files(out) != files
            size += wanted.size
            if partial or wrong or left:
                faults += 1
                print(f"set {number}, {wanted.layout}, digest {wanted.digest}: {partial=}, {wrong=}, {left=}")
    print(f"{states.total()} kills: " + ", ".join(f"{count} {state}" for state, count in states.most_common()))
    print(f"sent {server.sent / size:.2f} times the size of the archives; {faults} faults")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(run_command("benchmarks.kill_download", main))
