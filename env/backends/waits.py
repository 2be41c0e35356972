"""Time in which a call cannot reach its model's server: loads, and turns of other models. No part of inference.

Whoever times calls opens `measured_waits`; a backend that had to wait says so with `waited`, however deep below other
backends it is asked. Calls side by side are told apart, since every task carries its own context.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field

Span = tuple[float, float]
"""Begin and end on `time.monotonic`, in seconds."""


@dataclass
class Waits:
    """What calls waited for."""

    load_seconds: float = 0.0
    """Of starts, wakes and restarts of servers that these calls caused."""

    spans: list[Span] = field(default_factory=list)
    """Every wait, for turns of other models too."""


_measured: ContextVar[Waits | None] = ContextVar("waits", default=None)


@contextmanager
def measured_waits() -> Iterator[Waits]:
    """Collect what the calls made within the block wait for."""
    waits = Waits()
    token = _measured.set(waits)
    try:
        yield waits
    finally:
        _measured.reset(token)


def waited(since: float, load_seconds: float) -> None:
    """Say that a wait which began at ``since`` ends now, and how much of it was for loads."""
    waits = _measured.get()
    if waits is not None:
        waits.spans.append((since, time.monotonic()))
        waits.load_seconds += load_seconds


def covered(spans: list[Span]) -> float:
    """Seconds in which at least one of the spans lies."""
    total, end = 0.0, float("-inf")
    for begin, stop in sorted(spans):
        total += max(0.0, stop - max(begin, end))
        end = max(end, stop)
    return total


def without(span: Span, holes: list[Span]) -> list[Span]:
    """What is left of a span where holes are cut out."""
    left: list[Span] = []
    begin = span[0]
    for start, stop in sorted(holes):
        if start > begin:
            left.append((begin, min(start, span[1])))
        begin = max(begin, stop)
        if begin >= span[1]:
            return left
    return [*left, (begin, span[1])]
