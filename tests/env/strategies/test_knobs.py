"""Knobs: further dimensions of a stage, in its settings, its prompts, its sampling and its costs."""

from __future__ import annotations

from typing import Any

import pytest

from env.allocation import Allocation, StageSetting
from env.bank import MemorySampleBank
from env.costs import PlanCost
from env.execution import Environment
from env.spec import SpecError, StudySpec
from env.spec.load import validated_spec
from env.strategies.settings import normal_setting, setting_faults, stage_settings
from planner.space import SearchSpace
from tests.simulated import DiceBackends, simulated_spec

KNOBS: dict[str, Any] = {"documents": [1, 3], "temperature": [0.5, 1.0], "asc.threshold": [0.8, 0.95]}


def spec(**stage_changes: Any) -> StudySpec:
    raw = simulated_spec().model_dump(mode="json")
    raw["data"]["rows"] = [{**row, "texts": ["a", "b", "c"]} for row in raw["data"]["rows"]]
    first = raw["pipeline"]["stages"][0]
    first["prompt"][1]["template"] = "{{ question }}{% for t in texts[:documents] %} {{ t }}{% endfor %}"
    first.update({"strategies": ["vote", "asc"], "knobs": KNOBS, **stage_changes})
    first["tokens"] = {"prompt": 20, "output": 10, "per": {"documents": 5}}
    first["samples"] = {"min": 1, "max": 4, "choices": [1, 4]}
    return validated_spec(raw)


def test_every_combination_of_what_means_something_is_one_setting() -> None:
    settings = stage_settings(spec().pipeline.stages[0])
    # Two models, times documents and temperature: one sample, a vote of four, and asc of four with two thresholds.
    assert len(settings) == len(set(settings)) == 2 * 4 * (1 + 1 + 2)
    assert all(("asc.threshold" in dict(s.knobs)) == (s.strategy == "asc") for s in settings)


def test_a_setting_is_brought_to_normal_form_and_survives_json() -> None:
    stage = spec().pipeline.stages[0]
    given = StageSetting("small", "vote", 4, (("asc.threshold", 0.8), ("documents", 3), ("temperature", 0.5)))
    assert normal_setting(stage, given).knobs == (("documents", 3), ("temperature", 0.5))
    allocation = Allocation.of({"find": normal_setting(stage, given)})
    assert Allocation.from_json(allocation.to_json()) == allocation
    assert str(allocation) == "find=small/vote/4[documents=3,temperature=0.5]"
    strict = {
        "find": {"model": "small", "strategy": "vote", "samples": 4, "knobs": {"documents": 3, "asc.threshold": None}}
    }
    assert dict(Allocation.from_json(strict)["find"].knobs) == {"documents": 3}


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        (StageSetting("small", "vote", 4, (("temperature", 0.5),)), "knob documents is missing"),
        (StageSetting("small", "vote", 4, (("documents", 2), ("temperature", 0.5))), "2 not in 1, 3"),
        (StageSetting("small", "vote", 4, (("colour", 1), ("documents", 1), ("temperature", 0.5))), "no knob 'colour'"),
    ],
)
def test_a_setting_the_stage_does_not_open_is_refused_with_the_choices(setting: StageSetting, words: str) -> None:
    assert words in "; ".join(setting_faults(spec().pipeline.stages[0], setting))


@pytest.mark.parametrize(
    ("changes", "path", "words"),
    [
        ({"knobs": {"beam.width": [2]}}, "knobs.beam.width[0]", "no strategy 'beam'"),
        ({"knobs": {**KNOBS, "asc.speed": [2]}}, "knobs.asc.speed[0]", "it has threshold, wave"),
        ({"knobs": {**KNOBS, "asc.threshold": [2.0]}}, "knobs.asc.threshold[0]", "at most 1"),
        ({"knobs": {**KNOBS, "temperature": ["hot"]}}, "knobs.temperature[0]", "number from 0 to 10"),
        ({"knobs": {**KNOBS, "documents": [1, "two"]}}, "knobs.documents", "different kinds"),
        ({"strategies": ["beam"], "knobs": {"documents": [1]}}, "step_end", "what ends a step"),
        ({"critic": "nobody"}, "critic", "no model 'nobody'"),
    ],
)
def test_a_wrong_knob_or_strategy_is_a_fault_of_its_field(changes: dict[str, Any], path: str, words: str) -> None:
    with pytest.raises(SpecError) as raised:
        spec(**changes)
    found = {fault.path: fault.message for fault in raised.value.faults}
    assert words in found[f"pipeline.stages[0].{path}"]


def test_documents_cost_their_tokens_and_reach_the_prompt() -> None:
    study = spec()
    stage = study.pipeline.stages[0]
    one, three = (StageSetting("small", "vote", 1, (("documents", n), ("temperature", 0.5))) for n in (1, 3))
    cost = PlanCost(study.pipeline, "tokens")
    assert cost.stage(stage, three) - cost.stage(stage, one) == 2 * 5
    environment = Environment(study.pipeline, "tokens", MemorySampleBank(), DiceBackends())
    run = environment.stage_run(stage, three, {"question": "7", "texts": ["a", "b", "c"]})
    assert run.messages[-1].content == "7 a b c"
    assert run.sampling.temperature == 0.5


def test_the_search_space_prices_and_samples_knobs_like_everything_else() -> None:
    space = SearchSpace(spec())
    some = next(space.allocations())
    assert space.faults(some) == []
    assert space.normal(some) == some
    assert {len(a["find"].knobs) for a in space.allocations()} == {2, 3}


@pytest.mark.asyncio
async def test_settings_that_differ_in_a_knob_are_drawn_apart() -> None:
    study = spec()
    backends = DiceBackends()
    environment = Environment(study.pipeline, "flops", MemorySampleBank(), backends)
    rest = {name: StageSetting("large", "vote", 1) for name in ("read", "solve")}
    both = [
        Allocation.of({"find": StageSetting("small", "vote", 1, (("documents", n), ("temperature", 0.5))), **rest})
        for n in (1, 3)
    ]
    from env.tasks.data import load_splits

    one, three = await environment.run_batch(both, load_splits(study.data).search[:5], "b")
    assert {e.stages[0].prompt_key for e in one.evidence}.isdisjoint(e.stages[0].prompt_key for e in three.evidence)
