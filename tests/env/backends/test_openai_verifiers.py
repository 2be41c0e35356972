"""Verifiers behind servers: which API they are asked by, and what their numbers mean."""

from __future__ import annotations

import math
from typing import Any

import pytest

from env.backends import Message, ScoreRequest
from env.backends.openai_dialect import Dialect
from env.backends.openai_score import score_of
from env.errors import BackendError
from tests.env.backends.asking import failed, judge, settled
from tests.env.backends.scripted import Script, classified, paired, pooled, raw, status

CLASSIFY = Dialect(api="classify")


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
