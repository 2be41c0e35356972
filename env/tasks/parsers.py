"""Reads a stage's answer out of a model's text. What cannot be read is None: no answer, not an empty one."""

from __future__ import annotations

import json
import re
from collections import deque
from collections.abc import Callable
from typing import assert_never

from env.spec.stage import AfterParser, IdsParser, JsonParser, ParserSpec, RegexParser, TextParser
from env.tasks.example import JsonValue

MAX_TEXT = 200_000
"""Characters of an output a parser looks at."""

Parser = Callable[[str], JsonValue]


def parser_of(spec: ParserSpec) -> Parser:
    """The function a parser spec describes: text in, answer or None out."""
    match spec:
        case TextParser():
            return _text
        case AfterParser():
            return lambda text: _after(text, spec.marker, spec.join)
        case IdsParser():
            pattern = re.compile(re.escape(spec.prefix) + r"(\d{1,9})(?!\d)")
            return lambda text: _ids(text, pattern)
        case RegexParser():
            compiled = re.compile(spec.pattern)
            return lambda text: _last_match(text, compiled)
        case JsonParser():
            return lambda text: _json(text, spec.field)
        case _:  # pragma: no cover
            assert_never(spec)


def canonical(answer: JsonValue) -> str | None:
    """One string per answer, so that equal answers count as the same vote; None stays None."""
    if answer is None:
        return None
    return json.dumps(answer, sort_keys=True, ensure_ascii=False, separators=(",", ":"))


def from_canonical(text: str | None) -> JsonValue:
    """The answer behind its canonical form."""
    if text is None:
        return None
    value: JsonValue = json.loads(text)
    return value


def _text(text: str) -> JsonValue:
    return " ".join(text[:MAX_TEXT].split()) or None


def _after(text: str, marker: str, join: bool) -> JsonValue:
    _, found, tail = text[:MAX_TEXT].rpartition(marker)
    if not found:
        return None
    return ("" if join else " ").join(tail.split()) or None


def _ids(text: str, pattern: re.Pattern[str]) -> JsonValue:
    ids: list[JsonValue] = []
    ids.extend(sorted({int(match) for match in pattern.findall(text[:MAX_TEXT])}))
    return ids or None


def _last_match(text: str, pattern: re.Pattern[str]) -> JsonValue:
    matches = deque(pattern.finditer(text[:MAX_TEXT]), maxlen=1)
    if not matches:
        return None
    last = matches[0]
    return (last.group(1) if pattern.groups else last.group(0)) or None


def _json(text: str, field: str | None) -> JsonValue:
    decoder = json.JSONDecoder()
    text = text[:MAX_TEXT]
    for start in (m.start() for m in re.finditer(r"[\[{]", text)):
        try:
            value, _ = decoder.raw_decode(text, start)
        except ValueError:
            continue
        if field is None:
            return value  # type: ignore[no-any-return]
        if isinstance(value, dict) and field in value:
            return value[field]  # type: ignore[no-any-return]
    return None
