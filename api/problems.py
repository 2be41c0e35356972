"""Errors as problem details (RFC 9457): one shape for everything that goes wrong."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from http import HTTPStatus

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from pydantic import BaseModel, ConfigDict, Field
from starlette.exceptions import HTTPException

from env.errors import ApportionError
from env.secrets import redact
from env.spec import Fault, SpecError
from planner.archive import Ambiguous, ArchiveError, Changed, NotFound, StatusConflict
from planner.datasets import DiskFull, FaultyRows, TooLarge

log = logging.getLogger(__name__)

PROBLEM_JSON = "application/problem+json"
FAULTY_SPEC = "urn:apportion:problem:faulty-spec"
FAULTY_REQUEST = "urn:apportion:problem:faulty-request"

PageOfProblem = Callable[[Request, "Problem"], Response]
OtherShape = Callable[[Request, Exception, "Problem"], Response | None]


class FaultPublic(BaseModel):
    """One thing that is wrong, with the path of its field."""

    model_config = ConfigDict(extra="forbid")

    path: str = Field(description="Dotted path of the field, list positions in brackets; empty for the whole.")
    message: str


class Problem(BaseModel):
    """Problem details."""

    model_config = ConfigDict(extra="forbid")

    type: str = "about:blank"
    title: str
    status: int
    detail: str = ""
    faults: list[FaultPublic] = Field(default_factory=list, description="Every fault of the request, where it has any.")


class Refused(ApportionError):
    """A request that is answered with a problem of the caller's own making."""

    def __init__(self, status: int, detail: str, faults: Sequence[Fault] = ()) -> None:
        super().__init__(detail)
        self.status = status
        self.faults = tuple(faults)


def problem_of(error: Exception) -> Problem:
    """What to tell a caller about an error; nothing of our insides."""
    match error:
        case SpecError():
            count = len(error.faults)
            detail = f"The spec has {count} {'fault' if count == 1 else 'faults'}; nothing was queued."
            return _problem(422, detail, error.faults, FAULTY_SPEC, "The spec is not usable")
        case Refused():
            return _problem(error.status, str(error), error.faults, FAULTY_REQUEST if error.faults else "about:blank")
        case RequestValidationError():
            faults = [Fault(_place(item["loc"]), str(item["msg"])) for item in error.errors()]
            return _problem(422, "The request is not usable.", faults, FAULTY_REQUEST)
        case HTTPException():
            phrase = _phrase(error.status_code)
            return _problem(error.status_code, "" if error.detail == phrase else str(error.detail))
        case FaultyRows():
            return _problem(422, "The rows are no usable data set; nothing was kept.", error.faults, FAULTY_REQUEST)
        case TooLarge():
            return _problem(413, str(error))
        case DiskFull():
            return _problem(507, str(error))
        case NotFound():
            return _problem(404, str(error))
        case Changed():
            return _problem(412, str(error))
        case Ambiguous() | StatusConflict():
            return _problem(409, str(error))
        case ArchiveError():
            return _problem(503, str(error))
        case ApportionError():
            return _problem(409, str(error))
        case _:
            return _problem(500, "The service met a fault of its own; its log has the details.")


def respond(problem: Problem, headers: dict[str, str] | None = None) -> JSONResponse:
    """The problem as a response."""
    content = problem.model_dump(exclude=set() if problem.faults else {"faults"})
    return JSONResponse(content, problem.status, headers, PROBLEM_JSON)


def install(app: FastAPI, page: PageOfProblem, other: OtherShape | None = None) -> None:
    """Answer every error with a problem: JSON for programs, a page for people.

    Args:
        app: the application.
        page: renders a problem for a browser.
        other: answers errors in another protocol's shape where a path speaks one; None leaves it to us.
    """

    async def answer(request: Request, error: Exception) -> Response:
        problem = problem_of(error)
        if problem.status >= 500 and not isinstance(error, HTTPException):
            log.error("%s %s: %s", request.method, request.url.path, error)
        headers = dict(getattr(error, "headers", None) or {})
        answered = other(request, error, problem) if other is not None else None
        if answered is None:
            answered = page(request, problem) if wants_page(request) else respond(problem, headers)
        if problem.status == 500:
            # The server closes this connection; a client that is not told may lose its next request on it.
            answered.headers["Connection"] = "close"
        return answered

    for kind in (HTTPException, RequestValidationError, ApportionError, Exception):
        app.add_exception_handler(kind, answer)


def wants_page(request: Request) -> bool:
    """Whether a person with a browser waits for the answer."""
    return not request.url.path.startswith("/api/") and "text/html" in request.headers.get("accept", "")


def _problem(
    status: int, detail: str, faults: Sequence[Fault] = (), kind: str = "about:blank", title: str = ""
) -> Problem:
    listed = [FaultPublic(path=redact(fault.path), message=redact(fault.message)) for fault in faults]
    return Problem(type=kind, title=title or _phrase(status), status=status, detail=redact(detail), faults=listed)


def _phrase(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "Error"


def _place(location: Sequence[int | str]) -> str:
    parts = location[1:] if location and location[0] == "body" else location
    text = ""
    for part in parts:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else str(part)
    return text
