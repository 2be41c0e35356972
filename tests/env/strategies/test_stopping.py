"""Stopping rules against independent references: numerical integration, Monte Carlo, brute force over small cases."""

from __future__ import annotations

import math
from collections import Counter
from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.integrate import quad

from env.strategies.stopping import (
    AdaptiveConsistency,
    FixedSamples,
    ProbeCut,
    StoppingRule,
    TrendRule,
    WindowConsistency,
    samples_needed,
    stable_runs,
)
from env.strategies.tallies import (
    NO_ANSWER,
    Ints,
    Tally,
    VoteCounts,
    leader_probability,
    majority_probability,
)

ROW = np.zeros(1, dtype=np.int64)


def a_tally(first: float, second: float, **more: float) -> Tally:
    values = {"total": first + second, "begun": 8, "running": 0, "streak": 0, "shortest": 1000.0, **more}
    return Tally(np.array([first]), np.array([second]), **{k: np.array([v]) for k, v in values.items()})  # type: ignore[arg-type]


def counted(answers: list[int], tokens: list[float], weights: list[float]) -> VoteCounts:
    votes = VoteCounts(1, 1 + max([0, *answers]))
    for answer, length, weight in zip(answers, tokens, weights, strict=True):
        votes.add(ROW, np.array([answer]), np.array([length]), np.array([weight]))
    return votes


@settings(deadline=None)
@given(first=st.floats(0, 60), second=st.floats(0, 60))
def test_the_majority_probability_is_the_integral_of_the_beta_density(first: float, second: float) -> None:
    peak = first / (first + second) if first + second else 0.5

    def log_density(p: float) -> float:
        return (first * math.log(p) if first else 0.0) + (second * math.log1p(-p) if second else 0.0)

    highest = log_density(min(max(peak, 1e-12), 1 - 1e-12))

    def area(low: float, high: float) -> float:
        inside = [peak] if low < peak < high else None
        return float(quad(lambda p: math.exp(log_density(p) - highest), low, high, limit=200, points=inside)[0])

    over = area(0.5, 1.0)
    expected = over / (over + area(0.0, 0.5))
    assert majority_probability(np.array([first]), np.array([second]))[0] == pytest.approx(expected, abs=1e-6)


@settings(deadline=None)
@given(first=st.integers(1, 40), second=st.integers(1, 40))
def test_between_two_answers_dirichlet_and_beta_agree(first: int, second: int) -> None:
    leading, trailing = max(first, second), min(first, second)
    found = leader_probability(np.array([[float(first), float(second)]]))
    assert found[0] == pytest.approx(majority_probability(np.array([leading]), np.array([trailing]))[0], abs=1e-5)


@pytest.mark.parametrize("counts", [(5, 3, 1), (4, 4, 4), (9, 2, 2, 2, 1), (1, 1, 1, 1, 1, 1), (30, 22, 5)])
def test_among_many_answers_the_leader_wins_as_often_as_in_sampled_posteriors(counts: tuple[int, ...]) -> None:
    shares = np.random.default_rng(0).dirichlet(np.array(counts) + 1.0, size=200_000)
    expected = (shares.argmax(1) == int(np.argmax(counts))).mean()
    padded = np.array([[*map(float, counts), 0.0, 0.0]])
    assert leader_probability(padded)[0] == pytest.approx(expected, abs=0.006)


votes_seen = st.lists(st.tuples(st.integers(-1, 3), st.integers(1, 5)), max_size=24)


@settings(deadline=None)
@given(seen=votes_seen)
def test_votes_are_counted_as_a_plain_count_does(seen: list[tuple[int, int]]) -> None:
    answers, weights = [a for a, _ in seen], [float(w) for _, w in seen]
    tokens = [float(100 + 7 * i % 13) for i in range(len(seen))]
    votes = counted(answers, tokens, weights)
    tally = votes.tally(ROW, np.array([len(seen)]), np.array([0]))
    totals: Counter[int] = Counter()
    reached: list[tuple[float, int]] = [(0.0, NO_ANSWER)]
    for answer, weight in zip(answers, weights, strict=True):
        if answer != NO_ANSWER:
            totals[answer] += int(weight)
            if totals[answer] > max(w for w, _ in reached):
                reached.append((float(totals[answer]), answer))
    ranked = sorted(totals.values(), reverse=True)
    assert tally.first[0] == (ranked[0] if ranked else 0)
    assert tally.second[0] == (ranked[1] if len(ranked) > 1 else 0)
    assert tally.total[0] == sum(ranked)
    assert votes.leader(ROW)[0] == reached[-1][1]
    streak = 0
    for answer in reversed(answers):
        if answer == NO_ANSWER or answer != answers[-1]:
            break
        streak += 1
    assert tally.streak[0] == streak
    readable = [t for t, a in zip(tokens, answers, strict=True) if a != NO_ANSWER]
    assert tally.shortest[0] == min(readable, default=math.inf)


