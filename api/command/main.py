"""The commands. Each only enqueues and reads; studies run in the durable worker."""

from __future__ import annotations

import os
import signal
import threading
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from api.command import archive, bank, bench, output, plans, schedules, study_actions, tokens
from api.command.audit import audit
from api.command.estimates import forecast_data, print_forecast
from api.command.fleet import fleet_app
from api.command.options import AsJson, Home, StudyId, Url
from api.command.remote import run_at, submit_at
from api.command.session import opened_archive, run_here, settings_for
from api.command.settings import settings as list_settings
from api.command.sources import PLAN_KINDS, source_at
from env.garbage import collect_seldom
from env.spec.load import spec_schema
from planner.archive import StudyRecord
from planner.archive.studies import DEFAULT_PRIORITY, HIGHEST_PRIORITY, LOWEST_PRIORITY
from planner.check import load_spec
from planner.plans import PlanDocument
from planner.plans.gathering import gather_report
from planner.plans.report import FORMATS, encoded, report_text, write_report

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    help="Finds, proves and serves compute-optimal plans for multi-stage LLM pipelines.",
)
engine_app = typer.Typer(no_args_is_help=True, help="The torch engine as a server.")
app.add_typer(engine_app, name="engine")
app.add_typer(archive.app, name="archive")
app.add_typer(bank.app, name="bank")
app.add_typer(bench.app, name="bench")
app.add_typer(plans.app, name="plan")
app.add_typer(fleet_app, name="fleet")
app.add_typer(schedules.app, name="schedule")
app.add_typer(tokens.app, name="token")
app.command()(audit)
app.command("settings")(list_settings)

study_actions.install(app)

Out = Annotated[Path, typer.Option("--out", "-o", help="Folder for plan.yaml and report.json, .md, .html.")]


@app.callback()
def prepare() -> None:
    """Set the process up, whichever command runs."""
    collect_seldom()


@app.command()
def demo(
    out: Out = Path("out/demo"),
    home: Home = None,
    proposer: Annotated[
        str | None, typer.Option(help="agent, insight, random or another (docs/proposers.md); default: auto.")
    ] = None,
    json: AsJson = False,
) -> None:
    """Run the bundled three-stage study on the embedded models and write its plan and report."""
    from api.demo import demo_spec

    with output.explained_errors():
        spec = demo_spec()
        if proposer is not None:
            from planner.check import validated_spec

            raw = spec.model_dump(mode="json")
            spec = validated_spec({**raw, "proposer": {**raw["proposer"], "kind": proposer}})
        study = run_here(settings_for(home), spec=spec, quiet=json)
        _finish(study, home, out, json)


@app.command()
def run(
    spec: Annotated[Path, typer.Argument(help="Study spec, YAML or JSON.")],
    out: Out = Path("out"),
    home: Home = None,
    url: Url = None,
    json: AsJson = False,
    priority: Annotated[
        int, typer.Option(min=HIGHEST_PRIORITY, max=LOWEST_PRIORITY, help="Studies with a lower one start first.")
    ] = DEFAULT_PRIORITY,
) -> None:
    """Run a study from a spec file to its plan."""
    from planner.forecast import forecast
    from planner.rates import measured_rates

    with output.explained_errors():
        if url:
            run_at(url, spec, out, json)
            return
        loaded, settings = load_spec(spec), settings_for(home)
        if not json:
            with opened_archive(settings) as archive:
                print_forecast(output.err, forecast(loaded, measured_rates(archive, loaded)))
        study = run_here(settings, spec=loaded, quiet=json, priority=priority)
        _finish(study, home, out / study.id, json)


@app.command()
def resume(study_id: StudyId, out: Out = Path("out"), home: Home = None, json: AsJson = False) -> None:
    """Go on with a study that was interrupted; nothing settled is drawn again."""
    with output.explained_errors():
        settings = settings_for(home)
        with opened_archive(settings) as archive:
            found = archive.studies.find(study_id)
        study = found if found.status == "done" else run_here(settings, resume=found.id, quiet=json)
        _finish(study, home, out / study.id, json)


