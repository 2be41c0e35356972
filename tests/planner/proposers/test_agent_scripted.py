"""The scripted agent that other tests use: competent, and only by what the prompt tells it."""

from __future__ import annotations

import httpx
import pytest

from planner.history import History, RefusedView
from planner.proposers import Proposer
from tests.planner.proposers.agent_cases import agent, space, trial
from tests.scripted_llm import ScriptedLlm, guideline_follower, refusing

SPACE = space()


@pytest.mark.asyncio
@pytest.mark.parametrize("fields", [[], ["response_format"]])
async def test_it_climbs_from_the_initial_trials_with_valid_new_allocations(fields: list[str]) -> None:
    with ScriptedLlm(refusing(fields, guideline_follower())) as llm:
        proposer: Proposer = agent(llm.base_url, SPACE)
        first = (await proposer.initial(History(0, ()))).proposals
        trials = tuple(trial(i, p.allocation, SPACE) for i, p in enumerate(first) if p.allocation)
        past = History(1, trials, trials_left=20)
        start = max(t.score for t in trials)
        for round_ in range(2, 7):
            reflection = await proposer.reflect(past)
            assert {g.insight for g in reflection.guidelines} == {1, 2}
            got = await proposer.propose(past, 4, ())
            allocations = [p.allocation for p in got.proposals if p.allocation]
            assert len(set(allocations)) == len(got.proposals) == 4
            assert not set(allocations) & past.tried
            assert [SPACE.faults(a) for a in allocations] == [[]] * 4
            trials = (*past.trials, *(trial(len(past.trials) + i, a, SPACE) for i, a in enumerate(allocations)))
            past = History(round_, trials, guidelines=reflection.guidelines, trials_left=20)
        await proposer.close()
    assert past.best is not None
    assert past.best.score > start + 0.02


@pytest.mark.asyncio
async def test_it_proposes_from_nothing_and_heeds_refusals() -> None:
    with ScriptedLlm(guideline_follower()) as llm:
        proposer = agent(llm.base_url, SPACE)
        got = await proposer.propose(History(0, ()), 6, ())
        refused = tuple(RefusedView(0, p.allocation, "", "already there") for p in got.proposals)
        other = await proposer.propose(History(0, ()), 6, refused)
    assert len({p.allocation for p in (*got.proposals, *other.proposals)}) == 12


def test_it_lists_its_model() -> None:
    with ScriptedLlm() as llm:
        answer = httpx.get(f"{llm.base_url}/models", trust_env=False)
    assert answer.json()["data"][0]["id"] == "scripted"
