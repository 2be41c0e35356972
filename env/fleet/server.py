"""Supervises one model server: starts it, waits until it answers, replaces it when it dies or freezes, stops it."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import httpx

from env.fleet.answering import Answering
from env.fleet.errors import ServerError
from env.fleet.kept import KeptProcess, log_tail
from env.fleet.launching import Launch
from env.fleet.ports import is_free
from env.fleet.processes import ProcessMark
from env.fleet.spec import FleetSpec

Phase = Literal["stopped", "starting", "ready", "asleep", "restarting", "failed"]
_POLL_S = 0.1


class PortTakenError(ServerError):
    """Somebody else listens on the port that was free a moment ago."""


class Server:
    """One server process and everything that keeps it answering.

    Lives in one event loop. A server that was ready once is restarted on its port with growing waits, so that its URL
    stays; one that never became ready is an error of its settings and is not tried again.
    """

    def __init__(self, launch: Launch, spec: FleetSpec, folder: Path, changed: Callable[[], None]) -> None:
        self.launch = launch
        self.phase: Phase = "stopped"
        self.reason = ""
        """Why it failed or was last restarted."""

        self.restarts = 0
        self.restart_seconds = 0.0
        """From a death to the next answered request, waits included, over all restarts."""

        self.log = folder / f"{launch.model}.log"
        self._spec = spec
        self._changed = changed
        self._process: KeptProcess | None = None
        self._answering = Answering(launch)
        self._supervision: asyncio.Task[None] | None = None
        self._news = asyncio.Event()
        self._attempts = 0

    @property
    def base_url(self) -> str:
        """The URL for OpenAI clients, with ``/v1``."""
        return f"{self.launch.base_url}/v1"

    @property
    def mark(self) -> ProcessMark | None:
        """The server's first process."""
        return None if self._process is None else self._process.mark

    @property
    def _sleeping(self) -> bool:
        return self.phase == "asleep"

    async def start(self) -> None:
        """Start it and return once a request was answered.

        Raises:
            PortTakenError: another process took the port.
            ServerError: it did not become ready; with the last lines of its log. Nothing of it is left running.
        """
        self._set("starting")
        try:
            await self._start_process()
        except ServerError as error:
            self._set("failed", str(error))
            raise
        except BaseException:
            self._set("stopped")
            raise
        self._set("ready")
        self._supervision = asyncio.create_task(self._supervise())

    async def stop(self) -> None:
        """Stop it: SIGTERM, then SIGKILL to all its processes."""
        supervision, self._supervision = self._supervision, None
        if supervision is not None:
            supervision.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await supervision
        await self._end_process(self._spec.stop_timeout_s)
        await self._answering.close()
        self._set("stopped")

    async def ready(self) -> None:
        """Wait until it answers, which may be after a restart that is under way or not even noticed yet.

        Raises:
            ServerError: it is stopped, or was given up.
        """
        while True:
            news = self._news
            if self.phase in ("failed", "stopped", "asleep"):
                raise ServerError(self.reason or f"{self.launch.model} is {self.phase}")
            if self.phase == "ready" and await self._answering.healthy(self._spec.health.timeout_s):
                return
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(news.wait(), _POLL_S if self.phase == "ready" else None)

    async def sleep(self) -> None:
        """Free its devices' memory without ending it.

        Raises:
            ServerError: it cannot.
        """
        await self._answering.sleep(self._spec.stop_timeout_s)
        self._set("asleep")

    async def wake(self) -> None:
        """Serve again after `sleep`.

        Raises:
            ServerError: it cannot.
        """
        await self._answering.wake(self._spec.ready_timeout_s)
        if not await self._answering.probe(self._spec.ready_timeout_s):
            raise ServerError(f"{self.launch.model} does not answer after waking up")
        self._set("ready")

    async def _start_process(self) -> None:
        """Raises `ServerError` with the log's tail, nothing left running."""
        launch = self.launch
        if not is_free(self._spec.host, launch.port):
            raise PortTakenError(f"port {launch.port} is taken by another process")
        try:
            self._process = await KeptProcess.start(
                launch.command, launch.full_environment(), self.log, self._spec.log_limit
            )
            self._changed()
            await self._until_ready(self._process)
        except ServerError as error:
            await self._end_process(1.0)
            taken = not is_free(self._spec.host, launch.port)
            kind = PortTakenError if taken else ServerError
            raise kind(self._explained(f"{launch.model} did not start: {error}")) from error
        except BaseException:
            await self._end_process(1.0)
            raise

    async def _until_ready(self, process: KeptProcess) -> None:
        limit = self._spec.ready_timeout_s
        deadline = time.monotonic() + limit
        late = ServerError(f"not ready after {limit:g} s (ready_timeout_s)")
        while not await self._answering.healthy(min(5.0, limit)):
            if process.ended.done():
                raise ServerError(_exit_text(process.ended.result()))
            if time.monotonic() > deadline:
                raise late
            await asyncio.wait([process.ended], timeout=_POLL_S)
        try:
            await self._answering.warm_up(max(1.0, deadline - time.monotonic()))
        except httpx.HTTPError as error:
            raise late if time.monotonic() > deadline else ServerError(f"the warm-up failed: {error!r}") from error
        if process.ended.done():
            # Somebody else answered on this port.
            raise ServerError(_exit_text(process.ended.result()))

    async def _supervise(self) -> None:
        """Watch until it dies, bring it back, and so on, until it is given up."""
        while True:
            ready_since = time.monotonic()
            reason = await self._watch()
            if self._sleeping:
                # Its memory is another's now: it is loaded anew when somebody needs it.
                await self._end_process(0.0)
                self._set("failed", self._explained(f"{self.launch.model}: {reason} while asleep"))
                return
            if time.monotonic() - ready_since > self._spec.restart.stable_s:
                self._attempts = 0
            died = time.monotonic()
            try:
                alive = await self._revive(reason)
            finally:
                self.restart_seconds += time.monotonic() - died
            if not alive:
                return

    async def _watch(self) -> str:
        """Returns why the server must be replaced."""
        assert self._process is not None
        health, process = self._spec.health, self._process
        failures, seen, moved = 0, None, time.monotonic()
        while True:
            await asyncio.wait([process.ended], timeout=health.interval_s)
            if process.ended.done():
                return f"it died ({_exit_text(process.ended.result())})"
            if self._sleeping:
                moved = time.monotonic()
                continue
            failures = 0 if await self._answering.healthy(health.timeout_s) else failures + 1
            if failures >= health.failures:
                return f"it did not answer /health {failures} times in a row"
            if failures or time.monotonic() - moved < health.probe_interval_s:
                continue
            # /health can be fine while the engine behind it hangs: tokens must have moved, or one must move now.
            now = await self._answering.progress(health.timeout_s)
            if (now is None or now == seen) and not await self._answering.probe(health.probe_timeout_s):
                if process.ended.done() or self._sleeping:
                    continue
                return f"a one-token request was not answered within {health.probe_timeout_s:g} s"
            seen, moved = now, time.monotonic()

    async def _revive(self, reason: str) -> bool:
        """Replace a dead server; False once it is given up."""
        restart = self._spec.restart
        await self._end_process(0.0)
        error = ServerError(self._explained(f"{self.launch.model}: {reason}"))
        while self._attempts < restart.attempts:
            wait = min(restart.longest_wait_s, restart.first_wait_s * 2**self._attempts)
            self._attempts += 1
            self._set("restarting", str(error))
            await asyncio.sleep(wait)
            try:
                await self._start_process()
            except ServerError as failed:
                error = failed
                continue
            self.restarts += 1
            self._set("ready", str(error))
            return True
        self._set("failed", f"given up after {restart.attempts} attempts to restart; {error}")
        return False

    async def _end_process(self, grace: float) -> None:
        process, self._process = self._process, None
        if process is not None and not process.ended.done():
            await process.stop(grace)

    def _explained(self, text: str) -> str:
        return f"{text}\nLast lines of {self.log}:\n{log_tail(self.log)}"

    def _set(self, phase: Phase, reason: str = "") -> None:
        self.phase, self.reason = phase, reason or self.reason
        news, self._news = self._news, asyncio.Event()
        news.set()
        self._changed()


def _exit_text(status: int) -> str:
    return f"killed by signal {-status}" if status < 0 else f"exit status {status}"
