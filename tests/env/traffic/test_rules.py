"""The plain rules behind a server's gate, on a clock that only moves when told."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from env.traffic import AdaptiveLimit, CircuitBreaker, FairQueue, RetryBudget

# Adaptive limit ------------------------------------------------------------------------------------------------------


def test_the_limit_starts_at_its_ceiling_and_never_leaves_one_to_ceiling() -> None:
    limit = AdaptiveLimit(16)
    assert limit.value == 16
    for now in range(20):
        limit.overloaded(sent=float(now), now=now + 0.5)
    assert limit.value == 1
    for _ in range(10_000):
        limit.served(in_flight=limit.value)
    assert limit.value == 16


def test_signals_of_one_round_halve_the_limit_once() -> None:
    limit = AdaptiveLimit(64)
    for _ in range(30):
        limit.overloaded(sent=0.0, now=1.0)
    assert limit.value == 32
    limit.overloaded(sent=1.5, now=2.0)
    assert limit.value == 16


def test_the_limit_grows_by_one_a_round_near_where_it_broke_and_faster_far_below() -> None:
    limit = AdaptiveLimit(64)
    limit.collapse(now=1.0)
    assert limit.value == 1
    for _ in range(31):
        limit.served(in_flight=limit.value)
    assert limit.value == 32  # one a success up to half of 64
    for _ in range(33):
        limit.served(in_flight=limit.value)
    assert limit.value in (32, 33)  # one a round from there on


def test_successes_at_low_load_say_nothing_about_a_higher_limit() -> None:
    limit = AdaptiveLimit(64)
    limit.overloaded(sent=0.0, now=1.0)
    for _ in range(1000):
        limit.served(in_flight=3)
    assert limit.value == 32


def test_a_server_that_takes_four_at_once_is_held_near_four() -> None:
    limit, now, seen = AdaptiveLimit(64), 0.0, []
    for _ in range(400):
        sent, now = now, now + 1.0
        for number in range(limit.value):
            if number < 4:
                limit.served(in_flight=limit.value)
            else:
                limit.overloaded(sent, now)
        seen.append(limit.value)
    assert min(seen[20:]) >= 2
    assert max(seen[20:]) <= 5


def test_a_raised_ceiling_lifts_a_limit_that_was_never_lowered_only() -> None:
    fresh, lowered = AdaptiveLimit(8), AdaptiveLimit(8)
    lowered.overloaded(sent=0.0, now=1.0)
    for limit in (fresh, lowered):
        limit.raise_ceiling(32)
    assert (fresh.value, lowered.value) == (32, 4)
    fresh.raise_ceiling(2)
    assert fresh.ceiling == 32


# Circuit breaker -----------------------------------------------------------------------------------------------------


def opened(threshold: int = 3) -> CircuitBreaker:
    breaker = CircuitBreaker(threshold, pause_s=1.0, longest_pause_s=8.0)
    for number in range(threshold):
        assert breaker.failed(0.0, "HTTP 500: boom") is (number == threshold - 1)
    return breaker


def test_the_breaker_opens_after_failures_in_a_row_and_says_why() -> None:
    breaker = opened()
    assert breaker.state == "open"
    assert breaker.admit(0.5) == "refused"
    refusal = breaker.refusal(0.5)
    assert refusal is not None
    reason, seconds = refusal
    assert "3 times in a row" in reason
    assert "HTTP 500: boom" in reason
    assert seconds == pytest.approx(0.5)


def test_a_success_in_between_keeps_it_closed() -> None:
    breaker = CircuitBreaker(threshold=3)
    for _ in range(10):
        breaker.failed(0.0, "x")
        breaker.failed(0.0, "x")
        breaker.succeeded()
    assert breaker.state == "closed"


def test_after_the_pause_one_probe_goes_and_the_others_wait_for_it() -> None:
    breaker = opened()
    assert breaker.admit(1.0) == "probe"
    assert [breaker.admit(1.0 + n) for n in range(3)] == ["wait"] * 3
    assert breaker.refusal(1.5) is None
    breaker.succeeded()
    assert breaker.admit(2.0) == "go"


def test_each_probe_that_fails_doubles_the_pause_up_to_the_longest() -> None:
    breaker, now, pauses = opened(), 0.0, []
    for _ in range(6):
        refusal = breaker.refusal(now)
        assert refusal is not None
        pauses.append(refusal[1])
        now += refusal[1]
        assert breaker.admit(now) == "probe"
        assert breaker.failed(now, "still", probe=True)
    assert pauses == [1.0, 2.0, 4.0, 8.0, 8.0, 8.0]
    assert breaker.admit(now + 8.0) == "probe"
    breaker.succeeded()
    assert breaker.failed(now, "x") is False
    assert breaker.state == "closed"


def test_late_failures_of_requests_sent_before_it_opened_change_nothing() -> None:
    breaker = opened()
    assert breaker.failed(0.9, "late") is False
    assert breaker.admit(1.0) == "probe"
    assert breaker.failed(1.1, "late") is False
    assert breaker.admit(1.2) == "wait"


def test_a_probe_that_is_given_up_leaves_its_place_to_the_next() -> None:
    breaker = opened()
    assert breaker.admit(1.0) == "probe"
    breaker.abandoned()
    assert breaker.admit(1.0) == "probe"


# Retry budget --------------------------------------------------------------------------------------------------------


def sent_retries(attempts: int, seconds: float, of_ten: int) -> int:
    """Retries granted at once over a stretch of time while so many of ten first attempts want one."""
    budget, granted = RetryBudget(share=0.2, reserve=10, per_second=1.0), 0
    for number in range(attempts):
        budget.first_attempt()
        if number % 10 < of_ten:
            granted += budget.take(number * seconds / attempts) == 0.0
    return granted


def test_few_retries_go_at_once() -> None:
    assert sent_retries(attempts=1000, seconds=1.0, of_ten=1) == 100


def test_many_retries_are_held_to_their_share() -> None:
    granted = sent_retries(attempts=1000, seconds=1.0, of_ten=10)
    assert granted <= 0.2 * 1000 + 10 + 1 + 1


def test_an_empty_budget_lets_retries_wait_and_refuses_those_that_would_wait_too_long() -> None:
    budget = RetryBudget(share=0.0, reserve=1, per_second=2.0, longest_wait_s=2.0)
    waits = [budget.take(0.0) for _ in range(8)]
    assert waits[:5] == [0.0, 0.5, 1.0, 1.5, 2.0]
    assert waits[5:] == [None] * 3
    assert budget.take(10.0) == 0.0


@given(st.lists(st.tuples(st.booleans(), st.floats(0, 5)), max_size=200))
def test_retries_never_exceed_reserve_share_and_time(events: list[tuple[bool, float]]) -> None:
    budget, now, firsts, due = RetryBudget(0.2, 5, 1.0, longest_wait_s=1e9), 0.0, 0, []
    for first, pause in events:
        now += pause
        if first:
            budget.first_attempt()
            firsts += 1
        else:
            wait = budget.take(now)
            assert wait is not None
            due.append(now + wait)
    for count, moment in enumerate(sorted(due), 1):
        assert count <= 5 + 0.2 * firsts + moment + 1e-6


# Fair queue ----------------------------------------------------------------------------------------------------------


def test_tenants_are_served_in_turn_and_each_in_its_own_order() -> None:
    queue: FairQueue[str] = FairQueue()
    for number in range(4):
        queue.push("big", f"big{number}")
    queue.push("small", "small0")
    queue.push("late", "late0")
    assert [queue.pop() for _ in range(len(queue))] == ["big0", "small0", "late0", "big1", "big2", "big3"]
    with pytest.raises(IndexError):
        queue.pop()


@given(st.lists(st.tuples(st.sampled_from("abcd"), st.integers(0, 3)), max_size=60))
def test_nothing_is_lost_and_no_tenant_is_served_twice_while_another_waits(steps: list[tuple[str, int]]) -> None:
    queue: FairQueue[tuple[str, int]] = FairQueue()
    waiting: dict[str, list[tuple[str, int]]] = {}
    served_since: Counter[tuple[str, str]] = Counter()
    for number, (tenant, kind) in enumerate(steps):
        if kind < 2:
            queue.push(tenant, (tenant, number))
            if not waiting.setdefault(tenant, []):
                for other in "abcd":
                    served_since[tenant, other] = 0
            waiting[tenant].append((tenant, number))
        elif kind == 2 and waiting.get(tenant):
            assert queue.discard(tenant, waiting[tenant][0])
            assert not queue.discard(tenant, waiting[tenant].pop(0))
        elif len(queue):
            who, item = queue.pop()
            assert waiting[who].pop(0) == (who, item)
            for other, line in waiting.items():
                if other != who and line:
                    served_since[other, who] += 1
                    assert served_since[other, who] <= 1
                served_since[who, other] = 0
    assert len(queue) == sum(map(len, waiting.values()))
    assert sorted(queue.drain()) == sorted(item for line in waiting.values() for item in line)
