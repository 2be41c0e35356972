"""Asks /healthz all the time from a process of its own, so that no other client's work is in the times."""

from __future__ import annotations

import http.client
import multiprocessing
import time
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from typing import Any
from urllib.parse import urlsplit

from benchmarks.service.figures import summary

EVERY_S = 0.05


@contextmanager
def probing(url: str, most_s: float) -> Iterator[dict[str, Any]]:
    """Fill a dictionary with the times of /healthz while the block runs, at most for `most_s` seconds.

    ``wakeup`` is how much later than asked the process itself came to run: what a busy machine adds to every time.
    """
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    process = context.Process(target=_probe, args=(url, most_s, there), daemon=True)
    found: dict[str, Any] = {}
    process.start()
    here.recv()
    try:
        yield found
    finally:
        here.send("stop")
        if here.poll(30):
            found.update(here.recv())
        process.join(10)
        if process.is_alive():
            process.kill()


def _probe(url: str, most_s: float, pipe: Connection) -> None:
    host = urlsplit(url)
    times: list[float] = []
    late: list[float] = []
    failed = 0
    until = time.monotonic() + most_s
    connection = http.client.HTTPConnection(str(host.hostname), host.port, timeout=10)
    pipe.send("ready")
    while time.monotonic() < until and not pipe.poll():
        before = time.perf_counter()
        time.sleep(EVERY_S)
        started = time.perf_counter()
        late.append(1000 * (started - before - EVERY_S))
        try:
            connection.request("GET", "/healthz")
            answer = connection.getresponse()
            answer.read()
            failed += answer.status != 200
        except OSError:
            failed += 1
            connection.close()
        times.append(1000 * (time.perf_counter() - started))
    over = sum(ms >= 50 for ms in times)
    pipe.send({**summary(times), "failed": failed, "over_50_ms": over, "wakeup": summary(late)})
    connection.close()
