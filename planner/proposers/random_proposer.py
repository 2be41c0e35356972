"""Random feasible allocations: the rival every other proposer must beat."""

from __future__ import annotations

import random
from collections.abc import Sequence
from itertools import islice

from planner.history import History, RefusedView
from planner.proposers._base import Proposal, Reflection, Suggestions
from planner.space import SearchSpace


class RandomProposer:
    """Draws stage settings at random among what the budget still allows; seeded by study and round."""

    kind = "random"

    def __init__(self, space: SearchSpace, seed: int, batch: int) -> None:
        self._space = space
        self._seed = seed
        self._batch = batch

    async def initial(self, history: History) -> Suggestions:
        """See `Proposer.initial`."""
        return await self.propose(history, self._batch, ())

    async def reflect(self, history: History) -> Reflection:
        """See `Proposer.reflect`; chance concludes nothing."""
        return Reflection(())

    async def propose(self, history: History, count: int, refused: Sequence[RefusedView]) -> Suggestions:
        """See `Proposer.propose`."""
        generator = random.Random(f"{self._seed}/{history.round}/{len(refused)}")
        taken = history.tried | {r.allocation for r in refused if r.allocation is not None}
        fresh = islice((a for a in self._space.sampled(generator) if a not in taken), count)
        return Suggestions(tuple(Proposal(a, "random", "drawn at random") for a in fresh))

    async def close(self) -> None:
        """See `Proposer.close`."""
