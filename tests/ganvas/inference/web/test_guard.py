"""What the guard of the page lets through, with a small app in gradio's place."""

import asyncio
import importlib.util
import json
import re
import subprocess
import sys

import pytest

from ganvas.inference.web import guard as guard_module
from ganvas.inference.web.files import PageFiles
from ganvas.inference.web.guard import JOB, ROUTES, UPLOAD, Guard

LOCAL = {"host": "127.0.0.1:7860"}
SESSION = {"session_hash": "abc123", "fn_index": 0}


class App:
    """Record what arrives, read the body, and answer."""

    def __init__(self):
        self.calls = []
        self.answer = 200, "text/plain", [b"fine"]

    async def __call__(self, scope, receive, send):
        body = b""
        while True:
            message = await receive()
            body += message.get("body", b"")
            if message["type"] == "http.disconnect":
                raise ConnectionError("the client left")
            if not message["more_body"]:
                break
        headers = {name.decode(): value.decode() for name, value in scope["headers"]}
        self.calls.append((scope["path"], scope["query_string"].decode(), headers, body))
        status, kind, parts = self.answer
        await send({"type": "http.response.start", "status": status, "headers": [(b"content-type", kind.encode())]})
        for part in parts:
            await send({"type": "http.response.body", "body": part, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})


@pytest.fixture
def folder(tmp_path):
    """The folder of the served files, with one upload; beside it is a file that is none."""
    (tmp_path / "secret").write_text("secret")
    (tmp_path / "files" / "ab12").mkdir(parents=True)
    (tmp_path / "files" / "ab12" / "x y.png").write_bytes(b"image")
    (tmp_path / "files" / "ab12" / "link.png").symlink_to(tmp_path / "secret")
    return tmp_path / "files"


@pytest.fixture
def app():
    return App()


@pytest.fixture
def ask(app, folder):
    """Send a request to a guard of two functions; return the status and the body."""
    guards = {}

    def ask(method, path, query="", headers=LOCAL, body=(), host="127.0.0.1", pauses=0):
        if host not in guards:
            files = PageFiles(folder, 10**9, 3600)
            guards[host] = Guard(app, files, host=host, functions={0: 1, 1: 3}, max_upload=1000, max_job=5000)
        parts = list(body)

        async def receive():
            await asyncio.sleep(pauses)
            content = parts.pop(0) if parts else b""
            return {"type": "http.request", "body": content, "more_body": bool(parts)}

        sent = []

        async def send(message):
            sent.append(message)

        raw = [(name.encode(), value.encode()) for name, value in headers.items()]
        scope = {"type": "http", "method": method, "path": path, "raw_path": path.encode(), "headers": raw}
        scope |= {"query_string": query.encode(), "root_path": ""}
        asyncio.run(guards[host](scope, receive, send))
        assert sent[0]["type"] == "http.response.start"
        assert sum(message["type"] == "http.response.start" for message in sent) == 1
        ask.headers = dict(sent[0]["headers"])
        return sent[0]["status"], b"".join(message.get("body", b"") for message in sent[1:])

    return ask


def job(**changed):
    return [json.dumps({"data": [None], **SESSION, **changed}).encode()]


@pytest.mark.parametrize("path", ["/", "/theme.css", "/assets/index-a_1.js", "/static/js/x.min.js", "/favicon.ico"])
def test_the_pages_own_files_are_passed_on(ask, app, path):
    query = "v=0a" if path == "/theme.css" else "deep_link=x&page=y"
    assert ask("GET", path, query) == (200, b"fine")
    assert app.calls[0][:2] == (path, "v=0a" if path == "/theme.css" else "")


# gradio leaves sockets and event loops open: it gets a process of its own.
LIST_ROUTES = """
import json
import gradio as gr
with gr.Blocks(analytics_enabled=False) as page:
    gr.File()
def listed(router):
    for route in router.routes:
        included = getattr(route, "original_router", None)  # as newer FastAPI keeps it
        yield from listed(included) if included else [(method, route.path) for method in route.methods]
print(json.dumps(list(listed(gr.routes.App.create_app(page)))))
"""


