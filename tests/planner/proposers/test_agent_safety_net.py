"""What a bad LLM can cost at most, and that a good one is not held back."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from env.allocation import Allocation, StageSetting
from planner.bench.scripted import data_block
from planner.history import History, PendingView, TrialView
from planner.proposers import InsightProposer
from planner.proposers.agent import AgentProposer, LlmSettings
from planner.proposers.agent.trust import WASTE, allowance
from planner.proposers.digest import earned
from tests.planner.proposers.searches import Landscape, Search, search
from tests.scripted_llm import Script, ScriptedLlm, Status, guideline_follower, prompt_text
from tests.scripted_policy import answer_guidelines

SEEDS = (1, 2, 5)
SOME = Allocation.of({"solve": StageSetting("m", "vote", 1)})


def trial(number: int, round_: int, score: float, origin: str) -> TrialView:
    return TrialView(number, round_, SOME, score, 0.01, 1.0, 1.0, 1, origin=origin)


def test_a_trial_earns_its_place_by_beating_what_was_before_and_beside_it() -> None:
    trials = [
        trial(1, 0, 0.5, "initial"),
        trial(2, 1, 0.6, "agent"),  # better than before and than the policy's
        trial(3, 1, 0.55, "insight"),
        trial(4, 2, 0.65, "agent"),  # better than before, and the policy did better still
        trial(5, 2, 0.7, "insight"),
        trial(6, 3, 0.69, "agent"),  # not better than before
    ]
    assert earned(trials, "agent") == [True, False, False]
    assert earned(trials, "insight") == [False, True]


@given(st.integers(0, 20), st.lists(st.tuples(st.integers(1, 8), st.booleans()), max_size=12))
@settings(deadline=None)
def test_a_useless_llm_never_has_more_than_its_share_of_the_trials(
    initial: int, rounds: list[tuple[int, bool]]
) -> None:
    """Whatever the sizes of batches, and whether the LLM offers anything or the policy has to fill in."""
    trials = [trial(i, 0, 0.9, "initial") for i in range(initial)]
    for round_, (count, offers) in enumerate(rounds, 1):
        own = allowance(History(round_, tuple(trials)), count) if offers else 0
        assert 0 <= own <= count
        assert own < count or count == 1
        origins = ["agent"] * own + ["insight"] * (count - own)
        trials += [trial(len(trials) + i, round_, 0.1 if o == "agent" else 0.5, o) for i, o in enumerate(origins)]
        wasted = sum(t.origin == "agent" for t in trials)
        assert wasted <= WASTE * (len(trials) - wasted) + 1e-9


def test_an_llm_whose_proposals_win_fills_all_but_one_of_every_batch() -> None:
    trials = [trial(1, 0, 0.1, "initial")]
    shares = []
    for round_ in range(1, 8):
        own = allowance(History(round_, tuple(trials)), 4)
        shares.append(own)
        trials += [trial(len(trials), round_, 0.1 + 0.1 * round_, "agent") for _ in range(own)]
        trials += [trial(len(trials), round_, 0.05, "insight") for _ in range(4 - own)]
    assert shares[0] <= 1
    assert shares[-1] == 3


def test_what_is_accepted_and_has_not_run_counts_as_wasted_until_it_has() -> None:
    past = History(1, tuple(trial(i, 0, 0.5, "initial") for i in range(8)))
    waiting = tuple(PendingView(SOME, "agent") for _ in range(2))
    assert allowance(past, 4) == 2
    assert allowance(History(1, past.trials, pending=waiting), 2) == 0


# Scripted LLMs, over real HTTP --------------------------------------------------------------------------------------


def scripted(propose: Callable[[str, int], list[tuple[Any, float]]]) -> Script:
    """An LLM with decent guidelines and its own way to propose: prompt, count -> (allocation, expectation) each."""

    def script(request: dict[str, Any], number: int) -> dict[str, Any]:
        prompt = prompt_text(request)
        if request["response_format"]["json_schema"]["name"] == "guidelines":
            return answer_guidelines(prompt)
        count = int(re.findall(r"^Allocations wanted: (\d+)$", prompt, re.MULTILINE)[-1])
        rows = [
            {"allocation": allocation, "reason": "because", "expected_score": expected}
            for allocation, expected in propose(prompt, count)
        ]
        return {"proposals": rows}

    return script


def tried(prompt: str) -> set[str]:
    rows = json.loads(data_block(prompt, "history"))["trials"]
    return {" ".join(f"{stage}={setting}" for stage, setting in row["allocation"].items()) for row in rows}


def worst_first(land: Landscape) -> Script:
    """Knows the truth and proposes the worst that has not been tried, promising 0.99."""
    order = sorted(land.space.allocations(), key=land.truth)

    def propose(prompt: str, count: int) -> list[tuple[Any, float]]:
        seen = tried(prompt)
        return [(a.to_json(), 0.99) for a in order if str(a) not in seen][:count]

    return scripted(propose)


def at_random(land: Landscape) -> Script:
    every = list(land.space.allocations())
    dice = random.Random(1)
    return scripted(lambda prompt, count: [(a.to_json(), 0.5) for a in dice.sample(every, count)])


def creeping(land: Landscape) -> Script:
    """Proposes the least improvement there is, to seem useful for ever."""
    order = sorted(land.space.allocations(), key=land.truth)

    def propose(prompt: str, count: int) -> list[tuple[Any, float]]:
        best = json.loads(data_block(prompt, "history"))["trials"][0]["score"]
        return [(a.to_json(), best) for a in order if land.measured(a) > best][:count]

    return scripted(propose)


def following(land: Landscape) -> Script:
    """Takes over what the forecast in its prompt lists."""

    def propose(prompt: str, count: int) -> list[tuple[Any, float]]:
        rows = json.loads(f"[{data_block(prompt, 'forecast')}]")[:count]
        return [(row["allocation"], row["expected_score"]) for row in rows]

    return scripted(propose)


def knowing(land: Landscape) -> Script:
    """Knows the truth and proposes the best."""
    order = sorted(land.space.allocations(), key=land.truth, reverse=True)

    def propose(prompt: str, count: int) -> list[tuple[Any, float]]:
        seen = tried(prompt)
        return [(a.to_json(), land.truth(a)) for a in order if str(a) not in seen][:count]

    return scripted(propose)


async def with_llm(land: Landscape, script: Script | Status) -> Search:
    steps = (lambda request, number: script) if isinstance(script, Status) else script
    with ScriptedLlm(steps) as llm:
        fields = LlmSettings("scripted", llm.base_url, "key", backoff_s=0.001, max_retries=0)
        policy = InsightProposer(land.space, land.seed, 3)
        proposer = AgentProposer(land.space, fields, "", land.seed, policy=policy)
        found = await search(proposer, land)
        await proposer.close()
    return found


@pytest.mark.asyncio
@pytest.mark.parametrize("seed", SEEDS)
async def test_hostile_and_useless_llms_cost_less_than_half_again_of_the_trials(seed: int) -> None:
    land = Landscape(seed)
    alone = await search(InsightProposer(land.space, seed, 3), land)
    assert alone.reached < 40
    for make in (worst_first, at_random, creeping, lambda _: guideline_follower()):
        found = await with_llm(land, make(land))
        assert found.refused or any(t.origin == "agent" for t in found.trials)
        assert found.reached <= 1.5 * alone.reached, make


@pytest.mark.asyncio
@pytest.mark.parametrize("seed", SEEDS)
async def test_an_llm_that_is_refused_or_down_costs_no_trial(seed: int) -> None:
    land = Landscape(seed)
    alone = await search(InsightProposer(land.space, seed, 3), land)
    huge = {"model": "large", "strategy": "vote", "samples": 16}
    over = dict.fromkeys(("find", "read", "solve"), huge)
    refused = await with_llm(land, scripted(lambda prompt, count: [(over, 0.9)] * count))
    assert refused.refused > 0
    down = await with_llm(land, Status(500))
    assert down.reached <= alone.reached + 1
    assert refused.reached <= alone.reached + 1


@pytest.mark.asyncio
@pytest.mark.parametrize("seed", SEEDS)
async def test_an_llm_that_follows_what_it_is_told_is_as_good_as_the_policy_within_a_trial(seed: int) -> None:
    land = Landscape(seed)
    alone = await search(InsightProposer(land.space, seed, 3), land)
    found = await with_llm(land, following(land))
    assert any(t.origin == "agent" for t in found.trials)
    assert found.reached <= alone.reached + 1


@pytest.mark.asyncio
async def test_an_llm_that_knows_better_than_the_policy_ends_the_search_in_its_first_batch() -> None:
    land = Landscape(8)  # one for which the policy needs more than a batch
    alone = await search(InsightProposer(land.space, 8), land)
    found = await with_llm(land, knowing(land))
    assert found.reached < alone.reached
    assert max(t.round for t in found.trials) == 1
