"""Waits for servers: kept apart from inference, per call, however calls overlap."""

from __future__ import annotations

import asyncio
import time

import pytest
from hypothesis import given
from hypothesis import strategies as some

from env.backends.waits import covered, measured_waits, waited, without

SPANS = some.lists(
    some.tuples(some.integers(0, 30), some.integers(0, 12)).map(lambda s: (s[0], s[0] + s[1])), max_size=6
)


def ticks(spans: list[tuple[float, float]]) -> set[int]:
    return {tick for begin, end in spans for tick in range(int(begin), int(end))}


@given(SPANS)
def test_covered_time_is_that_of_a_clock_ticked_through(spans: list[tuple[float, float]]) -> None:
    assert covered(spans) == len(ticks(spans))


@given(some.integers(0, 20), some.integers(0, 20), SPANS)
def test_what_is_left_of_a_span_is_what_no_hole_covers(
    begin: int, length: int, holes: list[tuple[float, float]]
) -> None:
    span = (begin, begin + length)
    left = without(span, holes)
    assert ticks(left) == ticks([span]) - ticks(holes)
    assert covered(left) == sum(stop - start for start, stop in left), "parts do not overlap"


@pytest.mark.asyncio
async def test_calls_side_by_side_are_told_apart() -> None:
    async def call(load: float) -> float:
        with measured_waits() as waits:
            for _ in range(3):
                since = time.monotonic()
                await asyncio.sleep(0)
                waited(since, load)
            return waits.load_seconds

    assert await asyncio.gather(*(call(load) for load in (1.0, 2.0, 4.0))) == [3.0, 6.0, 12.0]
    waited(time.monotonic(), 1.0)  # nobody measures: nothing to tell
