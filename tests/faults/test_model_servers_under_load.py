"""A model server dies, freezes or talks nonsense while a batch draws from it over HTTP.

Every example ends scored as if nothing had happened, or failed with the reason; what was drawn is kept; and a second
run asks only for what is missing.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from env.allocation import Allocation, StageSetting
from env.backends.pool import BackendPool
from env.bank import MemorySampleBank, SampleBank
from env.execution import Environment, TrialResult
from env.spec import StudySpec
from env.tasks.data import load_splits
from planner.archive import open_archive
from tests.faults.meddler import Deed, Meddler, meddling

REPOSITORY = Path(__file__).parents[2]
SAMPLES = 4
EXAMPLES = 60
pytestmark = pytest.mark.faults


def spec(url: str, retries: int) -> StudySpec:
    """Two stages on the embedded s, asked over HTTP."""
    model = {
        "backend": "openai", "base_url": f"{url}/v1", "model": "s", "parameters": 137728,
        "timeout_s": 3, "max_retries": retries, "concurrency": 16,
    }  # fmt: skip
    stages = [
        ("read", "{% for sentence in story %}{{ sentence }} {% endfor %}ask {{ person }}", {"kind": "text"}),
        ("solve", "{{ read }}", {"kind": "after", "marker": "=", "join": True}),
    ]
    return StudySpec.model_validate(
        {
            "name": "faults",
            "pipeline": {
                "name": "ledger",
                "models": {"s": model},
                "stages": [
                    {
                        "name": name,
                        "prompt": [{"role": "system", "template": name}, {"role": "user", "template": template}],
                        "parser": parser,
                        "models": ["s"],
                        "samples": {"min": 1, "max": 8, "choices": [1, 2, 4, 8]},
                        "tokens": {"prompt": 40, "output": 30},
                        "max_tokens": 100,
                    }
                    for name, template, parser in stages
                ],
            },
            "data": {"source": "ledger", "search": EXAMPLES, "test": 1},
            "budget": {"plan": {"limit": 1e12}},
        }
    )


class Server:
    """The torch engine's server as a process of its own."""

    def __init__(self) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.start()

    def start(self) -> None:
        command = [sys.executable, "-m", "api.command", "engine", "serve", "s", "--port", str(self.port)]
        self.process = subprocess.Popen(command, cwd=REPOSITORY, env={**os.environ, "PYTHONWARNINGS": "ignore"})
        deadline = time.monotonic() + 90
        while True:
            try:
                httpx.get(f"http://127.0.0.1:{self.port}/health", timeout=2).raise_for_status()
                return
            except httpx.HTTPError:
                assert self.process.poll() is None, "the server did not start"
                assert time.monotonic() < deadline, "the server did not answer in time"
                time.sleep(0.1)

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def stop(self) -> None:
        self.process.kill()
        self.process.wait()


@pytest.fixture(scope="module")
def process() -> Iterator[Server]:
    running = Server()
    yield running
    running.stop()


@pytest.fixture
def server(process: Server) -> Server:
    """The server, at work whatever the test before did to it."""
    process.signal(signal.SIGCONT)
    if process.process.poll() is not None:
        process.start()
    return process


async def run(url: str, bank: SampleBank, retries: int = 3) -> TrialResult:
    study = spec(url, retries)
    pool = BackendPool(study.pipeline.models)
    allocation = Allocation.of({name: StageSetting("s", "vote", SAMPLES) for name in ("read", "solve")})
    environment = Environment(study.pipeline, "flops", bank, pool, study.seed)
    try:
        [result] = await environment.run_batch([allocation], load_splits(study.data).search, "batch")
        return result
    finally:
        await pool.close()


@pytest.fixture(scope="module")
def undisturbed(process: Server) -> TrialResult:
    return asyncio.run(run(f"http://127.0.0.1:{process.port}", MemorySampleBank()))


def check(result: TrialResult, undisturbed: TrialResult) -> int:
    """Each example is as undisturbed, or failed with a reason and no score; how many failed."""
    for found, expected in zip(result.evidence, undisturbed.evidence, strict=True):
        if found.status == "failed":
            assert found.score is None
            assert "127.0.0.1" in found.reason, found.reason
        else:
            assert (found.score, found.realised) == (expected.score, expected.realised)
            assert [one.answer for one in found.stages] == [one.answer for one in expected.stages]
    return result.failed


