"""The metrics of this process and the totals of its archive, for Prometheus."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response

from api.observing.metrics import CONTENT_TYPE, Metrics
from api.routes.spec_bodies import PROBLEMS

router = APIRouter(tags=["health"])


@router.get(
    "/metrics",
    responses={**PROBLEMS, 200: {"content": {"text/plain": {"schema": {"type": "string"}}}}},
    response_class=Response,
)
def metrics(request: Request) -> Response:
    """Metrics in the text format of Prometheus."""
    counted: Metrics = request.app.state.metrics
    return Response(counted.text(), media_type=CONTENT_TYPE)
