"""Many clients on one service: they submit studies until the queue is full, and read all the while."""

from __future__ import annotations

import asyncio
import json
import os
import random
import sqlite3
import time
from collections import Counter, defaultdict
from contextlib import closing, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from api.demo import demo_spec
from benchmarks.service.figures import machine, summary
from benchmarks.service.probe import probing
from benchmarks.service.process import Served, served

READS = {
    "list": 18,
    "list next page": 8,
    "list search": 4,
    "detail": 18,
    "trials": 12,
    "proposals": 4,
    "ledgers": 4,
    "page of studies": 10,
    "page of a study": 10,
    "live part of a study": 8,
    "metrics": 1,
    "events": 3,
}
"""What a client reads, by weight."""

EVENTS_S = 2.0
"""How long a client follows a study's events."""


def the_spec() -> dict[str, Any]:
    """The bundled demo on few examples: a study of some seconds, so that the worker is never idle."""
    spec = demo_spec().model_dump(mode="json")
    spec["name"] = "load"
    spec["data"].update(search=20, test=10)
    spec["budget"]["search"]["trials"] = 4
    spec["proposer"].update(kind="insight")
    return spec


@dataclass
class Record:
    """What the clients saw."""

    times: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    wrong: Counter[str] = field(default_factory=Counter)
    """Answers that are none of those a client expects, by kind and status."""

    keys: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))
    """Ids that were answered for each Idempotency-Key."""

    lag: list[float] = field(default_factory=list)
    """How much later than asked the clients' own loop ran, in milliseconds."""


class Client:
    """One user, with one connection, who thinks between two requests."""

    def __init__(self, served: Served, number: int, record: Record, studies: list[str], think_s: float) -> None:
        self._number = number
        self._record = record
        self._studies = studies
        self._think = think_s
        self._random = random.Random(number)
        self._body = json.dumps(the_spec()).encode()
        self._http = httpx.AsyncClient(base_url=served.url, timeout=60, verify=False, trust_env=False)

    async def run(self, requests: int, submissions: int, until: float) -> None:
        """So many requests, of them so many submissions; each tenth is sent twice, as after a lost answer."""
        turns = set(self._random.sample(range(requests), submissions))
        async with self._http:
            await asyncio.sleep(self._random.uniform(0, 2 * self._think))
            for turn in range(requests):
                if time.monotonic() > until:
                    self._record.wrong["out of time"] += 1
                    return
                if turn in turns:
                    await self._submit(f"client-{self._number}-{turn}", again=turn % 10 == 0)
                else:
                    kind = self._random.choices(list(READS), list(READS.values()))[0]
                    await self._read(kind)
                await asyncio.sleep(self._random.uniform(0, 2 * self._think))

    async def _submit(self, key: str, again: bool) -> None:
        headers = {"idempotency-key": key, "content-type": "application/json"}
        for _ in range(1 + again):
            answer = await self._timed("submit", "POST", "/api/v1/studies", content=self._body, headers=headers)
            if answer is not None:
                study = str(answer.json()["id"])
                self._record.keys[key].add(study)
                self._studies.append(study)

    async def _read(self, kind: str) -> None:
        study = self._random.choice(self._studies)
        api = f"/api/v1/studies/{study}"
        match kind:
            case "list":
                await self._timed(kind, "GET", "/api/v1/studies")
            case "list next page":
                first = await self._timed("list", "GET", "/api/v1/studies?limit=100")
                if first is not None and (cursor := first.json()["next"]):
                    await self._timed(kind, "GET", f"/api/v1/studies?limit=100&cursor={cursor}")
            case "list search":
                await self._timed(kind, "GET", f"/api/v1/studies?q=load&status=queued&name={study[:2]}")
            case "detail":
                await self._timed(kind, "GET", api)
            case "page of studies":
                await self._timed(kind, "GET", "/")
            case "page of a study":
                await self._timed(kind, "GET", f"/studies/{study}")
            case "live part of a study":
                await self._timed(kind, "GET", f"/studies/{study}/live")
            case "metrics":
                await self._timed(kind, "GET", "/metrics")
            case "events":
                await self._follow(api)
            case _:
                await self._timed(kind, "GET", f"{api}/{kind}")

    async def _follow(self, api: str) -> None:
        """Time to the head of a stream, which is then followed for a while."""
        started = time.perf_counter()
        try:
            async with self._http.stream("GET", f"{api}/events") as answer:
                self._note("events", started, answer.status_code)
                with suppress(TimeoutError):  # a queued study has no events for now
                    async with asyncio.timeout(EVENTS_S):
                        async for _ in answer.aiter_raw():
                            pass
        except httpx.HTTPError as error:
            self._record.wrong[f"events: {type(error).__name__}"] += 1

    async def _timed(self, kind: str, method: str, path: str, **sent: Any) -> httpx.Response | None:
        started = time.perf_counter()
        try:
            answer = await self._http.request(method, path, **sent)
        except httpx.HTTPError as error:
            self._record.wrong[f"{kind}: {type(error).__name__}"] += 1
            return None
        return answer if self._note(kind, started, answer.status_code) else None

    def _note(self, kind: str, started: float, status: int) -> bool:
        self._record.times[kind].append(1000 * (time.perf_counter() - started))
        good = status < 300
        if not good:
            self._record.wrong[f"{kind}: {status}"] += 1
        return good


