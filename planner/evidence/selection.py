"""Corrects the search score of the plan for having been chosen (the winner's curse)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from planner.evidence.choice import NEGLIGIBLE, TIED, WORTHWHILE, Contender, eligible
from planner.evidence.intervals import Array, Interval, mean_interval

RESAMPLES = 2000
AT_ONCE = 500
"""Resamples drawn and scored together, which bounds the memory."""

LEFT_OUT = 0.632
"""Share of the examples that a bootstrap resample holds, 1 - 1/e."""

SEED = 20_250_802
Numbers = NDArray[np.intp]


@dataclass(frozen=True)
class SelectionEstimate:
    """What the search says of an allocation that was chosen for scoring high."""

    raw: float
    """Its mean search score: too high on average."""

    corrected: Interval
    """Without the share of it that the choice explains; the interval is for its true score."""

    optimism: float
    """Raw minus corrected."""

    chosen_again: float
    """Share of the resamples in which the same allocation was chosen."""

    resamples: int


@dataclass(frozen=True)
class Corrections:
    """Estimates for the plan and for the best trial."""

    chosen: SelectionEstimate
    best: SelectionEstimate


class ScoreTable:
    """The eligible contenders' scores as a matrix, cheapest first, so that ties fall to the cheaper one."""

    def __init__(self, contenders: Sequence[Contender]) -> None:
        """Gather the scores.

        Args:
            contenders: at least one.
        """
        self.contenders = sorted(eligible(contenders), key=lambda c: (c.cost, c.trial_no))
        ids = sorted({i for c in self.contenders for i in c.scores})
        place = {example: n for n, example in enumerate(ids)}
        shape = (len(self.contenders), len(ids))
        self.scores: Array = np.zeros(shape)
        self.known: Array = np.zeros(shape)
        """1 where the contender was scored on the example."""

        for row, c in enumerate(self.contenders):
            columns = [place[i] for i in c.scores]
            self.scores[row, columns] = list(c.scores.values())
            self.known[row, columns] = 1.0
        self.costs: Array = np.array([c.cost for c in self.contenders])
        self.complete = bool(self.known.all())

    def means(self, weights: Array) -> Array:
        """Mean score of each contender, shape (resamples, contenders), for weights (resamples, examples).

        A contender with no weighted example gets minus infinity.
        """
        sums = weights @ self.scores.T
        if self.complete:
            return np.asarray(sums / weights.sum(axis=1, keepdims=True))
        counts = weights @ self.known.T
        return np.where(counts > 0, sums / np.maximum(counts, 1e-12), -np.inf)

    def choices(self, weights: Array, means: Array) -> tuple[Numbers, Numbers]:
        """The contenders that `choose` would take for each row of weights: (chosen, best), shape (resamples,) each."""
        best = np.argmax(means >= means.max(axis=1, keepdims=True) - TIED, axis=1)
        chosen = best.copy()
        for leader in np.unique(best):
            rows = np.flatnonzero(best == leader)
            cheaper = np.flatnonzero(self.costs <= WORTHWHILE * self.costs[leader])
            if cheaper.size:
                chosen[rows] = self._cheapest_within(int(leader), cheaper, weights[rows], means[rows])
        return chosen, best

    def _cheapest_within(self, leader: int, cheaper: Numbers, weights: Array, means: Array) -> Numbers:
        """For each row, the cheapest of `cheaper` within one standard error of the leader; the leader if none is."""
        near = means[:, [leader]] - means[:, cheaper] <= NEGLIGIBLE + max(TIED, 0.0 if self.complete else 1.0)
        wanted = np.flatnonzero(near.any(axis=0))
        found = np.full(len(weights), leader)
        if not wanted.size:
            return found
        candidates = cheaper[wanted]
        both = self.known[leader] * self.known[candidates]
        differences = (self.scores[leader] - self.scores[candidates]) * both
        counts = np.maximum(weights @ both.T, 1e-12)
        mean = weights @ differences.T / counts
        spread = np.maximum(weights @ (differences**2).T / counts - mean**2, 0.0)
        error = np.sqrt(spread / np.maximum(counts - 1, 1e-12))
        within = (mean <= np.minimum(NEGLIGIBLE, error) + TIED) & (counts >= 2)
        # Of several at one price the highest score is taken and the earliest of equals, as `choose` does.
        price = np.where(within, self.costs[candidates], np.inf)
        least = price.min(axis=1, keepdims=True)
        score = np.where(within & (price == least), means[:, candidates], -np.inf)
        pick = np.argmax(score >= score.max(axis=1, keepdims=True) - TIED, axis=1)
        return np.where(within.any(axis=1), candidates[pick], found)


