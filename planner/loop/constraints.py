"""Judges trials by the study's constraints: which may become the plan, and what stands in the way of the others."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from env.execution.evidence import ExampleEvidence, stage_marks
from env.spec.constraints import Constraints
from planner.archive import TrialRecord
from planner.evidence import Interval, mean_interval
from planner.space import SearchSpace

Kind = Literal["latency", "memory", "stage_quality"]


@dataclass(frozen=True)
class Judged:
    """One constraint and one trial."""

    kind: Kind
    subject: str
    """The spec's field, for instance ``stage_quality.read``."""

    limit: float
    value: float | None
    """Predicted or measured; None where nothing is known, which does not meet a constraint."""

    unit: str
    predicted: bool
    met: bool
    """By the point estimate."""

    interval: Interval | None = None
    """Of a measured stage quality, over the examples."""

    @property
    def words(self) -> str:
        """What the constraint asks and what the trial has, for people."""
        asked = f"{self.subject} {'at least' if self.kind == 'stage_quality' else 'at most'} {_number(self)}"
        if self.value is None:
            return f"{asked}: not known"
        found = f"{asked}: {self.value:.4g} {'predicted' if self.predicted else 'measured'}"
        if self.interval is None:
            return found
        return f"{found}, 95% interval {self.interval.low:.3f} to {self.interval.high:.3f}"


def _number(judged: Judged) -> str:
    return f"{judged.limit:.4g} {judged.unit}".strip()


def judge(
    constraints: Constraints, space: SearchSpace, trial: TrialRecord, evidence: Sequence[ExampleEvidence]
) -> list[Judged]:
    """Every constraint of the study, judged on one trial.

    A measured constraint is met where the point estimate meets it; the interval says how sure that is.

    Args:
        constraints: of the study.
        space: predicts latency and memory.
        trial: on any split.
        evidence: of the trial.
    """
    found: list[Judged] = []
    if constraints.latency is not None:
        limit, predicted = constraints.latency.seconds, constraints.latency.basis == "predicted"
        seconds = space.limits.latency(trial.allocation) if predicted else mean_seconds(evidence)
        found.append(Judged("latency", "latency", limit, seconds, "s", predicted, _at_most(seconds, limit)))
    if constraints.memory is not None:
        held, most = space.limits.memory(trial.allocation), constraints.memory.bytes
        found.append(Judged("memory", "memory", most, held, "bytes", True, _at_most(held, most)))
    marks = stage_marks(evidence) if constraints.stage_quality else {}
    for stage, least in constraints.stage_quality.items():
        interval = mean_interval(marks[stage]) if marks.get(stage) else None
        value = None if interval is None else interval.estimate
        met = value is not None and value >= least - 1e-12
        found.append(Judged("stage_quality", f"stage_quality.{stage}", least, value, "", False, met, interval))
    return found


def feasible(
    constraints: Constraints, space: SearchSpace, trial: TrialRecord, evidence: Sequence[ExampleEvidence] | None
) -> bool:
    """Whether a trial meets everything that is known only once it ran; what could be predicted, review has refused.

    Args:
        constraints: of the study.
        space: of the study.
        trial: on the search split.
        evidence: needed for a measured latency alone.
    """
    if any(trial.stage_scores.get(s, -math.inf) < least - 1e-12 for s, least in constraints.stage_quality.items()):
        return False
    if measures_latency(constraints):
        return all(j.met for j in judge(constraints, space, trial, evidence or ()))
    return True


def measures_latency(constraints: Constraints) -> bool:
    """Whether a trial must be timed to be judged."""
    return constraints.latency is not None and constraints.latency.basis == "measured"


def mean_seconds(evidence: Sequence[ExampleEvidence]) -> float | None:
    """Mean measured seconds a query, over the scored examples that were timed; None where none was."""
    timed = [e.seconds for e in evidence if e.status == "scored" and e.seconds is not None]
    return math.fsum(timed) / len(timed) if timed else None


def binding(judged: Sequence[Sequence[Judged]]) -> str:
    """Why no trial may become the plan: for each constraint how many met it, and how near the others came."""
    parts: list[str] = []
    for column in zip(*judged, strict=True):
        met = sum(j.met for j in column)
        if met == len(column):
            continue
        first = column[0]
        known = [j.value for j in column if j.value is not None]
        nearest = (max if first.kind == "stage_quality" else min)(known, default=None)
        reached = "none could be judged" if nearest is None else f"the nearest reached {nearest:.4g} {first.unit}"
        bound = "at least" if first.kind == "stage_quality" else "at most"
        parts.append(
            f"constraints.{first.subject} ({bound} {_number(first)}): {met} of {len(column)} trials meet it, "
            f"{reached.strip()}"
        )
    return "; ".join(parts)


def _at_most(value: float | None, limit: float) -> bool:
    return value is not None and value <= limit * (1 + 1e-12)
