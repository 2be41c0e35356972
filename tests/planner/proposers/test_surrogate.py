from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from env.allocation import Allocation, StageSetting
from planner.history import CurveEstimate, TrialView
from planner.proposers.ablation import Ablation
from planner.proposers.observations import MAX_OBSERVATIONS, Observation, from_log, observations, to_log
from planner.proposers.optimum import best_of_draws, best_within, undominated
from planner.proposers.spending import CHANGED, NewDraws
from planner.proposers.stage_tables import StageTables
from planner.proposers.surrogate import Surrogate, hypotheses
from planner.space import SearchSpace
from tests.simulated import simulated_spec

SPACE = SearchSpace(simulated_spec())
ALL = list(SPACE.allocations())


def allocation(find: int = 1, read: int = 1, solve: int = 1, model: str = "small") -> Allocation:
    return Allocation.of({
        "find": StageSetting(model, "vote", find), "read": StageSetting(model, "vote", read),
        "solve": StageSetting(model, "vote", solve),
    })  # fmt: skip


def trial(number: int, of: Allocation, score: float, **more: object) -> TrialView:
    return TrialView(number, 0, of, score, 0.02, 1.0, 1.0, 10, **more)  # type: ignore[arg-type]


def seen(*scores: float) -> list[Observation]:
    return [Observation(a, s, 0.002) for a, s in zip(ALL[:: len(ALL) // len(scores)], scores, strict=False)]


def test_before_the_first_trial_larger_models_and_more_samples_are_expected_to_score_higher() -> None:
    mean, _ = Surrogate([], SPACE).predict([allocation(), allocation(4, 4, 4), allocation(model="large")])
    assert mean[0] < mean[1]
    assert mean[0] < mean[2]


def test_what_one_model_gains_from_samples_moves_the_expectation_for_another() -> None:
    flat = [Observation(allocation(k), 0.5, 0.002) for k in (1, 4, 16)]
    steep = [Observation(allocation(k), 0.3 + 0.1 * np.log2(k), 0.002) for k in (1, 4, 16)]
    for data in (flat, steep):
        data.append(Observation(allocation(model="large"), 0.5, 0.002))
    asked = [allocation(model="large").replace("find", StageSetting("large", "vote", k)) for k in (1, 8)]
    rises = [float(np.diff(from_log(Surrogate(d, SPACE).predict(asked)[0]))[0]) for d in (flat, steep)]
    assert rises[1] > rises[0] + 0.03


@given(st.lists(st.floats(0.05, 0.95), min_size=1, max_size=6), st.integers(0, 5))
@settings(max_examples=15, deadline=None)
def test_joint_draws_have_the_predicted_moments(scores: list[float], seed: int) -> None:
    surrogate = Surrogate(seen(*scores), SPACE)
    x = surrogate.tables.places(ALL[:: len(ALL) // 12])
    mean, deviation = surrogate.predict_places(x)
    drawn = surrogate.sample(x, 6000, np.random.default_rng(seed), hypotheses=400)
    assert np.abs(drawn.mean(axis=0) - mean).max() < 0.02 + 0.06 * deviation.max()
    assert drawn.std(axis=0) == pytest.approx(deviation, rel=0.15, abs=0.01)


def test_screening_agrees_with_the_full_posterior_where_stages_only_add_up() -> None:
    surrogate = Surrogate(seen(0.3, 0.5, 0.4, 0.7), SPACE, joint=False)
    x = surrogate.tables.places(ALL)
    full, quick = surrogate.predict_places(x)[0], surrogate.screen(x)[0]
    assert np.corrcoef(full, quick)[0, 1] > 0.98


def test_a_stage_score_says_which_stage_made_the_difference() -> None:
    # Both trials change two stages at once; the first stage's own score says it was not the one.
    low, high = allocation(1, 1, 1), allocation(8, 8, 1)
    told = [
        trial(1, low, 0.4, stage_scores={"find": 0.8}),
        trial(2, high, 0.6, stage_scores={"find": 0.8}),
    ]
    untold = [trial(1, low, 0.4), trial(2, high, 0.6)]
    asked = [allocation(8, 1, 1), allocation(1, 8, 1)]
    gaps = []
    for trials in (told, untold):
        mean, _ = Surrogate(observations(trials), SPACE).predict(asked)
        gaps.append(float(from_log(mean[1]) - from_log(mean[0])))
    assert gaps[0] > gaps[1] + 0.02


def test_points_of_one_trial_share_its_noise() -> None:
    points = tuple(CurveEstimate(k, 0.5 + 0.02 * k, 1.0) for k in (1, 2, 4))
    found = observations([trial(3, allocation(8), 0.66, curves={"find": points})])
    assert {o.trial for o in found} == {3}
    assert len({o.shared for o in found}) == 1
    assert found[0].shared > 0


def test_of_ten_thousand_trials_the_best_and_the_newest_are_observed() -> None:
    trials = [
        trial(i, allocation(1 + i % 16, 1 + i // 16 % 700, 1), 0.3 + 0.00005 * (i * 7919 % 10_000))
        for i in range(10_000)
    ]
    found = observations(trials)
    assert len(found) <= MAX_OBSERVATIONS
    best = max(trials, key=lambda t: t.score)
    assert {best.trial_no, 9_999} <= {o.trial for o in found}


def test_without_insights_the_surrogate_has_no_use_for_size_or_saturation() -> None:
    plain = StageTables(SPACE, Ablation(without_insight_1=True, without_insight_2=True))
    mean, _ = Surrogate([], tables=plain).predict([allocation(), allocation(16), allocation(model="large")])
    assert np.ptp(mean) == pytest.approx(0, abs=1e-12)


@given(
    st.lists(st.lists(st.tuples(st.floats(0, 10), st.floats(-5, 5)), min_size=1, max_size=6), min_size=1, max_size=4),
    st.floats(0, 40),
)
@settings(max_examples=200, deadline=None)
def test_the_optimum_within_a_budget_equals_that_of_trying_everything(
    stages: list[list[tuple[float, float]]], limit: float
) -> None:
    prices = [np.array([p for p, _ in s]) for s in stages]
    values = [np.array([v for _, v in s]) for s in stages]
    choices = [
        (sum(values[i][c] for i, c in enumerate(pick)), pick)
        for pick in itertools.product(*(range(len(s)) for s in stages))
        if sum(prices[i][c] for i, c in enumerate(pick)) <= limit
    ]
    found = best_within(values, prices, limit)
    if found is None:
        assert not choices or min(sum(p.min() for p in prices), limit) >= limit * (1 - 1e-9)
    else:
        assert sum(prices[i][c] for i, c in enumerate(found)) <= limit * (1 + 1e-9)
        if choices:
            assert sum(values[i][c] for i, c in enumerate(found)) >= max(choices)[0] - 1e-9


@pytest.mark.parametrize("limit", [0.2, 0.9, 1.6])
@pytest.mark.parametrize("sizes", [(7,), (9, 5), (6, 12, 8), (30, 20, 30)])
def test_optima_of_many_draws_are_those_of_each_draw(sizes: tuple[int, ...], limit: float) -> None:
    generator = np.random.default_rng([*sizes, int(10 * limit)])
    prices = [generator.random(n) for n in sizes]
    values = [generator.random((12, n)) for n in sizes]
    each = [best_within([of[i] for of in values], prices, limit) for i in range(12)]
    assert best_of_draws(values, prices, limit) == [row for row in each if row is not None]


def test_prior_variances_are_the_diagonal_of_the_prior_covariance() -> None:
    tables = StageTables(SPACE)
    x = tables.places(ALL[::11])
    for spreads in hypotheses():
        for stage in range(x.shape[1]):
            whole = tables.kernels(stage, x[:, stage], x[:, stage]).worth(spreads)
            assert tables.variance(stage, x[:, stage], spreads) == pytest.approx(np.diag(whole))


def test_a_realistic_space_is_solved_exactly_in_a_moment() -> None:
    generator = np.random.default_rng(0)
    values = [np.sort(generator.random(800)) for _ in range(4)]
    prices = [np.sort(generator.random(800)) for _ in range(4)]
    found = best_within(values, prices, 2.0)
    assert found is not None
    # No single exchange within the budget is better.
    spent = sum(prices[i][c] for i, c in enumerate(found))
    for i, c in enumerate(found):
        room = 2.0 - spent + prices[i][c]
        assert values[i][prices[i] <= room].max() <= values[i][c] + 1e-12


def test_dominated_pairs_are_left_out() -> None:
    kept = undominated(np.array([1.0, 1.0, 2.0, 3.0]), np.array([5.0, 6.0, 6.0, 7.0]))
    assert kept.tolist() == [1, 3]


def test_new_draws_are_those_the_bank_does_not_hold() -> None:
    spent = NewDraws([trial(1, allocation(4, 2, 1), 0.5)])
    assert spent.per_example(allocation(4, 2, 1)) == 0
    assert spent.per_example(allocation(4, 2, 8)) == 7
    # Another number of samples upstream changes some upstream answers: their draws are new.
    assert spent.per_example(allocation(8, 2, 1)) == pytest.approx(4 + CHANGED * 3)
    assert NewDraws([trial(1, allocation(4, 2, 1), 0.5)], reused=False).per_example(allocation(4, 2, 1)) == 7


@given(st.floats(0, 1))
def test_the_scale_on_which_stages_add_up_can_be_undone(score: float) -> None:
    assert from_log(to_log(score)) == pytest.approx(score, abs=1e-12)
