"""A finished study's report: JSON, Markdown with its pictures, or one HTML page."""

from __future__ import annotations

import base64
import hashlib
import re
from functools import lru_cache
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response

from api.access.headers import CONTENT_SECURITY_POLICY
from api.dependencies import ArchiveDep, StudyDep
from api.problems import Refused
from api.routes.spec_bodies import NOT_FOUND, PROBLEMS
from planner.archive import Archive, StudyRecord
from planner.archive.statuses import TERMINAL
from planner.plans.gathering import GatheredReport, gather_report
from planner.plans.report import ReportFormat, encoded, report_figures, report_text
from planner.plans.study_report import StudyReport
from planner.plans.svg import figure_svg

router = APIRouter(prefix="/studies", tags=["studies"], responses=PROBLEMS)

REMEMBERED = 4
"""Reports kept in memory: gathering one reads the evidence of all trials, and a finished study never changes."""

MEDIA_TYPES: dict[ReportFormat, str] = {
    "json": "application/json",
    "md": "text/markdown; charset=utf-8",
    "html": "text/html; charset=utf-8",
}

_SCRIPT = re.compile(r"<script\b[^>]*>(.*?)</script>", re.DOTALL)
_OTHER_FORMATS: dict[str, Any] = {
    "text/markdown": {"schema": {"type": "string"}},
    "text/html": {"schema": {"type": "string"}},
}


@router.get("/{study_id}/report", response_model=StudyReport, responses={**NOT_FOUND, 200: {"content": _OTHER_FORMATS}})
def get_report(
    request: Request,
    study: StudyDep,
    archive: ArchiveDep,
    format: Annotated[
        ReportFormat | None, Query(description="Else as the Accept header asks; JSON by default.")
    ] = None,
) -> Response:
    """The plan with why each stage is as it is, what was tried and refused, what it cost, and what is not known."""
    chosen = format or _asked(request.headers.get("accept", ""))
    text = report_text(_report(archive, study), chosen)
    headers = {"Vary": "Accept", "Cache-Control": "no-store"}
    if chosen == "html":
        headers["Content-Security-Policy"] = _policy(text)
    return Response(encoded(text), media_type=MEDIA_TYPES[chosen], headers=headers)


@router.get(
    "/{study_id}/report/{figure}.svg",
    response_class=Response,
    responses={**NOT_FOUND, 200: {"content": {"image/svg+xml": {"schema": {"type": "string"}}}}},
)
def get_report_figure(study: StudyDep, figure: str, archive: ArchiveDep) -> Response:
    """One figure of a report as a picture; the Markdown report refers to them."""
    figures = {f.slug: f for f in report_figures(_report(archive, study))}
    if figure not in figures:
        raise Refused(404, f"the report has no figure {figure[:100]!r}; there are {', '.join(figures)}")
    picture = figure_svg(figures[figure].figure, figures[figure].title)
    return Response(picture, media_type="image/svg+xml", headers={"Cache-Control": "no-store"})


def _asked(accept: str) -> ReportFormat:
    """What an Accept header prefers; browsers ask for HTML."""
    if "text/markdown" in accept:
        return "md"
    return "html" if "text/html" in accept else "json"


def _report(archive: Archive, study: StudyRecord) -> GatheredReport:
    return _finished(archive, study.id) if study.status in TERMINAL else gather_report(archive, study.id)


@lru_cache(maxsize=REMEMBERED)
def _finished(archive: Archive, study_id: str) -> GatheredReport:
    return gather_report(archive, study_id)


def _policy(page: str) -> str:
    """The service's policy, with exactly the scripts that this page carries let in by their hashes."""
    digests = [hashlib.sha256(encoded(script)).digest() for script in _SCRIPT.findall(page)]
    sources = " ".join(f"'sha256-{base64.b64encode(digest).decode()}'" for digest in digests)
    return CONTENT_SECURITY_POLICY.replace("script-src 'self'", f"script-src {sources}")
