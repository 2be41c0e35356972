"""Servers differ: text completions, reasoning models, continued answers, kept stop strings, verifiers."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from starlette.responses import JSONResponse

from env.backends import DrawRequest, Message, OpenAIBackend, Sampling, ScoreRequest, Settled
from env.backends.openai_dialect import Dialect, plain_prompt
from env.backends.openai_score import score_of
from env.engine import create_engine_app
from env.engine.sharing import lease_engine
from env.errors import BackendError
from tests.env.backends.asking import ask, failed, judge, settled
from tests.env.backends.scripted import Script, classified, completion, paired, pooled, raw, status, text_completion
from tests.env.engine.checkpoints import write_checkpoint
from tests.env.engine.live import running

COMPLETIONS = Dialect(api="completions")
CLASSIFY = Dialect(api="classify")
PARTIAL = DrawRequest((Message("user", "hi"), Message("assistant", "so far")), Sampling(), (0, 1))


def refusing(*fields: str, unless: dict[str, Any] | None = None) -> Any:
    """A server that does not know some fields, except for some harmless values."""

    def answer(body: dict[str, Any]) -> Any:
        for name in fields:
            if name in body and body[name] != (unless or {}).get(name):
                return status(400, f"Unsupported value: '{name}' does not support {body[name]}.", parameter=name)(body)
        return completion(body, logprobs="logprobs" in body)

    return answer


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


# Verifiers -----------------------------------------------------------------------------------------------------------


@pytest.mark.asyncio
async def test_a_verifier_is_asked_beside_v1_about_the_whole_conversation() -> None:
    script = Script(classified(0.75))
    [one] = await settled(script, judge("42"), dialect=CLASSIFY)
    [draw] = one.draws
    assert script.paths == ["/classify"]
    assert script.asked[0]["messages"][-1] == {"role": "assistant", "content": "42"}
    assert "continue_final_message" not in script.asked[0]
    assert (draw.score, draw.prompt_tokens, draw.output_tokens, draw.finish_reason) == (0.75, 9, 0, "score")


@pytest.mark.asyncio
async def test_a_partial_answer_is_judged_as_such() -> None:
    script = Script(classified(0.75))
    await settled(script, judge("4", partial=True), dialect=CLASSIFY)
    assert script.asked[0]["continue_final_message"] is True
    assert script.asked[0]["add_generation_prompt"] is False


@pytest.mark.asyncio
async def test_a_server_with_its_verifiers_below_v1_is_found() -> None:
    script = Script(classified(0.75), paths=["/v1/classify"])
    await settled(script, judge(), judge("two"), dialect=CLASSIFY, concurrency=1)
    assert script.paths == ["/v1/classify"] * 2


@pytest.mark.asyncio
async def test_the_last_step_of_a_process_reward_model_counts() -> None:
    steps = Script(pooled([[-1.0, 1.0], [2.0, 0.0]]))
    [one] = await settled(steps, judge(), dialect=Dialect("pooling", label=1, scores="logit"))
    assert one.draws[0].score == pytest.approx(1 / (1 + math.exp(2)))
    assert steps.asked[0]["use_activation"] is False
    [two] = await settled(Script(pooled([0.5])), judge(), dialect=Dialect("pooling", scores="logit"))
    assert two.draws[0].score == pytest.approx(1 / (1 + math.exp(-0.5)))


@pytest.mark.asyncio
@pytest.mark.parametrize(("rewards", "task"), [("outcome", "classify"), ("process", "token_classify")])
async def test_a_reward_model_is_asked_for_the_task_that_fits_it(rewards: Any, task: str) -> None:
    script = Script(pooled([0.25]))
    [one] = await settled(script, judge("42"), dialect=Dialect("reward", rewards=rewards))
    assert script.paths == ["/pooling"]
    assert script.asked[0]["task"] == task
    assert script.asked[0]["messages"][-1]["content"] == "42"
    assert (one.draws[0].score, one.draws[0].prompt_tokens) == (0.25, 9)


@pytest.mark.asyncio
@pytest.mark.parametrize(("steps", "score"), [("last", 0.5), ("min", 0.2), ("mean", 0.5), ("product", 0.08)])
async def test_scores_of_steps_make_one_as_the_model_says(steps: Any, score: float) -> None:
    rows = pooled([[0.2, 0.8], [0.8, 0.2], [0.5, 0.5]])
    dialect = Dialect("reward", label=0, steps=steps)
    [one] = await settled(Script(rows), judge(), dialect=dialect)
    assert one.draws[0].score == pytest.approx(score)


@pytest.mark.asyncio
async def test_a_reply_without_a_step_says_what_a_process_reward_model_needs() -> None:
    [one] = await failed(Script(pooled([])), judge(), dialect=Dialect("reward"), max_retries=0)
    assert "step_end" in one.reason


@pytest.mark.asyncio
@pytest.mark.parametrize("wire", [0.75, [0.75]])
async def test_a_cross_encoder_reads_what_was_asked_and_the_reply(wire: object) -> None:
    script = Script(paired(wire))
    [one] = await settled(script, judge("42"), dialect=Dialect("score"))
    assert script.paths == ["/score"]
    assert script.asked == [{"model": "m", "use_activation": True, "queries": "hi", "documents": "42"}]
    assert (one.draws[0].score, one.draws[0].prompt_tokens, one.draws[0].finish_reason) == (0.75, 9, "score")
    logits = Script(paired(0.0))
    [two] = await settled(logits, judge("42"), dialect=Dialect("score", scores="logit"))
    assert logits.asked[0]["use_activation"] is False
    assert two.draws[0].score == 0.5


@pytest.mark.asyncio
async def test_an_older_server_is_asked_by_its_own_names_from_then_on() -> None:
    script = Script(status(400, "text_1: field required; text_2: field required"), paired(0.5))
    await settled(script, judge("one"), judge("two"), dialect=Dialect("score"), concurrency=1)
    assert [sorted(body) for body in script.asked[1:]] == [["model", "text_1", "text_2", "use_activation"]] * 2


@pytest.mark.asyncio
async def test_a_cross_encoder_is_asked_no_partial_answers() -> None:
    script = Script(paired(0.5))
    [one] = await failed(script, judge("4", partial=True), dialect=Dialect("score"))
    assert "cut off" in one.reason
    nothing = ScoreRequest((Message("assistant", "42"),))
    [two] = await failed(script, nothing, dialect=Dialect("score"))
    assert "nothing was asked" in two.reason
    assert script.asked == []


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("answer", "word"),
    [
        (paired(3.5), "scores: logit"),
        (paired([]), "finite numbers"),
        (raw('{"data": []}'), "no score"),
        (raw("{}"), "reply of /score"),
        (status(400, "The model does not support Score API"), "does not support"),
    ],
)
async def test_what_is_no_score_of_a_pair_fails_with_the_reason(answer: Any, word: str) -> None:
    [one] = await failed(Script(answer), judge(), dialect=Dialect("score"))
    assert word in one.reason


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("answer", "word"),
    [
        (classified(3.5), "scores: logit"),
        (classified(0.2, 0.8), "label on the model"),
        (classified(0.5, tokens=None), "missing_usage"),
        (raw("{}"), "classification"),
        (raw('{"data": []}'), "no classification"),
        (classified(), "finite numbers"),
        (status(400, "this model does not support the classify task"), "does not support"),
    ],
)
async def test_numbers_that_are_no_score_fail_with_what_to_do(answer: Any, word: str) -> None:
    [one] = await failed(Script(answer), judge(), dialect=CLASSIFY)
    assert word in one.reason


@pytest.mark.parametrize(
    ("numbers", "top", "dialect", "score"),
    [
        ([0.3], None, Dialect("classify"), 0.3),
        ([0.0], None, Dialect("classify", scores="logit"), 0.5),
        ([800.0], None, Dialect("classify", scores="logit"), 1.0),
        ([-800.0], None, Dialect("classify", scores="logit"), 0.0),
        ([0.2, 0.8], "good", Dialect("classify", label="good"), 0.8),
        ([0.2, 0.8], "good", Dialect("classify", label="bad"), 0.2),
        ([0.2, 0.5, 0.3], "LABEL_1", Dialect("classify", label="LABEL_2"), 0.3),
        ([0.2, 0.5, 0.3], "ok", Dialect("classify", label=2), 0.3),
        ([0.0, math.log(3)], None, Dialect("pooling", label=1, scores="logit"), 0.75),
    ],
)
def test_scores_are_the_sigmoid_of_one_logit_or_the_named_labels_probability(
    numbers: list[float], top: str | None, dialect: Dialect, score: float
) -> None:
    assert score_of(numbers, top, dialect) == pytest.approx(score)


@pytest.mark.parametrize(("label", "top"), [(5, "ok"), ("rare", "ok"), ("rare", None)])
def test_a_label_that_cannot_be_told_is_an_error(label: int | str, top: str | None) -> None:
    with pytest.raises(BackendError, match="label"):
        score_of([0.2, 0.5, 0.3], top, Dialect("classify", label=label))
