"""Times the sample bank and a study's k-curves at scale, on SQLite in a temporary file.

    python -m benchmarks.bank                  # a million draws: a few minutes; prints JSON
    python -m benchmarks.bank --draws 100000   # a tenth of it

Draws come eight to a prompt; every fourth text is new, as small models repeat themselves. "before" is the schema of
revision 0002, filled with the same draws. Commits are as the archive makes them (WAL, synchronous=NORMAL: they survive
the process, not a power cut) and, for comparison, with synchronous=FULL.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import platform
import random
import sqlite3
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from sqlalchemy import event, text

from env.allocation import Allocation, StageSetting
from env.backends import Draw, ModelIdentity
from env.execution.evidence import CurvePoint, ExampleEvidence, Spend, StageOutcome, TrialResult
from planner.archive import Archive, migrate, open_archive, open_engine
from planner.archive.evidence import aggregated_curves

DRAWS_A_PROMPT = 8
BATCH = 1000
MODEL = ModelIdentity("small", "0f" * 32)
TRIALS, EXAMPLES, STAGES, POINTS = 50, 500, 3, 8


def main() -> None:
    """Run and print one JSON document."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--draws", type=int, default=1_000_000)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        result: dict[str, Any] = {
            "benchmark": "sample_bank",
            "draws": asked.draws,
            "sqlite": sqlite3.sqlite_version,
            "python": platform.python_version(),
        }
        result["before"] = _before(folder, asked.draws)
        result["after"] = _after(folder, asked.draws)
        result["study_curves"] = _curves(folder)
    result["load_at_end"] = round(os.getloadavg()[0], 1)
    json.dump(result, sys.stdout, indent=2)
    sys.stdout.write("\n")


