"""The convergence stop: ends a search with nothing left to gain, not one whose gain comes late."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest

from planner.archive import Archive, open_archive
from planner.plans import PlanDocument
from planner.run import run_study
from tests.simulated import DiceBackend, DiceBackends, simulated_spec


@pytest.fixture
def archive(tmp_path: Path) -> Iterator[Archive]:
    with open_archive(f"sqlite:///{tmp_path / 'archive.db'}") as opened:
        yield opened


class Flat(DiceBackend):
    """Right or wrong by the example alone: no model and no number of samples changes anything."""

    def _roll(self, stage: str, prompt: str, seed: int, index: int) -> str:
        right = stage != "solve" or hashlib.sha256(prompt.encode()).digest()[0] < 160
        return prompt if right else "wrong"


class Late(DiceBackend):
    """Where the larger model is the worse one in every stage: the first batch, which trusts size, sees little of it."""

    def _roll(self, stage: str, prompt: str, seed: int, index: int) -> str:
        digest = hashlib.sha256(f"{self.model}/{stage}/{prompt}/{seed}/{index}".encode()).digest()
        if int.from_bytes(digest[:6], "big") / 2**48 < (0.6 if self.model == "small" else 0.3):
            return prompt
        # The large model's errors are always the same, so that no vote cures them.
        scatter = digest[7] % 40 if self.model == "small" else 0
        return f"wrong-{hashlib.sha256(prompt.encode()).hexdigest()[:10]}-{scatter}"


class Made(DiceBackends):
    def __init__(self, make: type[DiceBackend]) -> None:
        super().__init__()
        self._make = make

    def backend(self, model: str) -> DiceBackend:
        return self.open.setdefault(model, self._make(model))


async def run(archive: Archive, make: type[DiceBackend], min_gain: float | None, kind: str = "insight") -> PlanDocument:
    spec = simulated_spec(
        budget={"plan": {"limit": 6e12, "unit": "flops"}, "search": {"trials": 40, "min_gain": min_gain}},
        proposer={"kind": kind, "batch": 4},
    )
    return await run_study(spec, archive, "s", {}, Made(make))


@pytest.mark.asyncio
async def test_a_flat_task_ends_early_and_says_so(archive: Archive) -> None:
    plan = await run(archive, Flat, 0.04)
    assert plan.trials < 40
    assert "no remaining allocation is expected to gain more than 0.04" in plan.stopped
    assert f"{40 - plan.trials} of 40 trials unused" in plan.stopped
    forecasts = [e.payload for e in archive.events.after("s", 0, 10_000) if e.kind == "forecast"]
    # It held for a whole round: below the threshold before it and after it, and not before.
    assert [f["expected_gain"] < 0.04 for f in forecasts][-2:] == [True, True]
    assert not any(a["expected_gain"] < 0.04 and b["expected_gain"] < 0.04 for a, b in pairwise(forecasts[:-1]))
    # What was accepted has run: nothing is left half-way.
    assert len(archive.trials.list("s", "search")) == plan.trials
    assert {p.verdict for p in archive.proposals.list("s") if p.round == forecasts[-1]["round"]} <= {"refused"}


@pytest.mark.asyncio
async def test_a_task_whose_gain_comes_late_is_searched_until_it_came(archive: Archive) -> None:
    plan = await run(archive, Late, 0.02)
    initial = [t.score or 0.0 for t in archive.trials.list("s", "search") if t.round == 0]
    assert max(initial) < 0.7
    assert plan.search_score > 0.9


@pytest.mark.asyncio
async def test_without_a_threshold_nothing_is_forecast_and_all_trials_run(archive: Archive) -> None:
    plan = await run(archive, Flat, None)
    assert plan.trials == 40
    assert not any(e.kind == "forecast" for e in archive.events.after("s", 0, 10_000))


@pytest.mark.asyncio
async def test_a_proposer_that_cannot_tell_is_stopped_by_the_insight_policys_forecast(archive: Archive) -> None:
    plan = await run(archive, Flat, 0.2, kind="random")
    assert plan.trials < 40
    assert "expected to gain more than 0.2" in plan.stopped
