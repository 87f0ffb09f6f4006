"""Files from the web that arrive whole or not at all: continued where they stopped, tried again, checked.

What has arrived lies in ``NAME.part``, and what its server said of it in ``NAME.part.json``. A transfer that broke off,
or a process that was killed, is continued from there by HTTP Range, as long as the server still offers the same file; a
server that does not serve ranges starts from the first byte. The file gets its name when size and digest are right.

Reference: RFC 9110, sections 13.1.5 (If-Range), 14 (Range) and 10.2.3 (Retry-After).
"""

import hashlib
import http.client
import random
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from ganvas.errors import UserError
from ganvas.files import cannot_write, put_in_place, read_json, write_json
from ganvas.options import from_json, to_json

CHUNK = 1 << 18  # bytes
MOST_DIGITS = 18  # of a size in bytes
BUSY = frozenset({408, 425, 429, 500, 502, 503, 504})  # answers that may be another one soon
LONGEST_WAIT = 30.0  # seconds

Arrived = Callable[[int, int | None], None]  # bytes that are here, bytes in all where the server says
Say = Callable[[str], None]


@dataclass(frozen=True)
class Patience:
    """How long to bear with a server."""

    stall: float = 30.0
    """Seconds without a byte after which a transfer is given up."""
    attempts: int = 5
    """Attempts at one address in a row that bring nothing new."""
    first_wait: float = 1.0
    """Seconds before the second attempt; doubled with each further one."""


USUAL = Patience()


@dataclass(frozen=True)
class Told:
    """What a server said of the file that a partial one is the beginning of."""

    validator: str = ""
    """Its strong ETag, else its date of change; empty where it gave neither."""
    total: int | None = None
    """Its size in bytes."""
    origin: str = ""
    """The address that it came from, after redirects; the first unencrypted one where a part came so."""


class _Interrupted(Exception):
    """This attempt failed, and another one may not."""

    def __init__(self, reason: str, retry_after: float = 0.0) -> None:
        super().__init__(reason)
        self.retry_after = retry_after  # seconds


class _Refused(Exception):
    """This address will not do."""


def download(
    addresses: Sequence[str],
    path: Path,
    *,
    size: int | None = None,
    digest: str | None = None,
    patience: Patience = USUAL,
    arrived: Arrived = lambda done, total: None,
    say: Say = lambda message: None,
    allow_http: bool = False,
) -> str:
    """Download a file; continue it when a part of it is there.

    Args:
        addresses: Where it can be had, tried in order.
        path: The file to write, in a folder that exists.
        size: Its size in bytes, where it is known.
        digest: Its digest, where it is known: "sha256:…", "sha1:…" or "md5:…" in hexadecimal digits.
        patience: Time-outs and attempts.
        arrived: Told of progress.
        say: Told in words of each attempt that failed.
        allow_http: Whether a file without a digest may come unencrypted though its address begins with https:, by a
            redirect or in an earlier part.

    Returns:
        The address that it came from, after redirects; where parts came from several, an unencrypted one if there is.

    Raises:
        UserError: No address has the right file, or the disk is full. What has arrived of it is kept.
    """
    partial = _Partial(path.with_name(f"{path.name}.part"))
    reasons = []
    for address in addresses:
        try:
            secure = address.startswith("https:") and digest is None and not allow_http
            _persist(address, partial, size, patience, arrived, say, secure)
            _check(partial, size, digest)
        except _Refused as refused:
            say(f"{address}: {refused}")
            reasons.append(f"  {address}: {refused}")
            continue
        told = partial.told()
        partial.finish(path)
        return (told and told.origin) or address
    raise UserError("\n".join([f"{path.name} cannot be downloaded:", *reasons]))


