"""Escaping of untrusted text in Markdown, for model cards and pages."""

import re

# Starts of code, emphasis, links, images, HTML, entities, table cells and formulas; and addresses, which many readers
# of Markdown turn into links. A backslash may stand before any ASCII punctuation (CommonMark, Sec. 2.4).
_SPECIAL = re.compile(r"[\\`*_\[\]<>&|~$]|:(?=//)|(?<=www)\.|@")


def escape_markdown(text: object) -> str:
    """Return Markdown that shows a text literally, in one line."""
    return _SPECIAL.sub(lambda found: f"\\{found[0]}", " ".join(str(text).split()))
