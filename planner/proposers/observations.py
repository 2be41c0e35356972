"""What trials say about allocations, for the surrogate: scores with their noise, on a scale where stages add up."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import islice

import numpy as np
from numpy.typing import NDArray

from env.allocation import Allocation
from planner.history import LEAST_COVERAGE, PastStudy, TrialView, best_of
from planner.space import SearchSpace

OFFSET = 0.05
"""Added to a score before its logarithm is taken: scores near 0 differ by noise, which must not be magnified."""

SHARED_NOISE, OWN_NOISE = 0.3, 0.2
"""Noise of a trial's score against other trials on the same examples, as a share of its standard error, and that of a
point of its curves against the trial itself: the examples are shared, what the stages happened to draw is not."""

LEAST_NOISE = 0.0015

MISSING_NOISE = 0.3
"""Standard deviation of what an outcome without downstream draws scores, as a share of what the others do."""

MAX_TRIALS = 80
"""Trials that are observed, the best and the newest; time grows with the cube of all observations."""

MAX_OBSERVATIONS = 160

MAX_PAST = 80
"""Observations of earlier studies, together."""


@dataclass(frozen=True)
class Observation:
    """A score that was seen, with the noise it carries."""

    allocation: Allocation
    score: float
    noise: float
    """Of its own."""

    trial: int = -1
    shared: float = 0.0
    """Noise shared with other observations of the same trial."""

    stage: int | None = None
    """The stage whose own score it is, by position; None for the score of the end."""

    study: str = ""
    """The earlier study it comes from; empty for this one."""

    level: str = ""
    """Observations with equal levels share what is not told by `allocation`: the task, and other stages' settings."""

    matched: tuple[bool, ...] | None = None
    """By stage, whether the allocation's setting is what was seen; None where all are."""


def observations(trials: Sequence[TrialView], curves: bool = True) -> list[Observation]:
    """Trials, the points of their k-curves that rest on enough coverage, and their stages' own scores.

    One for each allocation (and stage), the least noisy kept; of many trials the best and the newest.

    Args:
        trials: of the study.
        curves: whether to take the points of k-curves.
    """
    kept = _kept(trials)
    seen: dict[tuple[Allocation, int | None], Observation] = {}
    for trial in kept:
        shared = _shared(trial)
        seen[trial.allocation, None] = Observation(trial.allocation, trial.score, LEAST_NOISE, trial.trial_no, shared)
        for stage, score in trial.stage_scores.items():
            position = trial.allocation.stages.index(stage)
            # A score that repeats the end's says nothing more.
            if abs(score - trial.score) > 1e-9 or position < len(trial.allocation.stages) - 1:
                seen[trial.allocation, position] = Observation(
                    trial.allocation, score, LEAST_NOISE, trial.trial_no, shared, position
                )
    for trial in kept if curves else ():
        if len(seen) >= MAX_OBSERVATIONS:
            break
        for observation in _curve_points(trial):
            known = seen.get((observation.allocation, None))
            if known is None or _noise(known) > _noise(observation):
                seen[observation.allocation, None] = observation
    return list(seen.values())[:MAX_OBSERVATIONS]


def past_observations(past: Sequence[PastStudy], space: SearchSpace) -> list[Observation]:
    """What earlier studies say about stages that this one has too, by name, with a model in common.

    Trials and points of their curves; of each study the best and the newest. Settings of stages that this study does
    not have become part of the level.
    """
    names = [stage.name for stage in space.pipeline.stages]
    anywhere = {name: space.settings[name][0] for name in names}
    models = {stage.name: set(stage.models) for stage in space.pipeline.stages}
    found: list[Observation] = []
    for study in past:
        shared = {
            n
            for n in names
            if any(n in t.allocation.stages and t.allocation[n].model in models[n] for t in study.trials)
        }
        for observation in observations(study.trials)[: MAX_PAST // max(1, len(past))] if shared else ():
            own = observation.allocation
            if observation.stage is not None:
                continue
            rest = tuple((n, s) for n, s in own.settings if n not in shared)
            found.append(
                replace(
                    observation,
                    allocation=Allocation.of({n: own[n] if n in shared else anywhere[n] for n in names}),
                    study=study.study_id,
                    level=f"{study.study_id} {rest}",
                    matched=tuple(n in shared for n in names),
                )
            )
    return found


def _kept(trials: Sequence[TrialView]) -> list[TrialView]:
    """The best and the newest, best first and newest first."""
    if len(trials) <= MAX_TRIALS:
        return sorted(trials, key=lambda t: (-t.score, t.trial_no))
    best = best_of(trials, MAX_TRIALS // 2)
    numbers = {t.trial_no for t in best}
    order = np.argsort(np.fromiter((-t.trial_no for t in trials), np.int64, len(trials)), kind="stable")
    newest = (t for i in order[:MAX_TRIALS].tolist() if (t := trials[i]).trial_no not in numbers)
    return best + list(islice(newest, MAX_TRIALS - len(best)))


def _curve_points(trial: TrialView) -> list[Observation]:
    shared = _shared(trial)
    own = max(LEAST_NOISE, OWN_NOISE * trial.standard_error)
    points = []
    for stage, curve in trial.curves.items():
        for point in curve:
            if point.coverage >= LEAST_COVERAGE and point.samples != trial.allocation[stage].samples:
                allocation = trial.allocation.replace(stage, trial.allocation[stage].with_samples(point.samples))
                noise = float(np.hypot(own, MISSING_NOISE * point.score * point.missing))
                points.append(Observation(allocation, point.expected, noise, trial.trial_no, shared))
    return points


def _shared(trial: TrialView) -> float:
    # A trial that racing stopped ran on other examples than the rest: all of its error is its own.
    return (1.0 if trial.stopped else SHARED_NOISE) * trial.standard_error


def _noise(observation: Observation) -> float:
    return float(np.hypot(observation.noise, observation.shared))


def to_log(score: NDArray[np.float64] | float) -> NDArray[np.float64]:
    """``log(score + OFFSET)``, the scale on which stages add up."""
    return np.asarray(np.log(np.maximum(np.asarray(score), 0.0) + OFFSET))


def from_log(value: NDArray[np.float64] | float) -> NDArray[np.float64]:
    """The score behind a value of `to_log`, at least 0."""
    return np.asarray(np.clip(np.exp(np.asarray(value)) - OFFSET, 0.0, None))
