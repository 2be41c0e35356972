"""What the engine's HTTP server accepts: the part of OpenAI's requests that it serves, checked completely."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from env.backends._base import Message, Sampling
from env.engine.text import Ending

MAX_CHOICES = 1024

_REFUSED: dict[str, tuple[Any, ...]] = {
    "presence_penalty": (None, 0, 0.0),
    "frequency_penalty": (None, 0, 0.0),
    "logit_bias": (None, {}),
    "tools": (None, []),
    "functions": (None, []),
    "response_format": (None, {"type": "text"}),
    "top_logprobs": (None, 0),
    "echo": (None, False),
    "suffix": (None, ""),
    "best_of": (None, 1),
    "top_k": (None, -1, 0),
    "min_p": (None, 0, 0.0),
}
"""Settings that would change the answer and are not served, with the values that change nothing."""


def _non_empty(stops: str | list[str] | None) -> str | list[str] | None:
    if stops is not None and not all([stops] if isinstance(stops, str) else stops):
        raise ValueError("a stop string must not be empty")
    return stops


class StreamOptions(BaseModel):
    """How a stream ends."""

    model_config = ConfigDict(extra="ignore")

    include_usage: bool = False


class SampledRequest(BaseModel):
    """What chat and text completions have in common."""

    model_config = ConfigDict(extra="ignore")

    model: str
    n: Annotated[int, Field(ge=1, le=MAX_CHOICES)] = 1
    seed: Annotated[int, Field(ge=-(2**63), lt=2**63)] | None = None
    temperature: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    max_tokens: Annotated[int, Field(ge=1)] | None = None
    stop: Annotated[str | list[str] | None, AfterValidator(_non_empty)] = None
    include_stop_str_in_output: bool = False
    stream: bool = False
    stream_options: StreamOptions | None = None

    @model_validator(mode="before")
    @classmethod
    def _refuse_unserved(cls, data: Any) -> Any:
        if isinstance(data, dict):
            for name, harmless in _REFUSED.items():
                if name in data and data[name] not in harmless:
                    raise ValueError(f"{name} is not served by this engine; leave it out")
        return data

    @property
    def token_limit(self) -> int | None:
        """The largest number of tokens to generate; None where the request names none."""
        return self.max_tokens

    def sampling(self, seed: int, default_tokens: int) -> Sampling:
        """The sampling of choice 0; choice ``j`` has the seed ``seed + j``."""
        return Sampling(
            temperature=1.0 if self.temperature is None else self.temperature,
            top_p=1.0 if self.top_p is None else self.top_p,
            max_tokens=default_tokens if self.token_limit is None else self.token_limit,
            stop=(self.stop,) if isinstance(self.stop, str) else tuple(self.stop or ()),
            seed=seed,
            include_stop=self.include_stop_str_in_output,
        )


class TextPart(BaseModel):
    """A piece of a message's content; only text is served."""

    type: Literal["text"]
    text: str


class ChatMessage(BaseModel):
    """One message of a conversation."""

    model_config = ConfigDict(extra="ignore")

    role: Literal["system", "user", "assistant"]
    content: str | list[TextPart]

    def plain(self) -> Message:
        """As the engine's tokenizer takes it."""
        text = self.content if isinstance(self.content, str) else "".join(part.text for part in self.content)
        return Message(self.role, text)


def _ending(reply: bool, open_: bool, messages: list[ChatMessage]) -> Ending:
    """How the conversation ends, from vLLM's two fields.

    Raises:
        ValueError: they contradict each other, or there is no assistant's message to continue.
    """
    if open_ and reply:
        raise ValueError("continue_final_message needs add_generation_prompt = false")
    if open_ and messages[-1].role != "assistant":
        raise ValueError("continue_final_message needs a last message of role assistant")
    return "open" if open_ else "reply" if reply else "closed"


class ChatRequest(SampledRequest):
    """Body of ``/v1/chat/completions``."""

    messages: Annotated[list[ChatMessage], Field(min_length=1)]
    add_generation_prompt: bool = True
    continue_final_message: bool = False
    max_completion_tokens: Annotated[int, Field(ge=1)] | None = None
    logprobs: bool | None = None

    @model_validator(mode="after")
    def _one_ending(self) -> ChatRequest:
        _ending(self.add_generation_prompt, self.continue_final_message, self.messages)
        return self

    @property
    def ending(self) -> Ending:
        """How the rendered conversation ends."""
        return _ending(self.add_generation_prompt, self.continue_final_message, self.messages)

    @property
    def token_limit(self) -> int | None:
        """``max_completion_tokens``, or the older ``max_tokens``."""
        return self.max_tokens if self.max_completion_tokens is None else self.max_completion_tokens


TokenId = Annotated[int, Field(ge=0)]


class CompletionRequest(SampledRequest):
    """Body of ``/v1/completions``."""

    prompt: str | list[str] | list[TokenId] | list[list[TokenId]]
    logprobs: Annotated[int, Field(ge=0)] | None = None

    def prompts(self) -> list[str] | list[list[int]]:
        """All prompts, as texts or as token ids."""
        prompt = self.prompt
        if isinstance(prompt, str):
            return [prompt]
        if prompt and isinstance(prompt[0], int):
            return [prompt]
        return prompt  # type: ignore[return-value]


class ClassifyRequest(BaseModel):
    """Body of ``/classify`` and ``/pooling``, in vLLM's shape: texts or token ids, or a conversation to be judged.

    With ``continue_final_message`` its last message is judged unclosed, as an answer so far.
    """

    model_config = ConfigDict(extra="ignore")

    model: str
    input: str | list[str] | list[TokenId] | list[list[TokenId]] | None = None
    task: Literal["classify"] | None = None
    messages: list[ChatMessage] | None = None
    add_generation_prompt: bool = False
    continue_final_message: bool = False
    use_activation: bool | None = None

    @model_validator(mode="after")
    def _one_source(self) -> ClassifyRequest:
        if bool(self.input) == bool(self.messages):
            raise ValueError("give either input or messages")
        if self.messages:
            _ending(self.add_generation_prompt, self.continue_final_message, self.messages)
        if self.use_activation is False:
            raise ValueError("use_activation = false is not served: this engine gives probabilities only")
        return self

    def inputs(self) -> list[str] | list[list[int]]:
        """All inputs, as texts or as token ids."""
        given = self.input
        if isinstance(given, str):
            return [given]
        if given and isinstance(given[0], int):
            return [given]
        return given or []  # type: ignore[return-value]

    @property
    def ending(self) -> Ending:
        """How the rendered conversation ends."""
        return _ending(self.add_generation_prompt, self.continue_final_message, self.messages or [])
