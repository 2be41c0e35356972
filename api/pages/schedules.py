"""The schedules' pages: what is scheduled, one schedule with its history, and the form that enters and edits."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Annotated, Any, TypeVar
from urllib.parse import quote
from zoneinfo import available_timezones

from fastapi import APIRouter, Query, Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response
from pydantic import ValidationError

from api.bodies import read_yaml
from api.demo import demo_yaml
from api.dependencies import ArchiveDep
from api.pages.forms import FormTexts
from api.pages.rendering import render
from api.pages.schedule_view import fires, more, schedule_lines, schedule_view
from api.problems import Refused
from api.schedule_plans import edit_schedule, enter_schedule, fields_of
from api.schemas import ScheduleCreate, ScheduleFields
from env.spec import Fault, SpecError, StudySpec
from env.spec.faults import faults_of
from env.spec.load import spec_yaml
from planner.archive import Archive, ScheduleRecord
from planner.durable.schedules import run_now

router = APIRouter(prefix="/schedules", include_in_schema=False)

Values = Mapping[str, str]
Body = TypeVar("Body", bound=ScheduleFields)
TEXTS = ("name", "trigger", "cron", "timezone", "at", "overlap", "missed", "keep_runs", "plan", "spec")
ALERT_TEXTS = ("alert_url", "alert_secret_env", "alert_when")
TICKS = ("on_data", "on_models")
CHOICES = ("trigger", "timezone", "overlap", "missed", "keep_runs", "alert_when")
FIELDS = (*TEXTS, *ALERT_TEXTS, *TICKS)
BLANK: Values = {
    **dict.fromkeys(FIELDS, ""),
    "trigger": "cron",
    "cron": "0 3 * * *",
    "timezone": "UTC",
    "overlap": "skip",
    "missed": "skip",
    "keep_runs": "200",
    "alert_when": "change",
    "on_data": "yes",
    "on_models": "yes",
}


@router.get("")
def schedules(request: Request, archive: ArchiveDep, like: Annotated[str, Query(max_length=200)] = "") -> HTMLResponse:
    """What is scheduled, and the form, filled with the demo's spec or with that and the plan of another study."""
    spec, plan = demo_yaml(), ""
    if like:
        study = archive.studies.find(like)
        spec = spec_yaml(StudySpec.model_validate(dict(study.spec)))
        plan = study.id if study.status == "done" else ""
    return _list(request, archive, {**BLANK, "spec": spec, "plan": plan})


@router.post("")
def add(request: Request, texts: FormTexts, archive: ArchiveDep) -> Response:
    """Enter a schedule, or show the form again with its faults."""
    values = _values(texts)
    try:
        record = enter_schedule(archive, _read(ScheduleCreate, values, name=values["name"].strip()))
    except SpecError as error:
        return _list(request, archive, values, error.faults)
    except Refused as error:
        return _list(request, archive, values, [Fault("name", str(error))])
    return _to(record.name)


@router.get("/{name}")
def schedule(
    request: Request, name: str, archive: ArchiveDep, before: Annotated[int | None, Query(ge=0, le=2**31 - 1)] = None
) -> HTMLResponse:
    """One schedule: its runs with what they changed, its alerts, and the form that edits it."""
    record = archive.schedules.get(name)
    return _one(request, archive, record, _written(record), before=before)


@router.post("/{name}/edit")
def edit(request: Request, name: str, texts: FormTexts, archive: ArchiveDep) -> Response:
    """Change a schedule, or show the form again with its faults."""
    values = _values(texts)
    version = texts.get("version", "")
    try:
        edit_schedule(archive, name, _read(ScheduleFields, values), int(version) if version.isdecimal() else None)
    except SpecError as error:
        return _one(request, archive, archive.schedules.get(name), values, error.faults)
    except Refused as error:
        words = f"{error}: this form shows it as you wrote it; what is above shows it as it stands"
        return _one(request, archive, archive.schedules.get(name), values, [Fault("cron", words)])
    return _to(name)


@router.post("/{name}/run")
def run(name: str, texts: FormTexts, archive: ArchiveDep) -> RedirectResponse:
    """Run a schedule now."""
    run_now(archive, name)
    return _to(name)


@router.post("/{name}/pause")
def pause(name: str, texts: FormTexts, archive: ArchiveDep) -> RedirectResponse:
    """Pause a schedule."""
    archive.schedules.set_paused(name, True)
    return _to(name)


@router.post("/{name}/resume")
def resume(name: str, texts: FormTexts, archive: ArchiveDep) -> RedirectResponse:
    """Let a schedule go on."""
    archive.schedules.set_paused(name, False)
    return _to(name)


