"""``apportion bench``: proposers against each other, on problems whose optimum is known."""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Annotated

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from api.command import output
from env.errors import ApportionError
from planner.bench.figures import search_page
from planner.bench.measures import TOLERANCE, Reach
from planner.bench.simulator import FAMILIES
from planner.bench.suite import BenchResult, ProblemRef, SearchBench, family_problems, run_bench, table_problem

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
    budget: Annotated[
        list[float] | None, typer.Option("--budget", help="Cost per query allowed in each table, in the same order.")
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
            tuple(_problems(table or [], budget or [], family or [], pipelines)),
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


def _problems(tables: list[Path], budgets: list[float], families: list[str], pipelines: int) -> list[ProblemRef]:
    if len(budgets) not in (0, 1, len(tables)):
        raise ApportionError(f"--budget is given {len(budgets)} times for {len(tables)} tables: once, or once for each")
    if budgets and not tables:
        raise ApportionError("--budget belongs to --table; simulated pipelines have budgets of their own")
    limits: list[float | None] = [*(budgets * len(tables) if len(budgets) == 1 else budgets)] or [None] * len(tables)
    found = [table_problem(path, limit) for path, limit in zip(tables, limits, strict=True)]
    names = list(FAMILIES) if "all" in families or not (families or tables) else families
    unknown = [name for name in names if name not in FAMILIES]
    if unknown:
        raise ApportionError(f"no family {', '.join(unknown)}; there are {', '.join(FAMILIES)}")
    return found + family_problems(names, pipelines)


def _run(bench: SearchBench, quiet: bool) -> BenchResult:
    columns = (TextColumn("searches"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=output.err, disable=quiet, transient=True) as progress:
        task = progress.add_task("searches", total=None)
        return run_bench(bench, lambda done, total: progress.update(task, completed=done, total=total))


def _show(result: BenchResult) -> None:
    bench = result.bench
    table = Table(
        "problems",
        "proposer",
        f"trials to within {bench.tolerance:g}",
        "p90",
        "never",
        "new draws to it",
        "regret at 10",
        "ms a trial",
        title=f"{bench.seeds} seeds, at most {bench.trials} trials, {bench.batch} a round; medians with 95% intervals",
    )
    for s in result.summaries:
        regret = s.simple_regret.get(10)
        table.add_row(
            s.group,
            s.proposer,
            _interval(s.trials),
            _number(s.trials.p90),
            f"{s.trials.never:.0%}",
            _interval(s.draws),
            "" if regret is None else f"{regret[0]:.4f}",
            f"{s.milliseconds:.0f}",
        )
    output.out.print(table)
    for c in result.comparisons:
        output.out.print(
            f"{c.group}: {c.proposer} needs {c.ratio:.2f} ({c.low:.2f} to {c.high:.2f}) "
            f"of the {c.measure} of {c.rival}",
            highlight=False,
        )


def _interval(reach: Reach) -> str:
    return f"{_number(reach.median)} ({_number(reach.median_low)} to {_number(reach.median_high)})"


def _number(value: float) -> str:
    return "never" if math.isinf(value) else f"{value:g}"
