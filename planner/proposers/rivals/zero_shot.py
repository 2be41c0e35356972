"""LLM zero-shot: one prompt with the task and the space, and no word of how anything scored."""

from __future__ import annotations

from collections.abc import Sequence

from planner.history import History, RefusedView
from planner.proposers._base import Suggestions
from planner.proposers.rivals.asking import LlmRival, refusals
from planner.proposers.rivals.wording import lines, short


class ZeroShotProposer(LlmRival):
    """What an LLM believes before any experiment (``LLM_ZS`` of AgentTTS, arXiv 2508.00890).

    The prompt has the task, the space and its costs. It never sees a score. As a study asks for more than one batch,
    allocations that were suggested before are listed, without results, so that they are not suggested again.
    """

    kind = "zero_shot"
    role = (
        "You know how test-time compute is best spent in pipelines of LLM steps. You are asked once, before anything "
        "has run, which allocations of models, strategies and samples will score highest within a budget."
    )

    async def propose(self, history: History, count: int, refused: Sequence[RefusedView]) -> Suggestions:
        """See `Proposer.propose`."""
        if count < 1 or self._exhausted(history):
            return Suggestions(())
        named = lines(short(a) for a in sorted(history.tried))
        found, exchange = await self._ask_proposals(
            "zero_shot.j2", (), count, named=named, refusals=lines(refusals(refused))
        )
        return Suggestions(found, (exchange,))
