"""Counts, times and logs every request, and gives each an id that its log records and its answer carry."""

from __future__ import annotations

import logging
import re
import time
import uuid

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.observing.logs import about
from api.observing.metrics import Metrics

log = logging.getLogger("apportion.requests")

REQUEST_ID = "X-Request-ID"
_USABLE_ID = re.compile(r"[A-Za-z0-9_.-]{1,64}")
_QUIET = frozenset({"/healthz", "/readyz", "/metrics"})
"""Asked every few seconds by machines; logged only when they fail."""


class ObservedRequests:
    """ASGI middleware around everything else, so that refused requests are seen too."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request and say what became of it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        given = Headers(scope=scope).get(REQUEST_ID, "")
        identity = given if _USABLE_ID.fullmatch(given) else uuid.uuid4().hex[:16]
        status, streamed, started = 500, False, time.monotonic()

        async def noted(message: Message) -> None:
            nonlocal status, streamed
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = MutableHeaders(scope=message)
                headers.setdefault(REQUEST_ID, identity)
                streamed = headers.get("content-type", "").startswith("text/event-stream")
            await send(message)

        with self._metrics.open_requests.track_inprogress(), about(request=identity):
            try:
                await self._app(scope, receive, noted)
            finally:
                seconds = time.monotonic() - started
                route = _route(scope)
                if not streamed:
                    self._metrics.requests.labels(scope["method"], route, str(status)).observe(seconds)
                level = logging.WARNING if status >= 500 else logging.INFO
                if status >= 500 or scope["path"] not in _QUIET:
                    log.log(
                        level,
                        "%s %s %d",
                        scope["method"],
                        scope["path"],
                        status,
                        extra={"route": route, "status": status, "milliseconds": round(seconds * 1000, 1)},
                    )


def _route(scope: Scope) -> str:
    """The route's pattern, never the path: a label of a metric must not take a value for every study."""
    route = scope.get("route")
    return str(getattr(route, "path", "")) or "unmatched"
