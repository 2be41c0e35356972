"""``apportion bench``: proposers against each other, on problems whose optimum is known."""

from __future__ import annotations

import math
import os
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer
from rich.box import SIMPLE_HEAD
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from api.command import output
from env.errors import ApportionError
from planner.bench.figures import search_page
from planner.bench.measures import TOLERANCE, Reach
from planner.bench.recorded import SAMPLES, PoolSource
from planner.bench.simulator import FAMILIES
from planner.bench.suite import (
    BenchResult,
    ProblemRef,
    SearchBench,
    family_problems,
    pool_problem,
    run_bench,
    table_problem,
)

WIDTH = 118
"""Columns of the table where nothing says how many there are."""


class PoolCost(StrEnum):
    """Units of a pool's costs."""

    tokens = "tokens"
    agenttts = "agenttts"


app = typer.Typer(no_args_is_help=True, help="Benchmarks of the search.")


@app.callback()
def main() -> None:
    """Benchmarks of the search."""


@app.command()
def search(
    proposers: Annotated[
        str,
        typer.Option(
            help="Who takes part, by commas; the first is compared with every other. Parts of the method are left out "
            "by name: insight-without-insight1, -insight2, -insight3, -bank, -racing."
        ),
    ] = "insight,random",
    table: Annotated[
        list[Path] | None, typer.Option("--table", help="A CSV of recorded allocations; may be given several times.")
    ] = None,
    pool: Annotated[
        list[Path] | None,
        typer.Option("--pool", help="A Parquet file of recorded draws (docs/replay.md); may be given several times."),
    ] = None,
    gold: Annotated[
        list[Path] | None, typer.Option("--gold", help="The right answers of each pool, in the same order.")
    ] = None,
    unit: Annotated[
        PoolCost, typer.Option("--unit", help="What a pool's allocations cost in, from the recorded tokens.")
    ] = PoolCost.tokens,
    samples: Annotated[
        str, typer.Option("--samples", help="Numbers of samples a stage of a pool may take, by commas.")
    ] = ",".join(map(str, SAMPLES)),
    budget: Annotated[
        list[float] | None,
        typer.Option("--budget", help="Cost per query allowed in each table, then in each pool; once for all alike."),
    ] = None,
    family: Annotated[
        list[str] | None,
        typer.Option("--family", help=f"Simulated pipelines: {', '.join(FAMILIES)}, or all."),
    ] = None,
    pipelines: Annotated[int, typer.Option(min=1, help="Pipelines of each family.")] = 12,
    seeds: Annotated[int, typer.Option(min=1, help="Searches of each proposer on each problem.")] = 5,
    trials: Annotated[int, typer.Option(min=1, help="Trials of a search.")] = 60,
    batch: Annotated[int, typer.Option(min=1, help="Trials a round.")] = 1,
    tolerance: Annotated[float, typer.Option(min=0, help="Score below the optimum that counts as found.")] = TOLERANCE,
    processes: Annotated[int | None, typer.Option(min=1, help="All cores by default.")] = None,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Folder for search.json and search.html.")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print JSON for scripts.")] = False,
) -> None:
    """Measure how many trials and draws proposers need to come close to the known optimum."""
    with output.explained_errors():
        bench = SearchBench(
            (
                *_recorded(table or [], _pools(pool or [], gold or [], unit, samples), budget or []),
                *_simulated(family or [], pipelines, default=not (table or pool)),
            ),
            tuple(dict.fromkeys(name.strip() for name in proposers.split(",") if name.strip())),
            seeds,
            trials,
            batch,
            tolerance,
            processes or os.cpu_count() or 1,
        )
        if not bench.entrants:
            raise ApportionError("--proposers names nobody")
        result = _run(bench, quiet=json)
        if out is not None:
            output.write_json(out / "search.json", result.to_json())
            (out / "search.html").write_text(search_page(result), encoding="utf-8")
        if json:
            output.print_json(result.to_json())
        else:
            _show(result)


