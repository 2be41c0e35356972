from __future__ import annotations

from datetime import UTC, datetime, timedelta

from planner.archive import Archive


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