@app.command()
def check(spec: Annotated[Path, typer.Argument(help="Study spec, YAML or JSON.")], json: AsJson = False) -> None:
    """Find everything wrong with a spec and forecast what it will spend; runs nothing."""
    from planner.forecast import forecast

    with output.explained_errors():
        study = load_spec(spec)
        expected = forecast(study)
        if json:
            data = {"name": study.name, "allocations": expected.allocations, "forecast": forecast_data(expected)}
            output.print_json(data)
        else:
            size = f"{expected.allocations:,}"
            output.out.print(f"{study.name}: no faults; {size} allocations fit the plan budget", highlight=False)
            print_forecast(output.out, expected)


@app.command()
def schema() -> None:
    """Print the JSON Schema of a study spec."""
    output.print_json(spec_schema())


@app.command()
def submit(
    spec: Annotated[Path, typer.Argument(help="Study spec, YAML or JSON.")],
    home: Home = None,
    url: Url = None,
    json: AsJson = False,
) -> None:
    """Queue a study for the workers of an archive or a service, and return at once."""
    with output.explained_errors():
        study = submit_at(url, home, spec)
        if json:
            output.print_json(study)
        else:
            output.out.print(f"study {study.id} is {study.status}", highlight=False)


@app.command()
def studies(home: Home = None, url: Url = None, json: AsJson = False, limit: int = 50) -> None:
    """List studies, newest first."""
    with output.explained_errors(), source_at(url, home) as source:
        listed = source.studies(limit)
        output.print_json(listed) if json else output.out.print(output.studies_table(listed))


@app.command()
def show(study_id: StudyId, home: Home = None, url: Url = None, json: AsJson = False) -> None:
    """Show a study: where it is, its guidelines, and its plan once there is one."""
    with output.explained_errors(), source_at(url, home) as source:
        study = source.study(study_id)
        guidelines = source.guidelines(study.id)
        if json:
            plans = {kind: source.plan(study.id, kind) for kind in PLAN_KINDS}
            output.print_json({"study": study, "guidelines": guidelines, "plans": plans})
            return
        output.out.print(output.studies_table([study]))
        if study.error:
            output.out.print(f"[red]{study.error}[/]", highlight=False)
        document = source.plan(study.id, "chosen") if study.status == "done" else None
        if document is not None:
            output.print_plan(document)
            return
        for guideline in guidelines:
            output.out.print(f"  round {guideline.round}: {guideline.text}", highlight=False)


@app.command()
def trials(study_id: StudyId, home: Home = None, url: Url = None, json: AsJson = False) -> None:
    """List a study's trials."""
    with output.explained_errors(), source_at(url, home) as source:
        listed = source.trials(source.study(study_id).id)
        output.print_json(listed) if json else output.out.print(output.trials_table(listed))


@app.command()
def report(
    study_id: StudyId,
    format: Annotated[str | None, typer.Option(help="md, html or json: print it instead of writing files.")] = None,
    out: Out = Path("out"),
    home: Home = None,
) -> None:
    """Write a finished study's report into a folder of its own, or print one format of it."""
    with output.explained_errors(), opened_archive(settings_for(home)) as archive:
        study = archive.studies.find(study_id)
        if format is None:
            files = write_report(archive, study.id, out / study.id)
            output.out.print(f"Wrote {', '.join(str(f) for f in files)}", highlight=False)
            return
        if format not in FORMATS:
            raise typer.BadParameter(f"--format is {', '.join(FORMATS)}")
        # Printed alone, Markdown has no pictures beside it; its tables say the same.
        typer.echo(encoded(report_text(gather_report(archive, study.id), format, pictures=False)))


@app.command()
def serve(
    home: Home = None,
    host: Annotated[str | None, typer.Option(help="Address to bind to; any but loopback needs a token.")] = None,
    port: Annotated[int | None, typer.Option(help="Default 8321.")] = None,
) -> None:
    """Serve REST, the pages and a worker in one process, on loopback or guarded by access tokens."""
    from api.serve import serve as serve_app

    settings = settings_for(home)
    changed = {k: v for k, v in (("host", host), ("port", port)) if v is not None}
    with output.explained_errors():
        serve_app(settings.model_copy(update=changed))


