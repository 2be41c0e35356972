"""A launched runtime on SQLite whose models are dice, and a gate that holds them up."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from env.backends import DrawRequest, Failed, Settled
from planner.archive import Archive, StudyRecord
from planner.archive.statuses import TERMINAL
from planner.durable import Runtime, workflows
from planner.loop import StudyContext
from tests.simulated import DiceBackend, DiceBackends


class Gate:
    """Models answer while it is open; how often they were asked is counted."""

    def __init__(self) -> None:
        self.open = threading.Event()
        self.open.set()
        self.asked = 0


class GatedDice(DiceBackend):
    def __init__(self, model: str, gate: Gate) -> None:
        super().__init__(model)
        self._gate = gate

    async def generate(self, requests: Sequence[DrawRequest]) -> AsyncIterator[Settled | Failed]:
        self._gate.asked += 1
        while not self._gate.open.is_set():  # noqa: ASYNC110 - opened from another thread
            await asyncio.sleep(0.02)
        async for outcome in super().generate(requests):
            yield outcome


class GatedBackends(DiceBackends):
    def __init__(self, gate: Gate) -> None:
        super().__init__()
        self._gate = gate

    def backend(self, model: str) -> DiceBackend:
        return self.open.setdefault(model, GatedDice(model, self._gate))


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> Gate:
    made = Gate()

    def context(archive: Archive, study_id: str) -> StudyContext:
        return StudyContext(archive, study_id, {}, GatedBackends(made))

    monkeypatch.setattr(workflows, "StudyContext", context)
    return made


@pytest.fixture
def runtime(tmp_path: Path, gate: Gate) -> Iterator[Runtime]:
    with Runtime(f"sqlite:///{tmp_path}/archive.db", f"sqlite:///{tmp_path}/jobs.db") as opened:
        yield opened


def wait(runtime: Runtime, study_id: str, seconds: float = 60, status: str = "") -> StudyRecord:
    """The study once it has a status, or has ended."""
    wanted = {status} if status else TERMINAL
    return until(lambda: (s := runtime.archive.studies.get(study_id)).status in wanted and s, seconds)


def until(look: Callable[[], Any], seconds: float = 60) -> Any:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        found = look()
        if found:
            return found
        time.sleep(0.05)
    raise AssertionError("it did not happen in time")
