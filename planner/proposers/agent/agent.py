"""The LLM agent as a proposer: reflects and proposes in words, and is checked like any other."""

from __future__ import annotations

import json
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TypeVar

from planner.history import Guideline, History, RefusedView
from planner.proposers._base import Exchange, Proposal, Reflection, Suggestions
from planner.proposers.agent.client import LlmClient
from planner.proposers.agent.dialect import Prompt, ReplyForm
from planner.proposers.agent.prompting import PromptTooLongError, PromptWriter
from planner.proposers.agent.reading import read_guidelines, read_proposals
from planner.proposers.agent.schemas import guidelines_form, proposals_form
from planner.proposers.agent.settings import LlmSettings
from planner.proposers.initial import initial_trials
from planner.space import SearchSpace

MAX_CACHED = 64
SCHEMA_FRAME_CHARS = 200

Read = TypeVar("Read", tuple[Guideline, ...], tuple[Proposal, ...])


class AgentProposer:
    """Proposes with an LLM, by the three insights of AgentTTS (arXiv 2508.00890).

    Every call, good or bad, is in the exchanges of what is returned, word for word and with its tokens. When the LLM
    is down, late, over the token budget or talks nonsense, the result holds no guidelines or proposals and its
    exchange says why; who falls back on what is the loop's decision. Proposals are what the LLM wrote, not checked
    against the search space. The same request is asked once per instance; its repetition costs no tokens.

    Args:
        space: the search space.
        settings: the LLM.
        task: what the pipeline is for, in the owner's words; shown to the LLM as data.
        seed: sent to servers that take one.
        token_budget: tokens the proposer may still spend; asked before each request. None is no limit.
    """

    kind = "agent"

    def __init__(
        self,
        space: SearchSpace,
        settings: LlmSettings,
        task: str,
        seed: int,
        token_budget: Callable[[], int] | None = None,
    ) -> None:
        self._space = space
        self._settings = settings
        self._client = LlmClient(settings, seed, token_budget)
        self._guidelines_form = guidelines_form(space)
        self._proposals_form = proposals_form(space)
        # Servers without structured output get the schema as text, so it counts as part of the prompt.
        schema = max(len(json.dumps(form.schema)) for form in (self._guidelines_form, self._proposals_form))
        self._writer = PromptWriter(space, task, settings.max_prompt_chars - schema - SCHEMA_FRAME_CHARS)
        self._cache: OrderedDict[tuple[str, Prompt], Exchange] = OrderedDict()

    async def initial(self, history: History) -> Suggestions:
        """The initial trials of insight 1; they need no LLM."""
        return Suggestions(initial_trials(self._space))

    async def reflect(self, history: History) -> Reflection:
        """See `Proposer.reflect`. No guidelines, and no call, before the first trial."""
        if not history.trials:
            return Reflection(())
        try:
            prompt = self._writer.reflect(history)
        except PromptTooLongError as error:
            return Reflection((), (self._unasked(error),))
        guidelines, exchange = await self._ask(
            prompt, self._guidelines_form, lambda reply: read_guidelines(reply, self._space, history.round)
        )
        return Reflection(guidelines, (exchange,))

    async def propose(self, history: History, count: int, refused: Sequence[RefusedView]) -> Suggestions:
        """See `Proposer.propose`. Fewer than `count` where the LLM offers fewer; never padded."""
        if count < 1:
            return Suggestions(())
        try:
            prompt = self._writer.propose(history, count, refused)
        except PromptTooLongError as error:
            return Suggestions((), (self._unasked(error),))
        proposals, exchange = await self._ask(prompt, self._proposals_form, lambda reply: read_proposals(reply, count))
        return Suggestions(proposals, (exchange,))

    async def close(self) -> None:
        """See `Proposer.close`."""
        await self._client.close()

    async def _ask(
        self, prompt: Prompt, form: ReplyForm, read: Callable[[str], Read | None]
    ) -> tuple[Read | tuple[()], Exchange]:
        """What was read from the reply, and the exchange; nothing, and an exchange with `error`, on any failure."""
        key = (form.name, prompt)
        known = self._cache.get(key)
        if known is not None:
            self._cache.move_to_end(key)
            return read(known.reply) or (), replace(known, prompt_tokens=0, completion_tokens=0, seconds=0.0)
        exchange = await self._client.ask(prompt, form)
        if exchange.error:
            return (), exchange
        found = read(exchange.reply)
        if not found:
            return (), replace(exchange, error=f"no {form.name} could be read in the reply")
        self._cache[key] = exchange
        if len(self._cache) > MAX_CACHED:
            self._cache.popitem(last=False)
        return found, exchange

    def _unasked(self, error: PromptTooLongError) -> Exchange:
        return Exchange(self._settings.model, "", "", 0, 0, error=str(error))