@app.command()
def worker(
    home: Home = None,
    concurrency: Annotated[
        int | None, typer.Option(min=1, help="Studies of a queue at a time, from now on in every worker; else as set.")
    ] = None,
    queue: Annotated[list[str] | None, typer.Option(help="Take studies from this queue only; may be repeated.")] = None,
) -> None:
    """Run queued studies until stopped."""
    from api.access.confinement import confine
    from api.housekeeping import kept_house
    from api.observing.process import observed_process
    from planner.durable import Runtime

    settings = settings_for(home)
    stop = threading.Event()
    for name in (signal.SIGINT, signal.SIGTERM):
        signal.signal(name, lambda *_: stop.set())
    with output.explained_errors():
        confine(settings)
    jobs = settings.jobs
    jobs = replace(jobs, concurrency=concurrency or jobs.concurrency, queues=tuple(queue or jobs.queues))
    opened = Runtime(settings.archive_url, settings.queue_url, settings=jobs)
    with (
        output.explained_errors(),
        opened as runtime,
        observed_process(settings) as metrics,
        kept_house(settings, runtime.archive),
    ):
        if settings.worker_metrics_port is not None:
            metrics.answer_on(settings.host, settings.worker_metrics_port)
        output.err.print(f"worker {runtime.executor_id} on {runtime.archive.place}; stop with Ctrl-C", highlight=False)
        stop.wait()


@app.command()
def doctor(home: Home = None, json: AsJson = False) -> None:
    """Look for the usual troubles and say what to do."""
    from api.doctor import examine

    findings = examine(settings_for(home), os.environ)
    if json:
        output.print_json(findings)
    else:
        for finding in findings:
            mark = {"ok": "[green]ok[/]", "note": "[yellow]note[/]", "trouble": "[red]trouble[/]"}[finding.level]
            output.out.print(f"{mark:>18}  {finding.subject}: {escape(finding.message)}", highlight=False)
    if any(f.level == "trouble" for f in findings):
        raise typer.Exit(1)


@engine_app.command("serve")
def engine_serve(
    models: Annotated[
        list[str] | None, typer.Argument(help="NAME=CHECKPOINT, or embedded names; default: all embedded models.")
    ] = None,
    host: str = "127.0.0.1",
    port: int = 8322,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    max_rows: Annotated[int, typer.Option(min=1, help="Draws decoded at once.")] = 512,
) -> None:
    """Serve checkpoints on the torch engine as an OpenAI-compatible server."""
    from env.embedded import CHECKPOINT_NAMES
    from env.engine.server import serve as serve_engine
    from env.spec.checkpoints import EMBEDDED, resolve_checkpoint

    with output.explained_errors():
        chosen: dict[str, Path] = {}
        for item in models or CHECKPOINT_NAMES:
            name, _, checkpoint = item.rpartition("=")
            embedded = checkpoint if checkpoint.startswith(EMBEDDED) or name else f"{EMBEDDED}{checkpoint}"
            chosen[name or checkpoint.removeprefix(EMBEDDED)] = resolve_checkpoint(embedded)
        serve_engine(chosen, host=host, port=port, device=device, max_rows=max_rows)


def _finish(study: StudyRecord, home: Path | None, out: Path, as_json: bool) -> None:
    """Export a finished study and print it; exit 1 where it did not end well."""
    with opened_archive(settings_for(home)) as archive:
        study = archive.studies.get(study.id)
        if study.status != "done":
            output.err.print(f"[red]study {study.id} {study.status}[/]: {study.error or 'stopped on request'}")
            raise typer.Exit(1)
        files = write_report(archive, study.id, out)
        document = PlanDocument.model_validate(dict(archive.plans.get(study.id).document))
        if as_json:
            output.print_json({"study": study.id, "plan": document.model_dump(mode="json"), "files": files})
            return
        output.print_plan(document)
        output.out.print(f"Wrote {', '.join(str(f) for f in files)}; study {study.id}", highlight=False)
