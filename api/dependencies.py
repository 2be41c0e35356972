"""What routes and pages are given: the runtime, its archive, the study a path names."""

from __future__ import annotations

from typing import Annotated, cast

from fastapi import Depends, Path, Request

from planner.archive import Archive, StudyRecord
from planner.durable import Runtime

NO_NUL = r"^[^\x00]*$"
"""What a text of a path or a query must be: PostgreSQL takes no NUL."""

MAX_NUMBER = 2**31 - 1
"""What numbers of rounds and trials may be: the archive's columns hold no more."""


def get_runtime(request: Request) -> Runtime:
    """The process's runtime."""
    return cast(Runtime, request.app.state.runtime)


RuntimeDep = Annotated[Runtime, Depends(get_runtime)]


def get_archive(runtime: RuntimeDep) -> Archive:
    """The runtime's archive."""
    return runtime.archive


ArchiveDep = Annotated[Archive, Depends(get_archive)]


def get_study(
    study_id: Annotated[
        str,
        Path(
            max_length=200,
            pattern=NO_NUL,
            description="The study's id, the unique start of it, or its exact name.",
            examples=["3f2a9c41d0be"],
        ),
    ],
    archive: ArchiveDep,
) -> StudyRecord:
    """The study a path names; runs on a thread, as it reads the archive."""
    return archive.studies.find(study_id)


StudyDep = Annotated[StudyRecord, Depends(get_study)]
