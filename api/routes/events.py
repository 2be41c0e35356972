"""The live events of a study as server-sent events."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from typing import Annotated

from fastapi import APIRouter, Header, Query
from sse_starlette import EventSourceResponse, ServerSentEvent

from api.dependencies import ArchiveDep, StudyDep
from api.routes.spec_bodies import NOT_FOUND, PROBLEMS
from planner.archive import Archive, EventRecord
from planner.archive.statuses import TERMINAL

router = APIRouter(prefix="/studies", tags=["studies"], responses=PROBLEMS)

POLL_SECONDS = 0.4
LINGER_SECONDS = 2.0
"""How long a stream waits for the last events of a study that has ended."""

BATCH = 200


@router.get(
    "/{study_id}/events",
    response_class=EventSourceResponse,
    responses={**NOT_FOUND, 200: {"content": {"text/event-stream": {"schema": {"type": "string"}}}}},
)
async def events(
    study: StudyDep,
    archive: ArchiveDep,
    last_event_id: Annotated[int | None, Header(ge=0, description="Go on after this event.")] = None,
    after: Annotated[int, Query(ge=0, description="The same, for a first connection.")] = 0,
) -> EventSourceResponse:
    """Everything that happens in a study as it happens: phase, proposal, progress, trial, guideline, plan, status.

    The event `end` says that the study has ended and nothing follows.
    """
    start = after if last_event_id is None else last_event_id
    headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
    return EventSourceResponse(stream(archive, study.id, start), ping=15, headers=headers, send_timeout=30)


async def stream(archive: Archive, study_id: str, last_id: int) -> AsyncIterator[ServerSentEvent]:
    """A study's events after `last_id` until it has ended; the archive is read on threads."""
    ended_at: float | None = None
    while True:
        records = await asyncio.to_thread(archive.events.after, study_id, last_id, BATCH)
        for record in records:
            last_id = record.id
            yield _event(record)
        if any(r.kind == "status" and r.payload.get("status") in TERMINAL for r in records):
            break
        if len(records) == BATCH:
            continue
        if ended_at is not None and time.monotonic() - ended_at > LINGER_SECONDS:
            break
        status = (await asyncio.to_thread(archive.studies.get, study_id)).status
        if status in TERMINAL and ended_at is None:
            ended_at = time.monotonic()
        await asyncio.sleep(POLL_SECONDS)
    study = await asyncio.to_thread(archive.studies.get, study_id)
    yield ServerSentEvent(json.dumps({"status": study.status, "error": study.error}), event="end", id=str(last_id))


def _event(record: EventRecord) -> ServerSentEvent:
    data = {**record.payload, "at": record.created_at.isoformat()}
    return ServerSentEvent(json.dumps(data, ensure_ascii=False), event=record.kind, id=str(record.id))
