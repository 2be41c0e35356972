"""Schedules, their runs and alerts in the archive, on both databases."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone

import pytest

from planner.archive import (
    Advance,
    AlertTarget,
    Archive,
    ArchiveError,
    NewRun,
    NotFound,
    RunRecord,
    SchedulePlan,
    ScheduleRecord,
    StatusConflict,
)

NIGHTLY = SchedulePlan({"name": "s"}, cron="0 3 * * *", timezone="Europe/Berlin")
NOON = datetime(2099, 3, 1, 12, tzinfo=UTC)


def entered(archive: Archive, count: int = 1, name: str = "nightly") -> list[RunRecord]:
    """Runs that wait."""
    runs = [NewRun(NOON + timedelta(hours=n), "cron") for n in range(count)]
    return list(archive.schedules.advance(name, lambda *_: Advance(runs[-1].due, runs, fired_at=runs[-1].due)))


@pytest.fixture
def nightly(archive: Archive) -> ScheduleRecord:
    return archive.schedules.create("nightly", NIGHTLY)


def test_a_schedule_comes_back_as_it_was_entered(archive: Archive) -> None:
    zoned = datetime(2099, 1, 2, 3, tzinfo=timezone(timedelta(hours=2)))
    plan = SchedulePlan(
        {"b": [1], "a": {}},
        at=zoned,
        overlap="queue",
        missed="latest",
        keep_runs=7,
        alert=AlertTarget("https://a.example/x", "KEY", "always"),
        incumbent_study="s1",
        baseline={"data": "d"},
    )
    made = archive.schedules.create("once", plan)
    assert made.plan == plan
    assert made == archive.schedules.get("once")
    assert list(made.plan.spec) == ["b", "a"]
    watching = replace(NIGHTLY, cron=None, on_change=("models", "data"))
    assert archive.schedules.create("watching", watching).plan == watching
    listed = archive.schedules.list(specs=False)
    assert [(s.name, s.plan.spec) for s in listed] == [("once", {}), ("watching", {})]


def test_entering_a_schedule_again_changes_nothing_and_another_is_refused(
    archive: Archive, nightly: ScheduleRecord
) -> None:
    archive.schedules.set_incumbent("nightly", "s1", {"data": "d"})
    assert archive.schedules.create("nightly", NIGHTLY).created_at == nightly.created_at
    with pytest.raises(StatusConflict, match="another schedule 'nightly'"):
        archive.schedules.create("nightly", replace(NIGHTLY, cron="0 4 * * *"))


def test_an_edit_counts_the_version_and_keeps_runs_pause_and_last_firing(
    archive: Archive, nightly: ScheduleRecord
) -> None:
    (run,) = entered(archive)
    archive.schedules.set_paused("nightly", True)
    changed = archive.schedules.change("nightly", replace(NIGHTLY, cron="0 4 * * *"), nightly.version)
    assert (changed.version, changed.plan.cron, changed.paused) == (2, "0 4 * * *", True)
    assert (changed.created_at, changed.last_fired_at) == (nightly.created_at, run.due)
    assert archive.schedule_runs.list("nightly") == [run]
    with pytest.raises(StatusConflict, match="changed since"):
        archive.schedules.change("nightly", NIGHTLY, nightly.version)
    assert archive.schedules.change("nightly", NIGHTLY).version == 3


def test_another_spec_forgets_what_was_observed_of_the_old_one(archive: Archive) -> None:
    plan = SchedulePlan({"name": "s"}, on_change=("data",))
    archive.schedules.create("watching", plan)
    archive.schedules.advance("watching", lambda *_: Advance(NOON, observed={"data": "d"}))
    assert archive.schedules.change("watching", replace(plan, overlap="queue")).observed == {"data": "d"}
    assert archive.schedules.change("watching", replace(plan, spec={"name": "t"})).observed is None


def test_of_many_that_look_at_once_one_enters_what_is_due(archive: Archive, nightly: ScheduleRecord) -> None:
    def decide(schedule: ScheduleRecord, unfinished: Sequence[RunRecord]) -> Advance | None:
        return None if schedule.considered_until >= NOON else Advance(NOON, [NewRun(NOON, "cron")])

    with ThreadPoolExecutor(6) as threads:
        found = list(threads.map(lambda _: archive.schedules.advance("nightly", decide), range(6)))
    assert sorted(len(runs) for runs in found) == [0, 0, 0, 0, 0, 1]
    assert len(archive.schedule_runs.list("nightly")) == 1


def test_a_firing_never_turns_the_clock_back(archive: Archive, nightly: ScheduleRecord) -> None:
    entered(archive)
    archive.schedules.advance("nightly", lambda *_: Advance(NOON - timedelta(days=1)))
    assert archive.schedules.get("nightly").considered_until == NOON


def test_pausing_and_resuming_leaves_out_what_was_due_meanwhile(archive: Archive, nightly: ScheduleRecord) -> None:
    archive.schedules.set_paused("nightly", True)
    assert archive.schedules.set_paused("nightly", False).considered_until > nightly.considered_until


def test_runs_are_paged_by_number_and_carry_seeds_of_their_own(archive: Archive, nightly: ScheduleRecord) -> None:
    runs = entered(archive, 5)
    assert [run.number for run in archive.schedule_runs.list("nightly", 2)] == [5, 4]
    assert [run.number for run in archive.schedule_runs.list("nightly", 2, before=4)] == [3, 2]
    assert len({run.seed for run in runs}) == 5
    assert [run.id for run in archive.schedule_runs.unfinished()] == [run.id for run in runs]


def test_a_run_goes_its_way_once_whoever_repeats_a_step(archive: Archive, nightly: ScheduleRecord) -> None:
    (run,) = entered(archive)
    started = archive.schedule_runs.start(run.id, {"data": "d"}, "s1", 7)
    assert archive.schedule_runs.start(run.id, {"data": "e"}, "s2", 8) == started
    waiting = archive.schedule_runs.searching(run.id, "s9", "moved", {"draws": 3})
    assert (waiting.status, waiting.new_study, waiting.check) == ("searching", "s9", {"draws": 3})
    ended = archive.schedule_runs.end(run.id, "searched", "found", diff={"plan": 1})
    assert (ended.outcome, ended.check, ended.diff) == ("searched", {"draws": 3}, {"plan": 1})
    assert archive.schedule_runs.end(run.id, "failed", "late") == ended
    assert not archive.schedule_runs.request_cancel(run.id).cancel_requested


def test_a_schedule_keeps_its_newest_runs_and_every_unfinished_one(archive: Archive) -> None:
    archive.schedules.create("nightly", replace(NIGHTLY, keep_runs=2))
    runs = entered(archive, 5)
    for run in runs[1:]:
        archive.alerts.enter(run, AlertTarget("https://a.example", "KEY"), "{}")
        archive.schedule_runs.end(run.id, "revalidated", "still good")
    assert [run.number for run in archive.schedule_runs.list("nightly")] == [5, 4, 1]
    assert [alert.run_id for alert in archive.alerts.list("nightly")] == [runs[4].id, runs[3].id]


def test_runs_and_alerts_go_with_their_schedule(archive: Archive, nightly: ScheduleRecord) -> None:
    (run,) = entered(archive)
    archive.alerts.enter(run, AlertTarget("https://a.example", "KEY"), "{}")
    assert archive.schedules.delete("nightly")
    assert not archive.schedules.delete("nightly")
    assert archive.alerts.list("nightly") == []
    assert archive.schedule_runs.cancel_requested(run.id)
    with pytest.raises(NotFound):
        archive.schedule_runs.get(run.id)
    assert archive.schedules.advance("nightly", lambda *_: Advance(NOON)) == []


def test_an_alert_keeps_each_attempt_once(archive: Archive, nightly: ScheduleRecord) -> None:
    (run,) = entered(archive)
    made = archive.alerts.enter(run, AlertTarget("https://a.example", "KEY"), '{"a":1}')
    assert archive.alerts.enter(run, AlertTarget("https://b.example", "OTHER"), "{}") == made
    assert archive.alerts.pending() == [run.id]
    for attempt in ({"number": 1, "status": None}, {"number": 1, "status": 503}, {"number": 2, "status": 200}):
        status = "delivered" if attempt["status"] == 200 else "pending"
        archive.alerts.attempted(run.id, attempt, status)  # type: ignore[arg-type]
    held = archive.alerts.get(run.id)
    assert [attempt["status"] for attempt in held.attempts] == [503, 200]
    assert held.status == "delivered"
    assert held.ended_at is not None
    assert archive.alerts.pending() == []


def test_a_time_without_a_zone_is_refused(archive: Archive) -> None:
    with pytest.raises(ArchiveError, match="time zone"):
        archive.schedules.create("once", SchedulePlan({}, at=datetime(2099, 3, 2)))  # noqa: DTZ001


def test_a_schedule_that_is_not_there_is_named(archive: Archive) -> None:
    for call in (archive.schedules.get, lambda name: archive.schedules.set_paused(name, True)):
        with pytest.raises(NotFound, match="'a'"):
            call("a")
