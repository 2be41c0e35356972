"""Tokens per second of a trial's way to a model server, against a minimal client that sends the same requests.

``python -m benchmarks.throughput`` starts the torch engine's server with the embedded models s and m and prints JSON;
``--base-url http://HOST:PORT/v1 --model NAME`` measures any OpenAI-compatible server (vLLM). In one run, turn by turn:

- *straight*: an asyncio client of a few lines keeps the stated number of requests in flight and only counts the tokens
  of the replies; on httpx2 as it comes, or with ``--client direct`` on the transport that a trial uses, which spends
  less on a request and so leaves more of a small machine to the server;
- *trial*: `OpenAIBackend`, `Drawing` and an SQLite archive, as a stage of a trial draws.

Both send byte for byte the same JSON with the same seeds, so that they get the same tokens (checked where the server
honours seeds). A repeat runs both, in alternating order; its ratio is trial over straight. ``single`` asks for one draw
a request, ``samples`` for eight.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import httpx2

from env.backends import Backend, DrawRequest, Message, OpenAIBackend, Sampling
from env.backends.openai_backend import base_seed
from env.backends.openai_dialect import Dialect, Habits, draw_body
from env.backends.openai_transport import DirectTransport
from env.bank import draw_key
from env.embedded import ledger_examples
from env.embedded.prompts import TEMPERATURE, read_prompt
from env.execution.drawing import Drawing, Need
from env.execution.progress import no_progress
from env.garbage import collect_seldom
from planner.archive import open_archive

CASES = {"single": 1, "samples": 8}
"""Draws asked for in each request."""

READY_S = 120


@dataclass(frozen=True)
class Server:
    """What is measured."""

    base_url: str
    model: str
    kind: str


@dataclass(frozen=True)
class Run:
    """One side of one repeat."""

    tokens: int
    seconds: float
    client_cpu: float

    @property
    def speed(self) -> float:
        """Output tokens per second."""
        return self.tokens / self.seconds


def main() -> None:
    """Run the benchmark and print its JSON."""
    options = _options()
    collect_seldom()  # as the commands do; both sides gain
    if options.base_url:
        servers = [_measure(Server(options.base_url, options.model, "given by URL"), options)]
    else:
        with _engine_server(options.models) as base_url:
            servers = [_measure(Server(base_url, name, "torch engine"), options) for name in options.models]
    result = {
        "benchmark": "throughput",
        "machine": options.machine,
        "python": platform.python_version(),
        **{name: version(name) for name in ("openai", "httpx2", "torch")},
        **{name: getattr(options, name) for name in ("client", "concurrency", "requests", "max_tokens", "repeats")},
        "servers": servers,
    }
    text = json.dumps(result, indent=2)
    if options.output:
        options.output.write_text(text + "\n")
    print(text)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Throughput of a trial against the bare server")
    parser.add_argument("--models", nargs="+", default=["s", "m"], help="embedded models to serve (default: s m)")
    parser.add_argument("--base-url", help="measure this server instead, up to and with /v1")
    parser.add_argument("--model", help="the name that server knows its model by")
    parser.add_argument("--client", choices=("httpx2", "direct"), default="httpx2", help="transport of the other side")
    parser.add_argument("--concurrency", type=int, default=64, help="requests in flight")
    parser.add_argument("--requests", type=int, default=256, help="requests of one side of one repeat")
    parser.add_argument("--max-tokens", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--cases", nargs="+", choices=list(CASES), default=list(CASES))
    parser.add_argument("--machine", default=f"{os.cpu_count()} CPU cores", help="a few words for the result")
    parser.add_argument("--output", type=Path, help="write the JSON there too")
    options = parser.parse_args()
    if options.base_url and not options.model:
        parser.error("--base-url needs --model")
    return options


def _measure(server: Server, options: argparse.Namespace) -> dict[str, Any]:
    cases = {case: asyncio.run(_case(server, CASES[case], options)) for case in options.cases}
    return {"server": server.kind, "model": server.model, "cases": cases}


async def _case(server: Server, samples: int, options: argparse.Namespace) -> dict[str, Any]:
    backend = OpenAIBackend(
        server.base_url, server.model, concurrency=options.concurrency, timeout_s=300, max_retries=0
    )
    pairs: list[dict[str, Run]] = []
    same = True
    with tempfile.TemporaryDirectory() as folder, open_archive(f"sqlite:///{folder}/archive.db") as archive:
        at_once = options.concurrency
        limits = httpx2.Limits(max_connections=at_once, max_keepalive_connections=at_once, keepalive_expiry=4.0)
        transport = DirectTransport() if options.client == "direct" else None
        async with httpx2.AsyncClient(limits=limits, timeout=300, transport=transport) as client:
            for repeat in range(options.repeats + 1):
                asked = _requests(options.requests, samples, options.max_tokens, seed=repeat)
                pair: dict[str, Run] = {}
                for side in ("straight", "trial") if repeat % 2 else ("trial", "straight"):
                    begin, cpu = time.perf_counter(), time.process_time()
                    if side == "straight":
                        tokens = await _straight(client, server, asked, options.concurrency)
                    else:
                        drawing = Drawing(archive.bank, _One(backend), f"repeat {repeat}", no_progress)
                        tokens = await _trial(drawing, backend, server.model, asked)
                    pair[side] = Run(tokens, time.perf_counter() - begin, time.process_time() - cpu)
                same = same and pair["straight"].tokens == pair["trial"].tokens
                if repeat:  # the first round only warms up
                    pairs.append(pair)
    await backend.close()
    return _summary(pairs, samples, options.requests, same)


class _One:
    """The backends of a pipeline with one model."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend

    def backend(self, model: str) -> Backend:
        """See `Backends.backend`."""
        return self._backend


