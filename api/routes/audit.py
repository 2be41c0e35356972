"""The audit log: who changed what. For admins."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

from fastapi import APIRouter, Query

from api.dependencies import ArchiveDep
from api.routes.spec_bodies import PROBLEMS
from api.schemas.audit import AuditEntry, AuditPage

router = APIRouter(prefix="/audit", tags=["service"], responses=PROBLEMS)

Word = Annotated[str | None, Query(max_length=300)]


@router.get("")
def list_audit(
    archive: ArchiveDep,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
    before: Annotated[int | None, Query(ge=1, le=2**62, description="Id of the last entry of the page before.")] = None,
    who: Word = None,
    kind: Word = None,
    result: Word = None,
) -> AuditPage:
    """List the changes that were asked for, newest first."""
    wanted = {name: value for name, value in (("who", who), ("kind", kind), ("result", result)) if value is not None}
    found = archive.audit.list(limit + 1, before, wanted)
    following = found[limit - 1].id if len(found) > limit else None
    return AuditPage(entries=[AuditEntry(**asdict(one)) for one in found[:limit]], next_before=following)
