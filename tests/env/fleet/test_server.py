"""One real server: started, killed, frozen, hung, refused; its family never outlives its owner."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from env.fleet import DoesNotFitError, Fleet, FleetError, ServerError
from env.fleet.keeper import Log
from env.fleet.kept import KeptProcess, log_tail
from env.fleet.load import FleetFile
from env.fleet.processes import ProcessMark, group_members, kill_group
from env.fleet.server import Server
from env.fleet.state import StateFile, end_leftovers
from tests.env.fleet.fleets import LIGHT, REPOSITORY, light_fleet, torch_fleet, until

pytestmark = [
    pytest.mark.fleet,
    pytest.mark.skipif(not sys.platform.startswith("linux"), reason="process trees are read from /proc"),
]
ASK = {"model": "xs", "prompt": [1, 5, 6], "max_tokens": 4}


def served(fleet: Fleet, name: str = "xs") -> Server:
    server = fleet.server(name)
    assert server is not None
    return server


def leader(fleet: Fleet, name: str = "xs") -> ProcessMark:
    mark = served(fleet, name).mark
    assert mark is not None
    return mark


def ask(url: str) -> int:
    return httpx.post(f"{url}/completions", json=ASK, timeout=30, trust_env=False).status_code


def alive(marks: list[ProcessMark]) -> list[ProcessMark]:
    return [mark for mark in marks if mark.alive]


@pytest.mark.asyncio
async def test_a_server_serves_survives_being_killed_and_frozen_and_leaves_nothing(tmp_path: Path) -> None:
    async with Fleet(torch_fleet(tmp_path, "xs")) as fleet, fleet.acquire(["xs"]) as lease:
        url = lease.urls["xs"]
        assert ask(url) == 200
        assert fleet.times.loads == 1
        assert 0 < fleet.times.load_seconds <= lease.load_seconds

        first = leader(fleet)
        os.kill(first.pid, signal.SIGKILL)
        await fleet.ready("xs")
        second = leader(fleet)
        assert second != first
        assert ask(url) == 200, "the restarted server has the same URL"
        assert "killed by signal 9" in served(fleet).reason

        os.kill(second.pid, signal.SIGSTOP)
        await until(lambda: served(fleet).restarts == 2, "the frozen server was replaced")
        assert not second.alive
        assert ask(url) == 200
        assert "did not answer /health 3 times" in served(fleet).reason
        assert fleet.times.loads == 1, "a restart is no load"
        assert served(fleet).restart_seconds > 0
        third = group_members(leader(fleet).pid)
    assert not alive(third)
    assert fleet.file.folder.joinpath("lock").exists()
    assert StateFile(fleet.file.folder).read() is None


@pytest.mark.asyncio
async def test_an_engine_that_hangs_behind_a_healthy_page_is_replaced(tmp_path: Path) -> None:
    health = {"interval_s": 0.2, "timeout_s": 2, "failures": 2, "probe_interval_s": 0.4, "probe_timeout_s": 1.5}
    async with Fleet(light_fleet(tmp_path, "xs", health=health)) as fleet, fleet.acquire(["xs"]) as lease:
        base = lease.urls["xs"].removesuffix("/v1")
        await asyncio.sleep(2.5)
        assert served(fleet).restarts == 0, "an idle server that answers is left alone"
        async with httpx.AsyncClient(base_url=base, trust_env=False) as client:
            await client.post("/hang")
            assert (await client.get("/health")).status_code == 200
        await until(lambda: served(fleet).restarts == 1, "the hanging engine was replaced")
        assert ask(lease.urls["xs"]) == 200
        assert "one-token request" in served(fleet).reason


@pytest.mark.asyncio
async def test_no_process_outlives_an_owner_killed_with_sigkill(tmp_path: Path) -> None:
    family = [sys.executable, "-m", "tests.env.fleet.family"]
    file = torch_fleet(tmp_path, "xs", executable=family)
    owner, said = await owning(file)
    pid = said["pids"][0]
    marks = [ProcessMark.of(p) for p in [pid, *below(pid)]]
    everyone = [mark for mark in marks if mark is not None]
    assert len(everyone) >= 2, "the server and its child in a session of its own"
    state = StateFile(file.folder).read()
    assert state is not None
    assert state.alive

    owner.kill()
    owner.wait()
    assert not state.alive
    await until(lambda: not alive(everyone), "every process of the server is gone", seconds=10)
    assert end_leftovers(state) == []
    async with Fleet(file):
        pass  # the dead owner's lock is no obstacle


def below(pid: int) -> list[int]:
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [int(child) for child in children]


@pytest.mark.asyncio
async def test_a_forked_child_of_a_killed_owner_keeps_neither_servers_nor_the_lock(tmp_path: Path) -> None:
    file = light_fleet(tmp_path, "xs")
    owner, said = await owning(file, FORKS="1")
    try:
        owner.kill()
        owner.wait()
        await until(lambda: not group_members(said["pids"][0]), "the server is gone", seconds=10)
        assert ProcessMark.of(said["child"]) is not None
        async with Fleet(file, ["xs"]):
            pass
    finally:
        os.kill(said["child"], signal.SIGKILL)


async def owning(file: FleetFile, **variables: str) -> tuple[subprocess.Popen[str], dict[str, Any]]:
    """A process that holds the fleet's model, and what it said once the server was up."""
    file.path.write_text(yaml.safe_dump(file.spec.model_dump(mode="json")))
    owner = await asyncio.to_thread(
        subprocess.Popen,
        [sys.executable, "-m", "tests.env.fleet.owner", str(file.path), "xs"],
        cwd=REPOSITORY,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY), **variables},
    )
    assert owner.stdout is not None
    return owner, json.loads(await asyncio.to_thread(owner.stdout.readline))


