"""Tables of those who run studies: workers and schedules."""

from datetime import datetime
from typing import Any

from sqlmodel import Field

from planner.archive.columns import Json, UtcDateTime
from planner.archive.tables.base import ArchiveTable


class WorkerRow(ArchiveTable, table=True):
    """One process that runs studies, and when it was last heard of."""

    __tablename__ = "workers"

    executor_id: str = Field(primary_key=True)
    host: str
    pid: int
    started_at: datetime = Field(sa_type=UtcDateTime)
    last_beat: datetime = Field(sa_type=UtcDateTime, index=True)


class ScheduleRow(ArchiveTable, table=True):
    """A study that is run again and again."""

    __tablename__ = "schedules"

    name: str = Field(primary_key=True)
    spec: dict[str, Any] = Field(sa_type=Json)
    cron: str
    timezone: str
    created_at: datetime = Field(sa_type=UtcDateTime)
    paused: bool
    last_fired_at: datetime | None = Field(default=None, sa_type=UtcDateTime)


class LeaseRow(ArchiveTable, table=True):
    """Which run of a study may write about it; apart from the study, so that its lock holds off nobody else."""

    __tablename__ = "leases"

    study_id: str = Field(primary_key=True, foreign_key="studies.id", ondelete="CASCADE")
    epoch: int
    """The number of the run; only ever grows."""

    owner: str
    """Executor id of the worker that runs it; empty while it waits for one."""

    claimed_at: datetime | None = Field(default=None, sa_type=UtcDateTime)


class StepRow(ArchiveTable, table=True):
    """What a step of a study's loop came to, so that no later run takes it again."""

    __tablename__ = "steps"

    study_id: str = Field(primary_key=True, foreign_key="studies.id", ondelete="CASCADE")
    name: str = Field(primary_key=True)
    result: dict[str, Any] = Field(sa_type=Json)
    """``{"value": ...}``."""

    created_at: datetime = Field(sa_type=UtcDateTime)
