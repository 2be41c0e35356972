"""Follows server-sent events, over lost connections too."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import httpx

from api.client.connection import FIRST_WAIT_S, Connection
from api.client.errors import Unreachable, error_of

SILENCE_S = 45.0
"""The service says that it lives every 15 seconds; after three of them the connection counts as lost."""

GIVE_UP_S = 60.0
"""How long a service may be away before its follower gives up."""


@dataclass(frozen=True)
class Event:
    """One thing that happened."""

    id: int
    kind: str
    """phase, proposal, progress, trial, guideline, plan, status...; `end` is the last one of a study."""

    data: dict[str, Any]


def follow(connection: Connection, path: str, after: int | None) -> Iterator[Event]:
    """Events of a stream; a lost connection is taken up again after the last event seen.

    Raises:
        ApiError: the service refused it.
        Unreachable: the service stayed away for a minute.
    """
    place, lost_at, waits = after, time.monotonic(), 0
    while True:
        headers = {} if place is None else {"Last-Event-ID": str(place)}
        try:
            timeout = httpx.Timeout(connection.http.timeout.connect, read=SILENCE_S)
            with connection.http.stream("GET", path, headers=headers, timeout=timeout) as response:
                if not response.is_success:
                    response.read()
                    if response.status_code != 503:
                        raise error_of(response)
                for event in _events(response) if response.is_success else ():
                    place, lost_at, waits = event.id, time.monotonic(), 0
                    yield event
                    if event.kind == "end":
                        return
        except httpx.TransportError as error:
            if time.monotonic() - lost_at > GIVE_UP_S:
                raise Unreachable(f"{connection.url} has not answered for {GIVE_UP_S:g} s: {error}") from error
        time.sleep(min(5.0, FIRST_WAIT_S * 2**waits))
        waits += 1


def _events(response: httpx.Response) -> Iterator[Event]:
    """Complete events only: one that was cut off comes again."""
    fields: dict[str, str] = {}
    for line in response.iter_lines():
        if line.startswith(":"):
            continue
        if line:
            name, _, value = line.partition(":")
            value = value.removeprefix(" ")
            fields[name] = f"{fields[name]}\n{value}" if name == "data" and name in fields else value
        elif "data" in fields:
            yield Event(int(fields.get("id") or 0), fields.get("event", "message"), json.loads(fields["data"]))
            fields = {}
        else:
            fields = {}
