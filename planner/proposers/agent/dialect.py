"""What a server of the OpenAI protocol accepts: found by asking for the most and stepping down on refusal."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from planner.proposers._base import ToolCall
from planner.proposers.agent.fences import fenced
from planner.proposers.agent.settings import LlmSettings

ReplyMode = Literal["json_schema", "json_object", "text"]
_NEXT: dict[ReplyMode, ReplyMode] = {"json_schema": "json_object", "json_object": "text"}

_FORMAT_WORDS = re.compile(r"response_format|json_schema|json_object|structured.output|guided|grammar", re.IGNORECASE)
_TOOL_WORDS = re.compile(r"\btools?\b|tool_|tool.choice|\bfunctions?\b", re.IGNORECASE)
_SYSTEM_WORDS = re.compile(r"system.{0,40}(role|message|not support)|(role|support).{0,40}system", re.IGNORECASE)
_NO_MODEL = re.compile(r"\bmodel\b.*(does not exist|not found)|model_not_found", re.IGNORECASE | re.DOTALL)


@dataclass(frozen=True)
class Prompt:
    """What the LLM is told: its standing role, and the request."""

    system: str
    user: str


@dataclass(frozen=True)
class ReplyForm:
    """What the LLM must answer with: one JSON object of this schema."""

    name: str
    """``guidelines`` or ``proposals``; also the object's one field."""

    schema: Mapping[str, object]


@dataclass(frozen=True)
class Tool:
    """Something the LLM may ask for before it answers."""

    name: str
    description: str
    parameters: Mapping[str, object]
    """JSON schema of its arguments."""


@dataclass(frozen=True)
class Turn:
    """Tools that the LLM asked for, and what they answered."""

    said: str
    calls: tuple[ToolCall, ...]
    results: tuple[str, ...]
    """One for each call."""


@dataclass(frozen=True)
class Question:
    """One request to the LLM, whatever the dialect."""

    prompt: Prompt
    form: ReplyForm
    turns: tuple[Turn, ...] = ()
    tools: tuple[Tool, ...] = ()
    note: str = ""
    """Follows the prompt where the server takes the tools."""

    final: bool = True
    """Whether it must answer now; else it may ask for tools first."""


@dataclass(frozen=True)
class Dialect:
    """The request fields one server takes."""

    mode: ReplyMode = "json_schema"
    tokens_field: Literal["max_completion_tokens", "max_tokens"] = "max_completion_tokens"
    seed: bool = True
    temperature: bool = True
    tools: bool = True
    reasoning_effort: bool = True
    system: bool = True
    """Whether a system message is taken; else its text goes before the user's."""

    def messages(self, question: Question) -> list[dict[str, object]]:
        """The chat messages; the schema is written out where the server is not given it as a field."""
        prompt, form = question.prompt, question.form
        user = prompt.user
        if self.tools and question.tools:
            user += f"\n\n{question.note}"
        if self.mode != "json_schema":
            schema = fenced("schema", json.dumps(form.schema, separators=(",", ":")))
            user += (
                f"\n\nAnswer with one JSON object and nothing else: no code fence, no text around it. Its JSON schema "
                f"({form.name}):\n{schema}"
            )
        if self.system:
            told: list[dict[str, object]] = [
                {"role": "system", "content": prompt.system},
                {"role": "user", "content": user},
            ]
        else:
            told = [{"role": "user", "content": f"{prompt.system}\n\n{user}"}]
        for turn in question.turns:
            told += _turn_messages(turn)
        return told

    def request(self, settings: LlmSettings, seed: int, question: Question, limit: int) -> dict[str, object]:
        """Arguments of one chat completion of at most `limit` tokens."""
        form = question.form
        fields: dict[str, object] = {
            "model": settings.model,
            "messages": self.messages(question),
            self.tokens_field: limit,
        }
        if self.mode == "json_schema":
            schema = {"name": form.name, "strict": True, "schema": form.schema}
            fields["response_format"] = {"type": "json_schema", "json_schema": schema}
        elif self.mode == "json_object":
            fields["response_format"] = {"type": "json_object"}
        if self.tools and question.tools:
            fields["tools"] = [_tool_field(tool) for tool in question.tools]
            fields["tool_choice"] = "none" if question.final else "auto"
        if self.seed:
            fields["seed"] = seed
        if self.temperature and settings.temperature is not None:
            fields["temperature"] = settings.temperature
        if self.reasoning_effort and settings.reasoning_effort is not None:
            fields["reasoning_effort"] = settings.reasoning_effort
        return fields

    def after_refusal(self, status: int, message: str, tools: bool = False) -> Dialect | None:
        """The dialect to try next, or None where the refusal is about something else. Every step asks for less.

        Args:
            status: of the HTTP answer.
            message: what the server says.
            tools: whether the refused request offered tools.
        """
        if status not in (400, 404, 422, 500, 501):
            return None
        if tools and self.tools and _TOOL_WORDS.search(message):
            # First and alone: servers that cannot have tools and a reply format together name both, and the format is
            # worth more.
            return replace(self, tools=False)
        if status == 404:
            return None if _NO_MODEL.search(message) else self._weaker_mode()
        told = self
        if _FORMAT_WORDS.search(message):
            told = told._weaker_mode() or told
        if self.tokens_field == "max_completion_tokens" and "max_completion_tokens" in message:
            told = replace(told, tokens_field="max_tokens")
        if self.seed and re.search(r"\bseed\b", message):
            told = replace(told, seed=False)
        if self.temperature and re.search(r"\btemperature\b", message):
            told = replace(told, temperature=False)
        if self.reasoning_effort and re.search(r"\breasoning", message):
            told = replace(told, reasoning_effort=False)
        if self.system and _SYSTEM_WORDS.search(message):
            told = replace(told, system=False)
        return told if told != self else None

    def _weaker_mode(self) -> Dialect | None:
        return replace(self, mode=_NEXT[self.mode]) if self.mode in _NEXT else None


def _tool_field(tool: Tool) -> dict[str, object]:
    function = {"name": tool.name, "description": tool.description, "parameters": tool.parameters}
    return {"type": "function", "function": function}


def _turn_messages(turn: Turn) -> list[dict[str, object]]:
    calls = [
        {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}
        for call in turn.calls
    ]
    asked: dict[str, object] = {"role": "assistant", "content": turn.said or None, "tool_calls": calls}
    answered: list[dict[str, object]] = [
        {"role": "tool", "tool_call_id": call.id, "content": result}
        for call, result in zip(turn.calls, turn.results, strict=True)
    ]
    return [asked, *answered]


def written(messages: Sequence[Mapping[str, object]]) -> str:
    """Messages as one text, for people and for counting."""
    parts = []
    for message in messages:
        text = str(message.get("content") or "")
        if message.get("tool_calls"):
            text = f"{text}\n{json.dumps(message['tool_calls'], ensure_ascii=False)}".strip()
        parts.append(f"[{message['role']}]\n{text}")
    return "\n\n".join(parts)
