from __future__ import annotations

import asyncio
import math
import random
from dataclasses import replace

import numpy as np
import pytest

from planner.bench.measures import trials_to_reach
from planner.bench.rehearsal import rehearse
from planner.bench.simulator import SimulatedProblem, simulated
from planner.history import History, PastStudy, RefusedView, TrialView
from planner.proposers import InsightProposer, RandomProposer, Reflection, Suggestions
from planner.proposers.observations import observations, past_observations
from planner.proposers.surrogate import Surrogate


def earlier(problem: SimulatedProblem, harmful: bool = False, trials: int = 20) -> PastStudy:
    """A study of the same pipeline: twenty trials at random; where it is to do harm, the worst scored highest."""
    evaluator = problem.evaluator(999)
    views = [evaluator.run(a, i, 0).view for i, a in enumerate(problem.space.sample(random.Random(1), trials), 1)]
    if harmful:
        top, bottom = max(v.score for v in views), min(v.score for v in views)
        views = [replace(v, score=top + bottom - v.score, curves={}) for v in views]
    return PastStudy("old", "an earlier study", tuple(views))


class Warm:
    """The insight policy with a past."""

    kind = "insight"

    def __init__(self, problem: SimulatedProblem, past: tuple[PastStudy, ...]) -> None:
        self._insight = InsightProposer(problem.space, 0, 1)
        self._past = past

    async def initial(self, history: History) -> Suggestions:
        return await self._insight.initial(replace(history, past=self._past))

    async def reflect(self, history: History) -> Reflection:
        return Reflection(())

    async def propose(self, history: History, count: int, refused: tuple[RefusedView, ...]) -> Suggestions:
        return await self._insight.propose(replace(history, past=self._past), count, refused)

    async def close(self) -> None: ...


def needed(problem: SimulatedProblem, *past: PastStudy) -> float:
    fill = RandomProposer(problem.space, 0, 1)
    search = asyncio.run(rehearse(problem, Warm(problem, past), "warm", fill, 0, 24, 1))  # type: ignore[arg-type]
    return trials_to_reach(search)


def test_good_history_saves_trials_and_harmful_history_costs_few() -> None:
    cold, warm, misled = [], [], []
    for seed in range(500, 512):
        problem = simulated("two-stage", seed)
        cold.append(needed(problem))
        warm.append(needed(problem, earlier(problem)))
        misled.append(needed(problem, earlier(problem, harmful=True)))
    assert np.mean(np.minimum(warm, 25)) <= np.mean(np.minimum(cold, 25))
    assert np.median(misled) <= np.median(cold) + 3
    assert sum(map(math.isinf, misled)) <= sum(map(math.isinf, cold)) + 1


@pytest.mark.parametrize(("harmful", "believed"), [(False, True), (True, False)])
def test_the_past_is_believed_as_far_as_it_agrees(harmful: bool, believed: bool) -> None:
    problem = simulated("two-stage", 501)
    past = past_observations([earlier(problem, harmful)], problem.space)
    evaluator = problem.evaluator(0)
    seen = [evaluator.run(a, i, 0).view for i, a in enumerate(problem.space.sample(random.Random(2), 8), 1)]
    before = Surrogate(past, problem.space).trust
    after = Surrogate(observations(seen) + past, problem.space).trust
    assert (after > before) is believed
    assert after > 0.4 if believed else after < 0.05


def test_only_stages_with_a_model_in_common_say_something() -> None:
    problem = simulated("two-stage", 502)
    first, second = (stage.name for stage in problem.space.pipeline.stages)
    past = earlier(problem)
    strange = tuple(
        replace(t, allocation=t.allocation.replace(second, replace(t.allocation[second], model="another")))
        for t in past.trials
    )
    found = past_observations([replace(past, trials=strange)], problem.space)
    assert {o.matched for o in found} == {(True, False)}
    # What the unknown stage was set to is part of the level: only trials that agree in it can be compared.
    assert len({o.level for o in found}) > 1
    assert not past_observations(
        [replace(past, trials=tuple(elsewhere(t, first, second) for t in past.trials))], problem.space
    )


def elsewhere(trial: TrialView, *stages: str) -> TrialView:
    for stage in stages:
        setting = replace(trial.allocation[stage], model="another")
        trial = replace(trial, allocation=trial.allocation.replace(stage, setting))
    return trial


def test_the_guidelines_say_how_far_the_past_is_believed() -> None:
    problem = simulated("two-stage", 503)
    view = problem.evaluator(0).run(next(iter(problem.space.allocations())), 1, 0).view
    history = History(1, (view,), past=(earlier(problem),))
    reflection = asyncio.run(InsightProposer(problem.space, 0).reflect(history))
    (warm,) = [g for g in reflection.guidelines if "warm_start" in g.structured]
    assert "an earlier study (old, 20 trials)" in warm.text
    assert 0 <= float(str(warm.structured["trust"])) <= 1
