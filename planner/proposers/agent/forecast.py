"""The one place where the agent asks the surrogate: what allocations not yet tried are expected to score."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from env.allocation import Allocation
from planner.history import History
from planner.proposers.ablation import NOTHING, Ablation
from planner.proposers.observations import from_log, observations
from planner.proposers.stage_tables import StageTables
from planner.proposers.surrogate import Surrogate
from planner.space import SearchSpace


@dataclass(frozen=True)
class Forecast:
    """What the surrogate expects of one allocation."""

    allocation: Allocation
    score: float
    low: float
    """One posterior standard deviation below, on the scale of scores."""

    high: float


def forecasts(
    space: SearchSpace, history: History, allocations: Sequence[Allocation], ablation: Ablation = NOTHING
) -> list[Forecast]:
    """Of each allocation, from trials and k-curves, by the surrogate that the insight policy uses."""
    data = observations(history.trials, not ablation.without_insight_2)
    surrogate = Surrogate(data, tables=StageTables(space, ablation), joint=not ablation.without_insight_3)
    mean, deviation = surrogate.predict(allocations)
    return [
        Forecast(a, float(from_log(m)), float(from_log(m - d)), float(from_log(m + d)))
        for a, m, d in zip(allocations, mean, deviation, strict=True)
    ]
