from __future__ import annotations

import random

import pytest

from env.execution import Environment, Progress
from env.execution.progress import MARKS
from tests.env.execution.test_environment import EXAMPLES, SPEC, allocation
from tests.simulated import DiceBackends


def at(speeds: list[float], total: int = 10_000, step: float = 2.0) -> Progress:
    """The event after stretches of equal length with these speeds (requests a second)."""
    marks, done = [(0.0, 0)], 0.0
    for number, speed in enumerate(speeds, 1):
        done += speed * step
        marks.append((number * step, round(done)))
    return Progress("solve", "s", round(done), total, 4 * round(done), marks[-1][0], tuple(marks[-MARKS:]))


def test_a_steady_batch_states_its_rate_and_what_is_left() -> None:
    event = at([50.0] * 10)
    assert event.rate == pytest.approx(50)
    assert event.draw_rate == pytest.approx(200)
    assert event.remaining_seconds == pytest.approx((10_000 - 1000) / 50)


@pytest.mark.parametrize("odd", [0.0, 5.0, 5000.0])
def test_stalls_and_bursts_of_a_few_stretches_do_not_move_the_estimate(odd: float) -> None:
    rng = random.Random(1)
    speeds = [50.0 + rng.uniform(-5, 5) for _ in range(MARKS)]
    for place in (3, 4, 8, 11, 12):
        speeds[place] = odd
    assert at(speeds, 10**6).rate == pytest.approx(50, abs=6)


def test_the_recent_past_counts_not_the_start() -> None:
    assert at([1.0] * 40 + [80.0] * (2 * MARKS)).rate == pytest.approx(80)


def test_answers_in_rare_chunks_count_by_their_mean() -> None:
    assert at([0, 0, 0, 100, 0, 0, 0, 100]).rate == pytest.approx(25)


def test_nothing_is_estimated_before_anything_is_known_and_nothing_is_left_at_the_end() -> None:
    begun = Progress("solve", "s", 0, 10, 0, 0.0)
    assert (begun.rate, begun.draw_rate, begun.remaining_seconds) == (0, 0, None)
    assert at([0.0] * 5).remaining_seconds is None
    assert at([50.0] * 10, total=1000).remaining_seconds == 0


@pytest.mark.asyncio
async def test_a_batch_ends_with_an_event_that_has_nothing_left() -> None:
    from env.bank import MemorySampleBank

    events: list[Progress] = []
    environment = Environment(SPEC.pipeline, "flops", MemorySampleBank(), DiceBackends(), SPEC.seed)
    await environment.run_batch([allocation(2, 2, 4)], EXAMPLES, "", events.append)
    assert events[-1].remaining_seconds == 0
    assert all(event.marks[0] == (0.0, 0) and event.marks[-1] == (event.seconds, event.done) for event in events)
