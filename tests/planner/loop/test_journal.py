"""The journal answers what the archive holds, whoever wrote it and in whatever order."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from env.allocation import Allocation
from planner.archive import Archive, ProposalRecord, open_archive
from planner.loop.journal import CALL, CURVES_OF, Journal, estimates, trial_view
from tests.planner.archive.conftest import (
    archive,
    postgresql_shared,
    postgresql_with_schema,
    sqlite_template,
    sqlite_with_schema,
    url,
)
from tests.planner.archive.samples import a_result, an_allocation
from tests.postgres import postgres, postgres_url

__all__ = [
    "archive",
    "postgres",
    "postgres_url",
    "postgresql_shared",
    "postgresql_with_schema",
    "sqlite_template",
    "sqlite_with_schema",
    "url",
]


def an_accepted(round_: int, position: int, samples: int, attempt: int = 0) -> ProposalRecord:
    return ProposalRecord("s", round_, attempt, position, an_allocation(samples), "insight", "accepted")


def record_trial(archive: Archive, number: int, score: float | None, round_: int = 0, split: str = "search") -> None:
    allocation: Allocation = an_allocation(number)
    result = a_result((score, score) if score is not None else (None,), allocation)
    archive.trials.record("s", number, split, round_, result, "FLOPs")  # type: ignore[arg-type]


def expected(archive: Archive) -> tuple[list[object], ...]:
    """The journal's answers, computed from all rows at once."""
    trials = archive.trials.list("s", "search")
    proposals = archive.proposals.list("s")
    accepted = [p for p in proposals if p.verdict == "accepted" and p.allocation is not None]
    scored = [t for t in trials if t.score is not None]
    best = sorted(scored, key=lambda t: (t.score or 0.0, -t.predicted_cost, -t.trial_no), reverse=True)[:CURVES_OF]
    kept = {t.trial_no for t in (*best, *scored[-CURVES_OF:])}
    origins = dict(enumerate(accepted, 1))
    views = [trial_view(t, t.curves if t.trial_no in kept else {}, origins.get(t.trial_no)) for t in scored]
    numbers = {t.trial_no for t in scored}
    return (
        [t.trial_no for t in trials],
        list(views),
        [p.allocation for p in accepted],
        [p.allocation for n, p in origins.items() if n not in numbers],
        [p.verdict_reason for p in proposals if p.verdict == "refused" and p.origin != CALL],
    )


def answers(journal: Journal) -> tuple[list[object], ...]:
    journal.refresh()
    return (
        [t.trial_no for t in journal.trials],
        list(journal.views),
        [p.allocation for p in journal.accepted],
        [p.allocation for p in journal.pending()],
        [r.reason for r in journal.refused],
    )


def test_what_another_process_wrote_is_seen_at_the_next_look(archive: Archive, url: str) -> None:
    archive.studies.create("s", "s", {}, seed=0)
    journal = Journal(archive, "s")
    record_trial(archive, 1, 0.5)
    archive.proposals.record(an_accepted(0, 0, 1))
    assert answers(journal) == expected(archive)
    with open_archive(url) as other:
        record_trial(other, 3, 0.7, round_=1)
        other.proposals.record(an_accepted(1, 0, 3))
        assert answers(journal) == expected(archive)
        # Rows older than what is held, as a process writes that was thought dead.
        record_trial(other, 2, 0.9)
        other.proposals.record(an_accepted(0, 1, 2))
        assert answers(journal) == expected(archive)
        assert [p.allocation for p in journal.accepted] == [an_allocation(n) for n in (1, 2, 3)]
        assert journal.accepted_by_round == {0: [1, 2], 1: [3]}
        # Of the newest round, but before one of its proposals that is held.
        other.proposals.record(an_accepted(1, 1, 5), replace(an_accepted(1, 0, 4, attempt=-1)))
        assert answers(journal) == expected(archive)
    assert journal.taken == {an_allocation(n) for n in (1, 2, 3, 4, 5)}


STEPS = st.lists(
    st.tuples(st.sampled_from(["trial", "test", "accepted", "refused", "call", "look"]), st.integers(1, 30)),
    max_size=30,
)


