"""The report's document: everything that report.json, report.md and report.html say of a study, once.

The pages only format these values, so that no two of them can disagree.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from planner.plans.document import GuidelineLine, IntervalPublic, PlanDocument

AllocationJson = dict[str, dict[str, Any]]


class ReportPart(BaseModel):
    """Base of the report's parts."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class StudyFacts(ReportPart):
    """Which study this is about. Times are in UTC."""

    id: str
    name: str
    description: str
    proposer: str
    seed: int
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None

    @property
    def wall_seconds(self) -> float | None:
        """From its first start to its end; interruptions count."""
        if self.started_at is None or self.finished_at is None:
            return None
        return (self.finished_at - self.started_at).total_seconds()


class CurveValue(ReportPart):
    """Expected score with k samples at one stage."""

    k: int
    score: float | None
    coverage: float
    """Share of the outcomes' probability that the draws held answer for."""

    standard_error: float | None = None


class Neighbour(ReportPart):
    """What a smaller or larger model scored at a stage, held against the plan example by example."""

    side: Literal["smaller", "larger"]
    model: str
    trial_no: int | None
    """Where it was tried; None where it was not."""

    allocation: AllocationJson | None = None
    same_elsewhere: bool = False
    """Whether that trial is the plan at every other stage, so that the difference is this stage's alone."""

    score: float | None = None
    predicted_cost: float | None = None
    difference: IntervalPublic | None = None
    """Plan minus this, paired over the shared search examples."""

    words: str


class Step(ReportPart):
    """The next number of samples up or down at a stage, all else alike."""

    samples: int
    difference: IntervalPublic
    """Score there minus score at the plan's samples, paired over examples of the trial that drew both."""

    cost: float
    """Per query, more than the plan's; negative for a saving."""

    per_percent: float | None
    """Change of the score for each 1% of the budget per query that it costs or saves; None where it costs nothing."""

    affordable: bool


class StageAccount(ReportPart):
    """Why one stage has its model and its samples."""

    stage: str
    model: str
    strategy: str
    samples: int
    knobs: dict[str, Any] = Field(default_factory=dict)
    predicted_cost: float
    share: float
    """Of the plan's cost per query."""

    curve: list[CurveValue]
    curve_trial: int | None
    """The trial whose curve it is: the one with the most samples of this model and strategy here."""

    plateau: int | None
    """Fewest samples within 0.005 of the best of the curve."""

    curve_words: str
    neighbours: list[Neighbour]
    up: Step | None
    down: Step | None
    step_words: str
    """What the next sample would bring, or why nobody knows."""

    why: str
    """As the plan document says it."""


class TrialLine(ReportPart):
    """One trial on the search split."""

    trial_no: int
    round: int
    allocation: AllocationJson
    text: str
    """The allocation as people write it."""

    score: float | None
    standard_error: float | None
    predicted_cost: float
    measured_cost: float | None
    unit: str
    new_draws: int
    reused_draws: int
    failed: int
    examples: int
    """That it ran on."""

    stopped: bool
    """Racing ended it before all examples."""

    stage_scores: dict[str, float]
    """Mean score of each stage's own answers, where the stage has a metric."""

    status: str
    seconds: float
    """Its share of its batch's clock time."""

    load_seconds: float | None
    """What its model servers took to start or wake; in no other figure. None where nobody measured it."""

    ladder: dict[str, Any] | None
    curves: dict[str, list[CurveValue]]


class Refusal(ReportPart):
    """One proposal that review refused."""

    round: int
    origin: str
    allocation: str
    """Empty where it could not be read."""

    reason: str


class RefusalGroup(ReportPart):
    """Refusals for one reason, numbers in it aside."""

    reason: str
    count: int
    example: str
    """One of the allocations; empty where none could be read."""


class UnitLine(ReportPart):
    """The plan's cost per query in one unit, on the search split."""

    unit: str
    written: str
    predicted: float | None
    measured: float | None


class Fit(ReportPart):
    """How measured costs follow predicted ones."""

    factor: float
    low: float | None
    high: float | None
    rank_correlation: float | None
    pairs: int


class Fitted(ReportPart):
    """Predicted against measured cost of the trials in one pair of units."""

    title: str
    predicted_unit: str
    measured_unit: str
    fit: Fit | None
    words: str


class SpendLine(ReportPart):
    """What a ledger was charged, or what the trials add up to."""

    ledger: str
    what: str
    spent: float
    unit: str
    limit: float | None


class Extra(ReportPart):
    """Something the plan document says beyond what this report has a place for."""

    name: str
    value: Any
    words: str


class StudyReport(ReportPart):
    """A finished study for those who were not there."""

    version: Literal[1] = 1
    summary: list[str]
    """Three sentences."""

    study: StudyFacts
    plan: PlanDocument
    best: PlanDocument | None
    stages: list[StageAccount]
    runner_up: str
    """Whether the plan can be told apart from the runner-up, in a sentence."""

    units: list[UnitLine]
    trials: list[TrialLine]
    calibrations: dict[str, Fit | None]
    """By "predicted unit -> measured unit"."""

    fitted: list[Fitted]
    guidelines: list[GuidelineRound]
    refused: list[Refusal]
    refusals: list[RefusalGroup]
    ledgers: list[SpendLine]
    limits: list[str]
    extras: list[Extra]
    spec: dict[str, Any]


class GuidelineRound(GuidelineLine):
    """One guideline and the round that wrote it."""

    round: int


StudyReport.model_rebuild()
