"""Whether the process answers, and whether its archive does."""

from __future__ import annotations

from fastapi import APIRouter

from api.dependencies import ArchiveDep
from api.routes.spec_bodies import PROBLEMS
from api.schemas import HealthPublic

router = APIRouter(tags=["health"])


@router.get("/healthz")
async def healthz() -> HealthPublic:
    """The process answers; asks nothing else."""
    return HealthPublic()


@router.get("/readyz", responses=PROBLEMS)
def readyz(archive: ArchiveDep) -> HealthPublic:
    """The archive can be read."""
    archive.studies.list(limit=1, specs=False)
    return HealthPublic()
