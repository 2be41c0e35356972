"""Fleets of real servers: swaps with the fewest loads, batches in turns, sleep mode, sharing between processes."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from env.backends import Draw, DrawRequest, Failed, Message, Sampling, Settled
from env.backends.pool import BackendPool
from env.fleet import DoesNotFitError, Fleet, FleetError
from env.fleet.backend import FleetBackend
from env.fleet.load import FleetFile
from env.fleet.processes import ProcessMark
from env.fleet.shared import close_shared_fleets, shared_fleet
from env.fleet.state import FleetState, Process, ServerState, StateFile
from env.spec.pipeline import FleetModel
from tests.env.fleet.fleets import light_fleet, room_for, torch_fleet, until, with_environment

pytestmark = [
    pytest.mark.fleet,
    pytest.mark.skipif(not sys.platform.startswith("linux"), reason="process trees are read from /proc"),
]


def sleepers(folder: Path, **environment: str) -> FleetFile:
    """Two models of which one fits, on servers with vLLM's sleep mode."""
    file = light_fleet(folder, "xs", "s", sleep="auto", sleeping_memory="100MiB", **room_for(1))
    return with_environment(file, **environment)


def ask(url: str, model: str) -> int:
    body = {"model": model, "prompt": [1, 5, 6], "max_tokens": 4}
    return httpx.post(f"{url}/completions", json=body, timeout=30, trust_env=False).status_code


@pytest.mark.asyncio
async def test_models_that_fit_alone_take_turns_and_every_load_is_counted(tmp_path: Path) -> None:
    async with Fleet(torch_fleet(tmp_path, "xs", "s", **room_for(1))) as fleet:
        for name, loads, loaded in (("xs", 1, True), ("xs", 1, False), ("s", 2, True), ("xs", 3, True)):
            async with fleet.acquire([name]) as lease:
                assert ask(lease.urls[name], name) == 200
                assert fleet.times.loads == loads
                assert (lease.load_seconds > 0) == loaded
        assert fleet.server("s") is None
        with pytest.raises(DoesNotFitError, match="xs, s are needed together but do not fit"):
            await fleet.lease(["xs", "s"])


@pytest.mark.asyncio
async def test_what_is_expected_soon_is_kept_and_loading_is_no_inference(tmp_path: Path) -> None:
    file = with_environment(light_fleet(tmp_path, "xs", "s", "m", **room_for(2)), START_SECONDS="1")
    async with Fleet(file) as fleet:
        batches = [["xs", "s"], ["m"], ["s"]]
        fleet.expect(batches)
        for batch in batches:
            async with fleet.acquire(batch) as lease:
                await asyncio.sleep(0.2)
                assert set(lease.urls) == set(batch)
        assert fleet.times.loads == 3, "s was kept for the last batch, xs made room"
        assert fleet.server("xs") is None
        assert fleet.times.load_seconds >= 3
        assert 0.6 <= fleet.times.inference_seconds < 2.0


@pytest.mark.asyncio
async def test_a_batch_waits_until_the_models_in_its_way_are_let_go(tmp_path: Path) -> None:
    async with Fleet(light_fleet(tmp_path, "xs", "s", **room_for(1))) as fleet:
        first, second = await fleet.lease(["xs"]), await fleet.lease(["xs"])
        waiting = asyncio.create_task(fleet.lease(["s"]))
        await asyncio.sleep(0.3)
        assert not waiting.done()
        assert fleet.server("xs") is not None
        await fleet.release(first)
        await asyncio.sleep(0.3)
        assert not waiting.done(), "the other batch still holds it"
        third = await asyncio.wait_for(fleet.lease(["xs"]), 5)
        for lease in (second, third):
            await fleet.release(lease)
        lease = await waiting
        assert ask(lease.urls["s"], "s") == 200
        await fleet.release(lease)


@pytest.mark.asyncio
async def test_giving_up_waiting_leaves_the_queue_free(tmp_path: Path) -> None:
    async with Fleet(light_fleet(tmp_path, "xs", "s", **room_for(1))) as fleet:
        async with fleet.acquire(["xs"]):
            waiting = asyncio.create_task(fleet.lease(["s"]))
            await asyncio.sleep(0.1)
            waiting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiting
            async with fleet.acquire(["xs"]):
                pass
        loading = asyncio.create_task(fleet.lease(["s"]))
        await until(lambda: fleet.server("s") is not None, "the load began")
        loading.cancel()
        with pytest.raises(asyncio.CancelledError):
            await loading
        assert fleet.server("s") is None, "a load that nobody waits for is undone"
        async with fleet.acquire(["xs"]) as lease:
            assert ask(lease.urls["xs"], "xs") == 200


