"""The durable workflow of a study. Its name and steps are part of the archive."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import Any, TypeVar

from dbos import DBOS

from env.errors import ApportionError
from planner.archive import Archive, StatusConflict, StudyStatus
from planner.loop import StudyCancelled, StudyContext, drop_old_texts, run_loop

STUDIES = "studies"
"""The queue studies wait in."""

log = logging.getLogger(__name__)
Result = TypeVar("Result")
_archives: list[Archive] = []
"""The archive of this process's runtime; DBOS calls workflows as plain functions, so it cannot be passed in."""


class DurableSteps:
    """Runs each step as a DBOS step: recorded when done, run again only if a crash cut it off."""

    async def run(self, name: str, step: Callable[..., Awaitable[Result]], *args: object) -> Result:
        """See `planner.loop.Steps.run`."""

        async def body() -> Result:
            return await step(*args)

        return await DBOS.run_step_async({"name": name}, body)


def bind(archive: Archive) -> None:
    """Give this process's workflows their archive."""
    _archives[:] = [archive]


def bound_archive() -> Archive:
    """The archive of this process's runtime."""
    return _archives[0]


def unbind() -> None:
    """Forget the archive."""
    _archives.clear()


@DBOS.workflow(name="study")
async def study_workflow(study_id: str) -> str:
    """Run a study to its end; returns its final status. Never raises for what is the study's own failure."""
    archive = _archives[0]
    status, error = await _run(archive, study_id)
    # Before the study says that it has ended: who waits for that, as the command line does, may then leave at once.
    await DurableSteps().run("drop-old-texts", drop_old_texts, archive, study_id)
    return _finish(archive, study_id, status, error)


async def _run(archive: Archive, study_id: str) -> tuple[StudyStatus, str]:
    """The loop; returns the status the study ends with, and why it failed."""
    if archive.studies.cancel_requested(study_id):
        return "cancelled", ""
    _finish(archive, study_id, "running")
    context: StudyContext | None = None
    try:
        context = StudyContext(archive, study_id)
        await run_loop(context, DurableSteps())
    except StudyCancelled:
        return "cancelled", ""
    except ApportionError as error:
        return "failed", str(error)
    except Exception as error:
        log.exception("study %s failed by a fault of the program", study_id)
        return "failed", f"internal error ({type(error).__name__}): {error}"
    finally:
        if context is not None:
            await context.close()
    return "done", ""


def _finish(archive: Archive, study_id: str, status: Any, error: str = "") -> str:
    """Set a status and say so; a study that already ended keeps its end."""
    try:
        archive.studies.set_status(study_id, status, error)
    except StatusConflict:
        return archive.studies.get(study_id).status
    archive.events.append(study_id, "status", {"status": status, "error": error}, f"status-{status}")
    return str(status)


@DBOS.workflow(name="scheduled_study")
async def scheduled_study(scheduled_time: datetime, context: Any) -> None:
    """What the engine's own scheduler fired before schedules had runs; one that was cut off then ends without a study.

    Args:
        scheduled_time: the moment it was due.
        context: the schedule's name.
    """
    log.warning("schedule %s: the firing of %s is left out, as it began before an upgrade", context, scheduled_time)