def _pools(pools: list[Path], golds: list[Path], unit: PoolCost, samples: str) -> list[PoolSource]:
    if len(golds) != len(pools):
        raise ApportionError(f"--gold is given {len(golds)} times for {len(pools)} pools: each pool needs one")
    try:
        counts = tuple(sorted({int(k) for k in samples.split(",")}))
    except ValueError:
        counts = ()
    if not counts or counts[0] < 1:
        raise ApportionError(f"--samples {samples!r}: whole numbers above 0 by commas, such as 1,2,4,8")
    return [PoolSource(str(pool), str(gold), unit.value, counts) for pool, gold in zip(pools, golds, strict=True)]


def _recorded(tables: list[Path], pools: list[PoolSource], budgets: list[float]) -> list[ProblemRef]:
    count = len(tables) + len(pools)
    if budgets and not count:
        raise ApportionError("--budget belongs to --table and --pool; simulated pipelines have budgets of their own")
    if len(budgets) not in (0, 1, count):
        raise ApportionError(
            f"--budget is given {len(budgets)} times for {len(tables)} tables and {len(pools)} pools: once, or once "
            "for each, tables first"
        )
    limits: list[float | None] = [*(budgets * count if len(budgets) == 1 else budgets)] or [None] * count
    of_tables, of_pools = limits[: len(tables)], limits[len(tables) :]
    return [
        *(table_problem(path, limit) for path, limit in zip(tables, of_tables, strict=True)),
        *(pool_problem(source, limit) for source, limit in zip(pools, of_pools, strict=True)),
    ]


def _simulated(families: list[str], pipelines: int, default: bool) -> list[ProblemRef]:
    names = list(FAMILIES) if "all" in families or (default and not families) else families
    unknown = [name for name in names if name not in FAMILIES]
    if unknown:
        raise ApportionError(f"no family {', '.join(unknown)}; there are {', '.join(FAMILIES)}")
    return family_problems(names, pipelines)


def _run(bench: SearchBench, quiet: bool) -> BenchResult:
    columns = (TextColumn("searches"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=output.err, disable=quiet, transient=True) as progress:
        task = progress.add_task("searches", total=None)
        return run_bench(bench, lambda done, total: progress.update(task, completed=done, total=total))


def _show(result: BenchResult) -> None:
    bench = result.bench
    output.out.print(
        f"{bench.seeds} seeds, at most {bench.trials} trials, {bench.batch} a round. Trials and new draws to within "
        f"{bench.tolerance:g} of the optimum: medians with 95% intervals.",
        highlight=False,
    )
    for group in dict.fromkeys(s.group for s in result.summaries):
        # A table a group: as a column, its name would squeeze those that hold numbers.
        output.out.print(f"[bold]{escape(group)}[/bold]")
        table = Table("proposer", "trials", "p90", "never", "new draws", "regret at 10", "ms a trial", box=SIMPLE_HEAD)
        for column in table.columns:
            column.no_wrap = True
        for s in result.summaries:
            if s.group != group:
                continue
            regret = s.simple_regret.get(10)
            table.add_row(
                s.proposer,
                _interval(s.trials),
                _number(s.trials.p90),
                f"{s.trials.never:.0%}",
                _interval(s.draws),
                "" if regret is None else f"{regret[0]:.4f}",
                f"{s.milliseconds:.0f}",
            )
        output.out.print(table, width=max(output.out.width, WIDTH))
    for c in result.comparisons:
        output.out.print(
            f"{c.group}: {c.proposer} needs {c.ratio:.2f} ({c.low:.2f} to {c.high:.2f}) "
            f"of the {c.measure} of {c.rival}",
            highlight=False,
        )


def _interval(reach: Reach) -> str:
    return f"{_number(reach.median)} ({_number(reach.median_low)} to {_number(reach.median_high)})"


def _number(value: float) -> str:
    if math.isinf(value):
        return "never"
    return f"{value / 1000:.3g}k" if value >= 10_000 else f"{value:g}"
