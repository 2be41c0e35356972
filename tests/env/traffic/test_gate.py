"""The gate with real tasks and event loops, on a clock that only moves when told."""

from __future__ import annotations

import asyncio
import gc
import threading
from collections.abc import Awaitable

import pytest

from env.traffic import CircuitBreaker, NotAdmittedError, RetryBudget, ServerGate, Verdict, gate_of
from env.traffic.gate import Ticket


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


async def settle() -> None:
    """Let every task that can go on do so."""
    for _ in range(10):
        await asyncio.sleep(0)


def soon(entering: Awaitable[Ticket]) -> asyncio.Future[Ticket]:
    return asyncio.ensure_future(entering)


def breaking(gate: ServerGate, ticket: Ticket) -> None:
    gate.leave(ticket, Verdict.BROKEN, "HTTP 500: boom")


@pytest.mark.asyncio
async def test_no_more_are_in_flight_than_the_ceiling_and_each_leaving_lets_the_next_in() -> None:
    gate = ServerGate(2)
    waiting = [soon(gate.enter("a")) for _ in range(5)]
    await settle()
    assert [task.done() for task in waiting] == [True, True, False, False, False]
    gate.leave(waiting[0].result(), Verdict.SERVED)
    await settle()
    assert [task.done() for task in waiting] == [True, True, True, False, False]
    for task in waiting:
        task.cancel()


@pytest.mark.asyncio
async def test_a_small_study_does_not_wait_behind_a_large_one() -> None:
    gate, order = ServerGate(1), []

    async def work(tenant: str) -> None:
        ticket = await gate.enter(tenant)
        order.append(tenant)
        await asyncio.sleep(0)
        gate.leave(ticket, Verdict.SERVED)

    large = [asyncio.ensure_future(work("large")) for _ in range(50)]
    await settle()
    small = [asyncio.ensure_future(work("small")) for _ in range(5)]
    await asyncio.gather(*large, *small)
    last = max(place for place, tenant in enumerate(order) if tenant == "small")
    first = order.index("small")
    assert order[first : last + 1].count("large") <= 5


@pytest.mark.asyncio
async def test_overload_halves_what_is_in_flight_and_success_brings_it_back() -> None:
    clock = Clock()
    gate = ServerGate(8, clock)
    tickets = [await gate.enter("a") for _ in range(8)]
    clock.now = 1.0
    for ticket in tickets:
        gate.leave(ticket, Verdict.BUSY)
    assert gate.limit == 4
    assert gate.in_flight == 0
    for _ in range(200):
        tickets = [await gate.enter("a") for _ in range(gate.limit)]
        for ticket in tickets:
            gate.leave(ticket, Verdict.SERVED)
    assert gate.limit == 8


@pytest.mark.asyncio
async def test_an_open_circuit_turns_away_those_who_wait_and_those_who_come_with_the_reason() -> None:
    clock = Clock()
    gate = ServerGate(3, clock, CircuitBreaker(threshold=3, pause_s=2.0))
    inside = [await gate.enter("a") for _ in range(3)]
    waiting = [soon(gate.enter("b")) for _ in range(4)]
    await settle()
    for ticket in inside:
        breaking(gate, ticket)
    found = await asyncio.gather(*waiting, return_exceptions=True)
    turned_away = [one for one in found if isinstance(one, NotAdmittedError)]
    # Places that were free before the third failure had been given on; the rest are turned away.
    assert len(turned_away) >= 2
    with pytest.raises(NotAdmittedError, match="3 times in a row, last: HTTP 500: boom") as caught:
        await gate.enter("c")
    assert caught.value.retry_s == pytest.approx(2.0)


@pytest.mark.asyncio
async def test_after_the_pause_one_probe_is_sent_and_its_success_lets_the_others_in() -> None:
    clock = Clock()
    gate = ServerGate(4, clock, CircuitBreaker(threshold=1, pause_s=2.0))
    breaking(gate, await gate.enter("a"))
    clock.now = 2.0
    probe = await gate.enter("a")
    others = [soon(gate.enter("a")) for _ in range(3)]
    await settle()
    assert not any(task.done() for task in others)
    gate.leave(probe, Verdict.SERVED)
    await settle()
    assert sum(task.done() for task in others) >= 1  # it begins again with few at once
    while any(not task.done() for task in others):
        done = next(task for task in others if task.done())
        gate.leave(done.result(), Verdict.SERVED)
        others.remove(done)
        await settle()


