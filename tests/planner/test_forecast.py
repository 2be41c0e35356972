"""The forecast against what simulated studies really spent."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from planner.archive import Archive, open_archive
from planner.forecast import Rates, forecast
from planner.proposers.initial import initial_trials
from planner.rates import measured_rates
from planner.run import run_study
from planner.space import SearchSpace
from tests.simulated import DiceBackends, simulated_spec

LEDGERS: dict[str, Any] = {"draws": "search", "tokens": "search_tokens", "FLOPs": "search_flops"}


@pytest.fixture
def archive(tmp_path: Path) -> Iterator[Archive]:
    with open_archive(f"sqlite:///{tmp_path / 'archive.db'}") as opened:
        yield opened


def budget(limit: float = 6e12, **search: Any) -> dict[str, Any]:
    return {"plan": {"limit": limit, "unit": "flops"}, "search": {"trials": 14, **search}}


@pytest.mark.asyncio
@pytest.mark.parametrize(("kind", "trials", "limit"), [("insight", 14, 3e12), ("random", 20, 6e12)])
async def test_expected_spending_is_within_a_factor_of_two_and_the_worst_case_above(
    archive: Archive, kind: str, trials: int, limit: float
) -> None:
    spec = simulated_spec(budget=budget(limit, trials=trials), proposer={"kind": kind, "batch": 3})
    expected = forecast(spec)
    plan = await run_study(spec, archive, "s", {}, DiceBackends())
    assert expected.trials == plan.trials
    for unit, ledger in LEDGERS.items():
        spent, line = archive.ledgers.usages("s")[ledger].settled, expected.of(unit)
        assert line.expected is not None
        assert line.worst is not None
        assert 0.5 < line.expected / spent < 2, unit
        assert spent <= line.worst


@pytest.mark.asyncio
async def test_the_limit_that_is_expected_to_end_a_search_does(archive: Archive) -> None:
    spec = simulated_spec(budget=budget(3e12, draws=1800, tokens=10**9, trials=30))
    expected = forecast(spec)
    assert expected.ends_with == "draws"
    plan = await run_study(spec, archive, "s", {}, DiceBackends())
    stop = archive.events.named("s", "stop")
    assert stop is not None
    assert stop.payload["reason"] == "draws"
    assert 0.4 < expected.trials / plan.trials < 2.5
    assert expected.of("draws").enough_for == expected.trials
    assert expected.of("tokens").enough_for is None


def test_initial_trials_and_size_are_those_of_the_space() -> None:
    spec = simulated_spec(budget=budget())
    space, expected = SearchSpace(spec), forecast(spec)
    assert expected.allocations == len(list(space.allocations()))
    assert expected.initial_trials == len(initial_trials(space))
    assert expected.proposer_tokens is None


def test_a_limit_below_the_first_trial_is_forecast_as_such() -> None:
    expected = forecast(simulated_spec(budget=budget(draws=1)))
    assert (expected.ends_with, expected.trials) == ("draws", 0)


def test_a_space_smaller_than_the_trials_ends_with_the_space() -> None:
    raw = simulated_spec(budget=budget(trials=100)).model_dump(mode="json")
    for stage in raw["pipeline"]["stages"]:
        stage["samples"] = {"min": 1, "max": 1}
    expected = forecast(simulated_spec(pipeline=raw["pipeline"], budget=budget(trials=100)))
    assert expected.ends_with == "space"
    assert expected.trials == expected.allocations < 100


@pytest.mark.asyncio
async def test_times_are_unknown_until_a_study_with_these_models_has_run(archive: Archive) -> None:
    spec = simulated_spec(budget=budget(wall_seconds=1000.0))
    before = forecast(spec, measured_rates(archive, spec))
    assert before.of("s").expected is None
    assert any("Nothing tells yet how fast" in note for note in before.notes)
    await run_study(spec, archive, "s", {}, DiceBackends())
    rates = measured_rates(archive, spec)
    assert rates is not None
    after = forecast(spec, rates).of("s").expected
    spent = archive.ledgers.usages("s")["search_wall_seconds"].settled
    assert after is not None
    assert 0.4 < after / spent < 2.5


def test_a_slow_model_is_forecast_to_run_out_of_time() -> None:
    spec = simulated_spec(budget=budget(wall_seconds=100.0))
    expected = forecast(spec, Rates(1e-12))
    assert expected.ends_with == "wall_seconds"
    assert 0 < expected.trials < 14
