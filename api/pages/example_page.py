"""One example of a trial: what every stage was asked, every draw, the vote, the chosen answer and gold."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path, Request
from fastapi.responses import HTMLResponse

from api.dependencies import NO_NUL, ArchiveDep, StudyDep
from api.pages.rendering import render
from api.pages.trial_page import outcome_word
from api.routes.trials import TrialNo
from planner.inspection import inspect_example

router = APIRouter(prefix="/studies", include_in_schema=False)


@router.get("/{study_id}/trials/{trial_no}/examples/{example_id:path}")
def example_page(
    request: Request,
    study: StudyDep,
    trial_no: TrialNo,
    example_id: Annotated[str, Path(max_length=1000, pattern=NO_NUL)],
    archive: ArchiveDep,
) -> HTMLResponse:
    """One example of a trial."""
    example = inspect_example(archive, study.id, trial_no, example_id)
    return render(
        request,
        "example.html",
        study=study,
        trial=archive.trials.get(study.id, trial_no),
        example=example,
        word=outcome_word(example.status, example.realised),
    )
