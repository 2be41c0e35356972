"""Traces as a collector receives them."""

from __future__ import annotations

import asyncio
import gzip
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from api.observing.traces import send_traces
from planner import run_study
from planner.archive import open_archive
from tests.simulated import DiceBackends, simulated_spec


class Collector(BaseHTTPRequestHandler):
    """Takes OTLP over HTTP."""

    spans: list[Span]

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        if self.headers.get("content-encoding") == "gzip":
            body = gzip.decompress(body)
        if self.path == "/v1/traces":
            for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
                for scope in resource.scope_spans:
                    self.spans.extend(scope.spans)
        self.send_response(200)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None: ...


@contextmanager
def collector() -> Iterator[tuple[str, list[Span]]]:
    spans: list[Span] = []
    handler = type("Taking", (Collector,), {"spans": spans})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", spans
    finally:
        server.shutdown()
        server.server_close()


def named(spans: list[Span], name: str) -> list[Span]:
    return [s for s in spans if s.name == name]


def attribute(span: Span, name: str) -> object:
    for pair in span.attributes:
        if pair.key == f"apportion.{name}":
            kind = pair.value.WhichOneof("value")
            found = getattr(pair.value, kind)
            return [v.int_value for v in found.values] if kind == "array_value" else found
    return None


def test_a_study_is_one_trace_from_study_to_draws(tmp_path: Path) -> None:
    with collector() as (url, spans), open_archive(f"sqlite:///{tmp_path / 'archive.db'}") as archive:
        end = send_traces(url, "1.0")
        try:
            asyncio.run(run_study(simulated_spec(), archive, "s1", {}, DiceBackends()))
        finally:
            end()
        ran = {t.trial_no for t in archive.trials.list("s1", "search")}
    (study,) = named(spans, "study")
    assert attribute(study, "study") == "s1"
    assert {s.trace_id for s in spans} == {study.trace_id}
    trials = named(spans, "trial")
    assert {t.parent_span_id for t in trials} == {study.span_id}
    searched = [attribute(t, "trials") for t in trials if attribute(t, "split") == "search"]
    assert {n for numbers in searched if isinstance(numbers, list) for n in numbers} == ran
    stages = named(spans, "stage")
    assert {attribute(s, "stage") for s in stages} == {"find", "read", "solve"}
    assert {s.parent_span_id for s in stages} <= {t.span_id for t in trials}
    draws = named(spans, "draws")
    assert draws
    assert {d.parent_span_id for d in draws} <= {s.span_id for s in stages}


def test_a_resumed_study_goes_on_in_the_same_trace(tmp_path: Path) -> None:
    traces = set()
    for run in range(2):
        with collector() as (url, spans), open_archive(f"sqlite:///{tmp_path / f'{run}.db'}") as archive:
            end = send_traces(url)
            try:
                spec = simulated_spec(budget={"plan": {"limit": 6e12, "unit": "flops"}, "search": {"trials": 2}})
                asyncio.run(run_study(spec, archive, "s1", {}, DiceBackends()))
            finally:
                end()
        traces |= {s.trace_id for s in spans}
    assert len(traces) == 1


@pytest.mark.timeout(60)
def test_a_collector_that_is_gone_does_not_hold_up_a_study(tmp_path: Path) -> None:
    end = send_traces("http://127.0.0.1:9")
    try:
        with open_archive(f"sqlite:///{tmp_path / 'archive.db'}") as archive:
            spec = simulated_spec(budget={"plan": {"limit": 6e12, "unit": "flops"}, "search": {"trials": 2}})
            plan = asyncio.run(run_study(spec, archive, "s1", {}, DiceBackends()))
    finally:
        end()
    assert plan.search_score > 0
