"""What every strategy must do, on the embedded models: stay within its cost, repeat itself, be a single draw at one
sample, and never pass a failure off as an answer."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest

from env.allocation import Allocation, StageSetting
from env.backends import Backend, DrawRequest, Failed, ModelIdentity, ScoreRequest, Settled
from env.backends.pool import BackendPool, Backends
from env.bank import MemorySampleBank
from env.embedded.stages import retrieve_examples, retrieve_pipeline, solve_examples, solve_pipeline
from env.execution import Environment, TrialResult
from env.spec import PipelineSpec
from env.strategies import STRATEGIES, StagePlan
from env.tasks.example import Example

OF_SETS = sorted(name for name in STRATEGIES if "ids" in STRATEGIES[name].requires)
OTHERS = sorted(set(STRATEGIES) - set(OF_SETS))
SAMPLES = 4
MOST_PROMPT, MOST_OUTPUT = 48, 112


def pipeline_of(name: str) -> PipelineSpec:
    return retrieve_pipeline([name]) if name in OF_SETS else solve_pipeline([name])


def examples_of(name: str, count: int = 6) -> list[Example]:
    return retrieve_examples(count) if name in OF_SETS else solve_examples(count)


def allocation(name: str, samples: int, strategy: str | None = None) -> Allocation:
    stage, model = ("retrieve", "m") if name in OF_SETS else ("solve", "s")
    return Allocation.of({stage: StageSetting(model, strategy or name, samples)})


@pytest.fixture(scope="module")
def backends() -> Backends:
    return BackendPool(solve_pipeline(["vote"]).models)


async def run(
    name: str,
    backends: Backends,
    samples: int = SAMPLES,
    bank: MemorySampleBank | None = None,
    seed: int = 0,
    strategy: str | None = None,
    pipeline: PipelineSpec | None = None,
) -> TrialResult:
    environment = Environment(pipeline or pipeline_of(name), "flops", bank or MemorySampleBank(), backends, seed)
    (result,) = await environment.run_batch([allocation(name, samples, strategy)], examples_of(name), "b")
    return result


def untimed(result: TrialResult) -> object:
    return result.evidence, replace(result.spend, seconds=0.0)


@pytest.mark.asyncio
@pytest.mark.parametrize("name", sorted(STRATEGIES))
async def test_it_answers_and_runs_again_from_the_bank_alone(name: str, backends: Backends) -> None:
    bank = MemorySampleBank()
    first = await run(name, backends, bank=bank)
    assert first.failed == 0
    assert all(e.score is not None and 0 <= e.score <= 1 for e in first.evidence)
    assert any(e.stages[0].answer is not None for e in first.evidence)
    silent = Refusing(backends, lambda text, asked: True)
    assert untimed(await run(name, silent, bank=bank)) == untimed(first), "nothing may be asked that was drawn before"


@pytest.mark.asyncio
@pytest.mark.parametrize("name", sorted(STRATEGIES))
async def test_the_same_seed_gives_the_same_evidence_and_another_one_other_draws(name: str, backends: Backends) -> None:
    first, again, other = [await run(name, backends, seed=seed) for seed in (0, 0, 1)]
    assert untimed(first) == untimed(again)
    keys = [{e.stages[0].prompt_key for e in result.evidence} for result in (first, other)]
    assert keys[0].isdisjoint(keys[1])


@pytest.mark.asyncio
@pytest.mark.parametrize("name", sorted(STRATEGIES))
async def test_one_sample_is_a_single_draw(name: str, backends: Backends) -> None:
    single, plain = await run(name, backends, 1), await run(name, backends, 1, strategy="vote")
    assert [e.stages[0].answer for e in single.evidence] == [e.stages[0].answer for e in plain.evidence]
    assert [e.stages[0].calls for e in single.evidence] == [e.stages[0].calls for e in plain.evidence]
    assert single.predicted_cost == plain.predicted_cost
    assert single.spend.new_draws == len(single.evidence)


@pytest.mark.asyncio
@pytest.mark.parametrize("name", sorted(STRATEGIES))
async def test_it_never_costs_more_than_planned_where_the_plan_knows_the_longest_texts(
    name: str, backends: Backends
) -> None:
    plain = pipeline_of(name)
    stage = plain.stages[0]
    longest = (MOST_PROMPT, MOST_OUTPUT) if name not in OF_SETS else (110, stage.max_tokens)
    tokens = stage.tokens.model_copy(update={"prompt": longest[0], "output": longest[1]})
    planned = plain.model_copy(update={"stages": (stage.model_copy(update={"tokens": tokens}),)})
    result = await run(name, backends, 8, pipeline=planned)
    environment = Environment(planned, "flops", MemorySampleBank(), backends)
    for evidence in result.evidence:
        assert evidence.cost <= result.predicted_cost, evidence.stages[0].calls
        assert evidence.cost == pytest.approx(environment.cost.of(evidence.stages[0].calls))
        draws = sum(call.samples * call.prompts for call in evidence.stages[0].calls)
        assert draws <= STRATEGIES[name].most_draws(_plan(planned, name, 8))


@pytest.mark.asyncio
@pytest.mark.parametrize("name", sorted(STRATEGIES))
async def test_a_failed_call_fails_its_example_with_the_reason_and_the_rest_as_if_nothing_were(
    name: str, backends: Backends
) -> None:
    bank = MemorySampleBank()
    whole = await run(name, backends)
    first, second = (str(e.fields.get("expression") or e.fields["person"]) for e in examples_of(name, 2))

    def fails(text: str, asked: int) -> bool:
        # The first example at once; the second, where the strategy asks again, at a later request.
        return first in text or (second in text and asked > 1)

    partly = await run(name, Refusing(backends, fails), bank=bank)
    assert 0 < partly.failed < len(partly.evidence)
    for evidence, undisturbed in zip(partly.evidence, whole.evidence, strict=True):
        if evidence.status == "failed":
            assert evidence.score is None
            assert evidence.realised is None
            assert "out of order" in evidence.reason
        else:
            assert evidence.stages[0].answer == undisturbed.stages[0].answer
            assert evidence.stages[0].calls == undisturbed.stages[0].calls
    # What was drawn is kept: a second run asks only for the rest, and ends where the undisturbed one did.
    mended = await run(name, backends, bank=bank)
    assert [e.stages[0].answer for e in mended.evidence] == [e.stages[0].answer for e in whole.evidence]


@pytest.mark.asyncio
@pytest.mark.parametrize("name", ["verify", "revise", "fuse"])
async def test_the_critic_is_asked_and_paid(name: str, backends: Backends) -> None:
    result = await run(name, backends)
    assert all("critic" in {call.model for call in e.stages[0].calls} for e in result.evidence)


@pytest.mark.asyncio
@pytest.mark.parametrize("name", ["beam", "dvts", "rebase"])
async def test_step_search_asks_for_steps_and_pays_every_token_once(name: str, backends: Backends) -> None:
    result = await run(name, backends)
    for evidence in result.evidence:
        drawn = [call for call in evidence.stages[0].calls if call.model == "s"]
        assert sum(call.prompts for call in drawn) > 1, "more than one step"
        prompts = sum(call.prompt * call.prompts for call in drawn)
        assert prompts <= MOST_PROMPT, "what was processed before stays in the prefix cache"
    assert result.score is not None
    assert result.score > 0.3


@pytest.mark.asyncio
@pytest.mark.parametrize("name", ["asc", "esc", "trend", "by_difficulty"])
async def test_easy_queries_take_fewer_samples_than_allowed(name: str, backends: Backends) -> None:
    result = await run(name, backends, 16, pipeline=solve_pipeline([name], temperature=1.0))
    used = [sum(call.samples for call in e.stages[0].calls) for e in result.evidence]
    assert min(used) < 16
    assert result.measured_cost is not None
    assert result.measured_cost < result.predicted_cost


@pytest.mark.asyncio
async def test_a_cascade_asks_the_larger_model_only_where_the_small_one_disagrees(backends: Backends) -> None:
    result = await run("cascade", backends, 4)
    asked = [{call.model for call in e.stages[0].calls} for e in result.evidence]
    assert {"s"} in asked
    assert {"s", "l"} in asked


def _plan(pipeline: PipelineSpec, name: str, samples: int) -> StagePlan:
    return StagePlan(pipeline.stages[0], allocation(name, samples)[pipeline.stages[0].name])


class Refusing:
    """Backends that refuse requests by their text and by how often that prompt's text was asked about."""

    def __init__(self, inner: Backends, refuses: Callable[[str, int], bool]) -> None:
        self._inner = inner
        self._refuses = refuses
        self._asked: dict[str, int] = {}

    def backend(self, model: str) -> Backend:
        return _RefusingBackend(self._inner.backend(model), self)

    def refuses(self, request: DrawRequest | ScoreRequest) -> bool:
        text = request.messages[1].content
        self._asked[text] = self._asked.get(text, 0) + 1
        return self._refuses(text, self._asked[text])


class _RefusingBackend:
    def __init__(self, inner: Backend, owner: Refusing) -> None:
        self._inner = inner
        self._owner = owner

    @property
    def identity(self) -> ModelIdentity:
        return self._inner.identity

    async def generate(self, requests: Sequence[DrawRequest]) -> AsyncIterator[Settled | Failed]:
        async for outcome in self._passed(requests, self._inner.generate):
            yield outcome

    async def score(self, requests: Sequence[ScoreRequest]) -> AsyncIterator[Settled | Failed]:
        async for outcome in self._passed(requests, self._inner.score):
            yield outcome

    async def _passed(
        self, requests: Sequence[Any], ask: Callable[[Sequence[Any]], AsyncIterator[Settled | Failed]]
    ) -> AsyncIterator[Settled | Failed]:
        kept = [place for place, request in enumerate(requests) if not self._owner.refuses(request)]
        for place in sorted(set(range(len(requests))) - set(kept)):
            yield Failed(place, "this model is out of order")
        if kept:
            async for outcome in ask([requests[place] for place in kept]):
                yield replace(outcome, position=kept[outcome.position])

    async def close(self) -> None:
        pass
