"""Reads completions defensively: servers differ, and some answer nonsense."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError
from typing_extensions import TypedDict

from env.backends._base import Draw, Message, Sampling
from env.backends.openai_dialect import INCLUDE_STOP
from env.errors import BackendError

BYTES_PER_TOKEN = 4
"""Of the estimate that stands in for a missing count."""


class MalformedReplyError(Exception):
    """The server answered 200 with something that is no usable reply."""

    def __init__(self, message: str, healthy: bool = False) -> None:
        """``healthy``: the server works, it only did not give what was asked."""
        super().__init__(message)
        self.healthy = healthy


class Lenient(BaseModel):
    """Base of what servers answer: fields we do not know are none of our business."""

    model_config = ConfigDict(extra="ignore")


class _Message(Lenient):
    content: str | None = None


class _TokenLogprob(TypedDict):
    """A dictionary rather than a model: there is one for each token of each choice, the most of a reply by far."""

    logprob: float


class TokenLogprobs(Lenient):
    """Log-probabilities of a choice, or of a piece of one."""

    content: list[_TokenLogprob] | None = None
    token_logprobs: list[float | None] | None = None

    def values(self) -> list[float]:
        """Of each token, in either API's shape; empty where they are not complete."""
        if self.content is not None:
            return [token["logprob"] for token in self.content]
        listed = self.token_logprobs or []
        return [value for value in listed if value is not None] if None not in listed else []


class _Choice(Lenient):
    index: int | None = None
    message: _Message | None = None
    text: str | None = None
    finish_reason: str | None = None
    stop_reason: str | int | None = None
    logprobs: TokenLogprobs | None = None

    @property
    def said(self) -> str | None:
        """The text, in either API's shape."""
        return self.text if self.message is None else self.message.content


class Usage(Lenient):
    """Tokens of a whole reply."""

    prompt_tokens: int
    completion_tokens: int | None = None


class _Completion(Lenient):
    choices: list[_Choice]
    usage: Usage | None = None


@dataclass(frozen=True)
class Asked:
    """What a reply answers."""

    messages: Sequence[Message]
    sampling: Sampling
    first: int
    count: int
    estimate: bool = False
    """Count bytes where the server does not count tokens."""

    cut: bool = False
    """The server was not told the stop strings: cut the texts here."""


Reply = TypeVar("Reply", bound=BaseModel)


def parsed(kind: type[Reply], body: bytes, what: str) -> Reply:
    """A reply of the named kind.

    Raises:
        MalformedReplyError: it is none.
    """
    try:
        return kind.model_validate_json(body)
    except ValidationError as error:
        problem = error.errors()[0]
        where = ".".join(map(str, problem["loc"])) or "the body"
        raise MalformedReplyError(f"the reply is no {what} ({where}: {problem['msg']})") from error


def read_draws(body: bytes, asked: Asked) -> list[Draw]:
    """The draws of one reply; choice ``j`` is draw ``first + j``. Unusable choices are left out.

    Token counts: a server's usage covers all choices of a reply. Every draw gets the prompt tokens of the request (its
    prompt was read once, but each draw states the whole). Output tokens are the number of a choice's log-probabilities
    where the server gives them; else ``completion_tokens`` is split evenly over the choices, the remainder one token
    each to the first ones.

    Raises:
        MalformedReplyError: no JSON, no completion, no usable choice, or no word on how many tokens were used.
        BackendError: the server does not say whether a stop string ended a text that should keep it.
    """
    completion = parsed(_Completion, body, "completion")
    choices = completion.choices[: asked.count]
    if not choices:
        raise MalformedReplyError("the reply holds no choices")
    usage = completion.usage or (_estimated(asked, choices) if asked.estimate else None)
    if usage is None:
        raise MalformedReplyError(
            "the reply does not say how many tokens were used (usage); set missing_usage: estimate on the model to "
            f"count one token for every {BYTES_PER_TOKEN} bytes",
            healthy=True,
        )
    even, remainder = divmod(usage.completion_tokens or 0, len(choices))
    numbers = _numbers(choices)
    draws = []
    for place, choice in enumerate(choices):
        reason = _finish_reason(choice)
        if reason is None:
            continue
        logprobs = choice.logprobs.values() if choice.logprobs is not None else []
        logprob = sum(logprobs) if logprobs else math.nan
        text, reason = _ended(choice, asked, reason)
        draws.append(
            Draw(
                index=asked.first + numbers[place],
                text=text,
                finish_reason=reason,
                prompt_tokens=usage.prompt_tokens,
                output_tokens=len(logprobs) or even + (place < remainder),
                logprob=None if math.isnan(logprob) else logprob,
            )
        )
    if not draws:
        raise MalformedReplyError(f"no choice holds text (finish_reason {choices[0].finish_reason!r})", healthy=True)
    return draws


def read_prompt_tokens(body: bytes) -> int | None:
    """How many tokens the server read; None where it does not say.

    Raises:
        MalformedReplyError: no completion.
    """
    usage = parsed(_Completion, body, "completion").usage
    return None if usage is None else usage.prompt_tokens


def estimated_tokens(text: str) -> int:
    """Tokens of a text whose server counts none: one for every four bytes of UTF-8, rounded up."""
    return -(-len(text.encode()) // BYTES_PER_TOKEN)


def _estimated(asked: Asked, choices: Sequence[_Choice]) -> Usage:
    prompt = sum(estimated_tokens(message.content) for message in asked.messages)
    output = sum(estimated_tokens(choice.said or "") for choice in choices)
    return Usage(prompt_tokens=prompt, completion_tokens=output)


def _ended(choice: _Choice, asked: Asked, reason: Literal["stop", "length"]) -> tuple[str, Literal["stop", "length"]]:
    """The text as the stop strings leave it."""
    text, sampling = choice.said or "", asked.sampling
    if asked.cut:
        found = [(text.find(stop), stop) for stop in sampling.stop if stop in text]
        if not found:
            return text, reason
        begin, stop = min(found)
        return text[: begin + len(stop)] if sampling.include_stop else text[:begin], "stop"
    if not (sampling.stop and sampling.include_stop) or reason != "stop" or text.endswith(sampling.stop):
        return text, reason
    if "stop_reason" not in choice.model_fields_set:
        raise BackendError(
            "the server does not say whether a stop string ended the text (stop_reason), so a step cannot keep its "
            f"delimiter ({INCLUDE_STOP}); serve the model with vLLM or the torch engine"
        )
    return text + choice.stop_reason if choice.stop_reason in sampling.stop else text, reason


def _numbers(choices: list[_Choice]) -> list[int]:
    """Each choice's own index where they make sense together, else its place."""
    stated = [choice.index for choice in choices if choice.index is not None]
    return stated if sorted(stated) == list(range(len(choices))) else list(range(len(choices)))


def _finish_reason(choice: _Choice) -> Literal["stop", "length"] | None:
    """How the choice ended; None where it is no draw (nothing said, or withheld by a filter)."""
    if choice.finish_reason == "length":
        return "length"
    if choice.finish_reason in (None, "content_filter") or choice.said is None:
        return None
    return "stop"
