"""The folder that a page serves files from, and their public names.

gradio puts absolute paths into its answers. Visitors see ``/files/FOLDER/NAME`` instead, and no other file is served.
"""

import contextlib
import json
import re
import time
from pathlib import Path
from urllib.parse import quote

PUBLIC = "/files"
NAME = re.compile(r"/files[/\\]([^/\\\0]+)[/\\]([^/\\\0]+)")
# As gradio writes JSON into its page.
IN_HTML = str.maketrans({"<": "\\u003c", ">": "\\u003e", "&": "\\u0026", "'": "\\u0027"})


class PageFiles:
    """Files of a page: uploads, results, and what gradio keeps beside them, each in a folder of its own.

    Args:
        folder: Where they are.
        max_bytes: Limit of their total size; the oldest are removed to make room for an upload.
        keep_seconds: Older files are removed.
    """

    def __init__(self, folder: Path, max_bytes: int, keep_seconds: float) -> None:
        self.folder = folder.resolve()
        self._max_bytes, self._keep_seconds = max_bytes, keep_seconds
        self._permanent: frozenset[Path] = frozenset()
        plain = str(self.folder)
        in_json = json.dumps(plain, ensure_ascii=False)[1:-1]
        in_html = in_json.translate(IN_HTML)
        spellings = {plain, in_json, json.dumps(plain)[1:-1], in_html, quote(plain, safe="/")}
        self._spellings = [one.encode() for one in sorted(spellings, key=len, reverse=True)]

    def hide(self, text: bytes) -> bytes:
        """Replace the folder's path in an answer, as it is written in JSON, HTML and URLs."""
        for spelling in self._spellings:
            text = text.replace(spelling, PUBLIC.encode())
        return text

    def find(self, name: str) -> Path | None:
        """Return the file with a public name, or None."""
        match = NAME.fullmatch(name)
        if match is None or {".", ".."} & set(match.groups()):
            return None
        path = self.folder.joinpath(*match.groups())
        with contextlib.suppress(OSError, ValueError):  # not a valid file name
            if path.is_file() and path.resolve() == path:
                return path
        return None

    def keep(self) -> None:
        """Never remove the files that exist now: those of the examples."""
        self._permanent = frozenset(self.folder.glob("*/*"))

    def make_room(self) -> None:
        """Remove old files, then the oldest until the total size is within the limit."""
        found, total = [], 0
        for path in (*self.folder.glob("*"), *self.folder.glob("*/*")):
            with contextlib.suppress(OSError):
                status = path.stat()
                if path.is_file() and path not in self._permanent:
                    found.append((status.st_mtime, status.st_size, path))
                    total += status.st_size
        now = time.time()
        for changed, size, path in sorted(found):
            if total <= self._max_bytes and now - changed <= self._keep_seconds:
                break
            with contextlib.suppress(OSError):
                path.unlink()
                total -= size
                if path.parent != self.folder:
                    path.parent.rmdir()  # unless something else is in it
