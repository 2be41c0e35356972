"""What goes wrong when the service is asked, each with the problem it answered."""

from __future__ import annotations

import httpx
from pydantic import ValidationError

from api.problems import Problem
from env.errors import ApportionError


class ApiError(ApportionError):
    """The service refused a request or could not answer it."""

    def __init__(self, problem: Problem) -> None:
        """State the problem and, in the message, its faults."""
        self.problem = problem
        self.status = problem.status
        faults = "".join(f"\n  {fault.path or 'request'}: {fault.message}" for fault in problem.faults)
        super().__init__(f"{problem.detail or problem.title} ({problem.status}){faults}")


class FaultyRequest(ApiError):
    """400, 413, 415, 422: the request cannot be used as it is; `problem.faults` names the fields."""


class NotAllowed(ApiError):
    """401, 403: a token is missing, wrong or may not do this."""


class Missing(ApiError):
    """404: there is no such thing."""


class Conflict(ApiError):
    """409: what is there does not permit it."""


class ChangedMeanwhile(ApiError):
    """412, 428: it was changed since it was read."""


class TooMany(ApiError):
    """429: too many requests."""


class ServiceFault(ApiError):
    """5xx: the service or its archive failed."""


class Unreachable(ApportionError):
    """Nothing answers under the URL, or it is no Apportion."""


_KINDS: dict[int, type[ApiError]] = {
    401: NotAllowed,
    403: NotAllowed,
    404: Missing,
    409: Conflict,
    412: ChangedMeanwhile,
    428: ChangedMeanwhile,
    429: TooMany,
}


def error_of(response: httpx.Response) -> ApiError:
    """The exception for an answer that is no success."""
    try:
        problem = Problem.model_validate_json(response.content)
    except ValidationError:
        detail = f"{response.request.url} answered no problem details; is it Apportion that listens there?"
        problem = Problem(title=response.reason_phrase or "Error", status=response.status_code, detail=detail)
    kind = _KINDS.get(response.status_code, ServiceFault if response.status_code >= 500 else FaultyRequest)
    return kind(problem)