@pytest.mark.asyncio
async def test_a_probe_that_fails_turns_away_those_who_waited_for_it() -> None:
    clock = Clock()
    gate = ServerGate(4, clock, CircuitBreaker(threshold=1, pause_s=1.0))
    breaking(gate, await gate.enter("a"))
    clock.now = 1.0
    probe = await gate.enter("a")
    other = soon(gate.enter("a"))
    await settle()
    breaking(gate, probe)
    with pytest.raises(NotAdmittedError) as caught:
        await other
    assert caught.value.retry_s == pytest.approx(2.0)


@pytest.mark.asyncio
async def test_a_cancelled_probe_leaves_the_probing_to_the_next() -> None:
    clock = Clock()
    gate = ServerGate(4, clock, CircuitBreaker(threshold=1, pause_s=1.0))
    breaking(gate, await gate.enter("a"))
    clock.now = 1.0
    probe = await gate.enter("a")
    other = soon(gate.enter("a"))
    await settle()
    gate.leave(probe, Verdict.ABANDONED)
    assert (await other).probe


@pytest.mark.asyncio
async def test_cancelled_waiters_leave_no_hole() -> None:
    gate = ServerGate(1)
    inside = await gate.enter("a")
    waiting = [soon(gate.enter("a")) for _ in range(3)]
    await settle()
    waiting[0].cancel()
    gate.leave(inside, Verdict.SERVED)  # lets waiting[1] in
    waiting[1].cancel()  # which is cancelled before it notices
    await settle()
    ticket = await waiting[2]
    assert gate.in_flight == 1
    gate.leave(ticket, Verdict.SERVED)
    assert gate.in_flight == 0


@pytest.mark.asyncio
async def test_retries_beyond_the_budget_wait_or_are_refused() -> None:
    clock = Clock()
    gate = ServerGate(64, clock, retries=RetryBudget(0.0, reserve=2, per_second=50.0, longest_wait_s=0.05))
    found = await asyncio.gather(*(gate.enter("a", retry=True) for _ in range(8)), return_exceptions=True)
    refused = [one for one in found if isinstance(one, NotAdmittedError)]
    assert len(refused) == 8 - 2 - 2  # two saved up, two within the longest wait
    assert all(one.retry_s is None for one in refused)


def test_several_event_loops_share_one_gate() -> None:
    gate, most, counts = ServerGate(3), [0], {"a": 0, "b": 0}
    lock, now = threading.Lock(), [0]

    async def work(tenant: str) -> None:
        ticket = await gate.enter(tenant)
        with lock:
            now[0] += 1
            most[0] = max(most[0], now[0])
        await asyncio.sleep(0.001)
        with lock:
            now[0] -= 1
            counts[tenant] += 1
        gate.leave(ticket, Verdict.SERVED)

    async def study(tenant: str) -> None:
        await asyncio.gather(*(work(tenant) for _ in range(100)))

    threads = [threading.Thread(target=lambda t=tenant: asyncio.run(study(t))) for tenant in counts]  # type: ignore[misc]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert counts == {"a": 100, "b": 100}
    assert most[0] == 3


def test_a_loop_that_died_waiting_does_not_take_its_place_with_it() -> None:
    gate = ServerGate(1)

    async def take() -> Ticket:
        return await gate.enter("a")

    inside = asyncio.run(take())
    loop = asyncio.new_event_loop()
    abandoned = loop.create_task(gate.enter("dead"))
    loop.run_until_complete(asyncio.sleep(0))
    loop.close()
    gate.leave(inside, Verdict.SERVED)
    assert asyncio.run(asyncio.wait_for(take(), 5))
    del abandoned
    gc.collect()


def test_a_server_has_one_gate_while_somebody_holds_it() -> None:
    one, two, other = gate_of("http://a/v1", 4), gate_of("http://a/v1", 16), gate_of("http://b/v1", 4)
    assert one is two
    assert one is not other
    assert one.limit == 16
    del one, two
    gc.collect()
    assert gate_of("http://a/v1", 4).limit == 4
