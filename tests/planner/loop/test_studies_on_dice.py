"""Whole studies on simulated models: the loop, its archive and its plan."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from env.allocation import Allocation, StageSetting
from env.errors import ApportionError
from env.spec import SpecError
from planner.archive import Archive, open_archive
from planner.plans import PlanDocument
from planner.run import run_study
from planner.space import SearchSpace
from tests.simulated import ACCURACY, DiceBackends, simulated_spec

NO_LLM: dict[str, str] = {}


@pytest.fixture
def archive(tmp_path: Path) -> Iterator[Archive]:
    with open_archive(f"sqlite:///{tmp_path / 'archive.db'}") as opened:
        yield opened


async def run(
    archive: Archive, backends: DiceBackends | None = None, id: str = "s1", **changes: object
) -> PlanDocument:
    return await run_study(simulated_spec(**changes), archive, id, NO_LLM, backends or DiceBackends())


@pytest.mark.asyncio
async def test_a_study_ends_with_a_tested_plan_within_budget(archive: Archive) -> None:
    plan = await run(archive)
    assert plan.predicted_cost <= plan.budget
    assert plan.test_score is not None
    assert plan.test_score.examples == 30
    assert archive.studies.get("s1").status == "done"
    assert len(archive.trials.list("s1", "search")) == plan.trials == 14
    assert {r.label for r in plan.rivals} >= {"large once in every stage"}
    assert plan.guidelines
    assert "sealed test examples" in plan.explanation


@pytest.mark.asyncio
async def test_the_insight_policy_finds_that_read_needs_the_large_model(archive: Archive) -> None:
    plan = await run(archive)
    assert ACCURACY["read"]["large"] > ACCURACY["read"]["small"]
    assert plan.allocation["read"]["model"] == "large"


@pytest.mark.asyncio
async def test_the_same_study_gives_the_same_trials_and_plan(archive: Archive, tmp_path: Path) -> None:
    first = await run(archive)
    with open_archive(f"sqlite:///{tmp_path / 'other.db'}") as other:
        second = await run(other)
        two = other.trials.list("s1", "search")
    assert first.allocation == second.allocation
    one = archive.trials.list("s1", "search")
    assert [t.allocation for t in one] == [t.allocation for t in two]
    assert [t.score for t in one] == [t.score for t in two]


@pytest.mark.asyncio
async def test_the_test_split_is_not_touched_before_the_end(archive: Archive) -> None:
    await run(archive)
    tests = archive.trials.list("s1", "test")
    search = {
        e.example_id for t in archive.trials.list("s1", "search") for e in archive.trials.evidence("s1", t.trial_no)
    }
    sealed = {e.example_id for t in tests for e in archive.trials.evidence("s1", t.trial_no)}
    assert not search & sealed
    assert len({t.created_at for t in tests} | {tests[0].created_at}) <= len(tests)
    assert min(t.created_at for t in tests) > max(t.created_at for t in archive.trials.list("s1", "search"))


@pytest.mark.asyncio
async def test_a_space_smaller_than_the_trial_budget_ends_early(archive: Archive) -> None:
    spec = simulated_spec().model_dump(mode="json")
    for stage in spec["pipeline"]["stages"]:
        stage["samples"] = {"min": 1, "max": 1}
        stage["models"] = ["small", "large"] if stage["name"] == "read" else ["small"]
    plan = await run(archive, pipeline=spec["pipeline"])
    assert plan.trials == 2


@pytest.mark.asyncio
async def test_the_draw_budget_is_never_exceeded(archive: Archive) -> None:
    limit = 4000
    backends = DiceBackends()
    plan = await run(
        archive, backends, budget={"plan": {"limit": 6e12, "unit": "flops"}, "search": {"trials": 40, "draws": limit}}
    )
    usage = archive.ledgers.usage("s1", "search")
    assert 0 < usage.settled <= limit
    assert usage.reserved == 0
    assert plan.trials == len(archive.trials.list("s1", "search")) < 40
    drawn = sum(t.spend.new_draws for t in archive.trials.list("s1", "search"))
    assert drawn == usage.settled


@pytest.mark.asyncio
async def test_random_search_runs_through_the_same_loop(archive: Archive) -> None:
    plan = await run(archive, proposer={"kind": "random", "batch": 5})
    assert {p.origin for p in archive.proposals.list("s1")} == {"random"}
    assert plan.trials == 14


@pytest.mark.asyncio
async def test_an_agent_without_an_llm_is_refused_clearly(archive: Archive) -> None:
    with pytest.raises(ApportionError, match="no LLM is configured"):
        await run(archive, proposer={"kind": "agent"})
    assert archive.studies.get("s1").status == "failed"


@pytest.mark.asyncio
async def test_models_that_always_fail_end_the_study_with_the_reason(archive: Archive) -> None:
    with pytest.raises(ApportionError, match="the dice fell off the table"):
        await run(archive, DiceBackends(fails=10**9))
    study = archive.studies.get("s1")
    assert study.status == "failed"
    assert "no trial could be scored" in study.error


@pytest.mark.asyncio
async def test_a_cancelled_study_stops_and_keeps_what_it_drew(archive: Archive) -> None:
    spec = simulated_spec()
    archive.studies.create("s1", spec.name, spec.model_dump(mode="json"), 0)
    archive.studies.request_cancel("s1")
    with pytest.raises(ApportionError, match="cancelled"):
        await run(archive)
    assert archive.studies.get("s1").status == "cancelled"


@pytest.mark.asyncio
async def test_a_faulty_spec_creates_no_study(archive: Archive) -> None:
    with pytest.raises(SpecError, match="below the cheapest"):
        await run(archive, budget={"plan": {"limit": 1.0, "unit": "flops"}})
    assert archive.studies.list() == []


@pytest.mark.asyncio
async def test_plans_come_near_the_true_optimum_of_the_dice(archive: Archive) -> None:
    """The simulator's exact optimum is known in the limit: large read, and votes where the budget allows them."""
    plan = await run(archive, budget={"plan": {"limit": 6e12, "unit": "flops"}, "search": {"trials": 24}})
    space = SearchSpace(simulated_spec())
    naive = Allocation.of({s: StageSetting("large", "vote", 1) for s in ("find", "read", "solve")})
    assert space.total(naive) <= space.limit
    assert plan.search_score > 0.9 > 0.8 * 0.9 * 0.7