def corrected_estimates(contenders: Sequence[Contender], resamples: int = RESAMPLES) -> Corrections:
    """Estimate the true score of the chosen and of the best contender from the search alone.

    Examples are resampled with replacement, the whole choice is made again on each resample, and what it chose is
    scored on the examples that the resample left out, where nobody chose it for anything (bootstrap bias-corrected
    cross-validation, Tsamardinos et al. 2018). That mean is a little too low where one contender is clearly best, as
    a resample holds 63% of the examples and errs more often. The .632+ rule (Efron and Tibshirani 1997) weighs it with
    the raw score: ``w = .632 / (1 - .368 R)``, R being the share of the winner's lead over the mean contender that was
    lost on examples left out. R is 1 where the lead was luck, and then only the examples left out count.

    The interval is `mean_interval` of the winner's scores around the corrected estimate; `benchmarks.coverage` shows
    that it holds the truth as often as it says, after the choice.

    Args:
        contenders: all trials that might have become the plan, at least one.
        resamples: of the examples.

    Raises:
        ValueError: there is no contender.
    """
    if not contenders:
        raise ValueError("no trial has a score: there is no plan to choose")
    table = ScoreTable(contenders)
    examples = table.scores.shape[1]
    whole = np.ones((1, examples))
    means = table.means(whole)
    chosen, best = (int(found[0]) for found in table.choices(whole, means))
    generator = np.random.default_rng(SEED)
    rounds: dict[str, list[tuple[Numbers, Array]]] = {"chosen": [], "best": []}
    targets = (chosen, best)
    for start in range(0, resamples, AT_ONCE):
        count = min(AT_ONCE, resamples - start)
        weights = _resamples(generator, count, examples)
        drawn = table.choices(weights, table.means(weights))
        for name, winners, target in zip(rounds, drawn, targets, strict=True):
            # The target's own score outside a resample is its raw score on average. Taking the difference from it
            # removes the luck of the resample, and a contender that always wins loses nothing.
            lost = _left_out(table, weights, winners) - _left_out(table, weights, np.full(count, target))
            rounds[name].append((winners, lost))
    return Corrections(
        _estimate(table, chosen, means[0], rounds["chosen"]), _estimate(table, best, means[0], rounds["best"])
    )


def _resamples(generator: np.random.Generator, count: int, examples: int) -> Array:
    """How often each example is in each resample, shape (count, examples)."""
    drawn = generator.integers(0, examples, (count, examples)) + examples * np.arange(count)[:, None]
    counts = np.bincount(drawn.ravel(), minlength=count * examples)
    return counts.reshape(count, examples).astype(np.float64)


def _left_out(table: ScoreTable, weights: Array, winners: Numbers) -> Array:
    """Mean score of each resample's winner on the examples left out; NaN where none is known."""
    outside = (weights == 0) * table.known[winners]
    counts = outside.sum(axis=1)
    sums = (outside * table.scores[winners]).sum(axis=1)
    return np.where(counts > 0, sums / np.maximum(counts, 1), np.nan)


def _estimate(
    table: ScoreTable, winner: int, means: Array, rounds: Sequence[tuple[Numbers, Array]]
) -> SelectionEstimate:
    winners = np.concatenate([found for found, _ in rounds])
    losses = np.concatenate([lost for _, lost in rounds])
    raw = float(means[winner])
    scores = table.scores[winner][table.known[winner] > 0]
    known = losses[~np.isnan(losses)]
    left_out = raw + float(known.mean()) if known.size else raw
    corrected = _weighed(raw, left_out, float(means[np.isfinite(means)].mean()))
    interval = mean_interval(scores, centre=corrected)
    return SelectionEstimate(
        raw, interval, raw - interval.estimate, float((winners == winner).mean()), int(winners.size)
    )


def _weighed(raw: float, left_out: float, anybody: float) -> float:
    """The .632+ rule.

    Args:
        raw: mean score of the winner.
        left_out: mean score of resamples' winners on the examples left out.
        anybody: mean score over all contenders, which a choice by chance would have.
    """
    if left_out >= raw:
        return raw  # nothing was lost outside: the choice explains nothing
    lost = min(1.0, (raw - left_out) / max(raw - anybody, 1e-12))
    weight = LEFT_OUT / (1 - (1 - LEFT_OUT) * lost)
    return (1 - weight) * raw + weight * left_out
