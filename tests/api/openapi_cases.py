"""Generated requests: whatever the OpenAPI document allows, and what it forbids, against a real service."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import schemathesis
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from schemathesis import Case
from schemathesis.generation import GenerationMode
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from tests.api.service import Service

ENDLESS = {"/api/v1/events"}
"""Streams that never end: a request for them is answered, but not to its end."""

CHECKS = (status_code_conformance, content_type_conformance, response_schema_conformance)


@dataclass
class Outcome:
    """What the requests came to."""

    statuses: Counter[int] = field(default_factory=Counter)
    operations: dict[str, Counter[int]] = field(default_factory=dict)
    faults: dict[str, str] = field(default_factory=dict)
    """The first fault of each operation and sort of fault, with the request."""

    @property
    def cases(self) -> int:
        """Requests sent."""
        return sum(self.statuses.values())


def operations(service: Service) -> Iterator[Any]:
    """Every operation of the document whose answer ends."""
    schema = schemathesis.openapi.from_url(f"{service.url}/api/v1/openapi.json")
    for found in schema.get_all_operations():
        operation = found.ok()
        if operation.path not in ENDLESS:
            yield operation


def exercise(service: Service, known: dict[str, Any], each: int, seed_: int) -> Outcome:
    """Send generated requests to every operation.

    Args:
        service: where to.
        known: values of path parameters that exist, taken by half of the requests.
        each: requests to each operation, at most.
        seed_: decides which.
    """
    outcome = Outcome()
    for operation in operations(service):
        _exercise(service, operation, known, each, seed_, outcome)
    return outcome


def _exercise(service: Service, operation: Any, known: dict[str, Any], each: int, seed_: int, outcome: Outcome) -> None:
    allowed = operation.as_strategy(generation_mode=GenerationMode.POSITIVE)
    forbidden = operation.as_strategy(generation_mode=GenerationMode.NEGATIVE)
    label = f"{operation.method.upper()} {operation.path}"
    counted = outcome.operations.setdefault(label, Counter())

    @seed(seed_)
    @settings(
        max_examples=each,
        deadline=None,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(case=allowed | forbidden, real=st.booleans())
    def send(case: Case, real: bool) -> None:
        if real and operation.method.lower() != "delete":
            case.path_parameters.update({k: v for k, v in known.items() if k in case.path_parameters})
        response = case.call(base_url=service.url, timeout=30)
        outcome.statuses[response.status_code] += 1
        counted[response.status_code] += 1
        if response.status_code >= 500:
            _note(outcome, f"{label}: {response.status_code}", case, response)
        for check in CHECKS:
            try:
                case.validate_response(response, checks=[check])
            except BaseExceptionGroup as group:
                _note(outcome, f"{label}: {check.__name__}: {response.status_code}", case, response, group)
            except AssertionError as error:
                _note(outcome, f"{label}: {check.__name__}: {response.status_code}", case, response, error)

    send()


def _note(outcome: Outcome, kind: str, case: Case, response: Any, error: BaseException | None = None) -> None:
    if kind not in outcome.faults:
        reasons = getattr(error, "exceptions", [error]) if error else []
        told = "; ".join(str(reason)[:400] for reason in reasons)
        outcome.faults[kind] = f"{case.as_curl_command()[:700]}\n{response.text[:400]}\n{told}"