@pytest.mark.asyncio
async def test_where_sleep_mode_works_a_second_turn_is_a_wake_not_a_load(tmp_path: Path) -> None:
    async with Fleet(sleepers(tmp_path)) as fleet:
        for name in ("xs", "s", "xs", "s"):
            async with fleet.acquire([name]) as lease:
                assert ask(lease.urls[name], name) == 200
        assert (fleet.times.loads, fleet.times.wakes) == (2, 2)
        assert fleet.times.wake_seconds > 0
        server = fleet.server("xs")
        assert server is not None
        assert server.phase == "asleep"


@pytest.mark.asyncio
async def test_a_server_that_dies_asleep_stays_down_until_it_is_needed(tmp_path: Path) -> None:
    async with Fleet(sleepers(tmp_path)) as fleet:
        for name in ("xs", "s"):
            async with fleet.acquire([name]):
                pass
        asleep = fleet.server("xs")
        assert asleep is not None
        assert asleep.mark is not None
        os.kill(asleep.mark.pid, signal.SIGKILL)
        await until(lambda: asleep.phase == "failed", "its death was noticed")
        assert "while asleep" in asleep.reason
        async with fleet.acquire(["xs"]) as lease:
            assert ask(lease.urls["xs"], "xs") == 200
        assert (fleet.times.loads, fleet.times.wakes) == (3, 0)


@pytest.mark.asyncio
async def test_closing_ends_the_wait_of_those_in_the_queue(tmp_path: Path) -> None:
    fleet = Fleet(light_fleet(tmp_path, "xs", "s", **room_for(1)))
    await fleet.open()
    lease = await fleet.lease(["xs"])
    waiting = asyncio.create_task(fleet.lease(["s"]))
    await asyncio.sleep(0.1)
    await fleet.close()
    with pytest.raises(FleetError, match="not open"):
        await asyncio.wait_for(waiting, 5)
    await fleet.release(lease)


@pytest.mark.asyncio
async def test_where_sleep_mode_is_refused_servers_restart_and_it_is_not_tried_again(tmp_path: Path) -> None:
    file = sleepers(tmp_path, REFUSES_SLEEP="1")
    async with Fleet(file) as fleet:
        for name in ("xs", "s"):
            async with fleet.acquire([name]) as lease:
                assert ask(lease.urls[name], name) == 200
        assert (fleet.times.loads, fleet.times.wakes) == (2, 0)
    assert StateFile(file.folder).remembered()["sleep"] is False
    log = (file.folder / "s.log").read_text()
    assert "--enable-sleep-mode" not in log, "learnt from the first model"
    assert "--enable-sleep-mode" in (file.folder / "xs.log").read_text()


@pytest.mark.asyncio
async def test_one_process_owns_a_fleet_and_another_is_told_who(tmp_path: Path) -> None:
    file = light_fleet(tmp_path, "xs")
    async with Fleet(file):
        with pytest.raises(FleetError, match=f"held by process {os.getpid()}"):
            await Fleet(file).open()


@pytest.mark.asyncio
async def test_a_model_that_does_not_fit_does_not_keep_others_from_running(tmp_path: Path) -> None:
    models = {
        "xs": {"checkpoint": "embedded:xs", "memory": "3GiB"},
        "l": {"checkpoint": "embedded:l", "memory": "900GiB"},
    }
    async with Fleet(light_fleet(tmp_path, models=models)) as fleet:
        with pytest.raises(DoesNotFitError, match=r"l does not fit: it claims 900\.00 GiB"):
            await fleet.lease(["l"])
        with pytest.raises(FleetError, match="no model 'zz'"):
            await fleet.lease(["zz"])
        async with fleet.acquire(["xs"]) as lease:
            assert ask(lease.urls["xs"], "xs") == 200


@pytest.mark.asyncio
async def test_a_server_nobody_uses_is_stopped_after_a_while(tmp_path: Path) -> None:
    async with Fleet(light_fleet(tmp_path, "xs", idle_stop_s=1.0)) as fleet:
        async with fleet.acquire(["xs"]):
            await asyncio.sleep(1.5)
            assert fleet.server("xs") is not None
        await until(lambda: fleet.server("xs") is None, "the idle server was stopped", 10)


# Backends and sharing -------------------------------------------------------------------------------------------


@pytest.fixture
def no_fleets_left() -> Iterator[None]:
    yield
    close_shared_fleets()


PROMPT = (Message("user", "w1 w2"),)


