"""Schedules, their runs and the alerts about them. Times are in UTC where not said otherwise."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Annotated, Any

from pydantic import Field, StringConstraints

from api.schemas.base import Public
from planner.archive import AlertRecord, RunRecord, ScheduleRecord
from planner.archive.schedule_records import (
    AlertStatus,
    AlertWhen,
    Missed,
    Overlap,
    RunCause,
    RunOutcome,
    RunStatus,
    Watched,
)
from planner.schedules.diff import Revalidation, RunDiff
from planner.schedules.policy import next_firing

ScheduleName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z][A-Za-z0-9_.-]{0,63}$")]
SecretEnv = Annotated[str, StringConstraints(pattern=r"^[A-Za-z_][A-Za-z0-9_]{0,127}$")]
CronText = Annotated[str, StringConstraints(max_length=200)]
ZoneText = Annotated[str, StringConstraints(max_length=100)]
MomentText = Annotated[str, StringConstraints(max_length=40)]
StudyText = Annotated[str, StringConstraints(min_length=1, max_length=200)]

CRON = "Five fields, or six with seconds first. Of cron, at and on_change, give one."
ZONE = "IANA name, for instance Europe/Berlin; of cron, and of `at` where it has no offset."
AT = "ISO 8601; once, at that moment. Without an offset it is a time of the time zone."
ON_CHANGE = "Run when the data, or the models (revision, set, costs), are not what they were."
SPEC = "A study spec; checked like one that is submitted."


class AlertPlan(Public):
    """Whom the end of a run is told, by a signed POST; docs/schedules.md shows the receiver's side."""

    url: str = Field(min_length=1, max_length=2000, description="https:// or http://")
    secret_env: SecretEnv = Field(description="Environment variable of the worker that holds the key.")
    when: AlertWhen = Field(
        "change",
        description="always: every run. change: a search found something, or a run failed or was missed. failure: only "
        "the latter.",
    )


class ScheduleFields(Public):
    """What is decided about a schedule."""

    cron: CronText | None = Field(None, description=CRON)
    timezone: ZoneText = Field("UTC", description=ZONE)
    at: MomentText | None = Field(None, description=AT)
    on_change: list[Watched] = Field([], max_length=2, description=ON_CHANGE)
    overlap: Overlap = Field(
        "skip", description="When a run is due while another is under way: skip it, queue it, or cancel the other."
    )
    missed: Missed = Field(
        "skip", description="Of firings missed while no worker ran: skip all, or run the latest at the next start."
    )
    keep_runs: int = Field(200, ge=1, le=10_000, description="Runs kept; the oldest ended ones go first.")
    alert: AlertPlan | None = None
    plan: StudyText | None = Field(
        None, description="Study whose plan the next run checks; the last study of this schedule where not given."
    )
    spec: dict[str, Any] = Field(description=SPEC)


class ScheduleCreate(ScheduleFields):
    """A schedule to be entered."""

    name: ScheduleName


class SchedulePatch(Public):
    """What to change of a schedule; what is left out stays. One of cron, at and on_change replaces the others."""

    cron: CronText | None = Field(None, description=CRON)
    timezone: ZoneText | None = Field(None, description=ZONE)
    at: MomentText | None = Field(None, description=AT)
    on_change: list[Watched] | None = Field(None, max_length=2, description=ON_CHANGE)
    overlap: Overlap | None = None
    missed: Missed | None = None
    keep_runs: int | None = Field(None, ge=1, le=10_000)
    alert: AlertPlan | None = Field(None, description="null takes the alert away.")
    plan: StudyText | None = None
    spec: dict[str, Any] | None = Field(None, description=SPEC)


class SchedulePublic(Public):
    """A schedule."""

    name: str
    study: str = Field(description="Name of the studies it queues.")
    cron: str | None
    timezone: str
    at: datetime | None
    on_change: list[Watched]
    overlap: Overlap
    missed: Missed
    keep_runs: int
    alert: AlertPlan | None
    paused: bool
    created_at: datetime
    updated_at: datetime
    last_fired_at: datetime | None
    next_firing: datetime | None = Field(description="null while paused, where changes fire it, and after it was once.")
    incumbent_study: str | None = Field(description="Whose plan the next run checks; null while there is none.")
    version: int = Field(description="Counts up with every edit; the ETag.")
    links: dict[str, str]

    @classmethod
    def of(cls, record: ScheduleRecord) -> SchedulePublic:
        """From the archive's record."""
        return cls(**_schedule_values(record))


