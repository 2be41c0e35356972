"""The `fleet` commands: plan, up, down, status and tune of the operator's model servers."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
import yaml
from rich.table import Table

from api.command import output
from api.command.options import AsJson

if TYPE_CHECKING:
    from env.fleet import FleetFile
    from env.fleet.state import FleetState
    from env.fleet.tune import Measured

fleet_app = typer.Typer(no_args_is_help=True, help="Start, watch and stop the model servers of a fleet file.")

File = Annotated[
    Path, typer.Argument(envvar="APPORTION_FLEET", help="The fleet file, YAML or JSON; default: APPORTION_FLEET.")
]
Models = Annotated[list[str] | None, typer.Option("--model", "-m", help="Only these models; default: all.")]


@fleet_app.command()
def plan(
    file: File,
    batch: Annotated[
        list[str] | None, typer.Option("--batch", "-b", help="Models of one batch, as a,b; repeat for a sequence.")
    ] = None,
    json: AsJson = False,
) -> None:
    """Show memory, devices, command lines and, for a sequence of batches, the swaps. Starts nothing."""
    from env.fleet.planning import plan_of

    with output.explained_errors():
        found = plan_of(_loaded(file), [tuple(filter(None, one.split(","))) for one in batch or []])
        if json:
            output.print_json(found)
            return
        table = Table("model", "devices", "weights", "KV cache", "overhead", "claims on each", title="Memory")
        for row in found["models"]:
            table.add_row(*(str(row[k]) for k in ("model", "takes", "weights", "kv_cache", "overhead", "claim")))
        output.out.print(table)
        for device in found["devices"]:
            output.out.print(f"{device['name']}: {device['usable']} of {device['total']}", highlight=False)
        together = "; ".join(", ".join(group) for group in found["together"])
        output.out.print(f"[bold]Fit together[/] {together}", highlight=False)
        for row in found["models"]:
            output.out.print(f"[bold]{row['model']}[/] {row['command']}", highlight=False, soft_wrap=True)
            output.out.print(f"  with {row['environment']}", highlight=False, soft_wrap=True)
        if batch:
            _print_schedule(found["schedule"])


@fleet_app.command()
def up(
    file: File,
    model: Models = None,
    detach: Annotated[bool, typer.Option("--detach", "-d", help="Return once all are ready.")] = False,
) -> None:
    """Start the models' servers and keep them answering until Ctrl-C or `fleet down`."""
    with output.explained_errors():
        fleet_file = _loaded(file)
        names = tuple(model or fleet_file.spec.models)
        if detach:
            _up_detached(fleet_file, names)
        else:
            asyncio.run(_keep_up(fleet_file, names))


@fleet_app.command()
def down(file: File) -> None:
    """Stop what `fleet up` started, also where it was killed and left something behind."""
    from env.fleet import FleetError
    from env.fleet.state import StateFile, end_leftovers

    with output.explained_errors():
        fleet_file = _loaded(file)
        store = StateFile(fleet_file.folder)
        state = store.read()
        if state is None:
            output.out.print("nothing is up", highlight=False)
        elif not state.alive:
            left = end_leftovers(state)
            store.clear()
            ended = f"ended {', '.join(left)}" if left else "nothing was left running"
            output.out.print(f"process {state.owner.pid} had died; {ended}", highlight=False)
        elif state.kind != "up":
            raise FleetError(
                f"the fleet is used by process {state.owner.pid} ({state.kind}), which stops it when it ends; end that"
            )
        else:
            os.kill(state.owner.pid, signal.SIGTERM)
            deadline = time.monotonic() + fleet_file.spec.stop_timeout_s + 30
            while state.alive and time.monotonic() < deadline:
                time.sleep(0.1)
            if state.alive:
                raise FleetError(f"process {state.owner.pid} does not end; kill it, its servers end with it")
            output.out.print("stopped", highlight=False)


