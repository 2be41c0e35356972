"""What the plan endpoint accepts: the part of OpenAI's chat requests that a plan can honour, checked completely."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

MOST_MESSAGES = 2000
MOST_STOPS = 16

_REFUSED: dict[str, tuple[Any, ...]] = {
    "n": (None, 1),
    "tools": (None, []),
    "tool_choice": (None, "none", "auto"),
    "functions": (None, []),
    "function_call": (None, "none", "auto"),
    "response_format": (None, {"type": "text"}),
    "logprobs": (None, False),
    "top_logprobs": (None, 0),
    "logit_bias": (None, {}),
    "presence_penalty": (None, 0, 0.0),
    "frequency_penalty": (None, 0, 0.0),
    "modalities": (None, ["text"]),
    "audio": (None,),
    "prediction": (None,),
}
"""Fields that would change the answer and that a plan cannot honour, with the values that change nothing."""

_WHY = {
    "n": "a plan gives one answer: its own samples are drawn and aggregated inside; send n requests instead",
}

IGNORED = ("temperature", "top_p")
"""Fields that the plan's allocation decides; clients send them by habit, so they are not refused but named."""


class StreamOptions(BaseModel):
    """How a stream ends."""

    model_config = ConfigDict(extra="ignore")

    include_usage: bool | None = None


class TextPart(BaseModel):
    """A piece of a message's content; plans read text only."""

    model_config = ConfigDict(extra="ignore")

    type: Literal["text"]
    text: str


class ChatMessage(BaseModel):
    """One message of a conversation."""

    model_config = ConfigDict(extra="ignore")

    role: Literal["system", "developer", "user", "assistant"]
    content: str | list[TextPart]

    @property
    def text(self) -> str:
        """Its content."""
        return self.content if isinstance(self.content, str) else "".join(part.text for part in self.content)


class Extension(BaseModel):
    """What only plans know; `extra_body={"apportion": {...}}` of the openai client."""

    model_config = ConfigDict(extra="forbid")

    content: Literal["answer", "reply"] | None = Field(
        None,
        description="What the message says: the answer as the last stage's parser reads it, or the reply it was read "
        "in. Of a plan the answer by default, of a stage the reply.",
    )
    max_cost: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = Field(
        None, description="Most this query may cost, in the plan's unit; requests are sent while their worst case fits."
    )


class ChatRequest(BaseModel):
    """Body of ``POST /v1/chat/completions``; fields that are not named here are ignored."""

    model_config = ConfigDict(extra="ignore")

    model: Annotated[str, Field(min_length=1, max_length=400)] = Field(
        description="plan:<name or study>, plan:<name>@<budget>, or stage:<plan>/<stage>"
    )
    messages: Annotated[list[ChatMessage], Field(min_length=1, max_length=MOST_MESSAGES)]
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    max_tokens: Annotated[int, Field(ge=1)] | None = None
    max_completion_tokens: Annotated[int, Field(ge=1)] | None = None
    stop: str | Annotated[list[str], Field(max_length=MOST_STOPS)] | None = None
    seed: Annotated[int, Field(ge=-(2**63), lt=2**63)] | None = None
    temperature: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    input: dict[str, Any] | None = Field(
        None, description="The pipeline's input by field, in place of the last user message (an extension)."
    )
    apportion: Extension = Extension()

    @model_validator(mode="before")
    @classmethod
    def _refuse_unserved(cls, data: Any) -> Any:
        if isinstance(data, dict):
            for name, harmless in _REFUSED.items():
                if name in data and not any(data[name] == value for value in harmless):
                    raise ValueError(f"{name}: {_WHY.get(name, 'a plan cannot honour it; leave it out')}")
        return data

    @model_validator(mode="after")
    def _stops_say_something(self) -> ChatRequest:
        if not all(self.stops):
            raise ValueError("stop: a stop string must not be empty")
        return self

    @property
    def stops(self) -> tuple[str, ...]:
        """Stop strings."""
        return (self.stop,) if isinstance(self.stop, str) else tuple(self.stop or ())

    @property
    def token_limit(self) -> int | None:
        """``max_completion_tokens``, or the older ``max_tokens``."""
        return self.max_tokens if self.max_completion_tokens is None else self.max_completion_tokens

    @property
    def with_usage(self) -> bool:
        """Whether a stream ends with a chunk of usage."""
        return bool(self.stream_options and self.stream_options.include_usage)

    @property
    def ignored(self) -> list[str]:
        """Fields given that the allocation decides."""
        return [name for name in IGNORED if getattr(self, name) is not None]
