"""Text from elsewhere inside a line of Markdown, in model cards and on pages."""

import re

# What begins code, emphasis, a link, an image, HTML, an entity, a table cell or a formula; and addresses, which many
# readers of Markdown turn into links. A backslash may stand before any ASCII punctuation (CommonMark, Sec. 2.4).
_SPECIAL = re.compile(r"[\\`*_\[\]<>&|~$]|:(?=//)|(?<=www)\.|@")


def escape_markdown(text: object) -> str:
    """Return text as Markdown that shows it letter by letter, in one line."""
    return _SPECIAL.sub(lambda found: f"\\{found[0]}", " ".join(str(text).split()))
