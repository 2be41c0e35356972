"""Whether the process answers, and whether it is ready to work."""

from __future__ import annotations

from fastapi import APIRouter

from api.dependencies import RuntimeDep
from api.problems import Refused
from api.routes.spec_bodies import PROBLEMS
from api.schemas import HealthPublic

router = APIRouter(tags=["health"])


@router.get("/healthz")
async def healthz() -> HealthPublic:
    """The process answers; asks nothing else."""
    return HealthPublic()


@router.get("/readyz", responses=PROBLEMS)
def readyz(runtime: RuntimeDep) -> HealthPublic:
    """The process takes requests: it is not stopping, and its archive can be read."""
    if runtime.stopping:
        raise Refused(503, "the service is stopping; ask another one, or this one again in a while")
    runtime.archive.studies.list(limit=1, specs=False)
    if runtime.trouble:
        raise Refused(503, "; ".join(f"study {name} waits: {why}" for name, why in sorted(runtime.trouble.items())))
    return HealthPublic()
