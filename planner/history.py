"""What a proposer may see of a study: a frozen view of its archive."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import islice

import numpy as np

from env.allocation import Allocation

MISSING_SHARE = 0.4
"""What an upstream outcome without downstream draws scores, as a share of what those with draws do: draws are held for
the answers that allocations agree on, and the others are more often wrong. Measured on the demo's exhaustive table."""

LEAST_COVERAGE = 0.8
"""Coverage from which on a point of a k-curve is believed: below it, too much rests on `MISSING_SHARE`."""


@dataclass(frozen=True)
class CurveEstimate:
    """Expected score with k samples at one stage, the others as allocated."""

    samples: int
    score: float
    """Over the outcomes whose downstream draws are held: too high where they are not all."""

    coverage: float
    """Probability mass of upstream outcomes whose downstream draws are held; below 1 the score rests on part of it."""

    @property
    def missing(self) -> float:
        """Share of the probability that the score says nothing about."""
        return max(0.0, 1.0 - self.coverage)

    @property
    def expected(self) -> float:
        """The score with the missing outcomes counted at `MISSING_SHARE` of the others."""
        return self.score * (1.0 - self.missing * (1.0 - MISSING_SHARE))


@dataclass(frozen=True)
class TrialView:
    """One finished trial on the search split."""

    trial_no: int
    round: int
    allocation: Allocation
    score: float
    standard_error: float
    """Of the mean over examples; differences between trials are paired and mostly far smaller."""

    cost: float
    """Predicted cost per query, in the plan's unit."""

    measured_cost: float
    new_draws: int
    curves: Mapping[str, tuple[CurveEstimate, ...]] = field(default_factory=dict)
    stage_scores: Mapping[str, float] = field(default_factory=dict)
    """Mean score of a stage's own output, by stage, for stages that have a metric of their own."""

    origin: str = ""
    """Who proposed it (`Proposal.origin`); empty where nobody says."""

    expected_score: float | None = None
    """What its proposer expected of it."""

    feasible: bool = True
    """Whether it meets the constraints that only a trial can judge: a stage's least quality, a measured latency."""

    stopped: bool = False
    """Racing ended it before all its examples: its score rests on fewer, and it cannot become the plan."""


@dataclass(frozen=True)
class Difference:
    """How far a trial lies from the best one, over the examples both were scored on."""

    mean: float
    """Trial minus best: 0 or below."""

    standard_error: float
    """Of the mean of the paired differences."""

    @property
    def decided(self) -> bool:
        """Whether it is more than two standard errors."""
        return self.mean < -2 * self.standard_error


@dataclass(frozen=True)
class PendingView:
    """An accepted allocation without a score: not run yet, or no example could be scored."""

    allocation: Allocation
    origin: str
    problem: str = ""
    """Why it has no score, where it ran; as a model server or parser put it."""


@dataclass(frozen=True)
class RefusedView:
    """A proposal that review refused."""

    round: int
    allocation: Allocation | None
    raw: str
    """What was proposed, as far as it could be read."""

    reason: str


@dataclass(frozen=True)
class Guideline:
    """What was concluded from the archive, in words and in structured form."""

    round: int
    insight: int
    """1 model preference, 2 samples and plateau, 3 budget split, 0 anything else."""

    text: str
    stage: str | None = None
    structured: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True)
class PastStudy:
    """An earlier study with stages or models in common with this one."""

    study_id: str
    name: str
    trials: tuple[TrialView, ...]
    """Finished trials on its own examples, in its own allocations."""


@dataclass(frozen=True)
class History:
    """Everything a proposer decides from; equal histories give equal proposals (LLMs aside)."""

    round: int
    trials: tuple[TrialView, ...]
    refused: tuple[RefusedView, ...] = ()
    guidelines: tuple[Guideline, ...] = ()
    trials_left: int = 0
    pending: tuple[PendingView, ...] = ()
    differences: Mapping[int, Difference] = field(default_factory=dict)
    """By trial number, for the best trials; empty where nobody computed them."""

    past: tuple[PastStudy, ...] = ()
    """Earlier studies with stages and models of this one."""

    accepted: frozenset[Allocation] | None = None
    """Allocations that have run or will, where who made this view knows them already."""

    @cached_property
    def tried(self) -> frozenset[Allocation]:
        """Allocations that have run or will."""
        if self.accepted is not None:
            return self.accepted
        return frozenset((*(t.allocation for t in self.trials), *(p.allocation for p in self.pending)))

    @cached_property
    def able(self) -> tuple[TrialView, ...]:
        """Trials that may become the plan: within every constraint, and run to their ends. All where none may."""
        return tuple(t for t in self.trials if t.feasible and not t.stopped) or self.trials

    @cached_property
    def best(self) -> TrialView | None:
        """Highest score among those that may become the plan; the cheaper of equals. Among all where none may."""
        return next(iter(best_of(self.able, 1)), None)


def best_of(trials: Sequence[TrialView], count: int) -> list[TrialView]:
    """The trials with the highest scores, best first; the cheaper of equals, and then the earlier.

    One pass over their numbers: a long search asks for it in every round.
    """
    scores = np.nan_to_num(np.fromiter((t.score for t in trials), np.float64, len(trials)), nan=-np.inf)
    # All that tie with the last of them belong to those that are sorted.
    least = np.partition(scores, len(trials) - count)[len(trials) - count] if len(trials) > count else -np.inf
    near = [trials[i] for i in np.flatnonzero(scores >= least).tolist()]
    return list(islice(sorted(near, key=lambda t: (-t.score, t.cost)), count))
