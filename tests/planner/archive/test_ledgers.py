from __future__ import annotations

import itertools
import pickle
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from planner.archive import Archive, ArchiveError, BudgetExhausted, Claim, open_archive

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


def the_claims(amounts: tuple[float, float], limits: tuple[float, float]) -> list[Claim]:
    return [
        Claim("search", "draws", amounts[0], limits[0]),
        Claim("search_tokens", "tokens", amounts[1], limits[1]),
        Claim("search_flops", "FLOPs", amounts[0] * 7, None),
    ]


PAIRS = st.tuples(st.integers(0, 40), st.integers(0, 40)).map(lambda pair: (float(pair[0]), float(pair[1])))
BATCHES = st.lists(st.lists(st.tuples(PAIRS, st.floats(0, 1)), min_size=1, max_size=4), max_size=5)


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(limits=PAIRS, batches=BATCHES, crashes=st.sets(st.integers(0, 40)))
def test_batches_never_pass_any_limit_and_decide_alike_after_a_crash_at_any_point(
    archive: Archive, url: str, limits: tuple[float, float], batches: list[list[tuple[tuple[float, float], float]]],
    crashes: set[int],
) -> None:  # fmt: skip
    """Each batch is reserved, run and settled as steps do: begun again from the start wherever it was cut off."""
    study = archive.studies.create(f"b{next(NUMBERS)}", "s", {}, seed=0).id
    moment = itertools.count()
    spent = [0.0, 0.0]
    for number, batch in enumerate(batches):
        keys = [f"trial-{number}-{i}" for i in range(len(batch))]
        claims = {key: the_claims(amounts, limits) for key, (amounts, _) in zip(keys, batch, strict=True)}
        decided: tuple[str, ...] | None = None
        done = False
        while not done:
            decision = archive.ledgers.reserve_batch(study, claims)
            if decided:
                assert decision.granted == decided
            decided = decision.granted
            done = True
            for key, (amounts, share) in zip(keys, batch, strict=True):
                if next(moment) in crashes:
                    done = False
                    break
                if key in decided:
                    archive.ledgers.settle_entry(
                        study, key, {"search": amounts[0] * share, "search_tokens": amounts[1], "search_flops": 1.0}
                    )
            usages = archive.ledgers.usages(study)
            for ledger, limit in zip(("search", "search_tokens"), limits, strict=True):
                assert ledger not in usages or usages[ledger].total <= limit + 1e-9  # type: ignore[index]
        spent[0] += sum(a[0] * share for key, (a, share) in zip(keys, batch, strict=True) if key in decided)
        spent[1] += sum(a[1] for key, (a, _) in zip(keys, batch, strict=True) if key in decided)
    with open_archive(url) as reopened:
        usages = reopened.ledgers.usages(study)
    for ledger, amount in zip(("search", "search_tokens"), spent, strict=True):
        assert (usages[ledger].settled if ledger in usages else 0.0) == pytest.approx(amount)  # type: ignore[index]


def test_an_entry_that_does_not_fit_one_ledger_is_in_none_and_leaves_room_for_others(
    archive: Archive, study: str
) -> None:
    limits = (100.0, 50.0)
    decision = archive.ledgers.reserve_batch(
        study,
        {"a": the_claims((30, 30), limits), "b": the_claims((30, 30), limits), "c": the_claims((30, 20), limits)},
    )
    assert decision.granted == ("a", "c")
    assert decision.refused["b"].ledger == "search_tokens"
    assert decision.refused["b"].remaining == 20
    usages = archive.ledgers.usages(study)
    assert {ledger: usage.reserved for ledger, usage in usages.items()} == {
        "search": 60,
        "search_tokens": 50,
        "search_flops": 420,
    }


def test_settling_an_entry_in_a_ledger_it_is_not_in_is_an_error(archive: Archive, study: str) -> None:
    archive.ledgers.reserve_batch(study, {"a": [Claim("search", "draws", 1.0)]})
    with pytest.raises(ArchiveError, match="search_tokens ledger"):
        archive.ledgers.settle_entry(study, "a", {"search": 1.0, "search_tokens": 1.0})
    assert archive.ledgers.usages(study)["search"].settled == 0
