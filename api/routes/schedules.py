"""Schedules: studies that are queued each time a cron expression fires."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path, Response

from api.bodies import check_plain, usable_spec
from api.dependencies import ArchiveDep, RuntimeDep
from api.problems import Problem, Refused
from api.routes.spec_bodies import NOT_FOUND, PROBLEMS
from api.schemas import ScheduleCreate, SchedulePublic
from env.errors import ApportionError
from env.spec import Fault, SpecError, StudySpec
from planner.archive import NotFound, ScheduleRecord
from planner.durable import Runtime, check_cron

router = APIRouter(prefix="/schedules", tags=["schedules"], responses=PROBLEMS)

Name = Annotated[str, Path(max_length=200)]


@router.post(
    "",
    status_code=201,
    responses={409: {"model": Problem, "description": "There is another schedule of this name."}},
)
def create(body: ScheduleCreate, runtime: RuntimeDep, response: Response) -> SchedulePublic:
    """Queue a study each time a cron expression fires in a time zone; firings missed while stopped are skipped."""
    record = create_schedule(runtime, body)
    response.headers["Location"] = f"/api/v1/schedules/{record.name}"
    return SchedulePublic.of(record)


@router.get("")
def list_schedules(archive: ArchiveDep) -> list[SchedulePublic]:
    """All schedules by name."""
    return [SchedulePublic.of(record) for record in archive.schedules.list()]


@router.get("/{name}", responses=NOT_FOUND)
def get_schedule(name: Name, archive: ArchiveDep) -> SchedulePublic:
    """One schedule."""
    return SchedulePublic.of(archive.schedules.get(name))


@router.delete("/{name}", status_code=204, responses=NOT_FOUND)
def delete(name: Name, runtime: RuntimeDep) -> None:
    """Delete a schedule; the studies it queued stay."""
    if not runtime.unschedule(name):
        raise NotFound(f"the archive has no schedule {name!r}; list the schedules to see what there is")


def create_schedule(runtime: Runtime, body: ScheduleCreate) -> ScheduleRecord:
    """Check everything about a schedule and enter it; entering the same one again changes nothing.

    Raises:
        SpecError: with every fault of expression, time zone and spec.
        Refused: another schedule has this name.
    """
    faults = _cron_faults(body.cron, body.timezone)
    spec: StudySpec | None = None
    try:
        check_plain(body.spec)
        spec = usable_spec(body.spec)
    except SpecError as error:
        faults += [Fault(f"spec.{f.path}" if f.path else "spec", f.message) for f in error.faults]
    if faults or spec is None:
        raise SpecError(faults)
    held = next((s for s in runtime.archive.schedules.list() if s.name == body.name), None)
    if held is not None:
        wanted = (spec.model_dump(mode="json"), body.cron, body.timezone)
        if (dict(held.spec), held.cron, held.timezone) == wanted:
            return held
        raise Refused(409, f"there is another schedule {body.name!r}; delete it first or choose another name")
    return runtime.schedule(body.name, spec, body.cron, body.timezone)


def _cron_faults(cron: str, timezone: str) -> list[Fault]:
    try:
        check_cron(cron, timezone)
    except ApportionError as error:
        path, _, message = str(error).partition(": ")
        return [Fault(path, message)]
    return []
