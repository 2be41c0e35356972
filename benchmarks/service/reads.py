"""Asks a service on a large archive for every page and every list, one after the other."""

from __future__ import annotations

import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx

from benchmarks.service.archive import LONG, build
from benchmarks.service.figures import machine, percentile
from benchmarks.service.process import Served, served
from planner.archive import open_archive

REPEATS = 5
TARGET_MS = 300
LIMIT = 200
"""Items of a list's page, as many as may be asked for."""

STUDY = f"/api/v1/studies/{LONG}"


def _lists(trial: int) -> tuple[str, ...]:
    return (
        "/api/v1/studies",
        "/api/v1/studies?q=night",
        "/api/v1/studies?status=done&name=night",
        f"{STUDY}/trials",
        f"{STUDY}/trials?curves=false",
        f"{STUDY}/trials?split=test",
        f"{STUDY}/trials?status=failed",
        f"{STUDY}/trials/{trial}/examples",
        f"{STUDY}/proposals",
        f"{STUDY}/proposals?verdict=refused",
        f"{STUDY}/proposals?origin=call",
        f"{STUDY}/guidelines",
        f"{STUDY}/ledgers/entries",
        "/api/v1/plans",
        "/api/v1/plans?kind=chosen&name=night",
        "/api/v1/pipelines",
        "/api/v1/datasets",
        "/api/v1/models",
    )


def _others(trial: int) -> tuple[str, ...]:
    return (
        STUDY,
        f"{STUDY}/plan",
        f"{STUDY}/ledgers",
        f"{STUDY}/notes",
        f"{STUDY}/trials/{trial}",
        f"/api/v1/plans/{LONG}",
        "/api/v1/schedules",
        "/api/v1/schedules/schedule-00",
        "/api/v1/schedules/schedule-00/runs",
        "/api/v1/fleet",
        "/v1/models",
        "/healthz",
        "/readyz",
        "/metrics",
    )


def _pages(trial: int) -> tuple[str, ...]:
    return (
        "/",
        "/?status=done&name=night",
        "/studies/new",
        f"/studies/new?like={LONG}",
        f"/studies/{LONG}",
        f"/studies/{LONG}?sort=score&order=down&page=100",
        f"/studies/{LONG}/live",
        f"/studies/{LONG}/figures.json",
        f"/studies/{LONG}/trials/{trial}",
        f"/studies/{LONG}/trials/{trial}/figures.json",
        f"/studies/{LONG}/plan",
        "/plans",
        f"/plans/{LONG}",
        "/schedules",
        "/schedules/schedule-00",
        "/fleet",
        "/api",
    )


