"""Duplicates up to the noise: allocations whose trial cannot change the plan, because a k-curve answers it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Protocol

from env.allocation import Allocation
from planner.evidence.choice import NEGLIGIBLE
from planner.history import TrialView
from planner.space import SearchSpace

FULL = 0.95
"""Probability mass of an example's outcomes that a curve must know for its value to count."""

LEAST_EXAMPLES = 20
LEAST_SHARE = 0.9
"""Of the examples that both sides must know."""

MOST_RIVALS = 5


class TrialScores(Protocol):
    """Per-example results of trials, by example id."""

    def scores(self, trial_no: int) -> Mapping[str, float]:
        """Score of each scored example."""
        ...

    def curve(self, trial_no: int, stage: str, samples: int, least_mass: float) -> Mapping[str, float]:
        """Expected score of each example with so many samples at a stage, where the draws held know it."""
        ...


class Answered:
    """Says which allocations need no trial.

    Allocation P needs none where it is a trial T with fewer samples at one stage, T's curve knows it on the same
    examples and draws, and a trial Q that costs no more scores as well: the paired difference P - Q over the examples,
    plus two of its standard errors, is at most `NEGLIGIBLE`, the difference that the choice of the plan does not count
    either. Then P can win neither by its score nor by its cost. Everything else may win and is let through: more
    samples than any curve knows, another model or strategy, changes at two stages, a saving that no trial has shown.

    Args:
        space: gives costs and normal forms.
        trials: those with a score.
        results: their per-example results; read only where a proposal lies on a curve.
    """

    def __init__(self, space: SearchSpace, trials: Sequence[TrialView], results: TrialScores) -> None:
        self._space = space
        self._trials = trials
        self._results = results
        self._known = self._curve_points()

    def reason(self, allocation: Allocation) -> str:
        """Why a trial of this allocation (in normal form) cannot change the plan; empty where it might."""
        cost = self._space.total(allocation)
        able = [t for t in self._trials if t.feasible and not t.stopped]
        rivals = [t for t in able if t.cost <= cost * (1 + 1e-9)]
        rivals = sorted(rivals, key=lambda t: (-t.score, t.cost))[:MOST_RIVALS]
        for trial, stage, samples in self._known.get(allocation, ()) if rivals else ():
            values = self._results.curve(trial.trial_no, stage, samples, FULL)
            for rival in rivals:
                most = _most_ahead(values, self._results.scores(rival.trial_no))
                if most is not None and most <= NEGLIGIBLE:
                    return (
                        f"answered already: the curve of trial {trial.trial_no} gives {_mean(values):.3f} with "
                        f"{samples} samples at {stage}; trial {rival.trial_no} scored {rival.score:.3f} at no more "
                        f"cost, and the paired difference is below {NEGLIGIBLE:g} with two standard errors"
                    )
        return ""

    def _curve_points(self) -> dict[Allocation, list[tuple[TrialView, str, int]]]:
        found: dict[Allocation, list[tuple[TrialView, str, int]]] = {}
        for trial in self._trials:
            for stage, points in trial.curves.items():
                setting = trial.allocation[stage]
                for point in points:
                    if point.coverage < FULL or point.samples >= setting.samples:
                        continue
                    fewer = trial.allocation.replace(stage, setting.with_samples(point.samples))
                    found.setdefault(self._space.normal(fewer), []).append((trial, stage, point.samples))
        return found


def _most_ahead(values: Mapping[str, float], rival: Mapping[str, float]) -> float | None:
    """Mean of the paired difference plus two standard errors; None where too few examples are known to both."""
    shared = values.keys() & rival.keys()
    if len(shared) < max(LEAST_EXAMPLES, LEAST_SHARE * len(rival)):
        return None
    differences = [values[i] - rival[i] for i in sorted(shared)]
    mean = sum(differences) / len(differences)
    variance = sum((d - mean) ** 2 for d in differences) / (len(differences) - 1)
    return mean + 2 * math.sqrt(variance / len(differences))


def _mean(values: Mapping[str, float]) -> float:
    return sum(values.values()) / len(values)
