"""An LLM as a verifier, on the embedded critic."""

from __future__ import annotations

import pytest

from env.allocation import Allocation, StageSetting
from env.backends import Failed, Message, ScoreRequest
from env.backends.pool import BackendPool
from env.bank import MemorySampleBank
from env.embedded.prompts import CRITIC_PROMPTS
from env.embedded.stages import solve_examples, solve_pipeline
from env.errors import BackendError
from env.execution import Environment
from env.spec import PipelineSpec, SpecError, StudySpec
from env.spec.load import validated_spec
from env.tasks.verdicts import says_right

JUDGE = {
    "backend": "judge",
    "model": "critic",
    "samples": 8,
    "prompt": [
        {"role": "system", "template": "judge"},
        {"role": "user", "template": CRITIC_PROMPTS["judge"]},
    ],
    "output_tokens": 60,
}


def judged_pipeline() -> PipelineSpec:
    raw = solve_pipeline(["vote", "best_of_n"]).model_dump(mode="json")
    raw["models"]["judge"] = JUDGE
    raw["stages"][0]["verifier"] = "judge"
    return PipelineSpec.model_validate(raw)


def a_request(answer: str) -> ScoreRequest:
    ask = (Message("system", "solve"), Message("user", "4 0 + 0 5"))
    return ScoreRequest((*ask, Message("assistant", answer)))


@pytest.mark.asyncio
async def test_the_score_is_the_share_of_verdicts_that_call_the_reply_right() -> None:
    pool = BackendPool(judged_pipeline().models)
    judge = pool.backend("judge")
    right, wrong = [
        outcome async for outcome in judge.score([a_request("4 0 ; + 0 5 5 4 ; = 4 5"), a_request("4 0 ; = 9 9")])
    ]
    assert not isinstance(right, Failed)
    assert not isinstance(wrong, Failed)
    (good,), (bad,) = (
        sorted((right, wrong), key=lambda o: o.position)[0].draws,
        sorted((right, wrong), key=lambda o: o.position)[1].draws,
    )
    assert good.score is not None
    assert bad.score is not None
    assert good.score > 0.5 > bad.score
    assert good.score * 8 == round(good.score * 8)
    assert good.output_tokens > 8, "all verdicts are counted"
    with pytest.raises(BackendError, match="judge"):
        judge.generate([])
    await pool.close()


@pytest.mark.asyncio
async def test_best_of_n_by_a_judge_beats_one_draw_and_pays_for_the_verdicts() -> None:
    pipeline = judged_pipeline()
    pool = BackendPool(pipeline.models)
    environment = Environment(pipeline, "flops", MemorySampleBank(), pool)
    single, best = await environment.run_batch(
        [Allocation.of({"solve": StageSetting("s", name, k)}) for name, k in (("vote", 1), ("best_of_n", 4))],
        solve_examples(40),
        "b",
    )
    assert single.score is not None
    assert best.score is not None
    assert best.score > single.score + 0.1
    calls = [call for e in best.evidence for call in e.stages[0].calls if call.model == "judge"]
    assert calls
    assert all(call.output > 8 and call.samples == 1 for call in calls)
    assert best.predicted_cost > single.predicted_cost + 2 * 115_328 * 3 * 43
    await pool.close()


def test_a_judge_that_asks_nobody_is_a_fault() -> None:
    from tests.simulated import simulated_spec

    raw = simulated_spec().model_dump(mode="json")
    raw["pipeline"]["models"]["referee"] = {"backend": "judge", "model": "ghost", "prompt": [
        {"role": "user", "template": "{{ prompt }} {{ answer }}"}]}  # fmt: skip
    raw["pipeline"]["stages"][0]["models"] = ["small", "referee"]
    with pytest.raises(SpecError) as raised:
        validated_spec(raw)
    found = {fault.path: fault.message for fault in raised.value.faults}
    assert "draws text" in found["pipeline.models.referee.model"]
    assert "not 'answer'" in found["pipeline.models.referee.prompt[0].template"]
    assert "scores replies and draws none" in found["pipeline.stages[0].models[1]"]
    assert StudySpec.model_json_schema()["$defs"]["JudgeModel"]


@pytest.mark.parametrize(
    ("text", "verdict"),
    [
        ("Step 2 is wrong... no: it holds. Verdict: right", True),
        ("Verdict: right? On reflection: WRONG", False),
        ("the right-hand side is righteous", True),
        ("incorrect", False),
        ("nothing to say", False),
        ("; = 0 0 #1", True),
        ("; = 0 3 x1", False),
    ],
)
def test_the_last_verdict_word_counts_and_none_is_no_approval(text: str, verdict: bool) -> None:
    assert says_right(text) is verdict
