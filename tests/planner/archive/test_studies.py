from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import product

import pytest

from planner.archive import Archive, ArchiveError, NotFound, StatusConflict, StudyStatus
from planner.archive.statuses import STATUSES, TERMINAL, may_follow

WAY_TO: dict[StudyStatus, list[StudyStatus]] = {
    "queued": [],
    "running": ["running"],
    "paused": ["paused"],
    "done": ["running", "done"],
    "failed": ["failed"],
    "cancelled": ["cancelled"],
}


def test_a_new_study_is_queued_and_keeps_its_specification_in_order(archive: Archive) -> None:
    spec = {"version": 1, "name": "añb", "pipeline": {"z": [1, 2.5, None], "a": "nul \0 and \ud800"}}
    made = archive.studies.create("id-1", "añb", spec, seed=7, schedule_name="nightly")
    assert (made.id, made.name, made.status, made.seed, made.schedule_name) == ("id-1", "añb", "queued", 7, "nightly")
    assert made.spec == spec
    assert list(made.spec["pipeline"]) == ["z", "a"]
    assert made == archive.studies.get("id-1")


def test_times_are_aware_and_in_utc(archive: Archive, study: str) -> None:
    archive.studies.set_status(study, "running")
    read = archive.studies.get(study)
    for moment in (read.created_at, read.started_at):
        assert moment is not None
        assert moment.tzinfo is UTC
        assert abs(datetime.now(UTC) - moment) < timedelta(minutes=1)


def test_the_same_idempotency_key_gives_the_study_that_has_it(archive: Archive) -> None:
    first = archive.studies.create("id-1", "a", {}, seed=0, idempotency_key="request-1")
    again = archive.studies.create("id-2", "b", {"other": 1}, seed=1, idempotency_key="request-1")
    assert again == first
    assert len(archive.studies.list()) == 1


def test_the_same_id_gives_the_study_that_has_it(archive: Archive) -> None:
    first = archive.studies.create("id-1", "a", {}, seed=0)
    assert archive.studies.create("id-1", "b", {"other": 1}, seed=1) == first


def test_a_study_is_found_by_id_by_name_and_by_the_start_of_its_id(archive: Archive) -> None:
    for id, name in (("abc-1", "math"), ("abd-2", "math"), ("abd-2-long", "code")):
        archive.studies.create(id, name, {}, seed=0)
    assert archive.studies.find("abd-2").id == "abd-2"
    assert archive.studies.find("math").id == "abd-2"
    assert archive.studies.find("abc").id == "abc-1"


def test_an_ambiguous_start_lists_what_it_fits(archive: Archive) -> None:
    archive.studies.create("abc-1", "math", {}, seed=0)
    archive.studies.create("abd-2", "code", {}, seed=0)
    with pytest.raises(ArchiveError, match=r"abd-2 \(code\), abc-1 \(math\)"):
        archive.studies.find("ab")


@pytest.mark.parametrize("text", ["nothing", "", "%", "_bc"])
def test_what_nothing_matches_is_not_found(archive: Archive, text: str) -> None:
    archive.studies.create("abc-1", "math", {}, seed=0)
    with pytest.raises(NotFound):
        archive.studies.find(text)


def test_studies_are_listed_newest_first_page_by_page(archive: Archive) -> None:
    for number in range(5):
        archive.studies.create(f"id-{number}", f"Name {number}", {}, seed=0)
    first = archive.studies.list(limit=3)
    rest = archive.studies.list(limit=3, before=first[-1].id)
    assert [s.id for s in first] == ["id-4", "id-3", "id-2"]
    assert [s.id for s in rest] == ["id-1", "id-0"]


def test_studies_are_listed_by_status_and_part_of_the_name(archive: Archive) -> None:
    for id, name in (("a", "Grade school"), ("b", "grade_book"), ("c", "code")):
        archive.studies.create(id, name, {}, seed=0)
    archive.studies.set_status("b", "running")
    assert [s.id for s in archive.studies.list(name_contains="GRADE")] == ["b", "a"]
    assert [s.id for s in archive.studies.list(name_contains="e_b")] == ["b"]
    assert [s.id for s in archive.studies.list(status="queued")] == ["c", "a"]


@pytest.mark.parametrize("before", STATUSES)
def test_only_the_stated_moves_between_statuses_are_taken(archive: Archive, before: StudyStatus) -> None:
    for after in STATUSES:
        id = archive.studies.create(f"{before}-{after}", "a", {}, seed=0).id
        for status in WAY_TO[before]:
            archive.studies.set_status(id, status)
        if may_follow(before, after):
            assert archive.studies.set_status(id, after).status == after
            continue
        with pytest.raises(StatusConflict, match=f"is {before} and cannot become {after}"):
            archive.studies.set_status(id, after)
        assert archive.studies.get(id).status == before


def test_final_statuses_are_final() -> None:
    assert not [(b, a) for b, a in product(TERMINAL, STATUSES) if b != a and may_follow(b, a)]


def test_a_failed_study_says_why_and_when(archive: Archive, study: str) -> None:
    archive.studies.set_status(study, "running")
    archive.studies.set_status(study, "failed", error="the model server died\0")
    again = archive.studies.set_status(study, "failed", error="something else")
    assert again.error == "the model server died\0"
    assert again.finished_at is not None


def test_a_resumed_study_keeps_its_first_start(archive: Archive, study: str) -> None:
    started = archive.studies.set_status(study, "running").started_at
    archive.studies.set_status(study, "paused")
    assert archive.studies.set_status(study, "running").started_at == started


def test_progress_proposer_and_cancellation_are_kept(archive: Archive, study: str) -> None:
    archive.studies.set_progress(study, "execute", 3)
    archive.studies.set_proposer(study, "insight")
    assert not archive.studies.cancel_requested(study)
    archive.studies.request_cancel(study)
    read = archive.studies.get(study)
    assert (read.phase, read.round, read.proposer) == ("execute", 3, "insight")
    assert archive.studies.cancel_requested(study)


def test_a_study_that_is_not_there_is_named(archive: Archive) -> None:
    with pytest.raises(NotFound, match="'gone'"):
        archive.studies.get("gone")
    with pytest.raises(NotFound, match="'gone'"):
        archive.studies.set_progress("gone", "execute", 1)
    with pytest.raises(NotFound, match="'gone'"):
        archive.studies.set_status("gone", "running")