def measure_reads(folder: Path | None, draws: int, trials: int, repeats: int = REPEATS) -> dict[str, Any]:
    """Build the archive where it is missing, serve it, and time what it answers.

    Args:
        folder: keeps the archive for the next run; None for a temporary one.
        draws: of the sample bank.
        trials: of the long study.
        repeats: how often each address is asked for, after once to warm up.
    """
    with tempfile.TemporaryDirectory() as temporary:
        home = Path(temporary, "home")
        kept = _built(folder or Path(temporary), draws, trials)
        home.mkdir()
        shutil.copyfile(kept, home / "archive.db")
        before = machine()
        with served(home) as service, closing(httpx.Client(base_url=service.url, timeout=120, trust_env=False)) as http:
            _upload(http)
            found = {name: _timed(service, http, name, repeats) for name in _addresses(http, trials // 2)}
            walks = {name: _walked(service, http, name, repeats) for name in _lists(trials // 2)}
            stream = _events(http, repeats)
    slow = sorted(
        name
        for name, one in [*found.items(), *((f"{n} ({p})", w[p]) for n, w in walks.items() for p in w if p != "pages")]
        if one.get("median_ms", 0) >= TARGET_MS
    )
    return {
        "machine": before,
        "load_average_1m_at_end": machine()["load_average_1m"],
        "draws": draws,
        "trials": trials,
        "archive_mb": round(kept.stat().st_size / 1e6),
        "repeats": repeats,
        "target_ms": TARGET_MS,
        "median_at_or_above_target": slow,
        "lists": walks,
        "addresses": found,
        "first_200_events": stream,
    }


def _built(folder: Path, draws: int, trials: int) -> Path:
    file = folder / f"archive-{draws}-{trials}.db"
    if not file.exists():
        folder.mkdir(parents=True, exist_ok=True)
        unfinished = folder / "unfinished.db"
        for old in folder.glob("unfinished.db*"):
            old.unlink()
        print(f"building an archive of {draws:,} draws and {trials:,} trials in {folder} ...", file=sys.stderr)
        with open_archive(f"sqlite:///{unfinished}") as archive:
            build(archive, draws, trials)
        shutil.move(unfinished, file)
    return file


def _upload(http: httpx.Client) -> None:
    """A data set whose rows are a list too."""
    rows = "".join(f'{{"question": "What is {n} and {n}?", "answer": "{2 * n}"}}\n' for n in range(20_000))
    headers = {"content-type": "application/x-ndjson"}
    http.post("/api/v1/datasets?name=many-rows", content=rows, headers=headers).raise_for_status()


def _addresses(http: httpx.Client, trial: int) -> Iterator[str]:
    yield from _others(trial)
    yield from _pages(trial)
    examples = http.get(f"{STUDY}/trials/{trial}/examples?limit=1").json()["items"]
    for example in examples:
        name = quote(example["example_id"], safe="")
        yield f"{STUDY}/trials/{trial}/examples/{name}"
        yield f"/studies/{LONG}/trials/{trial}/examples/{name}"


def _timed(service: Served, http: httpx.Client, address: str, repeats: int) -> dict[str, Any]:
    """Median and longest time, and the processor time that the service took for it (median)."""
    answer = http.get(address)
    if answer.status_code >= 300:
        return {"status": answer.status_code}
    return {**_repeated(service, lambda: http.get(address), repeats), "kib": round(len(answer.content) / 1024, 1)}


def _repeated(service: Served, ask: Callable[[], object], repeats: int) -> dict[str, float]:
    times, spent = [], []
    for _ in range(repeats):
        cpu, started = service.cpu_ms(), time.perf_counter()
        ask()
        times.append(1000 * (time.perf_counter() - started))
        spent.append(service.cpu_ms() - cpu)
    return {
        "median_ms": round(percentile(times, 0.5), 1),
        "max_ms": round(max(times), 1),
        "cpu_ms": round(percentile(spent, 0.5), 1),
    }


def _walked(service: Served, http: httpx.Client, address: str, repeats: int) -> dict[str, Any]:
    """The first, the middle and the last page of a list, after walking through all of it."""
    mark = "&" if "?" in address else "?"
    first = following = f"{address}{mark}limit={LIMIT}"
    pages = [first]
    while True:
        answer = http.get(following)
        answer.raise_for_status()
        cursor = answer.json()["next"]
        if cursor is None:
            break
        following = f"{first}&cursor={cursor}"
        pages.append(following)
    places = {"first": pages[0], "middle": pages[len(pages) // 2], "last": pages[-1]}
    return {"pages": len(pages), **{place: _timed(service, http, one, repeats) for place, one in places.items()}}


def _events(http: httpx.Client, repeats: int) -> dict[str, float]:
    """Until a stream from the beginning has brought its first 200 events."""
    times = []
    for _ in range(repeats):
        started, seen = time.perf_counter(), 0
        with http.stream("GET", f"{STUDY}/events") as answer:
            for line in answer.iter_lines():
                seen += line.startswith("id:")
                if seen >= LIMIT:
                    break
        times.append(1000 * (time.perf_counter() - started))
    return {"median_ms": round(percentile(times, 0.5), 1), "max_ms": round(max(times), 1)}
