"""Whole batches against real servers that are overloaded, dead for a while, or shared by two studies."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest

from env.backends import Failed, OpenAIBackend, Settled
from env.backends.openai_transport import DirectTransport, open_http_client
from tests.env.backends.asking import ask, outcomes, settled
from tests.env.backends.scripted import Script, completion, status
from tests.env.engine.live import running


@pytest.mark.asyncio
async def test_a_batch_at_a_dead_server_fails_soon_and_says_so() -> None:
    backend = OpenAIBackend("http://127.0.0.1:9/v1", "m", concurrency=16, backoff_s=0.05)
    begin = time.monotonic()
    found = [outcome async for outcome in backend.generate([ask(text=str(n)) for n in range(400)])]
    await backend.close()
    assert all(isinstance(one, Failed) for one in found)
    assert sum("times in a row" in one.reason for one in found if isinstance(one, Failed)) > 300
    assert time.monotonic() - begin < 15


@pytest.mark.asyncio
async def test_a_broken_server_is_not_stormed_with_retries() -> None:
    script = Script(status(500))
    await outcomes(script, *(ask(text=str(n)) for n in range(200)), max_retries=4, concurrency=16)
    assert len(script.asked) < 60  # not 5 x 200


@pytest.mark.asyncio
async def test_a_server_that_comes_back_in_time_completes_the_batch() -> None:
    dead = [True]

    async def revive() -> None:
        await asyncio.sleep(1.2)
        dead[0] = False

    script = Script(lambda body: status(500)(body) if dead[0] else completion(body))
    reviving = asyncio.create_task(revive())
    found = await settled(script, *(ask(text=str(n)) for n in range(80)), max_retries=4, backoff_s=0.5, concurrency=16)
    assert len(found) == 80
    await reviving


@pytest.mark.asyncio
@pytest.mark.parametrize("code", [429, 503])
async def test_a_server_that_takes_four_at_once_is_asked_about_four_at_once(code: int) -> None:
    refused = [0]

    async def answer(body: dict[str, Any]) -> Any:
        if script.at_once > 4:
            refused[0] += 1
            return status(code, headers={"retry-after": "0"})(body)
        await asyncio.sleep(0.01)
        return completion(body)

    script = Script(answer)
    found = await settled(script, *(ask(text=str(n)) for n in range(300)), concurrency=48, max_retries=8)
    assert len(found) == 300
    assert refused[0] < 150


@pytest.mark.asyncio
async def test_two_studies_on_one_server_are_served_in_turn() -> None:
    async def slow(body: dict[str, Any]) -> Any:
        await asyncio.sleep(0.01)
        return completion(body)

    with running(Script(slow).app) as url:
        studies = {name: OpenAIBackend(url + "/v1", "m", concurrency=2, tenant=name) for name in ("large", "small")}
        ended: dict[str, float] = {}

        async def work(name: str, count: int) -> None:
            found = [one async for one in studies[name].generate([ask(text=f"{name} {n}") for n in range(count)])]
            assert all(isinstance(one, Settled) for one in found)
            ended[name] = time.monotonic()

        begin = time.monotonic()
        large = asyncio.create_task(work("large", 120))
        await asyncio.sleep(0.05)
        await asyncio.gather(large, work("small", 10))
        for backend in studies.values():
            await backend.close()
    assert ended["small"] - begin < 0.5 * (ended["large"] - begin)


@pytest.mark.asyncio
async def test_backends_of_one_server_share_what_is_in_flight() -> None:
    async def slow(body: dict[str, Any]) -> Any:
        await asyncio.sleep(0.02)
        return completion(body)

    script = Script(slow)
    with running(script.app) as url:
        backends = [OpenAIBackend(url + "/v1", f"m{n}", concurrency=4) for n in range(3)]

        async def work(backend: OpenAIBackend) -> None:
            assert len([one async for one in backend.generate([ask(text=str(n)) for n in range(20)])]) == 20

        await asyncio.gather(*map(work, backends))
        for backend in backends:
            await backend.close()
    assert script.most_at_once == 4


@pytest.mark.asyncio
async def test_refusals_of_the_requests_themselves_open_no_circuit() -> None:
    def some(body: dict[str, Any]) -> Any:
        return completion(body) if body["messages"][0]["content"] == "good" else status(404, "no such thing")(body)

    requests = [*(ask(text="bad") for _ in range(60)), ask(text="good")]
    found = await outcomes(Script(some), *requests)
    assert isinstance(found[-1], Settled)
    assert all("no such thing" in one.reason for one in found if isinstance(one, Failed))


@pytest.mark.asyncio
async def test_connections_are_kept_and_no_more_are_opened_than_requests_are_in_flight() -> None:
    async def slow(body: dict[str, Any]) -> Any:
        await asyncio.sleep(0.002)
        return completion(body)

    script = Script(slow)
    with running(script.app) as url:
        backend = OpenAIBackend(url + "/v1", "m", concurrency=8)
        async for _ in backend.generate([ask(text=str(n)) for n in range(200)]):
            pass
        assert backend._calls is not None
        transport = backend._calls.client._client._transport
        assert isinstance(transport, DirectTransport)
        assert 1 <= len(transport._open) <= 8
        assert sum(map(len, transport._free.values())) == len(transport._open)
        await backend.close()


def test_the_proxy_of_the_environment_is_used_where_it_is_meant(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    monkeypatch.setenv("no_proxy", "127.0.0.1,localhost")
    assert not isinstance(open_http_client("http://models.example/v1", 4, 1.0)._transport, DirectTransport)
    assert isinstance(open_http_client("http://127.0.0.1:8000/v1", 4, 1.0)._transport, DirectTransport)
