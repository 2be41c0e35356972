"""Studies."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from pydantic import Field, field_validator

from api.schemas.base import AllocationPublic, Public
from planner.archive import (
    StudyRecord,
    StudyStatus,
)
from planner.plans import PlanDocument

MAX_NOTES = 20_000
"""Characters."""


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
    pause_requested: bool = Field(description="It pauses before its next batch of trials, or does.")
    priority: int = Field(description="Studies of a queue with a lower one are started first.")
    queue: str = Field(description="The queue it waits in; see /api/v1/queues.")
    schedule: str | None = Field(description="The schedule that queued it.")
    notes: str = Field(description="What people wrote about it.")
    pipeline: str = Field(description="Digest of its pipeline: equal where pipelines are, whatever their names.")
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
    stopped: str = Field(description="What ended the search; empty while it runs.")
    plan: PlanSummary | None

    @classmethod
    def with_progress(
        cls, record: StudyRecord, trials: int, draws: float, document: PlanDocument | None, stopped: str = ""
    ) -> StudyDetail:
        """From the archive's record and what else it knows of the study."""
        plan = PlanSummary.of(document) if document else None
        values = _study_values(record)
        return cls(**values, spec=dict(record.spec), trials=trials, draws=draws, stopped=stopped, plan=plan)


class StudyClone(Public):
    """What the copy of a study has of its own."""

    overrides: dict[str, Any] = Field(
        default_factory=dict,
        description="Merged into the spec (JSON Merge Patch, RFC 7396): objects member by member, null removes, all "
        "else replaces.",
        examples=[{"name": "wider", "budget": {"search": {"trials": 48}}, "seed": 1}],
    )


class NotesPublic(Public):
    """What people wrote about a study."""

    notes: str = Field(max_length=MAX_NOTES, examples=["The baseline for the new prompts."])

    @field_validator("notes")
    @classmethod
    def _storable(cls, value: str) -> str:
        """Half a surrogate pair is no text."""
        value.encode("utf-8")
        return value


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
        "pause_requested": record.pause_requested,
        "priority": record.priority,
        "queue": record.queue,
        "schedule": record.schedule_name,
        "notes": record.notes,
        "pipeline": record.pipeline_digest,
        "links": {
            "self": base,
            "trials": f"{base}/trials",
            "proposals": f"{base}/proposals",
            "guidelines": f"{base}/guidelines",
            "ledgers": f"{base}/ledgers",
            "notes": f"{base}/notes",
            "plan": f"{base}/plan",
            "report": f"{base}/report",
            "events": f"{base}/events",
            "page": f"/studies/{record.id}",
        },
    }
