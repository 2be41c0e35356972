"""Opens archives, runs a study in this process or follows one that another worker runs, and exports results."""

from __future__ import annotations

import getpass
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from api.command import output
from api.command.following import follow
from api.settings import Settings, load_settings
from env.spec import StudySpec
from planner.archive import Archive, StudyRecord, open_archive


def settings_for(home: Path | None) -> Settings:
    """The settings in force, the home folder from the command line first; ends the command where they are wrong."""
    with output.explained_errors():
        return load_settings(home=home)


@contextmanager
def opened_archive(settings: Settings) -> Iterator[Archive]:
    """The archive, closed at the end."""
    archive = open_archive(settings.archive_url)
    try:
        yield archive
    finally:
        archive.close()


@contextmanager
def noted(archive: Archive, action: str, subject: str) -> Iterator[None]:
    """Enter a command that changes something into the audit log, done or failed."""
    who, host, result = _user(), socket.gethostname(), "failed"
    try:
        yield
        result = "done"
    finally:
        archive.audit.note("command", who, host, action, subject, result)


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return "unknown"


def run_here(
    settings: Settings, spec: StudySpec | None = None, resume: str | None = None, quiet: bool = False
) -> StudyRecord:
    """Submit or resume a study and wait for its end.

    Another worker on the same archive may take it; where none lives, this process does the work.

    Raises:
        ApportionError: the archive cannot be used, or the study cannot be resumed.
    """
    from planner.durable import Runtime

    with Runtime(settings.archive_url, settings.queue_url) as runtime:
        if resume is not None:
            study = runtime.resume(resume)
        else:
            assert spec is not None
            study = runtime.submit(spec)
        return follow(runtime.archive, study.id, quiet)
