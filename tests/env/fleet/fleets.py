"""Fleet files for the repository's own engine server, and patience."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from env.fleet.load import FleetFile, fleet_of

REPOSITORY = Path(__file__).parents[3]
LIGHT = [sys.executable, str(Path(__file__).with_name("light_server.py"))]


def torch_fleet(folder: Path, *models: str, **changes: Any) -> FleetFile:
    """Embedded models on the torch engine, each claiming 1 GiB of a processor; watched impatiently."""
    spec: dict[str, Any] = {
        "engine": "torch",
        "devices": "cpu",
        "folder": "state",
        "ports": [18400, 18499],
        "stop_timeout_s": 10,
        "ready_timeout_s": 120,
        "models": {name: {"checkpoint": f"embedded:{name}", "memory": "1GiB", "overhead": "600MiB"} for name in models},
        "health": {"interval_s": 0.3, "timeout_s": 2.0, "failures": 3},
        "restart": {"first_wait_s": 0.1, "attempts": 3, "stable_s": 60},
    }
    return fleet_of(spec | changes, folder / "fleet.yaml")


def light_fleet(folder: Path, *models: str, **changes: Any) -> FleetFile:
    """The same on servers without a model, which are up at once."""
    return torch_fleet(folder, *models, **{"engine": "vllm", "executable": LIGHT, "sleep": "never"} | changes)


def with_environment(file: FleetFile, **variables: str) -> FleetFile:
    """The fleet with further environment variables for its servers."""
    models = {n: m.model_copy(update={"environment": variables}) for n, m in file.spec.models.items()}
    return FleetFile(file.spec.model_copy(update={"models": models}), file.path)


def room_for(count: int) -> dict[str, Any]:
    """A share of this machine's memory that takes so many of these models at once."""
    from env.fleet.devices import system_memory

    return {"devices": {"cpu_share": (count + 0.5) * (1 << 30) / system_memory()}}


async def until(true: Callable[[], bool], what: str, seconds: float = 30.0) -> None:
    """Wait for something to become true."""
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, f"not within {seconds:g} s: {what}"
        await asyncio.sleep(0.05)
