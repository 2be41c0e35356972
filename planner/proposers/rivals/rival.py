"""What the rivals that ask no LLM share."""

from __future__ import annotations

import random
from abc import ABC, abstractmethod
from collections.abc import Sequence

from env.allocation import Allocation
from planner.history import History, RefusedView
from planner.proposers._base import Proposal, Reflection, Suggestions
from planner.proposers.registry import ProposerSetup
from planner.space import SearchSpace

MAX_LISTED = 20_000
"""Spaces up to this size are listed where chance alone finds nothing new."""


class Rival(ABC):
    """A proposer without an LLM: a pure function of history and seed that writes no guidelines."""

    kind = ""

    def __init__(self, setup: ProposerSetup) -> None:
        self._space = setup.space
        self._seed = setup.seed
        self._batch = setup.batch

    async def initial(self, history: History) -> Suggestions:
        """See `Proposer.initial`: a batch like any other."""
        return await self.propose(history, self._batch, ())

    async def reflect(self, history: History) -> Reflection:
        """See `Proposer.reflect`; it concludes nothing in words."""
        return Reflection(())

    @abstractmethod
    async def propose(self, history: History, count: int, refused: Sequence[RefusedView]) -> Suggestions:
        """See `Proposer.propose`."""

    async def close(self) -> None:
        """See `Proposer.close`; there is nothing to release."""
        return

    def _generator(self, history: History, refused: Sequence[RefusedView]) -> random.Random:
        """Chance for one call: the same for equal histories, another once the history has changed."""
        return random.Random(call_seed(self._seed, self.kind, history, refused))

    def _at_random(self, generator: random.Random, known: set[Allocation], count: int, reason: str) -> list[Proposal]:
        """New feasible allocations drawn at random; fewer where the space has hardly any left."""
        return [Proposal(a, self.kind, reason) for a in fresh_sample(self._space, generator, known, count)]


def call_seed(seed: int, kind: str, history: History, refused: Sequence[RefusedView]) -> str:
    """What decides chance in one call: the seed and everything of the history that changes between calls."""
    return f"{seed}/{kind}/{history.round}/{len(history.tried)}/{len(refused)}"


def known_allocations(history: History, refused: Sequence[RefusedView]) -> set[Allocation]:
    """What must not be suggested again: it ran, is accepted, or was refused in this round."""
    return set(history.tried) | {r.allocation for r in refused if r.allocation is not None}


def fresh_sample(space: SearchSpace, generator: random.Random, known: set[Allocation], count: int) -> list[Allocation]:
    """Feasible allocations that are not known, drawn at random; every one that is left where chance finds too few."""
    if count < 1:
        return []
    fresh = [a for a in space.sample(generator, count + len(known)) if a not in known][:count]
    if len(fresh) < count and space.size(MAX_LISTED) < MAX_LISTED:
        rest = [a for a in space.allocations() if a not in known and a not in fresh]
        generator.shuffle(rest)
        fresh += rest[: count - len(fresh)]
    return fresh
