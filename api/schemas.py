"""What the service answers and accepts; the archive's own records never leave as they are."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from api.problems import FaultPublic
from env.execution.evidence import ExampleEvidence
from planner.archive import (
    GuidelineRecord,
    KPoint,
    ProposalRecord,
    ScheduleRecord,
    StudyRecord,
    StudyStatus,
    TrialRecord,
)
from planner.plans import PlanDocument

AllocationPublic = dict[str, dict[str, str | int]]
ScheduleName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z][A-Za-z0-9_.-]{0,63}$")]


class Public(BaseModel):
    """Base of everything that crosses the border."""

    model_config = ConfigDict(extra="forbid")


class PlanSummary(Public):
    """A plan in a line."""

    allocation: AllocationPublic
    predicted_cost: float = Field(description="Per query, in `unit`.")
    unit: str
    search_score: float
    test_score: float | None = Field(description="On the sealed test split; null where it could not be evaluated.")

    @classmethod
    def of(cls, document: PlanDocument) -> PlanSummary:
        """From the plan document."""
        return cls(
            allocation=document.allocation,
            predicted_cost=document.predicted_cost,
            unit=document.unit,
            search_score=document.search_score,
            test_score=document.test_score.estimate if document.test_score else None,
        )


class StudyPublic(Public):
    """A study and how far it is. Times are in UTC."""

    id: str
    name: str
    status: StudyStatus
    phase: str = Field(description="The part of the search it is in; empty before the start.")
    round: int
    proposer: str = Field(description="The proposer that runs, once resolved; empty before.")
    seed: int
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    error: str = Field(description="Why it failed; empty where it did not.")
    cancel_requested: bool
    schedule: str | None = Field(description="The schedule that queued it.")
    links: dict[str, str]

    @classmethod
    def of(cls, record: StudyRecord) -> StudyPublic:
        """From the archive's record."""
        return cls(**_study_values(record))


class StudyDetail(StudyPublic):
    """A study with its spec, its budget's state and its plan."""

    spec: dict[str, Any]
    trials: int = Field(description="Trials on the search split so far.")
    draws: float = Field(description="New draws the search has settled.")
    plan: PlanSummary | None

    @classmethod
    def with_progress(
        cls, record: StudyRecord, trials: int, draws: float, document: PlanDocument | None
    ) -> StudyDetail:
        """From the archive's record and what else it knows of the study."""
        plan = PlanSummary.of(document) if document else None
        return cls(**_study_values(record), spec=dict(record.spec), trials=trials, draws=draws, plan=plan)


class StudyPage(Public):
    """Studies, newest first."""

    studies: list[StudyPublic]
    next_before: str | None = Field(description="Give this as `before` for the page after; null on the last one.")


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
    split: Literal["search", "test"]
    round: int
    allocation: AllocationPublic
    status: Literal["done", "failed"] = Field(description="`failed`: no example could be scored; not a score of 0.")
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
                )
                for s in evidence.stages
            ],
        )


class TrialDetail(TrialPublic):
    """A trial with its evidence."""

    evidence: list[ExamplePublic]

    @classmethod
    def with_evidence(cls, record: TrialRecord, evidence: tuple[ExampleEvidence, ...]) -> TrialDetail:
        """From the archive's record and evidence."""
        return cls(**_trial_values(record), evidence=[ExamplePublic.of(e) for e in evidence])


class ProposalPublic(Public):
    """One suggested allocation and what review said."""

    round: int
    attempt: int
    position: int
    origin: str = Field(description="Who suggested it; `call` marks a call of the agent's LLM itself.")
    allocation: AllocationPublic | None = Field(description="Null where the suggestion could not be read.")
    verdict: Literal["accepted", "refused"]
    verdict_reason: str
    reason: str
    expected_score: float | None
    llm_model: str | None
    prompt: str | None
    reply: str | None
    tokens_in: int
    tokens_out: int

    @classmethod
    def of(cls, record: ProposalRecord) -> ProposalPublic:
        """From the archive's record."""
        allocation = record.allocation.to_json() if record.allocation else None
        names = [name for name in cls.model_fields if name != "allocation"]
        return cls(allocation=allocation, **{name: getattr(record, name) for name in names})


class GuidelinePublic(Public):
    """What a round taught."""

    round: int
    position: int
    insight: int = Field(description="Which of the three insights it follows; 0 for none.")
    stage: str | None
    text: str
    structured: dict[str, Any]

    @classmethod
    def of(cls, record: GuidelineRecord) -> GuidelinePublic:
        """From the archive's record."""
        values = {name: getattr(record, name) for name in cls.model_fields if name != "structured"}
        return cls(**values, structured=dict(record.structured))


class ScheduleCreate(Public):
    """A study to be queued again and again."""

    name: ScheduleName
    cron: str = Field(max_length=200, description="Five fields, or six with seconds first.")
    timezone: str = Field("UTC", max_length=100, description="IANA name, for instance Europe/Berlin.")
    spec: dict[str, Any] = Field(description="A study spec; checked like one that is submitted.")


class SchedulePublic(Public):
    """A schedule. Times are in UTC."""

    name: str
    study: str = Field(description="Name of the study it queues.")
    cron: str
    timezone: str
    created_at: datetime
    last_fired_at: datetime | None
    spec: dict[str, Any]

    @classmethod
    def of(cls, record: ScheduleRecord) -> SchedulePublic:
        """From the archive's record."""
        return cls(
            name=record.name,
            study=str(record.spec.get("name", "")),
            cron=record.cron,
            timezone=record.timezone,
            created_at=record.created_at,
            last_fired_at=record.last_fired_at,
            spec=dict(record.spec),
        )


class CheapestPublic(Public):
    """The allocation with the lowest predicted cost."""

    allocation: AllocationPublic
    predicted_cost: float = Field(description="Per query, in `unit`.")
    unit: str


class CheckPublic(Public):
    """What is wrong with a spec, and what its cheapest allocation costs."""

    valid: bool
    faults: list[FaultPublic]
    cheapest: CheapestPublic | None = Field(description="Null where the spec's faults leave it unknown.")


class HealthPublic(Public):
    """Whether the process answers."""

    status: Literal["ok"] = "ok"


def _study_values(record: StudyRecord) -> Mapping[str, Any]:
    base = f"/api/v1/studies/{record.id}"
    return {
        "id": record.id,
        "name": record.name,
        "status": record.status,
        "phase": record.phase,
        "round": record.round,
        "proposer": record.proposer,
        "seed": record.seed,
        "created_at": record.created_at,
        "started_at": record.started_at,
        "finished_at": record.finished_at,
        "error": record.error,
        "cancel_requested": record.cancel_requested,
        "schedule": record.schedule_name,
        "links": {
            "self": base,
            "trials": f"{base}/trials",
            "plan": f"{base}/plan",
            "events": f"{base}/events",
            "page": f"/studies/{record.id}",
        },
    }


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
