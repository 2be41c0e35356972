"""The schedules' page: what is scheduled, and a form for one more."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Annotated, Any
from zoneinfo import available_timezones

from fastapi import APIRouter, Query, Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response
from pydantic import ValidationError

from api.bodies import read_yaml
from api.demo import demo_yaml
from api.dependencies import ArchiveDep, RuntimeDep
from api.pages.forms import FormTexts
from api.pages.rendering import render
from api.problems import Refused
from api.schedule_plans import enter_schedule
from api.schemas import ScheduleCreate
from env.spec import Fault, SpecError, StudySpec
from env.spec.faults import faults_of
from env.spec.load import spec_yaml
from planner.archive import Archive

router = APIRouter(prefix="/schedules", include_in_schema=False)

FIELDS = ("name", "cron", "timezone", "spec")


@router.get("")
def schedules(request: Request, archive: ArchiveDep, like: Annotated[str, Query(max_length=64)] = "") -> HTMLResponse:
    """What is scheduled, and the form, filled with the demo's spec or that of another study."""
    spec = demo_yaml()
    if like:
        spec = spec_yaml(StudySpec.model_validate(dict(archive.studies.find(like).spec)))
    return _page(request, archive, {"name": "", "cron": "0 3 * * *", "timezone": "UTC", "spec": spec})


@router.post("")
def add(request: Request, texts: FormTexts, runtime: RuntimeDep) -> Response:
    """Enter a schedule, or show the form again with its faults."""
    values = {name: texts.get(name, "").replace("\r\n", "\n") for name in FIELDS}
    try:
        enter_schedule(runtime.archive, _read(values))
    except SpecError as error:
        return _page(request, runtime.archive, values, error.faults)
    except Refused as error:
        return _page(request, runtime.archive, values, [Fault("name", str(error))])
    return RedirectResponse("/schedules", 303)


@router.post("/{name}/delete")
def delete(name: str, texts: FormTexts, runtime: RuntimeDep) -> RedirectResponse:
    """Delete a schedule; the studies it queued stay."""
    runtime.archive.schedules.delete(name)
    return RedirectResponse("/schedules", 303)


def _read(values: Mapping[str, str]) -> ScheduleCreate:
    raw: dict[str, Any] = {name: values[name].strip() for name in ("name", "cron", "timezone")}
    spec = read_yaml(values["spec"], "spec")
    if not isinstance(spec, dict):
        raise SpecError([Fault("spec", "a study spec is an object with name, pipeline, data and budget")])
    try:
        return ScheduleCreate.model_validate({**raw, "spec": spec})
    except ValidationError as error:
        raise SpecError(faults_of(error)) from error


def _page(request: Request, archive: Archive, values: Mapping[str, str], faults: Sequence[Fault] = ()) -> HTMLResponse:
    beside: defaultdict[str, list[Fault]] = defaultdict(list)
    for fault in faults:
        field = fault.path.partition(".")[0].partition("[")[0]
        beside[field if field in FIELDS else "spec"].append(fault)
    return render(
        request,
        "schedules.html",
        422 if faults else 200,
        schedules=archive.schedules.list(),
        values=values,
        beside=dict(beside),
        zones=_zones(),
    )


@cache
def _zones() -> list[str]:
    return sorted(available_timezones())
