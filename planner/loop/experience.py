"""Earlier studies of an archive as a proposer may learn from them."""

from __future__ import annotations

from env.errors import ApportionError
from env.spec import StudySpec
from planner.archive import Archive, StudyRecord
from planner.proposers.experience import PastRun, PastTask, canonical
from planner.space import SearchSpace

MAX_STUDIES = 50
"""Earlier studies looked at, the newest first."""


def past_tasks(archive: Archive, study_id: str) -> tuple[PastTask, ...]:
    """Studies that were done before this one was created.

    They are the same whenever it is asked, so that a resumed study learns from no others. Studies whose spec or models
    can no longer be read are left out.
    """
    tasks = (_task(archive, study) for study in earlier_studies(archive, study_id))
    return tuple(task for task in tasks if task is not None)


def earlier_studies(archive: Archive, study_id: str) -> list[StudyRecord]:
    """Studies that were done before this one was created, the newest first; the same whenever it is asked."""
    begun = archive.studies.get(study_id).created_at
    return [
        study
        for study in archive.studies.list(MAX_STUDIES, before=study_id, status="done")
        if study.finished_at is not None and study.finished_at <= begun
    ]


def _task(archive: Archive, study: StudyRecord) -> PastTask | None:
    try:
        spec = StudySpec.model_validate(dict(study.spec))
        space = SearchSpace(spec)
        runs = tuple(
            PastRun(canonical(space, trial.allocation), trial.score)
            for trial in archive.trials.list(study.id, "search")
            if trial.score is not None
        )
    except (ApportionError, ValueError, KeyError):
        return None
    stages = ", ".join(stage.name for stage in spec.pipeline.stages)
    return PastTask(study.name, f"{spec.description} Stages: {stages}.", runs) if runs else None
