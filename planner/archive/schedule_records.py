"""What the archive answers and accepts about schedules: frozen, with no tie to the database."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

Overlap = Literal["skip", "queue", "cancel"]
Missed = Literal["skip", "latest"]
AlertWhen = Literal["always", "change", "failure"]
Watched = Literal["data", "models"]
RunCause = Literal["cron", "once", "change", "manual"]
RunStatus = Literal["waiting", "running", "searching", "ended"]
RunOutcome = Literal["revalidated", "searched", "skipped", "missed", "failed", "cancelled"]
AlertStatus = Literal["pending", "delivered", "failed"]


@dataclass(frozen=True)
class AlertTarget:
    """Whom the end of a run is told."""

    url: str
    secret_env: str
    """Environment variable that holds the key of the signature."""

    when: AlertWhen = "change"


@dataclass(frozen=True)
class SchedulePlan:
    """What a person decides about a schedule. Of cron, at and on_change, one is given."""

    spec: Mapping[str, Any]
    cron: str | None = None
    timezone: str = "UTC"
    at: datetime | None = None
    on_change: tuple[Watched, ...] = ()
    overlap: Overlap = "skip"
    missed: Missed = "skip"
    keep_runs: int = 200
    alert: AlertTarget | None = None
    incumbent_study: str | None = None
    baseline: Mapping[str, Any] | None = None
    """Data and candidates as they were when that incumbent was found; None where that is not known."""


@dataclass(frozen=True)
class ScheduleRecord:
    """A schedule. Times are in UTC."""

    name: str
    plan: SchedulePlan
    """Its spec is empty where it was not asked for."""

    version: int
    created_at: datetime
    updated_at: datetime
    paused: bool
    last_fired_at: datetime | None
    considered_until: datetime
    """Firings up to this moment are settled."""

    observed: Mapping[str, Any] | None


@dataclass(frozen=True)
class RunRecord:
    """One run of a schedule. Times are in UTC."""

    id: str
    schedule_name: str
    number: int
    due: datetime
    cause: RunCause
    status: RunStatus
    outcome: RunOutcome | None
    """None until it has ended."""

    reason: str
    """Why it ended as it did, or was entered, for people."""

    cancel_requested: bool
    seed: int
    created_at: datetime
    started_at: datetime | None
    ended_at: datetime | None
    found: Mapping[str, Any] | None
    incumbent_study: str | None
    trial_no: int | None
    new_study: str | None
    check: Mapping[str, Any] | None
    diff: Mapping[str, Any] | None


@dataclass(frozen=True)
class NewRun:
    """A run to be entered; with an outcome, it has ended at once."""

    due: datetime
    cause: RunCause
    reason: str = ""
    outcome: RunOutcome | None = None


@dataclass(frozen=True)
class Advance:
    """What becomes due in a schedule: runs to enter, runs to cancel, and how far it has been looked at."""

    considered_until: datetime
    runs: Sequence[NewRun] = ()
    cancel: Sequence[str] = ()
    """Ids of unfinished runs."""

    observed: Mapping[str, Any] | None = None
    """None leaves it as it is."""

    fired_at: datetime | None = None


@dataclass(frozen=True)
class AlertRecord:
    """What somebody was told of a run, and how that went."""

    run_id: str
    schedule_name: str
    url: str
    secret_env: str
    body: str
    status: AlertStatus
    attempts: Sequence[Mapping[str, Any]]
    """Each with number, at, status (of HTTP, or null), error and seconds."""

    created_at: datetime
    ended_at: datetime | None
