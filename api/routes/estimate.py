"""What a spec is expected to spend, before it runs."""

from __future__ import annotations

from dataclasses import asdict

from fastapi import APIRouter

from api.bodies import usable_spec
from api.dependencies import ArchiveDep
from api.routes.spec_bodies import PROBLEMS, SPEC_BODY, RawSpecDep
from api.schemas import EstimatePublic
from planner.forecast import forecast
from planner.rates import measured_rates

router = APIRouter(prefix="/estimate", tags=["spec"])


@router.post("", openapi_extra=SPEC_BODY, responses=PROBLEMS)
def estimate(body: RawSpecDep, archive: ArchiveDep) -> EstimatePublic:
    """Forecast what a study would spend by ledger, and which limit would end its search; nothing is queued."""
    spec = usable_spec(body.read())
    return EstimatePublic.model_validate(asdict(forecast(spec, measured_rates(archive, spec))))