@fleet_app.command()
def status(file: File, json: AsJson = False) -> None:
    """Show who owns the fleet, its servers, restarts and where the time went. Exit code 1 where not all are ready."""
    from env.fleet.state import StateFile

    with output.explained_errors():
        state = StateFile(_loaded(file).folder).read()
    if json:
        output.print_json(_status_json(state))
    elif state is None:
        output.out.print("nothing is up", highlight=False)
    else:
        _print_status(state)
    ready = state is not None and state.alive and all(s.phase == "ready" and s.alive for s in state.servers)
    if not ready:
        raise typer.Exit(1)


@fleet_app.command()
def tune(
    file: File,
    model: Annotated[str, typer.Option("--model", "-m", help="The model to measure; its `tune` lists the values.")],
    requests: Annotated[int, typer.Option(min=1, help="Requests of a run.")] = 64,
    n: Annotated[int, typer.Option(min=1, help="Choices of a request.")] = 8,
    concurrency: Annotated[int, typer.Option(min=1, help="Requests in flight.")] = 16,
    prompt_tokens: Annotated[int, typer.Option(min=1)] = 96,
    shared_prefix: Annotated[float, typer.Option(min=0, max=1, help="Part of a prompt that all share.")] = 0.5,
    max_tokens: Annotated[int, typer.Option(min=1)] = 64,
    prompts: Annotated[Path | None, typer.Option(help="Texts to ask instead of random tokens, one a line.")] = None,
    repeats: Annotated[int, typer.Option(min=1, help="Measured runs of a start.")] = 3,
    rounds: Annotated[int, typer.Option(min=1, help="Starts of each combination.")] = 1,
    seed: int = 0,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Write the fleet file with the best knobs.")] = None,
    json: AsJson = False,
) -> None:
    """Measure tokens/s over the knobs listed under the model's `tune`: real servers, medians with ranges."""
    from env.fleet.tune import Workload, best_of, tuned_file

    with output.explained_errors():
        texts = tuple(line for line in prompts.read_text("utf-8").splitlines() if line.strip()) if prompts else ()
        workload = Workload(requests, n, concurrency, prompt_tokens, shared_prefix, max_tokens, seed, texts)
        fleet_file = _loaded(file)
        measured = asyncio.run(_tuned(fleet_file, model, workload, repeats, rounds))
        best, tied = best_of(measured)
        if out is not None and best is not None:
            text = yaml.safe_dump(tuned_file(fleet_file, model, best.setting), sort_keys=False)
            out.write_text(text, encoding="utf-8")
        if json:
            output.print_json(
                {
                    "model": model,
                    "workload": workload,
                    "results": [one.report() for one in measured],
                    "best": best.setting if best else None,
                    "not_told_apart": [one.setting for one in tied],
                }
            )
        else:
            _print_tuned(measured, best, tied)
        if best is None:
            raise typer.Exit(1)


def _loaded(path: Path) -> FleetFile:
    from env.fleet import load_fleet

    return load_fleet(path)


async def _keep_up(file: FleetFile, names: tuple[str, ...]) -> None:
    from env.fleet import Fleet

    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    async with Fleet(file, names, kind="up") as fleet:
        output.err.print(f"loading {', '.join(names)}; logs in {file.folder}", highlight=False)
        loading = asyncio.create_task(fleet.lease(names))
        stopping = asyncio.create_task(stop.wait())
        await asyncio.wait([loading, stopping], return_when=asyncio.FIRST_COMPLETED)
        if stop.is_set():
            loading.cancel()
            await asyncio.gather(loading, return_exceptions=True)
        else:
            lease = await loading
            for name, url in lease.urls.items():
                output.err.print(f"{name} at {url}", highlight=False)
            output.err.print(f"ready after {lease.load_seconds:.1f} s; stop with Ctrl-C", highlight=False)
            await stop.wait()
        stopping.cancel()
        output.err.print("stopping", highlight=False)


