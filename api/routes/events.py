"""The live events of a study as server-sent events."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Mapping
from typing import Annotated, Any

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
PING_SECONDS = 15
"""A comment goes out as often, so that proxies keep the connection and a lost one is noticed."""

OVERLAP_SECONDS = 10.0
"""How much later an event of another study may become visible than one with a higher id."""

ALL_KINDS = ("phase", "trial", "plan", "status")
"""Of the stream over all studies, which a list of them needs."""

MAX_ID = 2**63 - 1
HEADERS = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}


@router.get(
    "/{study_id}/events",
    response_class=EventSourceResponse,
    responses={**NOT_FOUND, 200: {"content": {"text/event-stream": {}}}},
)
async def events(
    study: StudyDep,
    archive: ArchiveDep,
    last_event_id: Annotated[int | None, Header(ge=0, le=MAX_ID, description="Go on after this event.")] = None,
    after: Annotated[int, Query(ge=0, le=MAX_ID, description="The same, for a first connection.")] = 0,
) -> EventSourceResponse:
    """Everything that happens in a study as it happens: phase, proposal, progress, trial, guideline, plan, status.

    The event `end` says that the study has ended and nothing follows.
    """
    start = after if last_event_id is None else last_event_id
    return EventSourceResponse(stream(archive, study.id, start), ping=PING_SECONDS, headers=HEADERS, send_timeout=30)


everything = APIRouter(prefix="/events", tags=["studies"], responses=PROBLEMS)


@everything.get(
    "",
    response_class=EventSourceResponse,
    responses={200: {"content": {"text/event-stream": {}}}},
)
async def all_events(
    archive: ArchiveDep,
    last_event_id: Annotated[int | None, Header(ge=0, le=MAX_ID, description="Go on after this event.")] = None,
    after: Annotated[int | None, Query(ge=0, le=MAX_ID, description="The same, for a first connection.")] = None,
) -> EventSourceResponse:
    """What happens in all studies from now on: phase, trial, plan, status; each with its study's id. It never ends.

    An event may come twice after a lost connection, and none is left out: `event` is its number.
    """
    start = after if last_event_id is None else last_event_id
    return EventSourceResponse(stream_all(archive, start), ping=PING_SECONDS, headers=HEADERS, send_timeout=30)


async def stream_all(archive: Archive, start: int | None) -> AsyncIterator[ServerSentEvent]:
    """Events of all studies after `start`, or from now on; the archive is read on threads.

    Studies commit side by side, so that an event may become visible after one with a higher id. Each look therefore
    goes back over the last `OVERLAP_SECONDS` and leaves out what was sent; ids of the stream name a place before which
    nothing can still come in.
    """
    floor = await asyncio.to_thread(archive.events.newest) if start is None else start
    sent: dict[int, float] = {}
    while True:
        now, above, full = time.monotonic(), floor, True
        while full:
            records = await asyncio.to_thread(archive.events.of_all, above, BATCH, ALL_KINDS)
            full = len(records) == BATCH
            for record in records:
                above = record.id
                if record.id not in sent:
                    sent[record.id] = now
                    data = {**record.payload, "study": record.study_id, "event": record.id}
                    yield _event(record, data, floor)
        for number in sorted(sent):
            if now - sent[number] < OVERLAP_SECONDS:
                break
            floor = max(floor, number)
            del sent[number]
        await asyncio.sleep(POLL_SECONDS)


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


def _event(record: EventRecord, payload: Mapping[str, Any] | None = None, id: int | None = None) -> ServerSentEvent:
    data = {**(payload or record.payload), "at": record.created_at.isoformat()}
    return ServerSentEvent(json.dumps(data), event=record.kind, id=str(record.id if id is None else id))
