"""Evolution: crossover and mutation of the best allocations, the exploration that AgentTTS falls back on."""

from __future__ import annotations

import random
from collections.abc import Sequence

from env.allocation import Allocation
from planner.history import History, RefusedView, TrialView
from planner.proposers._base import Proposal, Suggestions
from planner.proposers.rivals.moves import crossover, mutate
from planner.proposers.rivals.rival import Rival, known_allocations
from planner.space import SearchSpace

POPULATION = 10
"""The best trials, which have offspring."""

TOURNAMENT = 2
"""Trials drawn for each parent; the best of them is it."""

MUTATION_AFTER_CROSSOVER = 0.3
IMMIGRANTS = 0.1
"""Share of suggestions drawn at random, so that a model that every survivor lost can come back."""

MAX_TRIES = 100
"""Offspring made for one place in the batch before chance takes it."""


class EvolutionProposer(Rival):
    """A steady-state genetic algorithm over allocations.

    AgentTTS (arXiv 2508.00890) names crossover, mutation and random search as what its agent does where scores hardly
    differ; this is that exploration on its own, all the way. Parents are the best of two drawn from the ten best
    trials. Offspring over budget or known already are thrown away and made anew: nothing is repaired. The paper gives
    no rates; those here are ours.
    """

    kind = "evolution"

    async def propose(self, history: History, count: int, refused: Sequence[RefusedView]) -> Suggestions:
        """See `Proposer.propose`."""
        generator = self._generator(history, refused)
        known = known_allocations(history, refused)
        population = best_trials(history, POPULATION)
        proposals: list[Proposal] = []
        for _ in range(count):
            made = None
            if len(population) >= 2 and generator.random() >= IMMIGRANTS:
                made = offspring(self._space, population, known, generator, self.kind)
            found = [made] if made is not None else self._at_random(generator, known, 1, "drawn at random")
            if not found:
                break
            proposals += found
            known |= {p.allocation for p in found if p.allocation is not None}
        return Suggestions(tuple(proposals))


def best_trials(history: History, count: int) -> list[TrialView]:
    """The trials with the highest scores, the cheaper of equals first."""
    return sorted(history.trials, key=lambda t: (-t.score, t.cost, t.trial_no))[:count]


def offspring(
    space: SearchSpace,
    population: Sequence[TrialView],
    known: set[Allocation],
    generator: random.Random,
    origin: str,
) -> Proposal | None:
    """A new feasible child of the population; None where `MAX_TRIES` children were all over budget or known."""
    for _ in range(MAX_TRIES):
        mother = _parent(population, generator)
        if generator.random() < 0.5:
            child, reason = mutate(space, mother.allocation, generator), f"mutation of trial {mother.trial_no}"
        else:
            father = _parent(population, generator)
            child = crossover(mother.allocation, father.allocation, generator)
            reason = f"crossover of trials {mother.trial_no} and {father.trial_no}"
            if generator.random() < MUTATION_AFTER_CROSSOVER:
                child, reason = mutate(space, child, generator), f"{reason}, mutated"
        child = space.normal(child)
        if child not in known and not space.faults(child):
            return Proposal(child, origin, reason)
    return None


def _parent(population: Sequence[TrialView], generator: random.Random) -> TrialView:
    drawn = [generator.choice(population) for _ in range(TOURNAMENT)]
    return max(drawn, key=lambda t: (t.score, -t.cost, -t.trial_no))