def _up_detached(file: FleetFile, names: tuple[str, ...]) -> None:
    """`fleet up` in the background; returns once its servers are ready."""
    from env.fleet import FleetError
    from env.fleet.state import StateFile

    store, log = StateFile(file.folder), file.folder / "up.log"
    file.folder.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "api.command", "fleet", "up", str(file.path)]
    command += [word for name in names for word in ("--model", name)]
    with log.open("w", encoding="utf-8") as stream:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=stream, stderr=stream, start_new_session=True
        )
    while process.poll() is None:
        state = store.read()
        if state is not None and state.owner.pid == process.pid:
            ready = [s.model for s in state.servers if s.phase == "ready"]
            if set(ready) == set(names):
                for server in state.servers:
                    output.out.print(f"{server.model} at {server.url}", highlight=False)
                return
        time.sleep(0.2)
    raise FleetError(f"`fleet up` ended:\n{log.read_text(encoding='utf-8').strip()}")


async def _tuned(file: FleetFile, model: str, workload: Any, repeats: int, rounds: int) -> list[Measured]:
    from env.fleet.tune import tune as measure

    total = rounds * len(file.model(model).tune.grid())
    seen: dict[int, Measured] = {}
    async for number, one in measure(file, model, workload, repeats, rounds):
        seen[id(one)] = one
        rates = ", ".join(f"{rate:,.0f}" for rate in one.rates)
        output.err.print(f"{number}/{total} {_knobs(one)}: {one.error or f'{rates} tokens/s'}", highlight=False)
    return list(seen.values())


def _knobs(one: Measured) -> str:
    return ", ".join(f"{name}={value}" for name, value in one.setting.items()) or "as in the file"


def _print_tuned(measured: list[Measured], best: Measured | None, tied: list[Measured]) -> None:
    table = Table("knobs", "tokens/s (median)", "lowest to highest", "latency p95", "load")
    for one in measured:
        report = one.report()
        if "error" in report:
            table.add_row(_knobs(one), "[red]not measured[/]", report["error"].splitlines()[0], "", "")
            continue
        rate = report["tokens_per_second"]
        loads = ", ".join(f"{value:.1f} s" for value in report["load_seconds"])
        spread = f"{rate['low']:,.0f} to {rate['high']:,.0f}"
        table.add_row(_knobs(one), f"{rate['median']:,.0f}", spread, f"{report['latency_s']['p95']:.2f} s", loads)
    output.out.print(table)
    if best is not None:
        told = f"; not told apart from {'; '.join(map(_knobs, tied))}" if tied else ""
        output.out.print(f"[bold]Fastest[/] {_knobs(best)}{told}", highlight=False)
    if any("quantisation" in one.setting for one in measured):
        output.out.print("Quantisation changes what a model answers: compare scores too, not only speed.")


def _print_schedule(found: dict[str, Any]) -> None:
    table = Table("batch needs", "load", "drop", "up during it", title=f"Swaps: {found['loads']} loads")
    for step in found["steps"]:
        table.add_row(*(", ".join(step[k]) for k in ("needed", "load", "drop", "up")))
    output.out.print(table)
    if not found["exact"]:
        output.out.print("too many possibilities to try them all: there may be fewer loads")


def _status_json(state: FleetState | None) -> dict[str, Any]:
    if state is None:
        return {"running": False, "servers": []}
    servers = [{**server.model_dump(mode="json"), "alive": server.alive} for server in state.servers]
    return {**state.model_dump(mode="json"), "running": state.alive, "servers": servers}


def _print_status(state: FleetState) -> None:
    word = "runs" if state.alive else "[red]has died[/]; `apportion fleet down` clears up"
    output.out.print(f"process {state.owner.pid} ({state.kind}) {word}", highlight=False)
    table = Table("model", "phase", "url", "devices", "pid", "restarts", "load")
    for server in state.servers:
        phase = server.phase if server.alive or server.process is None else "[red]dead[/]"
        pid = str(server.process.pid) if server.process else ""
        table.add_row(
            server.model,
            phase,
            server.url,
            ", ".join(server.devices),
            pid,
            str(server.restarts),
            f"{server.load_seconds:.1f} s",
        )
    output.out.print(table)
    for server in state.servers:
        if server.reason:
            output.out.print(f"[yellow]{server.model}[/] {server.reason}", highlight=False)
    output.out.print(
        f"{state.loads} loads, {state.load_seconds:.1f} s; {state.wakes} wakes, {state.wake_seconds:.1f} s; "
        f"inference {state.inference_seconds:.1f} s",
        highlight=False,
    )
