"""The swap schedule against trying everything."""

from __future__ import annotations

from dataclasses import dataclass
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


@dataclass(frozen=True)
class Problem:
    """Batches of model numbers, and what is up before the first."""

    sizes: list[int]
    counts: list[int]
    memory: list[int]
    batches: list[frozenset[int]]
    start: Placement

    @property
    def claims(self) -> Claims:
        return claims_for(self.sizes, self.counts, self.memory)

    @property
    def named(self) -> list[list[str]]:
        return [[f"m{number}" for number in sorted(batch)] for batch in self.batches]

    @property
    def up(self) -> dict[str, tuple[int, ...]]:
        return {f"m{number}": slot for number, slot in enumerate(self.start) if slot is not None}


def possible_placements(sizes: list[int], counts: list[int], memory: list[int]) -> list[Placement]:
    """Every placement of every model, absent models included, within the memory."""

    def fits(placement: Placement) -> bool:
        used = [0] * len(memory)
        for model, slot in enumerate(placement):
            for device in slot or ():
                used[device] += sizes[model]
        return all(u <= m for u, m in zip(used, memory, strict=True))

    options = [[None, *combinations(range(len(memory)), count)] for count in counts]
    return [placement for placement in product(*options) if fits(placement)]


def fewest_loads(problem: Problem) -> float:
    """By trying every placement of every model before every batch."""
    possible = possible_placements(problem.sizes, problem.counts, problem.memory)

    @cache
    def best(number: int, before: Placement) -> float:
        if number == len(problem.batches):
            return 0
        costs = []
        for after in possible:
            if all(after[model] is not None for model in problem.batches[number]):
                loads = sum(new is not None and new != old for new, old in zip(after, before, strict=True))
                costs.append(loads + best(number + 1, after))
        return min(costs, default=float("inf"))

    return best(0, problem.start)


@st.composite
def problems(draw: st.DrawFn) -> Problem:
    devices = draw(st.integers(1, 2))
    models = draw(st.integers(1, 4 if devices == 1 else 3))
    sizes = draw(st.lists(st.integers(1, 6), min_size=models, max_size=models))
    counts = draw(st.lists(st.integers(1, devices), min_size=models, max_size=models))
    memory = draw(st.lists(st.integers(4, 10), min_size=devices, max_size=devices))
    batch = st.frozensets(st.integers(0, models - 1), min_size=1, max_size=2)
    start = draw(st.sampled_from(possible_placements(sizes, counts, memory)))
    return Problem(sizes, counts, memory, draw(st.lists(batch, min_size=1, max_size=6)), start)


@settings(max_examples=400, deadline=None)
@given(problems())
def test_no_schedule_has_fewer_loads(problem: Problem) -> None:
    least = fewest_loads(problem)
    if least == float("inf"):
        with pytest.raises(DoesNotFitError):
            schedule(problem.named, problem.claims, problem.up)
        return
    found = schedule(problem.named, problem.claims, problem.up)
    assert found.exact
    assert found.loads == least


@settings(max_examples=100, deadline=None)
@given(problems(), st.integers(1, 3))
def test_every_step_is_possible_even_where_the_search_is_narrow(problem: Problem, width: int) -> None:
    claims, up = problem.claims, dict(problem.up)
    assume(all(place(batch, claims) is not None for batch in problem.named))
    for step in schedule(problem.named, claims, up, width=width).steps:
        for name in step.drop:
            del up[name]
        for name in step.load:
            assert name not in up
            up[name] = step.up[name]
        assert up == dict(step.up)
        assert set(step.needed) <= set(up)
        assert claims.fits(up)


def test_a_model_in_the_way_of_one_that_fits_nowhere_else_is_moved() -> None:
    claims = claims_for([3, 8], [1, 1], [10, 5])
    found = schedule([["m0", "m1"]], claims, {"m0": (0,)})
    assert dict(found.steps[0].up) == {"m0": (1,), "m1": (0,)}
    assert found.loads == 2


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
