"""Shows a problem to a person."""

from __future__ import annotations

from fastapi import Request
from fastapi.responses import Response

from api.pages.rendering import render
from api.problems import Problem


def problem_page(request: Request, problem: Problem) -> Response:
    """The problem as a page."""
    return render(request, "problem.html", problem.status, problem=problem)
