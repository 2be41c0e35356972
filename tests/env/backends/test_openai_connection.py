"""The connections below the openai client, against servers that write exactly the bytes a test says."""

from __future__ import annotations

import asyncio
import gzip
import shutil
import ssl
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import httpx2
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import env.backends.openai_transport as openai_transport
from env.backends.openai_transport import DirectTransport, open_http_client

BODY = b'{"choices": [], "usage": null}' * 40
LENGTH = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%b" % (len(BODY), BODY)
CHUNKED = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n%x\r\n%b\r\n3\r\nend\r\n0\r\n\r\n" % (len(BODY), BODY)

Session = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


class Server:
    """Counts connections and keeps the requests it reads."""

    def __init__(self, session: Session) -> None:
        self.session = session
        self.connections = 0
        self.ended = 0
        self.url = ""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            await self.session(reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            self.ended += 1
            writer.close()


@asynccontextmanager
async def serving(session: Session, context: ssl.SSLContext | None = None) -> AsyncIterator[Server]:
    server = Server(session)
    async with await asyncio.start_server(server.serve, "127.0.0.1", 0, ssl=context) as listening:
        scheme, port = "https" if context else "http", listening.sockets[0].getsockname()[1]
        server.url = f"{scheme}://localhost:{port}/v1"
        yield server


async def a_request(reader: asyncio.StreamReader) -> bytes:
    head = await reader.readuntil(b"\r\n\r\n")
    length = next(int(line[15:]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
    return head + await reader.readexactly(length)


def answering(*parts: bytes, close: bool = False) -> Session:
    async def session(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            await a_request(reader)
            for part in parts:
                writer.write(part)
                await writer.drain()
                await asyncio.sleep(0)
            if close:
                return

    return session


async def replies(session: Session, count: int = 1) -> tuple[Server, list[httpx2.Response]]:
    async with serving(session) as server, open_http_client(server.url, 4, 5.0) as client:
        return server, [await client.post(server.url, json={"n": n}) for n in range(count)]


@pytest.mark.asyncio
async def test_one_connection_serves_request_after_request() -> None:
    server, found = await replies(answering(LENGTH), 5)
    assert [reply.content for reply in found] == [BODY] * 5
    assert server.connections == 1


@settings(max_examples=25, deadline=None)
@given(st.data(), st.sampled_from([LENGTH, CHUNKED]))
def test_a_reply_is_the_same_wherever_the_network_cuts_it(data: st.DataObject, reply: bytes) -> None:
    cuts: Sequence[int] = sorted(data.draw(st.sets(st.integers(1, len(reply) - 1), max_size=6)))
    parts = [reply[begin:end] for begin, end in zip([0, *cuts], [*cuts, len(reply)], strict=True)]
    _, (first, second) = asyncio.run(replies(answering(*parts), 2))
    assert first.content == second.content == (BODY if reply == LENGTH else BODY + b"end")


@pytest.mark.asyncio
async def test_a_reply_without_a_length_ends_with_its_connection() -> None:
    server, found = await replies(answering(b"HTTP/1.0 200 OK\r\n\r\n" + BODY, close=True), 2)
    assert [reply.content for reply in found] == [BODY] * 2
    assert server.connections == 2


@pytest.mark.asyncio
async def test_a_server_that_closes_after_each_reply_is_believed() -> None:
    server, found = await replies(answering(LENGTH.replace(b"content-type", b"connection: close\r\nx")), 3)
    assert [reply.content for reply in found] == [BODY] * 3
    assert server.connections == 3


@pytest.mark.asyncio
async def test_early_hints_and_compression_are_read_past() -> None:
    packed = gzip.compress(BODY)
    head = b"HTTP/1.1 103 Early Hints\r\nlink: <x>\r\n\r\nHTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\n"
    _, (reply,) = await replies(answering(head + b"content-length: %d\r\n\r\n%b" % (len(packed), packed)))
    assert reply.content == BODY


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("parts", "error", "says"),
    [
        ([], httpx2.RemoteProtocolError, "without a reply"),
        ([LENGTH[:30]], httpx2.RemoteProtocolError, "without a reply"),
        ([LENGTH[:-1]], httpx2.RemoteProtocolError, "peer closed"),
        ([CHUNKED[:-5]], httpx2.RemoteProtocolError, "peer closed"),
        ([b"SSH-2.0-OpenSSH\r\n\r\n"], httpx2.RemoteProtocolError, "illegal"),
        ([b"HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\n\r\n"], httpx2.RemoteProtocolError, "switch"),
        ([b"HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ncontent-length: 4\r\n\r\nnope"], httpx2.DecodingError, ""),
    ],
)
async def test_what_is_no_whole_reply_is_an_error(parts: list[bytes], error: type[Exception], says: str) -> None:
    with pytest.raises(error, match=f"(?i){says}"):
        await replies(answering(*parts, close=True))


@pytest.mark.asyncio
async def test_nobody_there_is_an_error_of_the_connection() -> None:
    async with open_http_client("http://127.0.0.1:9/v1", 1, 5.0) as client:
        with pytest.raises(httpx2.ConnectError, match="9"):
            await client.post("http://127.0.0.1:9/v1", json={})


@pytest.mark.asyncio
async def test_a_request_given_up_closes_its_connection_and_no_other() -> None:
    async def session(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while b'"n":0' not in await a_request(reader):
            writer.write(LENGTH)
        await reader.read()  # until the client leaves

    async with serving(session) as server, open_http_client(server.url, 2, 5.0) as client:
        await client.post(server.url, json={"n": 1})
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await client.post(server.url, json={"n": 0})
        assert (await client.post(server.url, json={"n": 1})).content == BODY
        await asyncio.sleep(0.05)
        assert (server.connections, server.ended) == (2, 1)


@pytest.mark.asyncio
async def test_a_connection_the_server_closed_meanwhile_is_not_used_again() -> None:
    async with serving(answering(LENGTH, close=True)) as server, open_http_client(server.url, 1, 5.0) as client:
        for _ in range(3):
            assert (await client.post(server.url, json={})).content == BODY
            await asyncio.sleep(0.02)
        assert server.connections == 3


@pytest.mark.asyncio
async def test_a_connection_idle_for_long_is_not_used_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(openai_transport, "_IDLE_S", 0.05)
    async with serving(answering(LENGTH)) as server, open_http_client(server.url, 1, 5.0) as client:
        for pause in (0.0, 0.1, 0.0):
            await client.post(server.url, json={})
            await asyncio.sleep(pause)
        assert server.connections == 2


@pytest.mark.asyncio
async def test_each_request_in_flight_has_a_connection_and_closing_ends_them_all() -> None:
    async def session(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            await a_request(reader)
            await asyncio.sleep(0.02)
            writer.write(LENGTH)

    async with serving(session) as server:
        async with open_http_client(server.url, 8, 5.0) as client:
            found = await asyncio.gather(*(client.post(server.url, json={"n": n}) for n in range(8)))
            await asyncio.gather(*(client.post(server.url, json={"n": n}) for n in range(8)))
            transport = client._transport
            assert isinstance(transport, DirectTransport)
        await asyncio.sleep(0.05)
        assert {reply.content for reply in found} == {BODY}
        assert (server.connections, server.ended, transport._open) == (8, 8, set())


@pytest.fixture
def certificate(tmp_path: Path) -> tuple[str, str]:
    """A key and a certificate of localhost that nobody vouches for."""
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("openssl is not installed; it makes the certificate of this test")
    key, certificate = str(tmp_path / "key.pem"), str(tmp_path / "cert.pem")
    options = ["-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost"]
    names = ["-addext", "subjectAltName=DNS:localhost", "-keyout", key, "-out", certificate]
    subprocess.run([openssl, "req", "-x509", *options, *names], check=True, capture_output=True)
    return key, certificate


@pytest.mark.asyncio
async def test_certificates_are_checked(certificate: tuple[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    key, trusted = certificate
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(trusted, key)
    async with serving(answering(LENGTH), context) as server:
        async with open_http_client(server.url, 1, 5.0) as client:
            with pytest.raises(httpx2.ConnectError, match="certificate verify failed"):
                await client.post(server.url, json={})
        monkeypatch.setenv("SSL_CERT_FILE", trusted)
        async with open_http_client(server.url, 1, 5.0) as client:
            assert [(await client.post(server.url, json={})).content for _ in range(2)] == [BODY] * 2
    assert server.connections == 1
