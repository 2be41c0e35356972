"""What Prometheus is told."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from api.observing.metrics import Metrics, MetricsError
from env.spans import ignore, observe, span
from planner import run_study
from planner.archive import open_archive
from tests.api.service import Service
from tests.simulated import DiceBackends, simulated_spec


def samples(text: str) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    """All samples by name and labels."""
    return {
        (s.name, frozenset(s.labels.items())): s.value
        for family in text_string_to_metric_families(text)
        for s in family.samples
    }


def value(text: str, name: str, **labels: str) -> float | None:
    return samples(text).get((name, frozenset(labels.items())))


def test_a_scrape_counts_requests_by_route_and_not_by_path(service: Service) -> None:
    for number in range(3):
        assert service.http.get(f"/api/v1/studies/unknown-{number}").status_code == 404
    answer = service.http.get("/metrics")
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    route = "/api/v1/studies/{study_id}"
    count = value(answer.text, "apportion_http_request_seconds_count", method="GET", route=route, status="404")
    assert count is not None
    assert count >= 3
    assert "unknown-1" not in answer.text
    assert value(answer.text, "apportion_http_requests_open") == 1.0  # the scrape itself


def test_a_refused_request_is_counted_too(service: Service) -> None:
    assert service.http.get("/api/v1/studies", headers={"host": "rebound.example"}).status_code == 421
    text = service.http.get("/metrics").text
    refused = value(text, "apportion_http_request_seconds_count", method="GET", route="unmatched", status="421")
    assert refused is not None
    assert refused >= 1


def test_every_answer_carries_a_request_id_and_a_usable_one_is_kept(service: Service) -> None:
    assert len(service.http.get("/healthz").headers["x-request-id"]) == 16
    assert service.http.get("/healthz", headers={"x-request-id": "trace-7.a"}).headers["x-request-id"] == "trace-7.a"
    forged = service.http.get("/healthz", headers={"x-request-id": "a b\tc"})
    assert forged.headers["x-request-id"] != "a b\tc"


def test_a_study_shows_in_the_totals_and_in_the_counters(tmp_path: Path) -> None:
    with open_archive(f"sqlite:///{tmp_path / 'archive.db'}") as archive:
        metrics = Metrics(archive)
        observe(metrics)
        try:
            asyncio.run(run_study(simulated_spec(), archive, "s1", {}, DiceBackends()))
        finally:
            ignore(metrics)
        text = metrics.text().decode()
        trials = len(archive.trials.list("s1", "search"))
        used = archive.ledgers.usage("s1", "search").settled
        judged = sum(v for (n, labels), v in samples(text).items() if n == "apportion_draws_total" and _judge(labels))
        drawn = sum(v for (n, _), v in samples(text).items() if n == "apportion_draws_total")
        tested = sum(t.spend.new_draws for t in archive.trials.list("s1", "test"))
    assert value(text, "apportion_studies", status="done") == 1.0
    assert value(text, "apportion_process_trials_total", split="search") == trials
    assert value(text, "apportion_trials", split="search", status="done") == trials
    assert value(text, "apportion_spent", ledger="search", unit="draws") == used
    assert drawn - judged == pytest.approx(used + tested)


def _judge(labels: frozenset[tuple[str, str]]) -> bool:
    return dict(labels)["model"] == "judge"


def test_scrapes_in_quick_succession_read_the_archive_once(tmp_path: Path) -> None:
    with open_archive(f"sqlite:///{tmp_path / 'archive.db'}") as archive:
        metrics = Metrics(archive)
        metrics.text()
        archive.studies.create("s1", "late", simulated_spec().model_dump(mode="json"), 0)
        assert value(metrics.text().decode(), "apportion_studies", status="queued") is None


def test_a_failed_call_is_counted_by_its_kind() -> None:
    metrics = Metrics()
    observe(metrics)
    try:
        with pytest.raises(TimeoutError), span("call", model="m", server="http://127.0.0.1:9/v1", retry=False):
            raise TimeoutError
    finally:
        ignore(metrics)
    assert value(metrics.text().decode(), "apportion_model_call_seconds_count", model="m", outcome="TimeoutError") == 1


def test_a_worker_answers_scrapes_and_says_when_its_port_is_taken() -> None:
    metrics = Metrics()
    port = metrics.answer_on("127.0.0.1", 0)
    deadline = time.monotonic() + 5
    text = ""
    while not text and time.monotonic() < deadline:
        text = httpx.get(f"http://127.0.0.1:{port}/metrics").text
    assert "process_cpu_seconds_total" in text
    with pytest.raises(MetricsError, match=f"port {port}"):
        Metrics().answer_on("127.0.0.1", port)
