"""What a run changed: the plan stage by stage, its score and its cost, each with its interval."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field
from scipy.stats import t as student

from env.allocation import Allocation
from planner.evidence import Interval
from planner.evidence.intervals import CONFIDENCE
from planner.plans.document import IntervalPublic
from planner.schedules.revalidation import Held, difference, moved

Verdict = Literal["better", "worse", "cannot be told apart", "not comparable"]
AllocationJson = dict[str, dict[str, Any]]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class StageChange(_Part):
    """One stage that is not what it was."""

    stage: str
    before: dict[str, Any] | None = Field(description="Model, strategy and samples; null where the stage is new.")
    after: dict[str, Any] | None = Field(description="Null where the stage is gone.")


class PlanChange(_Part):
    """The plan before and after."""

    changed: bool
    before: AllocationJson | None = Field(description="Null where there was none.")
    after: AllocationJson
    stages: list[StageChange]


class ScoreChange(_Part):
    """Scores on the search split, from 0 to 1, corrected for having been chosen."""

    before: IntervalPublic | None
    after: IntervalPublic | None
    difference: IntervalPublic | None = Field(description="After minus before, paired over the examples both have.")
    verdict: Verdict = Field(description="Of after, against before.")


class CostChange(_Part):
    """Measured costs per query, in `unit`."""

    unit: str
    before: IntervalPublic | None
    after: IntervalPublic | None
    difference: IntervalPublic | None = Field(
        description="After minus before, paired; null where the units are not the same."
    )


class RunDiff(_Part):
    """What a run changed."""

    plan: PlanChange
    score: ScoreChange
    cost: CostChange


class Revalidation(_Part):
    """What the incumbent did on fresh draws."""

    seed: int = Field(description="Of its draws; no other run has it.")
    draws: int | None = Field(description="Independent draws behind the score.")
    new_draws: int = Field(description="Draws made for this run.")
    reused_draws: int = Field(description="Draws that the bank held before this run, counted in the bank: 0.")
    failed: int = Field(description="Examples that could not be evaluated; they are in no score.")
    score: ScoreChange
    moved: bool = Field(description="Whether the score moved beyond its error.")


def revalidation(before: Held, after: Held, seed: int, reused_draws: int) -> Revalidation:
    """What a re-validation showed, against the stored evidence."""
    score = _score(before, after)
    return Revalidation(
        seed=seed,
        draws=after.trial.draws,
        new_draws=after.trial.spend.new_draws,
        reused_draws=reused_draws,
        failed=after.trial.failed,
        score=score,
        moved=moved(difference(before, after)),
    )


def run_diff(before: Held | None, after: Held) -> RunDiff:
    """What changed between two trials of plans: of the same one on stored and fresh draws, or of an old and a new one.

    Args:
        before: the incumbent; None where there was none.
        after: the incumbent on fresh draws, or the plan that was found.
    """
    return RunDiff(plan=_plan(before, after), score=_score(before, after), cost=_cost(before, after))


def _plan(before: Held | None, after: Held) -> PlanChange:
    new, old = _stages(after.allocation), {} if before is None else _stages(before.allocation)
    names = [*new, *(name for name in old if name not in new)]
    stages = [
        StageChange(stage=name, before=old.get(name), after=new.get(name))
        for name in names
        if old.get(name) != new.get(name)
    ]
    return PlanChange(changed=bool(stages), before=old or None, after=new, stages=stages)


def _stages(allocation: Allocation) -> AllocationJson:
    return {stage: dict(setting) for stage, setting in allocation.to_json().items()}


def _score(before: Held | None, after: Held) -> ScoreChange:
    found = None if before is None else difference(before, after)
    verdict: Verdict = "not comparable"
    if found is not None:
        verdict = "cannot be told apart" if not moved(found) else "better" if found.low > 0 else "worse"
    return ScoreChange(
        before=_public(None if before is None else before.score),
        after=_public(after.score),
        difference=_public(found),
        verdict=verdict,
    )


def _cost(before: Held | None, after: Held) -> CostChange:
    comparable = before is not None and before.trial.unit == after.trial.unit
    old = before.costs if before is not None and comparable else {}
    shared = sorted(old.keys() & after.costs.keys())
    return CostChange(
        unit=after.trial.unit,
        before=_amount(list(old.values())),
        after=_amount(list(after.costs.values())),
        difference=_amount([after.costs[i] - old[i] for i in shared], "Student, paired"),
    )


def _amount(values: Sequence[float], method: str = "Student") -> IntervalPublic | None:
    """Interval of a mean amount by Student; None without values, a point with one."""
    if not values:
        return None
    numbers = np.asarray(values, dtype=np.float64)
    n, mean = int(numbers.size), float(numbers.mean())
    error = float(numbers.std(ddof=1) / math.sqrt(n)) if n > 1 else 0.0
    half = float(student.ppf(0.5 + CONFIDENCE / 2, n - 1)) * error if n > 1 else 0.0
    return IntervalPublic(
        estimate=mean, low=mean - half, high=mean + half, standard_error=error, examples=n, method=method
    )


def _public(found: Interval | None) -> IntervalPublic | None:
    return None if found is None else IntervalPublic.of(found)


def stored_diff(value: Mapping[str, Any] | None) -> RunDiff | None:
    """A diff as a run's record holds it."""
    return None if value is None else RunDiff.model_validate(dict(value))
