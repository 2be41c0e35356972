from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from env.allocation import Allocation, StageSetting
from env.costs import PlanCost, agenttts_units, cost_model, flops
from env.costs._base import StageTokens
from tests.simulated import simulated_spec


@pytest.mark.parametrize(
    ("parameters", "prompt", "output", "samples", "units"),
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
    parameters: float, prompt: int, output: int, samples: int, units: float
) -> None:
    assert agenttts_units(parameters, prompt, output, samples) == pytest.approx(units, abs=0.005)


def test_one_more_sample_of_the_reference_model_is_one_unit() -> None:
    more = agenttts_units(3e9, 128, 64, 11) - agenttts_units(3e9, 128, 64, 10)
    assert more == pytest.approx(1.0)


def test_the_prompt_is_prefilled_once_whatever_the_samples() -> None:
    assert flops(1e9, 100, 10, 4) == 2e9 * (100 + 40)


@given(
    st.sampled_from(["flops", "agenttts", "tokens"]),
    st.floats(1e6, 1e12),
    st.integers(1, 10_000),
    st.integers(1, 10_000),
    st.integers(1, 100),
)
def test_no_unit_gets_cheaper_with_more_samples(
    unit: str, parameters: float, prompt: int, output: int, samples: int
) -> None:
    model = cost_model(unit)  # type: ignore[arg-type]
    less = model.stage_cost(parameters, StageTokens(prompt, output, samples))
    more = model.stage_cost(parameters, StageTokens(prompt, output, samples + 1))
    assert 0 <= less <= more


def test_best_of_n_pays_the_verifier_for_every_sample() -> None:
    spec = simulated_spec()
    cost = PlanCost(spec.pipeline, "flops")
    stage = spec.pipeline.stage("solve")
    vote = cost.stage(stage, StageSetting("small", "vote", 4))
    judged = cost.stage(stage, StageSetting("small", "best_of_n", 4))
    assert judged - vote == pytest.approx(2 * 1e8 * 4 * (20 + 10))


def test_an_allocation_costs_the_sum_of_its_stages() -> None:
    spec = simulated_spec()
    cost = PlanCost(spec.pipeline, "flops")
    allocation = Allocation.of({s.name: StageSetting("large", "vote", 2) for s in spec.pipeline.stages})
    assert cost.allocation(allocation) == pytest.approx(3 * 2 * 8e9 * (20 + 2 * 10))
