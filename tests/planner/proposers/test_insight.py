from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from env.allocation import Allocation, StageSetting
from planner.history import CurveEstimate, History, PastStudy, TrialView, best_of
from planner.proposers import InsightProposer, RandomProposer, insight
from planner.proposers.guidelines import RuleGuidelines, plateau_of
from planner.proposers.initial import initial_trials
from planner.proposers.observations import Observation, from_log, observations, past_observations
from planner.proposers.surrogate import Surrogate
from planner.space import SearchSpace
from tests.simulated import simulated_spec

SPACE = SearchSpace(simulated_spec())
QUALITY = {
    ("find", "small"): (0.75, 0.25), ("find", "large"): (0.8, 0.1),
    ("read", "small"): (0.5, 0.1), ("read", "large"): (0.95, 0.05),
    ("solve", "small"): (0.97, 0.4), ("solve", "large"): (0.98, 0.3),
}  # fmt: skip


def truth(allocation: Allocation) -> float:
    """A product of saturating curves: level minus drop / k at each stage."""
    value = 1.0
    for stage, s in allocation.settings:
        level, drop = QUALITY[stage, s.model]
        value *= level - drop / s.samples
    return value


def trial(number: int, allocation: Allocation, curves: dict[str, tuple[CurveEstimate, ...]] | None = None) -> TrialView:
    score = truth(allocation)
    return TrialView(number, 0, allocation, score, 0.02, SPACE.total(allocation), 1.0, 10, curves or {})


def history(trials: list[TrialView], round_: int = 1) -> History:
    return History(round_, tuple(trials), trials_left=10)


def allocation(find: int = 1, read: int = 1, solve: int = 1, model: str = "small") -> Allocation:
    return Allocation.of({
        "find": StageSetting(model, "vote", find), "read": StageSetting(model, "vote", read),
        "solve": StageSetting(model, "vote", solve),
    })  # fmt: skip


def test_the_surrogate_reproduces_what_it_saw_and_is_surer_there() -> None:
    data = [Observation(p.allocation, truth(p.allocation), 0.001) for p in initial_trials(SPACE) if p.allocation]
    surrogate = Surrogate(data)
    mean, deviation = surrogate.predict([o.allocation for o in data])
    assert np.abs(from_log(mean) - [o.score for o in data]).max() < 0.02
    _, unsure = surrogate.predict([allocation(2, 4, 8)])
    assert unsure[0] > deviation.max()


def test_a_curve_tells_the_surrogate_about_smaller_k_without_a_trial() -> None:
    points = (CurveEstimate(1, 0.2, 1.0), CurveEstimate(4, 0.5, 0.9), CurveEstimate(8, 0.1, 0.3))
    seen = observations([trial(1, allocation(16, 1, 1), {"find": points})])
    by_k = {o.allocation["find"].samples: o for o in seen}
    assert by_k[1].score == 0.2
    # Less coverage: more noise, and the missing outcomes count as likelier wrong than those with draws.
    assert by_k[4].noise > by_k[1].noise
    assert 0.9 * 0.5 < by_k[4].score < 0.5
    assert 8 not in by_k  # too little of it is known


@pytest.mark.asyncio
async def test_insight_comes_within_a_hundredth_of_the_optimum_in_few_trials() -> None:
    proposer = InsightProposer(SPACE, 0, 1)
    optimum = max(truth(a) for a in SPACE.allocations())
    trials: list[TrialView] = []
    while len(trials) < 10 and (not trials or max(t.score for t in trials) < optimum - 0.01):
        asked = history(trials, len(trials))
        batch = await (proposer.propose(asked, 1, ()) if trials else proposer.initial(asked))
        trials += [trial(len(trials), p.allocation) for p in batch.proposals if p.allocation]
    assert max(t.score for t in trials) >= optimum - 0.01


@pytest.mark.asyncio
async def test_a_batch_spreads_over_ways_to_win_and_says_what_is_left_to_gain() -> None:
    trials = [trial(1, allocation())]
    found = await InsightProposer(SPACE, 0).propose(history(trials), 4, ())
    assert len({p.allocation for p in found.proposals}) == 4
    assert found.expected_gain is not None
    assert found.expected_gain > 0.05
    everything = [trial(i, a) for i, a in enumerate(SPACE.allocations())]
    spent = await InsightProposer(SPACE, 0).propose(history(everything), 4, ())
    assert spent.expected_gain == 0.0


