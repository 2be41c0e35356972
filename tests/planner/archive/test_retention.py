"""Retention removes what is old and ended, and nothing that somebody stands on."""

from __future__ import annotations

from datetime import timedelta

from env.allocation import Allocation, StageSetting
from planner.archive import Archive
from planner.archive.retention import Retention, RetentionRuns
from planner.archive.sessions import utc_now
from planner.archive.tables import ScheduleRow, ScheduleRunRow, table_of


def ended(archive: Archive, study_id: str, status: str = "done") -> None:
    archive.studies.create(study_id, study_id, {}, 0)
    archive.studies.set_status(study_id, "running")
    archive.plans.record(study_id, "chosen", Allocation.of({"a": StageSetting("m", "vote", 1)}), {"score": 1})
    archive.events.append(study_id, "progress", {"done": 1})
    archive.events.append(study_id, "stop", {"message": "why"}, "stop")
    if status != "running":
        archive.studies.set_status(study_id, status)  # type: ignore[arg-type]


def ids(archive: Archive) -> set[str]:
    return {s.id for s in archive.studies.list()}


def test_only_old_ended_studies_go(archive: Archive) -> None:
    for study_id, status in (("done", "done"), ("failed", "failed"), ("running", "running")):
        ended(archive, study_id, status)
    runs, later = RetentionRuns(archive), utc_now() + timedelta(days=10)
    assert runs.apply(Retention(studies_days=11), now=later).studies == ()
    assert runs.apply(Retention(studies_days=9), dry_run=True, now=later).studies == ("done", "failed")
    assert ids(archive) == {"done", "failed", "running"}
    assert runs.apply(Retention(studies_days=9), now=later).studies == ("done", "failed")
    assert ids(archive) == {"running"}


def test_studies_that_names_and_schedules_stand_on_stay(archive: Archive) -> None:
    for study_id in ("named", "once-named", "incumbent", "checked", "free"):
        ended(archive, study_id)
    archive.promotions.promote("qa", "once-named")
    archive.promotions.promote("qa", "named")
    with archive.engine.begin() as connection:
        connection.execute(
            table_of(ScheduleRow)
            .insert()
            .values(
                name="nightly",
                spec={},
                cron="0 3 * * *",
                timezone="UTC",
                overlap="skip",
                missed="skip",
                keep_runs=10,
                incumbent_study="incumbent",
                created_at=utc_now(),
                paused=False,
                version=1,
                updated_at=utc_now(),
                considered_until=utc_now(),
            )
        )
        connection.execute(
            table_of(ScheduleRunRow)
            .insert()
            .values(
                id="r1",
                schedule_name="nightly",
                number=1,
                due=utc_now(),
                cause="cron",
                status="ended",
                reason="",
                cancel_requested=False,
                seed=0,
                created_at=utc_now(),
                incumbent_study="checked",
            )
        )
    removed = RetentionRuns(archive).apply(Retention(studies_days=1), now=utc_now() + timedelta(days=2))
    assert (removed.studies, removed.protected) == (("free",), 4)
    assert ids(archive) == {"named", "once-named", "incumbent", "checked"}


def test_events_that_only_repeat_go_and_why_a_search_ended_stays(archive: Archive) -> None:
    ended(archive, "done")
    ended(archive, "running", "running")
    runs, later = RetentionRuns(archive), utc_now() + timedelta(days=2)
    assert runs.apply(Retention(events_days=1), dry_run=True, now=later).events == 1
    assert runs.apply(Retention(events_days=1), now=later).events == 1
    assert [e.kind for e in archive.events.after("done", 0)] == ["stop"]
    assert [e.kind for e in archive.events.after("running", 0)] == ["progress", "stop"]


def test_one_process_an_hour_has_the_turn(archive: Archive) -> None:
    runs, now, hour = RetentionRuns(archive), utc_now(), timedelta(hours=1)
    assert runs.due(hour, now)
    assert not RetentionRuns(archive).due(hour, now + timedelta(minutes=59))
    assert runs.due(hour, now + timedelta(minutes=61))
