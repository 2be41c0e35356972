"""Adaptive consistency: stop when the leading answer is probably the majority."""

from __future__ import annotations

from collections.abc import Sequence
from types import MappingProxyType

import numpy as np

from env.strategies._base import Candidate, Knob, StagePlan
from env.strategies._sequential import WAVE, SequentialStrategy, two_highest
from env.strategies.tallies import majority_probability


class AdaptiveConsistency(SequentialStrategy):
    """Stops when the leader is the likelier of the two first answers with at least the threshold's probability.

    `majority_probability` has the formula.
    """

    name = "asc"
    meaning = "vote that stops early once the leading answer is probably the majority"
    paper = "Adaptive-Consistency: Aggarwal et al. 2023, arXiv 2305.11860"
    knobs = MappingProxyType({"threshold": Knob(0.95, "probability at which to stop", 0.5, 1.0), "wave": WAVE})

    def settled(self, plan: StagePlan, waves: Sequence[Sequence[Candidate]]) -> bool:
        """See `SequentialStrategy.settled`."""
        first, second = two_highest([c for wave in waves for c in wave])
        chance = majority_probability(np.array([float(first)]), np.array([float(second)]))[0]
        return bool(chance >= plan.number(self, "threshold"))
