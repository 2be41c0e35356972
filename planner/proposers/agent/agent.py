"""The LLM agent as a proposer: reflects and proposes in words, and is checked like any other."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import cast

from env.allocation import Allocation
from planner.history import Guideline, History, RefusedView
from planner.proposers._base import Proposal, Proposer, Reflection, Suggestions
from planner.proposers.ablation import NOTHING, Ablation
from planner.proposers.agent.accounts import Accounts, TokenLimit
from planner.proposers.agent.client import LlmClient
from planner.proposers.agent.graph import AgentGraph, Errand
from planner.proposers.agent.prompt_set import prompt_set
from planner.proposers.agent.prompting import PromptWriter
from planner.proposers.agent.reading import read_guidelines, read_proposals
from planner.proposers.agent.schemas import guidelines_form, proposals_form
from planner.proposers.agent.settings import LlmSettings
from planner.proposers.agent.tools import MAX_RESULT_CHARS, Toolbox
from planner.proposers.agent.trust import allowance
from planner.proposers.initial import initial_trials
from planner.space import SearchSpace

FRAME_CHARS = 600
"""Of the sentences around a schema that is written out, and about the tools."""

FILL = "fill"
"""Origin of what the policy proposes in place of the LLM."""


class AgentProposer:
    """Proposes with an LLM, by the three insights of AgentTTS (arXiv 2508.00890).

    Every request, good or bad, is in the exchanges of what is returned, word for word and with its tokens. When the LLM
    is down, late, over its budget or talks nonsense, its exchange says why. What the LLM wrote is not checked against
    the search space. An identical request is asked once; its repetition costs no tokens.

    With a policy beside it the LLM fills as much of a batch as it has earned (`allowance`) and sees what the policy
    would propose; the policy fills the rest. Without one a batch holds what the LLM offers and nothing else.

    Args:
        space: the search space.
        settings: the LLM.
        task: what the pipeline is for, in the owner's words; shown to the LLM as data.
        seed: sent to servers that take one.
        token_budget: tokens the proposer may still spend, asked before each request, where there are no `accounts`.
            None is no limit.
        policy: proposes without an LLM; the safety net.
        accounts: the proposer's budget and memory in the archive.
        ablation: parts of the method to leave out.
    """

    kind = "agent"

    def __init__(
        self,
        space: SearchSpace,
        settings: LlmSettings,
        task: str,
        seed: int,
        token_budget: Callable[[], int] | None = None,
        *,
        policy: Proposer | None = None,
        accounts: Accounts | None = None,
        ablation: Ablation = NOTHING,
    ) -> None:
        self._space = space
        self._settings = settings
        self._seed = seed
        self._token_budget = token_budget
        self._policy = policy
        self._accounts = accounts
        self._ablation = ablation
        self._client = LlmClient(settings, seed)
        self._graph = AgentGraph(self._client, settings.model)
        self._guidelines_form = guidelines_form(space, ablation)
        self._proposals_form = proposals_form(space)
        # Servers without structured output get the schema as text, so it counts as part of the prompt.
        schema = max(len(json.dumps(form.schema)) for form in (self._guidelines_form, self._proposals_form))
        room = settings.max_prompt_chars - schema - FRAME_CHARS
        self._plain = PromptWriter(space, task, room, ablation)
        # What tools answer becomes part of the prompt too.
        self._calls = min(settings.max_tool_calls, room // (2 * MAX_RESULT_CHARS)) if settings.tools else 0
        self._tooled = PromptWriter(space, task, room - self._calls * MAX_RESULT_CHARS, ablation)

    async def initial(self, history: History) -> Suggestions:
        """The first trials, which need no LLM: the policy's, which come from insight 1 as its prior.

        Without a policy those of the paper (see `initial_trials`), and without insight 1 as many chosen by chance.
        """
        if self._policy is not None:
            return await self._policy.initial(history)
        trials = initial_trials(self._space)
        if self._ablation.without_insight_1:
            drawn = self._space.sample(random.Random(f"{self._seed}/initial"), len(trials))
            trials = tuple(Proposal(a, "initial", "drawn at random: insight 1 is left out") for a in drawn)
        return Suggestions(trials)

    async def reflect(self, history: History) -> Reflection:
        """See `Proposer.reflect`. No guidelines, and no request, before the first trial."""
        if not history.trials:
            return Reflection(())
        errand = Errand(
            lambda: self._plain.reflect(history),
            self._guidelines_form,
            lambda reply: self._guidelines(reply, history),
            self._open_accounts(),
        )
        found, exchanges = await self._graph.run(errand)
        return Reflection(cast(tuple[Guideline, ...], found), exchanges)

    async def propose(self, history: History, count: int, refused: Sequence[RefusedView]) -> Suggestions:
        """See `Proposer.propose`. Without a policy fewer than `count` where the LLM offers fewer; never padded."""
        if count < 1:
            return Suggestions(())
        if self._policy is None:
            return await self._asked(history, count, refused, ())
        advised = await self._policy.propose(history, count, refused)
        advice = advised.proposals
        own = allowance(history, count)
        asked = await self._asked(history, own, refused, advice) if own else Suggestions(())
        return Suggestions(
            self._completed(asked.proposals, own, advice, count), asked.exchanges, expected_gain=advised.expected_gain
        )

    async def close(self) -> None:
        """See `Proposer.close`."""
        await self._client.close()
        if self._policy is not None:
            await self._policy.close()

    async def _asked(
        self, history: History, count: int, refused: Sequence[RefusedView], advice: Sequence[Proposal]
    ) -> Suggestions:
        toolbox = Toolbox(self._space, history, self._calls, self._ablation) if self._calls > 0 else None
        writer = self._plain if toolbox is None else self._tooled
        errand = Errand(
            lambda: writer.propose(history, count, refused, advice),
            self._proposals_form,
            lambda reply: read_proposals(reply, count),
            self._open_accounts(),
            toolbox,
        )
        found, exchanges = await self._graph.run(errand)
        label = prompt_set().label
        return Suggestions(tuple(replace(p, prompts=label) for p in cast(tuple[Proposal, ...], found)), exchanges)

    def _completed(
        self, asked: tuple[Proposal, ...], own: int, advice: Sequence[Proposal], count: int
    ) -> tuple[Proposal, ...]:
        """The LLM's proposals and the policy's: its share, and what the LLM left open of its own.

        In the order of the policy's advice, whoever proposes it; what only the LLM proposes comes last, so that it
        delays nothing, and is the first to go where the search budget ends.
        """
        named = {self._named(p) for p in asked}
        rank = {p.allocation: i for i, p in enumerate(advice)}
        rest = [p for p in advice if p.allocation not in named][: count - len(asked)]
        share = min(len(rest), count - own)
        filled = tuple(replace(p, origin=FILL, reason=f"insight policy fills in: {p.reason}") for p in rest[share:])
        return tuple(sorted((*rest[:share], *filled, *asked), key=lambda p: rank.get(self._named(p), len(rank))))

    def _named(self, proposal: Proposal) -> Allocation | None:
        """The allocation in normal form; None where it could not run."""
        allocation = proposal.allocation
        return None if allocation is None or self._space.faults(allocation) else self._space.normal(allocation)

    def _guidelines(self, reply: str, history: History) -> tuple[Guideline, ...] | None:
        read = read_guidelines(reply, self._space, history.round) or ()
        return tuple(g for g in read if self._ablation.keeps(g.insight)) or None

    def _open_accounts(self) -> Accounts:
        return self._accounts if self._accounts is not None else TokenLimit(self._token_budget)