class ScheduleDetail(SchedulePublic):
    """A schedule with its spec."""

    spec: dict[str, Any]

    @classmethod
    def of(cls, record: ScheduleRecord) -> ScheduleDetail:
        """From the archive's record."""
        return cls(**_schedule_values(record), spec=dict(record.plan.spec))


class RunPublic(Public):
    """One run of a schedule."""

    id: str
    schedule: str
    number: int = Field(description="Counts up within the schedule.")
    due: datetime
    cause: RunCause
    status: RunStatus
    outcome: RunOutcome | None = Field(
        description="revalidated: the plan is still good. searched: there is a new study. null until it has ended."
    )
    reason: str
    cancel_requested: bool
    created_at: datetime
    started_at: datetime | None
    ended_at: datetime | None
    incumbent_study: str | None = Field(description="Whose plan was checked.")
    trial_no: int | None = Field(description="The re-validation, a trial of that study.")
    new_study: str | None
    revalidation: Revalidation | None
    diff: RunDiff | None = Field(description="What changed; null where nothing was compared.")
    links: dict[str, str]

    @classmethod
    def of(cls, record: RunRecord) -> RunPublic:
        """From the archive's record."""
        base = f"/api/v1/schedules/{record.schedule_name}"
        links = {"self": f"{base}/runs/{record.id}", "schedule": base}
        if record.new_study is not None:
            links["study"] = f"/api/v1/studies/{record.new_study}"
        if record.incumbent_study is not None and record.trial_no is not None and record.check is not None:
            links["trial"] = f"/api/v1/studies/{record.incumbent_study}/trials/{record.trial_no}"
        return cls(
            id=record.id,
            schedule=record.schedule_name,
            number=record.number,
            due=record.due,
            cause=record.cause,
            status=record.status,
            outcome=record.outcome,
            reason=record.reason,
            cancel_requested=record.cancel_requested,
            created_at=record.created_at,
            started_at=record.started_at,
            ended_at=record.ended_at,
            incumbent_study=record.incumbent_study,
            trial_no=record.trial_no,
            new_study=record.new_study,
            revalidation=None if record.check is None else Revalidation.model_validate(dict(record.check)),
            diff=None if record.diff is None else RunDiff.model_validate(dict(record.diff)),
            links=links,
        )


class AlertPublic(Public):
    """An alert about a run, and how its delivery went. The key of its signature is nowhere in it."""

    run: str
    url: str
    secret_env: str
    status: AlertStatus
    attempts: list[dict[str, Any]] = Field(
        description="Each with number, at, status (of HTTP; null without an answer), error and seconds."
    )
    created_at: datetime | None
    ended_at: datetime | None
    body: str = Field(description="JSON, as it was signed and sent.")

    @classmethod
    def of(cls, record: AlertRecord) -> AlertPublic:
        """From the archive's record."""
        return cls(
            run=record.run_id,
            url=record.url,
            secret_env=record.secret_env,
            status=record.status,
            attempts=[dict(attempt) for attempt in record.attempts],
            created_at=record.created_at,
            ended_at=record.ended_at,
            body=record.body,
        )


def _schedule_values(record: ScheduleRecord) -> Mapping[str, Any]:
    plan, base, page = record.plan, f"/api/v1/schedules/{record.name}", f"/schedules/{record.name}"
    alert = plan.alert
    now = datetime.now(UTC)
    return {
        "name": record.name,
        "study": str(plan.spec.get("name", "")),
        "cron": plan.cron,
        "timezone": plan.timezone,
        "at": plan.at,
        "on_change": list(plan.on_change),
        "overlap": plan.overlap,
        "missed": plan.missed,
        "keep_runs": plan.keep_runs,
        "alert": None if alert is None else AlertPlan(url=alert.url, secret_env=alert.secret_env, when=alert.when),
        "paused": record.paused,
        "created_at": record.created_at,
        "updated_at": record.updated_at,
        "last_fired_at": record.last_fired_at,
        "next_firing": None if record.paused else next_firing(plan, max(now, record.considered_until)),
        "incumbent_study": plan.incumbent_study,
        "version": record.version,
        "links": {"self": base, "runs": f"{base}/runs", "alerts": f"{base}/alerts", "page": page},
    }
