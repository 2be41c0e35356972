"""Commands that ask something of a study that runs somewhere: to stop, or to pause."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from api.command import output
from api.command.session import noted, opened_archive, settings_for
from planner.archive import Archive, StudyRecord

StudyId = Annotated[str, typer.Argument(help="A study's id, the start of it, or its name.")]
Home = Annotated[
    Path | None, typer.Option("--home", help="Folder of the archive (APPORTION_HOME, default .apportion).")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for scripts.")]


def install(app: typer.Typer) -> None:
    """Add the commands."""
    app.command()(cancel)
    app.command()(pause)


def cancel(study_id: StudyId, home: Home = None, json: AsJson = False) -> None:
    """Ask a study to stop, within seconds; what it drew is kept."""
    from planner.durable import request_cancel

    _ask(study_id, home, json, request_cancel, "cancel", "stops within seconds")


def pause(study_id: StudyId, home: Home = None, json: AsJson = False) -> None:
    """Ask a study to pause before its next batch of trials; `apportion resume` goes on with it."""
    from planner.durable import request_pause

    _ask(study_id, home, json, request_pause, "pause", "pauses before its next batch of trials")


def _ask(
    study_id: str,
    home: Path | None,
    json: bool,
    request: Callable[[Archive, str], StudyRecord],
    action: str,
    later: str,
) -> None:
    with output.explained_errors(), opened_archive(settings_for(home)) as archive:
        study = archive.studies.find(study_id)
        with noted(archive, action, study.id):
            study = request(archive, study.id)
        if json:
            output.print_json(study)
        else:
            word = later if study.status == "running" else f"is {study.status}"
            output.out.print(f"study {study.id} {word}", highlight=False)