def prompts_of(draws: int, name: str = "prompt") -> Iterator[str]:
    """Content keys of as many prompts as these draws take."""
    for number in range(draws // DRAWS_A_PROMPT):
        yield hashlib.sha256(f"{name} {number}".encode()).hexdigest()


def some_draws(generator: random.Random, variety: int, number: int = DRAWS_A_PROMPT) -> list[Draw]:
    """Draws of one prompt; texts are taken from `variety` different ones."""
    return [
        Draw(
            index,
            f"the sum of the ledger is {generator.randrange(variety)}, as the last row says",
            "stop",
            120,
            17,
            -generator.random() * 9,
            origin="6f1c2d9a4b7e/round-3",
        )
        for index in range(number)
    ]


def _before(folder: Path, draws: int) -> dict[str, Any]:
    """Size and speed of revision 0002, and how long its upgrade takes."""
    engine = open_engine(f"sqlite:///{folder}/before.db")
    migrate(engine, "0002")
    generator = random.Random(0)
    insert = (
        'INSERT OR IGNORE INTO draws (prompt_key, "index", model_name, model_revision, text, finish_reason, '
        "prompt_tokens, output_tokens, logprob, score, origin, created_at) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
    )

    def settle(keys: list[str], each: int = DRAWS_A_PROMPT) -> None:
        rows = [
            (
                k,
                d.index,
                MODEL.name,
                MODEL.revision,
                d.text,
                d.finish_reason,
                120,
                17,
                d.logprob,
                None,
                d.origin,
                MOMENT,
            )
            for k in sorted(keys)
            for d in some_draws(generator, draws // 4, each)
        ]
        with engine.begin() as connection:
            connection.exec_driver_sql(insert, rows)

    keys = list(prompts_of(draws))
    for start in range(0, len(keys), 5000):
        settle(keys[start : start + 5000])
    times = [_timed(lambda n=n: settle(list(prompts_of(BATCH, f"before {n}")))) for n in range(30)]
    size = _bytes(engine)
    started = time.perf_counter()
    migrate(engine)
    upgraded = time.perf_counter() - started
    with engine.connect() as connection:
        moved = connection.execute(text("SELECT count(*) FROM draws")).scalar_one()
    engine.dispose()
    held = draws // DRAWS_A_PROMPT * DRAWS_A_PROMPT + 30 * BATCH
    assert moved == held, "the upgrade lost draws"
    return {
        "bytes_per_draw": round(size / held, 1),
        "write_1000_draws_ms": _spread(times),
        "upgrade_s": round(upgraded, 1),
    }


MOMENT = "2026-01-02 03:04:05.000000"


def _after(folder: Path, draws: int) -> dict[str, Any]:
    generator = random.Random(0)
    with open_archive(f"sqlite:///{folder}/after.db") as archive:
        keys = list(prompts_of(draws))
        started = time.perf_counter()
        for start in range(0, len(keys), 5000):
            chunk = keys[start : start + 5000]
            archive.bank.settle(MODEL, {key: some_draws(generator, draws // 4) for key in chunk})
        built = time.perf_counter() - started
        result: dict[str, Any] = {"build_draws_per_s": round(draws / built)}
        result["bytes_per_draw"] = round(_bytes(archive.engine) / draws, 1)
        result["write_1000_draws_ms"] = _writes(archive, generator, draws, "normal")
        result["write_1000_single_draws_ms"] = _spread(
            [_timed(_settling(archive, generator, draws, f"single {n}", prompts=BATCH, each=1)) for n in range(30)]
        )
        result["write_again_1000_draws_ms"] = _spread(
            [_timed(_settling(archive, generator, draws, "normal 0")) for _ in range(10)]
        )
        sample = [generator.sample(keys, 1000) for _ in range(20)]
        result["read_1000_prompts_ms"] = _spread([_timed(lambda s=s: archive.bank.held(s)) for s in sample])
    engine = open_engine(f"sqlite:///{folder}/after.db")
    event.listen(engine, "connect", lambda connection, _: connection.execute("PRAGMA synchronous = FULL"))
    with Archive(engine) as archive:
        result["write_1000_draws_synchronous_full_ms"] = _writes(archive, generator, draws, "full")
    return result


def _writes(archive: Archive, generator: random.Random, draws: int, name: str) -> dict[str, float]:
    return _spread([_timed(_settling(archive, generator, draws, f"{name} {n}")) for n in range(100)])


def _settling(
    archive: Archive,
    generator: random.Random,
    draws: int,
    name: str,
    prompts: int = BATCH // DRAWS_A_PROMPT,
    each: int = DRAWS_A_PROMPT,
) -> Callable[[], object]:
    """Settling a batch that was made beforehand."""
    batch = {key: some_draws(generator, draws // 4, each) for key in prompts_of(prompts * DRAWS_A_PROMPT, name)}
    return lambda: archive.bank.settle(MODEL, batch)


def _curves(folder: Path) -> dict[str, Any]:
    """A study's k-curves: as the trials carry them, and summed anew from all evidence rows."""
    generator = random.Random(1)
    with open_archive(f"sqlite:///{folder}/study.db") as archive:
        archive.studies.create("s", "s", {}, seed=0)
        recorded = [_timed(_recording(archive, number, generator)) for number in range(TRIALS)]
        reads = [_timed(lambda: archive.trials.list("s")) for _ in range(20)]
        summed = _timed(lambda: [aggregated_curves(archive.trials.evidence("s", n)) for n in range(TRIALS)])
        assert aggregated_curves(archive.trials.evidence("s", 7)) == archive.trials.get("s", 7).curves
    return {
        "trials": TRIALS,
        "examples": EXAMPLES,
        "stages": STAGES,
        "points_per_curve": POINTS,
        "read_all_ms": _spread(reads),
        "sum_all_evidence_again_ms": round(summed[0] * 1e3, 1),
        "record_one_trial_ms": _spread(recorded),
    }


def _recording(archive: Archive, number: int, generator: random.Random) -> Callable[[], object]:
    names = [f"stage{n}" for n in range(STAGES)]
    points = [2**n for n in range(POINTS)]
    evidence = []
    for place in range(EXAMPLES):
        outcomes = tuple(
            StageOutcome(name, '"42"', hashlib.sha256(f"{name} {place}".encode()).hexdigest(), 64, 128, 120, 999)
            for name in names
        )
        curves = {
            name: tuple(CurvePoint(k, generator.random() * 0.9, 0.9 + generator.random() / 10, 128) for k in points)
            for name in names
        }
        score = generator.random()
        evidence.append(ExampleEvidence(f"example-{place}", "scored", score, 1.0, "", outcomes, curves, 1.5e12))
    allocation = Allocation.of({name: StageSetting("small", "vote", number + 1) for name in names})
    result = TrialResult(allocation, tuple(evidence), 1.0e12, 1.5e12, Spend(9, 9, 9, 9, 9.0, 9.0))
    return lambda: archive.trials.record("s", number, "search", 0, result, "flops")


def _timed(work: Callable[[], object]) -> tuple[float, float]:
    """Seconds it took by the clock, and of this process's CPU time: on a busy machine the two differ much."""
    started, used = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - started, time.process_time() - used


def _spread(times: list[tuple[float, float]]) -> dict[str, float]:
    """Milliseconds."""
    ordered = sorted(clock for clock, _ in times)
    return {
        "median": round(statistics.median(ordered) * 1e3, 1),
        "p95": round(ordered[min(len(ordered) - 1, int(0.95 * len(ordered)))] * 1e3, 1),
        "cpu_median": round(statistics.median(cpu for _, cpu in times) * 1e3, 1),
    }


def _bytes(engine: Any) -> int:
    with engine.connect() as connection:
        pages, free, size = (
            connection.exec_driver_sql(f"PRAGMA {n}").scalar_one()
            for n in ("page_count", "freelist_count", "page_size")
        )
    return int((pages - free) * size)


if __name__ == "__main__":
    main()
