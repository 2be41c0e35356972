"""The pages' routes: studies, one study live, one trial, and what they load."""

from __future__ import annotations

import json
from functools import cache
from typing import Annotated

import plotly
from fastapi import APIRouter, FastAPI, Query, Request, Response
from fastapi.responses import HTMLResponse, JSONResponse
from plotly.offline import get_plotlyjs
from starlette.staticfiles import StaticFiles
from starlette.types import Scope

from api.dependencies import ArchiveDep, StudyDep
from api.pages import forms, schedules
from api.pages.rendering import STATIC, kept, render
from api.pages.study_view import SHOWN_EXAMPLES, Show, has_curves, shown_examples, study_figures, study_view, word_for
from planner.archive import StudyStatus
from planner.plans.figures import Theme, curves_figure

PAGE_SIZE = 25

router = APIRouter(include_in_schema=False)


class _Static(StaticFiles):
    """Files whose URLs change with their content."""

    async def get_response(self, path: str, scope: Scope) -> Response:
        return kept(await super().get_response(path, scope))


def install(app: FastAPI) -> None:
    """Add the pages and what they load."""
    for subject in (forms, schedules):
        app.include_router(subject.router)
    app.include_router(router)
    app.mount("/static", _Static(directory=STATIC), name="static")


@router.get("/")
def studies(
    request: Request,
    archive: ArchiveDep,
    before: Annotated[str | None, Query(max_length=64)] = None,
    status: Annotated[StudyStatus | str, Query(max_length=16)] = "",
    name: Annotated[str, Query(max_length=64)] = "",
) -> HTMLResponse:
    """Studies, newest first."""
    wanted = status if status in _STATUSES else None
    records = archive.studies.list(PAGE_SIZE + 1, before, wanted, name, specs=False)  # type: ignore[arg-type]
    plans = archive.plans.some([(record.id, "chosen") for record in records[:PAGE_SIZE]])
    listed = [(one, plan.document if (plan := plans.get((one.id, "chosen"))) else None) for one in records[:PAGE_SIZE]]
    following = records[PAGE_SIZE - 1].id if len(records) > PAGE_SIZE else None
    return render(
        request,
        "studies.html",
        listed=listed,
        following=following,
        before=before,
        status=status,
        name=name,
        statuses=_STATUSES,
    )


_STATUSES = ("queued", "running", "paused", "done", "failed", "cancelled")


@router.get("/studies/{study_id}")
def study_page(request: Request, study: StudyDep, archive: ArchiveDep) -> HTMLResponse:
    """One study, live."""
    return render(request, "study.html", view=study_view(archive, study))


@router.get("/studies/{study_id}/live")
def study_live(request: Request, study: StudyDep, archive: ArchiveDep) -> HTMLResponse:
    """The parts of a study's page that change, for its script."""
    return render(request, "study_live.html", view=study_view(archive, study))


@router.get("/studies/{study_id}/figures.json")
def study_figures_json(study: StudyDep, archive: ArchiveDep, theme: Theme = "light") -> Response:
    """The figures of a study's page."""
    figures = study_figures(study_view(archive, study), theme)
    return _figures({name: figure.to_json() for name, figure in figures.items()})


@router.get("/studies/{study_id}/trials/{trial_no}")
def trial_page(request: Request, study: StudyDep, trial_no: int, archive: ArchiveDep, show: Show = "all") -> Response:
    """One trial with its examples."""
    trial = archive.trials.get(study.id, trial_no)
    evidence = archive.trials.evidence(study.id, trial_no)
    words = [word_for(example) for example in evidence]
    return render(
        request,
        "trial.html",
        study=study,
        trial=trial,
        examples=shown_examples(evidence, show),
        counts={word: words.count(word) for word in ("right", "partly right", "wrong", "failed") if word in words},
        total=len(evidence) if show == "all" else words.count(show),
        show=show,
        most=SHOWN_EXAMPLES,
    )


@router.get("/studies/{study_id}/trials/{trial_no}/figures.json")
def trial_figures_json(study: StudyDep, trial_no: int, archive: ArchiveDep, theme: Theme = "light") -> Response:
    """The figures of a trial's page."""
    trial = archive.trials.get(study.id, trial_no)
    return _figures({"curves": curves_figure(trial, theme).to_json()} if has_curves(trial) else {})


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


def _figures(figures: dict[str, str]) -> Response:
    text = ",".join(f"{json.dumps(name)}:{figure}" for name, figure in figures.items())
    return Response(f"{{{text}}}", media_type=JSONResponse.media_type, headers={"Cache-Control": "no-store"})
