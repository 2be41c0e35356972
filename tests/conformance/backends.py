"""What the suites of backends share: prompts to ask, and recorded draws that are asked like a live model."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace

import pytest

from env.backends import Backend, Draw, DrawRequest, Failed, Message, ModelIdentity, Sampling, ScoreRequest, Settled
from env.backends.replay_backend import ReplayBackend
from env.backends.replay_pool import RecordedPool

SHORT = Sampling(max_tokens=12, seed=5)
GREEDY = Sampling(temperature=0, max_tokens=12)

samples_live = pytest.mark.parametrize("backend", ["torch", "openai"], indirect=True)
"""For tests of how a model samples: recorded draws are as they were recorded."""


class Addressed:
    """A replay backend asked like the others: the text of a prompt is the id of its example."""

    def __init__(self, pool: RecordedPool) -> None:
        self._replay = ReplayBackend(pool, "tiny")

    @property
    def identity(self) -> ModelIdentity:
        return self._replay.identity

    async def generate(self, requests: Sequence[DrawRequest]) -> AsyncIterator[Settled | Failed]:
        addressed = [
            replace(r, messages=(Message("user", json.dumps({"stage": "any", "example": r.messages[-1].content})),))
            for r in requests
        ]
        async for outcome in self._replay.generate(addressed):
            yield outcome

    def score(self, requests: Sequence[ScoreRequest]) -> AsyncIterator[Settled | Failed]:
        return self._replay.score(requests)

    async def close(self) -> None:
        await self._replay.close()


def ask(text: str, indices: Sequence[int] = (0,), sampling: Sampling = SHORT) -> DrawRequest:
    return DrawRequest((Message("user", text),), sampling, tuple(indices))


async def outcomes(backend: Backend, requests: Sequence[DrawRequest]) -> list[Settled | Failed]:
    found = [outcome async for outcome in backend.generate(requests)]
    return sorted(found, key=lambda outcome: outcome.position)


async def draws(backend: Backend, *requests: DrawRequest) -> list[tuple[Draw, ...]]:
    found = await outcomes(backend, requests)
    assert all(isinstance(outcome, Settled) for outcome in found), found
    return [outcome.draws for outcome in found if isinstance(outcome, Settled)]
