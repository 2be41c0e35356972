"""Studies on a service under a URL: submitting, following to the end, and fetching what they leave."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import typer

from api.bodies import read_yaml
from api.client import Client, FaultyRequest
from api.command import output
from api.command.estimates import print_forecast
from api.command.following import follow_service
from api.command.session import settings_for
from api.schemas import EstimatePublic, StudyDetail, StudyPublic
from env.errors import ApportionError
from env.spec import Fault, SpecError
from planner.check import load_spec
from planner.forecast import LedgerForecast, StudyForecast

Answer = TypeVar("Answer")
_PICTURE = re.compile(r"!\[[^]]*\]\(report/([a-z0-9_-]+)\.svg\)")


def submit_at(url: str | None, home: Path | None, spec: Path) -> StudyPublic:
    """Queue a study from a file, at a service where there is a URL, else in the archive of the home folder.

    Raises:
        SpecError: with every fault found.
        ApportionError: it cannot be queued.
    """
    if url:
        with Client(url) as client:
            return _submitted(client, _raw(spec))
    from planner.durable import Runtime

    settings, loaded = settings_for(home), load_spec(spec)
    with Runtime(settings.archive_url, settings.queue_url, work=False) as runtime:
        return StudyPublic.of(runtime.submit(loaded))


def run_at(url: str, spec: Path, out: Path, as_json: bool) -> None:
    """Run a study at a service: submit, follow, fetch plan and report. Exit code 1 where it did not end well.

    Raises:
        SpecError: with every fault found.
        ApportionError: the service cannot be asked, or the files cannot be written.
    """
    with Client(url) as client:
        raw = _raw(spec)
        if not as_json:
            print_forecast(output.err, _forecast(_faults_of(lambda: client.estimate(raw))))
        study = follow_service(client, _submitted(client, raw).id, as_json)
        if study.status != "done":
            output.err.print(f"[red]study {study.id} {study.status}[/]: {study.error or 'stopped on request'}")
            raise typer.Exit(1)
        document = client.plan(study.id)
        files = _fetch(client, study, document.to_yaml(), out / study.id)
        if as_json:
            output.print_json({"study": study.id, "plan": document.model_dump(mode="json"), "files": files})
            return
        output.print_plan(document)
        output.out.print(f"Wrote {', '.join(str(f) for f in files)}; study {study.id}", highlight=False)


def _fetch(client: Client, study: StudyDetail, plan: str, out: Path) -> list[Path]:
    markdown = client.report(study.id, "md")
    contents = {"plan.yaml": plan, "report.md": markdown}
    contents |= {"report.json": client.report(study.id, "json"), "report.html": client.report(study.id, "html")}
    for picture in dict.fromkeys(_PICTURE.findall(markdown)):
        contents[f"report/{picture}.svg"] = client.report_figure(study.id, picture)
    paths: list[Path] = []
    try:
        for name, text in contents.items():
            target = out / name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(text, encoding="utf-8")
            paths.append(target)
    except OSError as error:
        raise ApportionError(f"cannot write {error.filename or out}: {error.strerror or error}") from error
    return paths


def _raw(spec: Path) -> dict[str, Any]:
    """The spec as it is written: the service checks it, whose models and data these are."""
    try:
        raw = read_yaml(spec.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise SpecError([Fault("", f"cannot read {spec}: {error}")]) from error
    if not isinstance(raw, dict):
        raise SpecError([Fault("", "a study spec is an object with name, pipeline, data and budget")])
    return raw


def _submitted(client: Client, raw: dict[str, Any]) -> StudyPublic:
    return _faults_of(lambda: client.submit(raw))


def _faults_of(ask: Callable[[], Answer]) -> Answer:
    """What is asked; a refused spec's faults as those found on this machine are told."""
    try:
        return ask()
    except FaultyRequest as error:
        if not error.problem.faults:
            raise
        raise SpecError([Fault(fault.path, fault.message) for fault in error.problem.faults]) from error


def _forecast(estimate: EstimatePublic) -> StudyForecast:
    values = estimate.model_dump()
    ledgers = tuple(LedgerForecast(**line) for line in values.pop("ledgers"))
    return StudyForecast(**{**values, "ledgers": ledgers, "notes": tuple(values["notes"])})
