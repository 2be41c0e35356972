"""MLCopilot: knowledge distilled from earlier tasks' experience, the most alike of them at hand, then a suggestion."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

from planner.history import Guideline, History, RefusedView
from planner.proposers._base import Reflection, Suggestions
from planner.proposers.experience import PastRun, PastTask, canonical, nearest, told
from planner.proposers.registry import ProposerSetup
from planner.proposers.rivals.asking import LlmRival, known_short, refusals
from planner.proposers.rivals.wording import cut, lines

KNOWLEDGE = "knowledge"
MOST_TASKS = 3
"""Earlier tasks shown as demonstrations."""


class MlCopilotProposer(LlmRival):
    """Suggests from experience in words, in the way of MLCopilot (arXiv 2304.14979).

    Offline part: an LLM distils short rules from a pool of experience. The pool is the archive's earlier studies, each
    run told canonically (`planner.proposers.experience`), and this study's own trials once there are some; without
    earlier studies its own trials are the whole pool. The rules are kept as the study's guidelines. Online part: the
    earlier tasks most like this one are shown as demonstrations, with the rules, and the LLM suggests allocations.

    Differences: similarity is that of words, not of embeddings; the knowledge is written anew each round instead of
    once, as the own trials join the pool, and not checked by trial suggestions; the answer names exact settings, which
    the space lists, instead of levels to be mapped back.
    """

    kind = "mlcopilot"
    role = (
        "You advise on how pipelines of LLM steps should spend their compute, from experience with earlier pipelines. "
        "You transfer what held there to the task at hand, and say so where nothing carries over."
    )

    def __init__(self, setup: ProposerSetup) -> None:
        super().__init__(setup)
        self._setup = setup

    async def initial(self, history: History) -> Suggestions:
        """Knowledge from the earlier studies, where there are any, then a first batch."""
        if not self._pool:
            return await self.propose(history, self._batch, ())
        elicited = await self._elicit(history)
        knowing = History(
            history.round,
            history.trials,
            history.refused,
            (*history.guidelines, *elicited.guidelines),
            history.trials_left,
        )
        suggested = await self.propose(knowing, self._batch, ())
        return Suggestions(suggested.proposals, (*elicited.exchanges, *suggested.exchanges))

    async def reflect(self, history: History) -> Reflection:
        """The knowledge of the pool as it is now."""
        return await self._elicit(history) if self._pool or history.trials else Reflection(())

    async def propose(self, history: History, count: int, refused: Sequence[RefusedView]) -> Suggestions:
        """See `Proposer.propose`."""
        if count < 1 or self._exhausted(history):
            return Suggestions(())
        found, exchange = await self._ask_proposals(
            "mlcopilot_suggest.j2",
            history.trials,
            count,
            experience=self._told(history),
            knowledge=lines(g.text for g in self._knowledge(history)),
            known=lines(known_short(history, refused)),
            refusals=lines(refusals(refused)),
        )
        return Suggestions(found, (exchange,))

    async def _elicit(self, history: History) -> Reflection:
        return await self._ask_notes(
            "mlcopilot_knowledge.j2", (), history.round, KNOWLEDGE, experience=self._told(history)
        )

    @cached_property
    def _pool(self) -> tuple[PastTask, ...]:
        return tuple(self._setup.experience())

    def _told(self, history: History) -> str:
        """The tasks most like this one, and this one itself, each with its runs in canonical words."""
        task = f"{self._setup.task} Stages: {', '.join(s.name for s in self._space.pipeline.stages)}."
        alike = nearest(task, self._pool, MOST_TASKS)
        own = tuple(PastRun(canonical(self._space, t.allocation), t.score) for t in history.trials)
        alike += [PastTask("this study so far", task, own)] if own else []
        return lines({"task": cut(past.task), "runs": told(past.runs)} for past in alike)

    def _knowledge(self, history: History) -> list[Guideline]:
        """The rules of the latest round that has any."""
        rules = [g for g in history.guidelines if g.structured.get("note") == KNOWLEDGE]
        latest = max((g.round for g in rules), default=0)
        return [g for g in rules if g.round == latest]
