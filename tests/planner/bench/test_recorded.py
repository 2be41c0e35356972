from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from api.command import app
from env.allocation import Allocation, StageSetting
from env.backends.replay_import import import_qwen3
from env.backends.replay_pool import PoolError
from planner.bench.problem import Conditions
from planner.bench.recorded import PoolProblem, PoolSource
from tests.env.backends.pools import SHARED, a_draw, needs_qwen3, write_rows


def a_source(folder: Path, rows: list[dict[str, Any]], examples: int = 1, **more: Any) -> PoolSource:
    gold = folder / "gold.csv"
    gold.write_text("example,answer\n" + "".join(f"e{i},42\n" for i in range(examples)))
    return PoolSource(str(write_rows(folder / "pool.parquet", rows)), str(gold), **more)


def one_stage(answers: str, model: str = "Small-3B", **more: Any) -> list[dict[str, Any]]:
    """Draws of one example: r is right, w wrong, anything else has no answer."""
    texts = {"r": "42", "w": "7"}
    return [a_draw(i, texts.get(a), model=model, example="e0", **more) for i, a in enumerate(answers)]


def two_stages(examples: int = 12, draws: int = 8, seed: int = 0) -> list[dict[str, Any]]:
    """A reader that sees a fact or misses it, and a solver that is right far oftener with the fact."""
    generator = random.Random(seed)
    rows = []
    for e in range(examples):
        for model, skill in (("A-3B", 0.55), ("B-8B", 0.8)):
            for i in range(draws):
                seen = "fact" if generator.random() < skill else "noise"
                rows.append(a_draw(i, seen, stage="read", model=model, example=f"e{e}", tokens_out=10))
            for upstream, share in (('"fact"', skill), ('"noise"', 0.1)):
                for i in range(draws):
                    answer = "42" if generator.random() < share else str(generator.randrange(3))
                    rows.append(a_draw(i, answer, model=model, example=f"e{e}", upstream=[upstream], tokens_out=30))
    return rows


def one(model: str, samples: int, strategy: str = "vote") -> Allocation:
    return Allocation.of({"solve": StageSetting(model, strategy, samples)})


def test_a_vote_over_recorded_draws_has_its_exact_expectation(tmp_path: Path) -> None:
    problem = PoolProblem(a_source(tmp_path, one_stage("rrw."), samples=(1, 2, 3)))
    assert problem.truth(one("Small-3B", 1)) == pytest.approx(2 / 4)
    # Of the four subsets of three: rrw, rr. and twice rw. (a tie, won by the first drawn).
    assert problem.truth(one("Small-3B", 3)) == pytest.approx((1 + 1 + 0.5 + 0.5) / 4)
    assert problem.optimum == pytest.approx(0.75)


def test_recorded_verifier_scores_open_best_of_n(tmp_path: Path) -> None:
    rows = [{**row, "score": s} for row, s in zip(one_stage("rwww"), (0.9, 0.1, 0.2, 0.3), strict=True)]
    problem = PoolProblem(a_source(tmp_path, rows, samples=(1, 2)))
    assert problem.truth(one("Small-3B", 2, "best_of_n")) == pytest.approx(1 / 2)
    assert problem.truth(one("Small-3B", 2)) == pytest.approx(1 / 4)
    assert one("Small-3B", 1, "best_of_n") not in set(problem.space.allocations())


def test_a_pool_without_scores_offers_votes_alone(tmp_path: Path) -> None:
    problem = PoolProblem(a_source(tmp_path, one_stage("rwrw"), samples=(1, 2, 4, 8)))
    settings = problem.space.settings["solve"]
    assert {(s.strategy, s.samples) for s in settings} == {("vote", 1), ("vote", 2), ("vote", 4)}


def test_costs_are_recorded_tokens_or_agenttts_units(tmp_path: Path) -> None:
    rows = one_stage("rwrw", tokens_in=128, tokens_out=64)
    tokens = PoolProblem(a_source(tmp_path, rows, samples=(1, 4)))
    assert tokens.space.total(one("Small-3B", 4)) == 128 + 4 * 64
    units = PoolProblem(a_source(tmp_path, rows, samples=(1, 4), unit="agenttts"))
    # One unit is one more sample of a 3B model with these tokens.
    assert units.space.total(one("Small-3B", 4)) == pytest.approx(4)
    assert units.space.unit == "AgentTTS units"


