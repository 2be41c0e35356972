"""Servers differ: text completions, fields that a server does not know, counts that it does not give."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from starlette.responses import JSONResponse

from env.backends import DrawRequest, Message, OpenAIBackend, Sampling, Settled
from env.backends.openai_dialect import Dialect, plain_prompt
from env.engine import create_engine_app
from env.engine.sharing import lease_engine
from tests.env.backends.asking import ask, failed, settled
from tests.env.backends.scripted import Script, completion, refusing, status, text_completion
from tests.env.engine.checkpoints import write_checkpoint
from tests.env.engine.live import running

COMPLETIONS = Dialect(api="completions")
CLASSIFY = Dialect(api="classify")
PARTIAL = DrawRequest((Message("user", "hi"), Message("assistant", "so far")), Sampling(), (0, 1))


# Text completions ----------------------------------------------------------------------------------------------------


@pytest.mark.asyncio
async def test_text_completions_are_asked_with_one_prompt_and_read_in_their_own_shape() -> None:
    script = Script(text_completion)
    request = DrawRequest((Message("system", "Add."), Message("user", "1 + 1")), Sampling(), (0, 1, 2))
    [one] = await settled(script, request, dialect=COMPLETIONS)
    body = script.asked[0]
    assert script.paths == ["/v1/completions"]
    assert (body["prompt"], body["n"], "messages" in body) == ("Add.\n\n1 + 1", 3, False)
    assert [(draw.output_tokens, draw.logprob) for draw in one.draws] == [(2, -0.75)] * 3
    assert [draw.text for draw in one.draws] == [f" seed {body['seed'] + j}" for j in range(3)]


def test_a_prompt_an_answer_to_it_and_its_continuation_are_one_text() -> None:
    asked = (Message("system", "Add."), Message("user", "1 + 1 ="))
    continued = (*asked, Message("assistant", " 2"))
    assert plain_prompt(continued) == plain_prompt(asked) + " 2"
    assert plain_prompt((*continued, Message("user", "2 + 2 ="))) == "Add.\n\n1 + 1 = 2\n\n2 + 2 ="


@pytest.mark.asyncio
async def test_text_completions_continue_without_being_asked_whether_they_can() -> None:
    script = Script(text_completion)
    await settled(script, PARTIAL, dialect=COMPLETIONS)
    assert [body["prompt"] for body in script.asked] == ["hiso far"]


@pytest.mark.asyncio
async def test_text_completions_of_the_engine_continue_their_own_greedy_answer(tmp_path: Path) -> None:
    lease = lease_engine(write_checkpoint(tmp_path / "tiny"), "cpu")
    greedy = Sampling(temperature=0, max_tokens=10)
    with running(create_engine_app({"m": lease.engine})) as url:
        backend = OpenAIBackend(url + "/v1", "m", dialect=COMPLETIONS)

        async def text(*messages: Message, tokens: int) -> str:
            request = DrawRequest(messages, replace(greedy, max_tokens=tokens), (0,))
            [one] = [outcome async for outcome in backend.generate([request])]
            assert isinstance(one, Settled)
            return one.draws[0].text

        for number in range(5):
            user = Message("user", f"w{number} w3")
            whole = await text(user, tokens=10)
            if len(whole.split()) < 10:
                continue  # special tokens in between are no text that could be given back
            partial = "".join(f" {word}" for word in whole.split()[:4])
            assert whole == partial + await text(user, Message("assistant", partial), tokens=6)
        await backend.close()
    lease.release()


def test_draws_of_different_apis_and_scores_of_different_labels_have_different_identities() -> None:
    dialects = [Dialect(), COMPLETIONS, CLASSIFY, Dialect("classify", 0), Dialect("classify", 1), Dialect("pooling")]
    dialects += [
        Dialect("score"),
        Dialect("reward"),
        Dialect("reward", rewards="outcome"),
        Dialect("reward", steps="min"),
    ]
    found = {OpenAIBackend("http://a/v1", "m", "r1", dialect=dialect).identity for dialect in dialects}
    assert len(found) == len(dialects)
    assert OpenAIBackend("http://a/v1", "m", "r1").identity.revision == "r1"


# What servers refuse -------------------------------------------------------------------------------------------------


@pytest.mark.asyncio
@pytest.mark.parametrize("field", ["temperature", "top_p"])
async def test_a_refused_default_is_left_out_from_then_on(field: str) -> None:
    script = Script(refusing(field))
    await settled(script, ask(), ask(text="two"), concurrency=1)
    assert field not in script.asked[-1]
    assert len(script.asked) == 3


@pytest.mark.asyncio
async def test_a_refused_value_that_means_something_fails_and_says_what_to_do() -> None:
    script = Script(refusing("temperature"))
    plain, cool = ask(), ask(sampling=Sampling(temperature=0.3), text="two")
    await settled(script, plain)
    [one] = await failed(Script(refusing("temperature")), cool)
    assert "temperature = 0.3" in one.reason
    assert "1.0 only" in one.reason


@pytest.mark.asyncio
async def test_a_habit_learnt_at_the_default_does_not_swallow_another_value() -> None:
    script = Script(refusing("temperature"))
    found = [ask(), ask(sampling=Sampling(temperature=0.3), text="two")]
    with running(script.app) as url:
        backend = OpenAIBackend(url + "/v1", "m", backoff_s=0.01)
        for request, kind in zip(found, ("Settled", "Failed"), strict=True):
            [outcome] = [outcome async for outcome in backend.generate([request])]
            assert type(outcome).__name__ == kind
        await backend.close()


@pytest.mark.asyncio
@pytest.mark.parametrize("keep", [False, True])
async def test_refused_stop_strings_are_cut_here(keep: bool) -> None:
    def answer(body: dict[str, Any]) -> Any:
        if "stop" in body:
            return status(400, "Unsupported parameter: 'stop' is not supported with this model.")(body)
        message = {"role": "assistant", "content": "one;two.three"}
        choice = {"index": 0, "message": message, "finish_reason": "length"}
        return JSONResponse({"choices": [choice], "usage": {"prompt_tokens": 1, "completion_tokens": 6}})

    [one] = await settled(Script(answer), ask(sampling=Sampling(stop=(".", ";"), include_stop=keep)))
    [draw] = one.draws
    assert draw.text == ("one;" if keep else "one")
    assert (draw.finish_reason, draw.output_tokens) == ("stop", 6)  # what was generated was paid for


@pytest.mark.asyncio
async def test_missing_token_counts_fail_with_what_to_do_or_are_estimated_where_allowed() -> None:
    def uncounted(body: dict[str, Any]) -> Any:
        return completion(body, usage=False, logprobs=False)

    [one] = await failed(Script(uncounted), ask(text="12345"))
    assert "missing_usage: estimate" in one.reason
    script = Script(uncounted)
    [guess] = await settled(script, ask((0, 1), text="12345"), dialect=Dialect(missing_usage="estimate"))
    assert [draw.prompt_tokens for draw in guess.draws] == [2, 2]
    assert sum(draw.output_tokens for draw in guess.draws) == sum(-(-len(draw.text) // 4) for draw in guess.draws)


@pytest.mark.asyncio
async def test_an_ignored_seed_still_gives_a_draw_for_every_index() -> None:
    texts = iter(range(100))

    def answer(body: dict[str, Any]) -> Any:
        message = {"role": "assistant", "content": f"random {next(texts)}"}
        choices = [{"index": 0, "message": message, "finish_reason": "stop"}]
        return JSONResponse({"choices": choices, "usage": {"prompt_tokens": 1, "completion_tokens": 6}})

    [one] = await settled(Script(answer), ask(range(8)))
    assert len({draw.text for draw in one.draws}) == 8


@pytest.mark.asyncio
async def test_draws_that_came_before_a_failure_are_kept_with_it() -> None:
    def answer(body: dict[str, Any]) -> Any:
        if len(script.asked) > 1:
            return status(404, "gone")(body)
        return completion(body, most=3)

    script = Script(answer)
    [one] = await failed(script, ask(range(5)))
    assert [draw.index for draw in one.draws] == [0, 1, 2]
    assert "gone" in one.reason
