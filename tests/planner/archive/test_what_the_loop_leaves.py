"""Proposals, guidelines, plans and events."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest

from planner.archive import Archive, ArchiveError, GuidelineRecord, NotFound, ProposalRecord
from tests.planner.archive.samples import an_allocation


def a_proposal(study: str, position: int = 0, attempt: int = 0, round: int = 1) -> ProposalRecord:
    return ProposalRecord(
        study_id=study,
        round=round,
        attempt=attempt,
        position=position,
        allocation=an_allocation(),
        origin="agent",
        verdict="accepted",
        verdict_reason="",
        reason="the verifier saturates at 4",
        expected_score=0.7,
        prompt="What next?\0",
        reply='{"allocation": …}',
        llm_model="gpt",
        tokens_in=1200,
        tokens_out=80,
    )


def test_a_proposal_comes_back_as_it_went_in(archive: Archive, study: str) -> None:
    proposal = a_proposal(study)
    archive.proposals.record(proposal)
    (read,) = archive.proposals.list(study)
    assert read.created_at is not None
    assert replace(read, created_at=None) == proposal


def test_a_refused_suggestion_needs_no_allocation(archive: Archive, study: str) -> None:
    refused = ProposalRecord(study, 0, 0, 0, None, "agent", "refused", "stage solve: no model 'huge'")
    archive.proposals.record(refused)
    (read,) = archive.proposals.list(study)
    assert (read.allocation, read.allocation_key, read.verdict) == (None, "", "refused")


def test_the_first_proposal_of_a_place_stays(archive: Archive, study: str) -> None:
    assert archive.proposals.record(a_proposal(study, 0), a_proposal(study, 1)) == 2
    assert archive.proposals.record(replace(a_proposal(study, 1), reason="other"), a_proposal(study, 2)) == 1
    assert {p.reason for p in archive.proposals.list(study)} == {a_proposal(study).reason}


def test_proposals_are_listed_in_the_order_they_were_made(archive: Archive, study: str) -> None:
    places = [(2, 0, 0), (1, 1, 0), (1, 0, 1), (1, 0, 0)]
    archive.proposals.record(*(a_proposal(study, p, a, r) for r, a, p in places))
    assert [(p.round, p.attempt, p.position) for p in archive.proposals.list(study)] == sorted(places)
    assert len(archive.proposals.list(study, round=1)) == 3


def test_the_first_guideline_of_a_place_stays(archive: Archive, study: str) -> None:
    guideline = GuidelineRecord(study, 1, 0, 2, "solve", "four votes are enough", {"saturates_at": 4})
    assert archive.guidelines.record(guideline, GuidelineRecord(study, 2, 0, 0, None, "spend upstream")) == 2
    assert archive.guidelines.record(replace(guideline, text="other")) == 0
    (read,) = archive.guidelines.list(study, round=1)
    assert replace(read, created_at=None) == guideline
    assert [g.round for g in archive.guidelines.list(study)] == [1, 2]


def test_the_first_plan_of_a_kind_stays(archive: Archive, study: str) -> None:
    first = archive.plans.record(study, "chosen", an_allocation(1), {"score": 0.5, "beat": []})
    again = archive.plans.record(study, "chosen", an_allocation(2), {"score": 0.6})
    archive.plans.record(study, "best", an_allocation(8), {})
    assert again == first == archive.plans.get(study)
    assert [p.kind for p in archive.plans.list(study)] == ["best", "chosen"]


def test_a_study_without_a_plan_says_so(archive: Archive, study: str) -> None:
    with pytest.raises(NotFound, match="no chosen plan"):
        archive.plans.get(study)


def test_a_document_that_is_not_json_is_refused(archive: Archive, study: str) -> None:
    with pytest.raises(ArchiveError, match="cannot store this as JSON"):
        archive.plans.record(study, "chosen", an_allocation(), {"score": float("nan")})


def test_events_are_read_on_from_where_a_reader_was(archive: Archive, study: str) -> None:
    archive.studies.create("other", "other", {}, seed=0)
    ids = [archive.events.append(study, "trial", {"no": number, "text": "\0"}) for number in range(4)]
    archive.events.append("other", "trial", {})
    assert [e.payload["no"] for e in archive.events.after(study)] == [0, 1, 2, 3]
    assert [e.id for e in archive.events.after(study, ids[1], limit=1)] == [ids[2]]
    assert archive.events.after(study, ids[-1]) == []


def test_an_event_with_a_key_is_added_once(archive: Archive, study: str) -> None:
    first = archive.events.append(study, "phase", {"phase": "execute"}, key="phase-1")
    assert archive.events.append(study, "phase", {"phase": "execute"}, key="phase-1") == first
    assert archive.events.append(study, "phase", {}, key="phase-2") > first
    assert len(archive.events.after(study)) == 2


def test_a_reader_misses_no_event_of_several_writers(archive: Archive, study: str) -> None:
    def write(writer: int) -> None:
        for number in range(10):
            archive.events.append(study, "tick", {"writer": writer, "number": number})

    with ThreadPoolExecutor(4) as threads:
        writers = [threads.submit(write, writer) for writer in range(4)]
        seen, last = 0, 0
        while not all(w.done() for w in writers) or archive.events.after(study, last, 1):
            for event in archive.events.after(study, last, 5):
                seen, last = seen + 1, event.id
    assert seen == 40
