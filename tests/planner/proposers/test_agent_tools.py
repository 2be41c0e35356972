"""What the LLM may look up before it proposes, over real HTTP, with servers that know tools and servers that do not."""

from __future__ import annotations

import json
from typing import Any

import pytest

from env.spec.architecture import Price
from planner.bench.scripted import data_block
from planner.history import History
from planner.proposers import ToolCall
from planner.proposers.ablation import Ablation
from planner.proposers.agent.tools import MAX_RESULT_CHARS, Toolbox
from tests.planner.proposers.agent_cases import (
    GOOD,
    GOOD_ALLOCATION,
    GOOD_ITEM,
    agent,
    allocation,
    history,
    simulated_score,
    space,
)
from tests.scripted_llm import Content, Reply, ScriptedLlm, Status, prompt_text, refusing

SPACE = space()
PAST = history(SPACE, 30)
ONE = {"retrieve": {"model": "small", "strategy": "vote", "samples": 4}}
WHOLE = GOOD_ITEM["allocation"]


def called(name: str, **arguments: object) -> Content:
    return Content(None, "tool_calls", (500, 30), tool_calls=((name, json.dumps(arguments)),))


def answered(box: Toolbox, name: str, arguments: object) -> dict[str, Any]:
    text = arguments if isinstance(arguments, str) else json.dumps(arguments)
    read: dict[str, Any] = json.loads(data_block(box.answer(ToolCall("1", name, text)), "tool"))
    return read


# Each tool ----------------------------------------------------------------------------------------------------------


def test_the_cost_tool_adds_up_what_the_space_says() -> None:
    told = answered(Toolbox(SPACE, PAST, 5), "cost", {"allocations": [WHOLE]})
    (row,) = told["allocations"]
    assert row["cost"] == pytest.approx(SPACE.total(GOOD_ALLOCATION) / 1e12, rel=1e-4)
    assert row["budget_share"] == pytest.approx(SPACE.total(GOOD_ALLOCATION) / SPACE.limit, rel=1e-4)
    assert row["fits"] is True
    assert set(row["stages"]) == {"retrieve", "answer"}
    assert told["plan_budget"] == SPACE.limit / 1e12
    huge = {s: {"model": "large", "strategy": "vote", "samples": 16} for s in ("retrieve", "answer")}
    assert answered(Toolbox(SPACE, PAST, 5), "cost", {"allocations": [huge]})["allocations"][0]["fits"] is False


def test_the_forecast_tool_expects_of_a_trial_about_what_it_scored_and_is_less_sure_elsewhere() -> None:
    trial = PAST.trials[10]
    far = {s: {"model": "medium", "strategy": "best_of_n", "samples": 16} for s in ("retrieve", "answer")}
    told = answered(Toolbox(SPACE, PAST, 5), "forecast", {"allocations": [trial.allocation.to_json(), far]})
    known, unknown = told["allocations"]
    assert known["score"] == pytest.approx(simulated_score(trial.allocation), abs=0.03)
    assert known["measured_in_trial"] == trial.trial_no
    assert unknown["high"] - unknown["low"] > known["high"] - known["low"]
    assert known["low"] < known["score"] < known["high"]


def test_the_trials_tool_filters_sorts_and_shows_curves() -> None:
    box = Toolbox(SPACE, PAST, 9)
    best = answered(box, "trials", {"stage": "answer", "most_samples": 2, "limit": 3})
    wanted = [t for t in PAST.trials if t.allocation["answer"].samples <= 2]
    assert best["found"] == len(wanted)
    assert [r["score"] for r in best["trials"]] == sorted((r["score"] for r in best["trials"]), reverse=True)
    cheapest = answered(box, "trials", {"order": "cheapest", "limit": 1})["trials"][0]
    assert cheapest["no"] == min(PAST.trials, key=lambda t: (t.cost, -t.score)).trial_no
    assert answered(box, "trials", {"order": "latest", "limit": 1})["trials"][0]["no"] == 29
    curves = answered(box, "trials", {"curves_of": 20})["curves"]
    assert curves["answer"][0][0] == 1
    assert "error" in answered(Toolbox(SPACE, PAST, 9, Ablation(without_insight_2=True)), "trials", {"curves_of": 20})


