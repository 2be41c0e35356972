"""Runs one request: from the messages to the pipeline's input, through the plan, to the text that is sent back."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from api.completions.desk import Desk
from api.completions.errors import CompletionError
from api.completions.requests import ChatRequest
from api.completions.targets import Target
from env.backends import Message
from env.execution import LiveAnswer, Wishes
from env.execution.live import shown
from planner.serving import OpenedPlan


@dataclass
class Told:
    """What a stream was told of the reply so far, as the client is to see it."""

    collapse: bool
    """White space is collapsed, as the text parser does."""

    put: Callable[[str], None]
    raw: str = ""
    sent: str = field(default="")

    def piece(self, text: str) -> None:
        """Take a new piece of the model's text and pass on what the client has not seen."""
        self.raw += text
        seen = " ".join(self.raw.split()) if self.collapse else self.raw
        if len(seen) > len(self.sent):
            self.put(seen[len(self.sent) :])
            self.sent = seen


@dataclass(frozen=True)
class Answered:
    """A request's answer."""

    live: LiveAnswer
    opened: OpenedPlan
    content: str | None
    """None where no reply could be read."""

    sent: str = ""
    """The part of the content that was streamed already."""

    ignored: tuple[str, ...] = ()

    @property
    def finish_reason(self) -> str:
        """In OpenAI's words."""
        return "stop" if self.live.last.complete else "length"


async def answer(
    desk: Desk, target: Target, body: ChatRequest, seed: int, put: Callable[[str], None] | None = None
) -> Answered:
    """Answer one request.

    Args:
        desk: opens the plan.
        target: what is asked.
        body: the request.
        seed: of the draws.
        put: told the text that the client sees, piece by piece, where the last stage draws once and its text is shown
            as it is.

    Raises:
        CompletionError: the input does not fit the pipeline.
        ApportionError: the plan cannot be opened, or a stage failed.
    """
    content = body.apportion.content or ("answer" if target.stage is None else "reply")
    wishes = Wishes(seed, body.token_limit, body.stops, body.apportion.max_cost)
    async with desk.opened(target.record) as plan:
        name = target.stage or target.allocation.stages[-1]
        parser = plan.spec.pipeline.stage(name).parser
        told = None
        if put is not None and (content == "reply" or parser.kind == "text"):
            told = Told(content == "answer", put)
        on_text = None if told is None else told.piece
        if target.stage is not None:
            setting = target.allocation[target.stage]
            messages = [Message("system" if m.role == "developer" else m.role, m.text) for m in body.messages]
            live = await plan.live.answer_stage(target.stage, setting, messages, wishes, body.input, on_text)
            ignored = body.ignored
        else:
            fields, unused = pipeline_input(plan.live.input_fields(target.allocation), body)
            live = await plan.live.answer(target.allocation, fields, wishes, on_text)
            ignored = [*body.ignored, *unused]
    last = live.last
    readable = last.answer is not None
    text = (shown(last.answer) if readable else None) if content == "answer" else last.text
    return Answered(live, plan, text or None, "" if told is None else told.sent, tuple(ignored))


def pipeline_input(needed: tuple[str, ...], body: ChatRequest) -> tuple[dict[str, Any], list[str]]:
    """The pipeline's input by field, and which messages it does not come from.

    `input` where the request has it; else the last user message: as it is for a pipeline with one field, as a JSON
    object of fields for one with several.

    Raises:
        CompletionError: there is no such message, or it lacks a field.
    """
    if body.input is not None:
        return _complete(needed, body.input, "input"), []
    asked = [number for number, message in enumerate(body.messages) if message.role == "user"]
    if not asked:
        raise CompletionError(400, "there is no message of role user, and no input", "messages", "input_not_usable")
    unused = [f"messages[{number}]" for number in range(len(body.messages)) if number != asked[-1]]
    text = body.messages[asked[-1]].text
    if len(needed) <= 1:
        return dict.fromkeys(needed, text), unused
    try:
        given = json.loads(text)
    except ValueError:
        given = None
    if not isinstance(given, dict):
        listed = ", ".join(needed)
        raise CompletionError(
            400,
            f"this pipeline has several input fields ({listed}): write the last user message as a JSON object of them, "
            'or send them as input (openai client: extra_body={"input": {...}})',
            "messages",
            "input_not_usable",
        )
    return _complete(needed, given, f"messages[{asked[-1]}]"), unused


def _complete(needed: tuple[str, ...], given: dict[str, Any], place: str) -> dict[str, Any]:
    missing = [name for name in needed if name not in given]
    if missing:
        listed, wanted = ", ".join(missing), ", ".join(needed)
        raise CompletionError(400, f"{place} lacks {listed}; this pipeline needs {wanted}", place, "input_not_usable")
    return given
