"""Reads chat completions defensively: servers differ, and some answer nonsense."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from env.backends._base import Draw


class MalformedReplyError(Exception):
    """The server answered 200 with something that is no usable completion."""


class _Lenient(BaseModel):
    model_config = ConfigDict(extra="ignore")


class _Message(_Lenient):
    content: str | None = None


class _TokenLogprob(_Lenient):
    logprob: float


class _Logprobs(_Lenient):
    content: list[_TokenLogprob] | None = None


class _Choice(_Lenient):
    index: int | None = None
    message: _Message
    finish_reason: str | None = None
    logprobs: _Logprobs | None = None


class _Usage(_Lenient):
    prompt_tokens: int
    completion_tokens: int = 0


class _Completion(_Lenient):
    choices: list[_Choice]
    usage: _Usage | None = None


def read_draws(body: bytes, first: int, count: int) -> list[Draw]:
    """The draws of one reply; choice ``j`` is draw ``first + j``. Unusable choices are left out.

    Token counts: a server's usage covers all choices of a reply. Every draw gets the prompt tokens of the request (its
    prompt was read once, but each draw states the whole). Output tokens are the number of a choice's log-probabilities
    where the server gives them; else ``completion_tokens`` is split evenly over the choices, the remainder one token
    each to the first ones.

    Raises:
        MalformedReplyError: no JSON, no completion, no usable choice, or no word on how many tokens were used.
    """
    try:
        completion = _Completion.model_validate_json(body)
    except ValidationError as error:
        problem = error.errors()[0]
        where = ".".join(map(str, problem["loc"])) or "the body"
        raise MalformedReplyError(f"the reply is no chat completion ({where}: {problem['msg']})") from error
    choices = completion.choices[:count]
    if not choices:
        raise MalformedReplyError("the reply holds no choices")
    if completion.usage is None:
        raise MalformedReplyError("the reply does not say how many tokens were used (usage)")
    even, remainder = divmod(completion.usage.completion_tokens, len(choices))
    numbers = _numbers(choices)
    draws = []
    for place, choice in enumerate(choices):
        reason = _finish_reason(choice)
        if reason is None:
            continue
        listed = None if choice.logprobs is None else choice.logprobs.content
        draws.append(
            Draw(
                index=first + numbers[place],
                text=choice.message.content or "",
                finish_reason=reason,
                prompt_tokens=completion.usage.prompt_tokens,
                output_tokens=len(listed) if listed else even + (place < remainder),
                logprob=sum(token.logprob for token in listed) if listed else None,
            )
        )
    if not draws:
        raise MalformedReplyError(f"no choice holds text (finish_reason {choices[0].finish_reason!r})")
    return draws


def _numbers(choices: list[_Choice]) -> list[int]:
    """Each choice's own index where they make sense together, else its place."""
    stated = [choice.index for choice in choices if choice.index is not None]
    return stated if sorted(stated) == list(range(len(choices))) else list(range(len(choices)))


def _finish_reason(choice: _Choice) -> Literal["stop", "length"] | None:
    """How the choice ended; None where it is no draw (nothing said, or withheld by a filter)."""
    if choice.finish_reason == "length":
        return "length"
    if choice.finish_reason in (None, "content_filter") or choice.message.content is None:
        return None
    return "stop"
