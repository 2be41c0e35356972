"""Chooses the plan: the best, and the cheapest that cannot be told apart from it by more than its error."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from env.allocation import Allocation
from env.execution.evidence import ExampleEvidence
from planner.evidence.verdicts import Distinction, tell_apart

WORTHWHILE = 0.95
"""A cheaper allocation is only preferred to the best where it costs at most this share of it: for a saving lost in the
rounding nobody gives up what may be a real difference."""

NEGLIGIBLE = 0.005
"""Score a cheaper allocation may at most lie below the best in the search. With few examples one standard error can be
several hundredths, which is more than anybody means by "as good"."""

TIED = 1e-9
"""Means this close are equal: they are sums of the same scores in another order, and rounding may not choose a plan."""

MIN_SHARE = 0.9
"""A trial with fewer of its examples scored than this cannot become the plan."""


@dataclass(frozen=True)
class Contender:
    """A trial that may become the plan."""

    trial_no: int
    allocation: Allocation
    score: float
    cost: float
    """Predicted cost per query."""

    scores: Mapping[str, float]
    """Score by example id, scored examples only."""

    share: float
    """Share of its examples that were scored."""


@dataclass(frozen=True)
class Choice:
    """The plan and what it was chosen from."""

    chosen: Contender
    best: Contender
    runner_up: Contender | None
    """The best trial that is neither chosen nor best."""


def contender(
    trial_no: int, allocation: Allocation, cost: float, evidence: Sequence[ExampleEvidence]
) -> Contender | None:
    """A trial as a contender; None where nothing was scored."""
    scores = {e.example_id: e.score for e in evidence if e.score is not None}
    if not scores:
        return None
    return Contender(
        trial_no, allocation, sum(scores.values()) / len(scores), cost, scores, len(scores) / max(1, len(evidence))
    )


def compare(left: Contender, right: Contender) -> Distinction | None:
    """Left against right over the examples scored in both; None where there are none."""
    shared = sorted(left.scores.keys() & right.scores.keys())
    if not shared:
        return None
    return tell_apart([left.scores[i] for i in shared], [right.scores[i] for i in shared])


def eligible(contenders: Sequence[Contender]) -> list[Contender]:
    """Those with enough of their examples scored to become the plan; all where none has."""
    return [c for c in contenders if c.share >= MIN_SHARE] or list(contenders)


def choose(contenders: Sequence[Contender]) -> Choice:
    """Pick the best and the cheapest within one standard error of it, where that saves something worthwhile.

    "Within" is one standard error, and never more than `NEGLIGIBLE`. The error is that of the paired difference over
    shared examples, which is what "as good as" means for two
    allocations on one data set (the one-standard-error rule of Breiman et al. 1984, made paired).

    Raises:
        ValueError: there is no contender.
    """
    candidates = eligible(contenders)
    if not candidates:
        raise ValueError("no trial has a score: there is no plan to choose")
    best = min(_highest(candidates), key=lambda c: (c.cost, c.trial_no))
    within = [c for c in candidates if c is best or _within_one_error(best, c)]
    cheapest = min(c.cost for c in within)
    chosen = min(_highest([c for c in within if c.cost == cheapest]), key=lambda c: c.trial_no)
    others = [c for c in candidates if c.allocation not in (best.allocation, chosen.allocation)]
    return Choice(chosen, best, min(others, key=lambda c: (-c.score, c.cost, c.trial_no), default=None))


def _highest(contenders: Sequence[Contender]) -> list[Contender]:
    highest = max(c.score for c in contenders)
    return [c for c in contenders if c.score >= highest - TIED]


def _within_one_error(best: Contender, other: Contender) -> bool:
    if other.cost > WORTHWHILE * best.cost:
        return False
    shared = sorted(best.scores.keys() & other.scores.keys())
    if len(shared) < 2:
        return False
    differences = [best.scores[i] - other.scores[i] for i in shared]
    mean = sum(differences) / len(differences)
    variance = sum((d - mean) ** 2 for d in differences) / (len(differences) - 1)
    return mean <= min(NEGLIGIBLE, math.sqrt(variance / len(differences))) + TIED


def pareto(contenders: Sequence[Contender]) -> list[Contender]:
    """The contenders no other beats in score at the same or a lower cost, cheapest first."""
    front: list[Contender] = []
    for candidate in sorted(contenders, key=lambda c: (c.cost, -c.score, c.trial_no)):
        if not front or candidate.score > front[-1].score:
            front.append(candidate)
    return front
