"""Servers that refuse, stall, lie or break: a call that fails is an outcome with a reason, never an exception."""

from __future__ import annotations

import asyncio
import socket
import time
from typing import Any

import pytest

from env.backends import Failed, Message, OpenAIBackend, Sampling, ScoreRequest, Settled
from env.errors import BackendError
from tests.env.backends.asking import KEY, ask, failed, outcomes, settled
from tests.env.backends.scripted import Script, completion, hang, raw, status
from tests.env.engine.live import running


@pytest.mark.asyncio
@pytest.mark.parametrize("code", [408, 409, 429, 500, 503])
async def test_passing_errors_are_tried_again(code: int) -> None:
    script = Script(status(code), status(code, headers={"retry-after": "0"}), completion)
    [one] = await settled(script, ask())
    assert len(script.asked) == 3
    assert one.draws[0].prompt_tokens == 7


@pytest.mark.asyncio
async def test_lasting_server_errors_fail_after_all_attempts() -> None:
    script = Script(status(500, "out of order"))
    [one] = await failed(script, ask())
    assert len(script.asked) == 3
    assert "500" in one.reason
    assert "out of order" in one.reason
    assert "3 attempts" in one.reason


@pytest.mark.asyncio
async def test_refusals_are_not_tried_again_and_never_show_the_key() -> None:
    script = Script(status(401, f"Incorrect API key provided: {KEY}"))
    [one] = await failed(script, ask())
    assert len(script.asked) == 1
    assert script.headers[0]["authorization"] == f"Bearer {KEY}"
    assert not {"x-stainless-os", "x-stainless-arch", "x-stainless-runtime-version"} & set(script.headers[0])
    assert KEY not in one.reason
    assert "401" in one.reason


@pytest.mark.asyncio
async def test_a_server_that_never_answers_fails_after_the_timeouts() -> None:
    begin = time.monotonic()
    [one] = await failed(Script(hang), ask(), timeout_s=0.2, max_retries=1)
    assert time.monotonic() - begin < 4
    assert "no answer within 0.2 s" in one.reason


@pytest.mark.asyncio
async def test_a_refused_connection_fails_with_its_reason() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    backend = OpenAIBackend(f"http://127.0.0.1:{port}/v1", "m", max_retries=1, backoff_s=0.01)
    [one] = [outcome async for outcome in backend.generate([ask()])]
    await backend.close()
    assert isinstance(one, Failed)
    assert "no connection" in one.reason


@pytest.mark.asyncio
@pytest.mark.parametrize(
    "body",
    [
        "",
        "{",
        "[]",
        "<html>proxy</html>",
        '{"choices": []}',
        '{"choices": [{"message": {"content": 5}}]}',
        '{"choices": [{"index": 0, "message": {"content": "x"}, "finish_reason": "stop"}]}',
        '{"choices": [{"message": {"content": null}, "finish_reason": "stop"}], "usage": {"prompt_tokens": 1}}',
        '{"choices": [{"message": {"content": "x"}, "finish_reason": "tool"}], "usage": {"completion_tokens": 1}}',
    ],
)
async def test_nonsense_is_tried_again_then_fails(body: str) -> None:
    once = Script(raw(body), completion)
    assert await settled(once, ask())
    always = Script(raw(body))
    [one] = await failed(always, ask())
    assert len(always.asked) == 3
    assert "repl" in one.reason or "choice" in one.reason


@pytest.mark.asyncio
async def test_missing_choices_are_asked_for_again() -> None:
    script = Script(lambda body: completion(body, most=3))
    [one] = await settled(script, ask(range(8)))
    assert [draw.index for draw in one.draws] == list(range(8))
    seeds = [int(draw.text.split()[1]) for draw in one.draws]
    assert seeds == [seeds[0] + j for j in range(8)]


@pytest.mark.asyncio
async def test_servers_that_ignore_n_are_asked_one_draw_at_a_time() -> None:
    script = Script(lambda body: completion(body, most=1))
    first, second = await settled(script, ask(range(4)), ask(range(4), text="other"), concurrency=1)
    assert len({draw.text for draw in (*first.draws, *second.draws)}) == 8


@pytest.mark.asyncio
async def test_servers_that_refuse_n_are_asked_one_draw_at_a_time() -> None:
    def refuse(body: dict[str, Any]) -> Any:
        return status(400, "n must be 1", parameter="n")(body) if body.get("n", 1) > 1 else completion(body)

    script = Script(refuse)
    [one] = await settled(script, ask(range(4)))
    assert len(one.draws) == 4
    assert len(script.asked) == 5


@pytest.mark.asyncio
async def test_draws_that_never_come_fail_after_a_bounded_number_of_asks() -> None:
    script = Script(lambda body: completion(body, most=1), lambda body: completion(body, finish="content_filter"))
    [one] = await failed(script, ask(range(4)))
    assert "content_filter" in one.reason
    assert len(script.asked) <= 10


