"""An allow-list in front of gradio's app.

gradio has some 90 routes: a proxy, run histories, monitoring, a code editor, files by URL and by absolute path. The
page needs 13, with few parameters. `Guard` forwards nothing else, limits the size and time of requests, checks host and
origin, and removes paths of this machine from the answers. It is plain ASGI and needs no gradio.
"""

import asyncio
import ipaddress
import json
import re
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from dataclasses import dataclass
from functools import partial
from typing import Any
from urllib.parse import parse_qs, quote, urlsplit

from ganvas.inference.web.files import PageFiles

Message = MutableMapping[str, Any]
Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]
Headers = list[tuple[bytes, bytes]]

# A body may take this long, and a second more per so many bytes: our choice, an eighth of a slow mobile uplink.
GRACE_SECONDS, BYTES_PER_SECOND = 20.0, 16 * 1024
MAX_UPLOADS = 64  # at once, half of them from one address
MAX_SESSIONS = 2000  # sessions and uploads that are remembered
FORM_BYTES = 64 * 1024  # of an upload beside its file
MAX_JOB_MARKS = 1000  # brackets, commas and colons in a job; a browser sends some 50

JOB, MESSAGES = "/gradio_api/queue/join", "/gradio_api/queue/data"
UPLOAD, PROGRESS = "/gradio_api/upload", "/gradio_api/upload_progress"
FILE = "/gradio_api/file="
ASSET = re.compile(r"/(assets|static)(/\w[\w.-]*)+")
TOKEN = re.compile(r"[A-Za-z0-9_-]{1,64}")
HOST = re.compile(r"([A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(:[0-9]{1,5})?")


@dataclass(frozen=True)
class Route:
    """HTTP methods of a route, and the only query parameter that is forwarded, a `TOKEN`; "" for none."""

    methods: tuple[str, ...]
    parameter: str = ""


READ = Route(("GET", "HEAD"))
ROUTES = {
    "/": READ,
    "/favicon.ico": READ,
    "/manifest.json": READ,
    "/robots.txt": READ,
    "/theme.css": Route(("GET", "HEAD"), "v"),
    "/gradio_api/app_id": READ,
    UPLOAD: Route(("POST",), "upload_id"),
    PROGRESS: Route(("GET",), "upload_id"),
    JOB: Route(("POST",)),
    MESSAGES: Route(("GET",), "session_hash"),
}
# Other headers have a meaning to gradio: the page's address behind a proxy, a part of a file.
FORWARDED = {b"host", b"origin", b"content-type", b"content-length", b"accept", b"user-agent", b"if-none-match"}
FORWARDED |= {b"if-modified-since"}
REWRITTEN = (b"text/html", b"application/json", b"text/event-stream")
POLICY = "default-src 'self' data: blob: 'unsafe-inline' 'unsafe-eval'; frame-ancestors 'self'; form-action 'self'"
ADDED: Headers = [
    (b"content-security-policy", POLICY.encode()),  # the browser requests nothing from other hosts, either
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"referrer-policy", b"same-origin"),
    (b"x-content-type-options", b"nosniff"),
]
REASONS = {
    400: "The request is not one that this page sends.",
    403: "The request comes from another site.",
    404: "Not found.",
    405: "Method not allowed.",
    408: "The request arrived too slowly.",
    413: "The request is larger than the limit of this page.",
    421: "This page is not served under that host name.",
    500: "The server failed.",
    503: "The server is busy. Try again in a moment.",
}


class Refusal(Exception):
    """An error response with an HTTP status, instead of the app's."""

    def __init__(self, status: int) -> None:
        super().__init__(REASONS.get(status, REASONS[400 if status < 500 else 500]))
        self.status = status


