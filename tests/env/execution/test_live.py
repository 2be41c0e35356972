"""Single queries: the same answers as in a trial, no more than the allocation, nothing kept."""

from __future__ import annotations

import json

import pytest

from env.allocation import Allocation, StageSetting
from env.backends import Message
from env.bank import MemorySampleBank
from env.errors import TemplateError
from env.execution import AllowanceSpent, Environment, LivePipeline, StageFailed, Wishes
from env.execution.live import written
from env.spec.stage import AfterParser, IdsParser, JsonParser, RegexParser, TextParser
from env.strategies import STRATEGIES
from env.tasks.data import load_splits
from env.tasks.parsers import parser_of
from tests.simulated import DiceBackends, simulated_spec

SPEC = simulated_spec()
EXAMPLES = load_splits(SPEC.data).search


def allocation(find: int = 2, read: int = 1, solve: int = 4, last: str = "best_of_n") -> Allocation:
    return Allocation.of(
        {
            "find": StageSetting("small", "vote", find),
            "read": StageSetting("large", "vote", read),
            "solve": StageSetting("small", last, solve),
        }
    )


def live(backends: DiceBackends) -> LivePipeline:
    return LivePipeline(SPEC.pipeline, "flops", backends)


@pytest.mark.asyncio
@pytest.mark.parametrize("last", ["vote", "best_of_n"])
async def test_a_query_with_the_studys_seed_gets_the_trials_answer(last: str) -> None:
    chosen = allocation(last=last)
    bank = MemorySampleBank()
    [trial] = await Environment(SPEC.pipeline, "flops", bank, DiceBackends(), SPEC.seed).run_batch([chosen], EXAMPLES)
    pipeline = live(DiceBackends())
    for evidence, example in zip(trial.evidence, EXAMPLES, strict=True):
        found = await pipeline.answer(chosen, example.fields, Wishes(seed=SPEC.seed))
        tried = [json.loads(stage.answer) if stage.answer else None for stage in evidence.stages]
        assert [stage.answer for stage in found.stages] == tried
        assert found.cost == pytest.approx(evidence.cost)


@pytest.mark.asyncio
async def test_every_query_draws_anew_and_exactly_its_allocation() -> None:
    backends = DiceBackends()
    pipeline = live(backends)
    for number in range(3):
        found = await pipeline.answer(allocation(), EXAMPLES[0].fields, Wishes(seed=SPEC.seed))
        assert [stage.draws for stage in found.stages] == [2, 1, 4]
        assert backends.draws == 7 * (number + 1)
    assert found.last.output_tokens == 40
    assert {call.model for call in found.last.calls} == {"small", "judge"}


@pytest.mark.asyncio
async def test_a_strategy_that_asks_for_more_than_its_allocation_is_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    # What a strategy states as its most is what the guard goes by.
    monkeypatch.setattr(type(STRATEGIES["vote"]), "most_draws", lambda self, plan: 1)
    backends = DiceBackends()
    with pytest.raises(AllowanceSpent):
        await live(backends).answer(allocation(find=4, read=1, solve=1, last="vote"), EXAMPLES[0].fields)
    assert backends.draws <= 3


@pytest.mark.asyncio
async def test_a_query_keeps_to_the_cost_it_may_take() -> None:
    pipeline = live(DiceBackends())
    whole = await pipeline.answer(allocation(), EXAMPLES[0].fields)
    assert (await pipeline.answer(allocation(), EXAMPLES[0].fields, Wishes(max_cost=1e18))).cost > 0
    with pytest.raises(AllowanceSpent):
        await pipeline.answer(allocation(), EXAMPLES[0].fields, Wishes(max_cost=whole.cost / 100))


@pytest.mark.asyncio
async def test_a_stage_alone_runs_on_the_callers_messages() -> None:
    messages = [Message("system", "solve"), Message("user", "1234")]
    found = await live(DiceBackends()).answer_stage("solve", StageSetting("small", "best_of_n", 8), messages)
    assert found.last.text == "1234"
    assert found.last.draws == 8


@pytest.mark.asyncio
async def test_a_failed_model_names_its_stage_and_reason() -> None:
    backends = DiceBackends()
    backends.backend("large")._fails = 100
    with pytest.raises(StageFailed, match="the dice fell off the table") as failed:
        await live(backends).answer(allocation(), EXAMPLES[0].fields)
    assert failed.value.stage == "read"


@pytest.mark.asyncio
async def test_a_missing_field_is_named() -> None:
    pipeline = live(DiceBackends())
    assert pipeline.input_fields(allocation()) == ("question",)
    with pytest.raises(TemplateError, match="question"):
        await pipeline.answer(allocation(), {})


@pytest.mark.parametrize(
    ("parser", "answer"),
    [
        (TextParser(), "some words"),
        (AfterParser(kind="after", marker="Answer:"), "42"),
        (IdsParser(kind="ids", prefix="#"), [1, 2, 30]),
        (JsonParser(kind="json", field="a"), [1, {"b": 2}]),
        (JsonParser(kind="json"), {"b": 2}),
        (RegexParser(kind="regex", pattern=r"\d+"), "42"),
    ],
)
def test_a_written_answer_is_read_as_itself(parser: object, answer: object) -> None:
    assert parser_of(parser)(written(parser, answer)) == answer  # type: ignore[arg-type]
