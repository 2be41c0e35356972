"""Tables of schedules: what is due when, every run of one, and whom a run told."""

from datetime import datetime
from typing import Any

from sqlalchemy import BigInteger, Index, UniqueConstraint
from sqlmodel import Field

from planner.archive.columns import AnyText, Json, UtcDateTime
from planner.archive.tables.base import ArchiveTable


class ScheduleRow(ArchiveTable, table=True):
    """A study whose plan is checked, and searched anew where needed, again and again."""

    __tablename__ = "schedules"

    name: str = Field(primary_key=True)
    spec: dict[str, Any] = Field(sa_type=Json)
    cron: str | None = None
    timezone: str
    fires_at: datetime | None = Field(default=None, sa_type=UtcDateTime)
    on_change: list[str] | None = Field(default=None, sa_type=Json)
    """Of cron, fires_at and on_change, one is given."""

    overlap: str
    missed: str
    keep_runs: int
    alert: dict[str, Any] | None = Field(default=None, sa_type=Json)
    incumbent_study: str | None = None
    """Whose plan the next run checks; NULL while there is none, or where only older rows tell."""

    baseline: dict[str, Any] | None = Field(default=None, sa_type=Json)
    """Data and candidates as they were when the incumbent was searched for; NULL where that is not known."""

    observed: dict[str, Any] | None = Field(default=None, sa_type=Json)
    """Data and candidates as they were when they were last looked at, where changes fire the schedule."""

    version: int
    """Counts up with every edit."""

    created_at: datetime = Field(sa_type=UtcDateTime)
    updated_at: datetime = Field(sa_type=UtcDateTime)
    paused: bool
    last_fired_at: datetime | None = Field(default=None, sa_type=UtcDateTime)
    considered_until: datetime = Field(sa_type=UtcDateTime)
    """Firings up to this moment are settled: run, skipped or missed."""


class ScheduleRunRow(ArchiveTable, table=True):
    """One firing of a schedule, and what became of it."""

    __tablename__ = "schedule_runs"
    __table_args__ = (UniqueConstraint("schedule_name", "number"), Index(None, "status"))

    id: str = Field(primary_key=True)
    schedule_name: str = Field(foreign_key="schedules.name", ondelete="CASCADE")
    number: int
    """Counts up within the schedule, in the order its runs were entered."""

    due: datetime = Field(sa_type=UtcDateTime)
    cause: str
    status: str
    outcome: str | None = None
    reason: str = Field(sa_type=AnyText)
    cancel_requested: bool
    seed: int = Field(sa_type=BigInteger)
    """Of the fresh draws."""

    created_at: datetime = Field(sa_type=UtcDateTime)
    started_at: datetime | None = Field(default=None, sa_type=UtcDateTime)
    ended_at: datetime | None = Field(default=None, sa_type=UtcDateTime)
    found: dict[str, Any] | None = Field(default=None, sa_type=Json)
    """Data and candidates as the run found them."""

    incumbent_study: str | None = None
    trial_no: int | None = None
    """The re-validation, a trial of the incumbent's study."""

    new_study: str | None = None
    check: dict[str, Any] | None = Field(default=None, sa_type=Json)
    """What the re-validation showed."""

    diff: dict[str, Any] | None = Field(default=None, sa_type=Json)


class ScheduleAlertRow(ArchiveTable, table=True):
    """What somebody was told of a run, and how that went."""

    __tablename__ = "schedule_alerts"

    run_id: str = Field(primary_key=True, foreign_key="schedule_runs.id", ondelete="CASCADE")
    schedule_name: str = Field(index=True)
    url: str = Field(sa_type=AnyText)
    secret_env: str
    body: str = Field(sa_type=AnyText)
    status: str
    attempts: list[dict[str, Any]] = Field(sa_type=Json)
    created_at: datetime = Field(sa_type=UtcDateTime)
    ended_at: datetime | None = Field(default=None, sa_type=UtcDateTime)
