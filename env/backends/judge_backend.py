"""An LLM as a verifier: asked several times whether a reply is right, its score is the share that says so."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Sequence

from env.backends._base import (
    Backend,
    Draw,
    DrawRequest,
    Failed,
    Message,
    ModelIdentity,
    Sampling,
    ScoreRequest,
    Settled,
)
from env.errors import BackendError, TemplateError
from env.spec.pipeline import JudgeModel
from env.tasks.example import JsonValue
from env.tasks.prompts import render
from env.tasks.verdicts import says_right


class JudgeBackend:
    """Scores replies by the verdicts of another model of the pipeline; see `JudgeModel`."""

    def __init__(self, judge: Backend, spec: JudgeModel, name: str) -> None:
        """Nothing is asked yet.

        Args:
            judge: the model that judges; closed by whoever opened it.
            spec: prompt, verdicts a reply, sampling.
            name: the verifier's name in its identity.
        """
        self._judge = judge
        self._spec = spec
        self._name = name

    @property
    def identity(self) -> ModelIdentity:
        """The judging model, its revision and everything that decides a verdict."""
        inner = self._judge.identity
        settings = self._spec.model_dump_json(exclude={"model"})
        return ModelIdentity(
            f"{self._name}({inner.name})", hashlib.sha256(f"{inner.revision}/{settings}".encode()).hexdigest()
        )

    def generate(self, requests: Sequence[DrawRequest]) -> AsyncIterator[Settled | Failed]:
        """See `Backend.generate`; a judge draws no replies.

        Raises:
            BackendError: always.
        """
        raise BackendError(f"{self._name} is a judge: ask it for scores, not for draws")

    async def score(self, requests: Sequence[ScoreRequest]) -> AsyncIterator[Settled | Failed]:
        """See `Backend.score`."""
        asked: list[DrawRequest] = []
        places: list[int] = []
        for place, request in enumerate(requests):
            try:
                messages = self._messages(request)
            except TemplateError as error:
                yield Failed(place, f"the judge's prompt: {error}")
                continue
            asked.append(DrawRequest(messages, self._sampling, tuple(range(self._spec.samples))))
            places.append(place)
        async for outcome in self._judge.generate(asked):
            place = places[outcome.position]
            if isinstance(outcome, Failed):
                yield Failed(place, outcome.reason)
                continue
            verdicts = [says_right(draw.text) for draw in outcome.draws]
            tokens = sum(draw.output_tokens for draw in outcome.draws)
            score = sum(verdicts) / len(verdicts)
            yield Settled(place, (Draw(0, "", "score", outcome.draws[0].prompt_tokens, tokens, score=score),))

    async def close(self) -> None:
        """Nothing of its own to release."""

    @property
    def _sampling(self) -> Sampling:
        return Sampling(self._spec.temperature, 1.0, self._spec.max_tokens)

    def _messages(self, request: ScoreRequest) -> tuple[Message, ...]:
        values: dict[str, JsonValue] = {
            "prompt": next((m.content for m in reversed(request.messages[:-1]) if m.role == "user"), ""),
            "attempt": request.messages[-1].content,
            "partial": request.partial,
        }
        return tuple(Message(m.role, render(m.template, values)) for m in self._spec.prompt)
