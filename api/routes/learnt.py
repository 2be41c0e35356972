"""What a study's proposers suggested, what its rounds taught, and what its ledgers were charged."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query

from api.dependencies import MAX_NUMBER, NO_NUL, ArchiveDep, StudyDep
from api.paging import PagingDep
from api.routes.spec_bodies import NOT_FOUND, PROBLEMS
from api.schemas import GuidelinePublic, LedgerEntryPublic, LedgerPublic, Page, ProposalPublic
from planner.archive import Ledger
from planner.archive.records import Verdict

router = APIRouter(prefix="/studies", tags=["studies"], responses=PROBLEMS)

Round = Annotated[int | None, Query(ge=0, le=MAX_NUMBER, description="Only of this round.")]


@router.get("/{study_id}/proposals", responses=NOT_FOUND)
def list_proposals(
    study: StudyDep,
    archive: ArchiveDep,
    paging: PagingDep,
    round: Round = None,
    verdict: Verdict | None = None,
    origin: Annotated[str | None, Query(max_length=64, pattern=NO_NUL, description="Who suggested it.")] = None,
) -> Page[ProposalPublic]:
    """Everything that was suggested, and what review said."""
    records = archive.proposals.page(study.id, paging.wanted, paging.after(int, int, int), round, verdict, origin)
    return paging.page(records, lambda p: (p.round, p.attempt, p.position), ProposalPublic.of)


@router.get("/{study_id}/guidelines", responses=NOT_FOUND)
def list_guidelines(
    study: StudyDep, archive: ArchiveDep, paging: PagingDep, round: Round = None
) -> Page[GuidelinePublic]:
    """What the rounds taught."""
    records = archive.guidelines.page(study.id, paging.wanted, paging.after(int, int), round)
    return paging.page(records, lambda g: (g.round, g.position), GuidelinePublic.of)


@router.get("/{study_id}/ledgers", responses=NOT_FOUND)
def list_ledgers(study: StudyDep, archive: ArchiveDep) -> list[LedgerPublic]:
    """Where each ledger of a study stands."""
    usages = archive.ledgers.usages(study.id)
    return [
        LedgerPublic(ledger=name, unit=usage.unit, settled=usage.settled, reserved=usage.reserved)
        for name, usage in sorted(usages.items())
    ]


@router.get("/{study_id}/ledgers/entries", responses=NOT_FOUND)
def list_ledger_entries(
    study: StudyDep, archive: ArchiveDep, paging: PagingDep, ledger: Ledger | None = None
) -> Page[LedgerEntryPublic]:
    """Every reservation, and what it came to."""
    rows = archive.ledgers.page(study.id, paging.wanted, paging.after(str, str), ledger)
    return paging.page(
        rows,
        lambda row: (row[0], row[2].key),
        lambda row: LedgerEntryPublic(
            ledger=row[0], unit=row[1], key=row[2].key, reserved=row[2].reserved, settled=row[2].settled
        ),
    )
