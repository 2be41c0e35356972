"""The one place where the agent asks the surrogate: what allocations not yet tried are expected to score."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from env.allocation import Allocation
from planner.history import History
from planner.proposers.ablation import NOTHING, Ablation
from planner.proposers.surrogate import Surrogate, from_log, observations


@dataclass(frozen=True)
class Forecast:
    """What the surrogate expects of one allocation."""

    allocation: Allocation
    score: float
    low: float
    """One posterior standard deviation below, on the scale of scores."""

    high: float


def forecasts(history: History, allocations: Sequence[Allocation], ablation: Ablation = NOTHING) -> list[Forecast]:
    """Of each allocation, from trials and (unless insight 2 is left out) k-curves.

    Raises:
        ValueError: there is no trial yet.
    """
    trials = [replace(t, curves={}) for t in history.trials] if ablation.without_insight_2 else history.trials
    mean, deviation = Surrogate(observations(trials)).predict(allocations)
    return [
        Forecast(a, float(from_log(m)), float(from_log(m - d)), float(from_log(m + d)))
        for a, m, d in zip(allocations, mean, deviation, strict=True)
    ]
