from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest

from planner.archive import Archive, ArchiveError, NotFound


def test_a_worker_that_stays_silent_is_dead_and_one_that_beats_is_not(archive: Archive) -> None:
    archive.workers.beat("w1", "host", 11)
    archive.workers.beat("w2", "host", 12)
    now = datetime.now(UTC)
    assert archive.workers.dead(5, now) == []
    assert [w.executor_id for w in archive.workers.dead(5, now + timedelta(seconds=10))] == ["w1", "w2"]
    archive.workers.beat("w1", "host", 11)
    first = archive.workers.list()[0]
    assert first.last_beat > first.started_at
    assert [w.executor_id for w in archive.workers.dead(0, first.last_beat)] == ["w2"]


def test_a_worker_started_again_elsewhere_is_a_new_start(archive: Archive) -> None:
    archive.workers.beat("w1", "host", 11)
    before = archive.workers.list()[0]
    archive.workers.beat("w1", "host", 99)
    after = archive.workers.list()[0]
    assert after.pid == 99
    assert after.started_at > before.started_at


def test_of_two_that_strike_a_worker_off_one_is_told_so(archive: Archive) -> None:
    archive.workers.beat("w1", "host", 11)
    assert archive.workers.remove("w1")
    assert not archive.workers.remove("w1")


def test_putting_a_schedule_again_changes_it_and_keeps_its_history(archive: Archive) -> None:
    made = archive.schedules.put("nightly", {"a": 1}, "0 3 * * *", "Europe/Berlin")
    assert (made.paused, made.last_fired_at) == (False, None)
    archive.schedules.set_paused("nightly", True)
    fired = datetime(2026, 3, 1, 3, tzinfo=timezone(timedelta(hours=1)))
    archive.schedules.mark_fired("nightly", fired)
    changed = archive.schedules.put("nightly", {"a": 2}, "0 4 * * *", "UTC")
    assert changed == archive.schedules.get("nightly")
    assert (changed.spec, changed.cron, changed.timezone) == ({"a": 2}, "0 4 * * *", "UTC")
    assert (changed.created_at, changed.paused, changed.last_fired_at) == (made.created_at, True, fired)


def test_a_late_report_does_not_turn_the_last_firing_back(archive: Archive) -> None:
    archive.schedules.put("nightly", {}, "0 3 * * *", "UTC")
    later = datetime(2026, 3, 2, tzinfo=UTC)
    archive.schedules.mark_fired("nightly", later)
    assert archive.schedules.mark_fired("nightly", later - timedelta(days=1)).last_fired_at == later


def test_a_time_without_a_zone_is_refused(archive: Archive) -> None:
    archive.schedules.put("nightly", {}, "0 3 * * *", "UTC")
    with pytest.raises(ArchiveError, match="time zone"):
        archive.schedules.mark_fired("nightly", datetime(2026, 3, 2))  # noqa: DTZ001


def test_schedules_are_listed_and_deleted_by_name(archive: Archive) -> None:
    for name in ("b", "a"):
        archive.schedules.put(name, {}, "* * * * *", "UTC")
    assert [s.name for s in archive.schedules.list()] == ["a", "b"]
    assert archive.schedules.delete("a")
    assert not archive.schedules.delete("a")
    with pytest.raises(NotFound, match="'a'"):
        archive.schedules.get("a")
    with pytest.raises(NotFound, match="'a'"):
        archive.schedules.set_paused("a", True)
