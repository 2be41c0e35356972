"""The spec itself: its JSON Schema, and a check that queues nothing."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter
from fastapi.responses import JSONResponse
from pydantic import ValidationError

from api.bodies import usable_spec
from api.problems import FaultPublic
from api.routes.spec_bodies import PROBLEMS, SPEC_BODY, RawSpecDep
from api.schemas import CheapestPublic, CheckPublic
from env.costs import CostOptions, PlanCost
from env.errors import ApportionError
from env.spec import SpecError, StudySpec
from env.spec.check import cheapest_allocation
from env.spec.load import spec_schema


class SchemaResponse(JSONResponse):
    """A JSON Schema."""

    media_type = "application/schema+json"


router = APIRouter(prefix="/spec", tags=["spec"])


@router.get(
    "/schema",
    response_class=SchemaResponse,
    responses={200: {"content": {"application/schema+json": {"schema": {"type": "object"}}}}},
)
def schema() -> SchemaResponse:
    """JSON Schema (draft 2020-12) of a study spec."""
    return SchemaResponse(spec_schema())


@router.post("/check", openapi_extra=SPEC_BODY, responses=PROBLEMS)
def check(body: RawSpecDep) -> CheckPublic:
    """Find everything wrong with a spec and price its cheapest allocation; nothing is queued."""
    try:
        raw = body.read()
    except SpecError as error:
        return CheckPublic(valid=False, faults=_public(error), cheapest=None)
    try:
        spec = usable_spec(raw)
    except SpecError as error:
        return CheckPublic(valid=False, faults=_public(error), cheapest=_cheapest(raw))
    return CheckPublic(valid=True, faults=[], cheapest=_priced(spec))


def _public(error: SpecError) -> list[FaultPublic]:
    return [FaultPublic(path=fault.path, message=fault.message) for fault in error.faults]


def _cheapest(raw: Any) -> CheapestPublic | None:
    """The cheapest allocation of a spec with faults, where they leave it defined."""
    try:
        return _priced(StudySpec.model_validate(raw))
    except (ValidationError, ApportionError, KeyError):
        return None


def _priced(spec: StudySpec) -> CheapestPublic:
    cost = PlanCost(spec.pipeline, spec.budget.plan.unit, CostOptions.of(spec.budget.plan))
    allocation = cheapest_allocation(spec.pipeline, cost)
    return CheapestPublic(allocation=allocation.to_json(), predicted_cost=cost.allocation(allocation), unit=cost.unit)
