"""Schedules."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any

from pydantic import Field, StringConstraints

from api.schemas.base import Public
from planner.archive import (
    ScheduleRecord,
)

ScheduleName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z][A-Za-z0-9_.-]{0,63}$")]


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
