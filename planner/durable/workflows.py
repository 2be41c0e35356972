"""The durable workflow of a study. Its name is part of the job database."""

from __future__ import annotations

import logging
from datetime import datetime
from typing import Any

from dbos import DBOS

from planner.archive import Archive
from planner.durable.jobs import run_of
from planner.durable.running import StudyRun
from planner.durable.worker import Worker
from planner.loop import StudyContext

log = logging.getLogger(__name__)
_workers: list[Worker] = []
"""The worker of this process; DBOS calls workflows as plain functions, so it cannot be passed in."""


def bind(worker: Worker) -> None:
    """Give this process's workflows their worker."""
    _workers[:] = [worker]


def bound_archive() -> Archive:
    """The archive of this process's runtime."""
    return _workers[0].archive


def unbind() -> None:
    """Forget the worker."""
    _workers.clear()


@DBOS.workflow(name="study")
async def study_workflow(study_id: str) -> str:
    """One run of a study; returns in a word how it ended. Never raises for what is the study's own failure."""
    worker, workflow_id = _workers[0], str(DBOS.workflow_id)
    worker.active.add(workflow_id)
    try:
        run = StudyRun(worker, study_id, run_of(workflow_id)[1], lambda archive, id: StudyContext(archive, id))
        return await run.run()
    finally:
        worker.active.discard(workflow_id)


@DBOS.workflow(name="scheduled_study")
async def scheduled_study(scheduled_time: datetime, context: Any) -> None:
    """What the engine's own scheduler fired before schedules had runs; one that was cut off then ends without a study.

    Args:
        scheduled_time: the moment it was due.
        context: the schedule's name.
    """
    log.warning("schedule %s: the firing of %s is left out, as it began before an upgrade", context, scheduled_time)