@pytest.mark.slow
def test_none_of_gradios_other_routes_is_reached(ask, app):
    if importlib.util.find_spec("gradio") is None:
        pytest.skip("gradio is not installed (extra web)")
    routes = json.loads(subprocess.check_output([sys.executable, "-c", LIST_ROUTES], text=True))
    assert len(routes) > 80
    for method, path in routes:
        path = path.replace("{path_or_url:path}", "/etc/hostname")
        ask(method, re.sub(r"{(\w+)[:\w]*}", r"\1", path), "session_hash=abc123&upload_id=a&v=0")
    reached = {path for path, *_ in app.calls}
    assert reached <= {*ROUTES, "/assets/path", "/static/path"}
    assert {"/", "/theme.css", "/assets/path"} <= reached


NO_FILES = [
    "/files/ab12/x y.png",
    "/gradio_api/file=https://a.example/x.png",
    "/gradio_api/file=/etc/passwd",
    "/gradio_api/file=/files/ab12",
    "/gradio_api/file=/files/ab12/../../secret",
    "/gradio_api/file=/files/ab12/link.png",
    "/gradio_api/file=/files/ab12/\0",
    "/gradio_api/file=/files/../secret",
    "/gradio_api/file=//files/ab12/x y.png",
    "/gradio_api/file=FOLDER/ab12/x y.png",
    "/gradio_api/proxy=https://a.hf.space/x",
    "/assets/../../secret",
    "/assets/",
    "//",
    "/config",
]


@pytest.mark.parametrize("path", NO_FILES)
def test_other_files_and_addresses_are_not_found(ask, app, folder, path):
    assert ask("GET", path.replace("FOLDER", str(folder)))[0] == 404
    assert not app.calls


def test_a_file_is_found_by_its_public_name(ask, app, folder):
    assert ask("GET", "/gradio_api/file=/files/ab12/x y.png") == (200, b"fine")
    assert app.calls[0][0] == f"/gradio_api/file={folder}/ab12/x y.png"


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "TRACE"])
def test_other_methods_are_refused(ask, app, method):
    assert ask(method, "/")[0] == 405
    assert not app.calls


@pytest.mark.parametrize(
    ("host", "named", "status"),
    [
        ("127.0.0.1", "attacker.example", 421),
        ("127.0.0.1", "127.0.0.1.attacker.example:7860", 421),
        ("127.0.0.1", "192.168.0.1:7860", 421),
        ("127.0.0.1", "localhost:9999", 200),  # of a tunnel
        ("127.0.0.1", "LOCALHOST", 200),
        ("::1", "[::1]:7860", 200),
        ("::1", "[::2]:7860", 421),
        ("localhost", "attacker.example", 421),
        ("127.9.9.9", "127.9.9.9:7860", 200),
        ("127.0.0.1", "a b", 400),
        ("127.0.0.1", "", 400),
        ("0.0.0.0", "images.example", 200),
        ("192.168.0.1", "192.168.0.1:7860", 200),
        ("0.0.0.0", "images.example/<script>", 400),
    ],
)
def test_the_host_is_checked(ask, host, named, status):
    assert ask("GET", "/", headers={"host": named}, host=host)[0] == status


@pytest.mark.parametrize(
    ("origin", "host", "status"),
    [
        ("http://127.0.0.1:7860", "127.0.0.1:7860", 200),
        ("http://LOCALHOST", "localhost:80", 200),
        ("https://localhost", "localhost", 200),
        ("http://attacker.example", "127.0.0.1:7860", 403),
        ("http://127.0.0.1:3000", "127.0.0.1:7860", 403),
        ("http://localhost:7860", "127.0.0.1:7860", 403),
        ("null", "127.0.0.1:7860", 403),
        ("file://127.0.0.1:7860", "127.0.0.1:7860", 403),
        ("http://[", "127.0.0.1:7860", 403),
    ],
)
@pytest.mark.parametrize("at", ["127.0.0.1", "0.0.0.0"])
def test_pages_of_other_sites_are_refused(ask, origin, host, status, at):
    headers = {"host": host, "origin": origin}
    assert ask("POST", JOB, headers=headers, body=job(), host=at)[0] == status


def test_only_headers_of_use_are_passed_on(ask, app):
    ask("GET", "/", headers=LOCAL | {"x-forwarded-host": "a.example", "range": "bytes=²-3", "accept-encoding": "br"})
    ask("GET", "/assets/x.js", headers=LOCAL | {"x-gradio-server": "http://a.example", "accept-encoding": "br"})
    assert [call[2] for call in app.calls] == [LOCAL, LOCAL | {"accept-encoding": "br"}]


