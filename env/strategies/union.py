"""Union of id sets: more samples give more recall, and more that does not belong."""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import combinations
from math import comb

from env.strategies._base import Candidate, Outcomes, check_subset

MAX_SUBSETS = 64
"""Subsets looked at: all of them where there are no more than this, else as many seeded random ones."""


class Union:
    """Every id that any sample names, sorted."""

    name = "union"
    needs_scores = False

    def choose(self, candidates: Sequence[Candidate]) -> str | None:
        """See `Strategy.choose`."""
        return _canonical(frozenset().union(*(_ids(c.answer) for c in candidates)))

    def outcomes(self, candidates: Sequence[Candidate], samples: int) -> Outcomes:
        """See `Strategy.outcomes`; exact for up to `MAX_SUBSETS` subsets, a seeded Monte Carlo estimate beyond."""
        check_subset(candidates, samples)
        sets = sorted((_ids(c.answer) for c in candidates), key=sorted)
        if comb(len(sets), samples) <= MAX_SUBSETS:
            joined = Counter(_merged(subset) for subset in combinations(sets, samples))
        else:
            # Seeded by the multiset itself: the same draws always give the same estimate.
            generator = random.Random(json.dumps([[sorted(ids) for ids in sets], samples]))
            joined = Counter(_merged(generator.sample(sets, samples)) for _ in range(MAX_SUBSETS))
        total = sum(joined.values())
        return {_canonical(ids): number / total for ids, number in joined.items()}


def _ids(answer: str | None) -> frozenset[int]:
    return frozenset() if answer is None else frozenset(json.loads(answer))


def _merged(sets: Iterable[frozenset[int]]) -> frozenset[int]:
    return frozenset().union(*sets)


def _canonical(ids: frozenset[int]) -> str | None:
    return json.dumps(sorted(ids), separators=(",", ":")) if ids else None