@pytest.mark.parametrize(
    ("name", "arguments", "words"),
    [
        ("cost", "{not json", "Expecting"),
        ("cost", "[1]", "one JSON object"),
        ("cost", "{}", "allocations"),
        ("cost", {"allocations": []}, "at least 1"),
        ("cost", {"allocations": [WHOLE], "also": 1}, "also"),
        ("cost", {"allocations": [WHOLE] * 13}, "at most 12"),
        ("trials", {"limit": 0}, "limit"),
        ("trials", {"limit": "many"}, "limit"),
        ("trials", {"stage": "nowhere"}, "no stage"),
        ("trials", {"curves_of": 999}, "no trial 999"),
        ("shell", {}, "no tool 'shell'"),
        ("cost", "[" * 50_000, "recursion"),
    ],
)
def test_a_wrong_call_is_told_what_is_wrong(name: str, arguments: object, words: str) -> None:
    assert words in answered(Toolbox(SPACE, PAST, 5), name, arguments)["error"]


def test_an_allocation_that_is_none_is_told_beside_those_that_are() -> None:
    for name in ("cost", "forecast"):
        told = answered(Toolbox(SPACE, PAST, 5), name, {"allocations": [ONE, WHOLE, {"retrieve": 3}]})
        assert ["error" in row for row in told["allocations"]] == [True, False, True]


def test_answers_are_bounded_and_so_are_calls() -> None:
    box = Toolbox(SPACE, history(SPACE, 400), 2)
    assert len(box.answer(ToolCall("1", "trials", '{"limit": 20}'))) <= MAX_RESULT_CHARS + 100
    box.answer(ToolCall("2", "trials", "{}"))
    assert "no calls are left" in box.answer(ToolCall("3", "trials", "{}"))


def test_before_the_first_trial_only_costs_are_offered() -> None:
    assert [t.name for t in Toolbox(SPACE, History(0, ()), 5).tools] == ["cost"]


# In a conversation --------------------------------------------------------------------------------------------------


@pytest.mark.asyncio
async def test_the_llm_looks_up_and_then_proposes_and_every_request_is_counted() -> None:
    with ScriptedLlm([called("cost", allocations=[WHOLE]), called("trials"), Content(json.dumps(GOOD))]) as llm:
        got = await agent(llm.base_url, SPACE, price=Price(input=2.0, output=8.0)).propose(PAST, 4, ())
    assert [p.allocation for p in got.proposals] == [GOOD_ALLOCATION]
    assert [(e.prompt_tokens, e.completion_tokens) for e in got.exchanges] == [(500, 30), (500, 30), (100, 20)]
    assert [e.error for e in got.exchanges] == ["", "", ""]
    assert got.exchanges[0].tool_calls[0].name == "cost"
    assert got.exchanges[0].dollars == pytest.approx((500 * 2 + 30 * 8) / 1e6)
    assert {f["function"]["name"] for f in llm.requests[0]["tools"]} == {"cost", "forecast", "trials"}
    assert llm.requests[0]["tool_choice"] == "auto"
    last = llm.requests[-1]["messages"]
    assert [m["role"] for m in last] == ["system", "user", "assistant", "tool", "assistant", "tool"]
    assert last[3]["tool_call_id"] == last[2]["tool_calls"][0]["id"]
    assert '"fits":true' in last[3]["content"]
    # What was asked and answered is in the exchanges, word for word and once.
    assert '"fits":true' in got.exchanges[1].prompt
    assert len(got.exchanges[1].prompt) < len(got.exchanges[0].prompt) / 2


@pytest.mark.asyncio
async def test_an_llm_that_only_looks_up_is_made_to_answer() -> None:
    def script(request: dict[str, Any], number: int) -> Reply:
        return GOOD if request.get("tool_choice") == "none" else called("trials")

    with ScriptedLlm(script) as llm:
        got = await agent(llm.base_url, SPACE, max_tool_calls=3).propose(PAST, 4, ())
    assert [p.allocation for p in got.proposals] == [GOOD_ALLOCATION]
    assert [r["tool_choice"] for r in llm.requests] == ["auto", "auto", "auto", "none"]