@pytest.mark.asyncio
async def test_proposals_are_new_feasible_and_the_same_each_time() -> None:
    trials = [trial(i, p.allocation) for i, p in enumerate(initial_trials(SPACE)) if p.allocation]
    for proposer in (InsightProposer(SPACE, 3), RandomProposer(SPACE, 3, 4)):
        first = (await proposer.propose(history(trials), 4, ())).proposals
        again = (await proposer.propose(history(trials), 4, ())).proposals
        assert first == again
        assert len({p.allocation for p in first}) == 4
        assert not {p.allocation for p in first} & {t.allocation for t in trials}
        assert all(p.allocation is not None and not SPACE.faults(p.allocation) for p in first)


@pytest.mark.asyncio
async def test_with_everything_tried_there_is_nothing_to_propose() -> None:
    trials = [trial(i, a) for i, a in enumerate(SPACE.allocations())]
    assert (await InsightProposer(SPACE, 0).propose(history(trials), 4, ())).proposals == ()


def test_guidelines_prefer_the_small_model_among_equals_and_the_large_where_it_is_better() -> None:
    trials = [
        trial(1, allocation(1, 1, 16)),
        trial(2, allocation(1, 1, 16).replace("read", StageSetting("large", "vote", 1))),
    ]
    found = {g.stage: g for g in RuleGuidelines(SPACE).of(history(trials)) if g.insight == 1}
    assert found["read"].structured["preferred_model"] == "large"
    equal = [
        trial(1, allocation(16, 1, 1)),
        trial(2, allocation(16, 1, 1).replace("find", StageSetting("large", "vote", 2))),
    ]
    found = {g.stage: g for g in RuleGuidelines(SPACE).of(history(equal)) if g.insight == 1}
    assert found["find"].structured["preferred_model"] == "small"


def test_guidelines_are_the_same_whether_trials_come_one_by_one_or_all_at_once() -> None:
    trials = [trial(i, a) for i, a in enumerate(SPACE.allocations(), 1) if i % 40 == 0]
    by_round, at_once = RuleGuidelines(SPACE), RuleGuidelines(SPACE)
    for count in range(1, len(trials)):
        by_round.of(history(trials[:count]))
    assert by_round.of(history(trials)) == at_once.of(history(trials))
    # Another study's trials do not mix with those seen.
    assert by_round.of(history(trials[5:9])) == RuleGuidelines(SPACE).of(history(trials[5:9]))


@pytest.mark.asyncio
async def test_a_round_reflects_and_proposes_on_one_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    fits, gathered = [], []

    def counted(*args: Any, **kwargs: Any) -> Surrogate:
        fits.append(1)
        return Surrogate(*args, **kwargs)

    def gathering(*args: Any) -> list[Observation]:
        gathered.append(1)
        return past_observations(*args)

    monkeypatch.setattr(insight, "Surrogate", counted)
    monkeypatch.setattr(insight, "past_observations", gathering)
    trials = [trial(i, p.allocation) for i, p in enumerate(initial_trials(SPACE), 1) if p.allocation]
    past, proposer = (PastStudy("old", "old", tuple(trials)),), InsightProposer(SPACE, 0)
    for seen in (3, 4):
        reflected = History(1, tuple(trials[:seen]), past=past)
        proposed = History(2, tuple(trials[:seen]), past=past, trials_left=10)
        await proposer.reflect(reflected)
        assert await proposer.propose(proposed, 2, ()) == await InsightProposer(SPACE, 0).propose(proposed, 2, ())
    # Two by the proposer under test, and one by each of the fresh ones it is held against.
    assert (len(fits), len(gathered)) == (4, 3)


def test_the_best_trials_are_the_cheaper_of_equals_and_the_earlier_of_those() -> None:
    base = trial(1, allocation())
    trials = [
        replace(base, trial_no=n, score=s, cost=c) for n, s, c in [(1, 0.5, 2), (2, 0.7, 3), (3, 0.7, 1), (4, 0.7, 1)]
    ]
    assert [t.trial_no for t in best_of(trials, 3)] == [3, 4, 2]
    assert history(trials).best == trials[2]
    assert best_of((), 2) == []


def test_guidelines_name_the_plateau() -> None:
    points = tuple(CurveEstimate(k, s, 1.0) for k, s in ((1, 0.5), (2, 0.6), (4, 0.7), (8, 0.702), (16, 0.701)))
    assert plateau_of(list(points)) == 4
    found = RuleGuidelines(SPACE).of(history([trial(1, allocation(1, 1, 16), {"solve": points})]))
    flat = next(g for g in found if g.insight == 2)
    assert flat.structured == {"model": "small", "plateau": 4, "direction": "down"}
    assert "do not pay past it" in flat.text