@pytest.mark.asyncio
async def test_the_server_goes_with_a_keeper_that_is_killed(tmp_path: Path) -> None:
    process = await KeptProcess.start(["sleep", "600"], os.environ, tmp_path / "log", 10_000)
    os.kill(process._keeper.pid, signal.SIGKILL)
    assert await asyncio.wait_for(process.ended, 10) == -9
    await until(lambda: not process.mark.alive, "the server is gone", 5)


@pytest.mark.asyncio
async def test_a_server_that_ignores_sigterm_is_killed_after_the_grace(tmp_path: Path) -> None:
    stubborn = ["sh", "-c", "trap '' TERM; while :; do sleep 0.1; done"]
    process = await KeptProcess.start(stubborn, os.environ, tmp_path / "log", 10_000)
    await asyncio.sleep(0.3)
    started = time.monotonic()
    await process.stop(1.0)
    assert 0.9 < time.monotonic() - started < 5
    assert not group_members(process.mark.pid)


@pytest.mark.asyncio
async def test_a_missing_program_is_refused_before_anything_starts(tmp_path: Path) -> None:
    fleet = Fleet(torch_fleet(tmp_path, "xs", executable="no-such-program"))
    with pytest.raises(FleetError, match="no program 'no-such-program'"):
        await fleet.open()


@pytest.mark.asyncio
async def test_a_server_that_does_not_start_is_an_error_with_its_last_lines(tmp_path: Path) -> None:
    complaint = ["sh", "-c", "echo one; echo the GPU is on fire >&2; exit 3"]
    async with Fleet(torch_fleet(tmp_path, "xs", executable=complaint)) as fleet:
        with pytest.raises(ServerError) as caught:
            await fleet.lease(["xs"])
        assert "exit status 3" in str(caught.value)
        assert "the GPU is on fire" in str(caught.value)
        assert "xs.log" in str(caught.value)
        assert fleet.times.loads == 0
        assert fleet.server("xs") is None


@pytest.mark.asyncio
async def test_a_server_that_is_never_ready_is_stopped_and_refused(tmp_path: Path) -> None:
    file = torch_fleet(tmp_path, "xs", executable=["sh", "-c", "echo loading; sleep 600"], ready_timeout_s=1)
    async with Fleet(file) as fleet:
        with pytest.raises(ServerError, match=r"not ready after 1 s"):
            await fleet.lease(["xs"])
        state = StateFile(file.folder).read()
        assert state is not None
        assert state.servers == ()


@pytest.mark.asyncio
async def test_a_port_in_use_is_passed_over_and_none_free_is_an_error(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        async with Fleet(torch_fleet(tmp_path, "xs", ports=[port, port])) as fleet:
            with pytest.raises(FleetError, match=f"no free port on 127.0.0.1 from {port} to {port}"):
                await fleet.lease(["xs"])
        if port < 65535:
            file = light_fleet(tmp_path, "xs", ports=[port, min(port + 20, 65535)])
            async with Fleet(file) as fleet, fleet.acquire(["xs"]) as lease:
                assert f":{port}/" not in lease.urls["xs"]
                assert ask(lease.urls["xs"]) == 200


@pytest.mark.asyncio
async def test_a_model_too_large_is_refused_before_anything_starts(tmp_path: Path) -> None:
    models = {"xs": {"checkpoint": "embedded:xs", "memory": "900GiB"}}
    fleet = Fleet(torch_fleet(tmp_path, models=models))
    with pytest.raises(DoesNotFitError, match=r"xs does not fit: it claims 900\.00 GiB"):
        await fleet.open()
    assert not fleet.file.folder.exists()


@pytest.mark.asyncio
async def test_a_server_that_keeps_dying_is_given_up_with_the_reason(tmp_path: Path) -> None:
    once = tmp_path / "once"
    script = f'[ -e {once} ] && echo "no more" && exit 5; touch {once}; exec "$0" "$@"'
    file = light_fleet(tmp_path, "xs", executable=["sh", "-c", script, *LIGHT])
    async with Fleet(file) as fleet:
        async with fleet.acquire(["xs"]):
            os.kill(leader(fleet).pid, signal.SIGKILL)
            with pytest.raises(ServerError, match=r"given up after 3 attempts") as caught:
                await fleet.ready("xs")
            assert "no more" in str(caught.value)
        once.unlink()
        async with fleet.acquire(["xs"]) as lease:
            assert ask(lease.urls["xs"]) == 200, "the next batch starts it anew"
        assert fleet.times.loads == 2


def test_a_log_starts_anew_at_its_limit_and_keeps_one_older(tmp_path: Path) -> None:
    log = Log(str(tmp_path / "log"), 1000)
    for number in range(100):
        log.write(f"line {number:04d} {'x' * 40}\n".encode())
    assert (tmp_path / "log").stat().st_size <= 1000
    assert (tmp_path / "log.1").stat().st_size <= 1000
    assert "line 0099" in log_tail(tmp_path / "log")


def test_a_reused_pid_is_never_killed() -> None:
    child = subprocess.Popen(["sleep", "60"], start_new_session=True)
    try:
        mark = ProcessMark.of(child.pid)
        assert mark is not None
        kill_group(ProcessMark(mark.pid, mark.started - 1))
        assert mark.alive
        kill_group(mark)
        child.wait(5)
        assert not mark.alive
    finally:
        child.kill()
