"""One trial: why it was proposed, what it cost against the prediction, and what became of its examples."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import HTMLResponse

from api.dependencies import ArchiveDep, StudyDep
from api.pages.rendering import figures_response, render
from api.pages.study_view import has_curves
from api.routes.trials import TrialNo
from planner.archive.records import Outcome, TrialRecord
from planner.plans.figures import Theme, curves_figure

SHOWN_EXAMPLES = 50
SHOWN_CELLS = 1000
"""Of the heat map; the table leafs through all examples."""

SIGNS: dict[str, str] = {"right": "✓", "partly right": "~", "wrong": "✕", "failed": "!", "scored": "·"}


router = APIRouter(prefix="/studies", include_in_schema=False)


@router.get("/{study_id}/trials/{trial_no}")
def trial_page(
    request: Request,
    study: StudyDep,
    trial_no: TrialNo,
    archive: ArchiveDep,
    show: Annotated[Outcome | None, Query()] = None,
    after: Annotated[int | None, Query(ge=0, le=2**31 - 1)] = None,
) -> HTMLResponse:
    """One trial with its examples."""
    trial = archive.trials.get(study.id, trial_no)
    found = archive.trials.examples(study.id, trial_no, SHOWN_EXAMPLES + 1, after, show)
    listed, following = found[:SHOWN_EXAMPLES], None
    if len(found) > SHOWN_EXAMPLES:
        following = listed[-1][0]
    counts = {outcome: number for outcome, number in archive.trials.outcomes(study.id, trial_no).items() if number}
    cells = archive.browsing.cells(study.id, trial_no, SHOWN_CELLS)
    return render(
        request,
        "trial.html",
        study=study,
        trial=trial,
        proposal=archive.proposals.of_allocation(study.id, trial.allocation) if trial.split == "search" else None,
        examples=[(outcome_word(example.status, example.realised), example) for _, example in listed],
        counts=counts,
        unseen=_unseen(trial),
        cells=[
            (
                word := outcome_word(cell.status, cell.realised),
                SIGNS[word],
                cell.example_id,
                cell.score,
                _step(cell.score),
            )
            for cell in cells
        ],
        most_cells=SHOWN_CELLS,
        following=following,
        after=after,
        show=show,
        signs=SIGNS,
    )


@router.get("/{study_id}/trials/{trial_no}/figures.json")
def trial_figures_json(study: StudyDep, trial_no: TrialNo, archive: ArchiveDep, theme: Theme = "light") -> Response:
    """The figures of a trial's page."""
    trial = archive.trials.get(study.id, trial_no)
    return figures_response({"curves": curves_figure(trial, theme)} if has_curves(trial) else {})


def outcome_word(status: str, realised: float | None) -> Outcome:
    """What became of an example; a failed one was not evaluated and is not wrong."""
    if status == "failed":
        return "failed"
    if realised is None:
        return "scored"
    return "right" if realised >= 1 else "wrong" if realised <= 0 else "partly right"


def _unseen(trial: TrialRecord) -> int:
    """Examples that racing left out."""
    return max(0, (trial.examples_planned or 0) - trial.scored - trial.failed)


def _step(score: float | None) -> int:
    return 0 if score is None else min(10, max(0, round(10 * score)))
