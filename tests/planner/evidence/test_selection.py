"""The correction for having been chosen."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from env.allocation import Allocation, StageSetting
from planner.evidence import Contender, choose, corrected_estimates, mean_interval
from planner.evidence.selection import ScoreTable


def contender(number: int, scores: list[float | None], cost: float) -> Contender:
    allocation = Allocation.of({"a": StageSetting("m", "vote", number + 1)})
    named = {str(i): s for i, s in enumerate(scores) if s is not None}
    return Contender(number, allocation, sum(named.values()) / len(named), cost, named, len(named) / len(scores))


@given(st.integers(0, 10_000), st.booleans())
@example(7229, True).via("equal mean scores that differ in the last bit")
@example(319, False).via("equal mean scores that differ in the last bit")
@settings(deadline=None, max_examples=80)
def test_the_choice_by_matrix_is_the_choice(seed: int, failures: bool) -> None:
    generator = np.random.default_rng(seed)
    trials, examples = int(generator.integers(1, 12)), int(generator.integers(3, 60))
    scores = (
        generator.integers(0, 4, (trials, examples)) / 3 if seed % 2 else generator.random((trials, examples)) ** 0.1
    )
    costs = generator.integers(1, 5, trials).astype(float)
    rows = [[None if failures and generator.random() < 0.03 else float(s) for s in row] for row in scores]
    contenders = [contender(i, row, float(c)) for i, (row, c) in enumerate(zip(rows, costs, strict=True)) if any(row)]
    if not contenders:
        return
    choice, table = choose(contenders), ScoreTable(contenders)
    weights = np.ones((1, table.scores.shape[1]))
    chosen, best = table.choices(weights, table.means(weights))
    assert table.contenders[best[0]].score == pytest.approx(choice.best.score)
    assert table.contenders[chosen[0]].trial_no == choice.chosen.trial_no


def test_a_resample_is_chosen_from_as_if_its_examples_were_repeated() -> None:
    generator = np.random.default_rng(1)
    contenders = [contender(i, list(generator.integers(0, 2, 30) / 1.0), float(1 + i % 4)) for i in range(8)]
    table = ScoreTable(contenders)
    for _ in range(30):
        drawn = generator.integers(0, 30, 30)
        weights = np.bincount(drawn, minlength=30)[None, :].astype(float)
        ids = sorted(str(i) for i in range(30))
        repeated = [contender(c.trial_no, [c.scores[ids[i]] for i in drawn], c.cost) for c in table.contenders]
        chosen, _ = table.choices(weights, table.means(weights))
        assert table.contenders[chosen[0]].trial_no == choose(repeated).chosen.trial_no


def test_a_single_trial_was_not_chosen_from_anything() -> None:
    one = contender(0, [1.0, 0.0, 1.0, 1.0] * 10, 1.0)
    estimate = corrected_estimates([one]).chosen
    assert estimate.optimism == 0.0
    assert estimate.chosen_again == 1.0
    assert estimate.corrected == mean_interval(list(one.scores.values()))


def test_a_trial_far_above_the_others_loses_next_to_nothing() -> None:
    generator = np.random.default_rng(2)
    good = contender(0, list((generator.random(200) < 0.9) / 1.0), 1.0)
    others = [contender(i, list((generator.random(200) < 0.3) / 1.0), 1.0) for i in range(1, 20)]
    estimate = corrected_estimates([good, *others]).best
    assert abs(estimate.optimism) < 1e-9
    assert estimate.chosen_again == 1.0


def test_the_luckiest_of_many_that_are_alike_falls_back_to_what_they_all_have() -> None:
    generator = np.random.default_rng(3)
    errors, raws = [], []
    for _ in range(40):
        alike = [contender(i, list((generator.random(60) < 0.5) / 1.0), 1.0) for i in range(25)]
        estimate = corrected_estimates(alike, resamples=200).best
        errors.append(estimate.corrected.estimate - 0.5)
        raws.append(estimate.raw - 0.5)
    assert np.mean(raws) > 0.09
    assert abs(np.mean(errors)) < 0.03
    assert np.mean(errors) < np.mean(raws) / 4


def test_the_same_evidence_gives_the_same_correction() -> None:
    generator = np.random.default_rng(5)
    contenders = [contender(i, list(generator.random(50)), float(i + 1)) for i in range(10)]
    assert corrected_estimates(contenders) == corrected_estimates(list(reversed(contenders)))


def test_without_trials_there_is_nothing_to_correct() -> None:
    with pytest.raises(ValueError, match="no plan"):
        corrected_estimates([])
