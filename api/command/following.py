"""Follows a study by its events in the archive and shows progress."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

from rich.progress import (
    BarColumn,
    Progress,
    SpinnerColumn,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
)

from api.client import Client
from api.command.output import err
from api.schemas import StudyDetail
from planner.archive import Archive, StudyRecord
from planner.archive.statuses import TERMINAL

POLL_SECONDS = 0.25


def follow(
    archive: Archive, study_id: str, quiet: bool = False, tick: Callable[[], None] = lambda: None
) -> StudyRecord:
    """Wait for a study's end, showing trials, proposals and a progress bar.

    Args:
        archive: where the study is.
        study_id: which.
        quiet: show nothing.
        tick: called at every look.
    """
    with _progress(quiet) as progress:
        task = progress.add_task("waiting for a worker", total=None, rate="")
        last = 0
        while True:
            study = archive.studies.get(study_id)
            events = archive.events.after(study_id, last)
            for event in events:
                last = event.id
                _show(progress, task, event.kind, event.payload, quiet)
            if study.status in TERMINAL and not events:
                return study
            tick()
            if not events:
                time.sleep(POLL_SECONDS)


def follow_service(client: Client, study_id: str, quiet: bool = False) -> StudyDetail:
    """Wait for the end of a service's study, showing the same as `follow`.

    Raises:
        ApportionError: the service refused, or stayed away too long.
    """
    with _progress(quiet) as progress:
        task = progress.add_task("waiting for a worker", total=None, rate="")
        for event in client.events(study_id):
            _show(progress, task, event.kind, event.data, quiet)
    return client.study(study_id)


def _progress(quiet: bool) -> Progress:
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeElapsedColumn(),
    )
    return Progress(*columns, console=err, transient=True, disable=quiet)


def _show(progress: Progress, task: TaskID, kind: str, p: Mapping[str, Any], quiet: bool) -> None:
    if kind == "progress":
        rate = f"{p['draws_per_second']:,.0f} draws/s{_left(p.get('remaining_seconds'))}"
        progress.update(
            task,
            description=f"{p['what']}: {p['stage']} with {p['model']}",
            completed=p["done"],
            total=p["total"],
            rate=rate,
        )
    elif kind == "phase":
        progress.update(task, description=f"{p['phase']} (round {p['round']})", total=None, rate="")
    elif quiet:
        return
    elif kind == "trial":
        score = "not evaluated" if p["score"] is None else f"{p['score']:.3f}"
        progress.console.print(
            f"trial {p['trial_no']:>3}  {score}  {p['allocation']}  [dim]{p['new_draws']:,} new draws[/]",
            highlight=False,
        )
    elif kind == "proposal" and not p["accepted"]:
        progress.console.print(f"[yellow]refused[/] {p['allocation']}: {p['reason']}", highlight=False)
    elif kind == "engines":
        for name, engine in p["engines"].items():
            progress.console.print(f"{name} is served as {engine['variant']}, the fastest measured", highlight=False)
    elif kind == "budget":
        progress.console.print(f"[yellow]{p['message']}[/]", highlight=False)


def _left(seconds: float | None) -> str:
    """What is left of a stage on one model, in words; nothing where it is not known."""
    if seconds is None:
        return ""
    whole = round(seconds)
    if whole < 60:
        return f", {whole} s left"
    minutes, rest = divmod(whole, 60)
    return f", {minutes} min {rest:02} s left" if minutes < 60 else f", {minutes // 60} h {minutes % 60:02} min left"
