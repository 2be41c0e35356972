"""Reads a completion while it grows: server-sent events in the shape of either API."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Any

from pydantic import ValidationError

from env.backends._base import Draw, Sampling
from env.backends.openai_reply import Lenient, MalformedReplyError, TokenLogprobs, Usage, estimated_tokens


class _Delta(Lenient):
    content: str | None = None


class _Choice(Lenient):
    delta: _Delta | None = None
    text: str | None = None
    finish_reason: str | None = None
    logprobs: TokenLogprobs | None = None


class _Chunk(Lenient):
    choices: tuple[_Choice, ...] = ()
    usage: Usage | None = None
    error: Any = None


@dataclass
class StreamedDraw:
    """One draw while its pieces come in."""

    on_text: Callable[[str], None]
    text: str = ""
    finish_reason: str | None = None
    usage: Usage | None = None
    logprobs: list[float] = field(default_factory=list)

    async def read(self, lines: AsyncIterator[str]) -> None:
        """Take a whole stream.

        Raises:
            MalformedReplyError: it is no stream of chunks, or the server reports an error in it.
        """
        async for line in lines:
            data = line.removeprefix("data:").strip()
            if not line.startswith("data:") or not data:
                continue
            if data == "[DONE]":
                return
            try:
                chunk = _Chunk.model_validate_json(data)
            except ValidationError as error:
                raise MalformedReplyError(f"the stream holds no chunk ({error.errors()[0]['msg']})") from error
            if chunk.error is not None:
                raise MalformedReplyError(f"the server broke off: {json.dumps(chunk.error)[:300]}")
            self._take(chunk)

    def _take(self, chunk: _Chunk) -> None:
        self.usage = chunk.usage or self.usage
        for choice in chunk.choices[:1]:
            piece = choice.text if choice.delta is None else choice.delta.content
            if choice.logprobs is not None:
                self.logprobs += choice.logprobs.values()
            self.finish_reason = choice.finish_reason or self.finish_reason
            if piece:
                self.text += piece
                self.on_text(piece)

    def draw(self, index: int, prompt: str, sampling: Sampling) -> Draw:
        """The draw that has come.

        Raises:
            MalformedReplyError: the stream ended before the draw did, or what it held was withheld by a filter.
        """
        if self.finish_reason is None or self.finish_reason == "content_filter":
            raise MalformedReplyError(f"the stream ended with finish_reason {self.finish_reason!r}")
        counted = self.usage.completion_tokens if self.usage is not None else None
        return Draw(
            index=index,
            text=self.text,
            finish_reason="length" if self.finish_reason == "length" else "stop",
            prompt_tokens=estimated_tokens(prompt) if self.usage is None else self.usage.prompt_tokens,
            output_tokens=len(self.logprobs) or counted or min(estimated_tokens(self.text), sampling.max_tokens),
            logprob=sum(self.logprobs) if self.logprobs else None,
        )
