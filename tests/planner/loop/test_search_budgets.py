"""The search budget: whichever limit ends first, never passed, the same after a crash, and a stop that says why."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from env.allocation import Allocation
from env.backends import DrawRequest, Failed, Settled
from env.errors import ApportionError
from env.spec import SpecError, StudySpec
from env.spec.load import validated_spec
from planner.archive import Archive, open_archive
from planner.loop import InProcessSteps, StudyContext, run_loop
from planner.plans import PlanDocument
from planner.run import run_study
from tests.simulated import DiceBackend, DiceBackends, simulated_spec

PLAN = {"limit": 3e12, "unit": "flops"}
PRICE = {"input": 1.0, "output": 2.0}


@pytest.fixture
def archive(tmp_path: Path) -> Iterator[Archive]:
    with open_archive(f"sqlite:///{tmp_path / 'archive.db'}") as opened:
        yield opened


def spec_with(priced: bool = False, **search: Any) -> StudySpec:
    spec = simulated_spec(budget={"plan": PLAN, "search": {"trials": 10, **search}}).model_dump(mode="json")
    if priced:
        for model in spec["pipeline"]["models"].values():
            model["price"] = PRICE
    return StudySpec.model_validate(spec)


async def run(archive: Archive, spec: StudySpec, backends: DiceBackends | None = None) -> PlanDocument:
    return await run_study(spec, archive, "s", {}, backends or DiceBackends())


def stop_event(archive: Archive) -> dict[str, Any]:
    found = archive.events.named("s", "stop")
    assert found is not None
    return dict(found.payload)


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("limits", "ends", "ledger"),
    [
        ({"draws": 2500, "tokens": 10**9, "dollars": 10.0}, "draws", "search"),
        ({"draws": 10**6, "tokens": 30_000, "dollars": 10.0}, "tokens", "search_tokens"),
        ({"draws": 10**6, "tokens": 10**9, "dollars": 0.04}, "dollars", "search_dollars"),
    ],
)
async def test_whichever_limit_ends_first_ends_the_search_and_is_not_passed(
    archive: Archive, limits: dict[str, float], ends: str, ledger: Any
) -> None:
    plan = await run(archive, spec_with(priced=True, **limits))
    usage = archive.ledgers.usages("s")[ledger]
    assert 0 < usage.settled <= limits[ends]
    assert usage.reserved == 0
    stop = stop_event(archive)
    assert stop["reason"] == ends
    assert f"of {limits[ends]:.6g}" in stop["message"]
    # A batch of which only a part fits the last of a budget runs in part, and the rest of it stays accepted.
    assert "of 10 trials unused" in plan.stopped or "of the 10 trials did not fit" in plan.stopped
    assert 0 < plan.trials < 10


@pytest.mark.asyncio
async def test_a_budget_that_is_enough_ends_with_the_trials(archive: Archive) -> None:
    plan = await run(archive, spec_with(priced=True, draws=10**6, tokens=10**9, dollars=10.0))
    assert plan.trials == 10
    assert stop_event(archive)["reason"] == "trials"


@pytest.mark.asyncio
async def test_ledgers_settle_at_what_the_models_reported(archive: Archive) -> None:
    await run(archive, spec_with(priced=True))
    trials = archive.trials.list("s", "search")
    usages = archive.ledgers.usages("s")
    assert usages["search"].settled == sum(t.spend.new_draws for t in trials)
    drawn = sum(t.spend.prompt_tokens + t.spend.output_tokens for t in trials)
    scores = usages["search_tokens"].settled - drawn
    # The dice's verifier reads 30 tokens a score and nothing else is charged.
    assert scores >= 0
    assert scores % 30 == 0
    assert usages["search_flops"].settled > sum(t.spend.cost for t in trials) * 0.99
    read = sum(t.spend.prompt_tokens for t in trials) + scores
    written = sum(t.spend.output_tokens for t in trials)
    assert usages["search_dollars"].settled == pytest.approx((read * 1.0 + written * 2.0) / 1e6)


class Slow(DiceBackend):
    """Takes its time for every prompt."""

    pause = 0.004

    async def generate(self, requests: Sequence[DrawRequest]) -> AsyncIterator[Settled | Failed]:
        async for outcome in super().generate(requests):
            await asyncio.sleep(self.pause)
            yield outcome


class Made(DiceBackends):
    """Backends of a given make."""

    def __init__(self, make: Callable[[str], DiceBackend]) -> None:
        super().__init__()
        self._make = make

    def backend(self, model: str) -> DiceBackend:
        if model not in self.open:
            self.open[model] = self._make(model)
        return self.open[model]


class Stalls(DiceBackend):
    """Answers the first 60 prompts, then never again."""

    def __init__(self, model: str) -> None:
        super().__init__(model)
        self.answered = 0

    async def generate(self, requests: Sequence[DrawRequest]) -> AsyncIterator[Settled | Failed]:
        async for outcome in super().generate(requests):
            self.answered += 1
            if self.answered > 60:
                await asyncio.sleep(3600)
            yield outcome


@pytest.mark.asyncio
async def test_a_batch_that_meets_the_deadline_stops_and_its_trials_are_cut_not_wrong(archive: Archive) -> None:
    spec = spec_with(wall_seconds=2.5)
    started = time.monotonic()
    with pytest.raises(ApportionError, match="the time of the search was up"):
        await run(archive, spec, Made(Stalls))
    assert time.monotonic() - started < 30
    trials = archive.trials.list("s", "search")
    assert trials
    assert {t.status for t in trials} == {"cut"}
    assert all(t.score is None for t in trials)
    drawn = sum(t.spend.new_draws for t in trials)
    assert drawn == archive.ledgers.usages("s")["search"].settled
    kept = [call for _, scored, call in archive.bank.asked_by("s/round-0") if not scored]
    assert drawn == sum(call.samples * call.prompts for call in kept) > 0
    assert stop_event(archive)["reason"] == "wall_seconds"


@pytest.mark.asyncio
async def test_trials_that_ran_before_the_deadline_still_make_a_plan(archive: Archive) -> None:
    plan = await run(archive, spec_with(trials=200, wall_seconds=6.0), Made(Slow))
    assert 0 < plan.trials < 200
    assert stop_event(archive)["reason"] == "wall_seconds"
    assert plan.test_score is not None


@pytest.mark.asyncio
async def test_gpu_seconds_are_inference_seconds_times_accelerators(archive: Archive) -> None:
    raw = spec_with(gpu_seconds=1e6).model_dump(mode="json")
    raw["budget"]["plan"]["tensor_parallel"] = 4
    await run(archive, StudySpec.model_validate(raw), Made(Slow))
    usage = archive.ledgers.usages("s")["search_gpu_seconds"]
    batch_seconds = sum(t.spend.seconds for t in archive.trials.list("s", "search"))
    # Two models answer side by side at most, each on four accelerators; scores and estimation take the rest.
    assert 0.2 * 4 * batch_seconds < usage.settled < 2 * 4 * batch_seconds


@pytest.mark.asyncio
async def test_gpu_seconds_end_a_search_in_the_middle_of_a_batch(archive: Archive) -> None:
    with pytest.raises(ApportionError, match="GPU-seconds"):
        await run(archive, spec_with(gpu_seconds=0.5), Made(lambda model: _slower(model)))
    assert stop_event(archive)["reason"] == "gpu_seconds"
    assert {t.status for t in archive.trials.list("s", "search")} == {"cut"}


def _slower(model: str) -> DiceBackend:
    slow = Slow(model)
    slow.pause = 0.05
    return slow


def test_a_limit_in_money_needs_every_price() -> None:
    with pytest.raises(SpecError, match=r"budget\.search\.dollars"):
        validated_spec(spec_with(dollars=1.0).model_dump(mode="json"))


class Killed(BaseException):
    """Stands for kill -9: nothing of ours catches it."""


class Mortal(DiceBackend):
    """Dies after so many draws of all models together."""

    def __init__(self, model: str, life: list[int]) -> None:
        super().__init__(model)
        self._life = life

    async def generate(self, requests: Sequence[DrawRequest]) -> AsyncIterator[Settled | Failed]:
        async for outcome in super().generate(requests):
            self._life[0] -= len(outcome.draws)
            if self._life[0] < 0:
                raise Killed
            yield outcome


def small_spec(tokens: int) -> StudySpec:
    raw = spec_with(tokens=tokens, trials=6).model_dump(mode="json")
    raw["data"] = {**raw["data"], "rows": raw["data"]["rows"][:12], "search": 6, "test": 6}
    for stage in raw["pipeline"]["stages"]:
        stage["samples"] = {"min": 1, "max": 4, "choices": [1, 2, 4]}
    return StudySpec.model_validate(raw)


def search_until_done(archive: Archive, spec: StudySpec, lives: Sequence[int]) -> None:
    """Run the loop, killed after each of these numbers of draws and begun anew each time."""
    archive.studies.create("s", spec.name, spec.model_dump(mode="json"), spec.seed)
    archive.studies.set_status("s", "running")
    for life in (*lives, 10**9):
        left = [life]
        backends = Made(lambda model, left=left: Mortal(model, left))  # type: ignore[misc]
        context = StudyContext(archive, "s", {}, backends)
        try:
            asyncio.run(run_loop(context, InProcessSteps()))
        except (Killed, BaseExceptionGroup):
            continue
        except ApportionError as error:
            assert "no trial could be scored" in str(error)  # noqa: PT017 - a budget too small for one trial
        return


@settings(max_examples=6, deadline=None, suppress_health_check=list(HealthCheck))
@given(tokens=st.integers(500, 9000), lives=st.lists(st.integers(1, 150), max_size=3))
def test_no_crash_makes_a_search_pass_its_tokens_or_change_what_it_spent(
    tmp_path_factory: pytest.TempPathFactory, tokens: int, lives: list[int]
) -> None:
    spec = small_spec(tokens)
    spent: list[dict[str, float]] = []
    trials: list[list[object]] = []
    for place in ((), lives):
        folder = tmp_path_factory.mktemp("study")
        with open_archive(f"sqlite:///{folder / 'archive.db'}") as archive:
            search_until_done(archive, spec, place)
            usages = archive.ledgers.usages("s")
            assert usages.get("search_tokens") is None or usages["search_tokens"].settled <= tokens
            assert all(usage.reserved == 0 for usage in usages.values())
            spent.append({ledger: round(usage.settled, 3) for ledger, usage in usages.items()})
            trials.append([(t.trial_no, t.allocation, t.status, t.score) for t in archive.trials.list("s", "search")])
    assert spent[0] == spent[1]
    assert trials[0] == trials[1]


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("limits", "unit"),
    [({"draws": 500}, "draws"), ({"tokens": 20_000}, "tokens"), ({"dollars": 0.03}, "USD")],
)
async def test_review_refuses_what_reserving_would_in_every_ledger(
    archive: Archive, limits: dict[str, Any], unit: str
) -> None:
    spec = spec_with(priced=True, **limits)
    archive.studies.create("s", spec.name, spec.model_dump(mode="json"), spec.seed)
    context = StudyContext(archive, "s", {}, DiceBackends())
    allocations = sorted(context.space.sample(random.Random(3), 12), key=context.space.total)
    left = context.budgets.left()
    passed: list[Allocation] = []
    reasons = []
    for allocation in allocations:
        reason = left.reason(allocation, passed)
        reasons.append(reason)
        if not reason:
            passed.append(allocation)
    assert 0 < len(passed) < len(allocations)
    assert all(f" {unit}, " in reason and "are left" in reason for reason in reasons if reason)
    reserved = context.budgets.reserve(list(enumerate(allocations, 1)))
    assert [a for _, a in reserved.granted] == passed
    await context.close()
