"""What is done to a study that was submitted: pausing it, going on with it, cancelling it; and the queues."""

from __future__ import annotations

from fastapi import APIRouter

from api.dependencies import RuntimeDep, StudyDep
from api.problems import Problem
from api.routes.spec_bodies import NOT_FOUND, PROBLEMS
from api.schemas import QueuePublic, StudyPublic

router = APIRouter(tags=["studies"], responses=PROBLEMS)

ENDED = {**NOT_FOUND, 409: {"model": Problem, "description": "The study has ended, or the name fits several."}}


@router.post("/studies/{study_id}/pause", status_code=202, responses=ENDED)
def pause_study(study: StudyDep, runtime: RuntimeDep) -> StudyPublic:
    """Ask a study to pause before its next batch of trials; what it drew is kept and its place is free for others."""
    return StudyPublic.of(runtime.pause(study.id))


@router.post("/studies/{study_id}/resume", status_code=202, responses=ENDED)
def resume_study(study: StudyDep, runtime: RuntimeDep) -> StudyPublic:
    """Go on with a study that pauses, or take back that it should. One that runs or is done stays as it is."""
    return StudyPublic.of(runtime.resume(study.id))


@router.post("/studies/{study_id}/cancel", status_code=202, responses=NOT_FOUND)
def cancel_study(study: StudyDep, runtime: RuntimeDep) -> StudyPublic:
    """Ask a study to stop, within seconds; what it drew is kept. One that has ended stays as it is."""
    return StudyPublic.of(runtime.cancel(study.id))


@router.get("/queues")
def list_queues(runtime: RuntimeDep) -> list[QueuePublic]:
    """List the queues: how many studies wait and run in each, and its limits."""
    return [QueuePublic.of(state) for state in runtime.queues()]
