"""Rules that stop a trial."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from planner.evidence.choice import NEGLIGIBLE
from planner.evidence.racing import bets_exclude, cannot_catch_up, highest_mean, lowest_mean
from planner.loop.racing import BatchRace, look_points, running_order


def test_no_ending_of_a_stopped_trial_would_have_caught_up() -> None:
    examples, rival = 8, 0.75
    for seen in range(examples):
        for so_far in itertools.product((0.0, 1.0, None), repeat=seen):
            ends = (
                [
                    (sum(s for s in (*so_far, *rest) if s is not None), sum(s is not None for s in (*so_far, *rest)))
                    for rest in itertools.product((0.0, 1.0, None), repeat=min(3, examples - seen))
                ]
                if examples - seen <= 3
                else []
            )
            if cannot_catch_up(so_far, rival, examples):
                assert all(right / known < rival - NEGLIGIBLE for right, known in ends if known)
            elif ends:
                assert highest_mean(so_far, examples) >= rival - NEGLIGIBLE
                assert highest_mean(so_far, examples) == pytest.approx(max((r / k for r, k in ends if k), default=0.0))


def test_the_lowest_mean_is_with_all_the_rest_wrong() -> None:
    assert lowest_mean([1.0, None, 0.5], 5) == pytest.approx(1.5 / 4)


def test_a_trial_that_keeps_up_is_hardly_ever_stopped_however_often_one_looks() -> None:
    generator = np.random.default_rng(0)
    stopped = 0
    for _ in range(600):
        # The worst case: over the whole split exactly as far behind as is still no difference.
        differences = generator.choice([-0.7, 0.0, 0.0, 0.7], 200)
        differences += -NEGLIGIBLE + 1e-9 - differences.mean()
        shuffled = list(generator.permutation(differences))
        stopped += any(bets_exclude(shuffled[:m], 200, 0.05) for m in (25, 50, 100, 199))
    # Ville: at most 5%; Binomial(600, 0.05) exceeds 47 with probability below 0.001.
    assert stopped <= 47


def test_a_trial_far_behind_is_stopped_early() -> None:
    generator = np.random.default_rng(1)
    differences = list(generator.choice([-1.0, 0.0, 1.0], 50, p=[0.5, 0.45, 0.05]))
    assert bets_exclude(differences, 400, 0.005)
    assert not bets_exclude(differences[:3], 400, 0.005)


def test_what_the_remaining_examples_cannot_make_up_is_excluded_without_any_luck() -> None:
    assert bets_exclude([-1.0] * 60, 100, 1e-300)


def test_looks_double_and_stay_below_the_whole() -> None:
    assert look_points(400) == (50, 100, 200)
    assert look_points(30) == (16,)
    assert look_points(16) == ()


def test_all_trials_of_a_study_run_the_examples_in_one_order() -> None:
    assert running_order(50, 3) == running_order(50, 3) != running_order(50, 4)
    assert sorted(running_order(50, 3)) == list(range(50))


def a_race(**changes: object) -> BatchRace:
    values: dict[str, object] = {"rule": "exact", "order": running_order(40, 0), "looks": (20,), "incumbent": None}
    return BatchRace(**{**values, **changes})  # type: ignore[arg-type]


def test_the_best_so_far_stops_what_cannot_reach_it() -> None:
    race = a_race(incumbent=[1.0] * 36 + [0.0] * 4)
    assert race.stopped({0: [1.0] * 20, 1: [0.0] * 20}) == {1}


def test_somebody_of_the_first_batch_always_finishes() -> None:
    race = a_race(rule="betting", order=running_order(400, 0))
    scores = {0: [0.0] * 200, 1: [1.0] * 200, 2: [0.5] * 200}
    assert race.stopped(scores) == {0, 2}


def test_a_constraint_that_may_rule_the_leader_out_keeps_its_rivals_running() -> None:
    race = a_race(rule="betting", order=running_order(400, 0), among=False)
    assert race.stopped({0: [0.0] * 200, 1: [1.0] * 200}) == set()


def test_what_was_decided_before_a_crash_is_decided_again() -> None:
    race = a_race(incumbent=[1.0] * 40, settled={0: 20, 1: 40})
    assert race.stopped({0: [1.0] * 20, 1: [0.0] * 20, 2: [1.0] * 20}) == {0}


def test_failed_examples_leave_only_the_rule_that_needs_no_luck() -> None:
    race = a_race(rule="betting", order=running_order(400, 0), incumbent=[0.8] * 400)
    assert race.stopped({0: [0.1] * 60}) == {0}
    assert race.stopped({0: [0.1] * 59 + [None]}) == set()
