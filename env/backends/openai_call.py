"""One chat completion over HTTP: time limit, retries with backoff, and doing without what a server refuses."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from env.backends._base import Draw, Message, Sampling
from env.backends.openai_reply import MalformedReplyError, read_draws
from env.errors import BackendError

if TYPE_CHECKING:
    from openai import APIStatusError, AsyncOpenAI

_RETRIED = frozenset({408, 409, 429})
_LONGEST_WAIT_S = 30.0
_DISPENSABLE = ("logprobs", "seed")
"""Fields that a server may refuse without the draws losing their meaning."""


@dataclass(frozen=True)
class Limits:
    """How long and how often a call is tried."""

    timeout_s: float
    """For one attempt, from sending to the last byte."""

    max_retries: int
    backoff_s: float
    """Wait before the first retry; doubled each time, half of it at random."""


@dataclass
class Habits:
    """What this server was found not to serve; learnt from its refusals and kept for later calls."""

    without: set[str] = field(default_factory=set)
    limit_field: str = "max_tokens"
    single: bool = False
    """It refuses or ignores ``n``."""

    def learn(self, error: APIStatusError, sent: Mapping[str, Any]) -> bool:
        """Whether a refusal of what was sent taught something that makes another attempt worth while."""
        if error.status_code not in (400, 422):
            return False
        text = f"{error.param or ''} {error.message}"
        if "max_tokens" in sent and "max_completion_tokens" in text:
            self.limit_field = "max_completion_tokens"
            return True
        refused = [name for name in _DISPENSABLE if name in sent and name.rstrip("s") in text]
        self.without.update(refused)
        return bool(refused)


class ChatCalls:
    """Calls to one model of one server from one event loop."""

    def __init__(self, client: AsyncOpenAI, model: str, limits: Limits, concurrency: int, habits: Habits) -> None:
        self.client = client
        self._model = model
        self._limits = limits
        self._slots = asyncio.Semaphore(concurrency)
        self._habits = habits

    async def draws(self, messages: Sequence[Message], sampling: Sampling, seed: int, first: int, n: int) -> list[Draw]:
        """Ask for ``n`` choices; they are draws ``first``, ``first + 1``, ... and may be fewer than asked.

        Raises:
            BackendError: it failed for good; the message says how, and after how many attempts.
            NotServedError: the server refuses ``n``.
        """
        from openai import APIConnectionError, APIError, APIStatusError

        attempts = 0
        while True:
            wait: float | None = None
            body = self._body(messages, sampling, seed, n)
            try:
                return read_draws(await self._post(body), first, n)
            except APIStatusError as error:
                reason = f"HTTP {error.status_code}: {error.message}"
                if self._habits.learn(error, body):
                    continue
                if error.status_code in (400, 422) and n > 1:
                    raise NotServedError(reason) from None
                if error.status_code not in _RETRIED and error.status_code < 500:
                    raise BackendError(reason) from None
                wait = _retry_after(error)
            except TimeoutError:
                reason = f"no answer within {self._limits.timeout_s:g} s"
            except APIConnectionError as error:
                reason = f"no connection ({error.__cause__ or error})"
            except (APIError, MalformedReplyError) as error:
                reason = str(error)
            attempts += 1
            if attempts > self._limits.max_retries:
                raise BackendError(f"{reason} (after {attempts} attempts)")
            await asyncio.sleep(self._pause(attempts) if wait is None else wait)

    async def _post(self, body: Mapping[str, Any]) -> bytes:
        async with self._slots, asyncio.timeout(self._limits.timeout_s):
            reply = await self.client.chat.completions.with_raw_response.create(**body)
            return bytes(reply.http_response.content)

    def _body(self, messages: Sequence[Message], sampling: Sampling, seed: int, n: int) -> dict[str, Any]:
        habits = self._habits
        body: dict[str, Any] = {
            "model": self._model,
            "messages": [{"role": message.role, "content": message.content} for message in messages],
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            habits.limit_field: sampling.max_tokens,
            "seed": seed,
            "logprobs": True,
        }
        if n > 1:
            body["n"] = n
        if sampling.stop:
            body["stop"] = list(sampling.stop)
        for name in habits.without:
            del body[name]
        return body

    def _pause(self, attempts: int) -> float:
        longest = min(_LONGEST_WAIT_S, self._limits.backoff_s * 2.0 ** (attempts - 1))
        return longest * (0.5 + 0.5 * random.random())


class NotServedError(BackendError):
    """The server refuses a request for several choices that it may well serve one by one."""


def _retry_after(error: APIStatusError) -> float | None:
    """Seconds the server asks to wait, at most half a minute; None if it does not say."""
    try:
        return min(_LONGEST_WAIT_S, max(0.0, float(error.response.headers.get("retry-after", ""))))
    except ValueError:
        return None
