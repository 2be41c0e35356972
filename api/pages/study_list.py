"""The list of studies: filtered, searched, leafed through, and kept current while it is seen."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated
from urllib.parse import urlencode

from fastapi import APIRouter, Depends, Query, Request
from fastapi.responses import HTMLResponse, RedirectResponse

from api.dependencies import NO_NUL, ArchiveDep
from api.pages.rendering import form_texts, render
from api.problems import Refused
from api.routes.studies import ExactId
from env.spec import Fault
from planner.archive import StudyStatus
from planner.archive.filters import StudyFilter
from planner.archive.totals import ArchiveTotals

PAGE_SIZE = 25

STATUSES: tuple[StudyStatus, ...] = ("queued", "running", "paused", "done", "failed", "cancelled")

router = APIRouter(include_in_schema=False)

Words = Annotated[str, Query(max_length=200, pattern=NO_NUL)]


@router.get("/")
def studies(
    request: Request,
    archive: ArchiveDep,
    status: Annotated[StudyStatus | str, Query(max_length=16)] = "",
    name: Words = "",
    q: Words = "",
    schedule: Words = "",
    after: Annotated[str, Query(max_length=300, pattern=NO_NUL)] = "",
) -> HTMLResponse:
    """Studies, newest first."""
    statuses = tuple(one for one in STATUSES if one == status)
    wanted = StudyFilter(statuses=statuses, name=name, text=q, schedule=schedule or None)
    records = archive.studies.page(PAGE_SIZE + 1, wanted, _place(after), specs=False)
    shown = records[:PAGE_SIZE]
    asked = {"status": statuses[0] if statuses else "", "name": name, "q": q, "schedule": schedule}
    following = ""
    if len(records) > PAGE_SIZE:
        following = _address({**asked, "after": f"{shown[-1].created_at.isoformat()} {shown[-1].id}"})
    plans = archive.plans.some([(one.id, "chosen") for one in shown])
    return render(
        request,
        "studies.html",
        listed=[(one, plans[one.id, "chosen"].document if (one.id, "chosen") in plans else None) for one in shown],
        following=following,
        first=_address(asked) if after else "",
        asked=asked,
        filtered=any(asked.values()) or bool(after),
        statuses=STATUSES,
        tallies=[(one, _address({**asked, "status": one}), number) for one, number in _counts(archive)],
        schedules=[record.name for record in archive.schedules.list()],
        every=_address({**asked, "status": ""}),
    )


@router.post("/studies/{study_id}/delete", dependencies=[Depends(form_texts)])
def delete_study(study_id: ExactId, archive: ArchiveDep) -> RedirectResponse:
    """Delete a study that has ended, with all that belongs to it; its draws stay in the bank."""
    archive.studies.delete(study_id)
    return RedirectResponse("/", 303)


def _counts(archive: ArchiveDep) -> list[tuple[str, int]]:
    """Studies of the whole archive by status, whatever the other filters say."""
    held = ArchiveTotals(archive.engine).read().studies
    return [(one, held.get(one, 0)) for one in STATUSES]


def _address(asked: dict[str, str]) -> str:
    query = urlencode({key: value for key, value in asked.items() if value})
    return f"/?{query}" if query else "/"


def _place(after: str) -> tuple[datetime, str] | None:
    """Creation and id of the last study of the page before.

    Raises:
        Refused: the address was not written by this page.
    """
    if not after:
        return None
    moment, _, id = after.partition(" ")
    try:
        created = datetime.fromisoformat(moment)
    except ValueError:
        created = None
    if created is None or created.tzinfo is None or not id:
        raise Refused(422, "This page of the list does not exist.", [Fault("query.after", "is no place in the list")])
    return created, id
