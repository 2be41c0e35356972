"""What every proposer must do, whoever wrote it: feasible new suggestions, the same from the same history, and never a
study ended by an LLM that is down."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from env.spec.study import BUILT_IN_PROPOSERS
from planner.archive import Archive, open_archive
from planner.history import History, PendingView, RefusedView
from planner.loop import InProcessSteps, StudyContext, run_loop
from planner.plans import PlanDocument
from planner.proposers import Proposal, open_proposer, proposer_kinds
from planner.proposers.registry import may_ask_llm
from planner.review import review
from planner.run import run_study
from planner.space import SearchSpace
from tests.proposer_cases import SPACES, competent, exhausted, grown, past, setup
from tests.scripted_llm import Garbage, ScriptedLlm, Status
from tests.simulated import DiceBackends, simulated_spec

KINDS = proposer_kinds()
LLM_KINDS = [kind for kind in KINDS if may_ask_llm(kind)]
START = History(0, (), trials_left=24)


def test_every_built_in_name_is_known() -> None:
    assert KINDS[: len(BUILT_IN_PROPOSERS)] == BUILT_IN_PROPOSERS


async def played(kind: str, space: SearchSpace, url: str, rounds: int = 3) -> tuple[History, list[list[Proposal]]]:
    """A study's rounds without the loop; what was suggested in each."""
    proposer = open_proposer(kind, setup(space, url))
    suggested = [list((await proposer.initial(START)).proposals)]
    history, _ = grown(START, suggested[0], space, 24)
    for _ in range(rounds):
        reflection = await proposer.reflect(history)
        history = History(history.round, history.trials, history.refused, reflection.guidelines, 20)
        suggested.append(list((await proposer.propose(history, 4, ())).proposals))
        history, _ = grown(history, suggested[-1], space, 4)
    await proposer.close()
    return history, suggested


@pytest.mark.asyncio
@pytest.mark.parametrize("name", SPACES)
@pytest.mark.parametrize("kind", KINDS)
async def test_most_suggestions_are_feasible_and_new(kind: str, name: str) -> None:
    space = SPACES[name]
    with ScriptedLlm(competent(space)) as llm:
        history, suggested = await played(kind, space, llm.base_url)
    assert suggested[0], "the first batch is empty"
    accepted = len(history.trials)
    assert accepted >= 0.7 * sum(map(len, suggested)), [v.reason for v in history.refused]
    later = [batch for batch in suggested[1:] if batch]
    assert len(later) == 3
    assert all(len(batch) <= 4 for batch in later)
    assert all(p.reason and p.origin for batch in suggested for p in batch)
    if not may_ask_llm(kind):
        # Without an LLM nothing is left to luck: whatever is suggested may run, and a batch is full.
        assert not history.refused
        assert all(len(batch) == 4 for batch in later)


@pytest.mark.asyncio
@pytest.mark.parametrize("name", ["three stages", "strategies and knobs"])
@pytest.mark.parametrize("kind", KINDS)
async def test_equal_histories_give_equal_suggestions_to_a_proposer_just_opened(kind: str, name: str) -> None:
    space = SPACES[name]
    with ScriptedLlm(competent(space)) as llm:
        old = open_proposer(kind, setup(space, llm.base_url))
        await old.initial(START)
        await old.propose(past(space, 6), 3, ())
        first = await old.propose(past(space, 12), 3, ())
        await old.close()
        new = open_proposer(kind, setup(space, llm.base_url))
        again = await new.propose(past(space, 12), 3, ())
        await new.close()
    assert first.proposals
    assert again.proposals == first.proposals


@pytest.mark.asyncio
@pytest.mark.parametrize("kind", KINDS)
async def test_what_is_refused_or_waiting_is_not_suggested_again(kind: str) -> None:
    space = SPACES["three stages"]
    with ScriptedLlm(competent(space)) as llm:
        proposer = open_proposer(kind, setup(space, llm.base_url))
        history = past(space, 12)
        first = [p.allocation for p in (await proposer.propose(history, 4, ())).proposals if p.allocation]
        refused = tuple(RefusedView(history.round, a, "", "not today") for a in first[:2])
        waiting = tuple(PendingView(a, kind) for a in first[2:])
        later = History(history.round, history.trials, refused, (), 20, waiting)
        second = (await proposer.propose(later, 4, refused)).proposals
        await proposer.close()
    known = later.tried | {r.allocation for r in refused if r.allocation}
    verdicts = review(second, space, known, 4)
    assert sum(v.accepted for v in verdicts) >= (2 if may_ask_llm(kind) else 4), [v.reason for v in verdicts]


