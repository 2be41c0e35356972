"""The servers that are up or asleep and where: loads, wakes, puts away and removes them."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

from env.fleet.devices import system_memory
from env.fleet.errors import ServerError
from env.fleet.launching import launch_of
from env.fleet.load import FleetFile
from env.fleet.memory import Demand
from env.fleet.placement import Claims, Slot, place
from env.fleet.ports import release_port, take_port
from env.fleet.schedule import Step
from env.fleet.server import PortTakenError, Server
from env.fleet.state import Process, ServerState, StateFile

_PORT_TRIES = 3


@dataclass
class FleetTimes:
    """Where a fleet's time went, in seconds of the clock; loading is never counted as inference."""

    loads: int = 0
    load_seconds: float = 0.0
    """Starts of servers until their first answered request; loads side by side count once each."""

    wakes: int = 0
    wake_seconds: float = 0.0
    inference_seconds: float = 0.0
    """Time during which batches held servers that were up, summed over batches; restarts are not in it."""


class Residents:
    """Who is where on the devices."""

    def __init__(
        self,
        file: FleetFile,
        demands: Mapping[str, Demand],
        claims: Claims,
        state: StateFile,
        write: Callable[[], None],
    ) -> None:
        self.servers: dict[str, Server] = {}
        self.placed: dict[str, Slot] = {}
        self.times = FleetTimes()
        self.last_use: dict[str, float] = {}
        self._file = file
        self._demands = demands
        self._claims = claims
        self._state = state
        self._write = write
        self._load_seconds: dict[str, float] = {}
        self._locks: dict[int, asyncio.Lock] = {}

    def admit(self, demands: Mapping[str, Demand], claims: Claims) -> None:
        """Take in further models.

        Args:
            demands: of the new ones.
            claims: of all.
        """
        self._demands = {**self._demands, **demands}
        self._claims = claims

    def awake(self) -> dict[str, Slot]:
        """Models whose servers have their memory now, and where."""
        return {name: slot for name, slot in self.placed.items() if self.servers[name].phase != "asleep"}

    def up(self, models: Sequence[str]) -> bool:
        """Whether all of these serve, or will again after a restart that is under way."""
        return all(name in self.servers and self.servers[name].phase in ("ready", "restarting") for name in models)

    async def take(self, step: Step) -> None:
        """Do what a step of the schedule says.

        Raises:
            ServerError: a server does not start; the others of the step are up.
        """
        for name in step.drop:
            await self._put_away(name)
        await self._make_room(step.up)
        # Side by side on different devices, in turn where they share one: starting engines measure free memory.
        results = await asyncio.gather(*(self._bring_up(n, step.up[n]) for n in step.load), return_exceptions=True)
        for result in results:
            if isinstance(result, BaseException):
                raise result

    async def remove(self, name: str) -> None:
        """Stop a model's server; nothing where it has none."""
        server = self.servers.get(name)
        if server is None:
            return
        await server.stop()
        release_port(server.launch.port)
        self.servers.pop(name, None)
        self.placed.pop(name, None)
        self._write()

    async def clear(self) -> None:
        """Stop every server."""
        await asyncio.gather(*(self.remove(name) for name in list(self.servers)))

    async def remove_broken(self) -> None:
        """Forget servers that were given up, so that they are started anew."""
        for name in [name for name, server in self.servers.items() if server.phase in ("failed", "stopped")]:
            await self.remove(name)

    def states(self) -> tuple[ServerState, ...]:
        """As other processes may see them."""
        return tuple(
            ServerState(
                model=name,
                phase=server.phase,
                url=server.base_url,
                devices=server.launch.devices,
                process=None if server.mark is None else Process.of(server.mark),
                restarts=server.restarts,
                restart_seconds=round(server.restart_seconds, 3),
                load_seconds=round(self._load_seconds.get(name, 0.0), 3),
                log=str(server.log),
                reason=server.reason,
            )
            for name, server in self.servers.items()
        )

    async def _put_away(self, name: str) -> None:
        """Free a model's memory: asleep where its server can, else stopped."""
        server = self.servers[name]
        if server.launch.sleep and server.phase == "ready" and self._room_asleep(name):
            with contextlib.suppress(ServerError):
                await server.sleep()
                return
        await self.remove(name)

    def _room_asleep(self, name: str) -> bool:
        """Whether the machine's memory takes the weights of all who sleep (at most half of it)."""
        asleep = [n for n, server in self.servers.items() if server.phase == "asleep"]
        weights = sum((self._demands[n].weights or 0) * self._demands[n].devices for n in [*asleep, name])
        return weights <= system_memory() / 2

    async def _make_room(self, up: Mapping[str, Slot]) -> None:
        """Stop sleepers, which keep a little of their devices, where that little is needed."""
        left = self._claims.free(up)
        keeps = self._file.spec.sleeping_memory
        sleepers = [n for n in self.placed if self.servers[n].phase == "asleep" and n not in up]
        for name in sorted(sleepers, key=lambda n: -self.last_use.get(n, 0.0)):
            slot = self.placed[name]
            if all(left[position] >= keeps for position in slot):
                for position in slot:
                    left[position] -= keeps
            else:
                await self.remove(name)

    async def _bring_up(self, name: str, slot: Slot) -> None:
        async with self._devices(slot):
            server = self.servers.get(name)
            started = time.monotonic()
            if server is not None and server.phase == "asleep" and self.placed[name] == slot:
                with contextlib.suppress(ServerError):
                    await server.wake()
                    self.times.wakes += 1
                    self.times.wake_seconds += time.monotonic() - started
                    self._write()
                    return
            await self.remove(name)
            await self._load(name, slot)
            self.times.loads += 1
            self._load_seconds[name] = time.monotonic() - started
            self.times.load_seconds += self._load_seconds[name]
            self._write()

    async def _load(self, name: str, slot: Slot) -> None:
        sleep = self._wants_sleep()
        try:
            await self._start(name, slot, sleep)
        except PortTakenError:
            raise
        except ServerError as error:
            if not sleep:
                raise
            # Where only sleep mode is refused (vLLM's CPU build does), restarts do instead, from now on.
            await self._start(name, slot, False)
            self._state.remember(sleep=False, executable=list(self._file.executable), reason=str(error)[-2000:])

    def _wants_sleep(self) -> bool:
        """Sleep mode is of use only where models take turns; what was learnt holds for the same executable."""
        spec = self._file.spec
        if spec.sleep == "never" or spec.engine != "vllm" or place(list(self._demands), self._claims) is not None:
            return False
        learnt = self._state.remembered()
        return not (learnt.get("sleep") is False and learnt.get("executable") == list(self._file.executable))

    async def _start(self, name: str, slot: Slot, sleep: bool) -> None:
        spec, devices = self._file.spec, [self._claims.devices[position] for position in slot]
        for attempt in range(_PORT_TRIES):
            port = take_port(spec.host, spec.ports)
            launch = launch_of(self._file, self._demands[name], devices, port, sleep)
            server = Server(launch, spec, self._file.folder, self._write)
            self.servers[name], self.placed[name] = server, slot
            try:
                await server.start()
                return
            except BaseException as error:
                await self.remove(name)
                if not isinstance(error, PortTakenError) or attempt == _PORT_TRIES - 1:
                    raise

    @asynccontextmanager
    async def _devices(self, slot: Slot) -> AsyncIterator[None]:
        locks = [self._locks.setdefault(position, asyncio.Lock()) for position in sorted(slot)]
        for lock in locks:
            await lock.acquire()
        try:
            yield
        finally:
            for lock in locks:
                lock.release()
