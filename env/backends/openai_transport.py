"""The HTTP client below the openai client, set up for many small requests at once to one server."""

from __future__ import annotations

import asyncio
import socket
import ssl
import urllib.request
from urllib.parse import urlsplit

import httpx2

from env.backends.openai_connection import Connection
from env.egress import Egress, EgressError

_IDLE_S = 4.0
"""A connection idle for longer is not used again: vLLM and others close theirs after 5 s, perhaps at that moment."""

_LOOKUP_LEAD_S = 0.25
"""How long one address of a name is tried before the next is tried beside it (RFC 8305)."""

_Origin = tuple[str, str, int]


class DirectTransport(httpx2.AsyncBaseTransport):
    """HTTP/1.1 on asyncio's own connections, one request at a time on each; replies are read whole.

    The usual transport looks through its pool before and after each request, sets timers around every read and write,
    and hands each chunk up through ten layers: of the client's time on a small request it took half. This one keeps
    what such requests need. It sets no time limit and no bound on connections: whoever sends does both. Connections
    are opened when needed and used last in, first out.
    """

    def __init__(self, egress: Egress | None = None) -> None:
        """Nothing is opened yet.

        Args:
            egress: which addresses may be reached, where redirects lead included; any where None.
        """
        self._egress = egress
        self._certificates: ssl.SSLContext | None = None
        self._open: set[Connection] = set()
        self._free: dict[_Origin, list[Connection]] = {}

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        """Send a request and read its whole reply; cancelling closes the connection.

        Raises:
            httpx2.TransportError: no connection, one that was lost, or a reply that is no HTTP.
        """
        url = request.url
        origin = (url.scheme, url.raw_host.decode("ascii"), url.port or (443 if url.scheme == "https" else 80))
        connection = self._take(origin) or await self._connected(origin)
        try:
            return await connection.exchange(request)
        finally:
            if connection.usable:
                self._free.setdefault(origin, []).append(connection)

    async def aclose(self) -> None:
        """Close all connections."""
        for connection in list(self._open):
            connection.abort()
        self._free.clear()
        await asyncio.sleep(0)  # sockets are closed by the event loop's next round

    def _take(self, origin: _Origin) -> Connection | None:
        """A connection that waits and was used a moment ago."""
        waiting = self._free.get(origin)
        while waiting:
            connection = waiting.pop()
            if connection.usable and connection.idle_s < _IDLE_S:
                return connection
            connection.abort()
        return None

    async def _connected(self, origin: _Origin) -> Connection:
        scheme, host, port = origin
        await self._check(host, port)
        secure = self._context() if scheme == "https" else None
        try:
            transport, connection = await asyncio.get_running_loop().create_connection(
                lambda: Connection(self._open),
                host,
                port,
                ssl=secure,
                server_hostname=host if secure else None,
                happy_eyeballs_delay=_LOOKUP_LEAD_S,
            )
        except OSError as error:
            raise httpx2.ConnectError(str(error)) from error
        if self._egress is not None:
            # The name may have led elsewhere this time (DNS rebinding); nothing has been sent yet.
            try:
                self._egress.check_address(host, transport.get_extra_info("peername")[0])
            except EgressError as error:
                connection.abort()
                raise httpx2.ConnectError(str(error)) from error
        return connection

    async def _check(self, host: str, port: int) -> None:
        """Look where a name leads before anything is connected to."""
        if self._egress is None:
            return
        try:
            await asyncio.to_thread(self._egress.check_host, host, port)
        except EgressError as error:
            raise httpx2.ConnectError(str(error)) from error

    def _context(self) -> ssl.SSLContext:
        if self._certificates is None:
            self._certificates = httpx2.create_ssl_context()
            self._certificates.set_alpn_protocols(["http/1.1"])
        return self._certificates


class StreamingTransport(httpx2.AsyncHTTPTransport):
    """The usual transport, which hands replies on while they come, to addresses that were checked before."""

    def __init__(self, egress: Egress | None = None) -> None:
        """Nothing is opened yet.

        Args:
            egress: which addresses may be reached, where redirects lead included; any where None.
        """
        super().__init__(trust_env=False)
        self._egress = egress

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        """Send a request.

        Raises:
            httpx2.TransportError: no connection, or one that was lost.
        """
        if self._egress is not None:
            request = await self._pinned(request, self._egress)
        return await super().handle_async_request(request)

    async def _pinned(self, request: httpx2.Request, egress: Egress) -> httpx2.Request:
        """The request to the very address that was checked: a name may lead elsewhere the next time it is looked up."""
        host, port = request.url.host, request.url.port or (443 if request.url.scheme == "https" else 80)
        try:
            await asyncio.to_thread(egress.check_host, host, port)
            found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
            for *_, place in found:
                egress.check_address(host, str(place[0]))
        except (EgressError, OSError) as error:
            raise httpx2.ConnectError(str(error)) from error
        address = str(found[0][-1][0])
        named = {**request.extensions, "sni_hostname": host}
        return httpx2.Request(
            request.method,
            request.url.copy_with(host=address),
            headers=request.headers,
            stream=request.stream,
            extensions=named,
        )


def open_http_client(
    base_url: str, concurrency: int, timeout_s: float, egress: Egress | None = None, streams: bool = False
) -> httpx2.AsyncClient:
    """The client for one server; by way of the environment's proxy where one is set for it.

    Args:
        base_url: the server.
        concurrency: most requests in flight.
        timeout_s: a second net by way of a proxy: whoever sends keeps the time itself.
        egress: which addresses may be reached; any where None. By way of a proxy only the names can be checked, as it
            is the proxy that connects.
        streams: replies are read while they come; `DirectTransport` reads them whole.
    """

    async def check(request: httpx2.Request) -> None:
        if egress is not None:
            try:
                await asyncio.to_thread(egress.check_host, request.url.host, request.url.port or 0)
            except EgressError as error:
                raise httpx2.ConnectError(str(error)) from error

    parts = urlsplit(base_url)
    proxied = parts.scheme in urllib.request.getproxies() or "all" in urllib.request.getproxies()
    if proxied and not urllib.request.proxy_bypass(parts.netloc.rpartition("@")[2]):
        limits = httpx2.Limits(max_connections=concurrency, max_keepalive_connections=concurrency)
        hooks = {"request": [check]}
        return httpx2.AsyncClient(limits=limits, timeout=timeout_s, follow_redirects=True, event_hooks=hooks)
    if streams:
        return httpx2.AsyncClient(transport=StreamingTransport(egress), timeout=timeout_s, follow_redirects=True)
    return httpx2.AsyncClient(transport=DirectTransport(egress), timeout=timeout_s, follow_redirects=True)
