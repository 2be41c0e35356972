"""What a server of the OpenAI protocol accepts: found by asking for the most and stepping down on refusal."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

from planner.proposers.agent.settings import LlmSettings

ReplyMode = Literal["json_schema", "json_object", "text"]
_NEXT: dict[ReplyMode, ReplyMode] = {"json_schema": "json_object", "json_object": "text"}

_FORMAT_WORDS = re.compile(r"response_format|json_schema|json_object|structured.output|guided|grammar", re.IGNORECASE)
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
class Dialect:
    """The request fields one server takes."""

    mode: ReplyMode = "json_schema"
    tokens_field: Literal["max_completion_tokens", "max_tokens"] = "max_completion_tokens"
    seed: bool = True
    temperature: bool = True

    def messages(self, prompt: Prompt, form: ReplyForm) -> list[dict[str, str]]:
        """The chat messages; the schema is written out where the server is not given it as a field."""
        user = prompt.user
        if self.mode != "json_schema":
            user += (
                f"\n\nAnswer with one JSON object and nothing else: no code fence, no text around it. Its JSON schema "
                f"({form.name}):\n{json.dumps(form.schema, separators=(',', ':'))}"
            )
        return [{"role": "system", "content": prompt.system}, {"role": "user", "content": user}]

    def request(self, settings: LlmSettings, seed: int, prompt: Prompt, form: ReplyForm) -> dict[str, object]:
        """Arguments of one chat completion."""
        fields: dict[str, object] = {
            "model": settings.model,
            "messages": self.messages(prompt, form),
            self.tokens_field: settings.max_completion_tokens,
        }
        if self.mode == "json_schema":
            schema = {"name": form.name, "strict": True, "schema": form.schema}
            fields["response_format"] = {"type": "json_schema", "json_schema": schema}
        elif self.mode == "json_object":
            fields["response_format"] = {"type": "json_object"}
        if self.seed:
            fields["seed"] = seed
        if self.temperature and settings.temperature is not None:
            fields["temperature"] = settings.temperature
        return fields

    def after_refusal(self, status: int, message: str) -> Dialect | None:
        """The dialect to try next, or None where the refusal is about something else. Every step asks for less."""
        if status == 404:
            return None if _NO_MODEL.search(message) else self._weaker_mode()
        if status not in (400, 422, 500, 501):
            return None
        told = self
        if _FORMAT_WORDS.search(message):
            told = told._weaker_mode() or told
        if self.tokens_field == "max_completion_tokens" and "max_completion_tokens" in message:
            told = replace(told, tokens_field="max_tokens")
        if self.seed and re.search(r"\bseed\b", message):
            told = replace(told, seed=False)
        if self.temperature and re.search(r"\btemperature\b", message):
            told = replace(told, temperature=False)
        return told if told != self else None

    def _weaker_mode(self) -> Dialect | None:
        return replace(self, mode=_NEXT[self.mode]) if self.mode in _NEXT else None
