"""What becomes due at a moment, by a clock that the tests hold."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from planner.archive import Advance, RunRecord, SchedulePlan, ScheduleRecord
from planner.schedules.policy import GRACE, MOST_WAITING, Look, decide

NOON = datetime(2026, 5, 4, 12, tzinfo=UTC)
HOURLY = SchedulePlan({}, cron="0 * * * *")


def schedule(plan: SchedulePlan = HOURLY, settled: datetime = NOON, **more: Any) -> ScheduleRecord:
    held = ScheduleRecord("s", plan, 1, NOON, NOON, False, None, settled, None)
    return replace(held, **more)


def under_way(*numbers: int) -> list[RunRecord]:
    never: Any = (None,) * 7
    return [
        RunRecord(f"r{n}", "s", n, NOON, "cron", "running", None, "", False, 1, NOON, NOON, *never) for n in numbers
    ]


def at(minutes: float, since: datetime = NOON) -> Look:
    return Look(NOON + timedelta(minutes=minutes), since)


def outcomes(advance: Advance | None) -> list[tuple[str | None, int]]:
    """Of each run entered: its outcome, and its minute after noon."""
    runs: Sequence[Any] = () if advance is None else advance.runs
    return [(run.outcome, round((run.due - NOON).total_seconds() / 60)) for run in runs]


def test_nothing_is_due_before_its_time_and_one_run_at_it() -> None:
    assert decide(schedule(), [], at(59.9)) is None
    found = decide(schedule(), [], at(60))
    assert outcomes(found) == [(None, 60)]
    assert found is not None
    assert found.considered_until == found.fired_at == NOON + timedelta(hours=1)
    assert decide(schedule(settled=found.considered_until), [], at(60)) is None


def test_a_paused_schedule_has_nothing_due() -> None:
    assert decide(schedule(paused=True), [], at(600)) is None


@pytest.mark.parametrize(
    ("missed", "expected"), [("skip", [("missed", 180)]), ("latest", [("missed", 120), (None, 180)])]
)
def test_a_service_that_was_down_over_three_firings_does_as_the_policy_says(
    missed: Any, expected: list[tuple[str | None, int]]
) -> None:
    back = NOON + timedelta(minutes=200)
    found = decide(schedule(replace(HOURLY, missed=missed)), [], Look(back, since=back))
    assert outcomes(found) == expected
    assert found is not None
    assert found.considered_until == NOON + timedelta(minutes=180)
    assert found.runs[0].reason.startswith("3 firings" if missed == "skip" else "2 firings")
    if missed == "latest":
        assert found.runs[1].reason.startswith("late")


def test_what_was_due_just_before_a_start_was_missed_and_just_after_was_not() -> None:
    start = NOON + timedelta(minutes=60, seconds=1)
    assert outcomes(decide(schedule(), [], Look(start, since=start))) == [("missed", 60)]
    earlier = NOON + timedelta(minutes=59)
    assert outcomes(decide(schedule(), [], Look(start, since=earlier))) == [(None, 60)]


def test_a_machine_that_slept_over_a_firing_missed_it() -> None:
    late = at(60 + GRACE.total_seconds() / 60 + 0.1)
    assert outcomes(decide(schedule(), [], late)) == [("missed", 60)]


def test_a_single_moment_fires_once() -> None:
    once = SchedulePlan({}, at=NOON + timedelta(minutes=5))
    found = decide(schedule(once), [], at(5))
    assert outcomes(found) == [(None, 5)]
    assert found is not None
    assert decide(schedule(once, settled=found.considered_until), [], at(6)) is None
    back = at(500, since=NOON + timedelta(minutes=500))
    assert outcomes(decide(schedule(once), [], back)) == [("missed", 5)]
    assert outcomes(decide(schedule(replace(once, missed="latest")), [], back)) == [(None, 5)]


def test_overlap_skips_queues_or_cancels() -> None:
    runs = under_way(3, 4)
    skipped = decide(schedule(), runs, at(60))
    assert outcomes(skipped) == [("skipped", 60)]
    assert skipped is not None
    assert "run 3 was still under way" in skipped.runs[0].reason
    queued = decide(schedule(replace(HOURLY, overlap="queue")), runs, at(60))
    assert outcomes(queued) == [(None, 60)]
    assert queued is not None
    assert queued.cancel == ()
    cancelled = decide(schedule(replace(HOURLY, overlap="cancel")), runs, at(60))
    assert outcomes(cancelled) == [(None, 60)]
    assert cancelled is not None
    assert cancelled.cancel == ["r3", "r4"]


def test_a_queue_does_not_grow_without_end() -> None:
    runs = under_way(*range(1, MOST_WAITING + 2))
    assert outcomes(decide(schedule(replace(HOURLY, overlap="queue")), runs, at(60))) == [("skipped", 60)]


def test_the_first_look_at_data_only_remembers_and_a_change_fires() -> None:
    plan = SchedulePlan({}, on_change=("data",))
    before, now = {"data": "a", "models": {"m": "1"}}, {"data": "b", "models": {"m": "2"}}
    first = decide(schedule(plan), [], at(1), before)
    assert first is not None
    assert (first.runs, first.observed) == ((), before)
    assert decide(schedule(plan, observed=before), [], at(1), before) is None
    found = decide(schedule(plan, observed=before), [], at(1), now)
    assert found is not None
    assert [(run.cause, run.reason) for run in found.runs] == [("change", "the data changed")]
    models = decide(schedule(replace(plan, on_change=("models",)), observed=before), [], at(1), now)
    assert models is not None
    assert models.runs[0].reason == "candidate m has another revision"


def test_a_change_during_a_run_is_taken_up_when_it_has_ended() -> None:
    held = schedule(SchedulePlan({}, on_change=("data",)), observed={"data": "a"})
    assert decide(held, under_way(1), at(1), {"data": "b"}) is None
    assert outcomes(decide(held, [], at(2), {"data": "b"})) == [(None, 2)]
