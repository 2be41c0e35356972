from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from planner.bench.problem import Conditions
from planner.bench.simulator import FAMILIES, Family, SimulatedProblem, simulated
from planner.bench.voting import draw, expected_outcomes, outcome, success

SMALL = Family("small", 2, (1, 2, 4, 8), examples=60, clutter=0.3, recovery=0.4, turning=0.5)


@given(
    st.sampled_from(["vote", "select"]),
    st.floats(0.02, 0.9),
    st.floats(0, 1),
    st.integers(1, 12),
)
@settings(max_examples=40, deadline=None)
def test_the_closed_form_of_success_agrees_with_simulated_draws(kind: str, right: float, share: float, k: int) -> None:
    lure = share * (1 - right)
    generator = np.random.default_rng(1)
    n = 20_000
    draws = draw(generator, np.full(n, right), np.full(n, lure), k)
    seen = outcome(kind, draws, generator.random(n)).mean()  # type: ignore[arg-type]
    exact = success(kind, np.array([right]), np.array([lure]), [k])[0, 0]  # type: ignore[arg-type]
    assert seen == pytest.approx(exact, abs=0.02)


def test_expected_outcomes_of_fewer_samples_agree_with_the_closed_form_on_average() -> None:
    generator = np.random.default_rng(2)
    right, lure = np.full(4000, 0.5), np.full(4000, 0.3)
    counts = [1, 3, 9]
    seen = expected_outcomes("vote", draw(generator, right, lure, 9), counts, generator).mean(axis=1)
    assert seen == pytest.approx(success("vote", right[:1], lure[:1], counts)[:, 0], abs=0.02)


def test_selection_turns_down_where_the_verifier_can_be_lured() -> None:
    curve = success("select", np.array([0.3]), np.array([0.1]), [1, 2, 4, 8, 16, 32])[:, 0]
    assert curve[2] > curve[0]
    assert curve[-1] < curve[2]


def test_trials_scatter_around_the_truth_and_their_curves_do_too() -> None:
    problem = SimulatedProblem(SMALL, 3)
    allocation = max(problem.space.allocations(), key=lambda a: sum(s.samples for _, s in a.settings))
    scores, curve_scores = [], []
    stage = allocation.stages[-1]
    for seed in range(60):
        view = problem.evaluator(seed).run(allocation, 1, 0).view
        scores.append(view.score)
        curve_scores.append(view.curves[stage][0].expected)
    error = np.std(scores) / np.sqrt(len(scores))
    assert np.mean(scores) == pytest.approx(problem.truth(allocation), abs=4 * error + 1e-3)
    fewer = allocation.replace(stage, allocation[stage].with_samples(problem.family.samples[0]))
    assert np.mean(curve_scores) == pytest.approx(problem.truth(fewer), abs=0.03)


def test_a_draw_is_new_once_and_every_time_without_a_bank() -> None:
    problem = SimulatedProblem(SMALL, 0)
    allocation = next(iter(problem.space.allocations()))
    kept, anew = problem.evaluator(0), problem.evaluator(0, Conditions(bank=False))
    first, again = (kept.run(allocation, n, 0).view for n in (1, 2))
    assert first.new_draws == sum(s.samples for _, s in allocation.settings) * SMALL.examples
    assert again.new_draws == 0
    assert again.score == first.score
    fresh = [anew.run(allocation, n, 0).view for n in (1, 2)]
    assert [v.new_draws for v in fresh] == [first.new_draws] * 2
    assert not fresh[0].curves


@pytest.mark.parametrize("family", FAMILIES)
def test_families_are_seeded_and_hard_enough_to_search(family: str) -> None:
    problems = [SimulatedProblem(FAMILIES[family], seed) for seed in (5, 5, 6)]
    truths = [[p.truth(a) for a in list(p.space.allocations())[:50]] for p in problems]
    assert truths[0] == truths[1]
    assert truths[0] != truths[2]
    assert problems[0].space.size() > 100
    values = np.array(list(problems[0].truths.values()))
    assert np.mean(values >= problems[0].optimum - 0.01) < 0.15


def test_racing_stops_a_hopeless_trial_early_and_saves_its_draws() -> None:
    problem = simulated("two-stage", 401)
    ranked = sorted(problem.truths, key=problem.truth)
    raced, whole = problem.evaluator(0), problem.evaluator(0, Conditions(racing=False))
    for trials in (raced, whole):
        assert not trials.run(ranked[-1], 1, 0).view.stopped
    stopped, complete = (trials.run(ranked[0], 2, 1).view for trials in (raced, whole))
    assert stopped.stopped
    assert not complete.stopped
    assert stopped.new_draws < complete.new_draws
    # It rests on fewer examples, and says so by a larger error or, where all failed alike, by a score near the truth.
    assert abs(stopped.score - complete.score) < 0.35
