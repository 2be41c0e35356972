"""Tables of a study: what was proposed, tried, learnt, spent and found."""

from datetime import datetime
from typing import Any

from sqlalchemy import BigInteger, ForeignKeyConstraint, Index, UniqueConstraint
from sqlmodel import Field

from planner.archive.columns import AnyText, Json, RowNumber, UtcDateTime
from planner.archive.tables.base import ArchiveTable, study_key


class StudyRow(ArchiveTable, table=True):
    """One search."""

    __tablename__ = "studies"
    __table_args__ = (Index(None, "created_at", "id"), Index(None, "status"), Index(None, "name"))

    id: str = Field(primary_key=True)
    name: str
    spec: dict[str, Any] = Field(sa_type=Json)
    status: str
    proposer: str
    seed: int = Field(sa_type=BigInteger)
    created_at: datetime = Field(sa_type=UtcDateTime)
    started_at: datetime | None = Field(default=None, sa_type=UtcDateTime)
    finished_at: datetime | None = Field(default=None, sa_type=UtcDateTime)
    phase: str
    round: int
    error: str = Field(sa_type=AnyText)
    cancel_requested: bool
    pause_requested: bool = False
    priority: int = 100
    """Studies with a lower one are started first."""

    queue: str = "studies"
    """Where it waits for a worker."""

    idempotency_key: str | None = Field(default=None, unique=True)
    schedule_name: str | None = Field(default=None, index=True)
    notes: str = Field(default="", sa_type=AnyText, sa_column_kwargs={"server_default": ""})
    """What people wrote about it."""

    pipeline_digest: str = Field(default="", index=True, sa_column_kwargs={"server_default": ""})
    """See `planner.archive.pipelines.pipeline_digest`; empty where the spec has none."""


class ProposalRow(ArchiveTable, table=True):
    """One allocation somebody suggested, and what review said."""

    __tablename__ = "proposals"

    study_id: str = Field(primary_key=True, foreign_key="studies.id", ondelete="CASCADE")
    round: int = Field(primary_key=True, sa_column_kwargs={"autoincrement": False})
    attempt: int = Field(primary_key=True, sa_column_kwargs={"autoincrement": False})
    position: int = Field(primary_key=True, sa_column_kwargs={"autoincrement": False})
    allocation: dict[str, Any] | None = Field(default=None, sa_type=Json)
    allocation_key: str = Field(sa_type=AnyText)
    origin: str
    reason: str = Field(sa_type=AnyText)
    expected_score: float | None = None
    verdict: str
    verdict_reason: str = Field(sa_type=AnyText)
    prompt: str | None = Field(default=None, sa_type=AnyText)
    reply: str | None = Field(default=None, sa_type=AnyText)
    llm_model: str | None = None
    tokens_in: int = Field(sa_type=BigInteger)
    tokens_out: int = Field(sa_type=BigInteger)
    call: dict[str, Any] | None = Field(default=None, sa_type=Json)
    """What else is known of an LLM call; NULL in rows recorded before it was kept."""

    created_at: datetime = Field(sa_type=UtcDateTime)


class TrialRow(ArchiveTable, table=True):
    """One allocation evaluated on a set of examples."""

    __tablename__ = "trials"

    study_id: str = Field(primary_key=True, foreign_key="studies.id", ondelete="CASCADE")
    trial_no: int = Field(primary_key=True, sa_column_kwargs={"autoincrement": False})
    split: str
    round: int
    allocation: dict[str, Any] = Field(sa_type=Json)
    allocation_key: str = Field(sa_type=AnyText)
    status: str
    score: float | None = None
    standard_error: float | None = None
    scored: int
    failed: int
    predicted_cost: float
    measured_cost: float | None = None
    unit: str
    new_draws: int = Field(sa_type=BigInteger)
    reused_draws: int = Field(sa_type=BigInteger)
    prompt_tokens: int = Field(sa_type=BigInteger)
    output_tokens: int = Field(sa_type=BigInteger)
    spend_cost: float
    seconds: float
    load_seconds: float | None = None
    """NULL in trials recorded before loads were kept apart; their `seconds` hold them."""

    curves: dict[str, Any] = Field(sa_type=Json)
    draws: int | None = Field(default=None, sa_type=BigInteger)
    """Independent draws behind the score; NULL in trials recorded before they were counted."""

    stage_scores: dict[str, Any] | None = Field(default=None, sa_type=Json)
    """Mean score of stages with a metric of their own; NULL in older trials."""

    examples_planned: int | None = None
    """Examples of the split; more than were run where the trial was stopped. NULL in older trials."""

    created_at: datetime = Field(sa_type=UtcDateTime)


class EvidenceRow(ArchiveTable, table=True):
    """One trial on one example."""

    __tablename__ = "evidence"
    __table_args__ = (
        ForeignKeyConstraint(["study_id", "trial_no"], ["trials.study_id", "trials.trial_no"], ondelete="CASCADE"),
    )

    study_id: str = Field(primary_key=True)
    trial_no: int = Field(primary_key=True, sa_column_kwargs={"autoincrement": False})
    example_id: str = Field(primary_key=True, sa_type=AnyText)
    position: int
    status: str
    score: float | None = None
    realised: float | None = None
    reason: str = Field(sa_type=AnyText)
    cost: float
    stages: list[Any] = Field(sa_type=Json)
    curves: dict[str, Any] = Field(sa_type=Json)


class GuidelineRow(ArchiveTable, table=True):
    """What a round taught, in words and in structured form."""

    __tablename__ = "guidelines"

    study_id: str = Field(primary_key=True, foreign_key="studies.id", ondelete="CASCADE")
    round: int = Field(primary_key=True, sa_column_kwargs={"autoincrement": False})
    position: int = Field(primary_key=True, sa_column_kwargs={"autoincrement": False})
    insight: int
    stage: str | None = None
    text: str = Field(sa_type=AnyText)
    structured: dict[str, Any] = Field(sa_type=Json)
    created_at: datetime = Field(sa_type=UtcDateTime)


class PlanRow(ArchiveTable, table=True):
    """What a study ended with."""

    __tablename__ = "plans"

    study_id: str = Field(primary_key=True, foreign_key="studies.id", ondelete="CASCADE")
    kind: str = Field(primary_key=True)
    allocation: dict[str, Any] = Field(sa_type=Json)
    document: dict[str, Any] = Field(sa_type=Json)
    created_at: datetime = Field(sa_type=UtcDateTime)


class LedgerRow(ArchiveTable, table=True):
    """One reservation against a budget, and what it came to."""

    __tablename__ = "ledger_entries"

    study_id: str = Field(primary_key=True, foreign_key="studies.id", ondelete="CASCADE")
    ledger: str = Field(primary_key=True)
    entry_key: str = Field(primary_key=True)
    unit: str
    reserved: float
    settled: float | None = None
    created_at: datetime = Field(sa_type=UtcDateTime)
    settled_at: datetime | None = Field(default=None, sa_type=UtcDateTime)


class EventRow(ArchiveTable, table=True):
    """One thing that happened in a study, for those who watch."""

    __tablename__ = "events"
    __table_args__ = (
        Index(None, "study_id", "id"),
        UniqueConstraint("study_id", "event_key"),
        {"sqlite_autoincrement": True},
    )

    id: int | None = Field(default=None, primary_key=True, sa_type=RowNumber)
    study_id: str = study_key()
    event_key: str | None = None
    kind: str
    payload: dict[str, Any] = Field(sa_type=Json)
    created_at: datetime = Field(sa_type=UtcDateTime)
