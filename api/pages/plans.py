"""The plans' pages: list, one plan, what changes from one to another, and the form that names one."""

from __future__ import annotations

import json
import re
from datetime import datetime
from typing import Annotated
from urllib.parse import quote

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import HTMLResponse, JSONResponse, RedirectResponse

from api.completions.routes import DeskDep
from api.dependencies import ArchiveDep
from api.pages.forms import FormTexts
from api.pages.plan_view import plan_figures, plan_view
from api.pages.rendering import render
from api.paging import PagingDep
from api.problems import Refused
from api.routes.plans import PlanId, names_of, plan_named, promote
from planner.plans import PlanDocument
from planner.plans.figures import Theme
from planner.serving import plan_diff
from planner.serving.reference import NAME

router = APIRouter(prefix="/plans", include_in_schema=False)


@router.get("")
def plans(
    request: Request,
    archive: ArchiveDep,
    paging: PagingDep,
    name: Annotated[str, Query(max_length=64)] = "",
    kind: Annotated[str, Query(max_length=16)] = "",
) -> HTMLResponse:
    """Plans, newest first, and the names that are served."""
    wanted = kind if kind in ("chosen", "best") else None
    records = archive.plans.page(paging.wanted, paging.after(datetime, str, str), wanted, name)  # type: ignore[arg-type]
    page = paging.page(records, lambda one: (one[0].created_at, one[0].study_id, one[0].kind), lambda one: None)
    return render(
        request,
        "plans.html",
        listed=[
            (record, study, PlanDocument.model_validate(dict(record.document)))
            for record, study in records[: paging.limit]
        ],
        names=names_of(archive),
        promoted=archive.promotions.current(),
        following=page.next,
        first="cursor" not in request.query_params,
        name=name,
        kind=kind,
    )


@router.get("/{plan_id}")
def plan_page(
    request: Request,
    plan_id: PlanId,
    archive: ArchiveDep,
    desk: DeskDep,
    promoted: Annotated[str, Query(max_length=64)] = "",
) -> HTMLResponse:
    """One plan: evidence, front, how to ask it, export, names."""
    return _page(request, plan_id, archive, desk, promoted=promoted)


@router.get("/{plan_id}/figures.json")
def plan_figures_json(plan_id: PlanId, archive: ArchiveDep, theme: Theme = "light") -> Response:
    """The figures of a plan's page."""
    found = plan_figures(archive, plan_named(archive, plan_id), theme)
    text = ",".join(f"{json.dumps(name)}:{figure.to_json()}" for name, figure in found.items())
    return Response(f"{{{text}}}", media_type=JSONResponse.media_type, headers={"Cache-Control": "no-store"})


@router.get("/{plan_id}/compare")
def compare_page(
    request: Request,
    plan_id: PlanId,
    archive: ArchiveDep,
    other: Annotated[str, Query(alias="with", max_length=300)] = "",
) -> Response:
    """What changes from one plan to another."""
    before, after = plan_named(archive, plan_id), plan_named(archive, other)
    studies = [archive.studies.get(record.study_id).name for record in (before, after)]
    diff = plan_diff(archive, before, after)
    return render(request, "plan_diff.html", diff=diff, before=before, after=after, studies=studies)


@router.post("/{plan_id}/promote")
def promote_page(request: Request, plan_id: PlanId, texts: FormTexts, archive: ArchiveDep, desk: DeskDep) -> Response:
    """Give a plan a name, or show its page again with what is wrong."""
    name = texts.get("name", "").strip()
    if not re.fullmatch(NAME, name):
        fault = "a name starts with a letter and has at most 64 letters, digits, and . _ -"
        return _page(request, plan_id, archive, desk, name=name, fault=fault, code=422)
    try:
        record = promote(archive, name, plan_id, request.state.caller.name)
    except Refused as error:
        return _page(request, plan_id, archive, desk, name=name, fault=str(error), code=422)
    return RedirectResponse(f"/plans/{quote(record.plan_id)}?promoted={quote(name)}#names", 303)


def _page(
    request: Request,
    plan_id: str,
    archive: ArchiveDep,
    desk: DeskDep,
    name: str = "",
    fault: str = "",
    promoted: str = "",
    code: int = 200,
) -> HTMLResponse:
    view = plan_view(archive, plan_named(archive, plan_id), desk)
    return render(
        request,
        "plan.html",
        code,
        view=view,
        name=name,
        fault=fault,
        promoted=promoted if promoted in view.names else "",
        base_url=f"{request.base_url}v1",
    )
