"""Schedules: plans that are checked on fresh draws, and searched anew where that is needed."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

from fastapi import APIRouter, Path, Response

from api.dependencies import ArchiveDep
from api.etags import EDITED, IfMatch, etag, versions
from api.paging import PagingDep
from api.problems import Problem, Refused
from api.routes.spec_bodies import NOT_FOUND, PROBLEMS
from api.schedule_plans import edit_schedule, enter_schedule, missing, patched
from api.schemas import (
    AlertPublic,
    Page,
    RunPublic,
    ScheduleCreate,
    ScheduleDetail,
    ScheduleFields,
    SchedulePatch,
    SchedulePublic,
)
from planner.archive import NotFound, ScheduleRecord
from planner.durable.schedules import run_now

router = APIRouter(prefix="/schedules", tags=["schedules"], responses=PROBLEMS)

Name = Annotated[str, Path(max_length=200)]
RunId = Annotated[str, Path(max_length=64)]


@router.post(
    "",
    status_code=201,
    responses={409: {"model": Problem, "description": "There is another schedule of this name."}},
)
def create(body: ScheduleCreate, archive: ArchiveDep, response: Response) -> ScheduleDetail:
    """Check a plan by cron, once, or when data or models change, and search anew where it no longer holds."""
    record = enter_schedule(archive, body)
    response.headers["Location"] = f"/api/v1/schedules/{record.name}"
    response.headers["ETag"] = etag(f"v{record.version}")
    return ScheduleDetail.of(record)


@router.get("")
def list_schedules(archive: ArchiveDep) -> list[SchedulePublic]:
    """All schedules by name, without their specs."""
    return [SchedulePublic.of(record) for record in archive.schedules.list()]


@router.get("/{name}", responses=NOT_FOUND)
def get_schedule(name: Name, archive: ArchiveDep, response: Response) -> ScheduleDetail:
    """One schedule; its ETag is what a change of it asks for."""
    record = archive.schedules.get(name)
    response.headers["ETag"] = etag(f"v{record.version}")
    return ScheduleDetail.of(record)


@router.put("/{name}", responses={**NOT_FOUND, **EDITED})
def replace(
    name: Name, body: ScheduleFields, archive: ArchiveDep, response: Response, if_match: IfMatch = None
) -> ScheduleDetail:
    """Put another schedule in the place of this one; its runs, its pause and the plan it checks stay."""
    held = archive.schedules.get(name)
    record = edit_schedule(archive, name, body, _expected(if_match, held))
    response.headers["ETag"] = etag(f"v{record.version}")
    return ScheduleDetail.of(record)


@router.patch("/{name}", responses={**NOT_FOUND, **EDITED})
def change(
    name: Name, body: SchedulePatch, archive: ArchiveDep, response: Response, if_match: IfMatch = None
) -> ScheduleDetail:
    """Change parts of a schedule."""
    held = archive.schedules.get(name)
    version = _expected(if_match, held)
    # Between this look and the change, somebody else's must not be lost either.
    record = edit_schedule(archive, name, patched(held, body), held.version if version is None else version)
    response.headers["ETag"] = etag(f"v{record.version}")
    return ScheduleDetail.of(record)


@router.delete("/{name}", status_code=204, responses=NOT_FOUND)
def delete(name: Name, archive: ArchiveDep) -> None:
    """Delete a schedule with its runs; the studies it queued stay."""
    if not archive.schedules.delete(name):
        raise missing(name)


@router.post(
    "/{name}/run",
    status_code=202,
    responses={**NOT_FOUND, 409: {"model": Problem, "description": "A run is under way, and overlap is skip."}},
)
def run(name: Name, archive: ArchiveDep, response: Response) -> RunPublic:
    """Run a schedule now, paused or not."""
    entered = RunPublic.of(run_now(archive, name))
    response.headers["Location"] = entered.links["self"]
    return entered


@router.post("/{name}/pause", responses=NOT_FOUND)
def pause(name: Name, archive: ArchiveDep) -> ScheduleDetail:
    """Pause a schedule: nothing becomes due until it is resumed. A run under way goes on."""
    return ScheduleDetail.of(archive.schedules.set_paused(name, True))


@router.post("/{name}/resume", responses=NOT_FOUND)
def resume(name: Name, archive: ArchiveDep) -> ScheduleDetail:
    """Let a paused schedule go on; what was due meanwhile is not made up for."""
    return ScheduleDetail.of(archive.schedules.set_paused(name, False))


@router.get("/{name}/runs", responses=NOT_FOUND)
def list_runs(name: Name, archive: ArchiveDep, paging: PagingDep) -> Page[RunPublic]:
    """Runs of a schedule, newest first, each with its diff."""
    archive.schedules.get(name)
    after = paging.after(int)
    records = archive.schedule_runs.list(name, paging.wanted, after[0] if after else None)
    return paging.page(records, lambda run: (run.number,), RunPublic.of)


@router.get("/{name}/runs/{run_id}", responses=NOT_FOUND)
def get_run(name: Name, run_id: RunId, archive: ArchiveDep) -> RunPublic:
    """One run with its diff."""
    record = archive.schedule_runs.get(run_id)
    if record.schedule_name != name:
        raise NotFound(f"the schedule {name!r} has no run {run_id!r}; list its runs to see what there is")
    return RunPublic.of(record)


@router.get("/{name}/alerts", responses=NOT_FOUND)
def list_alerts(name: Name, archive: ArchiveDep, paging: PagingDep) -> Page[AlertPublic]:
    """Alerts of a schedule with every attempt to deliver them, newest first."""
    archive.schedules.get(name)
    records = archive.alerts.list(name, paging.wanted, paging.after(datetime, str))
    return paging.page(records, lambda alert: (alert.created_at, alert.run_id), AlertPublic.of)


def _expected(if_match: str | None, held: ScheduleRecord) -> int | None:
    """The version that an edit may replace; None for any.

    Raises:
        Refused: If-Match is missing, or names another version.
    """
    wanted = versions(if_match)
    if wanted is None:
        return None
    if f"v{held.version}" not in wanted:
        raise Refused(412, f"schedule {held.name!r} was changed since it was read; read it again")
    return held.version
