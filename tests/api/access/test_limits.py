"""Rates and open streams: who is held back, for how long, and who is not."""

from __future__ import annotations

from collections.abc import Callable

import httpx
import pytest

from api.access.limits import OpenStreams, Rate, RateLimiter
from api.access.policy import AccessPolicy
from api.settings import Settings
from planner.archive import AccessScope
from tests.api.service import Service, long_spec, served, submit


def test_a_bucket_empties_and_fills_again() -> None:
    now = [100.0]
    limiter = RateLimiter(Rate(per_minute=60, burst=3), lambda: now[0])
    assert [limiter.wait_for("a") for _ in range(3)] == [0, 0, 0]
    assert limiter.wait_for("a") == pytest.approx(1.0)
    assert limiter.wait_for("b") == 0, "another caller has a bucket of its own"
    now[0] += 1.0
    assert limiter.wait_for("a") == 0
    assert limiter.wait_for("a") > 0
    now[0] += 3600
    assert [limiter.wait_for("a") for _ in range(4)][:3] == [0, 0, 0]


def test_a_flood_of_callers_takes_no_memory() -> None:
    limiter = RateLimiter(Rate(60, 1), lambda: 0.0)
    for number in range(20_000):
        limiter.wait_for(str(number))
    assert len(limiter._buckets) == 10_000


def test_a_token_that_asks_too_much_waits_and_others_do_not(
    service: Service, token: Callable[[AccessScope], str]
) -> None:
    policy = AccessPolicy(tokens_needed=True, rate=Rate(60, 5), nobodys_rate=Rate(60, 3))
    with served(service.runtime, policy) as limited:
        busy, calm = ({"authorization": f"Bearer {token('read')}"} for _ in range(2))
        statuses = [limited.http.get("/readyz", headers=busy).status_code for _ in range(6)]
        assert statuses == [200] * 5 + [429]
        refused = limited.http.get("/readyz", headers=busy)
        assert int(refused.headers["retry-after"]) == 1
        assert refused.headers["content-type"] == "application/problem+json"
        assert limited.http.get("/readyz", headers=calm).status_code == 200
        wrong = {"authorization": "Bearer apt_guess"}
        guesses = [limited.http.get("/readyz", headers=wrong).status_code for _ in range(4)]
        assert guesses == [401, 401, 401, 429], "each address may guess only so often"
        assert limited.http.get("/healthz").status_code == 200
        assert limited.http.get("/readyz", headers=calm).status_code == 200


def test_limits_are_on_where_others_can_ask() -> None:
    open_to_others = AccessPolicy.of(Settings(host="0.0.0.0", requests_per_minute=120, request_burst=9))
    assert open_to_others.rate == Rate(120, 9)
    assert open_to_others.nobodys_rate is not None
    assert AccessPolicy.of(Settings()).rate is None
    assert AccessPolicy.of(Settings(host="0.0.0.0", requests_per_minute=0)).rate is None


def test_streams_are_counted_by_caller_and_together() -> None:
    streams = OpenStreams(most=3, most_each=2)
    assert [streams.enter(name) for name in ("a", "a", "a", "b", "b")] == [True, True, False, True, False]
    streams.leave("a")
    assert streams.enter("b")


def test_event_streams_are_bounded_and_free_again_when_closed(service: Service) -> None:
    study = submit(service, long_spec())
    path = f"/api/v1/studies/{study}/events"
    with served(service.runtime, AccessPolicy(streams=2, streams_each=2)) as bounded:
        with (
            httpx.Client(base_url=bounded.url, timeout=20) as other,
            bounded.http.stream("GET", path) as one,
            other.stream("GET", path) as two,
        ):
            assert (one.status_code, two.status_code) == (200, 200)
            third = httpx.get(bounded.url + path)
            assert third.status_code == 429
            assert int(third.headers["retry-after"]) > 0
        statuses = set()
        for _ in range(100):
            with bounded.http.stream("GET", path) as again:
                statuses.add(again.status_code)
            if 200 in statuses:
                break
        assert 200 in statuses
    service.http.post(f"/api/v1/studies/{study}/cancel")