def test_the_budget_bounds_what_may_be_proposed(tmp_path: Path) -> None:
    problem = PoolProblem(a_source(tmp_path, one_stage("rwrw"), samples=(1, 2, 4)), limit=220)
    assert [a["solve"].samples for a in problem.space.allocations()] == [1, 2]
    with pytest.raises(Exception, match="no allocation costs 5 or less; the cheapest costs 120"):
        PoolProblem(a_source(tmp_path, one_stage("rwrw"), samples=(1, 2, 4)), limit=5)


def test_two_stages_compose_over_every_answer_of_the_first(tmp_path: Path) -> None:
    rows = [
        *(a_draw(i, t, stage="read", model="m", example="e0") for i, t in enumerate(["fact", "fact", "noise", "fact"])),
        *(a_draw(i, "42", model="m", example="e0", upstream=['"fact"']) for i in range(2)),
        *(a_draw(i, t, model="m", example="e0", upstream=['"noise"']) for i, t in enumerate(["42", "7"])),
    ]
    problem = PoolProblem(a_source(tmp_path, rows, samples=(1,)))
    (only,) = problem.space.allocations()
    assert only.stages == ("read", "solve")
    assert problem.truth(only) == pytest.approx(3 / 4 * 1 + 1 / 4 * 1 / 2)


def test_an_allocation_whose_path_was_not_recorded_is_not_offered(tmp_path: Path) -> None:
    rows = [
        *(a_draw(i, "fact", stage="read", model="sure", example="e0") for i in range(2)),
        *(a_draw(i, t, stage="read", model="loose", example="e0") for i, t in enumerate(["fact", "unseen"])),
        a_draw(0, "42", model="m", example="e0", upstream=['"fact"']),
    ]
    problem = PoolProblem(a_source(tmp_path, rows, samples=(1,)))
    assert [a["read"].model for a in problem.space.allocations()] == ["sure"]
    with pytest.raises(PoolError, match="no recorded draws"):
        PoolProblem(a_source(tmp_path, [row for row in rows if row["model"] != "sure"], samples=(1,)))


def test_trials_average_to_the_truth_over_seeds(tmp_path: Path) -> None:
    problem = PoolProblem(a_source(tmp_path, two_stages(), 12, samples=(1, 3)))
    allocation = Allocation.of({"read": StageSetting("A-3B", "vote", 3), "solve": StageSetting("B-8B", "vote", 3)})
    shown = [problem.evaluator(seed).run(allocation, 1, 0).view.score for seed in range(400)]
    assert sum(shown) / len(shown) == pytest.approx(problem.truth(allocation), abs=0.015)


def test_a_draw_is_new_once_and_none_is_kept_without_a_bank(tmp_path: Path) -> None:
    problem = PoolProblem(a_source(tmp_path, one_stage("rwrwrrrr"), samples=(1, 2, 4)))
    trials = problem.evaluator(0)
    first, second = (trials.run(one("Small-3B", k), n, 0) for n, k in ((1, 2), (2, 4)))
    assert (first.view.new_draws, first.tokens) == (2, 20 + 200)
    assert (second.view.new_draws, second.tokens) == (2, 200)
    anew = problem.evaluator(0, Conditions(bank=False))
    assert [anew.run(one("Small-3B", k), n, 0).view.new_draws for n, k in ((1, 2), (2, 4))] == [2, 4]
    assert anew.run(one("Small-3B", 4), 3, 0).view.curves == {}


