"""Counts how often stated 95% intervals hold the truth, and what the correction for the choice is worth.

    python -m benchmarks.coverage                    # 1,000 studies of each of 16 families; writes JSON
    python -m benchmarks.coverage --studies 60       # a quick look, printed only

Every interval comes from `planner.evidence`, the functions that a real study's plan goes through.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, replace
from functools import reduce
from pathlib import Path
from typing import Any

from benchmarks.coverage.judging import Record, judge
from benchmarks.coverage.population import Family, families
from benchmarks.coverage.racing import race
from planner.loop.racing import Racing

RESULTS = Path(__file__).parents[1] / "results" / "coverage.json"
FULL = 1000
CHUNK = 50
"""Studies of one task of the pool."""

RACED_PART = 10
"""Racing is measured on one study in so many."""

WIDE = 1.0
"""Spread of true scores in logits where a search sees good and bad allocations, as the demo's does."""

RULES: tuple[Racing, ...] = ("exact", "betting")

BAND = (0.93, 0.97)
"""What the coverage of a 95% interval is asked to be."""


def measure(chosen: Sequence[Family], count: int, seed: int, processes: int) -> dict[str, Record]:
    """Records by family, the same for any number of processes."""
    tasks = [
        (family, min(CHUNK, count - start), seed * 1_000_003 + start)
        for family in chosen
        for start in range(0, count, CHUNK)
    ]
    with ProcessPoolExecutor(processes) as pool:
        records = list(pool.map(_task, tasks))
    found: dict[str, Record] = {}
    for (family, _, _), record in zip(tasks, records, strict=True):
        found[family.name] = found.get(family.name, Record()).joined(record)
    return found


def _task(task: tuple[Family, int, int]) -> Record:
    return judge(*task)


def summary(chosen: Sequence[Family], records: dict[str, Record], count: int, seconds: float) -> dict[str, Any]:
    """All figures as JSON data."""
    together = reduce(lambda a, b: a.joined(b), records.values())
    return {
        "studies": count * len(chosen),
        "studies_of_each_family": count,
        "seconds": round(seconds, 1),
        "band": BAND,
        "all": _figures(together),
        "families": [{**asdict(family), **_figures(records[family.name])} for family in chosen],
        "racing": raced(chosen, max(1, count // RACED_PART)),
    }


def raced(chosen: Sequence[Family], count: int) -> list[dict[str, Any]]:
    """What each rule of racing saves and costs, where allocations are alike, differ a little, and differ much."""
    return [
        {
            "family": family.name,
            "spread": spread,
            "studies": count,
            **{rule: race(replace(family, spread=spread), rule, count, 1).figures() for rule in RULES},
        }
        for family in chosen
        for spread in ((family.spread, WIDE) if family.spread else (0.0,))
    ]


def _figures(record: Record) -> dict[str, Any]:
    total = sum(record.verdicts.values())
    return {
        "intervals": {name: tally.figures() for name, tally in record.tallies.items()},
        "verdicts": {name: round(record.verdicts[name] / total, 4) for name in sorted(record.verdicts)},
    }


def main() -> None:
    """Measure, print, and write the results of a full run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--studies", type=int, default=FULL, help="of each family")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--processes", type=int, default=2)
    arguments = parser.parse_args()
    started = time.monotonic()
    chosen = families()
    records = measure(chosen, arguments.studies, arguments.seed, arguments.processes)
    result = summary(chosen, records, arguments.studies, time.monotonic() - started)
    text = json.dumps(result, indent=1)
    if arguments.studies >= FULL:
        RESULTS.write_text(text + "\n", encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