@settings(deadline=None)
@given(seen=votes_seen, probed=st.lists(st.integers(-1, 4), min_size=1, max_size=6))
def test_confirmations_count_for_answers_that_were_finished_only(
    seen: list[tuple[int, int]], probed: list[int]
) -> None:
    answers, weights = [a for a, _ in seen], [float(w) for _, w in seen]
    votes = VoteCounts(1, 5)
    for answer, weight in zip(answers, weights, strict=True):
        votes.add(ROW, np.array([answer]), np.array([9.0]), np.array([weight]))
    before = votes.tally(ROW, np.array([9]), np.array([len(probed)]))
    tally, leader = votes.confirmed(ROW, before, np.array([probed]), np.array([0.5]))
    totals = {a: sum(w for b, w in zip(answers, weights, strict=True) if b == a) for a in set(answers) - {NO_ANSWER}}
    for answer in probed:
        if answer in totals:
            totals[answer] += 0.5
    ranked = sorted(totals.values(), reverse=True)
    assert tally.first[0] == (ranked[0] if ranked else 0)
    assert tally.second[0] == (ranked[1] if len(ranked) > 1 else 0)
    assert tally.total[0] == sum(ranked)
    assert leader[0] == NO_ANSWER if not totals else totals[int(leader[0])] == ranked[0]


@pytest.mark.parametrize(
    ("answers", "needed"),
    [
        # 1 - 2^-(n + 1) >= 0.95 first at n = 4
        ("aaaaaaa", 4),
        ("baaaaaaaa", 7),
        ("abababab", 8),
        ("", 0),
    ],
)
def test_asc_stops_where_its_formula_says(answers: str, needed: int) -> None:
    assert samples_needed(AdaptiveConsistency(0.95), list(answers), [100] * len(answers)) == needed


def test_the_dirichlet_criterion_waits_longer_among_many_answers() -> None:
    answers: list[str | None] = [*"abcde", *"aaaaaaaaaaaa"]
    tokens = [100] * len(answers)
    beta = samples_needed(AdaptiveConsistency(0.9, "beta"), answers, tokens)
    dirichlet = samples_needed(AdaptiveConsistency(0.9, "dirichlet"), answers, tokens)
    assert 5 < beta < dirichlet < len(answers)


@settings(deadline=None)
@given(answers=st.lists(st.sampled_from(["a", "b", None]), max_size=20), window=st.integers(1, 4))
def test_esc_stops_after_the_first_window_of_one_answer(answers: list[str | None], window: int) -> None:
    expected = len(answers)
    for end in range(window, len(answers) + 1, window):
        part = set(answers[end - window : end])
        if len(part) == 1 and None not in part:
            expected = end
            break
    assert samples_needed(WindowConsistency(window), answers, [100] * len(answers)) == expected


def test_esc_does_not_judge_a_window_that_is_still_running() -> None:
    rule = WindowConsistency(4)
    assert rule.stops(a_tally(4, 0, streak=4, begun=4))[0]
    assert not rule.stops(a_tally(4, 0, streak=4, begun=8, running=1))[0]


@settings(max_examples=60, deadline=None)
@given(
    answers=st.lists(st.integers(0, 2), min_size=1, max_size=5),
    tokens=st.lists(st.integers(500, 20_000), min_size=5, max_size=5),
    running=st.integers(1, 4),
    fade=st.floats(1000, 20_000),
)
def test_samples_cut_by_settling_could_not_have_overturned_the_leader(
    answers: list[int], tokens: list[int], running: int, fade: float
) -> None:
    rule = TrendRule(fade=fade, threshold=0.99)
    tokens = sorted(tokens[: len(answers)])
    weights = [math.exp(-t / fade) for t in tokens]
    votes = counted(answers, [float(t) for t in tokens], weights)
    settles = rule.settles_at(votes.tally(ROW, np.array([9]), np.array([running])))[0]
    if math.isinf(settles):
        return
    at = max(settles, tokens[-1])
    totals = np.array([sum(w for w, a in zip(weights, answers, strict=True) if a == b) for b in range(3)])
    for outcome in product(range(3), repeat=running):
        late = totals + np.array([outcome.count(b) * math.exp(-at / fade) for b in range(3)])
        assert late[votes.leader(ROW)[0]] >= late.max() - 1e-12 * late.max()