def test_curves_end_at_the_trial_and_use_only_draws_held(tmp_path: Path) -> None:
    problem = PoolProblem(a_source(tmp_path, two_stages(), 12, samples=(1, 2, 4)))
    allocation = Allocation.of({"read": StageSetting("A-3B", "vote", 4), "solve": StageSetting("A-3B", "vote", 2)})
    view = problem.evaluator(3).run(allocation, 1, 0).view
    assert [p.samples for p in view.curves["read"]] == [1, 2, 4]
    assert [p.samples for p in view.curves["solve"]] == [1, 2]
    for stage in ("read", "solve"):
        assert view.curves[stage][-1].score == pytest.approx(view.score)
        assert view.curves[stage][-1].coverage == pytest.approx(1)
    # Fewer readers give answers that this trial's solver never met.
    assert view.curves["read"][0].coverage < 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"example": "elsewhere"}, "none of its examples is in the gold table"),
        ({"upstream": ['"x"']}, "upstream must hold the answers of all earlier stages"),
    ],
)
def test_pools_that_are_no_chain_or_have_no_gold_are_refused(
    tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    with pytest.raises(PoolError, match=message):
        PoolProblem(a_source(tmp_path, [{**row, **change} for row in one_stage("rw")]))


def test_the_command_searches_a_pool_and_writes_the_same_measures(tmp_path: Path) -> None:
    source = a_source(tmp_path, two_stages(), 12)
    asked = ["bench", "search", "--pool", source.pool, "--gold", source.gold, "--budget", "200", "--seeds", "2"]
    run = CliRunner().invoke(
        app, [*asked, "--proposers", "insight,random", "--trials", "8", "--processes", "1", "--json"]
    )
    assert run.exit_code == 0, run.output
    result = json.loads(run.stdout)
    (problem,) = result["problems"]
    assert problem["name"] == f"{tmp_path.name}/pool"
    assert problem["allocations"] > 20
    assert [s["proposer"] for s in result["summaries"]] == ["insight", "random"]
    assert result["summaries"][0]["regret_per_token"] is not None


def test_the_table_for_people_fits_120_columns_and_cuts_nothing(tmp_path: Path) -> None:
    source = a_source(tmp_path, two_stages(), 12)
    names = ("insight-without-insight1", "insight-without-racing")
    asked = ["bench", "search", "--pool", source.pool, "--gold", source.gold, "--trials", "4", "--seeds", "1"]
    run = CliRunner(env={"COLUMNS": "120"}).invoke(app, [*asked, "--proposers", ",".join(names), "--processes", "1"])
    assert run.exit_code == 0, run.output
    lines = run.stdout.splitlines()
    assert max(map(len, lines)) <= 120
    assert "…" not in run.stdout
    # One line a proposer, all its numbers on it.
    for name in names:
        row = next(line for line in lines if line.strip().startswith(name))
        assert row.count(" to ") == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--pool", "p.parquet"], "each pool needs one"),
        (["--pool", "p.parquet", "--gold", "none.csv"], "no such file"),
        (["--pool", "p.parquet", "--gold", "g.csv", "--samples", "1,many"], "whole numbers above 0"),
        (["--pool", "p.parquet", "--gold", "g.csv", "--budget", "1", "--budget", "2"], "0 tables and 1 pools"),
        (["--family", "two-stage", "--budget", "1"], "belongs to --table and --pool"),
    ],
)
def test_the_command_says_what_is_wrong_with_a_pool(arguments: list[str], message: str) -> None:
    run = CliRunner().invoke(app, ["bench", "search", *arguments])
    assert run.exit_code != 0
    assert message in " ".join(run.output.split())


@needs_qwen3
def test_recorded_qwen3_solutions_are_a_problem(tmp_path: Path) -> None:
    folder = SHARED / "qwen3_math"
    import_qwen3(folder / "qwen3_aime_pools.parquet", folder / "qwen3_aime_questions.parquet", tmp_path)
    pool, gold = (next(tmp_path.glob(f"{name}.*")) for name in ("pool", "gold"))
    problem = PoolProblem(PoolSource(str(pool), str(gold), "agenttts", (1, 4)))
    # Majority vote on AIME24 at k = 4, as published: 1.7B 0.55, 8B 0.80 (means of 30 random subsets).
    assert problem.truth(one("Qwen3-1.7B", 4)) == pytest.approx(0.55, abs=0.02)
    assert problem.truth(one("Qwen3-8B", 4)) == pytest.approx(0.80, abs=0.02)