def test_a_job_is_passed_on_without_what_the_page_does_not_send(ask, app, folder):
    file = {"path": "/files/ab12/x y.png", "url": "http://a.example/x.png", "size": 3, "meta": {"_type": "other"}}
    event = {"index": 2, "value": {"image": {"path": "http://a.example/x.png"}}}
    extra = {"trigger_id": 5, "event_data": event, "oauth_token": "x", "batched": True, "simple_format": True}
    assert ask("POST", JOB, body=job(data=[file, "a2b", True], fn_index=1, **extra))[0] == 200
    ((path, _, headers, body),) = app.calls
    assert path == JOB
    assert int(headers["content-length"]) == len(body)
    passed = {"path": f"{folder}/ab12/x y.png", "orig_name": "x y.png", "meta": {"_type": "gradio.FileData"}}
    assert json.loads(body) == {
        "data": [passed, "a2b", True],
        "session_hash": "abc123",
        "fn_index": 1,
        "trigger_id": 5,
        "event_data": {"index": 2, "value": None},
    }


@pytest.mark.parametrize(
    "changed",
    [
        {"data": [{"path": "http://127.0.0.1:1/x.png"}]},
        {"data": [{"path": "https://a.example/x.png", "meta": {"_type": "gradio.FileData"}}]},
        {"data": [{"path": "/etc/passwd"}]},
        {"data": [{"path": "/files/ab12/link.png"}]},
        {"data": [{"path": "/files/ab12/\ud800"}]},
    ],
)
def test_a_file_of_a_job_is_never_a_url_or_a_path(ask, app, changed):
    assert ask("POST", JOB, body=job(**changed))[0] == 404
    assert not app.calls


@pytest.mark.parametrize(
    "body",
    [
        [b""],
        [b"\xff"],
        [b"null"],
        [b"[" * 900],
        [b"1" * 4500],
        job(data=None),
        job(data=[]),
        job(data=["\ud800"]),
        job(data=[[1]]),
        job(data=[{"path": 3}]),
        job(data=[{}]),
        job(fn_index=7),
        job(fn_index=True),
        job(fn_index="0"),
        job(fn_index=[]),
        job(session_hash="../x"),
        job(session_hash=3),
        job(trigger_id="x"),
        job(event_data=[]),
        job(event_data={"index": [1, 2]}),
    ],
)
def test_a_malformed_job_is_refused(ask, app, body):
    assert ask("POST", JOB, body=body)[0] == 400
    assert not app.calls


def test_a_job_of_many_small_values_is_refused_before_it_is_parsed(ask, monkeypatch):
    monkeypatch.setattr(guard_module.json, "loads", lambda _: pytest.fail("parsed"))
    assert ask("POST", JOB, body=[b"[" + b"0," * 2000 + b"0]"])[0] == 413


