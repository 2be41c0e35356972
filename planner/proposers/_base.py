"""What every proposer is: from history to guidelines, and from history to a batch of allocations."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from env.allocation import Allocation
from planner.history import Guideline, History, RefusedView


@dataclass(frozen=True)
class Proposal:
    """One suggested allocation."""

    allocation: Allocation | None
    """None where the suggestion could not be read as an allocation; review refuses it with `problem`."""

    origin: str
    """Who suggested it: a proposer's kind, or ``initial`` for the paper's initial trials."""

    reason: str = ""
    expected_score: float | None = None
    """What the proposer expects, so that its calibration can be measured."""

    raw: str = ""
    """The suggestion as it came, where it could not be read."""

    problem: str = ""
    prompts: str = ""
    """Which prompt templates it answers (`PromptSet.label`); empty where no LLM was asked."""


@dataclass(frozen=True)
class ToolCall:
    """One tool that an LLM asked for, as it was written."""

    id: str
    name: str
    arguments: str


@dataclass(frozen=True)
class Exchange:
    """One request to a proposer's LLM, kept word for word."""

    model: str
    prompt: str
    reply: str
    """Empty where the call failed."""

    prompt_tokens: int
    completion_tokens: int
    error: str = ""
    """Why there is no usable reply; empty where there is one."""

    seconds: float = 0.0
    cached_tokens: int = 0
    """Of the prompt tokens, those the provider had seen before, where it says so."""

    reasoning_tokens: int = 0
    """Of the completion tokens, those spent on thinking, where the server says so."""

    dollars: float | None = None
    """What it cost; None where the LLM has no known price."""

    tool_calls: tuple[ToolCall, ...] = ()
    """What the LLM wants to know before it answers; then `reply` is what it said beside, often nothing."""

    request: str = ""
    """Hash of what was asked; equal requests have equal hashes, whatever the server's dialect."""

    prompts: str = ""
    """Name, version and hash of the prompt templates."""

    recalled: bool = False
    """Whether the reply is that of an earlier, identical request: no tokens were used."""

    kept: bool = False
    """Whether it is in the archive and the ledgers already."""


@dataclass(frozen=True)
class Reflection:
    """Guidelines of one round, and the LLM call behind them where there was one."""

    guidelines: tuple[Guideline, ...]
    exchanges: tuple[Exchange, ...] = ()


@dataclass(frozen=True)
class Suggestions:
    """A batch of proposals, and the LLM calls behind it."""

    proposals: tuple[Proposal, ...]
    exchanges: tuple[Exchange, ...] = ()
    expected_gain: float | None = None
    """Expected improvement in score over the best trial, of the most promising allocation that has not run; None where
    the proposer does not know."""


class Proposer(Protocol):
    """Suggests allocations. Implementations never raise for a model that is down, slow or talks nonsense.

    Without an LLM a proposer is a pure function of history and seed, so that a study resumed after a crash goes on as
    if nothing had happened.
    """

    @property
    def kind(self) -> str:
        """The name a spec asks for it by (`planner.proposers.registry`)."""
        ...

    async def initial(self, history: History) -> Suggestions:
        """The first batch, before any trial."""
        ...

    async def reflect(self, history: History) -> Reflection:
        """Write guidelines from what has been seen."""
        ...

    async def propose(self, history: History, count: int, refused: Sequence[RefusedView]) -> Suggestions:
        """Suggest up to `count` allocations that have not run.

        Args:
            history: the study so far.
            count: how many are wanted.
            refused: what review refused in this round so far, with reasons.
        """
        ...

    async def close(self) -> None:
        """Release connections."""
        ...
