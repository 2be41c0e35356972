"""Batches that run on a growing part of their examples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import pytest

from env.allocation import Allocation, StageSetting
from env.bank import MemorySampleBank
from env.execution import Environment
from env.tasks.data import load_splits
from env.tasks.example import Example
from tests.simulated import DiceBackends, simulated_spec


@dataclass
class Scripted:
    """Stops the allocations it is told to at the first look."""

    order: Sequence[int]
    looks: Sequence[int]
    stops: set[int]
    seen: list[dict[int, list[float | None]]] = field(default_factory=list)

    def stopped(self, scores: Mapping[int, Sequence[float | None]]) -> set[int]:
        self.seen.append({index: list(values) for index, values in scores.items()})
        return self.stops


def allocation(model: str, samples: int) -> Allocation:
    return Allocation.of({s: StageSetting(model, "vote", samples) for s in ("find", "read", "solve")})


ALLOCATIONS = [allocation("small", 4), allocation("large", 1), allocation("small", 1)]


def examples() -> tuple[Example, ...]:
    return load_splits(simulated_spec().data).search


def environment(backends: DiceBackends, bank: MemorySampleBank | None = None) -> Environment:
    return Environment(simulated_spec().pipeline, "flops", bank or MemorySampleBank(), backends)


@pytest.mark.asyncio
async def test_a_race_that_stops_nobody_changes_no_result() -> None:
    plain, raced = DiceBackends(), DiceBackends()
    race = Scripted(tuple(reversed(range(30))), (10, 20), set())
    one = await environment(plain).run_batch(ALLOCATIONS, examples(), "a")
    two = await environment(raced).run_batch(ALLOCATIONS, examples(), "a", race=race)
    assert [r.evidence for r in one] == [r.evidence for r in two]
    assert [r.spend.new_draws for r in one] == [r.spend.new_draws for r in two]
    assert plain.draws == raced.draws
    assert [len(look[0]) for look in race.seen] == [10, 20]


@pytest.mark.asyncio
async def test_a_stopped_allocation_is_drawn_for_no_further_example() -> None:
    plain, raced = DiceBackends(), DiceBackends()
    race = Scripted(tuple(range(30)), (10,), {1})
    full = await environment(plain).run_batch(ALLOCATIONS, examples(), "a")
    cut = await environment(raced).run_batch(ALLOCATIONS, examples(), "a", race=race)
    assert [len(r.evidence) for r in cut] == [30, 10, 30]
    assert [r.planned for r in cut] == [30, 30, 30]
    assert cut[1].evidence == full[1].evidence[:10]
    assert cut[0].evidence == full[0].evidence
    assert cut[1].spend.new_draws == pytest.approx(full[1].spend.new_draws / 3, abs=1)
    assert raced.draws == sum(r.spend.new_draws for r in cut) < plain.draws


@pytest.mark.asyncio
async def test_looks_see_the_scores_the_results_will_have_in_running_order() -> None:
    order = tuple(reversed(range(30)))
    race = Scripted(order, (12,), set())
    results = await environment(DiceBackends()).run_batch(ALLOCATIONS, examples(), "a", race=race)
    for index, result in enumerate(results):
        assert race.seen[0][index] == [result.evidence[i].score for i in order[:12]]


@pytest.mark.asyncio
async def test_running_it_again_draws_nothing_and_counts_the_same() -> None:
    bank, backends = MemorySampleBank(), DiceBackends()
    once = await environment(backends, bank).run_batch(
        ALLOCATIONS, examples(), "a", race=Scripted(tuple(range(30)), (10,), {2})
    )
    drawn = backends.draws
    again = await environment(backends, bank).run_batch(
        ALLOCATIONS, examples(), "a", race=Scripted(tuple(range(30)), (10,), {2})
    )
    assert backends.draws == drawn
    assert [r.evidence for r in once] == [r.evidence for r in again]
    assert [r.spend.new_draws for r in once] == [r.spend.new_draws for r in again]


@pytest.mark.asyncio
async def test_failed_examples_are_shown_as_unknown() -> None:
    race = Scripted(tuple(range(30)), (10,), set())
    await environment(DiceBackends(fails=3)).run_batch([ALLOCATIONS[2]], examples(), "a", race=race)
    assert None in race.seen[0][0]


@pytest.mark.asyncio
async def test_an_order_that_leaves_examples_out_is_refused() -> None:
    with pytest.raises(ValueError, match="each once"):
        await environment(DiceBackends()).run_batch(
            ALLOCATIONS, examples(), "a", race=Scripted(tuple(range(29)), (10,), set())
        )
