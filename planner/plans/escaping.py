"""Makes any text safe inside Markdown: it shows as it is, and is never a link, an image, HTML or another block.

Model names, reasons, guidelines and replies come from users, data sets and LLMs. Rules are CommonMark's, and those of
GitHub's extensions: tables, bare links, mentions, mathematics.
"""

from __future__ import annotations

import re
import unicodedata

_SPECIAL = re.compile(r"([\\`*_\[\]<>|~$#&])")
_LEADING = re.compile(r"^([-+=])(?![\d.])")
_NUMBERED = re.compile(r"^(\d{1,9})([.)])(?=\s|$)")
_LINKED = re.compile(r"://|(?i:www)\.|(?i:mailto|xmpp):|@")
"""What is in words that some renderer makes a link or a mention of."""

_BIDI = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
_REPLACEMENT = "\ufffd"


def plain_line(text: str) -> str:
    """One line of printable text: white space of any kind is one space, control characters are U+FFFD."""
    spaced = " ".join(text.split())
    return "".join(_REPLACEMENT if _is_control(c) else c for c in spaced)


def prose(text: str) -> str:
    """A text as part of a paragraph, list item or table cell; what looks like an address becomes code.

    Args:
        text: any.
    """
    words = plain_line(text).split(" ")
    joined = " ".join(code(word) if _LINKED.search(word) else _escaped(word) for word in words)
    joined = _LEADING.sub(r"\\\1", joined)
    return _NUMBERED.sub(r"\1\\\2", joined)


def code(text: str) -> str:
    """A text as a code span, whatever backticks and bars it holds; empty where the text is."""
    line = plain_line(text)
    if not line:
        return ""
    longest = max((len(run) for run in re.findall(r"`+", line)), default=0)
    fence = "`" * (longest + 1)
    pad = " " if line[0] == "`" or line[-1] == "`" else ""
    # Table cells end at a bar even inside code; a backslash before it is taken away again.
    return f"{fence}{pad}{line}{pad}{fence}"


def table(header: list[str], rows: list[list[str]], numbers: set[int] | None = None) -> str:
    """A table of cells that are escaped already.

    Args:
        header: titles, plain words of our own.
        rows: cells of each row.
        numbers: columns set to the right.
    """
    right = numbers or set()
    rule = ["---:" if i in right else "---" for i in range(len(header))]
    lines = [header, rule, *([_cell(c) for c in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _cell(text: str) -> str:
    """Bars that are not escaped yet are those inside code."""
    return re.sub(r"(?<!\\)\|", r"\\|", text)


def _escaped(text: str) -> str:
    return _SPECIAL.sub(r"\\\1", text)


def _is_control(character: str) -> bool:
    return unicodedata.category(character) in ("Cc", "Cs") or character in _BIDI or character in "\ufffe\uffff"
