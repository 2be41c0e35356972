"""Errors of the plan endpoint, in OpenAI's shape."""

from __future__ import annotations

from fastapi import Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse

from api.problems import Problem, problem_of
from env.errors import ApportionError, TemplateError
from env.execution import AllowanceSpent, StageFailed
from planner.archive import ArchiveError, NotFound

PREFIX = "/v1/"
"""Paths that are answered in OpenAI's shape."""

RETRY_S = 5
"""What a client is told to wait where a server is not asked because it keeps failing."""


class CompletionError(ApportionError):
    """A request to the plan endpoint that is refused, or failed."""

    def __init__(
        self, status: int, message: str, param: str | None = None, code: str | None = None, retry_s: float | None = None
    ) -> None:
        super().__init__(message)
        self.status = status
        self.param = param
        self.code = code
        self.headers = {} if retry_s is None else {"Retry-After": str(max(1, round(retry_s)))}


def completion_error(error: Exception) -> CompletionError:
    """Any error as one of ours; nothing of our insides."""
    match error:
        case CompletionError():
            return error
        case StageFailed():
            return _of_stage(error)
        case AllowanceSpent():
            return CompletionError(400, f"{error}; raise apportion.max_cost", "apportion.max_cost", "budget_exceeded")
        case TemplateError():
            return CompletionError(400, str(error), "input", "input_not_usable")
        case RequestValidationError():
            return _invalid(error)
        case NotFound():
            return CompletionError(404, str(error), "model", "model_not_found")
        case ArchiveError():
            return CompletionError(503, str(error), code="archive_unavailable", retry_s=RETRY_S)
        case ApportionError():
            return CompletionError(503, str(error), "model", "plan_unavailable")
        case _:
            problem = problem_of(error)
            return CompletionError(problem.status, problem.detail or problem.title)


def _of_stage(error: StageFailed) -> CompletionError:
    """The model servers' troubles are no fault of the request, except where it does not fit a model."""
    reason = str(error)
    if "leaves no room in a context" in reason or "HTTP 400" in reason or "HTTP 413" in reason:
        return CompletionError(400, reason, "messages", "stage_refused")
    if "nothing is sent to it" in reason or "is closed; open a new one" in reason:
        return CompletionError(503, reason, code="model_server_unavailable", retry_s=RETRY_S)
    return CompletionError(502, reason, code="model_server_failed")


def _invalid(error: RequestValidationError) -> CompletionError:
    found = error.errors()[0]
    field = ".".join(str(part) for part in found["loc"] if part != "body") or None
    message = str(found["msg"]).removeprefix("Value error, ")
    if field is None:
        field = message.partition(":")[0]
        return CompletionError(400, message, field if field.isidentifier() else None, "unsupported_value")
    return CompletionError(400, f"{field}: {message}", field, "invalid_value")


def error_body(error: CompletionError) -> dict[str, dict[str, str | None]]:
    """In OpenAI's shape."""
    kind = "invalid_request_error" if error.status < 500 and error.status != 429 else "server_error"
    kind = "rate_limit_error" if error.status == 429 else kind
    return {"error": {"message": str(error), "type": kind, "param": error.param, "code": error.code}}


def error_reply(request: Request, error: Exception, problem: Problem) -> JSONResponse | None:
    """The answer to an error on a path of this endpoint; None on others."""
    if not request.url.path.startswith(PREFIX):
        return None
    found = completion_error(error)
    return JSONResponse(error_body(found), found.status, found.headers | dict(getattr(error, "headers", None) or {}))
