"""Commands that ask something of a study that runs somewhere: to stop, or to pause."""

from __future__ import annotations

import typer

from api.command import output
from api.command.options import AsJson, Home, StudyId, Url
from api.command.sources import source_at
from api.schemas import StudyPublic


def install(app: typer.Typer) -> None:
    """Add the commands."""
    app.command()(cancel)
    app.command()(pause)


def cancel(study_id: StudyId, home: Home = None, url: Url = None, json: AsJson = False) -> None:
    """Ask a study to stop, within seconds; what it drew is kept."""
    with output.explained_errors(), source_at(url, home) as source:
        _answer(source.cancel(source.study(study_id).id), "stops within seconds", json)


def pause(study_id: StudyId, home: Home = None, url: Url = None, json: AsJson = False) -> None:
    """Ask a study to pause before its next batch of trials; `apportion resume` goes on with it."""
    with output.explained_errors(), source_at(url, home) as source:
        _answer(source.pause(source.study(study_id).id), "pauses before its next batch of trials", json)


def _answer(study: StudyPublic, later: str, json: bool) -> None:
    if json:
        output.print_json(study)
    else:
        word = later if study.status == "running" else f"is {study.status}"
        output.out.print(f"study {study.id} {word}", highlight=False)