@settings(max_examples=12, deadline=None, suppress_health_check=list(HealthCheck))
@given(steps=STEPS)
def test_any_order_of_writes_is_answered_as_if_all_were_read_again(
    archive: Archive, steps: list[tuple[str, int]]
) -> None:
    _empty(archive)
    journal = Journal(archive, "s")
    for kind, number in steps:
        if kind in ("trial", "test"):
            score = None if number % 7 == 0 else number / 31
            record_trial(archive, number, score, number // 4, "search" if kind == "trial" else "test")
        elif kind == "look":
            assert answers(journal) == expected(archive)
        else:
            proposal = an_accepted(number // 4, number % 4, number)
            if kind != "accepted":
                proposal = replace(proposal, verdict="refused", verdict_reason=f"no {number}", attempt=1)
            if kind == "call":
                proposal = replace(proposal, origin=CALL, llm_model="m", prompt="long", reply="long", allocation=None)
            archive.proposals.record(proposal)
    assert answers(journal) == expected(archive)


def _empty(archive: Archive) -> None:
    from planner.archive.tables import ArchiveTable

    with archive.engine.begin() as connection:
        for table in reversed(ArchiveTable.metadata.sorted_tables):
            connection.execute(table.delete())
    archive.studies.create("s", "s", {}, seed=0)


def test_curves_are_kept_of_the_best_and_the_newest_only(archive: Archive) -> None:
    archive.studies.create("s", "s", {}, seed=0)
    journal = Journal(archive, "s")
    count = 2 * CURVES_OF + 20
    for number in range(1, count + 1):
        # The best are the first; those in the middle are neither good nor new.
        record_trial(archive, number, 1 - number / (count + 1))
        if number % 60 == 0:
            journal.refresh()
    journal.refresh()
    with_curves = [v.trial_no for v in journal.views if v.curves]
    assert with_curves == [*range(1, CURVES_OF + 1), *range(count - CURVES_OF + 1, count + 1)]
    again = Journal(archive, "s").refresh()
    assert again.views == journal.views
    one = archive.trials.get("s", 1)
    assert journal.views[0].curves == estimates(one.curves)


@pytest.mark.parametrize("calls", [0, 3])
def test_prompts_and_replies_of_llm_calls_are_not_held(archive: Archive, calls: int) -> None:
    archive.studies.create("s", "s", {}, seed=0)
    archive.proposals.record(
        *(
            ProposalRecord("s", 1, 0, 1000 + i, None, CALL, "accepted", prompt="p", reply="r", llm_model="m")
            for i in range(calls)
        ),
        an_accepted(2, 0, 1),
    )
    journal = Journal(archive, "s").refresh()
    assert all(p.prompt is None and p.reply is None for p in journal.by_round.get(1, ()))
    assert journal.answered == ({1: True} if calls else {})


@pytest.mark.parametrize(
    ("calls", "answered"),
    [
        ([(-1, "accepted")], True),
        ([(-1, "refused")], False),
        ([(-1, "accepted"), (0, "refused")], False),
        ([(-1, "refused"), (0, "refused"), (1, "accepted")], True),
    ],
)
def test_guidelines_are_no_answer_to_a_request_for_allocations(
    archive: Archive, calls: list[tuple[int, str]], answered: bool
) -> None:
    archive.studies.create("s", "s", {}, seed=0)
    for attempt, verdict in calls:
        archive.proposals.record(ProposalRecord("s", 1, attempt, 1000, None, CALL, verdict, llm_model="m"))  # type: ignore[arg-type]
    assert Journal(archive, "s").refresh().answered == {1: answered}


def test_a_trial_is_seen_with_who_proposed_it_and_what_was_expected(archive: Archive) -> None:
    archive.studies.create("s", "s", {}, seed=0)
    archive.proposals.record(replace(an_accepted(0, 0, 1), origin="agent", expected_score=0.8), an_accepted(0, 1, 2))
    record_trial(archive, 1, 0.5)
    journal = Journal(archive, "s").refresh()
    assert [(v.origin, v.expected_score) for v in journal.views] == [("agent", 0.8)]
    assert [(p.allocation, p.origin) for p in journal.pending()] == [(an_allocation(2), "insight")]
