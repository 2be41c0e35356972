"""Lists by key rather than by offset: stable while rows come and go."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from planner.archive import Archive, Changed, NotFound, StatusConflict, StudyFilter
from planner.archive.pipelines import pipeline_digest
from tests.planner.archive.samples import a_result, an_allocation

SPEC = {"pipeline": {"name": "p", "models": {"b": 1, "a": 2}, "stages": [{"name": "s"}]}}


def ids(archive: Archive, **wanted: object) -> list[str]:
    return [study.id for study in archive.studies.page(50, StudyFilter(**wanted))]  # type: ignore[arg-type]


def test_a_page_starts_after_the_last_study_seen_whatever_came_or_went_meanwhile(archive: Archive) -> None:
    for number in range(6):
        archive.studies.create(f"s{number}", "n", {}, 0)
    first = archive.studies.page(3)
    assert [s.id for s in first] == ["s5", "s4", "s3"]
    archive.studies.create("s6", "n", {}, 0)
    archive.studies.set_status("s3", "cancelled")
    archive.studies.delete("s3")
    rest = archive.studies.page(3, after=(first[-1].created_at, first[-1].id))
    assert [s.id for s in rest] == ["s2", "s1", "s0"]


def test_studies_are_chosen_by_every_filter(archive: Archive) -> None:
    archive.studies.create("a1", "Grade 100%", SPEC, 0, schedule_name="nightly")
    archive.studies.create("b2", "code", {}, 0)
    archive.studies.set_status("b2", "running")
    archive.studies.set_proposer("b2", "agent")
    archive.studies.set_notes("b2", "The baseline, see GRADE")
    assert ids(archive, statuses=("queued", "done")) == ["a1"]
    assert ids(archive, statuses=("queued", "running")) == ["b2", "a1"]
    assert ids(archive, name="0%") == ["a1"]
    assert ids(archive, text="grade") == ["b2", "a1"]
    assert ids(archive, text="grade baseline") == ["b2"]
    assert ids(archive, text="B2") == ["b2"]
    assert ids(archive, schedule="nightly") == ["a1"]
    assert ids(archive, proposer="agent") == ["b2"]
    assert ids(archive, pipeline=pipeline_digest(SPEC)) == ["a1"]
    moment = archive.studies.get("b2").created_at
    assert ids(archive, created_from=moment) == ["b2"]
    assert ids(archive, created_before=moment) == ["a1"]
    assert ids(archive, created_from=datetime.now(UTC) + timedelta(days=1)) == []


def test_notes_are_replaced_only_where_nobody_else_did(archive: Archive, study: str) -> None:
    read = archive.studies.get(study)
    changed = archive.studies.set_notes(study, "first", [read.notes_version])
    assert changed.notes == archive.studies.get(study).notes == "first"
    with pytest.raises(Changed):
        archive.studies.set_notes(study, "second", [read.notes_version])
    assert archive.studies.get(study).notes == "first"
    assert archive.studies.set_notes(study, "third", ["other", changed.notes_version]).notes == "third"
    with pytest.raises(NotFound):
        archive.studies.set_notes("none", "x")


def test_only_a_study_that_has_ended_is_deleted_and_all_its_rows_go(archive: Archive, study: str) -> None:
    for number in range(45):  # more than one transaction deletes
        archive.trials.record(study, number, "search", 0, a_result(), "FLOPs")
    archive.events.append(study, "phase", {})
    archive.ledgers.reserve(study, "search", "a", "draws", 1, None)
    archive.studies.create("other", "o", {}, 0)
    archive.trials.record("other", 0, "search", 0, a_result(), "FLOPs")
    with pytest.raises(StatusConflict, match="cancel it first"):
        archive.studies.delete(study)
    assert archive.trials.count(study) == 45
    archive.studies.set_status(study, "cancelled")
    archive.studies.delete(study)
    with pytest.raises(NotFound):
        archive.studies.get(study)
    assert archive.trials.count(study) == 0
    assert archive.trials.evidence(study, 0) == ()
    assert archive.events.after(study) == []
    assert archive.ledgers.usages(study) == {}
    assert archive.trials.evidence("other", 0)
    with pytest.raises(NotFound):
        archive.studies.delete(study)


def test_trials_and_examples_come_page_by_page(archive: Archive, study: str) -> None:
    result = a_result()
    for number in (1, 2, 5):
        archive.trials.record(study, number, "test" if number == 5 else "search", 0, result, "FLOPs")
    archive.trials.record(study, 7, "search", 0, replace(result, evidence=()), "FLOPs", cut=True)
    assert [t.trial_no for t in archive.trials.page(study, 2)] == [1, 2]
    assert [t.trial_no for t in archive.trials.page(study, 9, after=2)] == [5, 7]
    assert [t.trial_no for t in archive.trials.page(study, 9, split="test")] == [5]
    assert [t.trial_no for t in archive.trials.page(study, 9, statuses=("cut",))] == [7]
    assert archive.trials.page(study, 1, curves=False)[0].curves == {}
    assert archive.trials.count(study, "search") == 3
    everything = [e for _, e in archive.trials.examples(study, 1, 100)]
    assert tuple(everything) == result.evidence
    first = archive.trials.examples(study, 1, 1)
    rest = archive.trials.examples(study, 1, 100, after=first[0][0])
    assert [e for _, e in [*first, *rest]] == everything
    failed = [e for e in everything if e.status == "failed"]
    assert [e for _, e in archive.trials.examples(study, 1, 100, outcome="failed")] == failed
    counts = archive.trials.outcomes(study, 1)
    assert sum(counts.values()) == len(everything)
    assert counts.get("failed", 0) == len(failed)
    one = everything[-1]
    assert archive.trials.example(study, 1, one.example_id) == one
    with pytest.raises(NotFound):
        archive.trials.example(study, 1, "none")


def test_ledger_entries_come_by_ledger_and_key(archive: Archive, study: str) -> None:
    for ledger, key in (("search", "b"), ("proposer", "a"), ("search", "a")):
        archive.ledgers.reserve(study, ledger, key, "units", 2, None)  # type: ignore[arg-type]
    archive.ledgers.settle(study, "search", "a", 1)
    rows = archive.ledgers.page(study, 2)
    assert [(ledger, entry.key, entry.settled) for ledger, _, entry in rows] == [
        ("proposer", "a", None),
        ("search", "a", 1),
    ]
    assert [e.key for _, _, e in archive.ledgers.page(study, 9, after=("search", "a"))] == ["b"]
    assert [e.key for _, _, e in archive.ledgers.page(study, 9, ledger="proposer")] == ["a"]


def test_pipelines_are_told_apart_by_content_and_not_by_name(archive: Archive) -> None:
    renamed = {"pipeline": {**SPEC["pipeline"], "name": "q", "models": {"a": 2, "b": 1}}}
    other = {"pipeline": {**SPEC["pipeline"], "stages": []}}
    for number, spec in enumerate([SPEC, other, renamed, {}]):
        archive.studies.create(f"s{number}", "n", spec, 0)
    newest, older = archive.pipelines.page(9)
    assert (newest.studies, newest.last_study, newest.pipeline["name"]) == (2, "s2", "q")
    assert archive.pipelines.names(newest.digest) == ["p", "q"]
    assert older.digest == pipeline_digest(other)
    assert [p.digest for p in archive.pipelines.page(1, (newest.last_used, newest.digest))] == [older.digest]
    assert archive.pipelines.get(newest.digest) == newest
    with pytest.raises(NotFound):
        archive.pipelines.get("")


def test_studies_are_listed_without_their_specs_where_nobody_needs_them(archive: Archive) -> None:
    archive.studies.create("a", "n", SPEC, 7)
    (brief,) = archive.studies.page(9, specs=False)
    assert brief == replace(archive.studies.get("a"), spec={})
    assert archive.studies.list(specs=False) == [brief]


def test_a_study_whose_plan_clients_ask_for_by_name_is_not_deleted(archive: Archive, study: str) -> None:
    archive.studies.create("other", "o", {}, 0)
    for id in (study, "other"):
        archive.plans.record(id, "chosen", an_allocation(), {})
        archive.studies.set_status(id, "cancelled")
        archive.promotions.promote("qa", id)
    with pytest.raises(StatusConflict, match="served as 'qa'"):
        archive.studies.delete("other")
    archive.studies.delete(study)  # what a name stood for before
    archive.studies.get("other")
