"""Union of id sets: more samples give more recall, and more that does not belong."""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import combinations
from math import comb

from env.strategies._base import Candidate, Outcomes, StagePlan, check_subset
from env.strategies._parallel import MAX_SUBSETS, ParallelStrategy


class Union(ParallelStrategy):
    """Every id that any sample names, sorted."""

    name = "union"
    meaning = "all ids that any sample names"
    paper = "Coverage by repeated sampling: Brown et al. 2024, arXiv 2407.21787"
    reads_texts = False
    requires = frozenset({"ids"})

    def choose(self, plan: StagePlan, candidates: Sequence[Candidate]) -> str | None:
        """See `ParallelStrategy.choose`."""
        return canonical_ids(frozenset().union(*(ids_of(c.answer) for c in candidates)))

    def outcomes(self, plan: StagePlan, candidates: Sequence[Candidate], samples: int) -> Outcomes:
        """See `Strategy.outcomes`; exact for up to `MAX_SUBSETS` subsets, a seeded Monte Carlo estimate beyond."""
        check_subset(candidates, samples)
        sets = sorted((ids_of(c.answer) for c in candidates), key=sorted)
        if comb(len(sets), samples) <= MAX_SUBSETS:
            joined = Counter(_merged(subset) for subset in combinations(sets, samples))
        else:
            # Seeded by the multiset itself: the same draws always give the same estimate.
            generator = random.Random(json.dumps([[sorted(ids) for ids in sets], samples]))
            joined = Counter(_merged(generator.sample(sets, samples)) for _ in range(MAX_SUBSETS))
        total = sum(joined.values())
        return {canonical_ids(ids): number / total for ids, number in joined.items()}


def ids_of(answer: str | None) -> frozenset[int]:
    """The ids of a canonical answer; none where there is no answer."""
    return frozenset() if answer is None else frozenset(json.loads(answer))


def canonical_ids(ids: Iterable[int]) -> str | None:
    """Ids as a canonical answer; None where there is none."""
    ordered = sorted(ids)
    return json.dumps(ordered, separators=(",", ":")) if ordered else None


def _merged(sets: Iterable[frozenset[int]]) -> frozenset[int]:
    return frozenset().union(*sets)