@pytest.mark.parametrize("declared", [True, False])
@pytest.mark.parametrize(
    ("method", "path", "query", "most"),
    [("POST", JOB, "", 5000), ("POST", UPLOAD, "upload_id=a", 1000 + 65536), ("GET", "/", "", 0)],
)
def test_a_body_beyond_the_limit_is_refused(ask, app, method, path, query, most, declared):
    for size, status in [(most, (200, 400)), (most + 1, (413,))]:
        body = [b" " * (size // 2), b" " * (size - size // 2)]
        headers = LOCAL | ({"content-length": str(size)} if declared else {})
        assert ask(method, path, query, headers, body)[0] in status
    assert all(len(body) <= most for *_, body in app.calls)


@pytest.mark.parametrize("length", ["-1", "1e3", "9" * 5000, "²"])
def test_a_length_that_is_no_number_is_refused(ask, app, length):
    assert ask("POST", UPLOAD, "upload_id=a", LOCAL | {"content-length": length})[0] == 400
    assert not app.calls


@pytest.mark.parametrize(("path", "query"), [(UPLOAD, "upload_id=a"), (JOB, "")])
def test_a_slow_body_is_refused(ask, app, monkeypatch, path, query):
    monkeypatch.setattr(guard_module, "GRACE_SECONDS", 0.05)
    assert ask("POST", path, query, body=[b" "] * 100, pauses=0.02)[0] == 408
    assert not app.calls


def test_a_body_may_take_longer_the_more_has_come(ask, app, monkeypatch):
    monkeypatch.setattr(guard_module, "GRACE_SECONDS", 0.6)
    monkeypatch.setattr(guard_module, "BYTES_PER_SECOND", 1)
    assert ask("POST", UPLOAD, "upload_id=a", body=[b" " * 100] * 8, pauses=0.1)[0] == 200
    assert len(app.calls[0][3]) == 800


def test_one_address_has_half_of_the_uploads(folder):
    async def run():
        waiting = asyncio.Event()
        files = PageFiles(folder, 10**9, 3600)

        async def app(scope, receive, send):
            await waiting.wait()
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b""})

        guard = Guard(app, files, host="", functions={}, max_upload=10, max_job=10)

        async def upload(address):
            scope = {"type": "http", "method": "POST", "path": UPLOAD, "query_string": b"upload_id=a"}
            scope |= {"headers": [(b"host", b"a")], "client": (address, 1)}
            sent = []

            async def send(message):
                sent.append(message)

            await guard(scope, None, send)
            return sent[0]["status"]

        tasks = [asyncio.create_task(upload(address)) for address in "a" * 33 + "b" * 33]
        await asyncio.sleep(0.1)
        waiting.set()
        first = await asyncio.gather(*tasks)
        return first, await upload("a")

    assert asyncio.run(run()) == (([200] * 32 + [503]) * 2, 200)


def test_a_client_that_disconnects_is_no_server_error(folder, app):
    async def receive():
        return {"type": "http.disconnect"}

    async def send(message):
        pass

    files = PageFiles(folder, 10**9, 3600)
    scope = {"type": "http", "method": "POST", "path": UPLOAD, "query_string": b"upload_id=a"}
    scope |= {"headers": [(b"host", b"a")]}

    async def run(guarded):
        await Guard(guarded, files, host="", functions={}, max_upload=10, max_job=10)(scope, receive, send)

    async def broken(scope, receive, send):
        raise ZeroDivisionError

    asyncio.run(run(app))
    with pytest.raises(ZeroDivisionError):
        asyncio.run(run(broken))


def test_only_clients_with_a_session_get_messages(ask, app):
    assert ask("GET", "/gradio_api/queue/data", "session_hash=abc123")[0] == 404
    assert ask("GET", "/gradio_api/upload_progress", "upload_id=a")[0] == 404
    ask("POST", JOB, body=job())
    ask("POST", UPLOAD, "upload_id=a", body=[b"x"])
    assert ask("GET", "/gradio_api/queue/data", "session_hash=abc123&x=y")[0] == 200
    assert app.calls[-1][1] == "session_hash=abc123"
    assert ask("GET", "/gradio_api/upload_progress", "upload_id=a")[0] == 200
    assert ask("GET", "/gradio_api/queue/data", "session_hash=" + "a" * 65)[0] == 400


@pytest.mark.parametrize("kind", ["application/json", "text/html; charset=utf-8", "text/event-stream"])
def test_answers_name_files_without_their_folder(ask, app, folder, kind):
    app.answer = 200, kind, [f'"{folder}/ab12/'.encode(), b'x.png"']
    assert ask("GET", "/") == (200, b'"/files/ab12/x.png"')
    assert ask.headers.get(b"content-length", b"19") == b"19"


def test_images_are_passed_on_as_they_are(ask, app, folder):
    app.answer = 200, "image/png", [str(folder).encode()]
    assert ask("GET", "/gradio_api/file=/files/ab12/x y.png") == (200, str(folder).encode())


def test_errors_do_not_describe_the_server(ask, app):
    app.answer = 500, "text/plain", [b"File /home/me/secret not allowed"]
    status, body = ask("GET", "/")
    assert status == 500
    assert json.loads(body) == {"detail": "The server failed."}


def test_the_browser_is_told_to_load_nothing_from_elsewhere(ask):
    ask("GET", "/")
    assert b"default-src 'self' data: blob:" in ask.headers[b"content-security-policy"]
    assert ask.headers[b"x-content-type-options"] == b"nosniff"