class Guard:
    """An ASGI app around gradio's.

    Args:
        app: gradio's.
        files: The files that visitors may use.
        host: The address that the server listens at. At a loopback address only its names are accepted as Host, which
            prevents DNS rebinding.
        functions: Numbers of inputs of the page's functions, by gradio's index.
        max_upload: Largest uploaded file in bytes.
        max_job: Largest body of a job, in bytes.
    """

    def __init__(
        self, app: App, files: PageFiles, *, host: str, functions: Mapping[int, int], max_upload: int, max_job: int
    ) -> None:
        self._app, self._files = app, files
        self._hosts = loopback_names(host)
        self._functions = functions
        self._max_upload, self._max_job = max_upload + FORM_BYTES, max_job
        self._uploading: Counter[str] = Counter()
        self._uploads: deque[str] = deque(maxlen=MAX_SESSIONS)
        self._sessions: deque[str] = deque(maxlen=MAX_SESSIONS)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or forward it to the app."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
        elif scope["type"] == "http":
            reply = Reply(send, self._files)
            try:
                await self._forward(dict(scope), receive, reply)
            except Refusal as refusal:
                await reply.refuse(refusal)

    async def _forward(self, scope: Scope, receive: Receive, reply: "Reply") -> None:
        headers = dict(scope["headers"])  # of a repeated one the last, which is forwarded
        self._check_origin(headers)
        path, client = scope["path"], (scope.get("client") or ("",))[0]
        parameter = self._check_route(scope)
        limit = {UPLOAD: self._max_upload, JOB: self._max_job}.get(path, 0)
        body = Body(receive, limit, headers.get(b"content-length"))
        names = FORWARDED if ASSET.fullmatch(path) is None else FORWARDED | {b"accept-encoding"}
        scope["headers"] = [(name, headers[name]) for name in headers if name in names]
        receive = body
        if path == JOB:
            job = self._job(await body.read())
            scope["headers"] = [(name, value) for name, value in scope["headers"] if name != b"content-length"]
            scope["headers"].append((b"content-length", str(len(job)).encode()))
            receive = _replay(job, body)
        elif path == UPLOAD:
            if self._uploading.total() >= MAX_UPLOADS or self._uploading[client] >= MAX_UPLOADS // 2:
                raise Refusal(503)
            self._uploads.append(parameter)
            self._uploading[client] += 1
        elif path in (PROGRESS, MESSAGES) and parameter not in (self._uploads if path == PROGRESS else self._sessions):
            raise Refusal(404)  # gradio would store it, or write a traceback
        try:
            if path == UPLOAD:
                await asyncio.to_thread(self._files.make_room)
            await self._app(scope, receive, partial(_unless, body, reply))
        except Exception:
            if body.refusal is None and not body.is_cut:  # else the app stopped for that reason
                raise
        finally:
            if path == UPLOAD:
                self._uploading[client] -= 1
                self._uploading += Counter()  # removes those without any
        if body.refusal is not None:
            raise body.refusal

    def _check_origin(self, headers: Mapping[bytes, bytes]) -> None:
        """Refuse host names of other servers, and requests by pages of other sites."""
        host = headers.get(b"host", b"").decode("latin-1").lower()
        if HOST.fullmatch(host) is None:
            raise Refusal(400)
        if self._hosts and re.sub(r":\d+$", "", host).strip("[]") not in self._hosts:
            raise Refusal(421)
        origin = headers.get(b"origin")
        if origin is not None:
            try:
                url = urlsplit(origin.decode("latin-1").lower())
                default = f":{ {'http': 80, 'https': 443}.get(url.scheme) }"
            except ValueError:
                raise Refusal(403) from None
            if url.scheme not in ("http", "https") or url.netloc.removesuffix(default) != host.removesuffix(default):
                raise Refusal(403)

    def _check_route(self, scope: Scope) -> str:
        """Reduce the URL to what its route accepts; return the parameter's value. Refuse other routes."""
        path: str = scope["path"]
        route = READ if ASSET.fullmatch(path) or path.startswith(FILE) else ROUTES.get(path)
        if route is None or scope.get("root_path"):
            raise Refusal(404)
        if scope["method"] not in route.methods:
            raise Refusal(405)
        if path.startswith(FILE):
            found = self._files.find(path.removeprefix(FILE))
            if found is None:
                raise Refusal(404)
            scope["path"] = f"{FILE}{found}"
        scope["raw_path"] = quote(scope["path"]).encode()
        value = ""
        if route.parameter:
            given = parse_qs(scope["query_string"][:1024].decode("latin-1"), max_num_fields=None)
            (value,) = given.get(route.parameter, [""])[-1:]
            if TOKEN.fullmatch(value) is None:
                raise Refusal(400)
        scope["query_string"] = f"{route.parameter}={value}".encode() if value else b""
        return value

    def _job(self, body: bytes) -> bytes:
        """Reduce a job to what the page's functions take; a file is one of `PageFiles`, never a URL."""
        if sum(map(body.count, (b"[", b"{", b",", b":"))) > MAX_JOB_MARKS:
            raise Refusal(413)
        try:
            given = json.loads(body)
            data, session = given["data"], given["session_hash"]
            function, trigger, event = given["fn_index"], given.get("trigger_id"), given.get("event_data")
            if event is not None:
                event = {"index": _require(event["index"], int), "value": None}
            good = self._functions.get(_require(function, int)) == len(_require(data, list))
            if not good or TOKEN.fullmatch(session) is None:
                raise Refusal(400)
            job = {
                "data": [self._value(value) for value in data],
                "session_hash": session,
                "fn_index": function,
                "trigger_id": trigger if trigger is None else _require(trigger, int),
                "event_data": event,
            }
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
            raise Refusal(400) from None
        if session not in self._sessions:
            self._sessions.append(session)
        return json.dumps(job).encode()

    def _value(self, value: object) -> object:
        if isinstance(value, dict):
            path = self._files.find(_require(value["path"], str))
            if path is None:
                raise Refusal(404)
            return {"path": str(path), "orig_name": path.name, "meta": {"_type": "gradio.FileData"}}
        if isinstance(value, str):
            value.encode()  # a lone surrogate raises
            return value
        return value if value is None else _require(value, bool | int | float)


