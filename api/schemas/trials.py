"""Trials and their evidence."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Literal

from pydantic import Field

from api.schemas.base import AllocationPublic, Public
from env.execution.evidence import ExampleEvidence
from planner.archive import KPoint, TrialRecord
from planner.archive.records import Outcome


class CurvePoint(Public):
    """Expected score with k samples at one stage, the others as allocated."""

    k: int
    score: float | None
    coverage: float = Field(description="Share of the outcomes' probability that the held draws answer for.")
    draws: int | None = Field(description="Independent draws behind the score; null in older trials.")
    standard_error: float | None = Field(description="Over examples; null below two of them.")


class TrialPublic(Public):
    """One allocation evaluated on one split. Costs are per query, in `unit`."""

    trial_no: int
    split: Literal["search", "test", "revalidation"]
    round: int
    allocation: AllocationPublic
    status: Literal["done", "failed", "cut"] = Field(
        description="`failed`: no example could be scored; `cut`: the budget ended within its batch; not a score of 0."
    )
    score: float | None
    standard_error: float | None
    scored: int
    failed: int = Field(description="Examples whose model calls failed; they are in no score.")
    predicted_cost: float
    measured_cost: float | None
    unit: str
    new_draws: int
    reused_draws: int
    independent_draws: int | None = Field(description="Distinct draws behind the score; null in older trials.")
    prompt_tokens: int
    output_tokens: int
    seconds: float = Field(description="Its share of the batch's clock time, loads of model servers left out.")
    load_seconds: float | None = Field(
        description="Loads of model servers that it caused, never part of `seconds`; null in older trials, whose "
        "`seconds` hold them."
    )
    stage_scores: dict[str, float] = Field(
        default_factory=dict, description="Mean score of each stage's own answers, where the stage has a metric."
    )
    examples_planned: int | None = Field(
        None, description="Examples of the split; more than were run where racing stopped the trial. Null in old ones."
    )
    stopped: bool = Field(False, description="Racing stopped it early: its score rests on the examples it ran on.")
    curves: dict[str, list[CurvePoint]]
    created_at: datetime

    @classmethod
    def of(cls, record: TrialRecord) -> TrialPublic:
        """From the archive's record."""
        return cls(**_trial_values(record))


class StageOutcomePublic(Public):
    """What one stage delivered on one example."""

    stage: str
    answer: str | None = Field(description="The aggregated answer as JSON; null where no draw could be parsed.")
    samples: int
    held: int = Field(description="Independent draws behind this outcome.")
    prompt_tokens: int
    output_tokens: int
    score: float | None = Field(None, description="By the stage's own metric; null where it has none, or no gold.")


class ExamplePublic(Public):
    """One allocation on one example."""

    example_id: str
    status: Literal["scored", "failed"] = Field(description="`failed`: not evaluated; it is not a score of 0.")
    score: float | None
    realised: float | None = Field(description="Score of the answer that the allocated samples gave.")
    reason: str
    cost: float
    stages: list[StageOutcomePublic]

    @classmethod
    def of(cls, evidence: ExampleEvidence) -> ExamplePublic:
        """From the environment's evidence."""
        return cls(
            example_id=evidence.example_id,
            status=evidence.status,
            score=evidence.score,
            realised=evidence.realised,
            reason=evidence.reason,
            cost=evidence.cost,
            stages=[
                StageOutcomePublic(
                    stage=s.stage,
                    answer=s.answer,
                    samples=s.samples,
                    held=s.held,
                    prompt_tokens=s.prompt_tokens,
                    output_tokens=s.output_tokens,
                    score=s.score,
                )
                for s in evidence.stages
            ],
        )


class TrialDetail(TrialPublic):
    """A trial with what became of its examples; they are a list of their own."""

    outcomes: dict[Outcome, int] = Field(
        description="Examples by what became of them: a failed one was not evaluated and is not wrong."
    )
    links: dict[str, str]

    @classmethod
    def with_outcomes(cls, record: TrialRecord, outcomes: Mapping[Outcome, int]) -> TrialDetail:
        """From the archive's record and what became of the examples."""
        base = f"/api/v1/studies/{record.study_id}/trials/{record.trial_no}"
        links = {"self": base, "examples": f"{base}/examples"}
        return cls(**_trial_values(record), outcomes=dict(outcomes), links=links)


def _trial_values(record: TrialRecord) -> Mapping[str, Any]:
    return {
        "trial_no": record.trial_no,
        "split": record.split,
        "round": record.round,
        "allocation": record.allocation.to_json(),
        "status": record.status,
        "score": record.score,
        "standard_error": record.standard_error,
        "scored": record.scored,
        "failed": record.failed,
        "predicted_cost": record.predicted_cost,
        "measured_cost": record.measured_cost,
        "unit": record.unit,
        "new_draws": record.spend.new_draws,
        "reused_draws": record.spend.reused_draws,
        "independent_draws": record.draws,
        "prompt_tokens": record.spend.prompt_tokens,
        "output_tokens": record.spend.output_tokens,
        "seconds": record.spend.seconds,
        "load_seconds": record.spend.load_seconds,
        "stage_scores": dict(record.stage_scores),
        "examples_planned": record.examples_planned,
        "stopped": record.stopped,
        "curves": {stage: [_curve_point(p) for p in points] for stage, points in record.curves.items()},
        "created_at": record.created_at,
    }


def _curve_point(point: KPoint) -> CurvePoint:
    return CurvePoint(
        k=point.k,
        score=point.score,
        coverage=point.coverage,
        draws=point.draws,
        standard_error=point.standard_error,
    )
