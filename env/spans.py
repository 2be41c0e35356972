"""Tells whoever listens what is being done and for how long: study, trial, stage, draws, call.

Nobody listens by default, and a span then costs less than a microsecond. The service installs observers that make
traces and metrics of it; this package knows neither.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Protocol

Value = str | int | float | bool | Sequence[str] | Sequence[int]


@dataclass
class Span:
    """One piece of work while it is done."""

    name: str
    """``study``, ``trial``, ``stage``, ``draws``, ``call`` or ``llm``."""

    attributes: dict[str, Value] = field(default_factory=dict)
    error: str = ""
    """The kind of the exception that ended it; empty where none did."""

    seconds: float = 0.0
    """How long it took; known once it has ended."""

    def note(self, **attributes: Value) -> None:
        """Add what became known on the way."""
        self.attributes.update(attributes)


class Observer(Protocol):
    """Watches spans."""

    def watching(self, span: Span) -> AbstractContextManager[None]:
        """A block that is entered when the span begins and left, always without an exception, when it has ended.

        It runs in the task or thread that does the work, inside the blocks of the spans around it.
        """
        ...


class _Ignored(Span):
    """The span of work that nobody watches; shared by all of it, so it keeps nothing."""

    def note(self, **attributes: Value) -> None: ...


_observers: list[Observer] = []
_NOBODY: AbstractContextManager[Span] = nullcontext(_Ignored(""))


def observe(observer: Observer) -> None:
    """Let an observer watch all spans that begin from now on in this process."""
    if observer not in _observers:
        _observers.append(observer)


def ignore(observer: Observer) -> None:
    """End an observer's watch; one that does not watch is left alone."""
    if observer in _observers:
        _observers.remove(observer)


def span(kind: str, /, **attributes: Value) -> AbstractContextManager[Span]:
    """A block of work that observers are told of.

    Args:
        kind: see `Span.name`.
        attributes: what is known at the beginning.
    """
    return _watched(Span(kind, attributes)) if _observers else _NOBODY


@contextmanager
def _watched(watched: Span) -> Iterator[Span]:
    with ExitStack() as stack:
        for observer in tuple(_observers):
            stack.enter_context(observer.watching(watched))
        started = time.monotonic()
        try:
            yield watched
        except BaseException as error:
            watched.error = type(error).__name__
            # Left while the exception is not yet known to the observers' blocks: watching must never change the work.
            watched.seconds = time.monotonic() - started
            stack.close()
            raise
        watched.seconds = time.monotonic() - started
