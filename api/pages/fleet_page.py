"""The fleet: model servers of this machine, and who runs studies."""

from __future__ import annotations

import os
from functools import lru_cache
from pathlib import Path
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse

from api.dependencies import ArchiveDep
from api.pages.rendering import render
from api.routes.models import get_fleet
from env.errors import ApportionError
from env.fleet import load_fleet
from env.fleet.load import FLEET_VARIABLE
from env.fleet.planning import plan_of
from planner.archive.sessions import utc_now
from planner.archive.totals import LIVE_SECONDS, ArchiveTotals

router = APIRouter(include_in_schema=False)


@router.get("/fleet")
def fleet_page(request: Request, archive: ArchiveDep) -> HTMLResponse:
    """Servers, their models and state; workers and what waits for them."""
    now = utc_now()
    workers = [(worker, max(0.0, (now - worker.last_beat).total_seconds())) for worker in archive.workers.list()]
    sizes, note = _sizes()
    return render(
        request,
        "fleet.html",
        fleet=get_fleet(),
        sizes=sizes,
        sizes_note=note,
        workers=sorted(workers, key=lambda pair: pair[1]),
        live_s=LIVE_SECONDS,
        totals=ArchiveTotals(archive.engine).read(),
    )


def _sizes() -> tuple[dict[str, Any], str]:
    """What `apportion fleet plan` says of each model's memory, by model; and why it says nothing."""
    path = os.environ.get(FLEET_VARIABLE)
    if not path:
        return {}, ""
    try:
        return _planned(path, os.stat(path).st_mtime_ns), ""
    except (ApportionError, OSError) as error:
        return {}, str(error)


@lru_cache(maxsize=4)
def _planned(path: str, changed: int) -> dict[str, Any]:
    """Planning asks the devices and the engine, which takes longer than a page may."""
    return {str(row["model"]): row for row in plan_of(load_fleet(Path(path)), [])["models"]}