@pytest.mark.asyncio
async def test_an_llm_that_never_answers_is_given_up() -> None:
    with ScriptedLlm(then=called("trials")) as llm:
        got = await agent(llm.base_url, SPACE, max_tool_calls=2).propose(PAST, 4, ())
        assert len(llm.requests) == 3
    assert got.proposals == ()
    assert got.exchanges[-1].error == "tools instead of an answer"


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("refusal", "status"),
    [
        ('"auto" tool choice requires --enable-auto-tool-choice and --tool-call-parser to be set', 400),
        ("registry.ollama.ai/library/gemma does not support tools", 400),
        ("json mode cannot be combined with tool/function calling", 400),
        ("tools param requires --jinja flag", 500),
        ("No endpoints found that support tool use", 404),
    ],
)
async def test_a_server_without_tools_is_asked_without_and_keeps_its_reply_format(refusal: str, status: int) -> None:
    def script(request: dict[str, Any], number: int) -> Reply:
        return Status(status, refusal) if "tools" in request else GOOD

    with ScriptedLlm(script) as llm:
        proposer = agent(llm.base_url, SPACE)
        got = await proposer.propose(PAST, 4, ())
        await proposer.propose(PAST, 3, ())
    assert [p.allocation for p in got.proposals] == [GOOD_ALLOCATION]
    assert ["tools" in r for r in llm.requests] == [True, False, False]
    assert llm.requests[-1]["response_format"]["type"] == "json_schema"
    assert ["you may use tools, 6 calls" in p for p in llm.prompts] == [True, False, False]


@pytest.mark.asyncio
async def test_tools_can_be_switched_off_and_guidelines_have_none() -> None:
    with ScriptedLlm(then=GOOD) as llm:
        await agent(llm.base_url, SPACE, tools=False).propose(PAST, 4, ())
        await agent(llm.base_url, SPACE).reflect(PAST)
    assert all("tools" not in r for r in llm.requests)
    assert "you may use tools" not in llm.prompts[0]


@pytest.mark.asyncio
async def test_the_whole_conversation_stays_within_the_prompt_limit() -> None:
    wide = space(stages=4, limit=4e13)
    past = history(wide, 1500)

    def script(request: dict[str, Any], number: int) -> Reply:
        return GOOD if request.get("tool_choice") == "none" else called("trials", limit=20)

    with ScriptedLlm(script) as llm:
        await agent(llm.base_url, wide, max_prompt_chars=40_000).propose(past, 4, ())
    assert len(llm.requests) > 3
    assert max(len(prompt_text(r)) for r in llm.requests) <= 40_000


# Thinking models ----------------------------------------------------------------------------------------------------


@pytest.mark.asyncio
async def test_an_llm_that_thinks_up_to_the_limit_is_given_more_room_and_remembered() -> None:
    starved = Content("", "length", (100, 4096), reasoning=4096)
    good = Content(json.dumps(GOOD), usage=(100, 6000), reasoning=5000, cached=64)
    with ScriptedLlm([starved], then=good) as llm:
        proposer = agent(llm.base_url, SPACE, reasoning_effort="high", price=Price(input=1, output=4, cached_input=0.5))
        got = await proposer.propose(PAST, 4, ())
        await proposer.propose(PAST, 3, ())
    assert [p.allocation for p in got.proposals] == [GOOD_ALLOCATION]
    assert [r["max_completion_tokens"] for r in llm.requests] == [4096, 16384, 16384]
    assert all(r["reasoning_effort"] == "high" for r in llm.requests)
    (exchange,) = got.exchanges
    assert (exchange.completion_tokens, exchange.reasoning_tokens, exchange.cached_tokens) == (10096, 9096, 64)
    assert exchange.dollars == pytest.approx((100 * 1 + (36 * 1 + 64 * 0.5) + 10096 * 4) / 1e6)


@pytest.mark.asyncio
async def test_a_server_that_knows_no_system_role_or_effort_is_asked_without() -> None:
    def script(request: dict[str, Any], number: int) -> Reply:
        if request["messages"][0]["role"] == "system":
            return Status(400, "Unsupported value: 'messages[0].role' does not support 'system' with this model.")
        return GOOD

    with ScriptedLlm(refusing(["reasoning_effort"], script)) as llm:
        got = await agent(llm.base_url, SPACE, reasoning_effort="low").propose(PAST, 4, ())
    assert [p.allocation for p in got.proposals] == [GOOD_ALLOCATION]
    assert [m["role"] for m in llm.requests[-1]["messages"]] == ["user"]
    assert "You plan how a multi-stage LLM pipeline" in llm.prompts[-1]


@pytest.mark.asyncio
async def test_knobs_of_a_proposal_are_read() -> None:
    item = {"allocation": {"retrieve": {**ONE["retrieve"], "knobs": {"documents": 4, "order": None}}, "answer": {}}}
    item["allocation"]["answer"] = {"model": "medium", "strategy": "vote", "samples": 2}
    with ScriptedLlm(then={"proposals": [item]}) as llm:
        got = await agent(llm.base_url, SPACE).propose(PAST, 4, ())
    read = got.proposals[0].allocation
    assert read is not None
    assert read["retrieve"].knobs == (("documents", 4),)
    assert read["answer"] == allocation(answer=("medium", "vote", 2))["answer"]
