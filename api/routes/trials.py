"""Trials of a study, and what became of their examples."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path, Query

from api.dependencies import MAX_NUMBER, NO_NUL, ArchiveDep, StudyDep
from api.paging import PagingDep
from api.routes.spec_bodies import NOT_FOUND, PROBLEMS
from api.schemas import ExampleInspectedPublic, ExamplePublic, Page, TrialDetail, TrialPublic
from planner.archive.records import Outcome, Split, TrialStatus
from planner.inspection import inspect_example

router = APIRouter(prefix="/studies", tags=["trials"], responses=PROBLEMS)

TrialNo = Annotated[int, Path(ge=0, le=MAX_NUMBER, examples=[1])]


@router.get("/{study_id}/trials", responses=NOT_FOUND)
def list_trials(
    study: StudyDep,
    archive: ArchiveDep,
    paging: PagingDep,
    split: Split | None = None,
    status: Annotated[list[TrialStatus], Query(max_length=10, description="One of these.")] = [],  # noqa: B006
    curves: Annotated[bool, Query(description="With the k-curves; else they are empty.")] = True,
) -> Page[TrialPublic]:
    """Trials of a study by number; those on the sealed test split come last."""
    records = archive.trials.page(study.id, paging.wanted, _one(paging.after(int)), split, tuple(status), curves)
    return paging.page(records, lambda trial: (trial.trial_no,), TrialPublic.of)


@router.get("/{study_id}/trials/{trial_no}", responses=NOT_FOUND)
def get_trial(study: StudyDep, trial_no: TrialNo, archive: ArchiveDep) -> TrialDetail:
    """One trial with how many of its examples ended how."""
    trial = archive.trials.get(study.id, trial_no)
    return TrialDetail.with_outcomes(trial, archive.trials.outcomes(study.id, trial_no))


@router.get("/{study_id}/trials/{trial_no}/examples", responses=NOT_FOUND)
def list_examples(
    study: StudyDep, trial_no: TrialNo, archive: ArchiveDep, paging: PagingDep, outcome: Outcome | None = None
) -> Page[ExamplePublic]:
    """A trial's evidence, example by example in the order they ran."""
    after = _one(paging.after(int))
    archive.trials.get(study.id, trial_no)
    records = archive.trials.examples(study.id, trial_no, paging.wanted, after, outcome)
    return paging.page(records, lambda placed: (placed[0],), lambda placed: ExamplePublic.of(placed[1]))


@router.get("/{study_id}/trials/{trial_no}/examples/{example_id:path}", responses=NOT_FOUND)
def get_example(
    study: StudyDep,
    trial_no: TrialNo,
    example_id: Annotated[str, Path(max_length=1000, pattern=NO_NUL, examples=["e1"])],
    archive: ArchiveDep,
) -> ExampleInspectedPublic:
    """Every draw of every stage on one example, with the vote, the chosen answer and gold.

    At most 200 draws of a prompt are shown; `held` says how many there are. Texts that the archive's policy dropped and
    draws that were pruned are marked as such.
    """
    return ExampleInspectedPublic.of(inspect_example(archive, study.id, trial_no, example_id))


def _one(key: tuple[int, ...] | None) -> int | None:
    return None if key is None else key[0]
