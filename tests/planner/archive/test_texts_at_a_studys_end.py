"""The text policy applied by whole studies on simulated models, on both databases."""

from __future__ import annotations

import logging
from typing import Any

import pytest
from sqlalchemy import text

from env.errors import ApportionError
from planner.archive import Archive
from planner.archive.texts import TextPolicy
from planner.archive.upkeep import BankStats, Upkeep
from planner.plans import PlanDocument
from planner.run import run_study
from tests.simulated import DiceBackends, simulated_spec

SHORT = {"plan": {"limit": 6e12, "unit": "flops"}, "search": {"trials": 5}}


async def run(archive: Archive, backends: DiceBackends | None = None, id: str = "s1", **changes: Any) -> PlanDocument:
    spec = simulated_spec(**{"budget": SHORT, **changes})
    return await run_study(spec, archive, id, {}, backends or DiceBackends())


def bank(archive: Archive) -> BankStats:
    return Upkeep(archive.engine).stats(archive.bank.text_policy)


def without_verifier() -> dict[str, Any]:
    pipeline: dict[str, Any] = simulated_spec().model_dump(mode="json")["pipeline"]
    pipeline["stages"][-1].update(strategies=["vote"], verifier=None)
    return pipeline


@pytest.mark.asyncio
async def test_a_planned_study_leaves_its_answers_and_no_texts(archive: Archive) -> None:
    archive.bank.set_text_policy(TextPolicy("hash"))
    plan = await run(archive, pipeline=without_verifier())
    left = bank(archive)
    assert left.texts == left.texts_dropped > 0
    assert left.answers >= left.texts
    # What is left is enough for a second study on the same draws: the answers are read where the texts are gone.
    second = await run(archive, id="s2", pipeline=without_verifier())
    assert all(t.failed == 0 and t.spend.reused_draws > 0 for t in archive.trials.list("s2", "search"))
    assert second.test_score == plan.test_score


@pytest.mark.asyncio
async def test_the_default_policy_keeps_every_text(archive: Archive) -> None:
    await run(archive)
    assert bank(archive).texts_dropped == 0


@pytest.mark.asyncio
async def test_a_failed_and_a_cancelled_study_follow_the_policy_too(archive: Archive) -> None:
    await run(archive, pipeline=without_verifier())
    archive.bank.set_text_policy(TextPolicy("hash"))
    with pytest.raises(ApportionError, match="fell off the table"):
        await run(archive, DiceBackends(fails=10**9), "fails", seed=7)
    first = bank(archive)
    assert archive.studies.get("fails").status == "failed"
    assert first.texts == first.texts_dropped > 0

    archive.bank.set_text_policy(TextPolicy("full"))
    await run(archive, id="s3", pipeline=without_verifier(), seed=8)
    assert bank(archive).texts_dropped < bank(archive).texts
    archive.bank.set_text_policy(TextPolicy("hash"))
    spec = simulated_spec(seed=9)
    archive.studies.create("stops", spec.name, spec.model_dump(mode="json"), 9)
    # One that only waits is cancelled at once and never runs; this one is cancelled while it does.
    archive.studies.set_status("stops", "running")
    archive.studies.request_cancel("stops")
    with pytest.raises(ApportionError, match="cancelled"):
        await run(archive, id="stops", seed=9)
    second = bank(archive)
    assert second.texts == second.texts_dropped > first.texts


@pytest.mark.asyncio
async def test_a_study_that_waits_with_a_verifier_finds_the_texts_it_needs(archive: Archive) -> None:
    archive.bank.set_text_policy(TextPolicy("hash"))
    waiting = simulated_spec(budget=SHORT)
    archive.studies.create("waits", waiting.name, waiting.model_dump(mode="json"), 0)
    await run(archive, pipeline=without_verifier())
    assert bank(archive).texts_dropped == 0
    plan = await run(archive, id="waits")
    assert plan.test_failed == 0
    assert all(t.failed == 0 for t in archive.trials.list("waits"))
    assert bank(archive).texts_dropped > 0


@pytest.mark.asyncio
async def test_upkeep_that_fails_costs_no_study_and_says_what_to_do(
    archive: Archive, caplog: pytest.LogCaptureFixture
) -> None:
    with archive.engine.begin() as connection:
        connection.execute(text("INSERT INTO settings (name, value) VALUES ('text_policy', 'for ever')"))
    with caplog.at_level(logging.WARNING, "planner.loop.ending"):
        plan = await run(archive)
    assert archive.studies.get("s1").status == "done"
    assert plan.test_score is not None
    (warned,) = caplog.messages
    assert "'for ever' is no text policy" in warned
    assert "apportion bank prune --yes" in warned
