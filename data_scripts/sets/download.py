"""Resumable downloads: a file appears complete and checked, or not at all.

Received bytes are kept in ``NAME.part``, and what the server said about the file in ``NAME.part.json``. An interrupted
transfer resumes with an HTTP range request while the server offers the same file, and restarts otherwise.

Reference: RFC 9110, sections 10.2.3 (Retry-After), 13.1.5 (If-Range) and 14 (Range).
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
from ganvas.files import move_into_place, write_error
from ganvas.json_files import read_json, write_json
from ganvas.log import logger, progress_bar
from ganvas.options import from_json, to_json

CHUNK = 1 << 18  # bytes
MAX_DIGITS = 18  # of a number of bytes or seconds in a header
RETRIED_STATUS = frozenset({408, 425, 429, 500, 502, 503, 504})
MAX_WAIT = 30.0  # seconds


@dataclass(frozen=True)
class RetryPolicy:
    """When to retry a transfer, and when to give up."""

    timeout: float = 30.0
    """Seconds without data after which an attempt fails."""
    attempts: int = 5
    """Consecutive attempts without new bytes before an address is given up."""
    first_wait: float = 1.0
    """Seconds before the second attempt; doubled before each further one."""


DEFAULT_RETRY = RetryPolicy()


@dataclass(frozen=True)
class RemoteFile:
    """What a server said about the file that a partial file belongs to."""

    validator: str = ""
    """Its strong ETag, else its Last-Modified date, else empty."""
    total: int | None = None
    """Its size in bytes, if known."""
    origin: str = ""
    """The address after redirects; if parts have several origins, an unencrypted one."""


class _RetryableError(Exception):
    """The attempt failed; another one may succeed."""

    def __init__(self, reason: str, retry_after: float = 0.0) -> None:
        super().__init__(reason)
        self.retry_after = retry_after  # seconds


class _AddressError(Exception):
    """The address cannot be used."""


def download(
    addresses: Sequence[str],
    path: Path,
    *,
    size: int | None = None,
    digest: str | None = None,
    retry: RetryPolicy = DEFAULT_RETRY,
    allow_http: bool = False,
) -> str:
    """Download a file, or resume its download.

    Args:
        addresses: URLs, tried in order.
        path: The file to write, in an existing folder.
        size: Expected size in bytes.
        digest: Expected digest: "sha256:…", "sha1:…" or "md5:…" in hexadecimal.
        retry: Timeouts and attempts.
        allow_http: Accept unencrypted parts and redirects for https addresses even without a digest.

    Returns:
        The address after redirects; if parts came from several, an unencrypted one if there is any.

    Raises:
        UserError: No address has the file, or it cannot be written. Received bytes are kept.
    """
    from rich.progress import DownloadColumn, TimeRemainingColumn, TransferSpeedColumn

    partial = _PartialFile(path)
    reasons = []
    with progress_bar(DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn()) as bar:
        task = bar.add_task("downloading", total=size)

        def on_progress(done: int, total: int | None) -> None:
            bar.update(task, completed=done, total=total or size)

        for address in addresses:
            https_only = address.startswith("https:") and digest is None and not allow_http
            try:
                _Transfer(address, partial, size, retry, https_only, on_progress).run()
                partial.check(size, digest)
            except _AddressError as error:
                logger.warning("%s: %s", address, error)
                reasons.append(f"  {address}: {error}")
                continue
            remote = partial.remote()
            partial.finish()
            return (remote and remote.origin) or address
    raise UserError("\n".join([f"{path.name} cannot be downloaded:", *reasons]))


def digest_of(path: Path, algorithm: str) -> str:
    """Return a file's digest, such as "sha256:…" for the algorithm "sha256"."""
    with path.open("rb") as file:
        return f"{algorithm}:{hashlib.file_digest(file, algorithm).hexdigest()}"


class _PartialFile:
    """The received beginning of a file, and what the server said about it."""

    def __init__(self, target: Path) -> None:
        self._target = target
        self.path = target.with_name(f"{target.name}.part")
        self._remote_path = target.with_name(f"{target.name}.part.json")

    @property
    def length(self) -> int:
        return self.path.stat().st_size if self.path.exists() else 0

    def remote(self) -> RemoteFile | None:
        """Return what the server said, or None if there is nothing to resume."""
        try:
            remote = from_json(RemoteFile, read_json(self._remote_path, "a download's state"), str(self._remote_path))
        except UserError:
            return None
        return remote if self.length else None

    def restart(self, remote: RemoteFile) -> None:
        # In this order: the bytes of one file are never next to the description of another.
        self.path.write_bytes(b"")
        self.describe(remote)

    def describe(self, remote: RemoteFile) -> None:
        write_json(self._remote_path, to_json(remote))

    def discard(self) -> None:
        self.path.unlink(missing_ok=True)
        self._remote_path.unlink(missing_ok=True)

    def check(self, size: int | None, digest: str | None) -> None:
        """Discard and refuse a complete file of another size or digest."""
        wrong = ""
        if size is not None and self.length != size:
            wrong = f"sent {self.length:,} bytes; expected {size:,}"
        elif digest is not None and (found := digest_of(self.path, digest.partition(":")[0])) != digest:
            wrong = f"sent a file with the digest {found}; expected {digest}"
        if wrong:
            self.discard()
            raise _AddressError(wrong)

    def finish(self) -> None:
        move_into_place(self.path, self._target)
        self._remote_path.unlink(missing_ok=True)