class Body:
    """The body of a request, as the app receives it; if it is too large or too slow, the client seems to have left.

    Args:
        receive: The server's.
        limit: In bytes.
        declared: The header Content-Length.

    Attributes:
        refusal: The error response, once there is one.
        is_cut: Whether the client left before the end of the body.

    Raises:
        Refusal: The declared length is beyond the limit, or not a number.
    """

    def __init__(self, receive: Receive, limit: int, declared: bytes | None = None) -> None:
        self._receive, self._limit = receive, limit
        self._received, self._complete = 0, False
        self._since = asyncio.get_running_loop().time()
        self.refusal: Refusal | None = None
        self.is_cut = False
        if declared is not None and not (declared.isdigit() and len(declared) < 20):
            raise Refusal(400)
        if declared is not None and int(declared) > limit:
            raise Refusal(413)

    async def __call__(self) -> Message:
        """Return the next message."""
        if self._complete:  # the next message is that the client left
            return await self._receive()
        if self.refusal is None:
            end = self._since + GRACE_SECONDS + self._received / BYTES_PER_SECOND
            try:
                async with asyncio.timeout_at(end):
                    message = await self._receive()
            except TimeoutError:
                self.refusal = Refusal(408)
            else:
                self._received += len(message.get("body", b""))
                self._complete = not message.get("more_body", False)
                self.is_cut = message["type"] == "http.disconnect"
                if self._received <= self._limit:
                    return message
                self.refusal = Refusal(413)
        return {"type": "http.disconnect"}

    async def read(self) -> bytes:
        """Return the complete body.

        Raises:
            Refusal: It is too large, too slow, or cut.
        """
        parts = []
        while not self._complete:
            message = await self()
            if message["type"] != "http.request":
                raise self.refusal or Refusal(400)
            parts.append(message.get("body", b""))
        return b"".join(parts)


class Reply:
    """The response to a request: paths of this machine are replaced, and errors get a text that reveals nothing.

    Args:
        send: The server's.
        files: Hides the paths.
    """

    def __init__(self, send: Send, files: PageFiles) -> None:
        self._send, self._files = send, files
        self._start: Message | None = None
        self._type = b""
        self._held: list[bytes] = []
        self._is_replaced = self._is_started = False

    async def __call__(self, message: Message) -> None:
        """Send a message of the app."""
        if message["type"] == "http.response.start":
            if message["status"] >= 400:
                self._is_replaced = True
                await self.refuse(Refusal(message["status"]))
                return
            self._start = dict(message)
            headers = {name.lower(): value for name, value in message.get("headers", [])}
            self._type = headers.get(b"content-type", b"").partition(b";")[0].strip()
            if self._type not in REWRITTEN or message["status"] == 304:
                self._type = b""
                await self._begin()
            elif self._type == b"text/event-stream":
                await self._begin()
        elif self._is_replaced:
            return
        elif message["type"] == "http.response.body":
            await self._send_body(message.get("body", b""), more=message.get("more_body", False))

    async def _send_body(self, body: bytes, *, more: bool) -> None:
        if self._is_started:
            hidden = self._files.hide(body) if self._type else body  # each event is one message
            await self._send({"type": "http.response.body", "body": hidden, "more_body": more})
            return
        self._held.append(body)
        if not more:
            hidden = self._files.hide(b"".join(self._held))
            await self._begin(len(hidden))
            await self._send({"type": "http.response.body", "body": hidden, "more_body": False})

    async def _begin(self, length: int | None = None) -> None:
        assert self._start is not None
        replaced = {name for name, _ in ADDED} | ({b"content-length"} if length is not None or self._type else set())
        headers = [(name, value) for name, value in self._start.get("headers", []) if name.lower() not in replaced]
        if length is not None:
            headers.append((b"content-length", str(length).encode()))
        self._is_started = True
        await self._send({**self._start, "headers": headers + ADDED})

    async def refuse(self, refusal: Refusal) -> None:
        """Send an error response, and close the connection, since its body may not have been read."""
        if self._is_started:
            return
        self._is_started = True
        body = json.dumps({"detail": str(refusal)}).encode()
        headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
        headers += [(b"connection", b"close"), *ADDED]
        await self._send({"type": "http.response.start", "status": refusal.status, "headers": headers})
        await self._send({"type": "http.response.body", "body": body, "more_body": False})


def loopback_names(host: str) -> frozenset[str]:
    """Return the names of a server at a loopback address; none for other addresses, which may have any name."""
    try:
        is_loopback = ipaddress.ip_address(host).is_loopback
    except ValueError:
        is_loopback = host.lower() == "localhost"
    return frozenset({"localhost", "127.0.0.1", "::1", host.lower()}) if is_loopback else frozenset()


def _replay(content: bytes, rest: Receive) -> Receive:
    """Return an ASGI receive of a body, and then of the remaining messages."""
    given = iter([{"type": "http.request", "body": content, "more_body": False}])

    async def receive() -> Message:
        return next(given, None) or await rest()

    return receive


async def _unless(body: Body, reply: Reply, message: Message) -> None:
    """Send a message of the app, unless its request was refused."""
    if body.refusal is None:
        await reply(message)


def _require(value: Any, kind: Any) -> Any:
    """Return a value of a type; raise TypeError for other types, and for a bool instead of an int."""
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise TypeError
    return value
