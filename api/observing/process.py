"""Sets a process up to be observed: its logs, its metrics and, where asked for, its traces."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from importlib.metadata import PackageNotFoundError, version

from api.observing.logs import LoggedStudies, configure_logs
from api.observing.metrics import Metrics
from api.observing.traces import send_traces
from api.settings import Settings
from env.spans import Observer, ignore, observe
from planner.archive import Archive


@contextmanager
def observed_process(settings: Settings, archive: Archive | None = None) -> Iterator[Metrics]:
    """Configure logs, count what the process does and send traces until the block ends.

    Args:
        settings: says how to log and where traces go.
        archive: whose totals the metrics tell.

    Raises:
        TracesError: traces were asked for without the extra ``[otel]``.
    """
    configure_logs(settings.log_format, settings.log_level)
    metrics = Metrics(archive)
    with ExitStack() as stack:
        if settings.otlp_endpoint:
            stack.callback(send_traces(settings.otlp_endpoint, apportion_version()))
        observers: tuple[Observer, ...] = (LoggedStudies(), metrics)
        for observer in observers:
            observe(observer)
            stack.callback(ignore, observer)
        yield metrics


def apportion_version() -> str:
    """The installed version; ``0`` where the package is not installed."""
    try:
        return version("apportion")
    except PackageNotFoundError:
        return "0"
