"""What every backend accepts and returns: requests for draws or scores in, draws or a stated failure out."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, runtime_checkable

Role = Literal["system", "user", "assistant"]
FinishReason = Literal["stop", "length", "score"]


@dataclass(frozen=True, slots=True)
class Message:
    """One chat message."""

    role: Role
    content: str


@dataclass(frozen=True, slots=True)
class Sampling:
    """How one draw is sampled. Part of the draw's key: change any field and the draws are other draws."""

    temperature: float = 1.0
    """0 means greedy."""

    top_p: float = 1.0
    max_tokens: int = 256
    stop: tuple[str, ...] = ()
    """Strings that end a generation; the text is cut before the one that comes first."""

    seed: int = 0
    include_stop: bool = False
    """Cut the text behind the stop string instead, so that a step keeps its delimiter. The same tokens are drawn."""


@dataclass(frozen=True, slots=True)
class ModelIdentity:
    """What makes draws of two models comparable or not: the name used to ask and the exact weights behind it."""

    name: str
    revision: str
    """Content hash of a local checkpoint, or the revision the user states for a remote model."""


@dataclass(frozen=True, slots=True)
class DrawRequest:
    """Ask one prompt for the draws with the given indices.

    A conversation whose last message is the assistant's asks to *continue* that message, a partial answer: the prompt
    ends inside it, with no end token and no new turn. A draw's text is only the new part, such that the partial answer
    followed by the text reads as one answer (which may begin with the white space between them); its prompt tokens
    include the partial answer's. Stop strings look at the new part only. Where a server cannot continue a message, the
    request is `Failed`, with the reason: a fresh answer is never passed off as a continuation.
    """

    messages: tuple[Message, ...]
    sampling: Sampling
    indices: tuple[int, ...]
    """Which draws of this prompt; draw ``i`` of the same prompt and sampling is the same draw wherever it is asked."""


@dataclass(frozen=True, slots=True)
class ScoreRequest:
    """Ask a verifier how good the last (assistant) message is as a reply to the ones before it."""

    messages: tuple[Message, ...]
    partial: bool = False
    """The last message is an answer so far: judge it unclosed, without the end token that whole answers have. This is
    what a process reward model is asked."""


@dataclass(frozen=True, slots=True)
class Draw:
    """One model generation (or one verifier score) with what it used."""

    index: int
    text: str
    finish_reason: FinishReason
    prompt_tokens: int
    output_tokens: int
    """Generated tokens, the end token included; 0 for a score."""

    logprob: float | None = None
    """Sum of the natural log-probabilities of the generated tokens at temperature 1; None where a server gives none."""

    score: float | None = None
    """A verifier's value in [0, 1]; None for a generation."""

    origin: str = ""
    """Which batch of which study first asked for it; set by the execution, not by backends, and kept by the bank, so
    that what a batch newly drew is still known after a crash and a second run."""

    text_dropped: bool = False
    """Set by a bank that no longer keeps the text: `text` is empty then, and only answers kept before can be read."""

    kept_answer: str | None = None
    """Of such a draw the canonical answer that was read in its text; set where the draw is handed to a strategy."""


@dataclass(frozen=True, slots=True)
class Settled:
    """The draws that answer ``requests[position]``."""

    position: int
    draws: tuple[Draw, ...]


@dataclass(frozen=True, slots=True)
class Failed:
    """``requests[position]`` could not be answered, or not completely; the reason is for people."""

    position: int
    reason: str
    draws: tuple[Draw, ...] = ()
    """Draws that came before the rest failed; as good as settled ones."""


def continues(messages: Sequence[Message]) -> bool:
    """Whether a conversation asks to continue its last message; see `DrawRequest`."""
    return bool(messages) and messages[-1].role == "assistant"


@runtime_checkable
class Backend(Protocol):
    """Serves one model.

    Implementations yield one outcome per request, in any order, as soon as it is known, so that what is settled can be
    stored before the rest is done. They retry inside and never raise for a failed call: they yield `Failed`. Draw ``i``
    of a prompt is decided by (prompt, sampling, i) alone where the model allows it. Safe to use from several tasks of
    one event loop.
    """

    @property
    def identity(self) -> ModelIdentity:
        """The model behind this backend."""
        ...

    def generate(self, requests: Sequence[DrawRequest]) -> AsyncIterator[Settled | Failed]:
        """Draw samples.

        Args:
            requests: any number of prompts, each with the draw indices wanted.

        Yields:
            One outcome per request.
        """
        ...

    def score(self, requests: Sequence[ScoreRequest]) -> AsyncIterator[Settled | Failed]:
        """Judge candidate replies; one draw with index 0 and ``score`` set per request.

        Raises:
            BackendError: this model is no verifier.
        """
        ...

    async def close(self) -> None:
        """Release connections and memory; later calls are an error."""
        ...


@runtime_checkable
class StreamingBackend(Backend, Protocol):
    """A backend that can tell of a draw while it grows."""

    async def stream(self, request: DrawRequest, on_text: Callable[[str], None]) -> Settled | Failed:
        """Draw one sample: the same as `generate` gives for the request.

        One attempt: a server that cannot stream, or fails, is `Failed`. What was told is the beginning of the draw's
        text, and all of it once it has settled.

        Args:
            request: with one index.
            on_text: told each new piece of the text, on the event loop.
        """
        ...
