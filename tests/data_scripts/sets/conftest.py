import http.server
import re
import ssl
import threading
from dataclasses import dataclass, field

import pytest


@dataclass
class Answer:
    """How the server treats one request; as a good server does, unless told otherwise."""

    status: int = 200  # another one: no body
    headers: dict[str, str] = field(default_factory=dict)  # besides its own, or instead of them
    cut_after: int | None = None  # bytes of the body; then the connection is closed
    stall_after: int | None = None  # bytes of the body; then nothing comes any more
    serves_ranges: bool = True
    heeds_if_range: bool = True
    skips: int = 0  # bytes by which it mistakes the place
    tells_length: bool = True
    offers: bytes | None = None  # from now on another file


class FileServer:
    """One file on 127.0.0.1, whatever the path; answers are taken from a list, and are good after its end."""

    def __init__(self, content=b""):
        self.offer(content)
        self.answers = []
        self.requests = []  # path and headers of each
        self.closing = threading.Event()
        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True
        self._server.handle_error = lambda *connection: None  # clients may hang up
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01})
        self._thread.start()

    def offer(self, content):
        self.content = content
        self.validators = {"ETag": f'"{hash(content)}"'}

    def encrypt(self, certificate, key):
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate, key)
        self._server.socket = context.wrap_socket(self._server.socket, server_side=True)

    def address(self, name="set.bin"):
        return f"http://127.0.0.1:{self._server.server_port}/{name}"

    def close(self):
        self.closing.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def _handler(self):
        server = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def log_message(self, *arguments):
                pass

            def do_GET(self):
                server.requests.append((self.path, dict(self.headers)))
                server.answer(self, server.answers.pop(0) if server.answers else Answer())

        return Handler

    def answer(self, request, answer):
        if answer.offers is not None:
            self.offer(answer.offers)
        first = self._first_byte(request, answer)
        if first and first >= len(self.content):
            answer = Answer(416, {"Content-Range": f"bytes */{len(self.content)}"})
        if answer.status != 200:
            self._head(request, answer.status, answer.headers)
            return
        body, headers, status = self.content[first:], dict(self.validators), 206 if first else 200
        if first:
            headers["Content-Range"] = f"bytes {first}-{len(self.content) - 1}/{len(self.content)}"
        if answer.tells_length:
            headers["Content-Length"] = str(len(body))
        self._head(request, status, {**headers, **answer.headers})
        end = min((part for part in (answer.cut_after, answer.stall_after) if part is not None), default=len(body))
        request.wfile.write(body[:end])
        request.wfile.flush()
        if answer.stall_after is not None:
            self.closing.wait(20)

    def _first_byte(self, request, answer):
        """Where the body begins; 0 for the whole file."""
        wanted = re.fullmatch(r"bytes=(\d+)-", request.headers.get("Range", ""))
        same = request.headers.get("If-Range") in (None, *self.validators.values())
        if wanted and answer.serves_ranges and (same or not answer.heeds_if_range):
            return int(wanted[1]) + answer.skips
        return 0

    def _head(self, request, status, headers):
        request.send_response(status)
        for name, value in headers.items():
            request.send_header(name, value)
        request.end_headers()


@pytest.fixture
def serve():
    """Start servers that are closed at the end."""
    servers = []

    def start(content=b""):
        servers.append(FileServer(content))
        return servers[-1]

    yield start
    for server in servers:
        server.close()


@pytest.fixture
def answer():
    """Make an answer for a server's list."""
    return Answer
