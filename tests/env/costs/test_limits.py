"""Constraints that can be judged before a run."""

from __future__ import annotations

from typing import Any

import pytest

from env.allocation import Allocation, StageSetting
from env.costs import CostOptions, PlanCost
from env.costs.catalogue import catalogued
from env.spec import StudySpec
from env.spec.check import check_study
from planner.proposers import Proposal
from planner.proposers.initial import initial_trials
from planner.review import review
from planner.space import SearchSpace
from tests.simulated import simulated_spec

ARCHITECTURES = {"small": "llama-3.2-1b", "large": "llama-3.1-8b", "judge": "qwen2.5-0.5b"}


def spec(constraints: dict[str, Any], known: bool = True, **plan: Any) -> StudySpec:
    raw = simulated_spec().model_dump(mode="json")
    if known:
        for name, model in raw["pipeline"]["models"].items():
            model["architecture"], model["parameters"] = ARCHITECTURES[name], None
    raw["constraints"] = constraints
    raw["budget"]["plan"].update(plan)
    return StudySpec.model_validate(raw)


def allocation(model: str, samples: int = 1, last: str = "vote") -> Allocation:
    stages = {name: StageSetting(model, "vote", samples) for name in ("find", "read")}
    return Allocation.of({**stages, "solve": StageSetting(model, last, samples)})


def test_a_predicted_latency_is_the_idealized_runtime_on_the_named_accelerator() -> None:
    study = spec({"latency": {"seconds": 0.2, "accelerator": "h100-sxm"}})
    space = SearchSpace(study)
    runtime = PlanCost(study.pipeline, "runtime", CostOptions(accelerator="h100-sxm"))
    slow = allocation("small", 16)
    assert space.limits.latency(slow) == pytest.approx(runtime.allocation(slow))
    (fault,) = [f for f in space.faults(slow) if "slow" in f]
    assert "0.2 s allowed" in fault
    assert not space.faults(allocation("small", 2))


def test_measured_seconds_over_idealized_ones_scale_the_prediction() -> None:
    plain = SearchSpace(spec({"latency": {"seconds": 9, "accelerator": "h100-sxm"}}))
    fitted = SearchSpace(spec({"latency": {"seconds": 9, "accelerator": "h100-sxm"}}, calibration=2.5))
    one = allocation("large")
    assert fitted.limits.latency(one) == pytest.approx(2.5 * (plain.limits.latency(one) or 0))


def test_memory_counts_every_model_once_and_the_largest_cache_a_stage_needs() -> None:
    space = SearchSpace(spec({"memory": {"bytes": 1e12, "queries": 10}}))
    small = catalogued(ARCHITECTURES["small"])
    weights = small.architecture.layers  # a sanity check that the entry is the one meant
    assert weights == 16
    one, two = space.limits.memory(allocation("small", 1)), space.limits.memory(allocation("small", 2))
    assert one is not None
    assert two is not None
    per_token = 2 * 16 * 8 * 64 * 2
    assert two - one == pytest.approx(10 * 10 * per_token)  # one more sample of 10 tokens in 10 queries
    both = Allocation.of(
        {
            "find": StageSetting("large", "vote", 1),
            "read": StageSetting("small", "vote", 1),
            "solve": StageSetting("small", "vote", 1),
        }
    )
    large = space.limits.memory(allocation("large"))
    assert large is not None
    assert space.limits.memory(both) == pytest.approx(one + large)
    judged = space.limits.memory(allocation("small", 2, "best_of_n"))
    assert judged is not None
    assert judged > two + 0.9e9  # the verifier's weights


def test_proposals_that_break_a_constraint_are_refused_with_the_numbers() -> None:
    space = SearchSpace(spec({"memory": {"bytes": 5e9}}))
    (verdict,) = review([Proposal(allocation("large"), "agent")], space, (), 1)
    assert not verdict.accepted
    assert "5 GB allowed" in verdict.reason


def test_everything_the_space_offers_keeps_to_the_constraints() -> None:
    space = SearchSpace(spec({"memory": {"bytes": 5e9}, "latency": {"seconds": 0.15, "accelerator": "h100-sxm"}}))
    offered = list(space.allocations())
    assert offered
    assert not any(space.faults(a) for a in offered)
    assert {s.model for a in offered for _, s in a.settings} == {"small"}
    first = initial_trials(space)
    assert len(first) > 1
    assert not any(space.faults(p.allocation) for p in first if p.allocation is not None)
    assert any("keep to" in p.reason for p in first)


@pytest.mark.parametrize(
    ("constraints", "field", "message"),
    [
        ({"latency": {"seconds": 1e-4, "accelerator": "h100-sxm"}}, "constraints.latency.seconds", "fastest"),
        ({"memory": {"bytes": 1e9}}, "constraints.memory.bytes", "smallest"),
        ({"latency": {"seconds": 1}}, "constraints.latency.accelerator", "name the accelerator"),
        ({"stage_quality": {"read": 0.9}}, "constraints.stage_quality.read", "no metric"),
        ({"stage_quality": {"reed": 0.9}}, "constraints.stage_quality.reed", "no stage"),
    ],
)
def test_a_constraint_that_leaves_nothing_or_cannot_be_judged_is_named(
    constraints: dict[str, Any], field: str, message: str
) -> None:
    (fault,) = check_study(spec(constraints))
    assert fault.path == field
    assert message in fault.message


def test_memory_needs_the_architecture_of_every_model() -> None:
    faults = check_study(spec({"memory": {"bytes": 1e12}}, known=False))
    assert {f.path for f in faults} == {f"pipeline.models.{m}.architecture" for m in ("small", "large", "judge")}
