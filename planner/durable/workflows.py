"""The two durable workflows: one study, and one firing of a schedule. Their names are part of the job database."""

from __future__ import annotations

import hashlib
import logging
from datetime import datetime
from typing import Any

from dbos import DBOS, SetEnqueueOptions, SetWorkflowID

from env.spec import SpecError
from planner.archive import Archive, StudyRecord
from planner.check import validated_spec
from planner.durable.jobs import queue_of, run_of
from planner.durable.running import StudyRun
from planner.durable.worker import Worker
from planner.loop import StudyContext

log = logging.getLogger(__name__)
_workers: list[Worker] = []
"""The worker of this process; DBOS calls workflows as plain functions, so it cannot be passed in."""


def bind(worker: Worker) -> None:
    """Give this process's workflows their worker."""
    _workers[:] = [worker]


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
    """Queue the study of a schedule; one study per firing, whoever else fires it too.

    Args:
        scheduled_time: the moment it was due.
        context: the schedule's name.
    """
    name = str(context)

    async def create() -> str:
        study = _create_scheduled(_workers[0].archive, name, scheduled_time)
        return study.id if study is not None else ""

    study_id = await DBOS.run_step_async({"name": "create"}, create)
    if study_id:
        study = _workers[0].archive.studies.get(study_id)
        with SetWorkflowID(study_id), SetEnqueueOptions(priority=study.priority):
            await DBOS.enqueue_workflow_async(study.queue, study_workflow, study_id)


def _create_scheduled(archive: Archive, name: str, due: datetime) -> StudyRecord | None:
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
        return None
    raw = spec.model_dump(mode="json")
    key = f"schedule/{name}/{moment}"
    study = archive.studies.create(study_id, spec.name, raw, spec.seed, key, name, queue=queue_of(spec))
    archive.schedules.mark_fired(name, due)
    return study
