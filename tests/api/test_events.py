"""Server-sent events of a study."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from api.routes import events
from tests.api.service import Service, ended, submit, tiny_spec


def read_events(service: Service, path: str, headers: dict[str, str] | None = None) -> Iterator[tuple[int, str, Any]]:
    with service.http.stream("GET", path, headers=headers) as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        event: dict[str, str] = {}
        for line in answer.iter_lines():
            if line:
                key, _, value = line.partition(": ")
                event[key] = value
            elif "data" in event:
                yield int(event["id"]), event["event"], json.loads(event["data"])
                event = {}


def test_a_study_is_followed_from_its_start_to_its_end(service: Service) -> None:
    study = submit(service, tiny_spec(name="followed"))
    seen = list(read_events(service, f"/api/v1/studies/{study}/events"))
    kinds = [kind for _, kind, _ in seen]
    assert {"phase", "proposal", "trial", "guideline", "plan", "status"} <= set(kinds)
    assert kinds[-1] == "end"
    assert seen[-1][2]["status"] == "done"
    ids = [number for number, kind, _ in seen if kind != "end"]
    assert ids == sorted(set(ids))


def test_a_lost_connection_goes_on_after_the_last_event_seen(service: Service, finished: str) -> None:
    path = f"/api/v1/studies/{finished}/events"
    everything = list(read_events(service, path))
    middle = everything[len(everything) // 2][0]
    rest = list(read_events(service, path, {"last-event-id": str(middle)}))
    assert rest == [event for event in everything if event[0] > middle or event[1] == "end"]
    assert list(read_events(service, f"{path}?after={middle}")) == rest


def test_a_study_that_is_over_ends_the_stream(service: Service, finished: str) -> None:
    last = list(read_events(service, f"/api/v1/studies/{finished}/events"))[-1][0]
    assert [e[1] for e in read_events(service, f"/api/v1/studies/{finished}/events?after={last}")] == ["end"]


def test_the_stream_of_all_studies_tells_of_each_and_goes_on_after_a_lost_connection(service: Service) -> None:
    start = service.runtime.archive.events.newest()
    first, second = (submit(service, tiny_spec(name=f"watched-{n}", seed=900 + n)) for n in range(2))
    ended(service, first)
    ended(service, second)
    wanted = {
        record.id
        for study in (first, second)
        for record in service.runtime.archive.events.after(study, 0, 10_000)
        if record.kind in ("phase", "trial", "plan", "status")
    }
    seen: dict[int, str] = {}
    place = start
    for enough in (len(wanted) // 2, 0):  # the first connection is lost; the next goes on where it told it to
        for number, kind, data in read_events(service, "/api/v1/events", {"last-event-id": str(place)}):
            assert kind in ("phase", "trial", "plan", "status")
            seen[data["event"]] = data["study"]
            place = number
            if len(wanted - seen.keys()) <= enough:
                break
    assert wanted <= seen.keys()
    assert {first, second} <= set(seen.values())


def test_a_quiet_stream_still_says_that_it_lives(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events, "PING_SECONDS", 1)
    with service.http.stream("GET", "/api/v1/events") as answer:
        assert next(line for line in answer.iter_lines() if line).startswith(": ping")
