"""The engine's HTTP server through the openai client and through plain HTTP."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
from openai import AuthenticationError, BadRequestError, NotFoundError, OpenAI

from env.engine import create_engine_app, serve
from env.engine.engine import Engine
from env.errors import BackendError
from tests.env.engine.live import running

ASK: dict[str, Any] = {
    "model": "tiny",
    "messages": [{"role": "user", "content": "w1 w2"}],
    "max_tokens": 12,
    "seed": 3,
}


@pytest.fixture(scope="module")
def url(tiny_engine: Engine, verifier: Path) -> Iterator[str]:
    judge = Engine(verifier, "cpu")
    with running(create_engine_app({"tiny": tiny_engine, "judge": judge})) as base:
        yield base
    judge.close()


@pytest.fixture(scope="module")
def client(url: str) -> Iterator[OpenAI]:
    with OpenAI(base_url=url + "/v1", api_key="none", max_retries=0) as opened:
        yield opened


def test_lists_its_models(client: OpenAI, url: str) -> None:
    assert [model.id for model in client.models.list()] == ["tiny", "judge"]
    assert httpx.get(url + "/health").status_code == 200


def test_same_seed_gives_the_same_reply_and_choice_j_is_seed_plus_j(client: OpenAI) -> None:
    many = client.chat.completions.create(**ASK, n=4)
    again = client.chat.completions.create(**ASK, n=4)
    third = client.chat.completions.create(**ASK | {"seed": 5})
    texts = [choice.message.content for choice in many.choices]
    assert texts == [choice.message.content for choice in again.choices]
    assert third.choices[0].message.content == texts[2]
    assert len(set(texts)) == 4


def test_without_a_seed_replies_differ(client: OpenAI) -> None:
    ask = {name: value for name, value in ASK.items() if name != "seed"}
    assert len({client.chat.completions.create(**ask).choices[0].message.content for _ in range(4)}) > 1


def test_usage_counts_the_prompt_once_and_every_choice(client: OpenAI) -> None:
    reply = client.chat.completions.create(**ASK, n=3, logprobs=True)
    listed = [choice.logprobs.content for choice in reply.choices if choice.logprobs and choice.logprobs.content]
    assert reply.usage is not None
    assert reply.usage.completion_tokens == sum(map(len, listed))
    assert reply.usage.prompt_tokens == 6
    assert all(token.logprob <= 0 for tokens in listed for token in tokens)


PARTIAL = [{"role": "user", "content": "w1 w2"}, {"role": "assistant", "content": "w3 w4"}]
CONTINUE = {"continue_final_message": True, "add_generation_prompt": False}


@pytest.mark.parametrize(
    "extra",
    [
        {},
        {"stop": ["7", "w5 "]},
        {"stop": ["7", "w5 "], "n": 4, "extra_body": {"include_stop_str_in_output": True}},
        {"n": 3},
        {"n": 2, "temperature": 0},
        {"messages": PARTIAL, "n": 2, "stop": [" w7"], "extra_body": CONTINUE},
    ],
)
def test_a_stream_adds_up_to_the_whole_reply(client: OpenAI, extra: dict[str, Any]) -> None:
    ask = ASK | {"max_tokens": 40, "logprobs": True} | extra
    whole = client.chat.completions.create(**ask)
    chunks = list(client.chat.completions.create(**ask, stream=True, stream_options={"include_usage": True}))
    for choice in whole.choices:
        mine = [c for chunk in chunks for c in chunk.choices if c.index == choice.index]
        assert "".join(c.delta.content or "" for c in mine) == choice.message.content
        assert mine[0].delta.role == "assistant"
        assert [c.finish_reason for c in mine if c.finish_reason] == [choice.finish_reason]
        [streamed] = [c.logprobs.content for c in mine if c.logprobs]
        assert streamed is not None
        assert choice.logprobs is not None
        listed = [token.model_dump(exclude={"logprob"}) for token in choice.logprobs.content or []]
        assert [token.model_dump(exclude={"logprob"}) for token in streamed] == listed
        values = [token.logprob for token in choice.logprobs.content or []]
        assert [token.logprob for token in streamed] == pytest.approx(values, abs=1e-4)
    assert chunks[-1].usage == whole.usage


def test_stop_reasons_name_the_string_that_ended_a_choice(client: OpenAI) -> None:
    ask = ASK | {"n": 16, "max_tokens": 40, "stop": ["7", "w5"]}
    kept = client.chat.completions.create(**ask, extra_body={"include_stop_str_in_output": True})
    plain = client.chat.completions.create(**ask)
    ended = 0
    for one, other in zip(kept.choices, plain.choices, strict=True):
        reason = (one.model_extra or {})["stop_reason"]
        assert one.message.content == (other.message.content or "") + (reason or "")
        assert reason is None or one.finish_reason == "stop"
        ended += reason is not None
    assert ended


def test_without_being_told_to_continue_a_last_answer_is_closed_as_vllm_does(client: OpenAI) -> None:
    ask = ASK | {"messages": PARTIAL, "temperature": 0}
    closed, opened = client.chat.completions.create(**ask), client.chat.completions.create(**ask, extra_body=CONTINUE)
    assert closed.usage is not None
    assert opened.usage is not None
    assert closed.usage.prompt_tokens == opened.usage.prompt_tokens + 2  # its end and the new turn's beginning
    assert closed.choices[0].message.content != opened.choices[0].message.content


@pytest.mark.parametrize(
    ("messages", "fields"),
    [
        (PARTIAL, {"continue_final_message": True}),
        (PARTIAL, {"continue_final_message": True, "add_generation_prompt": True}),
        (PARTIAL[:1], CONTINUE),
    ],
)
def test_contradictory_endings_are_a_400(client: OpenAI, messages: Any, fields: dict[str, bool]) -> None:
    with pytest.raises(BadRequestError, match="continue_final_message"):
        client.chat.completions.create(**ASK | {"messages": messages}, extra_body=fields)


def test_text_completions_take_texts_and_token_ids(client: OpenAI) -> None:
    one = client.completions.create(model="tiny", prompt="w1 w2", max_tokens=5, seed=1)
    ids = client.completions.create(model="tiny", prompt=[9, 10], max_tokens=5, seed=1, logprobs=1)
    many = client.completions.create(model="tiny", prompt=["w1 w2", "w3"], max_tokens=5, seed=1, n=2)
    assert one.choices[0].text == ids.choices[0].text == many.choices[0].text
    assert ids.choices[0].logprobs is not None
    assert [choice.index for choice in many.choices] == [0, 1, 2, 3]


def test_text_completions_stream(client: OpenAI) -> None:
    ask: dict[str, Any] = {"model": "tiny", "prompt": "w1 w2", "max_tokens": 20, "seed": 1}
    pieces = client.completions.create(**ask, stream=True)
    assert "".join(p.choices[0].text for p in pieces) == client.completions.create(**ask).choices[0].text


@pytest.mark.parametrize(
    ("extra", "word"),
    [
        ({"temperature": -1}, "temperature"),
        ({"top_p": 0}, "top_p"),
        ({"n": 0}, "n:"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"stop": ""}, "stop"),
        ({"messages": []}, "messages"),
        ({"tools": [{"type": "function"}]}, "tools"),
        ({"presence_penalty": 1.0}, "presence_penalty"),
        ({"messages": [{"role": "user", "content": "w1 " * 300}]}, "context"),
        ({"model": "judge"}, "verifier"),
    ],
)
def test_bad_parameters_are_a_400_that_names_them(client: OpenAI, extra: dict[str, Any], word: str) -> None:
    with pytest.raises(BadRequestError) as caught:
        client.chat.completions.create(**ASK | extra)
    assert word in caught.value.message
    assert isinstance(caught.value.body, dict)
    assert caught.value.body["type"] == "invalid_request_error"


def test_bodies_that_are_no_json_and_unknown_paths_have_the_same_error_shape(url: str) -> None:
    for reply in (httpx.post(url + "/v1/chat/completions", content=b"{"), httpx.get(url + "/v2")):
        assert reply.status_code in (400, 404)
        assert set(reply.json()["error"]) == {"message", "type", "param", "code"}


def test_an_unknown_model_is_a_404(client: OpenAI) -> None:
    with pytest.raises(NotFoundError, match="served here: tiny, judge"):
        client.chat.completions.create(**ASK | {"model": "huge"})


def test_requests_at_once_are_all_answered_as_if_alone(client: OpenAI) -> None:
    def ask(number: int) -> str | None:
        return client.chat.completions.create(**ASK | {"seed": number}).choices[0].message.content

    with ThreadPoolExecutor(16) as threads:
        together = list(threads.map(ask, range(40)))
    assert together == [ask(number) for number in range(40)]


def test_classify_scores_texts_and_conversations(url: str) -> None:
    texts = httpx.post(url + "/classify", json={"model": "judge", "input": ["w1", "w2 w3"]}).json()
    assert [entry["num_classes"] for entry in texts["data"]] == [1, 1]
    assert all(0 <= entry["probs"][0] <= 1 for entry in texts["data"])
    chat = [{"role": "user", "content": "w1"}, {"role": "assistant", "content": "w2"}]
    assert httpx.post(url + "/classify", json={"model": "judge", "messages": chat}).status_code == 200
    assert httpx.post(url + "/classify", json={"model": "judge"}).status_code == 400
    raw = httpx.post(url + "/classify", json={"model": "judge", "messages": chat, "use_activation": False})
    assert (raw.status_code, "use_activation" in raw.text) == (400, True)
    assert httpx.post(url + "/classify", json={"model": "tiny", "input": "w1"}).status_code == 400


def test_pooling_gives_the_scores_of_classify_for_texts_token_ids_and_conversations(url: str) -> None:
    chat = [{"role": "user", "content": "w1"}, {"role": "assistant", "content": "w2"}]
    for asked in (
        {"input": "w1"},
        {"input": ["w1", "w2 w3"]},
        {"input": [1]},
        {"input": [[1, 2], [3]]},
        {"messages": chat},
    ):
        body = {"model": "judge", **asked}
        classes = httpx.post(url + "/classify", json=body).json()
        pools = httpx.post(url + "/pooling", json=body).json()
        assert [entry["data"] for entry in pools["data"]] == [entry["probs"] for entry in classes["data"]]
        assert pools["usage"]["prompt_tokens"] == classes["usage"]["prompt_tokens"] > 0
    for asked in ({"input": [10**6]}, {"input": []}, {"input": "w1", "task": "token_classify"}):
        assert httpx.post(url + "/pooling", json={"model": "judge", **asked}).status_code == 400
    assert httpx.post(url + "/pooling", json={"model": "tiny", "input": [1]}).status_code == 400


def test_a_key_guards_everything_but_health(tiny_engine: Engine) -> None:
    with running(create_engine_app({"tiny": tiny_engine}, api_key="s3cret")) as base:
        assert httpx.get(base + "/health").status_code == 200
        with pytest.raises(AuthenticationError):
            OpenAI(base_url=base + "/v1", api_key="wrong", max_retries=0).models.list()
        assert OpenAI(base_url=base + "/v1", api_key="s3cret").chat.completions.create(**ASK).choices


def test_serving_beyond_loopback_needs_a_key(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("APPORTION_ENGINE_API_KEY", raising=False)
    with pytest.raises(BackendError, match="needs a token"):
        serve({"tiny": tiny}, host="0.0.0.0")
