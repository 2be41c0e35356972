"""Verifiers that the fleet starts: warmed up and watched without text, asked like any other verifier."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from env.backends import Backend, DrawRequest, Message, Sampling, ScoreRequest, Settled, TorchBackend
from env.embedded import checkpoint_path
from env.errors import BackendError
from env.fleet.backend import FleetBackend
from env.fleet.load import FleetFile
from env.fleet.shared import close_shared_fleets
from env.fleet.state import StateFile
from env.spec.pipeline import FleetModel
from tests.env.fleet.fleets import torch_fleet

pytestmark = [
    pytest.mark.fleet,
    pytest.mark.skipif(not sys.platform.startswith("linux"), reason="process trees are read from /proc"),
]

CANDIDATES = [
    ScoreRequest((Message("system", "solve"), Message("user", "w1 w2"), Message("assistant", f"w{n} = 7")), partial)
    for n in range(3)
    for partial in (False, True)
]


def verifier_fleet(folder: Path) -> FleetFile:
    model = {"checkpoint": "embedded:verifier", "memory": "1GiB", "overhead": "600MiB", "runner": "pooling"}
    return torch_fleet(folder, models={"judge": model})


@pytest.fixture(autouse=True)
def no_fleets_left() -> Iterator[None]:
    yield
    close_shared_fleets()


async def scores(backend: Backend) -> list[float]:
    found = [one async for one in backend.score(CANDIDATES)]
    assert all(isinstance(one, Settled) for one in found), found
    values = {one.position: one.draws[0].score for one in found}
    return [value for place in range(len(CANDIDATES)) if (value := values[place]) is not None]


@pytest.mark.asyncio
@pytest.mark.parametrize("api", ["classify", "pooling"])
async def test_a_verifier_of_the_fleet_scores_as_in_process_and_survives_a_kill(tmp_path: Path, api: str) -> None:
    file = verifier_fleet(tmp_path)
    model = FleetModel.model_validate({"backend": "fleet", "model": "judge", "api": api})
    backend, local = FleetBackend(file, model), TorchBackend(checkpoint_path("verifier"), "cpu")
    found = await scores(backend)
    assert found == pytest.approx(await scores(local), abs=1e-5)
    assert len(set(found)) > 1
    loaded = backend.load_seconds
    assert loaded > 0
    state = StateFile(file.folder).read()
    assert state is not None
    process = state.servers[0].process
    assert process is not None
    os.kill(process.pid, signal.SIGKILL)
    assert await scores(backend) == found
    with pytest.raises(BackendError, match="ask it for scores"):
        [one async for one in backend.generate([DrawRequest(CANDIDATES[0].messages[:2], Sampling(), (0,))])]
    await backend.close()
    await local.close()


def test_a_model_that_draws_text_is_no_verifier(tmp_path: Path) -> None:
    backend = FleetBackend(torch_fleet(tmp_path, "xs"), FleetModel(backend="fleet", model="xs"))
    with pytest.raises(BackendError, match="runner: pooling"):
        backend.score(CANDIDATES)
