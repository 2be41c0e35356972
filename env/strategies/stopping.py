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
from typing import Literal

import numpy as np

from env.strategies.tallies import (
    NO_ANSWER,
    Bools,
    Floats,
    Ints,
    Tally,
    VoteCounts,
    leader_probability,
    majority_probability,
)


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
