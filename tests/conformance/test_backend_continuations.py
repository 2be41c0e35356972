"""Continued answers and kept stop strings, on which step search and revision stand: the same for all live backends."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest

from env.backends import Backend, Draw, DrawRequest, Message, Sampling
from tests.conformance.backends import GREEDY, SHORT, ask, draws, samples_live


def carry_on(text: str, partial: str, sampling: Sampling = GREEDY, indices: Sequence[int] = (0,)) -> DrawRequest:
    return DrawRequest((Message("user", text), Message("assistant", partial)), sampling, tuple(indices))


async def spoken(backend: Backend) -> tuple[str, Draw]:
    """A prompt with its greedy answer in which every token is a word (this random model likes special tokens)."""
    prompts = [f"w{n} w6" for n in range(40)]
    for prompt, [draw] in zip(prompts, await draws(backend, *(ask(p, sampling=GREEDY) for p in prompts)), strict=True):
        if len(draw.text.split()) == draw.output_tokens == 12 and len(set(draw.text.split())) > 4:
            return prompt, draw
    raise AssertionError("no prompt has such an answer; make another checkpoint")


@samples_live
@pytest.mark.asyncio
@pytest.mark.parametrize("words", [1, 4, 7, 9])
async def test_a_continued_prefix_of_the_greedy_answer_gives_the_rest_of_it(backend: Backend, words: int) -> None:
    prompt, whole = await spoken(backend)
    partial = " ".join(whole.text.split()[:words])
    [[rest]] = await draws(backend, carry_on(prompt, partial, replace(GREEDY, max_tokens=12 - words)))
    assert partial + rest.text == whole.text
    assert rest.output_tokens == whole.output_tokens - words
    assert rest.prompt_tokens == whole.prompt_tokens + words


@samples_live
@pytest.mark.asyncio
async def test_white_space_that_ends_a_partial_answer_is_not_repeated(backend: Backend) -> None:
    [[plain], [spaced]] = await draws(backend, carry_on("w6", "w1 w2"), carry_on("w6", "w1 w2 "))
    assert "w1 w2" + plain.text == "w1 w2 " + spaced.text


@samples_live
@pytest.mark.asyncio
async def test_an_empty_partial_answer_is_a_fresh_one(backend: Backend) -> None:
    [[fresh], [continued]] = await draws(backend, ask("w6 w6", sampling=GREEDY), carry_on("w6 w6", ""))
    assert continued.text == fresh.text


@samples_live
@pytest.mark.asyncio
async def test_continued_draws_differ_by_index_and_are_the_same_again(backend: Backend) -> None:
    many, again = await draws(backend, carry_on("w1", "w2 w3", SHORT, range(6)), carry_on("w1", "w2 w3", SHORT, (4, 1)))
    assert len({draw.text for draw in many}) > 1
    assert [draw.text for draw in again] == [many[4].text, many[1].text]


@samples_live
@pytest.mark.asyncio
async def test_stop_strings_look_at_the_new_part_only(backend: Backend) -> None:
    prompt, whole = await spoken(backend)
    words = whole.text.split()
    stop = words[3]
    partial = " ".join(words[:4])
    [[rest]] = await draws(backend, carry_on(prompt, partial, replace(GREEDY, stop=(f"{stop} ",), max_tokens=8)))
    assert whole.text.startswith(partial + rest.text.rstrip())
    assert rest.output_tokens > 0
    again = [place for place, word in enumerate(words[4:11]) if word.endswith(stop)]
    assert rest.output_tokens == (again[0] + 2 if again else 8)


@samples_live
@pytest.mark.asyncio
async def test_a_stop_string_is_kept_where_asked_and_its_tokens_are_the_same(backend: Backend) -> None:
    [[whole]] = await draws(backend, ask("w6 w6", sampling=GREEDY))
    stop = whole.text.split()[5]
    cutting = replace(GREEDY, stop=(stop, "never"))
    [[cut], [kept]] = await draws(
        backend,
        ask("w6 w6", sampling=cutting),
        ask("w6 w6", sampling=replace(cutting, include_stop=True)),
    )
    assert kept.text == cut.text + stop
    assert whole.text.startswith(kept.text)
    assert replace(kept, text=cut.text) == replace(cut, logprob=kept.logprob)


@samples_live
@pytest.mark.asyncio
async def test_kept_stop_strings_change_nothing_where_none_was_reached(backend: Backend) -> None:
    told = Sampling(max_tokens=60, stop=("never",), seed=3)
    plain, kept = await draws(
        backend, ask("w1 w2", range(24), told), ask("w1 w2", range(24), replace(told, include_stop=True))
    )
    assert [draw.text for draw in plain] == [draw.text for draw in kept]
    assert any(draw.finish_reason == "stop" for draw in plain)


@samples_live
@pytest.mark.asyncio
async def test_an_answer_grown_step_by_step_is_the_whole_one(backend: Backend) -> None:
    prompt, whole = await spoken(backend)
    stop, grown = whole.text.split()[3], ""
    for _ in range(12):
        left = 12 - len(grown.split())
        if left <= 0:
            break
        step = replace(GREEDY, max_tokens=left, stop=(stop,), include_stop=True)
        [[draw]] = await draws(backend, carry_on(prompt, grown, step))
        grown += draw.text
        if draw.finish_reason == "length" or not draw.text.endswith(stop):
            break
    assert grown == whole.text
