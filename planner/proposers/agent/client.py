"""One request to the agent's LLM: within its budget, patient with weak servers, never raising for a bad one."""

from __future__ import annotations

import asyncio
import hashlib
import json
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any

from env.spans import span
from planner.proposers._base import Exchange
from planner.proposers.agent.accounts import Accounts, OverBudgetError
from planner.proposers.agent.completions import MAX_ERROR_CHARS, Answer, read_completion, refused
from planner.proposers.agent.dialect import Dialect, Question, written
from planner.proposers.agent.fences import clean
from planner.proposers.agent.settings import NO_KEY, LlmSettings

if TYPE_CHECKING:
    from openai import AsyncOpenAI

OPENAI_URL = "https://api.openai.com/v1"
MAX_WAIT_S = 30.0
_CONNECTIONS = 8
GROWTH, MOST_GROWTH = 4, 16
"""Factor by which the completion limit is raised for an LLM that thinks until the limit and never answers, and what all
raises together come to at most."""


def estimate_tokens(text: str) -> int:
    """Tokens of a text where no server counts them: a quarter of its UTF-8 bytes, rounded up."""
    return -(-len(text.encode("utf-8", "replace")) // 4)


@dataclass
class _Used:
    """Tokens and money of one question, over all its requests."""

    prompt: int = 0
    completion: int = 0
    cached: int = 0
    reasoning: int = 0
    dollars: float | None = None

    def add(self, answer: Answer, dollars: float | None) -> None:
        self.prompt += answer.prompt_tokens
        self.completion += answer.completion_tokens
        self.cached += answer.cached_tokens
        self.reasoning += answer.reasoning_tokens
        if dollars is not None:
            self.dollars = (self.dollars or 0.0) + dollars


@dataclass(frozen=True)
class _Said:
    """What came of a question."""

    dialect: Dialect
    answer: Answer = field(default_factory=Answer)


class LlmClient:
    """Asks one LLM for JSON; one event loop at a time, not necessarily the same one for every call.

    Args:
        settings: the LLM.
        seed: sent with every request, where the server takes it.
    """

    def __init__(self, settings: LlmSettings, seed: int) -> None:
        self._settings = settings
        self._seed = seed
        self._dialect = Dialect()
        self._limit = settings.max_completion_tokens
        self._open: tuple[asyncio.AbstractEventLoop, AsyncOpenAI] | None = None

    def key(self, question: Question) -> str:
        """Hash of a question: equal for equal questions to this LLM, whatever its server's dialect."""
        asked = asdict(question) | {"model": self._settings.model, "seed": self._seed}
        return hashlib.sha256(json.dumps(asked, sort_keys=True).encode("utf-8", "replace")).hexdigest()

    async def ask(self, question: Question, accounts: Accounts) -> Exchange:
        """One question with its retries; a failure is an exchange with `error`, only cancellation propagates.

        Tokens are the server's count. Where it gives none they are estimated (`estimate_tokens`), and so is the prompt
        of a request that timed out, which the server most likely read and charged.
        """
        started = time.monotonic()
        key, used = self.key(question), _Used()
        try:
            said = await self._answer(question, key, accounts, used)
        except Exception as error:
            said = _Said(self._dialect, Answer(error=f"{type(error).__name__}: {error}"))
        answer = said.answer
        return Exchange(
            model=self._settings.model,
            prompt=self._storable(_shown(said.dialect, question)),
            reply=self._storable(answer.reply),
            prompt_tokens=used.prompt,
            completion_tokens=used.completion,
            error=self._storable(answer.error)[:MAX_ERROR_CHARS],
            seconds=time.monotonic() - started,
            cached_tokens=used.cached,
            reasoning_tokens=used.reasoning,
            dollars=used.dollars,
            tool_calls=tuple(replace(c, arguments=self._storable(c.arguments)) for c in answer.tool_calls),
            request=key,
        )

    async def close(self) -> None:
        """Close the connections."""
        if self._open is not None:
            loop, client = self._open
            self._open = None
            if loop is asyncio.get_running_loop():
                await client.close()

    async def _answer(self, question: Question, key: str, accounts: Accounts, used: _Used) -> _Said:
        """Ask until there is an answer, the retries are used up or the budget is; `used` collects what all took."""
        dialect, retries = self._dialect, 0
        while True:
            request = dialect.request(self._settings, self._seed, question, self._limit)
            size = estimate_tokens(written(dialect.messages(question)))
            size += estimate_tokens(str(request.get("response_format", ""))) + estimate_tokens(
                str(request.get("tools", ""))
            )
            try:
                answer = await self._accounted(request, size, key, accounts, used)
            except OverBudgetError as error:
                return _Said(dialect, Answer(error=str(error)))
            if answer.status is None and not answer.transient:
                # The server took the request; that its answer may be unusable is another matter.
                self._dialect = dialect
                if answer.starved and self._limit < MOST_GROWTH * self._settings.max_completion_tokens:
                    self._limit *= GROWTH
                    continue
                if answer.tool_calls and (question.final or not question.tools):
                    answer = replace(answer, tool_calls=(), error=answer.error or "tools instead of an answer")
                return _Said(dialect, answer)
            weaker = (
                None
                if answer.status is None
                else dialect.after_refusal(answer.status, answer.error, tools="tools" in request)
            )
            if weaker is not None:
                dialect = weaker
                continue
            if not answer.transient or retries >= self._settings.max_retries:
                return _Said(dialect, answer)
            wait = answer.wait_s if answer.wait_s is not None else self._settings.backoff_s * 2.0**retries
            await asyncio.sleep(min(wait, MAX_WAIT_S))
            retries += 1

    async def _accounted(
        self, request: Mapping[str, object], size: int, key: str, accounts: Accounts, used: _Used
    ) -> Answer:
        """One HTTP request between its reservation and its settlement."""
        dollars = self._settings.dollars
        entry = accounts.reserve(key, size + self._limit, dollars(size, self._limit))
        with span("llm", model=self._settings.model) as watched:
            answer = await self._request(request, size)
            watched.note(prompt_tokens=answer.prompt_tokens, output_tokens=answer.completion_tokens)
        paid = dollars(answer.prompt_tokens, answer.completion_tokens, answer.cached_tokens)
        used.add(answer, paid)
        accounts.settle(entry, answer.prompt_tokens + answer.completion_tokens, paid)
        return answer

    async def _request(self, request: Mapping[str, object], size: int) -> Answer:
        """One HTTP request, whose prompt has about `size` tokens."""
        import openai

        try:
            async with asyncio.timeout(self._settings.timeout_s):
                # The raw body: servers answer in shapes that the client's models do not check.
                create: Any = self._client().chat.completions.with_raw_response.create
                body: bytes = (await create(**request)).content
        except (TimeoutError, openai.APITimeoutError):
            late = f"no answer within {self._settings.timeout_s:g} s"
            return Answer(error=late, transient=True, prompt_tokens=size)
        except openai.APIStatusError as error:
            return refused(error)
        except openai.APIConnectionError as error:
            return Answer(error=f"cannot reach the server: {error.__cause__ or error}", transient=True)
        return read_completion(body, size, estimate_tokens)

    def _client(self) -> AsyncOpenAI:
        from openai import AsyncOpenAI

        from env.backends.openai_transport import open_http_client

        loop = asyncio.get_running_loop()
        if self._open is None or self._open[0] is not loop:
            # Connections belong to their event loop; those of a loop that ended are gone with it.
            url, timeout = self._settings.base_url or OPENAI_URL, self._settings.timeout_s
            client = AsyncOpenAI(
                api_key=self._settings.api_key,
                base_url=url,
                timeout=timeout,
                max_retries=0,
                http_client=open_http_client(url, _CONNECTIONS, timeout, self._settings.egress),
            )
            self._open = (loop, client)
        return self._open[1]

    def _storable(self, text: str) -> str:
        key = self._settings.api_key
        if key != NO_KEY and len(key) >= 4:
            text = text.replace(key, "[key]").replace(repr(key)[1:-1], "[key]")
        return clean(text)


def _shown(dialect: Dialect, question: Question) -> str:
    """What was sent; of a question that goes on after tools only what is new, the rest is in the exchange before."""
    messages = dialect.messages(question)
    if not question.turns:
        return written(messages)
    last = 1 + len(question.turns[-1].results)
    return "[continues the request before]\n\n" + written(messages[-last:])