@pytest.mark.asyncio
@pytest.mark.parametrize("kind", KINDS)
async def test_with_everything_tried_nothing_is_suggested(kind: str) -> None:
    space = SPACES["one stage"]
    history = exhausted(space)
    with ScriptedLlm(competent(space)) as llm:
        proposer = open_proposer(kind, setup(space, llm.base_url))
        suggestions = await proposer.propose(history, 4, ())
        await proposer.close()
    assert not any(v.accepted for v in review(suggestions.proposals, space, history.tried, 4))
    if kind not in ("agent", "auto"):  # the agent asks its LLM whatever is left
        assert suggestions.proposals == suggestions.exchanges == ()


@pytest.mark.asyncio
@pytest.mark.parametrize("kind", KINDS)
async def test_the_last_allocations_of_a_space_are_found(kind: str) -> None:
    space = SPACES["one stage"]
    full = exhausted(space)
    history = History(9, full.trials[:-2], trials_left=20)
    with ScriptedLlm(competent(space)) as llm:
        proposer = open_proposer(kind, setup(space, llm.base_url))
        suggestions = await proposer.propose(history, 4, ())
        await proposer.close()
    if not may_ask_llm(kind):
        assert {p.allocation for p in suggestions.proposals} == {t.allocation for t in full.trials[-2:]}


@pytest.mark.asyncio
@pytest.mark.parametrize("count", [0, 1, 2])
@pytest.mark.parametrize("kind", KINDS)
async def test_no_more_are_suggested_than_asked_for(kind: str, count: int) -> None:
    space = SPACES["strategies and knobs"]
    with ScriptedLlm(competent(space)) as llm:
        proposer = open_proposer(kind, setup(space, llm.base_url))
        suggestions = await proposer.propose(past(space, 11), count, ())
        await proposer.close()
        await proposer.close()
    assert len(suggestions.proposals) <= count
    assert count == 0 or suggestions.proposals


@pytest.mark.asyncio
@pytest.mark.parametrize("kind", KINDS)
async def test_before_the_first_trial_there_is_nothing_to_conclude_and_something_to_propose(kind: str) -> None:
    space = SPACES["four stages"]
    with ScriptedLlm(competent(space)) as llm:
        proposer = open_proposer(kind, setup(space, llm.base_url))
        assert (await proposer.reflect(START)).guidelines == ()
        assert (await proposer.propose(START, 2, ())).proposals
        await proposer.close()


def in_its_place(kind: str) -> set[str]:
    """Who proposes where the LLM gives nothing: beside the agent's stands the insight policy."""
    return {"insight", "fill"} if kind in ("agent", "auto") else set()


@pytest.mark.asyncio
@pytest.mark.parametrize("answer", [Status(500), Garbage(), "no JSON at all", {"notes": 3, "proposals": "none"}])
@pytest.mark.parametrize("kind", LLM_KINDS)
async def test_an_llm_that_is_down_or_talks_nonsense_gives_an_exchange_that_says_so(kind: str, answer: Any) -> None:
    space = SPACES["three stages"]
    with ScriptedLlm([], then=answer) as llm:
        proposer = open_proposer(kind, setup(space, llm.base_url))
        await proposer.initial(START)
        reflection = await proposer.reflect(past(space, 8))
        suggestions = await proposer.propose(past(space, 8), 4, ())
        await proposer.close()
    assert reflection.guidelines == ()
    assert {p.origin for p in suggestions.proposals} == in_its_place(kind)
    assert suggestions.exchanges
    exchanges = (*reflection.exchanges, *suggestions.exchanges)
    assert all(e.error and e.model == "scripted" and e.prompt for e in exchanges)
    assert all("sk-secret" not in f"{e.prompt}{e.reply}{e.error}" for e in exchanges)


@pytest.mark.asyncio
@pytest.mark.parametrize("kind", LLM_KINDS)
async def test_without_tokens_left_the_llm_is_not_asked(kind: str) -> None:
    space = SPACES["three stages"]
    with ScriptedLlm(competent(space)) as llm:
        proposer = open_proposer(kind, setup(space, llm.base_url, tokens_left=lambda: 20))
        await proposer.initial(START)
        suggestions = await proposer.propose(past(space, 8), 4, ())
        await proposer.close()
        assert llm.requests == []
    assert {p.origin for p in suggestions.proposals} == in_its_place(kind)
    assert "budget exhausted" in suggestions.exchanges[0].error


