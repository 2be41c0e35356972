"""One errand of the agent as a LangGraph graph: write the card, ask, look up what the LLM wants to know, ask again."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, TypedDict

from planner.history import Guideline
from planner.proposers._base import Exchange, Proposal
from planner.proposers.agent.accounts import Accounts
from planner.proposers.agent.client import LlmClient
from planner.proposers.agent.dialect import Prompt, Question, ReplyForm, Turn
from planner.proposers.agent.prompt_set import prompt_set
from planner.proposers.agent.prompting import PromptTooLongError
from planner.proposers.agent.tools import Toolbox

MAX_CACHED = 64
MAX_TURNS = 12
"""Requests of one errand, whatever the calls in each."""

Found = tuple[Guideline, ...] | tuple[Proposal, ...]


@dataclass(frozen=True)
class Errand:
    """What is wanted of the LLM: one of the two requests."""

    write: Callable[[], Prompt]
    form: ReplyForm
    read: Callable[[str], Found | None]
    """What a reply holds; None or nothing where it is unusable."""

    accounts: Accounts
    toolbox: Toolbox | None = None


class AgentState(TypedDict):
    """All the graph carries."""

    errand: Errand
    question: Question | None
    """None where no prompt could be written."""

    exchanges: tuple[Exchange, ...]
    found: Found


class AgentGraph:
    """``card -> ask -> (look_up -> ask)* -> end``; equal questions are asked once.

    Args:
        client: asks.
        model: its name, for exchanges that were never sent.
    """

    def __init__(self, client: LlmClient, model: str) -> None:
        self._client = client
        self._model = model
        self._cache: OrderedDict[str, Exchange] = OrderedDict()
        self._compiled: Any = None

    async def run(self, errand: Errand) -> tuple[Found, tuple[Exchange, ...]]:
        """What was found, and every exchange on the way; nothing found where the last exchange has an error."""
        if self._compiled is None:
            self._compiled = self._build()
        start: AgentState = {"errand": errand, "question": None, "exchanges": (), "found": ()}
        end = await self._compiled.ainvoke(start, {"recursion_limit": 3 * MAX_TURNS + 10})
        return end["found"], end["exchanges"]

    def _build(self) -> Any:
        # Imported here: only studies with an agent need it, and it takes a second.
        from langgraph.graph import END, START, StateGraph

        graph = StateGraph(AgentState)
        graph.add_node("card", self._card)
        graph.add_node("ask", self._ask)
        graph.add_node("look_up", self._look_up)
        graph.add_edge(START, "card")
        graph.add_conditional_edges("card", lambda s: "ask" if s["question"] else END, ["ask", END])
        graph.add_conditional_edges(
            "ask", lambda s: "look_up" if s["exchanges"][-1].tool_calls else END, ["look_up", END]
        )
        graph.add_edge("look_up", "ask")
        return graph.compile()

    async def _card(self, state: AgentState) -> dict[str, Any]:
        errand = state["errand"]
        try:
            prompt = errand.write()
        except PromptTooLongError as error:
            label = prompt_set().label
            return {"exchanges": (Exchange(self._model, "", "", 0, 0, error=str(error), prompts=label),)}
        if errand.toolbox is None:
            return {"question": Question(prompt, errand.form)}
        note = prompt_set().render("tools.j2", {"calls": errand.toolbox.left})
        return {"question": Question(prompt, errand.form, (), errand.toolbox.tools, note, final=False)}

    async def _ask(self, state: AgentState) -> dict[str, Any]:
        errand, question = state["errand"], state["question"]
        assert question is not None
        exchange = self._recalled(question, errand.accounts)
        if exchange is None:
            exchange = replace(await self._client.ask(question, errand.accounts), prompts=prompt_set().label)
            if not exchange.error and not exchange.tool_calls and not errand.read(exchange.reply):
                exchange = replace(exchange, error=f"no {errand.form.name} could be read in the reply")
            exchange = errand.accounts.keep(exchange)
            self._remember(exchange)
        usable = not exchange.error and not exchange.tool_calls
        return {
            "exchanges": (*state["exchanges"], exchange),
            "found": (errand.read(exchange.reply) or ()) if usable else (),
        }

    async def _look_up(self, state: AgentState) -> dict[str, Any]:
        question, toolbox, exchange = state["question"], state["errand"].toolbox, state["exchanges"][-1]
        assert question is not None
        assert toolbox is not None
        results = tuple(toolbox.answer(call) for call in exchange.tool_calls)
        turns = (*question.turns, Turn(exchange.reply, exchange.tool_calls, results))
        final = toolbox.left < 1 or len(turns) >= MAX_TURNS
        return {"question": replace(question, turns=turns, final=final)}

    def _recalled(self, question: Question, accounts: Accounts) -> Exchange | None:
        """The exchange of an identical request, of this instance or of the archive; it costs nothing again."""
        key = self._client.key(question)
        known = self._cache.get(key) or accounts.recall(key)
        if known is None or (known.tool_calls and question.final):
            return None
        return replace(
            known,
            prompt_tokens=0,
            completion_tokens=0,
            cached_tokens=0,
            reasoning_tokens=0,
            dollars=None,
            seconds=0.0,
            recalled=True,
        )

    def _remember(self, exchange: Exchange) -> None:
        if exchange.error:
            return
        self._cache[exchange.request] = exchange
        if len(self._cache) > MAX_CACHED:
            self._cache.popitem(last=False)
