"""One fleet for all studies of a process, whichever event loop they run in; servers of `apportion fleet up` are joined.

The fleet lives in an event loop of its own thread and is opened by the first who asks. It stays until the process ends:
the next study finds its models loaded. Where `apportion fleet up` runs for the same file, its servers are used and none
are started here.
"""

from __future__ import annotations

import asyncio
import atexit
import threading
from collections.abc import AsyncIterator, Coroutine, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TypeVar

from env.fleet.errors import FleetError, ServerError
from env.fleet.fleet import Fleet, Lease
from env.fleet.load import FleetFile
from env.fleet.state import FleetState, StateFile

Result = TypeVar("Result")

_CLOSE_S = 120.0
_registry: dict[Path, SharedFleet] = {}
_registry_lock = threading.Lock()


class SharedFleet:
    """Leases of one fleet file's servers, from any thread and event loop of this process."""

    def __init__(self, file: FleetFile) -> None:
        self.file = file
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name=f"fleet {file.path.name}", daemon=True)
        self._thread.start()
        self._opening: asyncio.Lock | None = None
        self._fleet: Fleet | None = None

    @asynccontextmanager
    async def acquire(self, models: Sequence[str]) -> AsyncIterator[Lease]:
        """See `Fleet.acquire`.

        Raises:
            FleetError: the models do not fit, a server does not start, or another process holds the fleet.
        """
        lease = await self._there(self._lease(tuple(models)), self._unwanted)
        try:
            yield lease
        finally:
            await asyncio.shield(self._there(self._release(lease)))

    async def retire(self, model: str) -> None:
        """See `Fleet.retire`; without effect on the servers of `apportion fleet up`."""
        if self._fleet is not None:
            await self._there(self._fleet.retire(model))

    async def ready(self, model: str) -> None:
        """See `Fleet.ready`."""
        await self._there(self._ready(model))

    def expect(self, batches: Sequence[Sequence[str]]) -> None:
        """See `Fleet.expect`; without effect on the servers of `apportion fleet up`, which never swaps."""

        def tell() -> None:
            if self._fleet is not None:
                self._fleet.expect(batches)

        self._loop.call_soon_threadsafe(tell)

    def close(self) -> None:
        """Stop every server that this process started (blocking)."""
        if self._loop.is_closed():
            return
        asyncio.run_coroutine_threadsafe(self._close(), self._loop).result(_CLOSE_S)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _there(self, work: Coroutine[Any, Any, Result], unwanted: Any = None) -> Result:
        """Run something in the fleet's loop and wait for it in ours."""
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return await asyncio.wrap_future(future)
        except asyncio.CancelledError:
            if unwanted is not None:
                future.add_done_callback(unwanted)
            raise

    def _unwanted(self, future: Any) -> None:
        """Give back a lease that came when nobody waited for it any more."""
        if not future.cancelled() and future.exception() is None:
            asyncio.run_coroutine_threadsafe(self._release(future.result()), self._loop)

    async def _lease(self, models: tuple[str, ...]) -> Lease:
        state = self._up_elsewhere()
        if state is not None:
            return self._join(state, models)
        return await (await self._open()).lease(models)

    async def _release(self, lease: Lease) -> None:
        if self._fleet is not None and not lease.joined:
            await self._fleet.release(lease)

    async def _ready(self, model: str) -> None:
        if self._fleet is not None:
            await self._fleet.ready(model)
            return
        limit = self.file.spec.ready_timeout_s
        for _ in range(max(1, int(limit))):
            state = self._up_elsewhere()
            if state is None:
                raise ServerError("`apportion fleet up` has ended; start it again")
            server = next((server for server in state.servers if server.model == model), None)
            if server is None or server.phase == "failed":
                raise ServerError(server.reason if server else f"{model} is not up")
            if server.phase == "ready":
                return
            await asyncio.sleep(1.0)
        raise ServerError(f"{model} was not ready again after {limit:g} s")

    async def _open(self) -> Fleet:
        if self._opening is None:
            self._opening = asyncio.Lock()
        async with self._opening:
            if self._fleet is None:
                fleet = Fleet(self.file)
                await fleet.open()
                self._fleet = fleet
        return self._fleet

    async def _close(self) -> None:
        fleet, self._fleet = self._fleet, None
        if fleet is not None:
            await fleet.close()

    def _up_elsewhere(self) -> FleetState | None:
        """The state of `apportion fleet up` on this file, where it runs."""
        if self._fleet is not None:
            return None
        state = StateFile(self.file.folder).read()
        return state if state is not None and state.alive and state.kind == "up" else None

    def _join(self, state: FleetState, models: tuple[str, ...]) -> Lease:
        urls = {s.model: s.url for s in state.servers if s.phase in ("ready", "restarting")}
        missing = [name for name in models if name not in urls]
        if missing:
            raise FleetError(
                f"`apportion fleet up` (process {state.owner.pid}) does not serve {', '.join(missing)}; it serves "
                f"{', '.join(urls) or 'nothing'}. Start it with these models, or end it with `apportion fleet down`, "
                "and the study starts what it needs"
            )
        return Lease({name: urls[name] for name in models}, self.file.api_key, 0.0, joined=True)


def shared_fleet(file: FleetFile) -> SharedFleet:
    """The fleet of a file in this process; servers start when models are acquired and stop when the process ends."""
    with _registry_lock:
        if file.path not in _registry:
            fleet = SharedFleet(file)
            _registry[file.path] = fleet
            atexit.register(fleet.close)
        return _registry[file.path]


def close_shared_fleets() -> None:
    """Stop all fleets of this process now (blocking)."""
    with _registry_lock:
        fleets = list(_registry.values())
        _registry.clear()
    for fleet in fleets:
        atexit.unregister(fleet.close)
        fleet.close()
