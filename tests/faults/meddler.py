"""A proxy between a client and a model server that does what its test says to single replies."""

from __future__ import annotations

import asyncio
import contextlib
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Literal

Deed = Literal["pass", "cut", "garble", "error", "busy", "fewer", "hang"]
"""What happens to a reply: passed on, cut off in the middle of its body, replaced by nonsense, by HTTP 500 or 429,
robbed of its last choices, or never sent."""


class Meddler:
    """Forwards each request to the server, then treats the reply as decided; counts what reached the client whole."""

    def __init__(self, port: int, decide: Callable[[int], Deed] = lambda number: "pass") -> None:
        """Args: the server's port (may be changed later), and what to do with request number 1, 2, ..."""
        self.port = port
        self.decide = decide
        self.requests = 0
        self.delivered: list[tuple[dict[str, Any], int]] = []
        """Bodies of requests that were answered whole, each with its number of choices."""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            while True:
                head, body = await _read(reader)
                self.requests += 1
                deed = self.decide(self.requests)
                reply_head, reply = await self._asked(head, body)
                if deed == "hang":
                    await asyncio.sleep(3600)
                writer.write(self._treated(deed, body, reply_head, reply))
                await writer.drain()
                if deed == "cut":
                    break
        writer.close()

    async def _asked(self, head: bytes, body: bytes) -> tuple[bytes, bytes]:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        try:
            writer.write(head + body)
            await writer.drain()
            return await _read(reader)
        finally:
            writer.close()

    def _treated(self, deed: Deed, body: bytes, head: bytes, reply: bytes) -> bytes:
        if deed == "cut":
            return head + reply[: len(reply) // 2]
        if deed == "garble":
            return _reply(200, b'{"choices": [{"mess' + bytes(range(128, 160)))
        if deed == "error":
            return _reply(500, b'{"error": {"message": "meddled with"}}')
        if deed == "busy":
            return _reply(429, b'{"error": {"message": "too much"}}', b"retry-after: 0\r\n")
        if b" 200 " in head.split(b"\r\n", 1)[0]:
            whole = json.loads(reply)
            if deed == "fewer" and len(whole["choices"]) > 1:
                whole["choices"] = whole["choices"][:-1]
                head, reply = b"", _reply(200, json.dumps(whole).encode())
            self.delivered.append((json.loads(body), len(whole["choices"])))
        return head + reply


async def _read(reader: asyncio.StreamReader) -> tuple[bytes, bytes]:
    """Head and body of one message."""
    head = await reader.readuntil(b"\r\n\r\n")
    lengths = [line[15:] for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
    return head, await reader.readexactly(int(lengths[0])) if lengths else b""


def _reply(status: int, body: bytes, headers: bytes = b"") -> bytes:
    head = b"HTTP/1.1 %d Meddled\r\ncontent-type: application/json\r\n%scontent-length: %d\r\n\r\n"
    return head % (status, headers, len(body)) + body


@contextmanager
def meddling(meddler: Meddler) -> Iterator[str]:
    """The meddler's base URL while the block runs."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    server = asyncio.run_coroutine_threadsafe(asyncio.start_server(meddler.serve, "127.0.0.1", 0), loop).result(10)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        loop.call_soon_threadsafe(server.close)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(5)
