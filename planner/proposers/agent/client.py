"""One call of the agent's LLM: within the token budget, patient with weak servers, never raising for a bad one."""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from planner.proposers._base import Exchange
from planner.proposers.agent.dialect import Dialect, Prompt, ReplyForm
from planner.proposers.agent.settings import NO_KEY, LlmSettings

if TYPE_CHECKING:
    from openai import APIStatusError, AsyncOpenAI

OPENAI_URL = "https://api.openai.com/v1"
MAX_REPLY_CHARS = 200_000
MAX_BODY_BYTES = 4_000_000
MAX_ERROR_CHARS = 400
MAX_WAIT_S = 30.0

_UNSTORABLE = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ud800-\udfff]")


def clean(text: str) -> str:
    """Text without characters that SQL or UTF-8 cannot hold (control characters, lone surrogates)."""
    return _UNSTORABLE.sub("�", text)


def estimate_tokens(text: str) -> int:
    """Tokens of a text where no server counts them: a quarter of its UTF-8 bytes, rounded up."""
    return -(-len(text.encode("utf-8", "replace")) // 4)


@dataclass(frozen=True)
class _Answer:
    """What came of one HTTP request, or of the whole call."""

    reply: str = ""
    prompt_tokens: int = 0
    completion_tokens: int = 0
    error: str = ""
    transient: bool = False
    wait_s: float | None = None
    status: int | None = None


class LlmClient:
    """Asks one LLM for JSON; one event loop at a time, not necessarily the same one for every call.

    Args:
        settings: the LLM.
        seed: sent with every request, where the server takes it.
        token_budget: tokens the proposer may still spend, asked before every request; None is no limit.
    """

    def __init__(self, settings: LlmSettings, seed: int, token_budget: Callable[[], int] | None = None) -> None:
        self._settings = settings
        self._seed = seed
        self._token_budget = token_budget
        self._dialect = Dialect()
        self._open: tuple[asyncio.AbstractEventLoop, AsyncOpenAI] | None = None

    async def ask(self, prompt: Prompt, form: ReplyForm) -> Exchange:
        """One call with its retries; a failure is an exchange with `error`, only cancellation propagates.

        Tokens are the server's count. Where it gives none they are estimated (`estimate_tokens`), and so is the prompt
        of a request that timed out, which the server most likely read and charged.
        """
        started = time.monotonic()
        lost: list[int] = []
        try:
            dialect, answer = await self._answer(prompt, form, lost)
        except Exception as error:
            dialect, answer = self._dialect, _Answer(error=f"{type(error).__name__}: {error}")
        messages = dialect.messages(prompt, form)
        return Exchange(
            model=self._settings.model,
            prompt=self._storable("\n\n".join(f"[{m['role']}]\n{m['content']}" for m in messages)),
            reply=self._storable(answer.reply),
            prompt_tokens=answer.prompt_tokens + sum(lost),
            completion_tokens=answer.completion_tokens,
            error=self._storable(answer.error)[:MAX_ERROR_CHARS],
            seconds=time.monotonic() - started,
        )

    async def close(self) -> None:
        """Close the connections."""
        if self._open is not None:
            loop, client = self._open
            self._open = None
            if loop is asyncio.get_running_loop():
                await client.close()

    async def _answer(self, prompt: Prompt, form: ReplyForm, lost: list[int]) -> tuple[Dialect, _Answer]:
        """Ask until there is an answer, the retries are used up or the budget is; `lost` collects timed-out tokens."""
        dialect, retries = self._dialect, 0
        while True:
            request = dialect.request(self._settings, self._seed, prompt, form)
            size = sum(estimate_tokens(m["content"]) for m in dialect.messages(prompt, form))
            size += estimate_tokens(str(request.get("response_format", "")))
            over = self._over_budget(size + self._settings.max_completion_tokens, sum(lost))
            if over:
                return dialect, _Answer(error=over)
            answer = await self._request(request, size)
            if answer.status is None and not answer.transient:
                # The server took the request; that its answer may be unusable is another matter.
                self._dialect = dialect
                return dialect, answer
            weaker = None if answer.status is None else dialect.after_refusal(answer.status, answer.error)
            if weaker is not None:
                dialect = weaker
                continue
            if not answer.transient or retries >= self._settings.max_retries:
                return dialect, answer
            if answer.prompt_tokens:
                lost.append(answer.prompt_tokens)
            wait = answer.wait_s if answer.wait_s is not None else self._settings.backoff_s * 2.0**retries
            await asyncio.sleep(min(wait, MAX_WAIT_S))
            retries += 1

    def _over_budget(self, need: int, lost: int) -> str:
        if self._token_budget is None:
            return ""
        left = max(0, self._token_budget() - lost)
        if need <= left:
            return ""
        return f"proposer budget exhausted: {left} tokens left, the call may need {need}"

    async def _request(self, request: Mapping[str, object], size: int) -> _Answer:
        """One HTTP request, whose prompt has about `size` tokens."""
        import openai

        try:
            async with asyncio.timeout(self._settings.timeout_s):
                # The raw body: servers answer in shapes that the client's models do not check.
                create: Any = self._client().chat.completions.with_raw_response.create
                body: bytes = (await create(**request)).content
        except (TimeoutError, openai.APITimeoutError):
            late = f"no answer within {self._settings.timeout_s:g} s"
            return _Answer(error=late, transient=True, prompt_tokens=size)
        except openai.APIStatusError as error:
            return _refused(error)
        except openai.APIConnectionError as error:
            return _Answer(error=f"cannot reach the server: {error.__cause__ or error}", transient=True)
        return _read_completion(body, size)

    def _client(self) -> AsyncOpenAI:
        from openai import AsyncOpenAI

        loop = asyncio.get_running_loop()
        if self._open is None or self._open[0] is not loop:
            # Connections belong to their event loop; those of a loop that ended are gone with it.
            client = AsyncOpenAI(
                api_key=self._settings.api_key,
                base_url=self._settings.base_url or OPENAI_URL,
                timeout=self._settings.timeout_s,
                max_retries=0,
            )
            self._open = (loop, client)
        return self._open[1]

    def _storable(self, text: str) -> str:
        key = self._settings.api_key
        if key != NO_KEY and len(key) >= 4:
            text = text.replace(key, "[key]").replace(repr(key)[1:-1], "[key]")
        return clean(text)


def _refused(error: APIStatusError) -> _Answer:
    status = error.status_code
    body = "" if error.body is None or str(error.body) in error.message else f" {error.body}"
    wait: float | None = None
    after = error.response.headers.get("retry-after", "")
    if re.fullmatch(r"\d{1,6}(\.\d{1,6})?", after):
        wait = float(after)
    return _Answer(
        error=f"HTTP {status}: {error.message}{body}"[: 10 * MAX_ERROR_CHARS],
        transient=status in (408, 409, 429) or status >= 500,
        wait_s=wait,
        status=status,
    )


def _read_completion(body: bytes, size: int) -> _Answer:
    """The text of a chat completion, read without trust in its shape."""
    if len(body) > MAX_BODY_BYTES:
        return _Answer(error=f"the server's answer has {len(body)} bytes", prompt_tokens=size)
    try:
        top = json.loads(body)
    except (ValueError, RecursionError) as broken:
        return _Answer(error=f"the server's answer is not JSON: {broken}", prompt_tokens=size)
    choices = _dict(top).get("choices")
    choice = _dict(choices[0]) if isinstance(choices, list) and choices else {}
    message, usage = _dict(choice.get("message")), _dict(_dict(top).get("usage"))
    content = message.get("content")
    text = content[:MAX_REPLY_CHARS] if isinstance(content, str) else ""
    error = ""
    if not message:
        error = "the server's answer holds no choice with a message"
    elif not text.strip():
        refusal = message.get("refusal")
        why = f"; refusal: {refusal}" if isinstance(refusal, str) and refusal else ""
        error = f"the reply is empty (finish reason {choice.get('finish_reason')}){why}"
    return _Answer(
        reply=text,
        prompt_tokens=_count(usage.get("prompt_tokens"), size),
        completion_tokens=_count(usage.get("completion_tokens"), estimate_tokens(text)),
        error=error,
    )


def _dict(value: object) -> dict[str, object]:
    return value if isinstance(value, dict) else {}


def _count(value: object, estimate: int) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else estimate
