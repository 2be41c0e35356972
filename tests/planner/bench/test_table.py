from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from env.allocation import Allocation, StageSetting
from planner.bench.table import TableError, TableProblem, read_table

HEAD = "find.model,find.samples,find.score,solve.model,solve.samples,score,cost"
ROWS = [
    "7B,1,0.5,org/Large-70B,1,0.40,80",
    "7B,10,0.7,org/Large-70B,1,0.55,89",
    "7B,1,0.5,org/Large-70B,2,0.45,150",
    "72B,1,0.8,org/Large-70B,1,0.60,151",
]


def written(folder: Path, *lines: str, name: str = "paper.csv") -> Path:
    path = folder / name
    path.write_text("\n".join(lines) + "\n")
    return path


def test_a_table_is_read_with_its_own_names_costs_and_stage_scores(tmp_path: Path) -> None:
    problem = TableProblem(read_table(written(tmp_path, HEAD, *ROWS)), 150)
    allocations = list(problem.space.allocations())
    assert len(allocations) == 3
    assert problem.optimum == 0.55
    best = Allocation.of({"find": StageSetting("7B", "vote", 10), "solve": StageSetting("org/Large-70B", "vote", 1)})
    assert problem.truth(best) == 0.55
    view = problem.evaluator(0).run(best, 1, 0).view
    assert (view.score, view.cost, view.stage_scores, view.new_draws) == (0.55, 89, {"find": 0.7}, 11)


def test_only_recorded_allocations_within_the_budget_may_be_proposed(tmp_path: Path) -> None:
    space = TableProblem(read_table(written(tmp_path, HEAD, *ROWS)), 150).space
    over = Allocation.of({"find": StageSetting("72B", "vote", 1), "solve": StageSetting("org/Large-70B", "vote", 1)})
    assert "over budget" in space.faults(over)[0]
    assert space.faults(over.replace("find", StageSetting("72B", "vote", 7))) == ["the table has no such allocation"]


def test_what_a_sample_costs_orders_the_models_by_size(tmp_path: Path) -> None:
    rows = [
        f"{a},{j},0.5,{b},{k},0.5,{size_a * (4 + j) + size_b * (2 + k)}"
        for a, size_a in (("a", 7), ("b", 72))
        for b, size_b in (("c", 3), ("d", 70))
        for j in (1, 2, 5)
        for k in (1, 4)
    ]
    space = TableProblem(read_table(written(tmp_path, HEAD, *rows)), 1e9).space
    assert space.sizes("find") == pytest.approx({"a": 7, "b": 72})
    assert space.sizes("solve") == pytest.approx({"c": 3, "d": 70})


def test_gzip_strategies_and_knobs_are_taken(tmp_path: Path) -> None:
    text = (
        "s.model,s.samples,s.strategy,s.documents,score,cost\n"
        "m,2,best_of_n,5,0.5,1\nm,2,majority,5,0.4,1\nm,2,majority,10,0.3,1\n"
    )
    path = tmp_path / "t.csv.gz"
    path.write_bytes(gzip.compress(text.encode()))
    settings = [row.allocation["s"] for row in read_table(path).rows]
    assert settings[0] == StageSetting("m", "best_of_n", 2, (("documents", 5),))
    # A word that is no strategy of ours still tells settings apart.
    assert settings[1].knob("strategy") == "majority"
    assert len(set(settings)) == 3


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["a,b", "1,2"], "no column <stage>.model"),
        (["s.model,score,cost", "m,1,1"], "no column s.samples"),
        ([HEAD, "7B,1,0.5,L,1,high,80"], "row 2, score: 'high' is no number"),
        ([HEAD, "7B,1,0.5,L,1,nan,80"], "row 2, score: 'nan' is no number"),
        ([HEAD, "7B,1.5,0.5,L,1,0.4,80"], "row 2, find.samples: 1.5 is no whole number"),
        ([HEAD, ",1,0.5,L,1,0.4,80"], "row 2, find.model: empty"),
        ([HEAD, "7B,1,0.5,L,1,0.4,-1"], "cost: -1 is below 0"),
        ([HEAD, "7B,1,0.5,L,1,0.4"], "row 2 has another number of fields"),
        ([HEAD, ROWS[0], ROWS[0]], "rows 2 and 3 are the same allocation"),
        ([HEAD], "has no rows"),
    ],
)
def test_a_table_with_faults_is_refused_with_the_place(tmp_path: Path, lines: list[str], message: str) -> None:
    with pytest.raises(TableError, match=message.replace("<", "<").replace("(", r"\(")):
        read_table(written(tmp_path, *lines))


def test_a_budget_no_row_meets_is_refused_with_the_cheapest(tmp_path: Path) -> None:
    with pytest.raises(TableError, match="the cheapest costs 80"):
        TableProblem(read_table(written(tmp_path, HEAD, *ROWS)), 10)


def test_a_missing_file_is_an_error_that_names_it(tmp_path: Path) -> None:
    with pytest.raises(TableError, match=r"absent\.csv: cannot be read"):
        read_table(tmp_path / "absent.csv")