@pytest.mark.asyncio
@pytest.mark.parametrize("field", ["logprobs", "seed"])
async def test_fields_a_server_refuses_are_left_out_from_then_on(field: str) -> None:
    def refuse(body: dict[str, Any]) -> Any:
        if field in body:
            return status(400, f"Unsupported parameter: '{field}'", parameter=field)(body)
        return completion(body, logprobs=False)

    script = Script(refuse)
    await settled(script, ask(), ask(text="two"), concurrency=1)
    assert field not in script.asked[-1]
    assert len(script.asked) <= 4


@pytest.mark.asyncio
async def test_servers_that_want_max_completion_tokens_get_it() -> None:
    def refuse(body: dict[str, Any]) -> Any:
        if "max_tokens" in body:
            return status(400, "Use 'max_completion_tokens' instead.", parameter="max_tokens")(body)
        return completion(body)

    script = Script(refuse)
    await settled(script, ask(sampling=Sampling(max_tokens=9)))
    assert script.asked[-1]["max_completion_tokens"] == 9


@pytest.mark.asyncio
async def test_log_probabilities_count_and_sum_the_tokens_of_each_choice() -> None:
    [one] = await settled(Script(completion), ask(range(3)))
    assert [(draw.output_tokens, draw.logprob) for draw in one.draws] == [(3, -1.5)] * 3


@pytest.mark.asyncio
async def test_without_log_probabilities_usage_is_split_evenly_with_the_remainder_first() -> None:
    [one] = await settled(Script(lambda body: completion(body, logprobs=False)), ask(range(3)))
    assert [(draw.output_tokens, draw.logprob) for draw in one.draws] == [(4, None), (3, None), (3, None)]


@pytest.mark.asyncio
async def test_greedy_draws_are_asked_once() -> None:
    script = Script(completion)
    [one] = await settled(script, ask((4, 2, 9), Sampling(temperature=0)))
    assert [draw.index for draw in one.draws] == [4, 2, 9]
    assert len(script.asked) == 1
    assert "n" not in script.asked[0]


@pytest.mark.asyncio
async def test_the_request_carries_the_sampling_parameters() -> None:
    script = Script(completion)
    await settled(script, ask(range(2), Sampling(0.3, 0.8, 17, ("\n", "END"), 5)))
    body = script.asked[0]
    assert (body["temperature"], body["top_p"], body["max_tokens"], body["n"]) == (0.3, 0.8, 17, 2)
    assert body["stop"] == ["\n", "END"]
    assert 0 <= body["seed"] < 2**31


@pytest.mark.asyncio
async def test_no_more_requests_are_in_flight_than_allowed() -> None:
    async def slow(body: dict[str, Any]) -> Any:
        await asyncio.sleep(0.02)
        return completion(body)

    script = Script(slow)
    await settled(script, *(ask(text=str(n)) for n in range(20)), concurrency=3)
    assert script.most_at_once == 3


@pytest.mark.asyncio
async def test_one_failed_request_does_not_stop_the_others() -> None:
    def some(body: dict[str, Any]) -> Any:
        return status(404, "gone")(body) if body["messages"][0]["content"] == "bad" else completion(body)

    found = await outcomes(Script(some), ask(), ask(text="bad"), ask())
    assert [type(one) for one in found] == [Settled, Failed, Settled]


@pytest.mark.asyncio
async def test_cancellation_reaches_the_caller_at_once() -> None:
    with running(Script(hang).app) as url:
        backend = OpenAIBackend(url + "/v1", "m")

        async def consume() -> None:
            async for _ in backend.generate([ask()]):
                pass

        task = asyncio.create_task(consume())
        await asyncio.sleep(0.2)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await backend.close()


def test_neither_key_nor_password_is_shown() -> None:
    backend = OpenAIBackend("http://user:hunter2@example.org/v1?token=abc", "m", api_key=KEY)
    assert not any(secret in repr(backend) for secret in (KEY, "hunter2", "abc"))


def test_a_url_without_a_scheme_is_refused() -> None:
    with pytest.raises(BackendError, match="http"):
        OpenAIBackend("localhost:8000", "m")


def test_scores_are_not_served() -> None:
    with pytest.raises(BackendError, match="verifier"):
        OpenAIBackend("http://localhost:1/v1", "m").score([ScoreRequest((Message("user", "x"),))])


def test_one_backend_serves_several_event_loops_in_turn() -> None:
    script = Script(completion)
    with running(script.app) as url:
        backend = OpenAIBackend(url + "/v1", "m")

        async def once() -> int:
            return len([outcome async for outcome in backend.generate([ask()]) if isinstance(outcome, Settled)])

        assert [asyncio.run(once()), asyncio.run(once())] == [1, 1]


@pytest.mark.asyncio
async def test_a_log_probability_that_is_no_number_is_none_at_all() -> None:
    listed = '{"content": [{"logprob": -0.5}, {"logprob": NaN}]}'
    choice = f'{{"index": 0, "message": {{"content": "x"}}, "finish_reason": "stop", "logprobs": {listed}}}'
    reply = f'{{"choices": [{choice}], "usage": {{"prompt_tokens": 3, "completion_tokens": 2}}}}'
    [one] = await settled(Script(raw(reply)), ask())
    assert (one.draws[0].text, one.draws[0].output_tokens, one.draws[0].logprob) == ("x", 2, None)
