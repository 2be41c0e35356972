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
