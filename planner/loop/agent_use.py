"""Adds up what the agent's LLM did in a study."""

from __future__ import annotations

from planner.loop.accounts import exchange_of
from planner.loop.context import StudyContext
from planner.plans.document import AgentUse
from planner.proposers.digest import calibration, earned


def agent_use(context: StudyContext) -> AgentUse | None:
    """Calls, tokens, money and fate of its proposals; None where no LLM was asked."""
    calls = [exchange_of(row) for row in context.calls()]
    if not calls:
        return None
    paid = [c.dollars for c in calls if c.dollars is not None]
    origin = context.proposer.kind
    proposed = [row for of in context.journal().by_round.values() for row in of if row.origin == origin]
    trials = context.history(0).trials
    worth = earned(trials, origin)
    held = calibration(trials, origin)
    return AgentUse(
        models=sorted({c.model for c in calls}),
        prompts=sorted({c.prompts for c in calls if c.prompts}),
        calls=len(calls),
        failed_calls=sum(bool(c.error) for c in calls),
        tool_calls=sum(len(c.tool_calls) for c in calls),
        prompt_tokens=sum(c.prompt_tokens for c in calls),
        completion_tokens=sum(c.completion_tokens for c in calls),
        cached_tokens=sum(c.cached_tokens for c in calls),
        reasoning_tokens=sum(c.reasoning_tokens for c in calls),
        dollars=sum(paid) if paid else None,
        proposed=len(proposed),
        refused=sum(row.verdict == "refused" for row in proposed),
        trials=len(worth),
        earned=sum(worth),
        bias=None if held is None else held.bias,
        absolute_error=None if held is None else held.absolute,
    )