def held(bank: SampleBank, *results: TrialResult) -> int:
    """Draws in the bank of all prompts that the results came to."""
    keys = {stage.prompt_key for result in results for one in result.evidence for stage in one.stages}
    return sum(len(draws) for draws in bank.held(sorted(keys)).values())


async def check_second_run(url: str, meddler: Meddler, bank: SampleBank, first: TrialResult, full: TrialResult) -> None:
    """Runs the batch again on a healthy server: complete, as undisturbed, and nothing is drawn twice."""
    got = sum(count for _, count in meddler.delivered)
    before = held(bank, full)
    assert before == got, "what reached the client whole is in the bank, and nothing else"
    # The circuit may still be open for as long as the failures before it lasted: with patience, the run waits for that.
    again = await run(url, bank, retries=9)
    assert check(again, full) == 0
    assert sum(count for _, count in meddler.delivered) == held(bank, again) == held(bank, full)
    assert again.failed <= first.failed


@contextmanager
def archived(folder: Path) -> Iterator[SampleBank]:
    with open_archive(f"sqlite:///{folder}/archive.db") as archive:
        yield archive.bank


@pytest.mark.asyncio
async def test_a_server_killed_under_load_fails_what_is_left_and_a_second_run_completes_it(
    server: Server, undisturbed: TrialResult, tmp_path: Path
) -> None:
    meddler = Meddler(server.port)

    def kill_at_the_thirtieth(number: int) -> Deed:
        if number == 30:
            server.signal(signal.SIGKILL)
        return "pass"

    meddler.decide = kill_at_the_thirtieth
    with archived(tmp_path) as bank, meddling(meddler) as url:
        begin = time.monotonic()
        first = await run(url, bank)
        assert time.monotonic() - begin < 30
        assert check(first, undisturbed) >= EXAMPLES - 30
        assert any("in a row" in one.reason or "no connection" in one.reason for one in first.evidence)
        server.process.wait()
        server.start()
        meddler.decide = lambda number: "pass"
        await check_second_run(url, meddler, bank, first, undisturbed)


@pytest.mark.asyncio
async def test_a_server_that_freezes_and_wakes_up_completes_the_batch(
    server: Server, undisturbed: TrialResult, tmp_path: Path
) -> None:
    meddler = Meddler(server.port)

    def freeze_at_the_thirtieth(number: int) -> Deed:
        if number == 30:
            server.signal(signal.SIGSTOP)
            threading.Timer(4.0, server.signal, [signal.SIGCONT]).start()
        return "pass"

    meddler.decide = freeze_at_the_thirtieth
    with archived(tmp_path) as bank, meddling(meddler) as url:
        first = await run(url, bank)
        assert check(first, undisturbed) < EXAMPLES
        again = await run(url, bank)
        assert check(again, undisturbed) == 0


@pytest.mark.asyncio
async def test_nonsense_errors_cut_bodies_and_missing_choices_change_nothing(
    server: Server, undisturbed: TrialResult, tmp_path: Path
) -> None:
    deeds: list[Deed] = ["garble", "pass", "cut", "pass", "fewer", "pass", "error", "pass", "busy", "pass"]
    meddler = Meddler(server.port, lambda number: deeds[number % 10] if number % 3 else "pass")
    with archived(tmp_path) as bank, meddling(meddler) as url:
        result = await run(url, bank, retries=9)
        assert check(result, undisturbed) == 0
        assert meddler.requests > 2 * EXAMPLES
        assert held(bank, undisturbed) == sum(count for _, count in meddler.delivered)


@pytest.mark.asyncio
async def test_a_server_that_goes_wrong_for_good_leaves_failures_not_wrong_answers(
    server: Server, undisturbed: TrialResult, tmp_path: Path
) -> None:
    meddler = Meddler(server.port, lambda number: "pass" if number <= 40 else "garble")
    with archived(tmp_path) as bank, meddling(meddler) as url:
        first = await run(url, bank)
        assert check(first, undisturbed) >= 20
        assert any("no completion" in one.reason for one in first.evidence)
        meddler.decide = lambda number: "pass"
        await check_second_run(url, meddler, bank, first, undisturbed)