async def _straight(client: httpx2.AsyncClient, server: Server, asked: Sequence[DrawRequest], concurrency: int) -> int:
    """Output tokens of all replies."""
    waiting = iter(asked)
    tokens = 0

    async def work() -> None:
        nonlocal tokens
        for request in waiting:
            seed = base_seed(request) + request.indices[0]
            count = len(request.indices)
            body = draw_body(Dialect(), Habits(), server.model, request.messages, request.sampling, seed, count)
            reply = await client.post(f"{server.base_url}/chat/completions", json=body)
            reply.raise_for_status()
            tokens += reply.json()["usage"]["completion_tokens"]

    await asyncio.gather(*(work() for _ in range(concurrency)))
    return tokens


async def _trial(drawing: Drawing, backend: Backend, model: str, asked: Sequence[DrawRequest]) -> int:
    """Output tokens of all draws, as the bank holds them in the end."""
    needs = {
        draw_key(backend.identity, request.messages, request.sampling): Need(
            model, request.messages, request.sampling, len(request.indices)
        )
        for request in asked
    }
    filled = await drawing.fill("stage", needs)
    if filled.failures:
        raise RuntimeError(next(iter(filled.failures.values())))
    return sum(draw.output_tokens for draws in filled.draws.values() for draw in draws)


def _requests(count: int, samples: int, max_tokens: int, seed: int) -> list[DrawRequest]:
    """Distinct prompts of the embedded task; any chat model can be asked them."""
    sampling = Sampling(temperature=TEMPERATURE, max_tokens=max_tokens, seed=seed)
    found = []
    for number, example in enumerate(ledger_examples("search", count)):
        fields: Any = example.fields
        story = read_prompt(fields["story"], fields["person"])
        stage, text = ("solve", str(example.stage_gold["read"])) if number % 2 else ("read", story)
        messages = (Message("system", stage), Message("user", text))
        found.append(DrawRequest(messages, sampling, tuple(range(samples))))
    return list({request.messages: request for request in found}.values())


def _summary(pairs: Sequence[dict[str, Run]], samples: int, requests: int, same: bool) -> dict[str, Any]:
    ratios = [pair["trial"].speed / pair["straight"].speed for pair in pairs]
    result: dict[str, Any] = {"draws_a_request": samples}
    for side in ("straight", "trial"):
        runs = [pair[side] for pair in pairs]
        result[f"{side}_tokens_per_s"] = round(statistics.median(run.speed for run in runs), 1)
        cpu = statistics.median(run.client_cpu for run in runs)
        result[f"{side}_client_cpu_ms_a_request"] = round(1e3 * cpu / requests, 2)
    result["ratio"] = {
        "median": round(statistics.median(ratios), 3),
        "lowest": round(min(ratios), 3),
        "highest": round(max(ratios), 3),
        "of_each_repeat": [round(ratio, 3) for ratio in ratios],
    }
    result["tokens_a_repeat"] = round(statistics.median(pair["trial"].tokens for pair in pairs))
    result["same_tokens_on_both_sides"] = same
    return result


@contextmanager
def _engine_server(models: Sequence[str]) -> Iterator[str]:
    """The torch engine's server as a process of its own, as ``apportion engine serve`` starts it."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "api.command", "engine", "serve", *models]
    process = subprocess.Popen([*command, "--port", str(port)])
    try:
        deadline = time.monotonic() + READY_S
        while True:
            try:
                httpx2.get(f"http://127.0.0.1:{port}/health", timeout=5).raise_for_status()
                break
            except httpx2.HTTPError:
                if process.poll() is not None or time.monotonic() > deadline:
                    raise RuntimeError("the engine's server did not start; run the same command by hand") from None
                time.sleep(0.1)
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        process.terminate()
        process.wait(30)


if __name__ == "__main__":
    main()
