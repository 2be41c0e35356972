"""Leaving out parts of the method: what is off is neither told, asked for, kept nor used."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from env.errors import ApportionError
from env.spec import StudySpec
from planner.bench.scripted import data_block
from planner.history import Guideline, History
from planner.proposers import InsightProposer
from planner.proposers.ablation import PARTS, Ablation
from planner.proposers.agent import AgentProposer, LlmSettings
from planner.proposers.agent.prompting import PromptWriter
from planner.proposers.agent.schemas import guidelines_form
from planner.proposers.guidelines import RuleGuidelines
from planner.proposers.initial import initial_trials
from tests.planner.proposers.agent_cases import TASK, history, space, trial
from tests.scripted_llm import ScriptedLlm
from tests.simulated import simulated_spec

SPACE = space()
NOTES = tuple(Guideline(1, i, f"note of insight {i}") for i in range(4))
PAST = replace(
    history(SPACE, 2),
    trials=tuple(trial(i, p.allocation, SPACE) for i, p in enumerate(initial_trials(SPACE)) if p.allocation),
    guidelines=NOTES,
)
TOLD = {
    1: "Stages want different models",
    2: "Samples pay off up to a point",
    3: "Stages are not independent",
}


def without(*insights: int) -> Ablation:
    return Ablation.of(f"insight{i}" for i in insights)


def prompts(ablation: Ablation) -> tuple[str, str]:
    writer = PromptWriter(SPACE, TASK, 60_000, ablation)
    written = (writer.propose(PAST, 4, ()), writer.reflect(PAST))
    return tuple(f"{p.system}\n\n{p.user}" for p in written)  # type: ignore[return-value]


@pytest.mark.parametrize("left_out", [(), (1,), (2,), (3,), (1, 2, 3)])
def test_an_insight_left_out_is_not_in_the_prompts_nor_are_its_guidelines(left_out: tuple[int, ...]) -> None:
    for text in prompts(without(*left_out)):
        for insight, words in TOLD.items():
            assert (words in text) == (insight not in left_out)
        kept = {row["insight"] for row in json.loads(f"[{data_block(text, 'guidelines')}]")}
        assert kept == {0, 1, 2, 3} - set(left_out)
        assert bool(data_block(text, "curves")) == (2 not in left_out)
        assert bool(data_block(text, "marginal")) == (2 not in left_out)
        assert ("Tune one stage at a time" in text) == (3 in left_out)
    reflect = prompts(without(*left_out))[1]
    for insight in TOLD:
        assert (f"- insight {insight}:" in reflect) == (insight not in left_out)


@pytest.mark.parametrize("left_out", [(), (1,), (2, 3)])
def test_an_insight_left_out_has_no_place_in_the_reply_nor_among_the_rules(
    left_out: tuple[int, ...],
) -> None:
    ablation = without(*left_out)
    items = guidelines_form(SPACE, ablation).schema["properties"]["guidelines"]["items"]  # type: ignore[index]
    assert set(items["properties"]["insight"]["enum"]) == {0, 1, 2, 3} - set(left_out)
    assert {g.insight for g in RuleGuidelines(SPACE, ablation).of(PAST)} - {0} == {1, 2, 3} - set(left_out)


@pytest.mark.asyncio
async def test_guidelines_that_an_llm_writes_all_the_same_are_dropped() -> None:
    rows = [{"insight": i, "stage": None, "text": f"insight {i}", "structured": {}} for i in range(4)]
    with ScriptedLlm(then={"guidelines": rows}) as llm:
        proposer = AgentProposer(SPACE, LlmSettings("m", llm.base_url), TASK, 0, ablation=without(1, 3))
        found = await proposer.reflect(PAST)
    assert [g.insight for g in found.guidelines] == [0, 2]


@pytest.mark.asyncio
async def test_without_insight_1_as_many_first_trials_are_drawn_by_chance() -> None:
    usual = initial_trials(SPACE)
    drawn = []
    for seed in (1, 1, 2):
        proposer = AgentProposer(SPACE, LlmSettings("m", "http://127.0.0.1:9/v1"), TASK, seed, ablation=without(1))
        drawn.append((await proposer.initial(History(0, ()))).proposals)
    assert len(drawn[0]) == len(usual)
    assert drawn[0] == drawn[1] != drawn[2]
    assert {p.allocation for p in drawn[0]} != {p.allocation for p in usual}
    assert all(p.allocation is not None and not SPACE.faults(p.allocation) for p in drawn[0])


def test_parts_have_names_and_others_are_refused() -> None:
    assert Ablation.of(PARTS).parts == tuple(PARTS)
    assert Ablation.of(()) == Ablation()
    with pytest.raises(ApportionError, match="nothing called insight4 can be left out"):
        Ablation.of(["insight4"])


def test_a_spec_names_the_insights_it_leaves_out() -> None:
    spec = simulated_spec(proposer={"kind": "insight", "ablate": ["insight2", "insight3"]})
    assert Ablation.of(spec.proposer.ablate) == Ablation(without_insight_2=True, without_insight_3=True)
    raw = spec.model_dump(mode="json")
    raw["proposer"]["ablate"] = ["insight9"]
    with pytest.raises(ValueError, match="insight9"):
        StudySpec.model_validate(raw)
    InsightProposer(SPACE, 0, ablation=Ablation(without_insight_2=True))
