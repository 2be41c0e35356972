"""Marks text as data: everything in a prompt that this program did not write stands between marks it cannot contain."""

from __future__ import annotations

import re

_UNSTORABLE = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ud800-\udfff]")
_MARKS = re.compile(r"<{3,}|>{3,}")


def clean(text: str) -> str:
    """Text without characters that SQL or UTF-8 cannot hold (control characters, lone surrogates)."""
    return _UNSTORABLE.sub("�", text)


def unmarked(text: str) -> str:
    """Text that cannot open or close a data block: runs of three and more angle brackets become a space."""
    return _MARKS.sub(" ", clean(text))


def fenced(name: str, text: str) -> str:
    """A data block of this name; the text cannot close it."""
    return f"<<<DATA {name}\n{unmarked(text)}\nDATA>>>"
