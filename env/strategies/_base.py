"""What a strategy is: how a stage turns its samples into one answer, and what to expect of fewer samples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True)
class Candidate:
    """One draw as a strategy sees it."""

    answer: str | None
    """Canonical answer; None where the output could not be parsed."""

    score: float | None = None
    """A verifier's value; None where none was asked for."""


Outcomes = Mapping[str | None, float]
"""Probability of each aggregated answer; None is "no answer". Sums to 1."""


class Strategy(Protocol):
    """Aggregates parallel samples. Pure and deterministic.

    The candidates of a prompt are exchangeable draws. `choose` is what a served plan does with exactly the draws it
    has; `outcomes` is the distribution of that choice over a uniformly random ``k``-subset of the draws held, so that
    ``outcomes(candidates, 1)`` is the distribution of a single draw.
    """

    @property
    def name(self) -> str:
        """The name specs use."""
        ...

    @property
    def needs_scores(self) -> bool:
        """Whether every candidate must carry a verifier's score."""
        ...

    def choose(self, candidates: Sequence[Candidate]) -> str | None:
        """The answer these candidates (in draw order) give; None where none of them has one."""
        ...

    def outcomes(self, candidates: Sequence[Candidate], samples: int) -> Outcomes:
        """Distribution of the answer over random subsets of the candidates.

        Args:
            candidates: the n draws held.
            samples: k, 1 <= k <= n.

        Raises:
            ValueError: k is not in 1..n.
        """
        ...


def check_subset(candidates: Sequence[Candidate], samples: int) -> None:
    """Raise ValueError unless ``1 <= samples <= len(candidates)``."""
    if not 1 <= samples <= len(candidates):
        raise ValueError(f"{samples} samples cannot be taken from {len(candidates)} draws")
