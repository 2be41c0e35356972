"""The swap schedule against trying everything."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from itertools import combinations, product

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from env.fleet.devices import Device
from env.fleet.errors import DoesNotFitError
from env.fleet.placement import Claims, place
from env.fleet.schedule import schedule

Placement = tuple[tuple[int, ...] | None, ...]


def claims_for(sizes: list[int], counts: list[int], memory: list[int]) -> Claims:
    names = [f"m{number}" for number in range(len(sizes))]
    devices = tuple(Device("cuda", number, size) for number, size in enumerate(memory))
    bytes_on = {name: dict.fromkeys(range(len(devices)), size) for name, size in zip(names, sizes, strict=True)}
    return Claims(devices, bytes_on, dict(zip(names, counts, strict=True)))


def fewest_loads(batches: list[frozenset[int]], sizes: list[int], counts: list[int], memory: list[int]) -> float:
    """By trying every placement of every model before every batch."""

    def options(model: int) -> list[tuple[int, ...] | None]:
        return [None, *combinations(range(len(memory)), counts[model])]

    def fits(placement: Placement) -> bool:
        used = [0] * len(memory)
        for model, slot in enumerate(placement):
            for device in slot or ():
                used[device] += sizes[model]
        return all(u <= m for u, m in zip(used, memory, strict=True))

    possible = [p for p in product(*map(options, range(len(sizes)))) if fits(p)]

    def targets(batch: frozenset[int]) -> Iterator[Placement]:
        return (p for p in possible if all(p[model] is not None for model in batch))

    @cache
    def best(number: int, before: Placement) -> float:
        if number == len(batches):
            return 0
        costs = (
            sum(new is not None and new != old for new, old in zip(after, before, strict=True))
            + best(number + 1, after)
            for after in targets(batches[number])
        )
        return min(costs, default=float("inf"))

    return best(0, (None,) * len(sizes))


@st.composite
def problems(draw: st.DrawFn) -> tuple[list[int], list[int], list[int], list[frozenset[int]]]:
    devices = draw(st.integers(1, 2))
    models = draw(st.integers(1, 4 if devices == 1 else 3))
    sizes = draw(st.lists(st.integers(1, 6), min_size=models, max_size=models))
    counts = draw(st.lists(st.integers(1, devices), min_size=models, max_size=models))
    memory = draw(st.lists(st.integers(4, 10), min_size=devices, max_size=devices))
    batch = st.frozensets(st.integers(0, models - 1), min_size=1, max_size=2)
    return sizes, counts, memory, draw(st.lists(batch, min_size=1, max_size=6))


@settings(max_examples=300, deadline=None)
@given(problems())
def test_no_schedule_has_fewer_loads(problem: tuple[list[int], list[int], list[int], list[frozenset[int]]]) -> None:
    sizes, counts, memory, batches = problem
    claims = claims_for(sizes, counts, memory)
    named = [[f"m{number}" for number in sorted(batch)] for batch in batches]
    least = fewest_loads(batches, sizes, counts, memory)
    if least == float("inf"):
        with pytest.raises(DoesNotFitError):
            schedule(named, claims)
        return
    found = schedule(named, claims)
    assert found.exact
    assert found.loads == least


@settings(max_examples=100, deadline=None)
@given(problems(), st.integers(1, 3))
def test_every_step_is_possible_even_where_the_search_is_narrow(
    problem: tuple[list[int], list[int], list[int], list[frozenset[int]]], width: int
) -> None:
    sizes, counts, memory, batches = problem
    claims = claims_for(sizes, counts, memory)
    named = [[f"m{number}" for number in sorted(batch)] for batch in batches]
    assume(all(place(batch, claims) is not None for batch in named))
    up: dict[str, tuple[int, ...]] = {}
    for step in schedule(named, claims, width=width).steps:
        for name in step.drop:
            del up[name]
        for name in step.load:
            assert name not in up
            up[name] = step.up[name]
        assert up == dict(step.up)
        assert set(step.needed) <= set(up)
        assert claims.fits(up)


def test_with_equal_sizes_what_is_needed_last_goes_first() -> None:
    claims = claims_for([1, 1, 1], [1, 1, 1], [2])
    found = schedule([["m0"], ["m1"], ["m2"], ["m0"], ["m1"]], claims)
    assert found.loads == 4
    assert found.steps[2].drop == ("m1",)


def test_pinned_models_stay_during_the_first_batch() -> None:
    claims = claims_for([3, 3, 3], [1, 1, 1], [6])
    up = {"m0": (0,), "m1": (0,)}
    found = schedule([["m2"], ["m0"]], claims, up, pinned=["m1"])
    assert found.steps[0].drop == ("m0",)
    with pytest.raises(DoesNotFitError):
        schedule([["m2"]], claims, up, pinned=["m0", "m1"])


def test_what_is_up_already_costs_nothing() -> None:
    claims = claims_for([3, 3], [1, 1], [6])
    assert schedule([["m0", "m1"], ["m1"]], claims, {"m0": (0,), "m1": (0,)}).loads == 0
