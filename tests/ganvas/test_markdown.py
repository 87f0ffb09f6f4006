"""Names from strangers in Markdown, against an independent reader of it."""

from html.parser import HTMLParser

import pytest
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from ganvas.markdown import escape_markdown

READERS = [MarkdownIt("commonmark"), MarkdownIt("commonmark").enable(["table", "strikethrough"])]


class Page(HTMLParser):
    """The tags and the text of a page."""

    def __init__(self, html):
        super().__init__()
        self.tags, self.text = [], ""
        self.feed(html)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)

    def handle_data(self, data):
        self.text += data


def shown(text, reader):
    return Page(reader.render(f"# the name {text} is shown\n"))


HOSTILE = [
    "![x](https://example.com/pixel.png)",
    "[click](javascript:alert(1))",
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "**bold** and _slanted_ and `code` and ~~gone~~",
    "<https://example.com>",
    "&lt;b&gt; &#60;",
    "a\\*b\\\\",
    "a | b",
    "$$x$$ \\(x\\)",
    "a\n\n# another heading\n<b>",
]


@pytest.mark.parametrize("text", HOSTILE)
@pytest.mark.parametrize("reader", READERS)
def test_hostile_names_are_shown_letter_by_letter(text, reader):
    page = shown(escape_markdown(text), reader)
    assert page.tags == ["h1"]
    assert page.text.strip() == f"the name {' '.join(text.split())} is shown"


@given(st.text(st.characters(exclude_categories=["Cc", "Cs", "Zl", "Zp"])))
def test_any_name_is_shown_as_it_is(text):
    page = shown(escape_markdown(text), READERS[1])
    assert page.tags == ["h1"]
    assert page.text.split() == f"the name {text} is shown".split()


@pytest.mark.parametrize("text", ["visit https://example.com now", "www.example.com", "someone@example.com"])
def test_addresses_do_not_become_links_by_themselves(text):
    escaped = escape_markdown(text)
    assert escaped != text
    assert shown(escaped, READERS[0]).text.strip() == f"the name {text} is shown"
    assert not any(address in escaped for address in ("s://", "www.", "e@e"))


@pytest.mark.parametrize("text", ["aerial photo", "CC-BY-4.0", "MIT (see the site: terms apply)", "地図", "Zürich 2"])
def test_common_names_stay_readable(text):
    assert escape_markdown(text) == text
