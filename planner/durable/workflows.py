"""The two durable workflows: one study, and one firing of a schedule. Their names and steps are part of the archive."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import Any, TypeVar

from dbos import DBOS, SetWorkflowID

from env.errors import ApportionError
from env.spec import SpecError
from planner.archive import Archive, StatusConflict
from planner.check import validated_spec
from planner.loop import StudyCancelled, StudyContext, run_loop

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


def unbind() -> None:
    """Forget the archive."""
    _archives.clear()


@DBOS.workflow(name="study")
async def study_workflow(study_id: str) -> str:
    """Run a study to its end; returns its final status. Never raises for what is the study's own failure."""
    archive = _archives[0]
    if archive.studies.cancel_requested(study_id):
        return _finish(archive, study_id, "cancelled")
    _finish(archive, study_id, "running")
    context: StudyContext | None = None
    try:
        context = StudyContext(archive, study_id)
        await run_loop(context, DurableSteps())
    except StudyCancelled:
        return _finish(archive, study_id, "cancelled")
    except ApportionError as error:
        return _finish(archive, study_id, "failed", str(error))
    except Exception as error:
        log.exception("study %s failed by a fault of the program", study_id)
        return _finish(archive, study_id, "failed", f"internal error ({type(error).__name__}): {error}")
    finally:
        if context is not None:
            await context.close()
    return _finish(archive, study_id, "done")


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
    """Queue the study of a schedule; one study per firing, whoever else fires it too.

    Args:
        scheduled_time: the moment it was due.
        context: the schedule's name.
    """
    name = str(context)

    async def create() -> str:
        return _create_scheduled(_archives[0], name, scheduled_time)

    study_id = await DBOS.run_step_async({"name": "create"}, create)
    if study_id:
        with SetWorkflowID(study_id):
            await DBOS.enqueue_workflow_async(STUDIES, study_workflow, study_id)


def _create_scheduled(archive: Archive, name: str, due: datetime) -> str:
    schedule = archive.schedules.get(name)
    moment = due.strftime("%Y-%m-%dT%H:%M:%S")
    study_id = hashlib.sha256(f"{name}/{moment}".encode()).hexdigest()[:12]
    try:
        spec = validated_spec(dict(schedule.spec))
    except SpecError as error:
        # What was valid when it was scheduled may not be now, for instance because its data file is gone.
        study = archive.studies.create(study_id, name, schedule.spec, 0, f"schedule/{name}/{moment}", name)
        archive.studies.set_status(study.id, "failed", str(error))
        archive.schedules.mark_fired(name, due)
        return ""
    raw = spec.model_dump(mode="json")
    study = archive.studies.create(study_id, spec.name, raw, spec.seed, f"schedule/{name}/{moment}", name)
    archive.schedules.mark_fired(name, due)
    return study.id
