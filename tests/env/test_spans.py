"""Spans tell observers what is done, and never change it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from env.spans import Span, ignore, observe, span


class Watch:
    """Keeps the spans that ended, with the names of those around them."""

    def __init__(self) -> None:
        self.ended: list[Span] = []
        self.begun: list[str] = []

    @contextmanager
    def watching(self, watched: Span) -> Iterator[None]:
        self.begun.append(watched.name)
        yield
        self.ended.append(watched)


@pytest.fixture
def watch() -> Iterator[Watch]:
    watching = Watch()
    observe(watching)
    yield watching
    ignore(watching)


def test_an_observer_sees_what_is_known_at_the_end(watch: Watch) -> None:
    with span("draws", model="m") as watched:
        watched.note(draws=3)
    (seen,) = watch.ended
    assert (seen.name, seen.attributes, seen.error) == ("draws", {"model": "m", "draws": 3}, "")
    assert seen.seconds >= 0


def test_an_error_passes_and_its_kind_is_told(watch: Watch) -> None:
    with pytest.raises(ZeroDivisionError), span("trial"):
        _ = 1 / 0
    assert [s.error for s in watch.ended] == ["ZeroDivisionError"]


def test_a_cancelled_task_ends_its_span(watch: Watch) -> None:
    async def work() -> None:
        with span("call"):
            await asyncio.sleep(30)

    async def cancel() -> None:
        task = asyncio.create_task(work())
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(cancel())
    assert [s.error for s in watch.ended] == ["CancelledError"]


def test_work_that_nobody_watches_keeps_nothing() -> None:
    with span("call", model="m") as watched:
        watched.note(secret="x" * 1000)
    assert watched.attributes == {}


def test_an_observer_is_not_told_twice(watch: Watch) -> None:
    observe(watch)
    with span("call"):
        pass
    assert watch.begun == ["call"]
