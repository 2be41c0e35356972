"""The HTTP client below the openai client, set up for many small requests at once to one server."""

from __future__ import annotations

import urllib.request
from collections.abc import AsyncIterator
from urllib.parse import urlsplit

import httpx2

_IDLE_S = 4.0
"""A connection idle for longer is not used again: vLLM and others close theirs after 5 s, perhaps at that moment."""


class LaneTransport(httpx2.AsyncBaseTransport):
    """A pool of its own for each request in flight, so that no request looks through the others' connections.

    The usual pool checks every connection, sockets included, before and after each request. With 64 requests in flight
    that took a quarter of the client's time. Lanes are opened when needed and used last in, first out; whoever sends
    bounds their number.
    """

    def __init__(self) -> None:
        """Nothing is opened yet."""
        self._certificates = httpx2.create_ssl_context()
        self._lanes: list[httpx2.AsyncHTTPTransport] = []
        self._free: list[httpx2.AsyncHTTPTransport] = []

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        """Send a request on a free lane, which is taken until the reply's body is read or closed."""
        lane = self._free.pop() if self._free else self._open()
        try:
            response = await lane.handle_async_request(request)
        except BaseException:
            self._free.append(lane)
            raise
        assert isinstance(response.stream, httpx2.AsyncByteStream)
        response.stream = _LaneStream(response.stream, lane, self._free)
        return response

    async def aclose(self) -> None:
        """Close all connections."""
        lanes, self._lanes, self._free = self._lanes, [], []
        for lane in lanes:
            await lane.aclose()

    def _open(self) -> httpx2.AsyncHTTPTransport:
        limits = httpx2.Limits(max_connections=None, max_keepalive_connections=1, keepalive_expiry=_IDLE_S)
        lane = httpx2.AsyncHTTPTransport(verify=self._certificates, limits=limits)
        self._lanes.append(lane)
        return lane


class _LaneStream(httpx2.AsyncByteStream):
    """A reply's body; its end frees the lane."""

    def __init__(
        self, body: httpx2.AsyncByteStream, lane: httpx2.AsyncHTTPTransport, free: list[httpx2.AsyncHTTPTransport]
    ) -> None:
        self._body = body
        self._lane: httpx2.AsyncHTTPTransport | None = lane
        self._free = free

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async for part in self._body:
            yield part

    async def aclose(self) -> None:
        try:
            await self._body.aclose()
        finally:
            if self._lane is not None:
                self._free.append(self._lane)
                self._lane = None


def open_http_client(base_url: str, concurrency: int, timeout_s: float) -> httpx2.AsyncClient:
    """The client for one server; by way of the environment's proxy where one is set for it.

    Args:
        base_url: the server.
        concurrency: most requests in flight.
        timeout_s: a second net: whoever sends keeps the time itself.
    """
    parts = urlsplit(base_url)
    proxied = parts.scheme in urllib.request.getproxies() or "all" in urllib.request.getproxies()
    if proxied and not urllib.request.proxy_bypass(parts.netloc.rpartition("@")[2]):
        limits = httpx2.Limits(max_connections=concurrency, max_keepalive_connections=concurrency)
        return httpx2.AsyncClient(limits=limits, timeout=timeout_s, follow_redirects=True)
    return httpx2.AsyncClient(transport=LaneTransport(), timeout=timeout_s, follow_redirects=True)
