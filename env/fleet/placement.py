"""Which models fit the devices together, and where: pure functions over demands and devices."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

from env.fleet.devices import Device
from env.fleet.errors import DoesNotFitError
from env.fleet.memory import Demand
from env.fleet.spec import gib

Slot = tuple[int, ...]
"""Positions (in the list of devices) that one model takes."""


@dataclass(frozen=True)
class Claims:
    """What every model claims on a device, and what devices there are."""

    devices: tuple[Device, ...]
    bytes_on: Mapping[str, Mapping[int, int]]
    """Model -> position of a device -> bytes it would claim there."""

    count: Mapping[str, int]
    """Model -> how many devices it takes."""

    def slots(self, model: str) -> list[Slot]:
        """Every choice of devices on which a model fits alone."""
        fitting = [p for p, device in enumerate(self.devices) if self.bytes_on[model][p] <= device.memory]
        return list(combinations(fitting, self.count[model]))

    def free(self, placed: Mapping[str, Slot]) -> list[int]:
        """Bytes left on each device."""
        left = [device.memory for device in self.devices]
        for model, slot in placed.items():
            for position in slot:
                left[position] -= self.bytes_on[model][position]
        return left

    def fits(self, placed: Mapping[str, Slot]) -> bool:
        """Whether a placement stays within every device's memory."""
        return all(left >= 0 for left in self.free(placed))


def claims_of(demands: Sequence[Demand], devices: Sequence[Device]) -> Claims:
    """Check every model alone against the devices.

    Raises:
        DoesNotFitError: a model cannot run on these devices at all; the message has the numbers.
        FleetError: a model's memory is neither stated nor known.
    """
    bytes_on = {d.model: {p: _bytes_on(d, device) for p, device in enumerate(devices)} for d in demands}
    claims = Claims(tuple(devices), bytes_on, {d.model: devices_wanted(d, devices) for d in demands})
    faults = [fault for demand in demands for fault in _fault(demand, claims)]
    if faults:
        raise DoesNotFitError("\n".join(faults))
    return claims


def devices_wanted(demand: Demand, devices: Sequence[Device]) -> int:
    """Devices a model takes; on a processor parallel copies share the one there is."""
    return 1 if all(device.kind == "cpu" for device in devices) else demand.devices


def place(models: Sequence[str], claims: Claims, kept: Mapping[str, Slot] | None = None) -> dict[str, Slot] | None:
    """Find a place for models beside the ones kept where they are; None where there is none.

    The search is complete; larger models are tried first, on the fullest devices that still take them.
    """
    placed = dict(kept or {})
    left = claims.free(placed)
    if any(free < 0 for free in left):
        return None
    missing = [model for model in dict.fromkeys(models) if model not in placed]
    missing.sort(key=lambda m: -claims.count[m] * min(claims.bytes_on[m].values()))
    found = next(_placements(missing, claims, placed), None)
    return None if found is None else dict(found)


def placements(models: Sequence[str], claims: Claims, kept: Mapping[str, Slot]) -> Iterator[dict[str, Slot]]:
    """Every way to add models to the ones kept where they are."""
    missing = [model for model in dict.fromkeys(models) if model not in kept]
    for found in _placements(missing, claims, dict(kept)):
        yield dict(found)


def _placements(missing: list[str], claims: Claims, placed: dict[str, Slot]) -> Iterator[dict[str, Slot]]:
    if not missing:
        if claims.fits(placed):
            yield placed
        return
    model, rest = missing[0], missing[1:]
    left = claims.free(placed)
    options = [slot for slot in claims.slots(model) if all(left[p] >= claims.bytes_on[model][p] for p in slot)]
    for slot in sorted(options, key=lambda s: (sum(left[p] for p in s), s)):
        yield from _placements(rest, claims, {**placed, model: slot})


def sets_that_fit(claims: Claims) -> list[tuple[str, ...]]:
    """The largest sets of models that can be up together (no set is part of another)."""
    names = list(claims.count)
    found: list[frozenset[str]] = []
    for size in range(len(names), 0, -1):
        for chosen in combinations(names, size):
            if not any(set(chosen) <= larger for larger in found) and place(chosen, claims) is not None:
                found.append(frozenset(chosen))
    return [tuple(name for name in names if name in chosen) for chosen in found]


def refusal(models: Sequence[str], claims: Claims) -> DoesNotFitError:
    """Why models that are needed together cannot be up together, with the numbers."""
    lines = [f"{', '.join(models)} are needed together but do not fit:"]
    for model in models:
        largest = max(claims.bytes_on[model].values())
        lines.append(f"  {model}: {gib(largest)} on {_places(claims.count[model])}")
    lines += [f"  {device} has {gib(device.memory)}" for device in claims.devices]
    lines.append(
        "lower memory, gpu_memory_utilization, kv_tokens or max_model_len, or ask for them in separate batches"
    )
    return DoesNotFitError("\n".join(lines))


def _fault(demand: Demand, claims: Claims) -> list[str]:
    model, devices = demand.model, claims.devices
    wanted = claims.count[model]
    if wanted > len(devices):
        return [f"{model} takes {wanted} devices, there are {len(devices)}: lower tensor_parallel or data_parallel"]
    large_enough = [p for p, device in enumerate(devices) if claims.bytes_on[model][p] <= device.memory]
    if len(large_enough) < wanted:
        limiting = sorted(devices, key=lambda device: -device.memory)[wanted - 1]
        claim = _bytes_on(demand, limiting)
        source = demand.parts() if demand.stated is None else f"stated; {demand.parts()}"
        return [
            f"{model} does not fit: it claims {gib(claim)} ({source}) on {_places(wanted)}, "
            f"{limiting} has {gib(limiting.memory)} to give (of {gib(limiting.total)}). Use a smaller or quantised "
            "checkpoint, a shorter max_model_len, fewer kv_tokens, or a larger tensor_parallel"
        ]
    best = max(claims.bytes_on[model][p] for p in large_enough)
    least = None if demand.least is None else demand.least * _ranks(demand, devices[0])
    if least is not None and best < least:
        return [
            f"{model} claims {gib(best)}, but cannot start below {gib(least)}: weights "
            f"{gib(demand.weights or 0)} + KV cache of one sequence {gib(demand.kv_least or 0)} + overhead "
            f"{gib(demand.overhead)}. Raise memory or gpu_memory_utilization, or lower max_model_len"
        ]
    return []


def _bytes_on(demand: Demand, device: Device) -> int:
    return demand.claim(device.total) * _ranks(demand, device)


def _ranks(demand: Demand, device: Device) -> int:
    """Parts and copies of a model on one device; a processor carries them all."""
    return demand.devices if device.kind == "cpu" else 1


def _places(count: int) -> str:
    return "one device" if count == 1 else f"each of {count} devices"