# Whole studies --------------------------------------------------------------------------------------------------------


@pytest.fixture
def archive(tmp_path: Path) -> Iterator[Archive]:
    with open_archive(f"sqlite:///{tmp_path / 'archive.db'}") as opened:
        yield opened


def environ(llm: ScriptedLlm) -> dict[str, str]:
    return {"APPORTION_LLM_MODEL": "scripted", "APPORTION_LLM_BASE_URL": llm.base_url}


def study_spec(kind: str, trials: int = 14) -> Any:
    return simulated_spec(
        proposer={"kind": kind, "batch": 4, "timeout_s": 20.0},
        budget={"plan": {"limit": 6e12, "unit": "flops"}, "search": {"trials": trials}},
    )


@pytest.mark.asyncio
@pytest.mark.parametrize("kind", KINDS)
async def test_a_study_runs_to_a_plan_on_its_suggestions(kind: str, archive: Archive) -> None:
    with ScriptedLlm(competent(SearchSpace(simulated_spec()))) as llm:
        plan: PlanDocument = await run_study(study_spec(kind), archive, "s1", environ(llm), DiceBackends())
    assert plan.trials == 14
    assert plan.predicted_cost <= plan.budget
    assert plan.test_score is not None
    resolved = "agent" if kind == "auto" else kind
    assert plan.provenance.proposer == archive.studies.get("s1").proposer == resolved
    accepted = [p for p in archive.proposals.list("s1") if p.verdict == "accepted" and p.allocation is not None]
    assert sum(p.origin == "fill" for p in accepted) <= 2
    if may_ask_llm(kind):
        calls = [p for p in archive.proposals.list("s1") if p.origin == "call"]
        assert calls
        # Whatever the LLM was asked is in the ledger, the first batch included.
        assert archive.ledgers.usage("s1", "proposer").settled == sum(p.tokens_in + p.tokens_out for p in calls)


@pytest.mark.asyncio
@pytest.mark.parametrize("kind", LLM_KINDS)
async def test_a_study_whose_llm_is_down_from_the_start_still_ends_with_a_plan(kind: str, archive: Archive) -> None:
    with ScriptedLlm([], then=Status(400, "no")) as llm:
        plan = await run_study(study_spec(kind), archive, "s1", environ(llm), DiceBackends())
    assert plan.trials == 14
    origins = {p.origin for p in archive.proposals.list("s1") if p.verdict == "accepted"}
    assert "fill" in origins


class CutOff(Exception):
    pass


class Recorded(InProcessSteps):
    """Keeps what each step gave, as a durable queue does, and may stop for good behind one of them."""

    def __init__(self, results: dict[str, Any], last: str = "") -> None:
        self._results = results
        self._last = last

    async def run(self, name: str, step: Any, *args: object) -> Any:
        if name not in self._results:
            self._results[name] = await super().run(name, step, *args)
        if name == self._last:
            raise CutOff
        return self._results[name]


@pytest.mark.asyncio
@pytest.mark.parametrize("kind", KINDS)
async def test_a_study_cut_off_goes_on_as_if_nothing_had_happened(kind: str, archive: Archive, tmp_path: Path) -> None:
    spec = study_spec(kind)
    space = SearchSpace(spec)
    with ScriptedLlm(competent(space)) as llm, open_archive(f"sqlite:///{tmp_path / 'whole.db'}") as whole:
        await run_study(spec, whole, "s1", environ(llm), DiceBackends())
        expected = [(t.trial_no, t.allocation, t.score) for t in whole.trials.list("s1", "search")]
        archive.studies.create("s1", spec.name, spec.model_dump(mode="json"), spec.seed)
        results: dict[str, Any] = {}
        context = StudyContext(archive, "s1", environ(llm), DiceBackends())
        with pytest.raises(CutOff):
            await run_loop(context, Recorded(results, "execute-1"))
        await context.close()
        assert 0 < len(archive.trials.list("s1", "search")) < len(expected)
        context = StudyContext(archive, "s1", environ(llm), DiceBackends())
        await run_loop(context, Recorded(results))
        await context.close()
    assert [(t.trial_no, t.allocation, t.score) for t in archive.trials.list("s1", "search")] == expected
