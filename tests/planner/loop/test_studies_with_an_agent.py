"""Whole studies proposed by an LLM over real HTTP: competent, hostile, slow, down."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from env.allocation import Allocation, StageSetting
from planner.archive import Archive, open_archive
from planner.plans import PlanDocument
from planner.run import run_study
from planner.space import SearchSpace
from tests.scripted_llm import Garbage, Late, ScriptedLlm, Status, best_again, guideline_follower
from tests.simulated import DiceBackends, simulated_spec


@pytest.fixture
def archive(tmp_path: Path) -> Iterator[Archive]:
    with open_archive(f"sqlite:///{tmp_path / 'archive.db'}") as opened:
        yield opened


def environ(llm: ScriptedLlm) -> dict[str, str]:
    return {"APPORTION_LLM_MODEL": "scripted", "APPORTION_LLM_BASE_URL": llm.base_url, "OPENAI_API_KEY": "sk-secret"}


async def run(archive: Archive, llm: ScriptedLlm, **proposer: Any) -> PlanDocument:
    spec = simulated_spec(proposer={"kind": "auto", "batch": 3, **proposer})
    return await run_study(spec, archive, "s1", environ(llm), DiceBackends())


def over_budget() -> dict[str, Any]:
    setting = StageSetting("large", "vote", 16)
    allocation = Allocation.of(dict.fromkeys(("find", "read", "solve"), setting))
    assert SearchSpace(simulated_spec()).faults(allocation)
    return {"allocation": allocation.to_json(), "reason": "all in", "expected_score": 0.99}


@pytest.mark.asyncio
async def test_with_an_llm_configured_the_agent_proposes(archive: Archive) -> None:
    with ScriptedLlm([], then=guideline_follower()) as llm:
        plan = await run(archive, llm)
    assert archive.studies.get("s1").proposer == "agent"
    assert plan.provenance.proposer == "agent"
    origins = [p.origin for p in archive.proposals.list("s1")]
    assert "agent" in origins
    assert "fill" not in origins
    usage = archive.ledgers.usage("s1", "proposer")
    assert 0 < usage.settled <= 200_000
    calls = [p for p in archive.proposals.list("s1") if p.origin == "call"]
    assert all(p.prompt and p.reply and p.llm_model == "scripted" for p in calls)
    assert sum(p.tokens_in + p.tokens_out for p in calls) == usage.settled


@pytest.mark.asyncio
async def test_malformed_over_budget_duplicate_and_late_replies_do_not_stop_a_study(archive: Archive) -> None:
    script: list[Any] = [
        "{broken json",  # reflect
        {"proposals": [over_budget()]},
        best_again,
        Late(3.0, {"guidelines": []}),  # reflect: past the timeout
        Late(3.0, "too late"),
        Late(3.0, "too late"),
        Garbage(b"\x00\x01", "text/plain"),
    ]
    with ScriptedLlm(script, then=guideline_follower()) as llm:
        plan = await run(archive, llm, timeout_s=1.0)
    assert plan.trials == 14
    proposals = archive.proposals.list("s1")
    reasons = [p.verdict_reason for p in proposals if p.verdict == "refused"]
    assert any("over budget" in r for r in reasons)
    assert any("duplicate" in r for r in reasons)
    assert any(p.origin == "fill" and p.verdict == "accepted" for p in proposals)
    # What review refused was told to the LLM in its next prompt.
    assert any("over budget" in prompt for prompt in llm.prompts)
    assert all("sk-secret" not in f"{p.prompt}{p.reply}{p.verdict_reason}" for p in proposals)


@pytest.mark.asyncio
async def test_an_llm_that_is_down_leaves_the_insight_policy_in_charge(archive: Archive, tmp_path: Path) -> None:
    with ScriptedLlm([], then=Status(500)) as llm:
        plan = await run(archive, llm, timeout_s=2.0)
        asked = len(llm.requests)
    with open_archive(f"sqlite:///{tmp_path / 'alone.db'}") as alone:
        insight = await run_study(simulated_spec(), alone, "s1", {}, DiceBackends())
    assert plan.allocation == insight.allocation
    assert plan.trials == insight.trials
    # It is not asked for ever: some rounds of (reflect, propose) with their retries, then no more.
    assert asked <= 3 * 2 * 3


@pytest.mark.asyncio
async def test_an_agent_without_tokens_left_is_not_called(archive: Archive) -> None:
    spec = simulated_spec(
        proposer={"kind": "auto", "batch": 3},
        budget={"plan": {"limit": 6e12, "unit": "flops"}, "search": {"trials": 14}, "proposer": {"tokens": 10}},
    )
    with ScriptedLlm([], then=guideline_follower()) as llm:
        plan = await run_study(spec, archive, "s1", environ(llm), DiceBackends())
        assert llm.requests == []
    assert plan.trials == 14
