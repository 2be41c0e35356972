"""The ids most samples name, as many as a sample usually names."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from env.strategies._base import Candidate, StagePlan
from env.strategies._parallel import ParallelStrategy
from env.strategies.union import canonical_ids, ids_of


class TopIds(ParallelStrategy):
    """Votes over single ids: as many ids as the most frequent size of a readable sample, most voted first.

    Among equally frequent sizes the smaller counts, among equally voted ids the lower.
    """

    name = "top_ids"
    meaning = "the ids named most often, as many as a sample usually names"
    paper = "Retrieval of AgentTTS: Wang et al. 2025, arXiv 2508.00890"
    reads_texts = False
    requires = frozenset({"ids"})

    def choose(self, plan: StagePlan, candidates: Sequence[Candidate]) -> str | None:
        """See `ParallelStrategy.choose`."""
        sets = [ids_of(c.answer) for c in candidates if c.answer is not None]
        if not sets:
            return None
        sizes = Counter(map(len, sets))
        size = min(sizes, key=lambda n: (-sizes[n], n))
        votes = Counter(identity for ids in sets for identity in ids)
        return canonical_ids(sorted(votes, key=lambda identity: (-votes[identity], identity))[:size])
