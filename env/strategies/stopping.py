"""When to stop sampling: rules that look at the votes so far and say whether further samples are worth their tokens.

All rules are pure and work on many questions at once (arrays of shape (rows,)); a live controller has one row. A rule
says how much a vote weighs, whether sampling stops, and from what length on running samples no longer matter. What it
is given is only what has been seen by then: finished answers, lengths, probed answers of running samples.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

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


class StoppingRule(ABC):
    """Says when the samples of a question are enough. Pure: equal tallies, equal verdicts."""

    needs_counts = False
    """Whether `stops` reads `Tally.counts`."""

    confirm = 0.0
    """Weight of a running sample that confirms a finished answer, as a share of a vote of its length; 0: none."""

    confirm_after = 1
    """Successive probes with one answer before a running sample confirms."""

    @property
    @abstractmethod
    def name(self) -> str:
        """A short name for tables."""

    @abstractmethod
    def stops(self, tally: Tally) -> Bools:
        """Whether to stop, shape (rows,); the answer is then the leader, running samples are cut."""

    def weight(self, tokens: Floats) -> Floats:
        """Weight of the vote of a finished sample of that many tokens; never grows with them."""
        return np.ones_like(tokens)

    def settles_at(self, tally: Tally) -> Floats:
        """Tokens at which the running samples can be cut and their set be ended; infinite for never."""
        return np.full_like(tally.first, np.inf)


@dataclass(frozen=True)
class FixedSamples(StoppingRule):
    """Self-consistency (Wang et al. 2022): never stops; draws what it is given and takes the majority."""

    @property
    def name(self) -> str:
        """See `StoppingRule.name`."""
        return "self-consistency"

    def stops(self, tally: Tally) -> Bools:
        """See `StoppingRule.stops`."""
        return np.zeros(tally.first.shape, dtype=np.bool_)


@dataclass(frozen=True)
class AdaptiveConsistency(StoppingRule):
    """ASC (Aggarwal et al. 2023, arXiv 2305.11860): stop when the majority is unlikely to change.

    Stops at ``majority_probability(v1, v2) >= threshold`` (their Beta criterion), or with `leader_probability` of all
    answers (their Dirichlet criterion).
    """

    threshold: float = 0.95
    posterior: Literal["beta", "dirichlet"] = "beta"

    @property
    def name(self) -> str:
        """See `StoppingRule.name`."""
        return f"ASC {self.posterior} {self.threshold:g}"

    @property
    def needs_counts(self) -> bool:  # type: ignore[override]
        """See `StoppingRule.needs_counts`."""
        return self.posterior == "dirichlet"

    def stops(self, tally: Tally) -> Bools:
        """See `StoppingRule.stops`."""
        if self.posterior == "beta":
            return majority_probability(tally.first, tally.second) >= self.threshold
        if tally.counts is None:
            raise ValueError("the Dirichlet criterion needs the votes of every answer")
        # One answer alone says nothing about unseen ones; against one unseen answer it is the Beta criterion.
        lone = tally.first == tally.total
        probability = np.where(lone, majority_probability(tally.first, tally.second), leader_probability(tally.counts))
        return probability >= self.threshold


@dataclass(frozen=True)
class WindowConsistency(StoppingRule):
    """ESC (Li et al. 2024, arXiv 2401.10480): stop after a window of samples whose answers have zero entropy.

    Samples come in disjoint windows of ``window``; zero entropy means one answer throughout. The answer is the majority
    of everything drawn.
    """

    window: int = 8

    @property
    def name(self) -> str:
        """See `StoppingRule.name`."""
        return f"ESC window {self.window}"

    def stops(self, tally: Tally) -> Bools:
        """See `StoppingRule.stops`."""
        complete = (tally.running == 0) & (tally.begun > 0) & (tally.begun % self.window == 0)
        result: Bools = complete & (tally.streak >= self.window)
        return result


@dataclass(frozen=True)
class TrendRule(StoppingRule):
    """Votes that fade with length, in the manner of AutoTTS's confidence momentum (arXiv 2605.08083).

    The longer a sample thinks, the less its answer is worth: a vote after T tokens weighs ``w(T) = exp(-T / fade)``.
    With ``W_i`` the weights of an answer's votes, and ``v_i = W_i / w(T_min)`` in votes of the shortest sample:

    - *stop* when ``I_{1/2}(v2 + 1, v1 + 1) >= threshold`` (`majority_probability`);
    - *settle*: the r running samples of a set add at most ``r w(t)`` at length t, so they are cut without a vote from
      ``t = fade * ln(r / (W1 - W2))`` on, where they cannot overturn the leader;
    - *fade out*: they are also cut where a vote would weigh less than ``floor`` votes of the shortest sample, that is
      from ``t = T_min + fade * ln(1 / floor)`` on; these are the long samples, which are mostly wrong;
    - *give up* after ``give_up_after`` samples when the leader has less than ``give_up_share`` of all weight: answers
      so scattered are seldom settled by more of them;
    - *confirm*: a running sample whose last ``confirm_after`` probes all gave an answer that a finished sample gave
      counts as ``confirm * w(t)`` when deciding whether to stop.
    """

    fade: float
    threshold: float
    floor: float = 0.0
    give_up_share: float = 0.0
    give_up_after: int = 16
    confirm: float = 0.0
    confirm_after: int = 4

    def __post_init__(self) -> None:
        if self.fade < 100:
            raise ValueError(f"fade is {self.fade:g} tokens; votes that fade within 100 tokens are lost to rounding")
        if not 0 <= self.floor < 1:
            raise ValueError(f"floor is {self.floor:g}; it is a share of the shortest sample's vote, in [0, 1)")

    @property
    def name(self) -> str:
        """See `StoppingRule.name`."""
        return "trend"

    def weight(self, tokens: Floats) -> Floats:
        """See `StoppingRule.weight`."""
        result: Floats = np.exp(-tokens / self.fade)
        return result

    def stops(self, tally: Tally) -> Bools:
        """See `StoppingRule.stops`."""
        unit = np.where(np.isinf(tally.shortest), 1.0, np.exp(np.minimum(tally.shortest, 500 * self.fade) / self.fade))
        probability = majority_probability(tally.first * unit, tally.second * unit)
        sure = (tally.first > 0) & (probability >= self.threshold)
        scattered = tally.first < self.give_up_share * tally.total
        result: Bools = sure | (scattered & (tally.running == 0) & (tally.begun >= self.give_up_after))
        return result

    def settles_at(self, tally: Tally) -> Floats:
        """See `StoppingRule.settles_at`."""
        faded = tally.shortest + self.fade * math.log(1 / self.floor) if self.floor > 0 else np.inf
        lead = tally.first - tally.second
        running = np.maximum(tally.running, 1e-300)
        settled = np.maximum(self.fade * np.log(running / np.maximum(lead, 1e-300)), 0.0)
        result: Floats = np.minimum(np.where(lead > 0, settled, np.inf), faded)
        return result


@dataclass(frozen=True)
class ProbeCut:
    """Cuts a single sample's thinking when its probed answer has been stable.

    The sample ends at the first probe that, with the ones just before it, is one readable answer ``stable`` times, and
    for at least ``share`` of all probes so far.
    """

    stable: int
    share: float = 0.0

    def cuts(self, probes: Ints) -> Ints:
        """Index of the probe that ends each sample, or -1.

        Args:
            probes: codes of the probed answers, shape (..., probes), `NO_ANSWER` where there is none.
        """
        runs = stable_runs(probes)
        wanted = np.maximum(self.stable, self.share * np.arange(1, probes.shape[-1] + 1))
        hits = runs >= wanted
        result: Ints = np.where(hits.any(-1), hits.argmax(-1), -1)
        return result


def stable_runs(probes: Ints) -> Ints:
    """How many probes, up to and with each, gave its answer without a break; 0 where it has none. Same shape."""
    runs = np.zeros(probes.shape, dtype=np.int64)
    run = np.zeros(probes.shape[:-1], dtype=np.int64)
    for place in range(probes.shape[-1]):
        same = probes[..., place] == probes[..., place - 1] if place else np.zeros(run.shape, dtype=np.bool_)
        run = np.where(probes[..., place] == NO_ANSWER, 0, np.where(same, run + 1, 1))
        runs[..., place] = run
    return runs


def samples_needed(rule: StoppingRule, answers: Sequence[str | None], tokens: Sequence[int]) -> int:
    """How many of these samples, drawn one after the other, a rule takes before it stops; all if it never does.

    Args:
        rule: the rule.
        answers: in the order drawn; None is no readable answer.
        tokens: length of each sample.
    """
    codes: dict[str, int] = {}
    votes, row = VoteCounts(1, max(1, len(answers))), np.zeros(1, dtype=np.int64)
    for taken, (answer, length) in enumerate(zip(answers, tokens, strict=True), 1):
        code = NO_ANSWER if answer is None else codes.setdefault(answer, len(codes))
        lengths = np.array([float(length)])
        votes.add(row, np.array([code]), lengths, rule.weight(lengths))
        tally = votes.tally(row, np.array([taken]), np.array([0]), rule.needs_counts)
        if rule.stops(tally)[0]:
            return taken
    return len(answers)
