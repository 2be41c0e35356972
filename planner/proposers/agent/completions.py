"""Reads what a chat completions server answers, without trust in its shape."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from planner.proposers._base import ToolCall
from planner.proposers.agent.fences import clean

if TYPE_CHECKING:
    from openai import APIStatusError

MAX_REPLY_CHARS = 200_000
MAX_BODY_BYTES = 4_000_000
MAX_ERROR_CHARS = 400
MAX_CALLS = 16
MAX_ARGUMENT_CHARS = 20_000
MAX_ID_CHARS = 100


@dataclass(frozen=True)
class Answer:
    """What came of one HTTP request."""

    reply: str = ""
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached_tokens: int = 0
    reasoning_tokens: int = 0
    tool_calls: tuple[ToolCall, ...] = ()
    error: str = ""
    transient: bool = False
    wait_s: float | None = None
    status: int | None = None
    starved: bool = False
    """Whether the LLM thought up to the limit and wrote nothing."""


def refused(error: APIStatusError) -> Answer:
    """An HTTP error status."""
    status = error.status_code
    body = "" if error.body is None or str(error.body) in error.message else f" {error.body}"
    wait: float | None = None
    after = error.response.headers.get("retry-after", "")
    if re.fullmatch(r"\d{1,6}(\.\d{1,6})?", after):
        wait = float(after)
    return Answer(
        error=f"HTTP {status}: {error.message}{body}"[: 10 * MAX_ERROR_CHARS],
        transient=status in (408, 409, 429) or status >= 500,
        wait_s=wait,
        status=status,
    )


def read_completion(body: bytes, size: int, estimate: Callable[[str], int]) -> Answer:
    """The text and tool calls of a chat completion.

    Args:
        body: of the HTTP answer.
        size: tokens of the prompt, where the server counts none.
        estimate: counts the reply's where the server does not.
    """
    if len(body) > MAX_BODY_BYTES:
        return Answer(error=f"the server's answer has {len(body)} bytes", prompt_tokens=size)
    try:
        top = json.loads(body)
    except (ValueError, RecursionError) as broken:
        return Answer(error=f"the server's answer is not JSON: {broken}", prompt_tokens=size)
    choices = _dict(top).get("choices")
    choice = _dict(choices[0]) if isinstance(choices, list) and choices else {}
    message, usage = _dict(choice.get("message")), _dict(_dict(top).get("usage"))
    content = message.get("content")
    text = content[:MAX_REPLY_CHARS] if isinstance(content, str) else ""
    calls = _tool_calls(message.get("tool_calls"))
    reasoning = _count(_dict(usage.get("completion_tokens_details")).get("reasoning_tokens"), 0)
    error = ""
    if not message:
        error = "the server's answer holds no choice with a message"
    elif not text.strip() and not calls:
        refusal = message.get("refusal")
        why = f"; refusal: {refusal}" if isinstance(refusal, str) and refusal else ""
        error = f"the reply is empty (finish reason {choice.get('finish_reason')}){why}"
    return Answer(
        reply=text,
        prompt_tokens=_count(usage.get("prompt_tokens"), size),
        completion_tokens=_count(usage.get("completion_tokens"), estimate(text) + sum(estimate(str(c)) for c in calls)),
        cached_tokens=_count(_dict(usage.get("prompt_tokens_details")).get("cached_tokens"), 0),
        reasoning_tokens=reasoning,
        tool_calls=calls,
        error=error,
        starved=bool(error) and reasoning > 0 and choice.get("finish_reason") == "length",
    )


def _tool_calls(value: object) -> tuple[ToolCall, ...]:
    if not isinstance(value, list):
        return ()
    calls = []
    for number, item in enumerate(value[:MAX_CALLS]):
        function = _dict(_dict(item).get("function"))
        name, arguments = function.get("name"), function.get("arguments")
        if not isinstance(name, str) or not name:
            continue
        text = arguments if isinstance(arguments, str) else _json(arguments)
        given = _dict(item).get("id")
        identity = given if isinstance(given, str) and given else f"call_{number}"
        calls.append(
            ToolCall(clean(identity)[:MAX_ID_CHARS], clean(name)[:MAX_ID_CHARS], clean(text)[:MAX_ARGUMENT_CHARS])
        )
    return tuple(calls)


def _json(value: object) -> str:
    try:
        return "" if value is None else json.dumps(value)
    except (ValueError, RecursionError):
        return ""


def _dict(value: object) -> dict[str, object]:
    return value if isinstance(value, dict) else {}


def _count(value: object, estimate: int) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else estimate
