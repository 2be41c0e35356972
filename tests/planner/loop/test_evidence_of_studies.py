"""Racing, constraints, stage metrics and what the plan's document says of the evidence, in whole studies on dice."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from env.errors import ApportionError
from planner.archive import Archive, open_archive
from planner.loop import StudyContext
from planner.loop.phases import Phases
from planner.plans import PlanDocument
from planner.run import run_study
from tests.simulated import DiceBackends, simulated_spec

NO_LLM: dict[str, str] = {}


@pytest.fixture
def archive(tmp_path: Path) -> Iterator[Archive]:
    with open_archive(f"sqlite:///{tmp_path / 'archive.db'}") as opened:
        yield opened


def changes(
    racing: str = "betting",
    constraints: dict[str, Any] | None = None,
    examples: int = 60,
    limit: float = 6e12,
    proposer: str = "insight",
    **search: Any,
) -> dict[str, Any]:
    """A study on more examples, whose stages know what they should answer."""
    raw = simulated_spec().model_dump(mode="json")
    for stage in raw["pipeline"]["stages"]:
        stage["metric"], stage["gold"] = "exact_match", "question"
    rows = [{"question": f"{n}", "answer": f"{n}"} for n in range(1000, 1000 + 2 * examples)]
    return {
        "pipeline": raw["pipeline"],
        "data": {"source": "inline", "rows": rows, "search": examples, "test": examples},
        "budget": {
            "plan": {"limit": limit, "unit": "flops"},
            "search": {"trials": 10, "racing": racing, **search},
        },
        "constraints": constraints or {},
        "proposer": {"kind": proposer, "batch": 3},
    }


async def run(archive: Archive, backends: DiceBackends, id: str = "s1", **options: Any) -> PlanDocument:
    return await run_study(simulated_spec(**changes(**options)), archive, id, NO_LLM, backends)


@pytest.mark.asyncio
async def test_racing_saves_draws_and_finds_as_good_a_plan(archive: Archive, tmp_path: Path) -> None:
    raced, full = DiceBackends(), DiceBackends()
    # Allocations at random: a policy that tries only good ones leaves little to stop.
    plan = await run(archive, raced, proposer="random")
    with open_archive(f"sqlite:///{tmp_path / 'other.db'}") as other:
        plain = await run(other, full, racing="off", proposer="random")
        assert not any(t.stopped for t in other.trials.list("s1", "search"))
    assert plan.test_score is not None
    assert plain.test_score is not None
    assert plan.test_score.estimate >= plain.test_score.estimate - 0.03
    assert raced.draws < 0.9 * full.draws  # the sealed test included, which is never raced
    trials = archive.trials.list("s1", "search")
    stopped = [t for t in trials if t.stopped]
    assert stopped
    assert all(t.examples_planned == 60 for t in trials)
    assert {t.scored for t in stopped} <= {16, 32}
    assert any("stopped early" in remark for remark in plan.remarks)
    events = [e.payload for e in archive.events.after("s1") if e.kind == "trial"]
    assert {e["trial_no"] for e in events if e["stopped"]} == {t.trial_no for t in stopped}


@pytest.mark.asyncio
async def test_a_stopped_trial_is_neither_the_plan_nor_on_the_front(archive: Archive) -> None:
    plan = await run(archive, DiceBackends())
    stopped = {t.trial_no for t in archive.trials.list("s1", "search") if t.stopped}
    assert not stopped & {point.trial_no for point in plan.pareto}
    chosen = next(t for t in archive.trials.list("s1", "search") if t.allocation.to_json() == plan.allocation)
    assert not chosen.stopped


@pytest.mark.asyncio
async def test_a_batch_cut_off_while_it_was_recorded_ends_as_if_nothing_had_happened(
    archive: Archive, tmp_path: Path
) -> None:
    await run(archive, DiceBackends())
    expected = archive.trials.list("s1", "search")
    with open_archive(f"sqlite:///{tmp_path / 'cut.db'}") as cut:
        spec = simulated_spec(**changes())
        cut.studies.create("s1", spec.name, spec.model_dump(mode="json"), spec.seed)
        context = StudyContext(cut, "s1", NO_LLM, DiceBackends())
        phases = Phases(context)
        await phases.initialise()
        record, recorded = cut.trials.record, 0

        def dying(*arguments: Any) -> Any:
            nonlocal recorded
            recorded += 1
            if recorded == 2:
                raise KeyboardInterrupt
            return record(*arguments)

        cut.trials.record = dying  # type: ignore[method-assign]
        with pytest.raises(KeyboardInterrupt):
            await phases.execute(0)
        del cut.trials.record  # type: ignore[attr-defined]
        await context.close()
        await run_study(spec, cut, "s1", NO_LLM, DiceBackends())
        resumed = cut.trials.list("s1", "search")
    keys = [(t.trial_no, t.allocation, t.score, t.scored, t.spend.new_draws) for t in expected]
    assert [(t.trial_no, t.allocation, t.score, t.scored, t.spend.new_draws) for t in resumed] == keys


@pytest.mark.asyncio
async def test_every_trial_states_how_good_its_stages_are(archive: Archive) -> None:
    plan = await run(archive, DiceBackends())
    for trial in archive.trials.list("s1", "search"):
        evidence = archive.trials.evidence("s1", trial.trial_no)
        for stage in ("find", "read", "solve"):
            marks = [o.score for e in evidence for o in e.stages if o.stage == stage and o.score is not None]
            assert trial.stage_scores[stage] == pytest.approx(sum(marks) / len(marks))
        # A wrong answer of an earlier stage is never put right on these dice.
        assert trial.stage_scores["find"] >= trial.stage_scores["read"] >= trial.stage_scores["solve"]
    assert [s.stage for s in plan.stage_scores] == ["find", "read", "solve"]
    assert all(s.score.examples == 60 for s in plan.stage_scores)


@pytest.mark.asyncio
async def test_the_plan_meets_the_least_quality_of_a_stage(archive: Archive) -> None:
    spec = simulated_spec(**changes(constraints={"stage_quality": {"find": 0.9}}, proposer="random"))
    plan = await run_study(spec, archive, "s1", NO_LLM, DiceBackends())
    (line,) = plan.constraints
    assert line.subject == "stage_quality.find"
    assert line.met
    assert line.value is not None
    assert line.value >= 0.9
    assert line.interval is not None
    assert line.interval.low < line.value <= line.interval.high
    assert line.on_test is not None
    assert "stage_quality.find at least 0.9" in plan.explanation
    context = StudyContext(archive, "s1", NO_LLM, DiceBackends())
    seen = {t.trial_no: t.feasible for t in context.history(0).trials}
    await context.close()
    assert set(seen.values()) == {True, False}
    for trial in archive.trials.list("s1", "search"):
        assert seen[trial.trial_no] == (trial.stage_scores["find"] >= 0.9)
    assert {p.trial_no for p in plan.pareto} <= {n for n, met in seen.items() if met}


@pytest.mark.asyncio
async def test_where_no_trial_is_good_enough_the_error_names_the_constraint_and_how_near_it_came(
    archive: Archive,
) -> None:
    options = changes(racing="off", constraints={"stage_quality": {"find": 0.5}})
    options["pipeline"]["stages"][0]["gold"] = "other"
    for row in options["data"]["rows"]:
        row["other"] = "nobody answers that"
    with pytest.raises(
        ApportionError, match=r"stage_quality\.find \(at least 0\.5\): 0 of 10 .* the nearest reached 0"
    ):
        await run_study(simulated_spec(**options), archive, "s1", NO_LLM, DiceBackends())
    assert archive.studies.get("s1").status == "failed"


@pytest.mark.asyncio
async def test_measured_latency_decides_which_trial_may_become_the_plan(archive: Archive) -> None:
    roomy = {"latency": {"seconds": 3600, "basis": "measured"}}
    plan = await run(archive, DiceBackends(), constraints=roomy, racing="off")
    assert plan.constraints[0].basis == "measured"
    assert plan.constraints[0].met
    tight = {"latency": {"seconds": 1e-12, "basis": "measured"}}
    with pytest.raises(ApportionError, match=r"constraints\.latency \(at most 1e-12 s\)"):
        await run(archive, DiceBackends(), "s2", constraints=tight, racing="off")


@pytest.mark.asyncio
async def test_the_document_corrects_the_search_score_and_says_what_can_be_told_apart(archive: Archive) -> None:
    plan = await run(archive, DiceBackends(), racing="off")
    assert plan.search_estimate == plan.search_score
    assert plan.corrected_estimate is not None
    assert plan.corrected_estimate.low <= plan.corrected_estimate.estimate <= plan.search_score
    assert plan.corrected_estimate.low < plan.corrected_estimate.high
    for rival in plan.rivals:
        assert rival.p_value is not None
        assert rival.words in plan.explanation
        assert (rival.verdict == "cannot be told apart") == (
            rival.p_value > 0.05 or rival.difference.low <= 0 <= rival.difference.high
        )
    (event,) = [e for e in archive.events.after("s1") if e.kind == "plan"]
    assert event.payload["verdicts"] == [r.words for r in plan.rivals]


@pytest.mark.asyncio
async def test_the_next_samples_worth_is_read_from_curves_that_know_it(archive: Archive) -> None:
    plan = await run(archive, DiceBackends(), racing="off", limit=2e12)
    trials = {t.trial_no: t for t in archive.trials.list("s1", "search")}
    assert plan.marginal
    for line in plan.marginal:
        source = trials[line.source]
        assert line.samples == plan.allocation[line.stage]["samples"]
        assert line.next_samples > line.samples
        assert source.allocation[line.stage].samples >= line.next_samples
        assert source.allocation[line.stage].model == plan.allocation[line.stage]["model"]
        assert line.low <= line.gain <= line.high
        assert line.cost > 0
        assert line.per_unit == pytest.approx(line.gain / line.cost * plan.budget / 100)
