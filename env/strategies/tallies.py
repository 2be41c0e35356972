"""The votes of many questions (arrays of shape (rows,)) as samples finish, and how sure their leaders are."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy.special import betainc, gammainc, gammaincinv

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]

NO_ANSWER = -1
"""Code of a sample without a readable answer; it does not vote."""

_NODES = 256


@dataclass(frozen=True)
class Tally:
    """What the votes of some questions come to; every field has shape (rows,)."""

    first: Floats
    """Weight of the leading answer, 0 where nobody voted."""

    second: Floats
    """Weight of the runner-up."""

    total: Floats
    """Weight of all votes."""

    begun: Ints
    """Samples begun, the running ones included."""

    running: Ints
    """Samples that are still being generated."""

    streak: Ints
    """How many of the last samples that finished gave the same answer."""

    shortest: Floats
    """Tokens of the shortest sample that voted; infinite where none did."""

    counts: Floats | None = None
    """Weight of every answer, shape (rows, answers); only for rules that ask for it."""


class VoteCounts:
    """Counts the votes of many questions as they come. Not safe for several threads."""

    def __init__(self, rows: int, answers: int) -> None:
        """Start without votes.

        Args:
            rows: questions.
            answers: answers are coded 0 .. answers - 1, per question as the caller likes.
        """
        self._counts = np.zeros((rows, answers))
        self._leader = np.full(rows, NO_ANSWER, dtype=np.int64)
        self._first, self._second, self._total = np.zeros(rows), np.zeros(rows), np.zeros(rows)
        self._streak, self._last = np.zeros(rows, dtype=np.int64), np.full(rows, NO_ANSWER, dtype=np.int64)
        self._shortest = np.full(rows, np.inf)

    def add(self, rows: Ints, answers: Ints, tokens: Floats, weights: Floats) -> None:
        """Take one finished sample of each of the rows (each row at most once).

        Args:
            rows: which questions.
            answers: code of each answer, or `NO_ANSWER`.
            tokens: length of each sample.
            weights: weight of each vote, positive.
        """
        same = (answers == self._last[rows]) & (answers != NO_ANSWER)
        self._streak[rows] = np.where(answers == NO_ANSWER, 0, np.where(same, self._streak[rows] + 1, 1))
        self._last[rows] = answers
        readable = answers != NO_ANSWER
        rows, answers, tokens, weights = rows[readable], answers[readable], tokens[readable], weights[readable]
        self._counts[rows, answers] += weights
        self._total[rows] += weights
        self._shortest[rows] = np.minimum(self._shortest[rows], tokens)
        weight, leads = self._counts[rows, answers], answers == self._leader[rows]
        # Votes only grow: an answer that overtakes leaves the old leader second; ties stay with the earlier one.
        overtakes = ~leads & (weight > self._first[rows])
        second = np.where(overtakes, self._first[rows], np.maximum(self._second[rows], weight))
        self._second[rows] = np.where(leads, self._second[rows], second)
        self._first[rows] = np.where(leads | overtakes, weight, self._first[rows])
        self._leader[rows] = np.where(overtakes, answers, self._leader[rows])

    def leader(self, rows: Ints) -> Ints:
        """The answer with the most weight, among equals the first to reach it; `NO_ANSWER` where nobody voted."""
        return self._leader[rows]

    def tally(self, rows: Ints, begun: Ints, running: Ints, counts: bool = False) -> Tally:
        """What the votes of these rows come to."""
        return Tally(
            self._first[rows],
            self._second[rows],
            self._total[rows],
            begun,
            running,
            self._streak[rows],
            self._shortest[rows],
            self._counts[rows] if counts else None,
        )

    def confirmed(self, rows: Ints, tally: Tally, probed: Ints, weights: Floats) -> tuple[Tally, Ints]:
        """The tally and the leaders if running samples voted now.

        Only answers that a finished sample gave can be confirmed: early probes of several samples agree on the same
        wrong guess far too often.

        Args:
            rows: which questions.
            tally: their tally.
            probed: shape (rows, samples): what each running sample would answer, `NO_ANSWER` for no vote.
            weights: shape (rows,): weight of one such vote.
        """
        held = np.where(probed == NO_ANSWER, 0.0, self._counts[rows[:, None], np.maximum(probed, 0)])
        votes = held > 0
        agree = (probed[:, :, None] == probed[:, None, :]) & votes[:, None, :]
        support = np.where(votes, held + weights[:, None] * agree.sum(2), 0.0)
        place = support.argmax(1)
        best, answer = support[np.arange(len(rows)), place], probed[np.arange(len(rows)), place]
        old = self._leader[rows]
        overtakes = best > self._first[rows]
        leader = np.where(overtakes, answer, old)
        others = np.where(probed != leader[:, None], support, 0.0).max(1)
        second = np.maximum(others, np.where(leader == old, self._second[rows], self._first[rows]))
        total = tally.total + weights * votes.sum(1)
        first = np.maximum(best, self._first[rows])
        shifted = Tally(first, second, total, tally.begun, tally.running, tally.streak, tally.shortest, tally.counts)
        return shifted, leader


def majority_probability(first: Floats, second: Floats) -> Floats:
    """Probability that the leader is the likelier of the two first answers, given their votes.

    With a uniform prior on the leader's share p among the two, p given the votes is Beta(v1 + 1, v2 + 1), and
    ``P(p > 1/2) = int_0^{1/2} x^{v2} (1 - x)^{v1} dx / B(v2 + 1, v1 + 1) = I_{1/2}(v2 + 1, v1 + 1)``
    (Aggarwal et al. 2023, arXiv 2305.11860, equation for the Beta criterion). Votes may be fractions.
    """
    result: Floats = betainc(second + 1.0, first + 1.0, 0.5)
    return result


def leader_probability(counts: Floats) -> Floats:
    """Probability that the leading answer is the likeliest of all, given everybody's votes.

    With a uniform prior the shares of the answers seen are Dirichlet(v + 1). Shares are proportional to independent
    Gamma(v_j + 1) variables, so ``P(leader largest) = int_0^1 prod_{j != 1} F_j(Q_1(u)) du`` with F_j the distribution
    function of Gamma(v_j + 1) and Q_1 the leader's quantile function; by Gauss-Legendre quadrature.

    Args:
        counts: votes, shape (rows, answers); answers without votes take no part.

    Returns:
        One probability a row; 1 where one answer alone has votes.
    """
    nodes, weights = _gauss_legendre()
    points = (nodes + 1) / 2
    leader = counts.argmax(1)
    top = counts[np.arange(len(counts)), leader]
    level = gammaincinv(top[:, None] + 1.0, points[None, :])
    product = np.ones_like(level)
    for answer in range(counts.shape[1]):
        votes = counts[:, answer]
        below = gammainc(votes[:, None] + 1.0, level)
        product *= np.where(((votes > 0) & (answer != leader))[:, None], below, 1.0)
    result: Floats = product @ (weights / 2)
    return result


@lru_cache(maxsize=1)
def _gauss_legendre() -> tuple[Floats, Floats]:
    """Nodes and weights; finding them takes longer than using them."""
    nodes, weights = np.polynomial.legendre.leggauss(_NODES)
    return nodes, weights
