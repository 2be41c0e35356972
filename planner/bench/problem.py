"""What a search is rehearsed on: a search space, an optimum that is known, and trials to be had for the asking."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from env.allocation import Allocation
from planner.history import TrialView
from planner.space import SearchSpace


@dataclass(frozen=True)
class Outcome:
    """One trial of a rehearsal."""

    view: TrialView
    """What the proposer is shown."""

    tokens: int
    """Tokens of its new draws; 0 where the problem does not say."""


@dataclass(frozen=True)
class Conditions:
    """What a search may use."""

    bank: bool = True
    """Draws are kept and reused, and a trial shows its k-curves; else every trial draws anew."""

    racing: bool = True
    """A trial stops on examples that can no longer change its rank, where the problem has examples."""


EVERYTHING = Conditions()
"""A search may use all there is."""


class Evaluator(Protocol):
    """One search's trials. It remembers what was drawn, so that a draw is new once."""

    def run(self, allocation: Allocation, trial_no: int, round_: int) -> Outcome:
        """Evaluate one allocation of the space."""
        ...


class Problem(Protocol):
    """A search whose right answer is known."""

    @property
    def name(self) -> str:
        """Unique within a benchmark."""
        ...

    @property
    def space(self) -> SearchSpace:
        """What may be proposed."""
        ...

    @property
    def description(self) -> str:
        """The task in words, for proposers that read."""
        ...

    @property
    def optimum(self) -> float:
        """Highest true score of the space, in [0, 1] as a rule."""
        ...

    def truth(self, allocation: Allocation) -> float:
        """True score of an allocation: what infinitely many draws would show."""
        ...

    def evaluator(self, seed: int, conditions: Conditions = EVERYTHING) -> Evaluator:
        """Trials of one search; equal seeds draw equally."""
        ...
