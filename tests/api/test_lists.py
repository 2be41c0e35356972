"""Lists over HTTP: filters, search, cursors and their Link headers."""

from __future__ import annotations

import base64
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.api.service import Service, submit, tiny_spec


def every_item(service: Service, path: str, limit: int) -> list[dict[str, Any]]:
    """All items of a list, by following its Link headers."""
    items: list[dict[str, Any]] = []
    joint = "&" if "?" in path else "?"
    url: str | None = f"{path}{joint}limit={limit}"
    while url:
        answer = service.http.get(url)
        assert answer.status_code == 200, answer.text
        page = answer.json()
        assert len(page["items"]) <= limit
        items += page["items"]
        url = answer.links["next"]["url"] if "next" in answer.links else None
        assert (url is None) == (page["next"] is None)
    return items


@pytest.mark.parametrize("part", ["trials", "trials?split=search", "trials/1/examples", "proposals", "guidelines"])
def test_following_the_link_header_gives_the_whole_list_once(service: Service, finished: str, part: str) -> None:
    path = f"/api/v1/studies/{finished}/{part}"
    whole = service.http.get(f"{path}{'&' if '?' in path else '?'}limit=200").json()["items"]
    assert len(whole) > 2
    assert every_item(service, path, 2) == whole


def test_ledger_entries_are_listed_and_summed(service: Service, finished: str) -> None:
    base = f"/api/v1/studies/{finished}/ledgers"
    entries = every_item(service, f"{base}/entries?ledger=search", 1)
    sums = {line["ledger"]: line for line in service.http.get(base).json()}
    assert sum(entry["settled"] for entry in entries) == sums["search"]["settled"] > 0


def test_studies_are_filtered_and_searched(service: Service) -> None:
    one = submit(service, tiny_spec(name="filtered-one"))
    two = submit(service, tiny_spec(name="filtered-two"))
    service.http.put(f"/api/v1/studies/{one}/notes", json={"notes": "Walrus"}, headers={"if-match": "*"})
    made = service.http.get(f"/api/v1/studies/{two}").json()

    def found(**query: Any) -> list[str]:
        answer = service.http.get("/api/v1/studies", params={"name": "filtered", **query})
        assert answer.status_code == 200, answer.text
        return [study["id"] for study in answer.json()["items"]]

    assert found() == [two, one]
    assert found(q="walrus") == [one]
    assert found(q=f"walrus {two}") == []
    assert found(q=two[:9]) == [two]
    assert found(created_from=made["created_at"]) == [two]
    assert found(created_before=made["created_at"]) == [one]
    assert found(schedule="none") == []
    assert found(pipeline=made["pipeline"]) == [two, one]
    assert found(status=["failed", "cancelled"]) == []


@pytest.mark.parametrize(
    "cursor",
    ["x", "eyJ9", base64.urlsafe_b64encode(b'["2026-01-01T00:00:00", "a"]').decode(), "W10", "WzEsMl0"],
    ids=["no-base64", "no-json", "no-time-zone", "empty", "other-types"],
)
def test_a_cursor_of_another_list_is_a_fault_of_that_parameter(service: Service, cursor: str) -> None:
    answer = service.http.get("/api/v1/studies", params={"cursor": cursor})
    assert answer.status_code == 422
    assert [fault["path"] for fault in answer.json()["faults"]] == ["query.cursor"]


@pytest.mark.parametrize("query", ["limit=201", "q=%00", "created_from=2026-01-01T00:00:00", "status=done&status=no"])
def test_limits_of_a_list_are_faults(service: Service, query: str) -> None:
    assert service.http.get(f"/api/v1/studies?{query}").status_code == 422


def test_a_moment_beyond_the_calendar_is_a_fault(service: Service) -> None:
    answer = service.http.get("/api/v1/studies", params={"created_from": "0001-01-01T00:00:00+14:00"})
    assert answer.status_code == 422


def test_one_key_sent_by_many_at_once_queues_one_study(service: Service) -> None:
    def post(number: int) -> str:
        headers = {"idempotency-key": "all-at-once"}
        answer = service.http.post("/api/v1/studies", json=tiny_spec(name="raced"), headers=headers)
        assert answer.status_code == 201, answer.text
        return str(answer.json()["id"])

    with ThreadPoolExecutor(8) as crowd:
        assert len(set(crowd.map(post, range(8)))) == 1
    assert len(service.http.get("/api/v1/studies", params={"name": "raced"}).json()["items"]) == 1
