"""What a fleet would do, as plain data: memory, placement, command lines and swaps; nothing is started."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from typing import Any

from env.fleet.errors import FleetError
from env.fleet.fleet import plan_memory
from env.fleet.launching import launch_of
from env.fleet.load import FleetFile
from env.fleet.placement import place, sets_that_fit
from env.fleet.schedule import Schedule, schedule
from env.fleet.spec import gib


def plan_of(file: FleetFile, batches: Sequence[Sequence[str]] = ()) -> dict[str, Any]:
    """The plan of a whole fleet file.

    Args:
        file: the fleet file.
        batches: models each of a sequence of batches needs.

    Raises:
        DoesNotFitError: a model, or the models of one batch together, do not fit; with the numbers.
        FleetError: a checkpoint, the executable or a batch's model is missing.
    """
    names = list(file.spec.models)
    demands, claims = plan_memory(file, names)
    for name in (name for batch in batches for name in batch):
        file.model(name)
    models = []
    for number, name in enumerate(names):
        demand = demands[name]
        # All at once where they fit, else each alone: a swap may put a model elsewhere.
        placed = place(names, claims) or place([name], claims)
        if placed is None:  # pragma: no cover  (`plan_memory` has checked each alone)
            raise FleetError(f"{name} does not fit")
        devices = [claims.devices[position] for position in placed[name]]
        launch = launch_of(file, demand, devices, file.spec.ports[0] + number)
        models.append(
            {
                "model": name,
                "takes": claims.count[name],
                "weights": _size(demand.weights),
                "kv_cache": _size(demand.kv_room(devices[0].total)),
                "overhead": _size(demand.overhead),
                "claim": _size(claims.bytes_on[name][placed[name][0]]),
                "claim_bytes": claims.bytes_on[name][placed[name][0]],
                "devices": list(launch.devices),
                "port": launch.port,
                "command": launch.shown(),
                "environment": shlex.join(f"{k}={_shown(k, v)}" for k, v in launch.environment.items()),
            }
        )
    return {
        "file": str(file.path),
        "devices": [{"name": str(d), "usable": gib(d.memory), "total": gib(d.total)} for d in claims.devices],
        "models": models,
        "together": [list(group) for group in sets_that_fit(claims)],
        "schedule": _plain(schedule(batches, claims)),
    }


def serve_line(file: FleetFile, name: str) -> str:
    """The command line that serves a model or variant, on the first devices and port.

    Raises:
        DoesNotFitError: it cannot run on these devices; with the numbers.
        FleetError: no such model, program or checkpoint.
    """
    demands, claims = plan_memory(file, [name])
    placed = place([name], claims) or {}
    devices = [claims.devices[position] for position in placed.get(name, (0,))]
    return launch_of(file, demands[name], devices, file.spec.ports[0]).shown()


def _plain(found: Schedule) -> dict[str, Any]:
    steps = [
        {"needed": list(step.needed), "load": list(step.load), "drop": list(step.drop), "up": sorted(step.up)}
        for step in found.steps
    ]
    return {"loads": found.loads, "exact": found.exact, "steps": steps}


def _shown(name: str, value: str) -> str:
    """A variable's value, unless its name says that it is a secret."""
    return "***" if any(word in name.upper() for word in ("KEY", "TOKEN", "SECRET", "PASSWORD")) else value


def _size(value: int | None) -> str:
    return "unknown" if value is None else gib(value)