class _Partial:
    """The beginning of a file, and what was told of it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._told = path.with_name(f"{path.name}.json")

    @property
    def length(self) -> int:
        """Bytes that have arrived."""
        return self.path.stat().st_size if self.path.exists() else 0

    def told(self) -> Told | None:
        """Read what was told of it; None when there is nothing that could be continued."""
        try:
            told = from_json(Told, read_json(self._told, "what a server said"), str(self._told))
        except UserError:
            return None
        return told if self.length else None

    def restart(self, told: Told) -> None:
        """Begin from the first byte."""
        # In this order: bytes of one file never stand beside what was told of another.
        self.path.write_bytes(b"")
        self.note(told)

    def note(self, told: Told) -> None:
        """Write down what was told of it."""
        write_json(self._told, to_json(told))

    def discard(self) -> None:
        """Forget everything."""
        self.path.unlink(missing_ok=True)
        self._told.unlink(missing_ok=True)

    def finish(self, path: Path) -> None:
        """Give the file its name."""
        put_in_place(self.path, path)
        self._told.unlink(missing_ok=True)


def _persist(
    address: str, partial: _Partial, size: int | None, patience: Patience, arrived: Arrived, say: Say, secure: bool
) -> None:
    """Attempt a transfer until it is complete; attempts that bring new bytes are not counted."""
    failures, furthest = 0, partial.length
    while True:
        try:
            _transfer(address, partial, size, patience.stall, arrived, secure)
            return
        except _Interrupted as interrupted:
            failures = failures + 1 if partial.length <= furthest else 0
            furthest = max(furthest, partial.length)
            if failures >= patience.attempts:
                raise _Refused(f"{interrupted}; {failures} attempts in a row brought nothing new") from None
            # Doubled and spread: many that were thrown out together do not come back together.
            wait = min(patience.first_wait * 2 ** max(failures - 1, 0), LONGEST_WAIT) * random.uniform(0.5, 1)
            wait = max(wait, min(interrupted.retry_after, LONGEST_WAIT))
            say(f"{address}: {interrupted}; trying again in {wait:.1f} s")
            time.sleep(wait)


def _transfer(address: str, partial: _Partial, size: int | None, stall: float, arrived: Arrived, secure: bool) -> None:
    """Request what is missing and append it."""
    told = partial.told()
    if secure and told and not told.origin.startswith("https:"):
        partial.discard()
        told = None
    if told and told.total == partial.length:
        return
    with _open(address, partial, told, stall, secure) as response:
        if response.status == http.client.PARTIAL_CONTENT:
            now = _continued(response, partial, told)
        else:
            now = Told(_validator(response), _number(response.headers.get("Content-Length")), response.geturl())
        if size is not None and now.total not in (None, size):
            raise _Refused(f"offers a file of {now.total:,} bytes; expected {size:,}")
        try:
            if response.status != http.client.PARTIAL_CONTENT:
                partial.restart(now)
            elif now != told:
                partial.note(now)
            with partial.path.open("ab") as file:
                for chunk in _chunks(response, stall):
                    file.write(chunk)
                    arrived(file.tell(), now.total)
                    if now.total is None and size is not None and file.tell() > size:
                        raise _Refused(f"sends more than the expected {size:,} bytes")
        except OSError as error:
            raise cannot_write(partial.path, error) from None
    if now.total is not None and partial.length != now.total:
        raise _Interrupted(f"cut off after {partial.length:,} of {now.total:,} bytes")


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follows redirects within the web; where ``secure`` is set, none that leaves https."""

    def __init__(self, secure: bool) -> None:
        self._secure = secure

    def redirect_request(
        self,
        req: urllib.request.Request,
        fp: IO[bytes],
        code: int,
        msg: str,
        headers: http.client.HTTPMessage,
        newurl: str,
    ) -> urllib.request.Request | None:
        scheme = newurl.partition(":")[0].lower()
        if scheme != "https" and (self._secure or scheme != "http"):
            raise _Refused(f"redirects to {newurl}, which is not encrypted; --allow-http allows that")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _open(address: str, partial: _Partial, told: Told | None, stall: float, secure: bool) -> http.client.HTTPResponse:
    headers = {"User-Agent": "ganvas", "Accept-Encoding": "identity"}
    if told:
        headers["Range"] = f"bytes={partial.length}-"
        if told.validator:
            headers["If-Range"] = told.validator
    try:
        opener = urllib.request.build_opener(_Redirects(secure))
        response: http.client.HTTPResponse = opener.open(
            urllib.request.Request(address, headers=headers), timeout=stall
        )
        return response
    except urllib.error.HTTPError as error:
        error.close()
        answer = f"answers {error.code} {error.reason}"
        if error.code == http.client.REQUESTED_RANGE_NOT_SATISFIABLE:
            partial.discard()
        elif error.code not in BUSY:
            raise _Refused(answer) from None
        raise _Interrupted(answer, _number(error.headers.get("Retry-After")) or 0) from None
    except (ValueError, http.client.InvalidURL) as error:
        raise _Refused(f"is no address ({error})") from None
    except (OSError, http.client.HTTPException) as error:
        reason = getattr(error, "reason", None) or error
        if isinstance(reason, ssl.SSLCertVerificationError):
            raise _Refused(f"shows a certificate that is not valid ({reason.verify_message})") from None
        raise _Interrupted(_in_words("cannot be reached", reason, stall)) from None


def _continued(response: http.client.HTTPResponse, partial: _Partial, told: Told | None) -> Told:
    """Make sure that a part continues the part that is here: servers may overlook If-Range, or mistake the place."""
    place, _, total = response.headers.get("Content-Range", "").removeprefix("bytes ").partition("/")
    first = _number(place.partition("-")[0])
    # An answer to If-Range may leave out the date of change.
    origin = response.geturl()
    if told and told.origin and not told.origin.startswith("https:"):
        origin = told.origin
    now = Told(_validator(response) or (told.validator if told else ""), _number(total), origin)
    if not told or (now.validator, now.total) != (told.validator, told.total) or first != partial.length:
        partial.discard()
        raise _Interrupted("offers another file than before")
    return now


def _validator(response: http.client.HTTPResponse) -> str:
    etag = response.headers.get("ETag", "")
    # A weak ETag vouches for the meaning, not for the bytes.
    return etag if etag.startswith('"') else response.headers.get("Last-Modified", "")


def _number(value: str | None) -> int | None:
    """Return a number of a header; None where there is none that a file could have."""
    return int(value) if value and value.isascii() and value.isdigit() and len(value) <= MOST_DIGITS else None


def _chunks(response: http.client.HTTPResponse, stall: float) -> Iterator[bytes]:
    """Read what comes as it comes; whatever happens on the way is an interruption."""
    try:
        while chunk := response.read1(CHUNK):
            yield chunk
    except (OSError, http.client.HTTPException) as error:
        raise _Interrupted(_in_words("breaks off", error, stall)) from None


def _in_words(what: str, reason: object, stall: float) -> str:
    return f"sends nothing for {stall:g} s" if isinstance(reason, TimeoutError) else f"{what} ({reason})"


def _check(partial: _Partial, size: int | None, digest: str | None) -> None:
    """Hold a complete file against what is known of it."""
    wrong = ""
    if size is not None and partial.length != size:
        wrong = f"sent {partial.length:,} bytes; expected {size:,}"
    elif digest is not None and (found := digest_of(partial.path, digest.partition(":")[0])) != digest:
        wrong = f"sent a file with the digest {found}; expected {digest}"
    if wrong:
        partial.discard()
        raise _Refused(wrong)


def digest_of(path: Path, kind: str) -> str:
    """Give a file's digest as "sha256:…", for the kind "sha256"."""
    with path.open("rb") as file:
        return f"{kind}:{hashlib.file_digest(file, kind).hexdigest()}"
