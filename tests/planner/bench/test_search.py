from __future__ import annotations

import asyncio
import json
import math
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from api.command import app
from env.allocation import Allocation, StageSetting
from planner.bench.entrants import open_entrant
from planner.bench.measures import (
    compare_searches,
    draws_to_reach,
    reach,
    regret_over_tokens,
    simple_regret,
    trials_to_reach,
)
from planner.bench.rehearsal import Rehearsal, Step, rehearse
from planner.bench.simulator import simulated
from planner.bench.suite import SearchBench, family_problems, run_bench
from planner.history import History, RefusedView
from planner.proposers import InsightProposer, Proposal, RandomProposer, Reflection, Suggestions

ANY = Allocation.of({"s": StageSetting("m", "vote", 1)})


def search(*truths: float, problem: str = "p", proposer: str = "a", observed: tuple[float, ...] = ()) -> Rehearsal:
    seen = observed or truths
    steps = tuple(Step(ANY, t, o, None, "x", 10, 100) for t, o in zip(truths, seen, strict=True))
    return Rehearsal(problem, proposer, 0, 1.0, steps, 0, 1.0)


def test_reaching_counts_the_first_trial_within_the_tolerance() -> None:
    found = search(0.5, 0.98, 0.99, 1.0)
    assert trials_to_reach(found) == 3
    assert draws_to_reach(found) == 30
    assert math.isinf(trials_to_reach(search(0.5, 0.98)))


def test_simple_regret_is_that_of_the_trial_which_looked_best() -> None:
    found = search(0.9, 0.7, 1.0, observed=(0.8, 0.95, 0.94))
    assert simple_regret(found, 1) == pytest.approx(0.1)
    assert simple_regret(found, 3) == pytest.approx(0.3)  # misled by the second
    assert regret_over_tokens(found) == pytest.approx((0.1 + 0.3 + 0.3) / 3)


