"""AgentTTS as published: the procedure of the paper, with none of what this project adds to it."""

from __future__ import annotations

import random
from collections.abc import Sequence

from planner.history import Guideline, History, RefusedView
from planner.proposers._base import Proposal, Reflection, Suggestions
from planner.proposers.initial import initial_trials
from planner.proposers.rivals.asking import LlmRival, refusals
from planner.proposers.rivals.evolution import best_trials, offspring
from planner.proposers.rivals.rival import call_seed, fresh_sample, known_allocations
from planner.proposers.rivals.wording import lines

PROPOSALS_A_ROUND = 10
"""Of the paper, as is a limit of 50 trials; ``proposer.batch: 10`` runs all of them."""

ALIKE = 0.01
"""Scores of the ten best trials within this hardly differ. The paper leaves the judgement to its LLM."""

GUIDELINE = "guideline"


class AgentTtsPaperProposer(LlmRival):
    """The search of AgentTTS (arXiv 2508.00890).

    Initial trials of insight 1; an LLM writes guidelines from the archive of allocations and scores: which model each
    stage should pursue, in which direction its samples should move, how to split the budget; it then proposes ten
    allocations by task, space, cost formula, history and guidelines, of which those over budget are dropped. Where
    scores hardly differ it explores by crossover, mutation and chance in turn.

    Left out, to measure what they are worth: curves over k, standard errors, what a trial cost in draws, refusals of
    earlier rounds. Differences from the published code: a proposal is never
    replaced by a similar row of a table, a reply that cannot be read ends no study, and a trial is not run twice (the
    loop refuses it), all of which the project's own loop sees to.
    """

    kind = "agenttts_paper"
    role = (
        "You search for the compute-optimal way to run a task whose subtasks are each solved by an LLM that is sampled "
        "several times. You choose a model and a number of samples for each subtask so that the end score is as high "
        "as possible within the budget. You learn from the trials so far and write down what they show."
    )

    async def initial(self, history: History) -> Suggestions:
        """The initial trials of insight 1; they need no LLM."""
        return Suggestions(initial_trials(self._space))

    async def reflect(self, history: History) -> Reflection:
        """Guidelines from scores alone; none before the first trial."""
        if not history.trials:
            return Reflection(())
        return await self._ask_notes(
            "agenttts_guide.j2",
            history.trials,
            history.round,
            GUIDELINE,
            first=not self._guidelines(history),
            earlier=lines(g.text for g in self._guidelines(history)),
        )

    async def propose(self, history: History, count: int, refused: Sequence[RefusedView]) -> Suggestions:
        """See `Proposer.propose`. Without an LLM call where scores hardly differ."""
        if count < 1 or self._exhausted(history):
            return Suggestions(())
        if self._hardly_differ(history):
            return Suggestions(tuple(self._explore(history, count, refused)))
        found, exchange = await self._ask_proposals(
            "agenttts_propose.j2",
            history.trials,
            max(count, PROPOSALS_A_ROUND),
            guidelines=lines(g.text for g in self._guidelines(history)),
            refusals=lines(refusals(refused)),
        )
        within = [p for p in found if p.allocation is None or not self._over_budget(p)]
        return Suggestions(tuple(within[:count]), (exchange,))

    def _over_budget(self, proposal: Proposal) -> bool:
        assert proposal.allocation is not None
        return any(fault.startswith("over budget") for fault in self._space.faults(proposal.allocation))

    def _guidelines(self, history: History) -> list[Guideline]:
        """Those of the latest round that has any."""
        written = [g for g in history.guidelines if g.structured.get("note") == GUIDELINE]
        latest = max((g.round for g in written), default=0)
        return [g for g in written if g.round == latest]

    def _hardly_differ(self, history: History) -> bool:
        best = best_trials(history, PROPOSALS_A_ROUND)
        return len(best) >= 4 and best[0].score - best[-1].score < ALIKE

    def _explore(self, history: History, count: int, refused: Sequence[RefusedView]) -> list[Proposal]:
        generator = random.Random(call_seed(self._seed, self.kind, history, refused))
        known = known_allocations(history, refused)
        population = best_trials(history, PROPOSALS_A_ROUND)
        proposals: list[Proposal] = []
        for i in range(count):
            made = offspring(self._space, population, known, generator, self.kind) if i % 3 < 2 else None
            if made is None:
                drawn = fresh_sample(self._space, generator, known, 1)
                made = Proposal(drawn[0], self.kind, "scores hardly differ: drawn at random") if drawn else None
            if made is None or made.allocation is None:
                break
            proposals.append(made)
            known.add(made.allocation)
        return proposals