async def drawn(backend: FleetBackend, *requests: DrawRequest) -> list[Draw]:
    outcomes = [outcome async for outcome in backend.generate(requests)]
    failed = [outcome.reason for outcome in outcomes if isinstance(outcome, Failed)]
    assert not failed, failed
    return [draw for outcome in outcomes if isinstance(outcome, Settled) for draw in outcome.draws]


def request(*indices: int, **sampling: Any) -> DrawRequest:
    return DrawRequest(PROMPT, Sampling(max_tokens=8, seed=3, **sampling), indices)


@pytest.mark.asyncio
@pytest.mark.usefixtures("no_fleets_left")
async def test_a_study_reaches_its_model_through_the_pool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = torch_fleet(tmp_path, "xs")
    file.path.write_text(file.spec.model_dump_json())
    monkeypatch.setenv("APPORTION_FLEET", str(file.path))
    pool = BackendPool({"mine": FleetModel(backend="fleet", model="xs")})
    backend = pool.backend("mine")
    assert isinstance(backend, FleetBackend)
    assert "torch, auto, plain" in backend.identity.revision
    draws = await drawn(backend, request(0, 1, 2, 3))
    assert [draw.index for draw in draws] == [0, 1, 2, 3]
    assert len({draw.text for draw in draws}) > 1
    assert pool.load_seconds > 0
    server = server_state(file)
    assert server.process is not None
    os.kill(server.process.pid, signal.SIGKILL)
    again = await drawn(backend, request(0, 1, 2, 3))
    assert [draw.text for draw in again] == [draw.text for draw in draws], "a restart changes no draw"
    await pool.close()
    assert server_state(file).phase == "ready", "the next study finds it up"


def server_state(file: FleetFile) -> ServerState:
    state = StateFile(file.folder).read()
    assert state is not None
    return state.servers[0]


@pytest.mark.usefixtures("no_fleets_left")
def test_studies_in_other_threads_and_loops_share_one_server(tmp_path: Path) -> None:
    file = torch_fleet(tmp_path, "xs")
    texts: list[list[str]] = []

    def study() -> None:
        async def run() -> None:
            backend = FleetBackend(file, FleetModel(backend="fleet", model="xs"))
            texts.append([draw.text for draw in await drawn(backend, request(0, 1))])
            await backend.close()

        asyncio.run(run())

    threads = [threading.Thread(target=study) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert len(texts) == 3
    assert texts[0] == texts[1] == texts[2]
    state = StateFile(file.folder).read()
    assert state is not None
    assert state.loads == 1
    close_shared_fleets()
    assert StateFile(file.folder).read() is None


@pytest.mark.asyncio
@pytest.mark.usefixtures("no_fleets_left")
async def test_a_call_whose_server_dies_under_way_is_asked_again(tmp_path: Path) -> None:
    file = torch_fleet(tmp_path, "m")
    spec = FleetModel(backend="fleet", model="m", max_retries=0, concurrency=4)
    backend = FleetBackend(file, spec)
    await drawn(backend, request(0))
    first = server_state(file).process
    assert first is not None
    requests = [
        DrawRequest((Message("user", f"w{n}"),), Sampling(max_tokens=200, seed=n), tuple(range(16))) for n in range(40)
    ]
    calling = asyncio.create_task(drawn(backend, *requests))
    await asyncio.sleep(0.3)
    os.kill(first.pid, signal.SIGKILL)
    draws = await calling
    assert len(draws) == 640
    assert server_state(file).restarts == 1
    await backend.close()


@pytest.mark.asyncio
@pytest.mark.usefixtures("no_fleets_left")
async def test_the_servers_of_fleet_up_are_joined_and_none_are_started(tmp_path: Path) -> None:
    file = torch_fleet(tmp_path, "xs", "s")
    async with Fleet(file, ["xs"], kind="up") as up:
        lease = await up.lease(["xs"])
        joined = FleetBackend(file, FleetModel(backend="fleet", model="xs"))
        assert len(await drawn(joined, request(0, 1))) == 2
        assert joined.load_seconds == 0
        with pytest.raises(FleetError, match=r"does not serve s; it serves xs"):
            async with shared_fleet(file).acquire(["s"]):
                pass
        await up.release(lease)


def test_what_a_dead_owner_left_is_told_from_a_new_process_with_its_pid(tmp_path: Path) -> None:
    me = ProcessMark.of(os.getpid())
    assert me is not None
    before = Process(pid=me.pid, started=me.started - 1)
    state = FleetState(owner=before, kind="up", file="f", updated=time.time())
    store = StateFile(tmp_path)
    store.write(state)
    read = store.read()
    assert read is not None
    assert not read.alive, "same pid, other start time"
    with store.held():
        pass
    assert store.read() is None
