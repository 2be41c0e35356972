from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from env.allocation import Allocation, StageSetting
from env.costs import (
    UNITS,
    CostDataError,
    CostOptions,
    ModelProfile,
    PlanCost,
    StageTokens,
    agenttts_units,
    cost_model,
    flops,
)
from env.spec.study import CostUnit
from tests.env.costs.models import everything, options, profile, profiles, stage_tokens
from tests.simulated import simulated_spec

units = st.sampled_from(UNITS)

ROUNDING = 1 + 1e-9


@pytest.mark.parametrize(
    ("parameters", "prompt", "output", "samples", "cost"),
    [
        (72e9, 2048, 128, 1, 814.0),
        (70e9, 256, 64, 1, 114.67),
        (70e9, 1024, 64, 1, 394.67),
        (70e9, 1024, 256, 1, 464.67),
        (70e9, 1024, 2048, 1, 1118.0),
        (70e9, 1024, 1024, 1, 744.67),
        (70e9, 1024, 512, 1, 558.0),
    ],
)
def test_agenttts_units_equal_the_published_values(
    parameters: float, prompt: int, output: int, samples: int, cost: float
) -> None:
    assert agenttts_units(parameters, prompt, output, samples) == pytest.approx(cost, abs=0.005)


def test_one_more_sample_of_the_reference_model_is_one_unit() -> None:
    more = agenttts_units(3e9, 128, 64, 11) - agenttts_units(3e9, 128, 64, 10)
    assert more == pytest.approx(1.0)


def test_the_prompt_is_prefilled_once_whatever_the_samples() -> None:
    assert flops(1e9, 100, 10, 4) == 2e9 * (100 + 40)


@pytest.mark.parametrize(("unit", "shared", "separate"), [("flops", 2e9 * 140, 2e9 * 440), ("tokens", 140, 440)])
def test_a_prompt_that_is_not_shared_is_paid_for_each_sample(unit: CostUnit, shared: float, separate: float) -> None:
    model, tokens = ModelProfile("m", 1e9, 1e9), StageTokens(100, 10, 4)
    assert cost_model(unit).stage_cost(model, tokens) == shared
    assert cost_model(unit, CostOptions(prompt_shared=False)).stage_cost(model, tokens) == separate


def test_a_mixture_is_paid_by_its_active_parameters() -> None:
    mixture = profile("mixtral-8x7b")
    cost = cost_model("flops").stage_cost(mixture, StageTokens(1000, 0, 1))
    assert cost == 2 * mixture.active * 1000
    assert mixture.active < 0.3 * mixture.total


@given(units, profiles, stage_tokens, options)
def test_no_unit_gets_cheaper_with_more_samples_or_tokens(
    unit: CostUnit, model: ModelProfile, tokens: StageTokens, how: CostOptions
) -> None:
    priced = cost_model(unit, how)
    cost = priced.stage_cost(model, tokens)
    assert cost >= 0
    for more in (
        replace(tokens, samples=tokens.samples + 1),
        replace(tokens, prompt=tokens.prompt + 1),
        replace(tokens, prompt=tokens.prompt + 0.3),
        replace(tokens, output=tokens.output + 1),
        replace(tokens, output=tokens.output + 0.3),
        replace(tokens, prompts=tokens.prompts + 1),
    ):
        assert priced.stage_cost(model, more) * ROUNDING >= cost, more


@given(units, profiles, stage_tokens, options)
def test_every_unit_is_linear_in_the_samples(
    unit: CostUnit, model: ModelProfile, tokens: StageTokens, how: CostOptions
) -> None:
    priced = cost_model(unit, how)
    one, two, five = (priced.stage_cost(model, replace(tokens, samples=s)) for s in (1, 2, 5))
    # AgentTTS is floored at 0, below which it is not linear.
    assert five == pytest.approx(one + 4 * (two - one), rel=1e-6) or (unit == "agenttts" and one == 0)


@given(units.filter(lambda unit: unit != "agenttts"), profiles, stage_tokens, options)
def test_prompts_of_their_own_add_up(
    unit: CostUnit, model: ModelProfile, tokens: StageTokens, how: CostOptions
) -> None:
    priced = cost_model(unit, how)
    single = priced.stage_cost(model, replace(tokens, prompts=1))
    assert priced.stage_cost(model, tokens) == pytest.approx(tokens.prompts * single)


@pytest.mark.parametrize("unit", UNITS)
def test_a_model_that_only_reads_costs_its_prompts_alone(unit: CostUnit) -> None:
    priced = cost_model(unit, everything())
    reads = priced.stage_cost(profile(), StageTokens(300, 0.0, 0, prompts=4))
    assert reads == pytest.approx(priced.stage_cost(profile(), StageTokens(300, 0.0, 1, prompts=4)), rel=1e-6)
    assert reads > 0


@pytest.mark.parametrize("unit", UNITS)
def test_what_a_unit_lacks_is_told_and_refused(unit: CostUnit) -> None:
    bare, priced = ModelProfile("bare", 1e9, 1e9), cost_model(unit)
    lacks = priced.lacks(bare)
    if unit in ("flops", "agenttts", "tokens"):
        assert lacks == []
        return
    assert all(lack.message for lack in lacks)
    with pytest.raises(CostDataError):
        priced.stage_cost(bare, StageTokens(1, 1, 1))


def test_best_of_n_pays_the_verifier_for_every_sample() -> None:
    spec = simulated_spec()
    cost = PlanCost(spec.pipeline, "flops")
    stage = spec.pipeline.stage("solve")
    vote = cost.stage(stage, StageSetting("small", "vote", 4))
    judged = cost.stage(stage, StageSetting("small", "best_of_n", 4))
    assert judged - vote == pytest.approx(2 * 1e8 * 4 * (20 + 10))


def test_a_verifier_reads_candidates_one_by_one_and_not_as_one_long_text() -> None:
    spec = simulated_spec()
    pipeline = spec.pipeline.model_copy(
        update={
            "models": {
                name: model.model_copy(update={"architecture": "qwen3-0.6b"})
                for name, model in spec.pipeline.models.items()
            }
        }
    )
    cost = PlanCost(pipeline, "eflops")
    stage = pipeline.stage("solve")
    extra = [
        cost.stage(stage, StageSetting("small", "best_of_n", k)) - cost.stage(stage, StageSetting("small", "vote", k))
        for k in (2, 16)
    ]
    assert extra[1] == pytest.approx(8 * extra[0])


def test_an_allocation_costs_the_sum_of_its_stages() -> None:
    spec = simulated_spec()
    cost = PlanCost(spec.pipeline, "flops")
    allocation = Allocation.of({s.name: StageSetting("large", "vote", 2) for s in spec.pipeline.stages})
    assert cost.allocation(allocation) == pytest.approx(3 * 2 * 8e9 * (20 + 2 * 10))
