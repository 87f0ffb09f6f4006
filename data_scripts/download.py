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

from ganvas.errors import UserError
from ganvas.files import cannot_write, put_in_place, read_json, write_json
from ganvas.options import from_json, to_json

CHUNK = 1 << 18  # bytes
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

    Returns:
        The address that it came from.

    Raises:
        UserError: No address has the right file, or the disk is full. What has arrived of it is kept.
    """
    partial = _Partial(path.with_name(f"{path.name}.part"))
    reasons = []
    for address in addresses:
        try:
            _persist(address, partial, size, patience, arrived, say)
            _check(partial, size, digest)
        except _Refused as refused:
            say(f"{address}: {refused}")
            reasons.append(f"  {address}: {refused}")
            continue
        partial.finish(path)
        return address
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
        write_json(self._told, to_json(told))

    def discard(self) -> None:
        """Forget everything."""
        self.path.unlink(missing_ok=True)
        self._told.unlink(missing_ok=True)

    def finish(self, path: Path) -> None:
        """Give the file its name."""
        put_in_place(self.path, path)
        self._told.unlink(missing_ok=True)


def _persist(address: str, partial: _Partial, size: int | None, patience: Patience, arrived: Arrived, say: Say) -> None:
    """Attempt a transfer until it is complete; attempts that bring new bytes are not counted."""
    failures, furthest = 0, partial.length
    while True:
        try:
            _transfer(address, partial, size, patience.stall, arrived)
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


def _transfer(address: str, partial: _Partial, size: int | None, stall: float, arrived: Arrived) -> None:
    """Request what is missing and append it."""
    told = partial.told()
    if told and told.total == partial.length:
        return
    with _open(address, partial, told, stall) as response:
        if response.status == http.client.PARTIAL_CONTENT:
            now = _continued(response, partial, told)
        else:
            now = Told(_validator(response), _number(response.headers.get("Content-Length")))
        if size is not None and now.total not in (None, size):
            raise _Refused(f"offers a file of {now.total:,} bytes; expected {size:,}")
        try:
            if response.status != http.client.PARTIAL_CONTENT:
                partial.restart(now)
            with partial.path.open("ab") as file:
                for chunk in _chunks(response, stall):
                    file.write(chunk)
                    arrived(file.tell(), now.total)
        except OSError as error:
            raise cannot_write(partial.path, error) from None
    if now.total is not None and partial.length != now.total:
        raise _Interrupted(f"cut off after {partial.length:,} of {now.total:,} bytes")


def _open(address: str, partial: _Partial, told: Told | None, stall: float) -> http.client.HTTPResponse:
    headers = {"User-Agent": "ganvas", "Accept-Encoding": "identity"}
    if told:
        headers["Range"] = f"bytes={partial.length}-"
        if told.validator:
            headers["If-Range"] = told.validator
    try:
        response: http.client.HTTPResponse = urllib.request.urlopen(
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
    now = Told(_validator(response) or (told.validator if told else ""), _number(total))
    if now != told or first != partial.length:
        partial.discard()
        raise _Interrupted("offers another file than before")
    return now


def _validator(response: http.client.HTTPResponse) -> str:
    etag = response.headers.get("ETag", "")
    # A weak ETag vouches for the meaning, not for the bytes.
    return etag if etag.startswith('"') else response.headers.get("Last-Modified", "")


def _number(value: str | None) -> int | None:
    return int(value) if value and value.isascii() and value.isdigit() else None


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
