from __future__ import annotations

import itertools
import pickle
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from planner.archive import Archive, ArchiveError, BudgetExhausted

NUMBERS = itertools.count()
AMOUNTS = st.floats(0, 50, allow_nan=False) | st.integers(0, 50).map(float)
STEPS = st.lists(st.tuples(st.sampled_from("abcdef"), AMOUNTS, st.none() | st.floats(0, 1)), max_size=12)


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(limit=st.floats(1, 100), steps=STEPS)
def test_a_ledger_never_passes_its_limit_and_refuses_only_what_would(
    archive: Archive, limit: float, steps: list[tuple[str, float, float | None]]
) -> None:
    study = archive.studies.create(f"s{next(NUMBERS)}", "s", {}, seed=0).id
    entries: dict[str, float] = {}
    settled: set[str] = set()
    for key, amount, share in steps:
        refused = _refusal(archive, study, key, amount, limit)
        if refused is None:
            entries.setdefault(key, amount)
        else:
            assert key not in entries
            assert refused.usage + amount > limit
            assert refused.remaining <= amount
        if share is not None and key in entries:
            archive.ledgers.settle(study, "search", key, entries[key] * share)
            entries[key] = entries[key] if key in settled else entries[key] * share
            settled.add(key)
        usage = archive.ledgers.usage(study, "search")
        assert usage.total <= limit * (1 + 1e-12)
        assert usage.total == pytest.approx(sum(entries.values()))
        assert usage.settled == pytest.approx(sum(entries[k] for k in settled))


def _refusal(archive: Archive, study: str, key: str, amount: float, limit: float) -> BudgetExhausted | None:
    try:
        archive.ledgers.reserve(study, "search", key, "draws", amount, limit)
    except BudgetExhausted as error:
        return error
    return None


def test_a_refusal_carries_limit_usage_and_remaining_even_through_pickle(archive: Archive, study: str) -> None:
    archive.ledgers.reserve(study, "search", "a", "draws", 7, 10)
    with pytest.raises(BudgetExhausted, match="7 of 10 draws") as caught:
        archive.ledgers.reserve(study, "search", "b", "draws", 4, 10)
    for error in (caught.value, pickle.loads(pickle.dumps(caught.value))):
        assert (error.limit, error.usage, error.remaining, error.unit) == (10, 7, 3, "draws")
    assert archive.ledgers.usage(study, "search").total == 7


def test_the_same_entry_is_reserved_and_settled_once(archive: Archive, study: str) -> None:
    for _ in range(2):
        archive.ledgers.reserve(study, "search", "a", "draws", 8, 10)
    assert archive.ledgers.usage(study, "search").reserved == 8
    for amount in (5, 6):
        archive.ledgers.settle(study, "search", "a", amount)
    archive.ledgers.reserve(study, "search", "a", "draws", 8, 10)
    usage = archive.ledgers.usage(study, "search")
    assert (usage.settled, usage.reserved, usage.unit) == (5, 0, "draws")


def test_what_was_not_spent_can_be_reserved_again(archive: Archive, study: str) -> None:
    archive.ledgers.reserve(study, "search", "a", "draws", 10, 10)
    archive.ledgers.settle(study, "search", "a", 0)
    archive.ledgers.reserve(study, "search", "b", "draws", 10, 10)
    usage = archive.ledgers.usage(study, "search")
    assert (usage.settled, usage.reserved) == (0, 10)


def test_ledgers_and_studies_do_not_mix(archive: Archive, study: str) -> None:
    archive.studies.create("other", "other", {}, seed=0)
    archive.ledgers.reserve(study, "search", "a", "draws", 10, 10)
    archive.ledgers.reserve(study, "proposer", "a", "tokens", 10, 10)
    archive.ledgers.reserve("other", "search", "a", "draws", 10, 10)
    assert archive.ledgers.usage(study, "proposer").unit == "tokens"


def test_without_a_limit_everything_is_kept_count_of(archive: Archive, study: str) -> None:
    archive.ledgers.reserve(study, "search", "a", "draws", 1e15, None)
    assert archive.ledgers.usage(study, "search").reserved == 1e15


def test_a_ledger_has_one_unit(archive: Archive, study: str) -> None:
    archive.ledgers.reserve(study, "search", "a", "draws", 1, 10)
    with pytest.raises(ArchiveError, match="counts draws, not flops"):
        archive.ledgers.reserve(study, "search", "b", "flops", 1, 10)


@pytest.mark.parametrize("amount", [-1.0, float("nan"), float("inf")])
def test_what_is_no_amount_is_refused(archive: Archive, study: str, amount: float) -> None:
    with pytest.raises(ArchiveError, match="finite amounts"):
        archive.ledgers.reserve(study, "search", "a", "draws", amount, None)


def test_settling_what_was_never_reserved_is_an_error(archive: Archive, study: str) -> None:
    with pytest.raises(ArchiveError, match="reserve first"):
        archive.ledgers.settle(study, "search", "a", 1)


def test_reservations_made_at_once_share_the_limit(archive: Archive, study: str) -> None:
    def reserve(number: int) -> bool:
        try:
            archive.ledgers.reserve(study, "search", f"entry {number}", "draws", 10, 45)
        except BudgetExhausted:
            return False
        return True

    with ThreadPoolExecutor(8) as threads:
        granted = sum(threads.map(reserve, range(12)))
    assert granted == 4
    assert archive.ledgers.usage(study, "search").total == 40
