"""Finds the JSON items in an LLM's reply: behind fences and chatter, and in replies that break off or break."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass

MAX_CHARS = 200_000
MAX_STARTS = 200
MAX_ITEMS = 1000
MAX_RAW_CHARS = 500

_DECODER = json.JSONDecoder()


@dataclass(frozen=True)
class Broken:
    """An item that is not JSON."""

    raw: str
    problem: str


def find_items(reply: str, key: str, mark: str) -> list[object] | None:
    """The items of ``{key: [...]}`` in a reply, each parsed or `Broken`; None where there is nothing of the kind.

    Args:
        reply: what the LLM wrote; what lies beyond `MAX_CHARS` is not read.
        key: name of the list.
        mark: a field every item has; lets bare items and a bare list be recognised.
    """
    text = reply[:MAX_CHARS]
    values = list(_values(text))
    # Of several answers the last counts: models that think aloud write drafts first.
    for value in reversed(values):
        if isinstance(value, dict) and isinstance(value.get(key), list):
            return list(value[key][:MAX_ITEMS])
    starts = list(re.finditer(rf'"{re.escape(key)}"\s*:\s*\[', text))
    if starts:
        return list(_scan(text, starts[-1].end()))
    for value in reversed(values):
        if isinstance(value, list) and any(isinstance(item, dict) and mark in item for item in value):
            return list(value[:MAX_ITEMS])
    bare: list[object] = [value for value in values if isinstance(value, dict) and mark in value]
    return bare[:MAX_ITEMS] or None


def _values(text: str) -> Iterator[object]:
    """Every outermost JSON object or list in the text, in order; at most `MAX_STARTS` places are tried."""
    position, tries = 0, 0
    while tries < MAX_STARTS:
        start = re.compile(r"[{\[]").search(text, position)
        if start is None:
            return
        tries += 1
        value, position = _decode(text, start.start())
        if position == start.start():
            position += 1
        else:
            yield value


def _scan(text: str, position: int) -> Iterator[object]:
    """Item by item from behind an opening bracket, up to its end or to where the text breaks off."""
    for _ in range(MAX_ITEMS):
        while position < len(text) and (text[position].isspace() or text[position] == ","):
            position += 1
        if position >= len(text) or text[position] == "]":
            return
        value, end = _decode(text, position)
        if end == position:
            end, closed = _item_end(text, position)
            problem = "not valid JSON" if closed else "not valid JSON: the reply breaks off"
            value = Broken(text[position:end][:MAX_RAW_CHARS], problem)
        yield value
        position = end


def _decode(text: str, position: int) -> tuple[object, int]:
    """The JSON value there and its end; the same position where there is none."""
    try:
        value, end = _DECODER.raw_decode(text, position)
    except (ValueError, RecursionError):
        return None, position
    return value, end


def _item_end(text: str, position: int) -> tuple[int, bool]:
    """Where a broken item most likely ends (its closing brace outside strings, or the next comma), and if it does."""
    depth = 0
    quoted = False
    index = position
    while index < len(text):
        char = text[index]
        if quoted:
            if char == "\\":
                index += 1
            quoted = char != '"' and char != "\n"
        elif char == '"':
            quoted = True
        elif char in "{[":
            depth += 1
        elif char in "}]":
            depth -= 1
            if depth <= 0:
                return (index + 1 if depth == 0 else max(index, position + 1)), True
        elif char == "," and depth == 0:
            return max(index, position + 1), True
        index += 1
    return len(text), False
