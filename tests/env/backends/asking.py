"""Asks a scripted server through the backend and sorts what comes back."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from env.backends import DrawRequest, Failed, Message, OpenAIBackend, Sampling, ScoreRequest, Settled
from tests.env.backends.scripted import Script
from tests.env.engine.live import running

KEY = "sk-very-secret"


def ask(indices: Sequence[int] = (0,), sampling: Sampling | None = None, text: str = "hi") -> DrawRequest:
    return DrawRequest((Message("user", text),), sampling or Sampling(), tuple(indices))


def judge(text: str = "42", partial: bool = False) -> ScoreRequest:
    return ScoreRequest((Message("user", "hi"), Message("assistant", text)), partial)


async def outcomes(script: Script, *requests: DrawRequest | ScoreRequest, **options: Any) -> list[Settled | Failed]:
    settings = {"timeout_s": 5.0, "max_retries": 2, "backoff_s": 0.01, "api_key": KEY} | options
    with running(script.app) as url:
        backend = OpenAIBackend(url + "/v1", "m", **settings)
        draws = [one for one in requests if isinstance(one, DrawRequest)]
        scores = [one for one in requests if isinstance(one, ScoreRequest)]
        try:
            found = [outcome async for outcome in (backend.score(scores) if scores else backend.generate(draws))]
        finally:
            await backend.close()
    return sorted(found, key=lambda outcome: outcome.position)


async def settled(script: Script, *requests: DrawRequest | ScoreRequest, **options: Any) -> list[Settled]:
    found = await outcomes(script, *requests, **options)
    assert all(isinstance(one, Settled) for one in found), found
    return [one for one in found if isinstance(one, Settled)]


async def failed(script: Script, *requests: DrawRequest | ScoreRequest, **options: Any) -> list[Failed]:
    found = await outcomes(script, *requests, **options)
    assert all(isinstance(one, Failed) for one in found), found
    return [one for one in found if isinstance(one, Failed)]
