"""``apportion schedule``: plans that are checked again and again. A worker does it (``serve`` or ``worker``)."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer
from pydantic import ValidationError
from rich.table import Table

from api.bodies import read_yaml
from api.command import output
from api.command.options import AsJson, Home
from api.command.session import noted, opened_archive, settings_for
from api.schedule_plans import enter_schedule, missing
from api.schemas import RunPublic, ScheduleCreate, ScheduleDetail, SchedulePublic
from env.spec import SpecError
from env.spec.faults import faults_of
from planner.archive import Archive, RunRecord, ScheduleRecord
from planner.plans import amount
from planner.plans.document import IntervalPublic
from planner.plans.wording import signed
from planner.schedules.diff import RunDiff
from planner.schedules.policy import next_firing

app = typer.Typer(
    no_args_is_help=True, help="Plans checked on fresh draws by cron, once, or when data or models change."
)

Name = Annotated[str, typer.Argument(help="The schedule's name.")]

POLL_S = 0.3


@app.command("list")
def list_schedules(home: Home = None, json: AsJson = False) -> None:
    """List schedules: when each fires next, and what its last run came to."""
    with output.explained_errors(), opened_archive(settings_for(home)) as archive:
        schedules = archive.schedules.list()
        if json:
            output.print_json([SchedulePublic.of(schedule).model_dump(mode="json") for schedule in schedules])
            return
        table = Table("name", "study", "fires", "next (UTC)", "last run", "plan of")
        for schedule in schedules:
            last = next(iter(archive.schedule_runs.list(schedule.name, 1)), None)
            plan = schedule.plan
            table.add_row(
                schedule.name,
                str(plan.spec.get("name", "")),
                fires(schedule),
                _following(schedule),
                "" if last is None else f"{last.outcome or last.status} ({last.due:%Y-%m-%d %H:%M})",
                plan.incumbent_study or "",
            )
        output.out.print(table)


@app.command()
def create(
    name: Name,
    spec: Annotated[Path, typer.Argument(help="Study spec, YAML or JSON.", exists=True, dir_okay=False)],
    cron: Annotated[str | None, typer.Option(help="Five fields, or six with seconds first.")] = None,
    timezone: Annotated[str, typer.Option(help="IANA name, for instance Europe/Berlin.")] = "UTC",
    at: Annotated[str | None, typer.Option(help="Once, at this moment of ISO 8601.")] = None,
    on_change: Annotated[str | None, typer.Option(help="data, models, or both by comma.")] = None,
    overlap: Annotated[str, typer.Option(help="skip, queue or cancel.")] = "skip",
    missed: Annotated[str, typer.Option(help="skip, or latest.")] = "skip",
    keep_runs: Annotated[int, typer.Option(help="Runs kept.")] = 200,
    plan: Annotated[str | None, typer.Option(help="Study whose plan the first run checks.")] = None,
    alert_url: Annotated[str | None, typer.Option(help="Webhook that is told.")] = None,
    alert_secret_env: Annotated[str | None, typer.Option(help="Environment variable with its secret.")] = None,
    alert_when: Annotated[str, typer.Option(help="always, change or failure.")] = "change",
    home: Home = None,
    json: AsJson = False,
) -> None:
    """Enter a schedule. Give one of --cron, --at and --on-change."""
    with output.explained_errors():
        body: dict[str, Any] = {
            "name": name,
            "cron": cron,
            "timezone": timezone,
            "at": at,
            "on_change": [part.strip() for part in on_change.split(",")] if on_change else [],
            "overlap": overlap,
            "missed": missed,
            "keep_runs": keep_runs,
            "plan": plan,
            "spec": read_yaml(spec.read_text(encoding="utf-8"), "spec"),
        }
        if alert_url is not None:
            body["alert"] = {"url": alert_url, "secret_env": alert_secret_env, "when": alert_when}
        try:
            checked = ScheduleCreate.model_validate(body)
        except ValidationError as error:
            raise SpecError(faults_of(error)) from error
        with opened_archive(settings_for(home)) as archive, noted(archive, "schedule create", name):
            _print_one(enter_schedule(archive, checked), json)


@app.command()
def show(
    name: Name,
    runs: Annotated[int, typer.Option(min=0, max=200, help="How many of its last runs.")] = 10,
    home: Home = None,
    json: AsJson = False,
) -> None:
    """Show a schedule and its last runs, each with what it changed."""
    with output.explained_errors(), opened_archive(settings_for(home)) as archive:
        schedule = archive.schedules.get(name)
        listed = archive.schedule_runs.list(name, runs)
        if json:
            value = ScheduleDetail.of(schedule).model_dump(mode="json")
            output.print_json({**value, "runs": [RunPublic.of(run).model_dump(mode="json") for run in listed]})
            return
        _print_one(schedule, False)
        for run in listed:
            print_run(run)


@app.command()
def run(
    name: Name,
    wait: Annotated[
        bool, typer.Option("--wait", help="Do it here where no worker lives, and wait for its end.")
    ] = False,
    home: Home = None,
    json: AsJson = False,
) -> None:
    """Run a schedule now; a worker takes it up. Exit code 1 where the run that was waited for failed."""
    from planner.durable import Runtime
    from planner.durable.schedules import run_now

    settings = settings_for(home)
    with output.explained_errors():
        if not wait:
            with opened_archive(settings) as archive, noted(archive, "schedule run", name):
                entered = run_now(archive, name)
        else:
            with Runtime(settings.archive_url, settings.queue_url) as runtime:
                entered = _ended(runtime.archive, run_now(runtime.archive, name))
        if json:
            output.print_json(RunPublic.of(entered).model_dump(mode="json"))
        else:
            print_run(entered)
        if entered.outcome in ("failed", "cancelled"):
            raise typer.Exit(1)


@app.command()
def pause(name: Name, home: Home = None, json: AsJson = False) -> None:
    """Pause a schedule; a run under way goes on."""
    with output.explained_errors(), opened_archive(settings_for(home)) as archive:
        with noted(archive, "schedule pause", name):
            schedule = archive.schedules.set_paused(name, True)
        _print_one(schedule, json)


@app.command()
def resume(name: Name, home: Home = None, json: AsJson = False) -> None:
    """Let a paused schedule go on; what was due meanwhile is not made up for."""
    with output.explained_errors(), opened_archive(settings_for(home)) as archive:
        with noted(archive, "schedule resume", name):
            schedule = archive.schedules.set_paused(name, False)
        _print_one(schedule, json)


@app.command()
def delete(name: Name, home: Home = None) -> None:
    """Delete a schedule with its runs; the studies it queued stay."""
    with output.explained_errors(), opened_archive(settings_for(home)) as archive:
        with noted(archive, "schedule delete", name):
            if not archive.schedules.delete(name):
                raise missing(name)
        output.out.print(f"schedule {name} deleted", highlight=False)


def fires(schedule: ScheduleRecord) -> str:
    """What makes a schedule run, in words."""
    plan = schedule.plan
    if plan.cron is not None:
        return f"{plan.cron} ({plan.timezone})"
    if plan.at is not None:
        return f"once at {plan.at:%Y-%m-%d %H:%M:%S} UTC"
    return f"when {' or '.join(plan.on_change)} change"


def print_run(run: RunRecord) -> None:
    """A run in a few lines: what became of it, why, and what it changed."""
    output.out.print(
        f"[bold]Run {run.number}[/] {run.id} due {run.due:%Y-%m-%d %H:%M:%S} UTC: {run.outcome or run.status}",
        highlight=False,
    )
    if run.reason:
        output.out.print(f"  {run.reason}", highlight=False, markup=False)
    if run.diff is None:
        return
    diff = RunDiff.model_validate(dict(run.diff))
    for change in diff.plan.stages:
        output.out.print(f"  {change.stage}: {_setting(change.before)} -> {_setting(change.after)}", highlight=False)
    score, cost = diff.score, diff.cost
    if score.after is not None:
        before = "" if score.before is None else f"{score.before.estimate:.3f} -> "
        by = score.difference
        how = (
            "" if by is None else f", by {signed(by.estimate)} ({signed(by.low)} to {signed(by.high)}): {score.verdict}"
        )
        output.out.print(f"  score {before}{score.after.estimate:.3f}{how}", highlight=False)
    if cost.after is not None:
        before = "" if cost.before is None else f"{amount(cost.before.estimate, cost.unit)} -> "
        output.out.print(f"  cost {before}{amount(cost.after.estimate, cost.unit)} per query", highlight=False)


def _within(found: IntervalPublic) -> str:
    return f"{signed(found.estimate)} ({signed(found.low)} to {signed(found.high)})"


def _setting(value: dict[str, Any] | None) -> str:
    return "none" if value is None else f"{value['model']}/{value['strategy']}/{value['samples']}"


def _print_one(schedule: ScheduleRecord, as_json: bool) -> None:
    if as_json:
        output.print_json(ScheduleDetail.of(schedule).model_dump(mode="json"))
        return
    plan = schedule.plan
    lines = {
        "schedule": schedule.name + (" (paused)" if schedule.paused else ""),
        "study": str(plan.spec.get("name", "")),
        "runs": fires(schedule),
        "next": _following(schedule) or "-",
        "overlap": plan.overlap,
        "missed": plan.missed,
        "plan of": plan.incumbent_study or "none yet: the first run searches",
    }
    if plan.alert is not None:
        lines["alert"] = f"{plan.alert.when}, to {plan.alert.url}, signed with {plan.alert.secret_env}"
    for label, value in lines.items():
        output.out.print(f"[bold]{label:>8}[/]  {value}", highlight=False)


def _following(schedule: ScheduleRecord) -> str:
    if schedule.paused:
        return "paused"
    found = next_firing(schedule.plan, max(datetime.now(UTC), schedule.considered_until))
    return "" if found is None else f"{found:%Y-%m-%d %H:%M:%S}"


def _ended(archive: Archive, run: RunRecord) -> RunRecord:
    while True:
        held = archive.schedule_runs.get(run.id)
        if held.status == "ended":
            return held
        time.sleep(POLL_S)
