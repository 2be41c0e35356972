"""Compares variants of a model that answer alike by the tokens a second they give under a study's load."""

from __future__ import annotations

from collections.abc import Mapping

from env.fleet.errors import FleetError
from env.fleet.load import FleetFile
from env.fleet.shared import SharedFleet
from env.fleet.tune import Measured, Workload, best_of, check_workload, run_workload


async def compare_variants(
    file: FleetFile,
    fleet: SharedFleet,
    variants: Mapping[str, Mapping[str, object]],
    workload: Workload,
    repeats: int = 3,
) -> dict[str, Measured]:
    """Measure variants one after another, each with a run that is thrown away and then ``repeats`` runs.

    Every variant sees the same requests. The servers of those that were not the fastest are stopped again.

    Args:
        file: the fleet file.
        fleet: gives the servers; what it waits for and loads is in no run.
        variants: their knobs by name.
        workload: what a run asks.
        repeats: measured runs each.

    Raises:
        FleetError: the workload does not fit the model's context, or no variant could be measured; with each one's
            reason.
    """
    found: dict[str, Measured] = {}
    for name, knobs in variants.items():
        check_workload(file, name, workload)
        one = found[name] = Measured(dict(knobs))
        try:
            async with fleet.acquire([name]) as lease:
                one.load_seconds.append(lease.load_seconds)
                for number in range(-1, repeats):
                    run = await run_workload(file, name, lease, workload, number)
                    if run.failed:
                        one.error = f"{run.failed} of {workload.requests} requests failed"
                        break
                    if number >= 0:
                        one.runs.append(run)
        except FleetError as error:
            one.error = str(error)
    best, _ = best_of(list(found.values()))
    for name, one in found.items():
        if one is not best:
            await fleet.retire(name)
    if best is None:
        reasons = "\n".join(f"  {name}: {one.error}" for name, one in found.items())
        raise FleetError(f"no variant could be measured:\n{reasons}")
    return found
