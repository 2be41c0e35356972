"""Prometheus metrics: of this process's requests and model calls, and of the archive when they are asked for."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest, start_http_server
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.gc_collector import GCCollector
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import Collector

from env.errors import ApportionError
from env.spans import Span
from planner.archive import Archive
from planner.archive.totals import ArchiveTotals

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
FRESH_SECONDS = 5.0
"""How long what was read from the archive answers further scrapes."""

_REQUEST_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
_CALL_BUCKETS = (0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0)


class MetricsError(ApportionError):
    """Metrics cannot be answered as asked."""


class Metrics:
    """The metrics of one process, and an observer of its spans."""

    def __init__(self, archive: Archive | None = None) -> None:
        """Start counting.

        Args:
            archive: whose totals are told too; None tells of this process only.
        """
        registry = CollectorRegistry()
        self._registry = registry
        ProcessCollector(registry=registry)
        GCCollector(registry=registry)
        self.requests = Histogram(
            "apportion_http_request_seconds",
            "Time from a request's first byte to its answer's last, by route and status; event streams are left out.",
            ("method", "route", "status"),
            registry=registry,
            buckets=_REQUEST_BUCKETS,
        )
        self.open_requests = Gauge(
            "apportion_http_requests_open", "Requests that are being answered.", registry=registry
        )
        self._calls = Histogram(
            "apportion_model_call_seconds",
            "Time of one HTTP request to a model server, by its outcome (ok, or the kind of the error).",
            ("model", "outcome"),
            registry=registry,
            buckets=_CALL_BUCKETS,
        )
        self._draws = Counter(
            "apportion_draws", "Draws that models made for this process.", ("model", "stage"), registry=registry
        )
        self._tokens = Counter("apportion_draw_tokens", "Tokens of these draws.", ("model", "kind"), registry=registry)
        self._failed = Counter(
            "apportion_draw_requests_failed", "Prompts whose draws failed for good.", ("model",), registry=registry
        )
        self._trials = Counter(
            "apportion_process_trials", "Trials that this process ran.", ("split",), registry=registry
        )
        self._llm = Counter("apportion_llm_tokens", "Tokens of the agent's LLM.", ("model", "kind"), registry=registry)
        if archive is not None:
            registry.register(_ArchiveCollector(archive))

    def text(self) -> bytes:
        """Everything in the text format of Prometheus; reads the archive, so not for the web loop.

        Raises:
            ArchiveError: the archive cannot be read.
        """
        return generate_latest(self._registry)

    def answer_on(self, host: str, port: int) -> int:
        """Answer scrapes in a thread of its own, for processes that serve nothing else.

        Returns:
            The port, for a `port` of 0 the one that was free.

        Raises:
            MetricsError: the port is taken.
        """
        try:
            server, _ = start_http_server(port, host, self._registry)
        except OSError as error:
            raise MetricsError(
                f"cannot answer Prometheus on {host} port {port}: {error.strerror or error}; set another "
                f"APPORTION_WORKER_METRICS_PORT"
            ) from error
        return int(server.server_port)

    @contextmanager
    def watching(self, span: Span) -> Iterator[None]:
        """See `env.spans.Observer`."""
        yield
        known = span.attributes
        model = str(known.get("model", ""))
        match span.name:
            case "call":
                self._calls.labels(model, span.error or "ok").observe(span.seconds)
            case "draws" if not span.error:
                self._draws.labels(model, str(known["stage"])).inc(_number(span, "draws"))
                self._tokens.labels(model, "prompt").inc(_number(span, "prompt_tokens"))
                self._tokens.labels(model, "output").inc(_number(span, "output_tokens"))
                self._failed.labels(model).inc(_number(span, "failed"))
            case "llm" if not span.error:
                self._llm.labels(model, "prompt").inc(_number(span, "prompt_tokens"))
                self._llm.labels(model, "output").inc(_number(span, "output_tokens"))
            case "trial" if not span.error:
                trials = known["trials"]
                self._trials.labels(str(known["split"])).inc(len(trials) if isinstance(trials, list) else 1)


class _ArchiveCollector(Collector):
    """Reads the archive's totals when they are scraped."""

    def __init__(self, archive: Archive) -> None:
        self._totals = ArchiveTotals(archive.engine)
        self._lock = threading.Lock()
        self._read_at = float("-inf")
        self._metrics: list[Metric] = []

    def describe(self) -> Iterable[Metric]:
        """Nothing: a description would read the archive when the collector is registered."""
        return ()

    def collect(self) -> Iterable[Metric]:
        """The totals, at most `FRESH_SECONDS` old."""
        with self._lock:
            if time.monotonic() - self._read_at > FRESH_SECONDS:
                self._metrics = list(self._read())
                self._read_at = time.monotonic()
            return list(self._metrics)

    def _read(self) -> Iterator[Metric]:
        totals = self._totals.read()
        studies = GaugeMetricFamily("apportion_studies", "Studies in the archive.", labels=["status"])
        for status, count in totals.studies.items():
            studies.add_metric([status], count)
        yield studies
        trials = GaugeMetricFamily("apportion_trials", "Trials in the archive.", labels=["split", "status"])
        for (split, status), count in totals.trials.items():
            trials.add_metric([split, status], count)
        yield trials
        spent = GaugeMetricFamily("apportion_spent", "What studies were charged.", labels=["ledger", "unit"])
        for (ledger, unit), amount in totals.spent.items():
            spent.add_metric([ledger, unit], amount)
        yield spent
        yield GaugeMetricFamily("apportion_workers", "Workers that were heard of lately.", totals.workers)
        yield GaugeMetricFamily(
            "apportion_oldest_queued_seconds", "Age of the study that has waited longest; 0 where none waits.",
            totals.oldest_queued_s,
        )  # fmt: skip


def _number(span: Span, name: str) -> float:
    value = span.attributes.get(name, 0)
    return float(value) if isinstance(value, int | float) else 0.0
