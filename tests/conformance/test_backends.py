"""What every backend must do; the same suite runs in process, over HTTP and on recorded draws."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest

from env.backends import Backend, Failed, Message, OpenAIBackend, Sampling, ScoreRequest, Settled, TorchBackend
from env.errors import BackendError
from tests.conformance.backends import SHORT, ask, draws, outcomes, samples_live


@pytest.mark.asyncio
async def test_is_a_backend_with_an_identity(backend: Backend) -> None:
    assert isinstance(backend, Backend)
    assert backend.identity.name == "tiny"


@pytest.mark.asyncio
async def test_gives_one_outcome_for_each_request(backend: Backend) -> None:
    found = await outcomes(backend, [ask(f"w{n} w{n + 1}", range(n % 3 + 1)) for n in range(20)])
    assert [outcome.position for outcome in found] == list(range(20))


@pytest.mark.asyncio
async def test_gives_nothing_for_no_requests(backend: Backend) -> None:
    assert await outcomes(backend, []) == []


@pytest.mark.asyncio
@pytest.mark.parametrize("indices", [(0,), (3, 1, 7), (5, 6, 7, 8), (2, 2, 0)])
async def test_draws_bear_the_indices_asked_in_their_order(backend: Backend, indices: tuple[int, ...]) -> None:
    [found] = await draws(backend, ask("w1 w2", indices))
    assert tuple(draw.index for draw in found) == indices


@pytest.mark.asyncio
async def test_same_request_gives_the_same_draws(backend: Backend) -> None:
    first, second = await draws(backend, ask("w4 w5", range(6)), ask("w4 w5", range(6)))
    assert [draw.text for draw in first] == [draw.text for draw in second]


@pytest.mark.asyncio
async def test_a_draw_does_not_depend_on_what_is_asked_with_it(backend: Backend) -> None:
    everything = await draws(backend, *(ask(f"w{n} ; w7", range(8)) for n in range(12)))
    [alone] = await draws(backend, ask("w9 ; w7", (2, 5)))
    assert [draw.text for draw in alone] == [everything[9][2].text, everything[9][5].text]


@samples_live
@pytest.mark.asyncio
async def test_different_indices_seeds_and_prompts_give_different_draws(backend: Backend) -> None:
    [one], [seed], [prompt], many = await draws(
        backend,
        ask("w1 w2"),
        ask("w1 w2", sampling=replace(SHORT, seed=6)),
        ask("w1 w3"),
        ask("w1 w2", range(8)),
    )
    assert len({draw.text for draw in many}) == 8
    assert len({one.text, seed.text, prompt.text}) == 3


@samples_live
@pytest.mark.asyncio
async def test_temperature_zero_gives_one_text_for_all_indices_and_seeds(backend: Backend) -> None:
    greedy = Sampling(temperature=0, max_tokens=10)
    many, [other] = await draws(backend, ask("w8", range(4), greedy), ask("w8", (9,), replace(greedy, seed=77)))
    assert {draw.text for draw in many} == {other.text}


@samples_live
@pytest.mark.asyncio
async def test_a_tiny_top_p_is_as_good_as_greedy(backend: Backend) -> None:
    [narrow], [greedy] = await draws(
        backend,
        ask("w3 w9", sampling=Sampling(top_p=1e-6, max_tokens=10)),
        ask("w3 w9", sampling=Sampling(temperature=0, max_tokens=10)),
    )
    assert narrow.text == greedy.text


@pytest.mark.asyncio
async def test_max_tokens_ends_a_draw_with_length(backend: Backend) -> None:
    [found] = await draws(backend, ask("w1 w2", range(16), Sampling(max_tokens=3)))
    cut = [draw for draw in found if draw.finish_reason == "length"]
    assert cut
    assert all(draw.output_tokens == 3 and len(draw.text.split()) <= 3 for draw in cut)


@samples_live
@pytest.mark.asyncio
async def test_a_stop_string_cuts_the_text_before_it(backend: Backend) -> None:
    plain = Sampling(temperature=0, max_tokens=12)
    [[whole]] = await draws(backend, ask("w6 w6", sampling=plain))
    words = whole.text.split()
    stop = words[5]
    [[cut]] = await draws(backend, ask("w6 w6", sampling=replace(plain, stop=(stop, "never"))))
    assert cut.finish_reason == "stop"
    assert stop not in cut.text
    assert whole.text.startswith(cut.text)
    assert cut.output_tokens == words.index(stop) + 1


@samples_live
@pytest.mark.asyncio
async def test_ended_draws_count_the_end_token(backend: Backend) -> None:
    [found] = await draws(backend, ask("w1 w2", range(64), Sampling(max_tokens=60)))
    ended = [draw for draw in found if draw.finish_reason == "stop"]
    assert ended
    assert all(draw.output_tokens >= len(draw.text.split()) + 1 for draw in ended)


@samples_live
@pytest.mark.asyncio
async def test_draws_carry_their_log_probability(backend: Backend) -> None:
    [found] = await draws(backend, ask("w1 w2", range(4)))
    assert all(draw.logprob is not None and draw.logprob < 0 and draw.score is None for draw in found)


@pytest.mark.asyncio
async def test_several_calls_may_run_at_once(backend: Backend) -> None:
    requests = [ask(f"w{n} w11", range(3)) for n in range(6)]
    together = await asyncio.gather(*(draws(backend, request) for request in requests))
    apart = [await draws(backend, request) for request in requests]
    assert [[d.text for d in found[0]] for found in together] == [[d.text for d in found[0]] for found in apart]


@samples_live
@pytest.mark.asyncio
async def test_a_prompt_beyond_the_context_fails_alone(backend: Backend) -> None:
    good, bad = await outcomes(backend, [ask("w1"), ask("w1 " * 400)])
    assert isinstance(good, Settled)
    assert isinstance(bad, Failed)
    assert "context" in bad.reason


@samples_live
@pytest.mark.asyncio
async def test_parameters_out_of_range_fail_with_a_reason(backend: Backend) -> None:
    [bad] = await outcomes(backend, [ask("w1", sampling=Sampling(top_p=0))])
    assert isinstance(bad, Failed)
    assert "top_p" in bad.reason


@pytest.mark.asyncio
async def test_leaving_early_leaves_the_backend_usable(backend: Backend) -> None:
    stream = backend.generate([ask(f"w{n}", range(4)) for n in range(30)])
    await anext(stream)
    await stream.aclose()  # type: ignore[attr-defined]
    assert await draws(backend, ask("w1"))


@samples_live
@pytest.mark.asyncio
async def test_cancelling_a_call_reaches_the_caller(backend: Backend) -> None:
    task = asyncio.create_task(draws(backend, *(ask(f"w{n}", range(16), Sampling()) for n in range(64))))
    await asyncio.sleep(0.05)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


@pytest.mark.asyncio
async def test_scores_of_a_language_model_are_an_error(backend: Backend) -> None:
    with pytest.raises(BackendError):
        [outcome async for outcome in backend.score([ScoreRequest((Message("assistant", "w1"),))])]


@pytest.mark.asyncio
async def test_calls_after_close_are_an_error(backend: Backend) -> None:
    await backend.close()
    with pytest.raises(BackendError, match="closed"):
        await outcomes(backend, [ask("w1")])


@pytest.mark.asyncio
async def test_token_counts_and_greedy_draws_are_the_same_in_process_and_over_http(
    checkpoint: Path, served: str
) -> None:
    local, remote = TorchBackend(checkpoint, "cpu"), OpenAIBackend(served, "tiny")
    requests = [ask(f"w{n} = 7", (0, 1), Sampling(temperature=0, max_tokens=20)) for n in range(8)]
    here, there = await draws(local, *requests), await draws(remote, *requests)
    for mine, yours in zip(here, there, strict=True):
        for one, other in zip(mine, yours, strict=True):
            assert one.logprob == pytest.approx(other.logprob, abs=1e-4)
            assert replace(one, logprob=None) == replace(other, logprob=None)
    await local.close()
    await remote.close()
