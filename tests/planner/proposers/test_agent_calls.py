"""The agent against a real HTTP server that fails in every way a server can."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from tests.planner.proposers.agent_cases import GOOD, GOOD_ALLOCATION, KEY, agent, history, space
from tests.scripted_llm import Content, EmptyChoices, Garbage, Late, ScriptedLlm, Status, Step, refusing

SPACE = space()


@pytest.mark.asyncio
async def test_a_good_reply_becomes_proposals_with_the_tokens_the_server_counted() -> None:
    with ScriptedLlm([Content(json.dumps(GOOD), usage=(1234, 56))]) as llm:
        got = await agent(llm.base_url, SPACE).propose(history(SPACE), 4, ())
    (proposal,) = got.proposals
    assert (proposal.allocation, proposal.origin, proposal.reason) == (GOOD_ALLOCATION, "agent", "because")
    assert proposal.expected_score == 0.5
    (exchange,) = got.exchanges
    assert (exchange.model, exchange.prompt_tokens, exchange.completion_tokens) == ("scripted", 1234, 56)
    assert exchange.error == ""
    assert exchange.seconds > 0
    assert llm.requests[0]["response_format"]["type"] == "json_schema"
    assert llm.requests[0]["response_format"]["json_schema"]["strict"] is True
    assert "temperature" not in llm.requests[0]
    assert llm.requests[0]["seed"] == 7


@pytest.mark.asyncio
async def test_tokens_are_estimated_where_the_server_counts_none() -> None:
    with ScriptedLlm([Content(json.dumps(GOOD), usage=None)]) as llm:
        got = await agent(llm.base_url, SPACE).propose(history(SPACE), 4, ())
    (exchange,) = got.exchanges
    assert exchange.prompt_tokens > len(llm.prompts[0]) // 5
    assert exchange.completion_tokens == -(-len(exchange.reply) // 4)


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("step", "error"),
    [
        ("I would rather not.", "no proposals could be read"),
        ('{"proposals": []}', "no proposals could be read"),
        ("", "the reply is empty"),
        (Content(None, finish_reason="length"), "finish reason length"),
        (Content(None, refusal="I cannot help"), "I cannot help"),
        (EmptyChoices(), "no choice"),
        (Garbage(), "not JSON"),
        (Garbage(b"<html>busy</html>", "text/html"), "not JSON"),
        (Garbage(b"[1, 2]"), "no choice"),
        (Garbage(b'{"choices": [{"message": {"content": [1]}}]}'), "the reply is empty"),
        (Garbage(b"[" * 100_000), "not JSON"),
        (Status(401, f"Incorrect API key provided: {KEY}"), "HTTP 401"),
        (Status(400, "this model's maximum context length is 1000 tokens"), "context length"),
        (Status(404, "The model `scripted` does not exist"), "does not exist"),
    ],
)
async def test_a_useless_answer_is_an_exchange_with_an_error_and_is_not_asked_again(step: Step, error: str) -> None:
    with ScriptedLlm(then=step) as llm:
        got = await agent(llm.base_url, SPACE).propose(history(SPACE), 4, ())
    assert got.proposals == ()
    (exchange,) = got.exchanges
    assert error in exchange.error
    assert KEY not in repr(exchange)
    assert len(llm.requests) == 1


@pytest.mark.asyncio
@pytest.mark.parametrize("code", [408, 429, 500, 503])
async def test_passing_failures_are_retried(code: int) -> None:
    with ScriptedLlm([Status(code), Status(code, headers={"retry-after": "0.01"}), GOOD]) as llm:
        got = await agent(llm.base_url, SPACE).propose(history(SPACE), 4, ())
    assert [p.allocation for p in got.proposals] == [GOOD_ALLOCATION]
    assert len(llm.requests) == 3


@pytest.mark.asyncio
async def test_retries_are_bounded() -> None:
    with ScriptedLlm(then=Status(503, "overloaded")) as llm:
        got = await agent(llm.base_url, SPACE, max_retries=1).propose(history(SPACE), 4, ())
    assert "overloaded" in got.exchanges[0].error
    assert len(llm.requests) == 2


@pytest.mark.asyncio
async def test_a_late_server_is_given_up_and_its_prompts_are_charged() -> None:
    with ScriptedLlm(then=Late(20, GOOD)) as llm:
        got = await agent(llm.base_url, SPACE, timeout_s=0.3, max_retries=1).propose(history(SPACE), 4, ())
    (exchange,) = got.exchanges
    assert got.proposals == ()
    assert exchange.error == "no answer within 0.3 s"
    assert exchange.seconds < 10
    assert exchange.prompt_tokens > 2 * len(llm.prompts[0]) // 5


@pytest.mark.asyncio
async def test_a_server_that_is_not_there_is_an_exchange_with_an_error() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{taken.getsockname()[1]}/v1"
        got = await agent(url, SPACE).reflect(history(SPACE))
    assert got.guidelines == ()
    assert "cannot reach the server" in got.exchanges[0].error


@pytest.mark.asyncio
async def test_cancellation_is_not_swallowed() -> None:
    with ScriptedLlm(then=Late(20, GOOD)) as llm:
        task = asyncio.create_task(agent(llm.base_url, SPACE).propose(history(SPACE), 4, ()))
        while not llm.requests:  # noqa: ASYNC110 - the server runs in a thread
            await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task


@pytest.mark.asyncio
@pytest.mark.parametrize("status", [400, 422])
@pytest.mark.parametrize(
    ("refused", "modes"),
    [
        (["json_schema"], ["json_schema", "json_object"]),
        (["response_format"], ["json_schema", "json_object", None]),
        (["max_completion_tokens"], ["json_schema", "json_schema"]),
        (["max_completion_tokens", "seed", "temperature"], ["json_schema"] * 4),
    ],
)
async def test_a_server_that_takes_less_is_asked_for_less_and_remembered(
    refused: list[str], modes: list[str | None], status: int
) -> None:
    with ScriptedLlm(refusing(refused, GOOD, status)) as llm:
        proposer = agent(llm.base_url, SPACE, temperature=0.3)
        first = await proposer.propose(history(SPACE), 4, ())
        asked = len(llm.requests)
        second = await proposer.propose(history(SPACE, 7), 4, ())
    assert [p.allocation for p in first.proposals] == [GOOD_ALLOCATION]
    assert [r.get("response_format", {}).get("type") for r in llm.requests[:asked]] == modes
    assert second.proposals
    assert len(llm.requests) == asked + 1
    last = llm.requests[-1]
    assert not set(refused) & {*last, last.get("response_format", {}).get("type")}
    if "max_completion_tokens" in refused:
        assert last["max_tokens"] == 4096


@pytest.mark.asyncio
async def test_without_structured_output_the_schema_is_in_the_prompt() -> None:
    with ScriptedLlm(refusing(["response_format"], GOOD)) as llm:
        got = await agent(llm.base_url, SPACE).propose(history(SPACE), 4, ())
    assert '"additionalProperties":false' in llm.prompts[-1]
    assert '"additionalProperties":false' in got.exchanges[0].prompt


@pytest.mark.asyncio
async def test_a_server_without_the_route_for_schemas_is_asked_in_plain_text() -> None:
    def script(request: dict[str, Any], number: int) -> Status | Mapping[str, Any]:
        return Status(404, "Not Found") if "response_format" in request else GOOD

    with ScriptedLlm(script) as llm:
        got = await agent(llm.base_url, SPACE).propose(history(SPACE), 4, ())
    assert got.proposals
    assert len(llm.requests) == 3


@pytest.mark.asyncio
async def test_no_call_is_made_beyond_the_token_budget() -> None:
    with ScriptedLlm(then=GOOD) as llm:
        got = await agent(llm.base_url, SPACE, tokens=lambda: 4200).propose(history(SPACE), 4, ())
        assert llm.requests == []
        enough = await agent(llm.base_url, SPACE, tokens=lambda: 40_000).propose(history(SPACE), 4, ())
    assert got.proposals == ()
    (exchange,) = got.exchanges
    assert exchange.error.startswith("proposer budget exhausted: 4200 tokens left, the call may need ")
    assert (exchange.prompt_tokens, exchange.completion_tokens) == (0, 0)
    assert enough.proposals


@pytest.mark.asyncio
async def test_what_a_timed_out_attempt_used_counts_before_the_next() -> None:
    with ScriptedLlm([Late(20, GOOD)], then=GOOD) as llm:
        unasked = await agent(llm.base_url, SPACE, tokens=lambda: 0).propose(history(SPACE), 4, ())
        need = int(unasked.exchanges[0].error.split()[-1])
        proposer = agent(llm.base_url, SPACE, tokens=lambda: need + 100, timeout_s=0.3)
        got = await proposer.propose(history(SPACE), 4, ())
    assert len(llm.requests) == 1
    assert "proposer budget exhausted" in got.exchanges[0].error
    assert got.exchanges[0].prompt_tokens > 0


@pytest.mark.asyncio
async def test_a_budget_that_cannot_be_asked_is_an_error_not_a_crash() -> None:
    def broken() -> int:
        raise RuntimeError("the ledger is away")

    with ScriptedLlm(then=GOOD) as llm:
        got = await agent(llm.base_url, SPACE, tokens=broken).propose(history(SPACE), 4, ())
    assert "the ledger is away" in got.exchanges[0].error
    assert llm.requests == []


@pytest.mark.asyncio
async def test_the_same_request_is_asked_once_and_costs_nothing_again() -> None:
    with ScriptedLlm(then=GOOD) as llm:
        proposer = agent(llm.base_url, SPACE)
        first = await proposer.propose(history(SPACE), 4, ())
        again = await proposer.propose(history(SPACE), 4, ())
        other = await proposer.propose(history(SPACE), 3, ())
    assert len(llm.requests) == 2
    assert again.proposals == first.proposals == other.proposals
    assert again.exchanges[0] == replace(
        first.exchanges[0], prompt_tokens=0, completion_tokens=0, seconds=0.0, recalled=True
    )


@pytest.mark.asyncio
async def test_a_failed_request_is_not_remembered() -> None:
    with ScriptedLlm(["nonsense", GOOD]) as llm:
        proposer = agent(llm.base_url, SPACE)
        assert not (await proposer.propose(history(SPACE), 4, ())).proposals
        assert (await proposer.propose(history(SPACE), 4, ())).proposals


@pytest.mark.asyncio
async def test_the_key_is_sent_to_the_server_and_written_nowhere() -> None:
    steps: list[Step] = [Status(400, f"bad key {KEY} for seed"), f"the key is {KEY}"]
    with ScriptedLlm(steps) as llm:
        proposer = agent(llm.base_url, SPACE, task=f"my key is {KEY}")
        got = await proposer.propose(history(SPACE), 4, ())
    assert llm.authorizations == [f"Bearer {KEY}"] * 2
    assert KEY not in repr(got)
    assert KEY not in repr(proposer)


@pytest.mark.asyncio
async def test_text_that_sql_cannot_hold_is_replaced() -> None:
    with ScriptedLlm(
        [Content('{"guidelines": [{"insight": 1, "stage": null, "text": "a\\u0000b\\ud800"}]}\x00')]
    ) as llm:
        got = await agent(llm.base_url, SPACE).reflect(history(SPACE))
    assert got.guidelines[0].text == "a�b�"
    assert "\x00" not in got.exchanges[0].reply


def test_a_proposer_outlives_its_event_loop() -> None:
    with ScriptedLlm(then=GOOD) as llm:
        proposer = agent(llm.base_url, SPACE)
        for trials in (5, 6):
            assert asyncio.run(proposer.propose(history(SPACE, trials), 4, ())).proposals
        asyncio.run(proposer.close())
