"""Reads Markdown and HTML the way their readers do."""

from __future__ import annotations

import re
from collections.abc import Iterator
from html.parser import HTMLParser

from markdown_it import MarkdownIt
from markdown_it.token import Token

GITHUB = MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"])


def tokens(markdown: str) -> Iterator[Token]:
    """Every token, inline ones too."""
    for token in GITHUB.parse(markdown):
        yield token
        yield from token.children or ()


def shown(markdown: str) -> str:
    """The text a reader sees, white space as single spaces."""
    kept = (t.content for t in tokens(markdown) if t.type in ("text", "code_inline"))
    return " ".join(" ".join(kept).split())


def tables(markdown: str) -> dict[str, list[dict[str, str]]]:
    """Tables by the heading they stand below, a row as cells by column title."""
    found: dict[str, list[dict[str, str]]] = {}
    heading, header, row = "", [], []  # type: ignore[var-annotated]
    kind, section = "", ""
    for token in GITHUB.parse(markdown):
        if token.type in ("heading_open", "th_open", "td_open"):
            kind = token.type
        elif token.type == "thead_open":
            section, header = "head", []
        elif token.type == "tbody_open":
            section = "body"
        elif token.type == "tr_open":
            row = []
        elif token.type == "inline":
            text = "".join(t.content for t in token.children or () if t.type in ("text", "code_inline"))
            if kind == "heading_open":
                heading, kind = text, ""
            elif kind in ("th_open", "td_open"):
                row.append(text)
        elif token.type == "tr_close" and section == "head":
            header = row
        elif token.type == "tr_close":
            found.setdefault(heading, []).append(dict(zip(header, row, strict=True)))
    return found


class PageText(HTMLParser):
    """The text of a page without its scripts and styles, and the tags it has."""

    def __init__(self) -> None:
        super().__init__()
        self.texts: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self._hidden = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self._hidden += tag in ("script", "style")

    def handle_endtag(self, tag: str) -> None:
        self._hidden -= tag in ("script", "style")

    def handle_data(self, data: str) -> None:
        if not self._hidden:
            self.texts.append(data)


def page_text(html: str) -> str:
    """The text a reader of a page sees."""
    page = PageText()
    page.feed(html)
    return " ".join(" ".join(page.texts).split())


def numbers(text: str) -> set[str]:
    """Every number written in a text, as it is written, without signs and thousands marks."""
    return {n.replace(",", "") for n in re.findall(r"(?<![\w.])\d[\d,]*(?:\.\d+)?(?:e[-+]?\d+)?", text)}
