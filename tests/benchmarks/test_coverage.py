"""A small run of the coverage benchmark: the same functions, fewer studies, a band as wide as their number asks."""

from __future__ import annotations

from functools import reduce

import numpy as np
import pytest
from scipy.stats import binom

from benchmarks.coverage.__main__ import measure, summary
from benchmarks.coverage.judging import Record, judge
from benchmarks.coverage.population import Family, families, one_study
from benchmarks.coverage.racing import race

EACH = 10
"""Studies of each family: 160 in all."""

STATED = (
    "test score of the plan",
    "a trial's mean",
    "search score of the plan, corrected",
    "search score of the best, corrected",
    "plan minus runner-up, test",
)


@pytest.fixture(scope="module")
def together() -> Record:
    return reduce(lambda a, b: a.joined(b), (judge(family, EACH, 7) for family in families()))


@pytest.mark.parametrize("name", STATED)
def test_stated_intervals_hold_the_truth_about_as_often_as_they_say(together: Record, name: str) -> None:
    tally = together.tallies[name]
    # 93 to 97 of 100 is what the full run shows; fewer studies scatter around that, here with probability 0.999.
    assert binom.ppf(0.0005, tally.intervals, 0.93) <= tally.held <= binom.ppf(0.9995, tally.intervals, 0.97)


def test_the_correction_removes_the_winners_curse(together: Record) -> None:
    raw = together.tallies["search score of the plan, as if not chosen"]
    corrected = together.tallies["search score of the plan, corrected"]
    assert raw.figures()["bias"] > 0.02
    assert abs(corrected.figures()["bias"]) < raw.figures()["bias"] / 3
    assert raw.held < corrected.held


def test_wrong_verdicts_are_rare(together: Record) -> None:
    assert together.verdicts["wrong"] <= binom.ppf(0.9995, together.verdicts.total(), 0.05)


def test_a_familys_scores_have_the_means_it_says_and_hang_together() -> None:
    family = Family("check", True, 3000, 0.7, trials=4)
    study = one_study(family, np.random.default_rng(0))
    for truth, contender in zip(study.truths, study.search, strict=True):
        # Five standard errors of a score with the largest spread there is.
        assert contender.score == pytest.approx(truth, abs=5 * 0.5 / 3000**0.5)
    ids = list(study.search[0].scores)
    rows = np.array([[c.scores[i] for i in ids] for c in study.search])
    assert np.corrcoef(rows)[np.triu_indices(4, 1)].min() > 0.3


def test_the_figures_are_the_same_for_any_number_of_processes() -> None:
    chosen = families()[:2]
    one, two = measure(chosen, 3, 0, 1), measure(chosen, 3, 0, 2)
    assert {n: r.tallies for n, r in one.items()} == {n: r.tallies for n, r in two.items()}


def test_a_summary_has_every_figure_the_tables_show() -> None:
    chosen = families()[:1]
    result = summary(chosen, measure(chosen, 2, 0, 1), 2, 1.0)
    assert set(STATED) <= set(result["all"]["intervals"])
    assert {"exact", "betting"} <= set(result["racing"][0])


@pytest.mark.parametrize("rule", ["exact", "betting"])
def test_racing_saves_examples_and_loses_no_plan(rule: str) -> None:
    family = Family("wide", False, 100, 0.5, spread=1.0)
    figures = race(family, rule, 10, 3).figures()  # type: ignore[arg-type]
    assert figures["examples_run"] < 0.9
    assert figures["same_plan"] >= 0.9
    assert abs(figures["true_score_lost"]) < 0.01