@router.post("/{name}/delete")
def delete(name: str, texts: FormTexts, archive: ArchiveDep) -> RedirectResponse:
    """Delete a schedule; the studies it queued stay."""
    archive.schedules.delete(name)
    return RedirectResponse("/schedules", 303)


def _to(name: str) -> RedirectResponse:
    return RedirectResponse(f"/schedules/{quote(name)}", 303)


def _values(texts: Values) -> Values:
    """What a form holds; choices that it leaves out are as they are in a new one."""
    chosen = {name: BLANK[name] for name in CHOICES}
    return {name: texts.get(name, chosen.get(name, "")).replace("\r\n", "\n") for name in FIELDS}


def _written(record: ScheduleRecord) -> Values:
    """A schedule as the form has it."""
    fields = fields_of(record)
    alert = fields["alert"] or {}
    trigger = "cron" if fields["cron"] else "at" if fields["at"] else "change"
    watched = fields["on_change"] or ["data", "models"]
    return {
        **BLANK,
        "name": record.name,
        "trigger": trigger,
        "cron": fields["cron"] or "",
        "timezone": fields["timezone"],
        "at": fields["at"] or "",
        "on_data": "yes" if "data" in watched else "",
        "on_models": "yes" if "models" in watched else "",
        "overlap": fields["overlap"],
        "missed": fields["missed"],
        "keep_runs": str(fields["keep_runs"]),
        "alert_url": alert.get("url", ""),
        "alert_secret_env": alert.get("secret_env", ""),
        "alert_when": alert.get("when", "change"),
        "spec": spec_yaml(StudySpec.model_validate(fields["spec"])),
    }


def _read(kind: type[Body], values: Values, **more: str) -> Body:
    """The form as a body of the REST interface.

    Raises:
        SpecError: with the faults of its shape.
    """
    spec = read_yaml(values["spec"], "spec")
    if not isinstance(spec, dict):
        raise SpecError([Fault("spec", "a study spec is an object with name, pipeline, data and budget")])
    trigger = values["trigger"]
    watched = [name for name in ("data", "models") if values[f"on_{name}"]]
    raw: dict[str, Any] = {
        "timezone": values["timezone"].strip() or "UTC",
        "overlap": values["overlap"],
        "missed": values["missed"],
        "keep_runs": values["keep_runs"].strip(),
        "plan": values["plan"].strip() or None,
        "spec": spec,
        **more,
    }
    match trigger:
        case "at":
            raw["at"] = values["at"].strip()
        case "change":
            raw["on_change"] = watched
        case _:
            raw["cron"] = values["cron"].strip()
    if values["alert_url"].strip():
        raw["alert"] = {name.removeprefix("alert_"): values[name].strip() for name in ALERT_TEXTS}
    if not raw.get("at") and not raw.get("cron") and not raw.get("on_change"):
        words = {"at": "say when", "change": "tick data, models or both"}.get(trigger, "give a cron expression")
        raise SpecError([Fault({"at": "at", "change": "on_change"}.get(trigger, "cron"), words)])
    try:
        return kind.model_validate(raw)
    except ValidationError as error:
        raise SpecError(faults_of(error)) from error


def _list(request: Request, archive: Archive, values: Values, faults: Sequence[Fault] = ()) -> HTMLResponse:
    return render(
        request,
        "schedules.html",
        422 if faults else 200,
        lines=schedule_lines(archive),
        fires=fires,
        **_form(values, faults),
    )


def _one(
    request: Request,
    archive: Archive,
    record: ScheduleRecord,
    values: Values,
    faults: Sequence[Fault] = (),
    before: int | None = None,
) -> HTMLResponse:
    return render(
        request,
        "schedule.html",
        422 if faults else 200,
        view=schedule_view(archive, record, before),
        fires=fires,
        more=more,
        before=before,
        **_form(values, faults),
    )


def _form(values: Values, faults: Sequence[Fault]) -> dict[str, Any]:
    beside: defaultdict[str, list[Fault]] = defaultdict(list)
    for fault in faults:
        beside[_field(fault.path)].append(fault)
    return {"values": values, "beside": dict(beside), "zones": _zones()}


def _field(path: str) -> str:
    """The form's field for the path of a fault."""
    if path == "on_change" or path.startswith("on_change"):
        return "on_data"
    if path.startswith("alert"):
        named = path.replace(".", "_")
        return named if named in ALERT_TEXTS else "alert_url"
    field = path.partition(".")[0].partition("[")[0]
    return field if field in TEXTS else "spec"


@cache
def _zones() -> list[str]:
    return sorted(available_timezones())
