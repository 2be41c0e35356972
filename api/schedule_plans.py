"""Turns a schedule as people write it into one that can be kept, or says everything that is wrong with it."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from api.bodies import check_plain, usable_spec
from api.problems import Refused
from api.schemas import ScheduleCreate, ScheduleFields, SchedulePatch
from env.errors import ApportionError
from env.spec import Fault, SpecError, StudySpec
from env.spec.pipeline import ReplayModel
from planner.archive import Archive, NotFound, SchedulePlan, ScheduleRecord, StatusConflict
from planner.archive.schedule_records import AlertTarget
from planner.schedules.fingerprint import Fingerprints
from planner.schedules.firing import Cron, moment_of, zone_of
from planner.schedules.revalidation import held_plan
from planner.schedules.webhooks import check_url

TRIGGERS = ("cron", "at", "on_change")


def enter_schedule(archive: Archive, body: ScheduleCreate) -> ScheduleRecord:
    """Check everything about a schedule and enter it; entering the same one again changes nothing.

    Raises:
        SpecError: with every fault.
        Refused: another schedule has this name.
    """
    plan = checked_plan(archive, body)
    try:
        return archive.schedules.create(body.name, plan)
    except StatusConflict as error:
        raise Refused(409, str(error)) from error


def edit_schedule(archive: Archive, name: str, body: ScheduleFields, version: int | None) -> ScheduleRecord:
    """Check a schedule and put it in the place of the one of this name.

    Args:
        archive: holds it.
        name: which.
        body: the whole of it. Without a plan, the one that it checks stays.
        version: that the editor saw; None to change it whichever it is.

    Raises:
        NotFound: there is none of this name.
        SpecError: with every fault.
        Refused: it was changed since.
    """
    held = archive.schedules.get(name)
    plan = checked_plan(archive, body, held)
    try:
        return archive.schedules.change(name, plan, version)
    except StatusConflict as error:
        raise Refused(412, str(error)) from error


def patched(held: ScheduleRecord, patch: SchedulePatch) -> ScheduleFields:
    """A schedule as it stands, with the changes of a patch."""
    given = {name: getattr(patch, name) for name in patch.model_fields_set}
    merged = {**fields_of(held), **given}
    if any(given.get(name) for name in TRIGGERS):
        merged |= {name: given.get(name) for name in TRIGGERS}
    merged["on_change"] = merged["on_change"] or []
    return ScheduleFields(**{name: value for name, value in merged.items() if value is not None or name == "alert"})


def fields_of(held: ScheduleRecord) -> dict[str, Any]:
    """A schedule as one would write it."""
    plan, alert = held.plan, held.plan.alert
    return {
        "cron": plan.cron,
        "timezone": plan.timezone,
        "at": None if plan.at is None else plan.at.isoformat(),
        "on_change": list(plan.on_change),
        "overlap": plan.overlap,
        "missed": plan.missed,
        "keep_runs": plan.keep_runs,
        "alert": None if alert is None else {"url": alert.url, "secret_env": alert.secret_env, "when": alert.when},
        "plan": None,
        "spec": dict(plan.spec),
    }


def checked_plan(archive: Archive, body: ScheduleFields, held: ScheduleRecord | None = None) -> SchedulePlan:
    """A schedule that can run.

    Raises:
        SpecError: with every fault of trigger, alert, plan and spec.
    """
    faults: list[Fault] = []
    at = _trigger(body, held, faults)
    if body.alert is not None:
        try:
            check_url(body.alert.url)
        except ApportionError as error:
            faults.append(Fault("alert.url", str(error)))
    spec = _spec(body.spec, faults)
    incumbent, baseline = (None, None) if held is None else (held.plan.incumbent_study, held.plan.baseline)
    if body.plan is not None:
        try:
            incumbent = held_plan(archive, archive.studies.find(body.plan).id).study_id
        except ApportionError as error:
            faults.append(Fault("plan", str(error)))
        else:
            baseline = _fingerprint(spec, faults)
    if faults or spec is None:
        raise SpecError(faults)
    alert = body.alert
    return SchedulePlan(
        spec=spec.model_dump(mode="json"),
        cron=body.cron,
        timezone=body.timezone,
        at=at,
        on_change=tuple(dict.fromkeys(body.on_change)),
        overlap=body.overlap,
        missed=body.missed,
        keep_runs=body.keep_runs,
        alert=None if alert is None else AlertTarget(alert.url, alert.secret_env, alert.when),
        incumbent_study=incumbent,
        baseline=baseline,
    )


def _trigger(body: ScheduleFields, held: ScheduleRecord | None, faults: list[Fault]) -> datetime | None:
    given = [name for name in TRIGGERS if getattr(body, name)]
    if len(given) != 1:
        words = f"give one of cron, at and on_change, not {' and '.join(given)}" if given else "say when it runs: "
        faults.append(Fault(given[1] if given else "cron", words + ("" if given else "give cron, at or on_change")))
        return None
    try:
        zone = zone_of(body.timezone)
        if body.cron is not None:
            Cron(body.cron, body.timezone).check(datetime.now(UTC))
    except ApportionError as error:
        path, _, message = str(error).partition(": ")
        faults.append(Fault(path, message))
        return None
    if body.at is None:
        return None
    try:
        read = datetime.fromisoformat(body.at)
        at = moment_of(read.replace(microsecond=0), zone) if read.tzinfo is None else read.astimezone(UTC)
    except (ValueError, OverflowError):
        faults.append(Fault("at", f"{body.at!r} is no date and time of ISO 8601, such as 2026-03-01T03:00"))
        return None
    if at <= datetime.now(UTC) and (held is None or held.plan.at != at):
        faults.append(Fault("at", f"{at:%Y-%m-%d %H:%M:%S} UTC has passed"))
    return at


def _spec(raw: dict[str, Any], faults: list[Fault]) -> StudySpec | None:
    try:
        check_plain(raw)
        spec = usable_spec(raw)
    except SpecError as error:
        faults += [Fault(f"spec.{f.path}" if f.path else "spec", f.message) for f in error.faults]
        return None
    faults += [
        Fault(f"spec.pipeline.models.{name}", "replays recorded draws: there are no fresh ones to check a plan on")
        for name, model in spec.pipeline.models.items()
        if isinstance(model, ReplayModel)
    ]
    return spec


def _fingerprint(spec: StudySpec | None, faults: list[Fault]) -> dict[str, Any] | None:
    """Data and candidates as they are now: what the named plan is taken to rest on."""
    if spec is None:
        return None
    try:
        return Fingerprints().of(spec)
    except ApportionError as error:
        faults.append(Fault("spec", str(error)))
        return None


def missing(name: str) -> NotFound:
    """There is no such schedule."""
    return NotFound(f"the archive has no schedule {name!r}; list the schedules to see what there is")
