"""Proposers x problems x seeds, in parallel, and what came of them."""

from __future__ import annotations

import asyncio
import os
import platform
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from functools import lru_cache
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from env.errors import ApportionError
from planner.bench.entrants import open_entrant
from planner.bench.measures import TOLERANCE, Comparison, Summary, compare_searches, summarise
from planner.bench.problem import Problem
from planner.bench.recorded import PoolProblem, PoolSource, pool_name
from planner.bench.rehearsal import Rehearsal, rehearse
from planner.bench.simulator import FAMILIES, simulated
from planner.bench.table import TableProblem, read_table
from planner.proposers.random_proposer import RandomProposer

TABLES = "all tables"
"""Group of every table, where there are several."""


@dataclass(frozen=True)
class ProblemRef:
    """Where a problem comes from; small enough to be sent to another process."""

    group: str
    family: str = ""
    seed: int = 0
    table: str = ""
    limit: float | None = 0.0
    pool: PoolSource | None = None

    def open(self) -> Problem:
        """The problem itself.

        Raises:
            ApportionError: no such family, or the table or pool cannot be read.
        """
        return _opened(self)


@lru_cache(maxsize=4)
def _opened(ref: ProblemRef) -> Problem:
    if ref.pool is not None:
        return PoolProblem(ref.pool, ref.limit)
    if ref.table:
        assert ref.limit is not None
        return TableProblem(read_table(Path(ref.table)), ref.limit)
    if ref.family not in FAMILIES:
        raise ApportionError(f"no family {ref.family!r}; there are {', '.join(FAMILIES)}")
    return simulated(ref.family, ref.seed)


def family_problems(families: Iterable[str], count: int, first: int = 0) -> list[ProblemRef]:
    """`count` pipelines of each family, by consecutive seeds."""
    return [ProblemRef(name, family=name, seed=first + i) for name in families for i in range(count)]


def table_problem(path: Path, limit: float | None) -> ProblemRef:
    """A recorded table within a budget per query, in the unit of its costs; all of it where there is none.

    Raises:
        TableError: it cannot be read, or no row fits the budget.
    """
    table = read_table(path)
    limit = max(row.cost for row in table.rows) if limit is None else limit
    TableProblem(table, limit)
    return ProblemRef(table.name, table=str(path), limit=limit)


def pool_problem(source: PoolSource, limit: float | None) -> ProblemRef:
    """A pool of recorded draws within a budget per query; all of its allocations where there is none.

    Raises:
        ApportionError: it cannot be read, or nothing of it fits the budget.
    """
    ref = ProblemRef(pool_name(source), pool=source, limit=limit)
    ref.open()
    return ref


@dataclass(frozen=True)
class SearchBench:
    """What is run."""

    problems: tuple[ProblemRef, ...]
    entrants: tuple[str, ...]
    seeds: int
    trials: int
    batch: int = 1
    tolerance: float = TOLERANCE
    processes: int = 1


@dataclass(frozen=True)
class _Job:
    problem: ProblemRef
    entrant: str
    seed: int
    trials: int
    batch: int


@dataclass(frozen=True)
class BenchResult:
    """What came of it."""

    bench: SearchBench
    searches: tuple[tuple[str, Rehearsal], ...]
    """With the group of their problem."""

    summaries: tuple[Summary, ...]
    comparisons: tuple[Comparison, ...]
    """Of the first entrant with every other."""

    def to_json(self) -> dict[str, Any]:
        """Everything but the single trials."""
        return {
            "benchmark": "search",
            "tolerance": self.bench.tolerance,
            "trials": self.bench.trials,
            "batch": self.bench.batch,
            "seeds": self.bench.seeds,
            "python": platform.python_version(),
            "cores": os.cpu_count(),
            "problems": [_described(ref, self.bench.tolerance) for ref in self.bench.problems],
            "summaries": [s.to_json() for s in self.summaries],
            "comparisons": [c.to_json() for c in self.comparisons],
        }


def _described(ref: ProblemRef, tolerance: float) -> dict[str, Any]:
    problem = ref.open()
    scores = [problem.truth(a) for a in problem.space.allocations()]
    close = sum(s >= problem.optimum - tolerance - 1e-12 for s in scores)
    return {
        "name": problem.name,
        "group": ref.group,
        "allocations": len(scores),
        "optimum": problem.optimum,
        "within_tolerance": close,
        # Expected position of the first of `close` among `n` in random order.
        "random_search_expects": (len(scores) + 1) / (close + 1),
        "budget": problem.space.limit,
    }


def run_bench(bench: SearchBench, progress: Callable[[int, int], None] | None = None) -> BenchResult:
    """Run every search, on several processes where asked.

    Args:
        bench: what to run.
        progress: told how many searches of how many have ended.

    Raises:
        ApportionError: an entrant or problem cannot be opened, or a process died.
    """
    jobs = [
        _Job(problem, entrant, seed, bench.trials, bench.batch)
        for problem in bench.problems
        for entrant in bench.entrants
        for seed in range(bench.seeds)
    ]
    done: dict[int, Rehearsal] = {}

    def note(position: int, search: Rehearsal) -> None:
        done[position] = search
        if progress is not None:
            progress(len(done), len(jobs))

    if bench.processes == 1:
        for i, job in enumerate(jobs):
            note(i, _run(job))
    else:
        _in_processes(jobs, bench.processes, note)
    searches = tuple((job.problem.group, done[i]) for i, job in enumerate(jobs))
    return BenchResult(bench, searches, *_judged(bench, searches))


def _in_processes(jobs: Sequence[_Job], processes: int, note: Callable[[int, Rehearsal], None]) -> None:
    # One thread a process: the matrices are small, and processes share the cores already.
    inherited = {name: os.environ.get(name) for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS")}
    os.environ.update(dict.fromkeys(inherited, "1"))
    try:
        with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
            futures = {pool.submit(_run, job): i for i, job in enumerate(jobs)}
            for future in as_completed(futures):
                note(futures[future], future.result())
    except BrokenProcessPool as error:
        raise ApportionError(
            f"a benchmark process died (out of memory, or killed): run it with fewer processes ({error})"
        ) from error
    finally:
        for name, value in inherited.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})


def _run(job: _Job) -> Rehearsal:
    return asyncio.run(_searched(job))


async def _searched(job: _Job) -> Rehearsal:
    problem = job.problem.open()
    async with open_entrant(job.entrant, problem, job.seed, job.batch) as entrant:
        fill = entrant.fill or RandomProposer(problem.space, job.seed, job.batch)
        return await rehearse(
            problem, entrant.proposer, job.entrant, fill, job.seed, job.trials, job.batch, entrant.conditions
        )


def _judged(
    bench: SearchBench, searches: Sequence[tuple[str, Rehearsal]]
) -> tuple[tuple[Summary, ...], tuple[Comparison, ...]]:
    groups = list(dict.fromkeys(ref.group for ref in bench.problems))
    tables = {ref.group for ref in bench.problems if ref.table}
    members = {group: {group} for group in groups}
    if len(tables) > 1:
        members[TABLES] = tables
    summaries, comparisons = [], []
    for group, of in members.items():
        by = {e: [s for g, s in searches if g in of and s.proposer == e] for e in bench.entrants}
        summaries += [summarise(entrant, group, by[entrant], bench.tolerance) for entrant in bench.entrants]
        first, *rest = bench.entrants
        comparisons += [
            compare_searches(by[first], by[rival], group, measure, bench.tolerance)
            for rival in rest
            for measure in ("trials", "draws")
        ]
    return tuple(summaries), tuple(comparisons)
