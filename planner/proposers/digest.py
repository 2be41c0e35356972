"""What a history says beyond its scores: what budget buys where, which trials can be told apart, who foresaw them."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate

from planner.history import LEAST_COVERAGE, CurveEstimate, History, TrialView, best_of
from planner.proposers.guidelines import ALIKE
from planner.space import SearchSpace

MOST_COMPARED = 10


@dataclass(frozen=True)
class Step:
    """Another number of samples at one stage of an allocation, the others as they are."""

    samples: int
    score: float
    """Change of the expected score."""

    budget_share: float
    """Change of the cost, as a share of the plan budget."""

    @property
    def score_per_percent(self) -> float:
        """Score that one percent of the budget brings on this step; 0 where the step costs nothing."""
        return self.score / (100 * self.budget_share) if self.budget_share else 0.0


@dataclass(frozen=True)
class Marginal:
    """What one stage's last and next unit of budget buy at the best trial."""

    stage: str
    samples: int
    fewer: Step | None
    """To the next smaller number of samples that the curve knows."""

    more: Step | None
    """To the next larger one, where another trial with the same setting knows it."""


def marginals(space: SearchSpace, history: History) -> list[Marginal]:
    """Of each stage of the best trial, as far as curves with enough coverage tell; empty before the first trial."""
    best = history.best
    if best is None:
        return []
    return [found for stage in best.allocation.stages if (found := _marginal(space, history, best, stage)) is not None]


def _marginal(space: SearchSpace, history: History, best: TrialView, stage: str) -> Marginal | None:
    samples = best.allocation[stage].samples
    own = _known(best, stage)
    here = next((p for p in own if p.samples == samples), None)
    below = max((p for p in own if p.samples < samples), key=lambda p: p.samples, default=None)
    fewer = None if here is None or below is None else _step(space, best, stage, here, below)
    steps = [
        _step(space, best, stage, at, above)
        for at, above in _continued(history, best, stage)
        if above.samples > samples
    ]
    more = min(steps, key=lambda s: s.samples, default=None)
    return None if fewer is None and more is None else Marginal(stage, samples, fewer, more)


def _continued(history: History, best: TrialView, stage: str) -> Iterator[tuple[CurveEstimate, CurveEstimate]]:
    """Pairs of points at and above the best trial's samples, of curves of trials that differ in nothing else."""
    setting = best.allocation[stage]
    for trial in history.trials:
        other = trial.allocation[stage] if stage in trial.allocation.stages else None
        if other is None or other.samples <= setting.samples:
            continue
        if trial.allocation.replace(stage, setting) != best.allocation:
            continue
        points = _known(trial, stage)
        at = next((p for p in points if p.samples == setting.samples), None)
        yield from ((at, p) for p in points if at is not None and p.samples > setting.samples)


def _step(space: SearchSpace, best: TrialView, stage: str, here: CurveEstimate, there: CurveEstimate) -> Step:
    setting = best.allocation[stage]
    spec = space.pipeline.stage(stage)
    cost = space.cost.stage(spec, setting.with_samples(there.samples)) - space.cost.stage(spec, setting)
    return Step(there.samples, there.expected - here.expected, cost / space.limit)


def _known(trial: TrialView, stage: str) -> list[CurveEstimate]:
    return [p for p in trial.curves.get(stage, ()) if p.coverage >= LEAST_COVERAGE]


def alike(history: History) -> int:
    """How many of the ten best trials cannot be told from the best; 0 where they are few or some can.

    By paired differences beyond two standard errors where they are known, else by `ALIKE`.
    """
    ranked = best_of(history.trials, MOST_COMPARED)
    if len(ranked) < 4:
        return 0
    for trial in ranked[1:]:
        difference = history.differences.get(trial.trial_no)
        if difference.decided if difference is not None else ranked[0].score - trial.score >= ALIKE:
            return 0
    return len(ranked)


@dataclass(frozen=True)
class Calibration:
    """How a proposer's expectations held."""

    trials: int
    bias: float
    """Mean of measured minus expected."""

    absolute: float
    """Mean of its absolute value."""

    earned: int
    """How many of them earned their place (`earned`)."""


def calibration(trials: Sequence[TrialView], origin: str) -> Calibration | None:
    """Of one origin's trials that state an expectation; None where there are none."""
    errors = [t.score - t.expected_score for t in trials if t.origin == origin and t.expected_score is not None]
    if not errors:
        return None
    bias, absolute = sum(errors) / len(errors), sum(map(abs, errors)) / len(errors)
    return Calibration(len(errors), bias, absolute, sum(earned(trials, origin)))


def earned(trials: Sequence[TrialView], origin: str) -> list[bool]:
    """Of each trial of one origin, in order, whether it was worth its place in the batch.

    It beat every trial of the rounds before, and no trial that somebody else proposed for the same round did better:
    improving is not enough where the other proposer improves more.
    """
    tops: dict[int, float] = {}
    others: dict[int, float] = {}
    for trial in trials:
        tops[trial.round] = max(tops.get(trial.round, -math.inf), trial.score)
        if trial.origin != origin:
            others[trial.round] = max(others.get(trial.round, -math.inf), trial.score)
    rounds = sorted(tops)
    before = dict(zip(rounds, accumulate([-math.inf, *(tops[r] for r in rounds)], max), strict=False))
    return [
        t.score > before[t.round] and t.score >= others.get(t.round, -math.inf) for t in trials if t.origin == origin
    ]
