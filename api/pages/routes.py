"""The pages' routes: studies, one study live, one trial, and what they load."""

from __future__ import annotations

from functools import cache, lru_cache
from typing import Annotated

import plotly
from fastapi import APIRouter, Depends, FastAPI, Request, Response
from fastapi.responses import HTMLResponse
from plotly.offline import get_plotlyjs
from starlette.staticfiles import StaticFiles
from starlette.types import Scope

from api.dependencies import ArchiveDep, StudyDep
from api.pages import example_page, fleet_page, forms, live_form, plans, schedules, study_list, trial_page
from api.pages.rendering import FRESH, STATIC, figures_json, kept, render
from api.pages.study_query import StudyQuery
from api.pages.study_view import study_figures, study_view
from planner.archive import Archive
from planner.plans.figures import Theme

StudyQueryDep = Annotated[StudyQuery, Depends()]

router = APIRouter(include_in_schema=False)


class _Static(StaticFiles):
    """Files whose URLs change with their content."""

    async def get_response(self, path: str, scope: Scope) -> Response:
        return kept(await super().get_response(path, scope))


def install(app: FastAPI) -> None:
    """Add the pages and what they load."""
    for subject in (study_list, live_form, forms, plans, schedules, trial_page, example_page, fleet_page):
        app.include_router(subject.router)
    app.include_router(router)
    app.mount("/static", _Static(directory=STATIC), name="static")


@router.get("/studies/{study_id}")
def study_page(request: Request, study: StudyDep, archive: ArchiveDep, query: StudyQueryDep) -> HTMLResponse:
    """One study, live."""
    return render(request, "study.html", view=study_view(archive, study, query))


@router.get("/studies/{study_id}/live")
def study_live(request: Request, study: StudyDep, archive: ArchiveDep, query: StudyQueryDep) -> HTMLResponse:
    """The parts of a study's page that change, for its script."""
    return render(request, "study_live.html", view=study_view(archive, study, query))


@router.get("/studies/{study_id}/figures.json")
def study_figures_json(study: StudyDep, archive: ArchiveDep, query: StudyQueryDep, theme: Theme = "light") -> Response:
    """The figures of a study's page; drawn again only where the study has changed."""
    changed = (*archive.studies.sizes(study.id), study.status)
    return Response(
        _drawn(archive, study.id, changed, query.stage, theme), media_type="application/json", headers=FRESH
    )


@lru_cache(maxsize=32)
def _drawn(archive: Archive, study_id: str, changed: tuple[object, ...], stage: str, theme: Theme) -> str:
    figures = study_figures(archive, archive.studies.get(study_id), StudyQuery(stage=stage), theme)
    return figures_json(figures)


@router.get("/api")
def api_page(request: Request) -> HTMLResponse:
    """The REST interface at a glance."""
    operations = [
        (method.upper(), path, operation.get("summary", ""), operation.get("description", ""))
        for path, methods in request.app.openapi()["paths"].items()
        for method, operation in methods.items()
    ]
    return render(request, "api.html", operations=operations)


@router.get("/static/plotly.min.js")
def plotly_script(request: Request) -> Response:
    """Plotly's script from its Python package."""
    etag = f'"plotly-{plotly.__version__}"'
    if request.headers.get("if-none-match") == etag:
        return kept(Response(status_code=304, headers={"ETag": etag}))
    return kept(Response(_plotly_bytes(), media_type="text/javascript", headers={"ETag": etag}))


@cache
def _plotly_bytes() -> bytes:
    return str(get_plotlyjs()).encode()
