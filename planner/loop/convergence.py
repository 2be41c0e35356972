"""Ends a search in which nothing that is left is expected to gain enough."""

from __future__ import annotations

from planner.loop.context import StudyContext
from planner.proposers import Suggestions
from planner.proposers.registry import may_ask_llm

QUIET_ROUNDS = 2
"""Rounds in a row that must begin with too little to gain: the forecast has to hold before a round and after it."""


class Convergence:
    """Watches what a study may still gain, where its spec says how little is too little (`min_gain`)."""

    def __init__(self, context: StudyContext) -> None:
        """Of one study."""
        self._context = context

    async def looked_at(self, round_: int, room: int, quiet: int) -> tuple[int, Suggestions | None]:
        """Rounds in a row, with this one, that begin with too little to gain, and a batch that came with the forecast.

        Args:
            round_: of the search.
            room: allocations wanted.
            quiet: such rounds right before this one.
        """
        least = self._context.spec.budget.search.min_gain
        if least is None:
            return quiet, None
        gain, suggestions = await self._forecast(round_, room)
        quiet = quiet + 1 if gain is not None and gain < least else 0
        if quiet >= QUIET_ROUNDS and gain is not None:
            self._stop(gain, least)
        return quiet, suggestions

    async def _forecast(self, round_: int, room: int) -> tuple[float | None, Suggestions | None]:
        """What the best allocation that is left is expected to add to the best score, and a batch that came with it.

        The proposer's own forecast, and the insight policy's where it has none; None before the first score. It is
        written down before anything is decided from it, so that a step that is run again decides alike.
        """
        context = self._context
        key = f"gain-{round_}"
        known = context.archive.events.named(context.study_id, key)
        if known is not None:
            return known.payload["expected_gain"], None
        history = context.history(round_)
        suggestions: Suggestions | None = None
        gain: float | None = None
        # An LLM is not asked for a batch that may not run.
        if not may_ask_llm(context.proposer.kind) and room > 0:
            suggestions = await context.proposer.propose(history, room, ())
            gain = suggestions.expected_gain if history.trials else None
        if gain is None and history.trials:
            gain = (await context.insight.propose(history, 1, ())).expected_gain
        context.event("forecast", {"round": round_, "expected_gain": gain}, key)
        return gain, suggestions

    def _stop(self, gain: float, least: float) -> None:
        context = self._context
        context.stop(
            "min_gain",
            f"no remaining allocation is expected to gain more than {least:g} ({gain:.2g} at most); {context.unused}",
            expected_gain=gain,
            min_gain=least,
        )
