"""Answers that a server continues, and stop strings that it keeps."""

from __future__ import annotations

from typing import Any

import pytest
from starlette.responses import JSONResponse

from env.backends import DrawRequest, Message, OpenAIBackend, Sampling
from env.backends.openai_dialect import Dialect
from tests.env.backends.asking import ask, failed, settled
from tests.env.backends.scripted import Script, completion, raw, refusing, status
from tests.env.engine.live import running

PARTIAL = DrawRequest((Message("user", "hi"), Message("assistant", "so far")), Sampling(), (0, 1))


# Continued answers ---------------------------------------------------------------------------------------------------


def vllm(body: dict[str, Any]) -> Any:
    """Counts prompt tokens as a server does that closes a message and begins a new turn unless told otherwise."""
    reply = completion(body)
    content = reply.body.decode() if isinstance(reply.body, bytes) else ""
    longer = 7 if body.get("continue_final_message") and not body["add_generation_prompt"] else 10
    return raw(content.replace('"prompt_tokens":7', f'"prompt_tokens":{longer}'))(body)


@pytest.mark.asyncio
async def test_a_server_that_reads_a_shorter_prompt_when_told_so_continues() -> None:
    script = Script(vllm)
    first, second = await settled(script, PARTIAL, PARTIAL)
    assert [draw.index for draw in first.draws] == [0, 1]
    assert len(second.draws) == 2
    assert [body["max_tokens"] for body in script.asked] == [1, 1, 256, 256]  # asked once for all
    told = [body.get("continue_final_message") for body in script.asked]
    assert told == [True, None, True, True]
    assert script.asked[-1]["add_generation_prompt"] is False


@pytest.mark.asyncio
async def test_a_server_that_ignores_being_told_fails_with_what_to_do() -> None:
    script = Script(completion)
    found = await failed(script, PARTIAL, PARTIAL)
    assert all("does not continue a partial answer" in one.reason for one in found)
    assert len(script.asked) == 2


@pytest.mark.asyncio
async def test_a_server_that_refuses_to_be_told_fails_with_what_to_do() -> None:
    [one] = await failed(Script(refusing("continue_final_message")), PARTIAL)
    assert "cannot continue a partial answer" in one.reason


@pytest.mark.asyncio
async def test_a_server_that_refuses_only_the_closed_conversation_continues() -> None:
    def answer(body: dict[str, Any]) -> Any:
        if "continue_final_message" not in body:
            return status(400, "the last message must be the user's")(body)
        return completion(body)

    assert await settled(Script(answer), PARTIAL)


@pytest.mark.asyncio
async def test_what_the_user_says_about_continuing_is_not_asked_again() -> None:
    script = Script(completion)
    await settled(script, PARTIAL, dialect=Dialect(continues=True))
    assert len(script.asked) == 1
    assert await failed(Script(completion), PARTIAL, dialect=Dialect(continues=False))


@pytest.mark.asyncio
async def test_a_server_that_is_down_does_not_settle_whether_it_continues() -> None:
    script = Script(status(500), status(500), status(500), vllm)
    with running(script.app) as url:
        backend = OpenAIBackend(url + "/v1", "m", max_retries=2, backoff_s=0.01)
        kinds = [type(one).__name__ for _ in range(2) for one in [await anext(backend.generate([PARTIAL]))]]
        await backend.close()
    assert kinds == ["Failed", "Settled"]


# Kept stop strings ---------------------------------------------------------------------------------------------------


def ending(text: str, **fields: Any) -> Any:
    choice = {"index": 0, "message": {"content": text}, "finish_reason": "stop", **fields}
    return lambda body: JSONResponse({"choices": [choice], "usage": {"prompt_tokens": 1, "completion_tokens": 6}})


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("answer", "text"),
    [
        (ending("a step;", stop_reason=";"), "a step;"),
        (ending("a step;"), "a step;"),
        (ending("a step", stop_reason=";"), "a step;"),  # it ignored that the string is to be kept, but names it
        (ending("the end", stop_reason=None), "the end"),
        (ending("the end", stop_reason=151645), "the end"),
    ],
)
async def test_a_kept_stop_string_ends_the_step_however_the_server_tells(answer: Any, text: str) -> None:
    script = Script(answer)
    [one] = await settled(script, ask(sampling=Sampling(stop=(";",), include_stop=True)))
    assert script.asked[0]["include_stop_str_in_output"] is True
    assert one.draws[0].text == text


@pytest.mark.asyncio
async def test_a_server_that_does_not_tell_how_a_text_ended_cannot_keep_stop_strings() -> None:
    [one] = await failed(Script(ending("a step")), ask(sampling=Sampling(stop=(";",), include_stop=True)))
    assert "stop_reason" in one.reason


@pytest.mark.asyncio
async def test_a_server_that_refuses_to_keep_stop_strings_fails_with_what_to_do() -> None:
    sampling = Sampling(stop=(";",), include_stop=True)
    [one] = await failed(Script(refusing("include_stop_str_in_output")), ask(sampling=sampling))
    assert "cannot keep the stop string" in one.reason