@given(st.lists(st.one_of(st.floats(1, 100), st.just(math.inf)), min_size=1, max_size=40))
@settings(deadline=None, max_examples=40)
def test_quantiles_count_searches_that_never_came_close_as_the_latest(values: list[float]) -> None:
    found = reach(values)
    ordered = sorted(values)
    middle = (ordered[(len(values) - 1) // 2] + ordered[len(values) // 2]) / 2
    assert found.median == middle
    assert found.median_low <= found.median <= found.median_high
    assert found.never == sum(map(math.isinf, values)) / len(values)
    assert found.p90 >= found.median


def test_a_comparison_is_paired_by_problem() -> None:
    fast = [search(*[0.0] * n, 1.0, problem=f"p{n}") for n in range(8)]
    slow = [search(*[0.0] * (2 * n + 1), 1.0, problem=f"p{n}", proposer="b") for n in range(8)]
    found = compare_searches(fast, slow, "g", "trials")
    assert found.ratio == pytest.approx(0.5)
    assert found.low == pytest.approx(found.high) == pytest.approx(0.5)  # whatever problems are drawn
    with pytest.raises(ValueError, match="same problems"):
        compare_searches(fast[:2], slow, "g", "trials")


def test_the_insight_policy_needs_a_fraction_of_the_trials_of_chance() -> None:
    bench = SearchBench(tuple(family_problems(["two-stage"], 4, first=40)), ("insight", "random"), 1, 40)
    result = run_bench(bench)
    insight = next(s for s in result.summaries if s.proposer == "insight")
    assert insight.trials.median <= 6
    trials = next(c for c in result.comparisons if c.measure == "trials")
    assert trials.ratio <= 0.25


def test_equal_seeds_search_equally_and_nothing_runs_twice() -> None:
    async def searched() -> Rehearsal:
        problem = simulated("two-stage", 41)
        async with open_entrant("insight", problem, 3, 2) as entrant:
            fill = RandomProposer(problem.space, 3, 2)
            return await rehearse(problem, entrant.proposer, "insight", fill, 3, 8, 2)

    first, again = asyncio.run(searched()), asyncio.run(searched())
    assert first.steps == again.steps
    assert len({s.allocation for s in first.steps}) == 8


class Useless:
    """Proposes the same infeasible thing for ever."""

    kind = "useless"

    async def initial(self, history: History) -> Suggestions:
        return Suggestions((Proposal(ANY, "useless"),))

    async def reflect(self, history: History) -> Reflection:
        return Reflection(())

    async def propose(self, history: History, count: int, refused: tuple[RefusedView, ...]) -> Suggestions:
        return Suggestions((Proposal(ANY, "useless"),))

    async def close(self) -> None: ...


def test_rounds_that_a_proposer_cannot_fill_are_filled_in() -> None:
    problem = simulated("two-stage", 41)
    fill = InsightProposer(problem.space, 0, 1)
    found = asyncio.run(rehearse(problem, Useless(), "useless", fill, 0, 5, 1))  # type: ignore[arg-type]
    assert [s.origin for s in found.steps] == ["insight"] * 5
    assert found.refused == 1 + 5 * 2


def test_a_search_ends_where_nothing_is_left_to_propose(tmp_path: Path) -> None:
    table = tmp_path / "tiny.csv"
    table.write_text("s.model,s.samples,score,cost\nm,1,0.5,1\nm,2,0.6,2\n")
    result = CliRunner().invoke(
        app, ["bench", "search", "--table", str(table), "--seeds", "2", "--trials", "30", "--processes", "1", "--json"]
    )
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert {s["trials"]["never"] for s in found["summaries"]} == {0.0}
    assert all(s["trials"]["median"] <= 2 for s in found["summaries"])


@pytest.fixture
def table(tmp_path: Path) -> Path:
    rows = ["a.model,a.samples,b.model,b.samples,score,cost"]
    for m, size in (("s", 1), ("l", 8)):
        for j in (1, 2, 4, 8, 16):
            for n, other in (("s", 1), ("l", 8)):
                for k in (1, 2, 4, 8, 16):
                    quality = (0.8 - 0.3 / j - 0.05 / size) * (0.9 - 0.5 / (other * k**0.5))
                    rows.append(f"{m},{j},{n},{k},{quality:.4f},{size * (2 + j) + other * (2 + k)}")
    path = tmp_path / "curves.csv"
    path.write_text("\n".join(rows) + "\n")
    return path


def test_the_command_searches_a_table_and_writes_json_and_a_page(table: Path, tmp_path: Path) -> None:
    arguments = ["bench", "search", "--table", str(table), "--budget", "40", "--proposers", "insight,random"]
    arguments += ["--seeds", "3", "--trials", "30", "--processes", "2", "--json", "--out", str(tmp_path / "out")]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert found == json.loads((tmp_path / "out/search.json").read_text())
    (problem,) = found["problems"]
    assert problem["budget"] == 40
    assert 0 < problem["within_tolerance"] < problem["allocations"] < 100
    medians = {s["proposer"]: s["trials"]["median"] for s in found["summaries"]}
    assert medians["insight"] <= 4
    page = (tmp_path / "out/search.html").read_text()
    assert "curves" in page
    assert "http://" not in page.split("</script>")[-1]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--family", "five-stage"], "no family five-stage"),
        (["--table", "absent.csv", "--budget", "1"], "absent.csv: cannot be read"),
        (["--budget", "1"], "--budget belongs to --table"),
        (["--proposers", " , "], "names nobody"),
        (
            ["--proposers", "insight,oracle", "--pipelines", "1", "--seeds", "1", "--trials", "1", "--processes", "1"],
            "oracle",
        ),
        (["--proposers", "insight-without-luck", "--pipelines", "1", "--processes", "1"], "luck"),
    ],
)
def test_bad_arguments_are_explained(arguments: list[str], message: str) -> None:
    result = CliRunner().invoke(app, ["bench", "search", *arguments])
    assert result.exit_code == 2
    assert message in " ".join(result.output.split())
