"""The plan endpoint as clients meet it: the openai client unchanged, over HTTP, on real models."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from typing import Any

import openai
import pytest
from openai import AsyncOpenAI, OpenAI

from tests.api.service import Service, ended, submit, tiny_spec, until

EXTENSION = "apportion"


def single_spec(**changes: Any) -> dict[str, Any]:
    """A study whose only stage draws once and whose answer is its whole text."""
    spec = tiny_spec(name="single", **changes)
    stage = spec["pipeline"]["stages"][0]
    stage |= {"parser": {"kind": "text"}, "samples": {"min": 1, "max": 1}, "max_tokens": 48, "models": ["tiny"]}
    spec["pipeline"]["stages"] = [stage]
    spec["data"] |= {"search": 2, "test": 2}
    spec["budget"]["search"]["trials"] = 1
    return spec


@pytest.fixture(scope="module")
def single(service: Service) -> str:
    study = ended(service, submit(service, single_spec()))
    assert study["status"] == "done", study["error"]
    return str(study["id"])


@pytest.fixture(scope="module")
def client(service: Service) -> Iterator[OpenAI]:
    with OpenAI(base_url=f"{service.url}/v1", api_key="unused", max_retries=0) as opened:
        yield opened


def ask(client: OpenAI, model: str, text: str = "w1 w2", **more: Any) -> Any:
    return client.chat.completions.create(model=model, messages=[{"role": "user", "content": text}], **more)


def extension(reply: Any) -> dict[str, Any]:
    return dict(reply.model_extra[EXTENSION])


def test_a_plan_answers_with_its_stages_their_tokens_and_cost(client: OpenAI, service: Service, finished: str) -> None:
    plan = service.http.get(f"/api/v1/studies/{finished}/plan").json()
    reply = ask(client, f"plan:{finished}")
    more = extension(reply)
    assert [s["stage"] for s in more["stages"]] == ["find", "solve"]
    for stage in more["stages"]:
        setting = plan["allocation"][stage["stage"]]
        assert {k: stage[k] for k in ("model", "strategy", "samples")} == setting
        assert stage["draws"] == setting["samples"]
    assert reply.usage.prompt_tokens == sum(s["prompt_tokens"] for s in more["stages"]) > 0
    assert reply.usage.completion_tokens == sum(s["completion_tokens"] for s in more["stages"]) > 0
    assert more["cost"] == pytest.approx(sum(s["cost"] for s in more["stages"]))
    assert more["predicted_cost"] == pytest.approx(plan["predicted_cost"])
    assert reply.choices[0].message.content == more["answer"]
    assert more["changed_models"] == []


def test_a_seed_makes_an_answer_repeatable_and_none_draws_anew(client: OpenAI, single: str) -> None:
    first, again = (ask(client, f"plan:{single}", seed=7).choices[0].message.content for _ in range(2))
    assert first == again
    others = {ask(client, f"plan:{single}").choices[0].message.content for _ in range(4)}
    assert len(others) == 4


def test_an_answer_costs_no_draw_of_the_archive(client: OpenAI, service: Service, single: str) -> None:
    from planner.archive.upkeep import Upkeep

    upkeep, policy = Upkeep(service.runtime.archive.engine), service.runtime.archive.bank.text_policy
    before = upkeep.stats(policy).draws
    ask(client, f"plan:{single}")
    assert upkeep.stats(policy).draws == before


def test_a_stream_grows_token_by_token_and_is_the_same_answer(client: OpenAI, single: str) -> None:
    whole = ask(client, f"plan:{single}", seed=3)
    pieces: list[str] = []
    usage = last = None
    for chunk in ask(client, f"plan:{single}", seed=3, stream=True, stream_options={"include_usage": True}):
        usage = chunk.usage or usage
        for choice in chunk.choices:
            pieces += [choice.delta.content] if choice.delta.content else []
            last = chunk if choice.finish_reason else last
    assert len(pieces) > 2
    assert "".join(pieces) == whole.choices[0].message.content
    assert usage == whole.usage
    assert last is not None
    assert last.choices[0].finish_reason == whole.choices[0].finish_reason
    assert extension(last)["stages"][0]["draws"] == 1


def test_a_stream_of_several_samples_says_the_chosen_answer(client: OpenAI, finished: str) -> None:
    whole = ask(client, f"plan:{finished}", seed=5).choices[0]
    chunks = list(ask(client, f"plan:{finished}", seed=5, stream=True))
    text = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
    assert text == (whole.message.content or "")
    assert chunks[-1].choices[0].finish_reason == whole.finish_reason


def test_the_async_client_is_answered_side_by_side(service: Service, single: str) -> None:
    async def together() -> list[str | None]:
        async with AsyncOpenAI(base_url=f"{service.url}/v1", api_key="unused") as opened:
            replies = await asyncio.gather(
                *(
                    opened.chat.completions.create(
                        model=f"plan:{single}", messages=[{"role": "user", "content": f"w{n}"}], seed=1
                    )
                    for n in range(8)
                )
            )
            return [reply.choices[0].message.content for reply in replies]

    assert len(set(asyncio.run(together()))) == 8


def test_a_stage_alone_takes_the_clients_own_prompt(client: OpenAI, finished: str) -> None:
    reply = ask(client, f"stage:{finished}/solve", "w9 w8 w7", seed=2)
    stage = extension(reply)["stages"][0]
    assert stage["draws"] == stage["samples"]
    # The reply as the model wrote it, so that the caller's own parser can read it.
    if stage["answer"] is not None:
        assert stage["answer"] == "w"
        assert reply.choices[0].message.content != "w"
    longer = ask(client, f"stage:{finished}/solve", "w9 w8 w7 w6 w5 w4", seed=2)
    assert longer.usage.prompt_tokens > reply.usage.prompt_tokens


def test_a_budget_picks_the_best_point_of_the_front_it_buys(client: OpenAI, service: Service, finished: str) -> None:
    front = service.http.get(f"/api/v1/studies/{finished}/plan").json()["pareto"]
    for point in front:
        reply = ask(client, f"plan:{finished}@{point['predicted_cost']:.6f}")
        more = extension(reply)
        assert more["trial"] == point["trial_no"]
        assert more["predicted_cost"] == pytest.approx(point["predicted_cost"])
    with pytest.raises(openai.BadRequestError, match="the cheapest costs"):
        ask(client, f"plan:{finished}@1")


def test_most_tokens_are_lowered_on_request_and_never_raised(client: OpenAI, single: str) -> None:
    short = ask(client, f"plan:{single}", max_tokens=3, seed=1)
    assert short.usage.completion_tokens <= 3
    assert short.choices[0].finish_reason == "length"
    assert ask(client, f"plan:{single}", max_tokens=100_000, seed=1).usage.completion_tokens <= 48


def test_a_cost_the_query_may_not_pass_is_kept(client: OpenAI, single: str) -> None:
    with pytest.raises(openai.BadRequestError) as refused:
        ask(client, f"plan:{single}", extra_body={"apportion": {"max_cost": 10.0}})
    assert refused.value.code == "budget_exceeded"


@pytest.mark.parametrize(
    ("given", "param"),
    [
        ({"n": 2}, "n"),
        ({"tools": [{"type": "function", "function": {"name": "f"}}]}, "tools"),
        ({"response_format": {"type": "json_object"}}, "response_format"),
        ({"logprobs": True}, "logprobs"),
        ({"presence_penalty": 0.5}, "presence_penalty"),
        ({"stop": [""]}, "stop"),
    ],
)
def test_what_a_plan_cannot_honour_is_refused_by_name(
    client: OpenAI, single: str, given: dict[str, Any], param: str
) -> None:
    with pytest.raises(openai.BadRequestError) as refused:
        ask(client, f"plan:{single}", **given)
    assert refused.value.param == param
    assert refused.value.type == "invalid_request_error"


def test_what_the_allocation_decides_is_ignored_and_named(client: OpenAI, single: str) -> None:
    reply = client.chat.completions.create(
        model=f"plan:{single}",
        messages=[{"role": "system", "content": "be brief"}, {"role": "user", "content": "w1"}],
        temperature=0.1,
        top_p=0.5,
    )
    assert extension(reply)["ignored"] == ["temperature", "top_p", "messages[0]"]


@pytest.mark.parametrize("model", ["gpt-4o", "plan:nothing", "plan:a b", "stage:nothing", "plan:x@y@z"])
def test_an_unknown_model_is_explained(client: OpenAI, model: str) -> None:
    with pytest.raises(openai.NotFoundError) as refused:
        ask(client, model)
    assert refused.value.code == "model_not_found"
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve(model)


def test_an_unknown_stage_is_told_which_there_are(client: OpenAI, finished: str) -> None:
    with pytest.raises(openai.NotFoundError, match="it has find, solve"):
        ask(client, f"stage:{finished}/guess")


def test_the_models_are_listed_and_each_can_be_looked_up(client: OpenAI, finished: str) -> None:
    listed = [model.id for model in client.models.list()]
    assert f"plan:{finished}" in listed
    assert f"stage:{finished}/solve" in listed
    found = client.models.retrieve(f"stage:{finished}/solve")
    assert found.owned_by == "apportion"
    assert set(found.model_extra[EXTENSION]["allocation"]) == {"find", "solve"}


def test_several_input_fields_come_as_json_or_beside_the_messages(client: OpenAI, service: Service) -> None:
    spec = single_spec()
    spec["name"] = "several"
    spec["pipeline"]["stages"][0]["prompt"][0]["template"] = "{{ context }} {{ question }}"
    for row in spec["data"]["rows"]:
        row["context"] = "w5"
    study = str(ended(service, submit(service, spec))["id"])
    fields = {"context": "w5 w6", "question": "w7"}
    as_json = ask(client, f"plan:{study}", json.dumps(fields), seed=1).choices[0].message.content
    beside = ask(client, f"plan:{study}", "ignored", seed=1, extra_body={"input": fields}).choices[0].message.content
    assert as_json == beside
    with pytest.raises(openai.BadRequestError, match="several input fields \\(context, question\\)"):
        ask(client, f"plan:{study}", "what is w5?")
    with pytest.raises(openai.BadRequestError, match="lacks context"):
        ask(client, f"plan:{study}", json.dumps({"question": "w7"}))


def test_a_client_that_leaves_frees_its_place_and_its_rows(service: Service, single: str) -> None:
    body = {"model": f"plan:{single}", "stream": True, "messages": [{"role": "user", "content": "w1"}]}
    desk = service.app.state.desk
    with service.http.stream("POST", "/v1/chat/completions", json=body) as reply:
        next(reply.iter_lines())
        assert desk.admission.running == 1
    until(lambda: desk.admission.running == 0)


def test_health_is_answered_while_plans_are(service: Service, single: str) -> None:
    async def busy() -> int:
        async with AsyncOpenAI(base_url=f"{service.url}/v1", api_key="unused") as opened:
            asked = [
                asyncio.create_task(
                    opened.chat.completions.create(
                        model=f"plan:{single}", messages=[{"role": "user", "content": f"w{n}"}]
                    )
                )
                for n in range(12)
            ]
            answered = 0
            while not all(task.done() for task in asked):
                await asyncio.to_thread(service.http.get, "/healthz")
                answered += 1
            await asyncio.gather(*asked)
            return answered

    # Were the web loop held up by the engine, health would be heard of again when all is over.
    assert asyncio.run(busy()) >= 4
