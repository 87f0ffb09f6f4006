"""The page's server with clients that hold connections without using them."""

import asyncio
import contextlib
import socket
import sys
import threading
import time

import pytest

pytest.importorskip("uvicorn", reason="gradio is not installed (extra web)")
from ganvas.inference.web import server as page_server
from ganvas.inference.web.server import PageServer

pytestmark = pytest.mark.slow

SIZE = 20 * 2**20  # more than the system keeps for a client that does not read


async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        while True:
            message = await receive()
            await send({"type": f"{message['type']}.complete"})
            if message["type"] == "lifespan.shutdown":
                return
    if scope["path"] == "/wait":
        await asyncio.sleep(2)
    length = SIZE if scope["path"] in ("/large", "/parts") else 4
    headers = [(b"content-length", str(length).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    if scope["path"] == "/parts":
        for _ in range(20):
            await send({"type": "http.response.body", "body": b"x" * (length // 20), "more_body": True})
        length = 0
    await send({"type": "http.response.body", "body": b"x" * length})


@pytest.fixture(scope="module")
def port():
    """The port of a server whose times are short."""
    patch = pytest.MonkeyPatch()
    patch.setattr(page_server, "MAX_IDLE_SECONDS", 1.5)
    patch.setattr(page_server, "MAX_CONNECTIONS", 8)
    started = threading.Event()
    server = PageServer(app, started.set)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        thread = threading.Thread(target=server.run, args=([listener],))
        thread.start()
        assert started.wait(20)
        yield port
        server.should_exit = True
        thread.join(20)
    patch.undo()
    assert not thread.is_alive()


def connected(port):
    return socket.create_connection(("127.0.0.1", port), timeout=10)


def is_cut(client):
    """Return whether the server has ended the connection; what came before is read."""
    try:
        while client.recv(2**16):
            pass
    except TimeoutError:
        return False
    except ConnectionResetError:
        pass
    return True


def get(client, path):
    client.sendall(f"GET {path} HTTP/1.1\r\nHost: a\r\n\r\n".encode())
    answer = b""
    while not answer.endswith(b"\r\n\r\nxxxx"):
        part = client.recv(2**16)
        assert part, answer
        answer += part
    return answer.split(b"\r\n")[0]


@pytest.mark.parametrize("sent", [b"", b"GET / HTTP/1.1\r\nHost: a\r\n"])
def test_a_request_without_end_is_cut(port, sent):
    with connected(port) as client:
        client.sendall(sent)
        assert is_cut(client)


def test_a_header_that_trickles_is_cut(port):
    with connected(port) as client, pytest.raises(OSError):
        client.sendall(b"GET / HTTP/1.1\r\n")
        for number in range(100):
            client.sendall(f"X-{number}: a\r\n".encode())
            time.sleep(0.1)


@pytest.mark.parametrize("path", ["/large", "/parts"])
def test_clients_that_do_not_read_are_cut(port, path):
    with connected(port) as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.sendall(f"GET {path} HTTP/1.1\r\nHost: a\r\n\r\n".encode())
        time.sleep(4.5)
        got = 0
        try:
            while part := client.recv(2**16):
                got += len(part)
        except ConnectionResetError:
            pass
        assert got < SIZE


def test_busy_clients_are_not_cut(port):
    with connected(port) as client:
        for _ in range(15):
            assert get(client, "/") == b"HTTP/1.1 200 OK"
            time.sleep(0.2)


def test_an_answer_may_take_its_time(port):
    with connected(port) as client:
        assert get(client, "/wait") == b"HTTP/1.1 200 OK"


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have one loopback address")
def test_one_address_has_half_of_the_connections(port, monkeypatch):
    monkeypatch.setattr(page_server, "MAX_IDLE_SECONDS", 60.0)
    with contextlib.ExitStack() as stack:
        refused = 0
        for _ in range(6):
            try:
                assert get(stack.enter_context(connected(port)), "/") == b"HTTP/1.1 200 OK"
            except (AssertionError, OSError):
                refused += 1
        assert refused == 2
        other = socket.create_connection(("127.0.0.1", port), timeout=10, source_address=("127.0.0.2", 0))
        assert get(stack.enter_context(other), "/") == b"HTTP/1.1 200 OK"
