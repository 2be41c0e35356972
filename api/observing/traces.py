"""OpenTelemetry traces of studies: study > trial > stage > draws > call, off unless asked for."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from env.errors import ApportionError
from env.spans import Span, ignore, observe

if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.sdk.trace.export import SpanExporter

SERVICE_NAME = "apportion"


class TracesError(ApportionError):
    """Traces were asked for and cannot be sent."""


class Traces:
    """An observer that makes an OpenTelemetry span of each span."""

    def __init__(self, exporter: SpanExporter, version: str = "") -> None:
        """Begin.

        Args:
            exporter: where spans go, in batches from a thread of its own.
            version: of the service.
        """
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor

        resource = Resource.create({"service.name": SERVICE_NAME, "service.version": version})
        self._provider = TracerProvider(resource=resource)
        self._provider.add_span_processor(BatchSpanProcessor(exporter))
        self._tracer = self._provider.get_tracer("apportion")

    @contextmanager
    def watching(self, span: Span) -> Iterator[None]:
        """See `env.spans.Observer`."""
        from opentelemetry.trace import Status, StatusCode

        context = _study_context(str(span.attributes["study"])) if span.name == "study" else None
        with self._tracer.start_as_current_span(span.name, context) as told:
            yield
            told.set_attributes({f"apportion.{name}": value for name, value in span.attributes.items()})
            if span.error:
                told.set_status(Status(StatusCode.ERROR, span.error))

    def close(self) -> None:
        """Send what is left, for a few seconds at most."""
        self._provider.force_flush(timeout_millis=3000)
        self._provider.shutdown()


def send_traces(endpoint: str, version: str = "") -> Callable[[], None]:
    """Send the traces of this process to an OTLP collector over HTTP.

    Args:
        endpoint: for instance ``http://127.0.0.1:4318``; spans go to ``/v1/traces`` below it. Headers and time limits
            are read from OpenTelemetry's own environment variables.
        version: of the service.

    Returns:
        What ends it.

    Raises:
        TracesError: the extra ``[otel]`` is not installed.
    """
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    except ImportError as error:
        raise TracesError(f"traces need the extra otel: pip install 'apportion[otel]' ({error})") from error
    traces = Traces(OTLPSpanExporter(endpoint=f"{endpoint.rstrip('/')}/v1/traces"), version)
    observe(traces)

    def end() -> None:
        ignore(traces)
        traces.close()

    return end


def _study_context(study: str) -> Context:
    """A parent that gives all runs of one study one trace, also those in other workers and after a restart."""
    from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags, set_span_in_context

    digest = hashlib.sha256(f"apportion/{study}".encode()).digest()
    trace_id, span_id = int.from_bytes(digest[:16], "big"), int.from_bytes(digest[16:24], "big")
    return set_span_in_context(NonRecordingSpan(SpanContext(trace_id, span_id, True, TraceFlags(TraceFlags.SAMPLED))))
