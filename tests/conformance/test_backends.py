"""What every backend must do; the same suite runs in process, over HTTP and on recorded draws."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import pytest_asyncio

from env.backends import (
    Backend,
    Draw,
    DrawRequest,
    Failed,
    Message,
    ModelIdentity,
    OpenAIBackend,
    Sampling,
    ScoreRequest,
    Settled,
    TorchBackend,
)
from env.backends.openai_dialect import Dialect
from env.backends.replay_backend import ReplayBackend
from env.backends.replay_pool import RecordedPool, open_pool
from env.engine import create_engine_app
from env.engine.sharing import lease_engine
from env.errors import BackendError
from tests.env.backends.pools import a_draw, write_rows
from tests.env.engine.checkpoints import write_checkpoint
from tests.env.engine.live import running

SHORT = Sampling(max_tokens=12, seed=5)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("checkpoints") / "tiny")


@pytest.fixture(scope="module")
def verifier(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("checkpoints") / "judge", verifier=True)


@pytest.fixture(scope="module")
def served(checkpoint: Path, verifier: Path) -> Iterator[str]:
    lease, judging = lease_engine(checkpoint, "cpu"), lease_engine(verifier, "cpu")
    with running(create_engine_app({"tiny": lease.engine, "judge": judging.engine})) as url:
        yield url + "/v1"
    lease.release()
    judging.release()


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


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> RecordedPool:
    """Draws of every prompt the suite asks of all backends: 14 tokens each, probed after every second one."""
    texts = [f"w{a} w{b}" for a in range(30) for b in range(30)] + [f"w{n} ; w7" for n in range(12)]
    texts += [f"w{n}" for n in range(64)]
    rows = [
        a_draw(
            draw,
            f"{text.replace(' ', '_')}:{draw}" + " and so on" * 2,
            stage="any",
            model="tiny",
            example=text,
            tokens_out=14,
            cut_tokens=list(range(2, 14, 2)),
            cut_answers=[f"{text.replace(' ', '_')}:{draw}:{tokens}" for tokens in range(2, 14, 2)],
        )
        for text in texts
        for draw in range(16)
    ]
    return open_pool(write_rows(tmp_path_factory.mktemp("pools") / "tiny.parquet", rows))


@pytest_asyncio.fixture(params=["torch", "openai", "replay"])
async def backend(request: pytest.FixtureRequest, checkpoint: Path) -> AsyncIterator[Backend]:
    opened: Backend
    if request.param == "torch":
        opened = TorchBackend(checkpoint, "cpu")
    elif request.param == "openai":
        opened = OpenAIBackend(request.getfixturevalue("served"), "tiny")
    else:
        opened = Addressed(request.getfixturevalue("recorded"))
    yield opened
    await opened.close()


samples_live = pytest.mark.parametrize("backend", ["torch", "openai"], indirect=True)
"""For tests of how a model samples: recorded draws are as they were recorded."""


def ask(text: str, indices: Sequence[int] = (0,), sampling: Sampling = SHORT) -> DrawRequest:
    return DrawRequest((Message("user", text),), sampling, tuple(indices))


async def outcomes(backend: Backend, requests: Sequence[DrawRequest]) -> list[Settled | Failed]:
    found = [outcome async for outcome in backend.generate(requests)]
    return sorted(found, key=lambda outcome: outcome.position)


async def draws(backend: Backend, *requests: DrawRequest) -> list[tuple[Draw, ...]]:
    found = await outcomes(backend, requests)
    assert all(isinstance(outcome, Settled) for outcome in found), found
    return [outcome.draws for outcome in found if isinstance(outcome, Settled)]


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


GREEDY = Sampling(temperature=0, max_tokens=12)


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


@pytest_asyncio.fixture(params=["torch", "openai"])
async def judge(request: pytest.FixtureRequest, verifier: Path, served: str) -> AsyncIterator[Backend]:
    remote = OpenAIBackend(served, "judge", dialect=Dialect(api="classify"))
    opened: Backend = TorchBackend(verifier, "cpu", name="judge") if request.param == "torch" else remote
    yield opened
    await opened.close()


async def scores(backend: Backend, *requests: ScoreRequest) -> list[float]:
    found = sorted([outcome async for outcome in backend.score(requests)], key=lambda outcome: outcome.position)
    values = [draw.score for one in found if isinstance(one, Settled) for draw in one.draws]
    assert len(values) == len(requests), found
    return [value for value in values if value is not None]


def candidate(answer: str, partial: bool = False) -> ScoreRequest:
    return ScoreRequest((Message("user", "w1 w2"), Message("assistant", answer)), partial)


@pytest.mark.asyncio
async def test_a_verifier_gives_one_score_a_candidate(judge: Backend) -> None:
    values = await scores(judge, *(candidate(f"w{n} = 7") for n in range(20)))
    assert all(0 <= value <= 1 for value in values)
    assert len(set(values)) > 10
    assert await scores(judge, candidate("w3 = 7")) == pytest.approx([values[3]], abs=1e-6)


@pytest.mark.asyncio
async def test_a_partial_answer_is_judged_unclosed(judge: Backend) -> None:
    whole, partial = await scores(judge, candidate("w3 = 7"), candidate("w3 = 7", partial=True))
    assert whole != pytest.approx(partial, abs=1e-6)


@pytest.mark.asyncio
async def test_a_candidate_beyond_the_context_fails_alone(judge: Backend) -> None:
    outcomes = {one.position: one async for one in judge.score([candidate("w1"), candidate("w1 " * 300)])}
    assert isinstance(outcomes[0], Settled)
    assert isinstance(outcomes[1], Failed)
    assert "tokens" in outcomes[1].reason


@pytest.mark.asyncio
async def test_draws_of_a_verifier_are_an_error(judge: Backend) -> None:
    with pytest.raises(BackendError, match="verifier"):
        await outcomes(judge, [ask("w1")])


@pytest.mark.asyncio
async def test_scores_are_the_same_in_process_and_over_http(verifier: Path, served: str) -> None:
    local = TorchBackend(verifier, "cpu")
    remote = OpenAIBackend(served, "judge", dialect=Dialect(api="classify"))
    asked = [candidate(f"w{n}", partial=n % 2 == 1) for n in range(8)]
    assert await scores(local, *asked) == pytest.approx(await scores(remote, *asked), abs=1e-6)
    await local.close()
    await remote.close()