def measure_load(
    home: Path, clients: int, studies: int, requests: int, think_s: float, most_s: float
) -> dict[str, Any]:
    """Run the clients against a fresh service.

    Args:
        home: an empty folder.
        clients: how many at a time.
        studies: how many they submit together.
        requests: of each client, submissions among them.
        think_s: mean pause of a client between two requests.
        most_s: after as many seconds no further request is begun.
    """
    record = Record()
    before = machine()
    with served(home) as service:
        started, cpu = time.perf_counter(), service.cpu_ms()
        own = os.times()
        with probing(service.url, most_s + 120) as health:
            asyncio.run(_crowd(service, record, clients, studies, requests, think_s, most_s))
        seconds, spent = time.perf_counter() - started, service.cpu_ms() - cpu
        used = os.times()
    reads = [ms for kind, times in record.times.items() if kind != "submit" for ms in times]
    count = sum(map(len, record.times.values()))
    return {
        "machine": before,
        "load_average_1m_at_end": machine()["load_average_1m"],
        "clients": clients,
        "think_s": think_s,
        "seconds": round(seconds, 1),
        "requests": count,
        "requests_per_s": round(count / seconds, 1),
        "service_cpu_share": round(spent / 1000 / seconds, 2),
        "clients_cpu_share": round((used.user + used.system - own.user - own.system) / seconds, 2),
        "submissions": _kept(home, record),
        "reads": summary(reads),
        "by_kind": {kind: summary(times) for kind, times in sorted(record.times.items())},
        "healthz": health,
        "clients_loop_lag": summary(record.lag),
        "unexpected": dict(record.wrong),
    }


async def _crowd(
    service: Served, record: Record, clients: int, studies: int, requests: int, think_s: float, most_s: float
) -> None:
    known: list[str] = []
    first = Client(service, -1, record, known, 0)
    await first.run(1, 1, time.monotonic() + 60)
    until = time.monotonic() + most_s
    shares = [studies // clients + (n < studies % clients) for n in range(clients)]
    watch = asyncio.create_task(_watch(record))
    async with asyncio.TaskGroup() as crowd:
        for number, share in enumerate(shares):
            crowd.create_task(Client(service, number, record, known, think_s).run(requests, share, until))
    watch.cancel()


async def _watch(record: Record) -> None:
    while True:
        started = time.perf_counter()
        await asyncio.sleep(0.02)
        record.lag.append(1000 * (time.perf_counter() - started - 0.02))


def _kept(home: Path, record: Record) -> dict[str, Any]:
    """Whether each study that was answered is in the archive once, with its key, and has its job."""
    with closing(sqlite3.connect(f"file:{home}/archive.db?mode=ro", uri=True)) as archive:
        rows = archive.execute("SELECT id, idempotency_key, status FROM studies").fetchall()
    with closing(sqlite3.connect(f"file:{home}/jobs.db?mode=ro", uri=True)) as jobs:
        queued = {row[0] for row in jobs.execute("SELECT workflow_uuid FROM workflow_status")}
    held = {key: id for id, key, _ in rows}
    answered = {f"client/{key}": ids for key, ids in record.keys.items()}
    lost = [key for key, ids in answered.items() if ids != {held.get(key)}]
    return {
        "keys": len(answered),
        "held": len(rows),
        "lost_or_doubled": len(lost) + abs(len(rows) - len(answered)),
        "without_a_job": sum(id not in queued for id in held.values()),
        "by_status": dict(Counter(status for _, _, status in rows)),
    }