def test_a_fading_vote_is_cut_where_it_would_weigh_less_than_the_floor() -> None:
    rule = TrendRule(fade=8000, threshold=0.99, floor=0.5)
    settles = rule.settles_at(a_tally(0.1, 0.1, shortest=3000.0, running=3))[0]
    assert rule.weight(np.array([settles]))[0] / rule.weight(np.array([3000.0]))[0] == pytest.approx(0.5)


def test_nothing_settles_before_anybody_voted() -> None:
    assert math.isinf(TrendRule(8000, 0.9, floor=0.5).settles_at(a_tally(0, 0, shortest=math.inf, running=4))[0])


def test_short_samples_outvote_long_ones() -> None:
    rule = TrendRule(fade=5000, threshold=0.8)
    tokens = [20_000, 20_000, 20_000, 4000]
    votes = counted([0, 0, 0, 1], [float(t) for t in tokens], list(rule.weight(np.array(tokens, dtype=float))))
    assert votes.leader(ROW)[0] == 1


@settings(deadline=None)
@given(first=st.integers(0, 12), second=st.integers(0, 12), length=st.floats(500, 30_000))
def test_with_samples_of_one_length_the_trend_rule_is_asc(first: int, second: int, length: float) -> None:
    leading, trailing = max(first, second), min(first, second)
    rule, asc = TrendRule(fade=7000, threshold=0.9), AdaptiveConsistency(0.9)
    weight = float(rule.weight(np.array([length]))[0])
    faded = a_tally(leading * weight, trailing * weight, shortest=length if first + second else math.inf)
    assert rule.stops(faded)[0] == asc.stops(a_tally(leading, trailing))[0]


def test_giving_up_needs_scattered_votes_enough_samples_and_none_running() -> None:
    rule = TrendRule(7000, 0.999, give_up_share=0.3, give_up_after=8)
    assert rule.stops(a_tally(2, 2, total=10.0))[0]
    assert not rule.stops(a_tally(4, 2, total=10.0))[0]
    assert not rule.stops(a_tally(2, 2, total=10.0, begun=7))[0]
    assert not rule.stops(a_tally(2, 2, total=10.0, running=1))[0]


@pytest.mark.parametrize("rule", [FixedSamples(), AdaptiveConsistency(), WindowConsistency(), TrendRule(7000, 0.9)])
def test_no_rule_stops_before_anybody_voted(rule: StoppingRule) -> None:
    assert not rule.stops(a_tally(0, 0, shortest=math.inf))[0]


@pytest.mark.parametrize("wrong", [{"fade": 0.0}, {"fade": 5000.0, "floor": 1.0}])
def test_parameters_that_make_no_sense_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=r"fade|floor"):
        TrendRule(**{"threshold": 0.9, **wrong})


probe_lists = st.lists(st.integers(-1, 2), min_size=1, max_size=12)


@settings(deadline=None)
@given(probes=probe_lists, stable=st.integers(1, 4), share=st.sampled_from([0.0, 0.5, 0.8]))
def test_a_sample_is_cut_at_the_first_stable_probe(probes: list[int], stable: int, share: float) -> None:
    expected = -1
    for end in range(1, len(probes) + 1):
        run = 0
        while run < end and probes[end - 1 - run] == probes[end - 1] != NO_ANSWER:
            run += 1
        if run >= stable and run >= share * end:
            expected = end - 1
            break
    codes: Ints = np.array([probes, probes[::-1]])
    assert ProbeCut(stable, share).cuts(codes)[0] == expected


def test_runs_of_probes_break_at_unreadable_ones() -> None:
    assert stable_runs(np.array([[5, 5, -1, 5, 5, 5, 2]])).tolist() == [[1, 2, 0, 1, 2, 3, 1]]
