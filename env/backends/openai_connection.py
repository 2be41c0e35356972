"""One HTTP/1.1 connection to a model server: a request is written at once, its reply read whole."""

from __future__ import annotations

import asyncio
import time
from typing import cast

import h11
import httpx2

_HEAD_BYTES = 100 * 1024
"""Longest head of a reply."""


class Connection(asyncio.Protocol):
    """One request at a time; the protocol itself is h11's.

    Safe for the event loop that opened it.
    """

    def __init__(self, opened: set[Connection]) -> None:
        """Not connected yet.

        Args:
            opened: holds this connection from when it is made until it is lost.
        """
        self._opened = opened
        self._http = h11.Connection(h11.CLIENT, max_incomplete_event_size=_HEAD_BYTES)
        self._socket: asyncio.Transport | None = None
        self._reply: asyncio.Future[httpx2.Response] | None = None
        self._head: h11.Response | None = None
        self._body: list[bytes] = []
        self._idle_since = time.monotonic()

    @property
    def usable(self) -> bool:
        """Whether it can take a request now."""
        return self._socket is not None and self._reply is None and not self._socket.is_closing()

    @property
    def idle_s(self) -> float:
        """Seconds since the last reply, or since it was made."""
        return time.monotonic() - self._idle_since

    async def exchange(self, request: httpx2.Request) -> httpx2.Response:
        """The reply to a request; whatever stops the wait for it closes the connection.

        Raises:
            httpx2.TransportError: the connection was lost, or what came is no HTTP.
        """
        assert self.usable
        assert self._socket is not None
        content = await request.aread()
        self._reply = asyncio.get_running_loop().create_future()
        try:
            # One write: the head alone would go out as a packet of its own and wake the server twice.
            self._socket.write(self._written(request, content))
            return await self._reply
        except BaseException:
            self.abort()
            raise
        finally:
            self._reply = None
            self._idle_since = time.monotonic()

    def abort(self) -> None:
        """Close it at once."""
        if self._socket is not None:
            self._socket.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See `asyncio.Protocol`."""
        self._socket = cast("asyncio.Transport", transport)
        self._opened.add(self)

    def data_received(self, data: bytes) -> None:
        """See `asyncio.Protocol`."""
        if self._reply is None or self._reply.done():
            # Nothing was asked: the server says that it gives up waiting, or talks nonsense.
            self.abort()
            return
        self._receive(data)

    def connection_lost(self, exc: Exception | None) -> None:
        """See `asyncio.Protocol`."""
        self._opened.discard(self)
        if self._reply is None or self._reply.done():
            return
        if exc is not None:
            self._fail(httpx2.ReadError(str(exc)))
        elif self._http.their_state is h11.SEND_RESPONSE:
            self._fail(httpx2.RemoteProtocolError("the server closed the connection without a reply"))
        else:
            self._receive(b"")  # the end of a reply that states no length, or of one cut off

    def _written(self, request: httpx2.Request, content: bytes) -> bytes:
        head = h11.Request(method=request.method, target=request.url.raw_path, headers=request.headers.raw)
        events = [head, h11.Data(data=content), h11.EndOfMessage()] if content else [head, h11.EndOfMessage()]
        try:
            return b"".join(self._http.send(event) or b"" for event in events)
        except h11.LocalProtocolError as error:
            raise httpx2.LocalProtocolError(str(error)) from error

    def _receive(self, data: bytes) -> None:
        try:
            self._http.receive_data(data)
            while (event := self._http.next_event()) is not h11.NEED_DATA:
                if isinstance(event, h11.Data):
                    self._body.append(bytes(event.data))
                elif isinstance(event, h11.Response):
                    self._head = event
                elif isinstance(event, h11.EndOfMessage):
                    self._finish()
                    return
                elif not isinstance(event, h11.InformationalResponse):
                    raise h11.RemoteProtocolError("the server answers in another protocol")
        except h11.RemoteProtocolError as error:
            self._fail(httpx2.RemoteProtocolError(str(error)))

    def _finish(self) -> None:
        assert self._head is not None
        assert self._reply is not None
        head, body = self._head, b"".join(self._body)
        self._head, self._body = None, []
        if self._http.our_state is h11.DONE and self._http.their_state is h11.DONE:
            self._http.start_next_cycle()
        else:
            self.abort()  # one of the two said that it closes after this
        if self._reply.done():
            return
        try:
            self._reply.set_result(httpx2.Response(head.status_code, headers=head.headers.raw_items(), content=body))
        except httpx2.DecodingError as error:
            self._reply.set_exception(error)

    def _fail(self, error: httpx2.TransportError) -> None:
        if self._reply is not None and not self._reply.done():
            self._reply.set_exception(error)
        self.abort()