@dataclass(frozen=True)
class _Transfer:
    """The transfer of a file from one address into its partial file."""

    address: str
    partial: _PartialFile
    size: int | None
    retry: RetryPolicy
    https_only: bool
    on_progress: Callable[[int, int | None], None]

    def run(self) -> None:
        """Retry until the file is complete; attempts that bring new bytes do not count."""
        failures, furthest = 0, self.partial.length
        while True:
            try:
                self._attempt()
                return
            except _RetryableError as error:
                failures = failures + 1 if self.partial.length <= furthest else 0
                furthest = max(furthest, self.partial.length)
                if failures >= self.retry.attempts:
                    raise _AddressError(f"{error}; {failures} attempts in a row brought nothing new") from None
                # Exponential backoff with jitter, so that clients that failed together do not return together.
                wait = min(self.retry.first_wait * 2 ** max(failures - 1, 0), MAX_WAIT) * random.uniform(0.5, 1)
                wait = max(wait, min(error.retry_after, MAX_WAIT))
                logger.info("%s: %s; retrying in %.1f s", self.address, error, wait)
                time.sleep(wait)

    def _attempt(self) -> None:
        """Request the missing bytes and append them."""
        partial, before = self.partial, self.partial.remote()
        if self.https_only and before and not before.origin.startswith("https:"):
            partial.discard()
            before = None
        if before and before.total == partial.length:
            return
        with self._open(before) as response:
            resumed = response.status == http.client.PARTIAL_CONTENT
            length = _number(response.headers.get("Content-Length"))
            remote = (
                self._resumed(response, before)
                if resumed
                else RemoteFile(_validator(response), length, response.geturl())
            )
            if self.size is not None and remote.total not in (None, self.size):
                raise _AddressError(f"offers a file of {remote.total:,} bytes; expected {self.size:,}")
            try:
                if not resumed:
                    partial.restart(remote)
                elif remote != before:
                    partial.describe(remote)
                with partial.path.open("ab") as file:
                    for chunk in self._chunks(response):
                        file.write(chunk)
                        self.on_progress(file.tell(), remote.total)
                        if remote.total is None and self.size is not None and file.tell() > self.size:
                            raise _AddressError(f"sends more than the expected {self.size:,} bytes")
            except OSError as error:
                raise write_error(partial.path, error) from None
        if remote.total is not None and partial.length != remote.total:
            raise _RetryableError(f"cut off after {partial.length:,} of {remote.total:,} bytes")

    def _open(self, before: RemoteFile | None) -> http.client.HTTPResponse:
        headers = {"User-Agent": "ganvas", "Accept-Encoding": "identity"}
        if before:
            headers["Range"] = f"bytes={self.partial.length}-"
            if before.validator:
                headers["If-Range"] = before.validator
        opener = urllib.request.build_opener(_RedirectHandler(self.https_only))
        try:
            request = urllib.request.Request(self.address, headers=headers)
            response: http.client.HTTPResponse = opener.open(request, timeout=self.retry.timeout)
            return response
        except urllib.error.HTTPError as error:
            error.close()
            reason = f"answers {error.code} {error.reason}"
            if error.code == http.client.REQUESTED_RANGE_NOT_SATISFIABLE:
                self.partial.discard()
            elif error.code not in RETRIED_STATUS:
                raise _AddressError(reason) from None
            raise _RetryableError(reason, _number(error.headers.get("Retry-After")) or 0) from None
        except (ValueError, http.client.InvalidURL) as error:
            raise _AddressError(f"is not a valid address ({error})") from None
        except (OSError, http.client.HTTPException) as error:
            cause = getattr(error, "reason", None) or error
            if isinstance(cause, ssl.SSLCertVerificationError):
                raise _AddressError(f"has an invalid certificate ({cause.verify_message})") from None
            raise _RetryableError(self._describe("cannot be reached", cause)) from None

    def _resumed(self, response: http.client.HTTPResponse, before: RemoteFile | None) -> RemoteFile:
        """Check that a partial response continues the partial file: servers may ignore If-Range, or the offset."""
        place, _, total = response.headers.get("Content-Range", "").removeprefix("bytes ").partition("/")
        first = _number(place.partition("-")[0])
        origin = response.geturl()
        if before and before.origin and not before.origin.startswith("https:"):
            origin = before.origin
        # A response to If-Range may omit Last-Modified.
        remote = RemoteFile(_validator(response) or (before.validator if before else ""), _number(total), origin)
        is_same = before is not None and (remote.validator, remote.total) == (before.validator, before.total)
        if not is_same or first != self.partial.length:
            self.partial.discard()
            raise _RetryableError("offers another file than before")
        return remote

    def _chunks(self, response: http.client.HTTPResponse) -> Iterator[bytes]:
        try:
            while chunk := response.read1(CHUNK):
                yield chunk
        except (OSError, http.client.HTTPException) as error:
            raise _RetryableError(self._describe("lost the connection", error)) from None

    def _describe(self, what: str, cause: object) -> str:
        return f"no data for {self.retry.timeout:g} s" if isinstance(cause, TimeoutError) else f"{what} ({cause})"


class _RedirectHandler(urllib.request.HTTPRedirectHandler):
    """Follows redirects to http and https only, or with ``https_only`` to https only."""

    def __init__(self, https_only: bool) -> None:
        self._https_only = https_only

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
        if scheme != "https" and (self._https_only or scheme != "http"):
            raise _AddressError(f"redirects to {newurl}, which is not encrypted; --allow-http allows that")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _validator(response: http.client.HTTPResponse) -> str:
    etag = response.headers.get("ETag", "")
    # A weak ETag identifies the meaning of a file, not its bytes.
    return etag if etag.startswith('"') else response.headers.get("Last-Modified", "")


def _number(value: str | None) -> int | None:
    """Parse a header's number; None if it is missing or implausible."""
    return int(value) if value and value.isascii() and value.isdigit() and len(value) <= MAX_DIGITS else None
