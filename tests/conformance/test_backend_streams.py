"""What every backend that streams must do, in process and over HTTP."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from env.backends import Backend, Failed, Settled
from env.backends._base import StreamingBackend
from tests.conformance.backends import SHORT, ask, draws, samples_live

LONG = replace(SHORT, max_tokens=60)


@samples_live
@pytest.mark.asyncio
async def test_a_streamed_draw_is_the_drawn_one_told_piece_by_piece(backend: Backend) -> None:
    assert isinstance(backend, StreamingBackend)
    request = ask("w1 w2", sampling=LONG)
    [[whole]] = await draws(backend, request)
    told: list[str] = []
    outcome = await backend.stream(request, told.append)
    assert isinstance(outcome, Settled)
    [draw] = outcome.draws
    assert (draw.text, draw.finish_reason) == (whole.text, whole.finish_reason)
    assert (draw.prompt_tokens, draw.output_tokens) == (whole.prompt_tokens, whole.output_tokens)
    assert draw.logprob == pytest.approx(whole.logprob, abs=1e-3)
    assert len(told) > 1
    assert "".join(told) == draw.text


@samples_live
@pytest.mark.asyncio
async def test_nothing_is_told_that_a_stop_string_takes_back(backend: Backend) -> None:
    assert isinstance(backend, StreamingBackend)
    request = ask("w1 w2", sampling=replace(LONG, stop=("3 w", "7 w")))
    [[whole]] = await draws(backend, request)
    assert whole.finish_reason == "stop"
    told: list[str] = []
    outcome = await backend.stream(request, told.append)
    assert isinstance(outcome, Settled)
    assert outcome.draws[0].text == whole.text == "".join(told)


@samples_live
@pytest.mark.asyncio
async def test_a_prompt_that_does_not_fit_fails_without_a_word(backend: Backend) -> None:
    assert isinstance(backend, StreamingBackend)
    told: list[str] = []
    outcome = await backend.stream(ask("w1 " * 5000), told.append)
    assert isinstance(outcome, Failed)
    assert told == []


@samples_live
@pytest.mark.asyncio
async def test_a_stream_that_is_left_can_be_asked_again(backend: Backend) -> None:
    assert isinstance(backend, StreamingBackend)
    told = asyncio.Event()
    left = asyncio.create_task(backend.stream(ask("w3 w4", sampling=LONG), lambda _: told.set()))
    await told.wait()
    left.cancel()
    with pytest.raises(asyncio.CancelledError):
        await left
    assert isinstance(await backend.stream(ask("w3 w4", sampling=LONG), lambda _: None), Settled)
