"""Gives batches the model servers they need: swaps models with the fewest loads and keeps load time apart."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass, field

from env.fleet.devices import find_devices
from env.fleet.errors import DoesNotFitError, FleetError, ServerError
from env.fleet.launching import launch_of
from env.fleet.load import FleetFile
from env.fleet.memory import Demand, demand_of
from env.fleet.placement import Claims, claims_of, place, refusal
from env.fleet.processes import ProcessMark
from env.fleet.residents import FleetTimes, Residents
from env.fleet.schedule import schedule
from env.fleet.server import Server
from env.fleet.state import FleetState, OwnerKind, Process, StateFile
from env.fleet.variants import base_name

PATIENCE_S = 60.0
"""How long a batch that needs a swap lets others go first that need none."""

_FORESIGHT = 32
"""Expected batches that a swap looks at."""

_IDLE_LOOK_S = 1.0


@dataclass
class Lease:
    """A batch's hold on its servers."""

    urls: Mapping[str, str]
    """Model -> URL for OpenAI clients, with ``/v1``."""

    api_key: str | None
    load_seconds: float
    """How long the batch waited for loads it caused; waiting for others' batches is not in it."""

    joined: bool = False
    """Whether the servers are another process's."""

    since: float = field(default_factory=time.monotonic)
    restarted_before: Mapping[str, float] = field(default_factory=dict)


@dataclass(eq=False)
class _Ticket:
    """One batch in the queue."""

    models: tuple[str, ...]
    since: float = field(default_factory=time.monotonic)


class Fleet:
    """The model servers of one fleet file, owned by this process.

    Lives in one event loop. Batches `acquire` the models they need; those that need the same models run side by side.
    A batch takes all its models at once, so two batches never wait for each other.
    """

    def __init__(self, file: FleetFile, models: Sequence[str] | None = None, kind: OwnerKind = "study") -> None:
        """Nothing is started yet.

        Args:
            file: the fleet file.
            models: the models it will be asked for, which must all be able to run here; by default any of the file,
                and one that cannot run is an error only when it is asked for.
            kind: what this process is, for those who look at the state.
        """
        self.file = file
        self._kind = kind
        self._names = tuple(file.spec.models) if models is None else tuple(dict.fromkeys(models))
        self._strict = models is not None
        self._unfit: dict[str, FleetError] = {}
        self._state = StateFile(file.folder)
        self._held = ExitStack()
        self._residents: Residents | None = None
        self._claims: Claims | None = None
        self._leases: dict[str, int] = {}
        self._leaving: frozenset[str] = frozenset()
        self._waiting: list[_Ticket] = []
        self._expected: list[tuple[str, ...]] = []
        self._changed = asyncio.Condition()
        self._swapping = False
        self._idle: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Fleet:
        await self.open()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def open(self) -> None:
        """Take the folder and check every model against the devices; nothing is started.

        Raises:
            DoesNotFitError: a model cannot run on these devices; with the numbers.
            FleetError: the folder is held by another process, a checkpoint is missing, or the like.
        """
        if not self._strict:
            self._names, self._unfit = await asyncio.to_thread(_runnable, self.file, self._names)
        demands, claims = await asyncio.to_thread(plan_memory, self.file, self._names)
        for demand in demands.values():
            # Found now, not after minutes of loading: a missing program, a token that is not set.
            launch_of(self.file, demand, claims.devices[:1], self.file.spec.ports[0])
        await asyncio.to_thread(self._held.enter_context, self._state.held())
        self._claims = claims
        self._residents = Residents(self.file, demands, claims, self._state, self._write)
        self._write()
        if self.file.spec.idle_stop_s is not None and self._kind != "up":
            self._idle = asyncio.create_task(self._stop_idle(self.file.spec.idle_stop_s))

    async def close(self) -> None:
        """Stop every server and give the folder back."""
        idle, self._idle = self._idle, None
        if idle is not None:
            idle.cancel()
        try:
            if self._residents is not None:
                await self._residents.clear()
        finally:
            self._residents = None
            self._held.close()
            async with self._changed:
                self._changed.notify_all()

    @property
    def times(self) -> FleetTimes:
        """Where the time went so far."""
        return self._opened.times

    @property
    def _opened(self) -> Residents:
        if self._residents is None:
            raise FleetError("the fleet is not open")
        return self._residents

    def server(self, model: str) -> Server | None:
        """A model's server, where it has one."""
        return self._opened.servers.get(model)

    def expect(self, batches: Sequence[Sequence[str]]) -> None:
        """Say which models coming batches will need, in order, so that swaps keep what is needed soon."""
        self._expected = [tuple(sorted(set(batch))) for batch in batches]

    @asynccontextmanager
    async def acquire(self, models: Sequence[str]) -> AsyncIterator[Lease]:
        """Hold the servers of some models; they stay up and are not swapped out until the end of the block.

        Raises:
            DoesNotFitError: the models do not fit together; with the numbers.
            ServerError: a server does not start; with the last lines of its log.
        """
        lease = await self.lease(models)
        try:
            yield lease
        finally:
            await self.release(lease)

    async def lease(self, models: Sequence[str]) -> Lease:
        """`acquire` without the block: whoever calls it must `release`."""
        residents, wanted = self._opened, tuple(dict.fromkeys(models))
        await self._admit(wanted)
        self._check_fit(wanted)
        swap = await self._turn(wanted)
        started = time.monotonic()
        try:
            if swap:
                await self._swap(wanted)
            for name in wanted:
                await residents.servers[name].ready()
        except BaseException:
            await self._let_go(wanted)
            raise
        finally:
            if swap:
                await self._swapped()
        servers = {name: residents.servers[name] for name in wanted}
        return Lease(
            urls={name: server.base_url for name, server in servers.items()},
            api_key=self.file.api_key,
            load_seconds=time.monotonic() - started if swap else 0.0,
            restarted_before={name: server.restart_seconds for name, server in servers.items()},
        )

    async def release(self, lease: Lease) -> None:
        """Give a lease back; after `close` there is nothing to give back."""
        residents = self._residents
        if residents is None:
            return
        down = [
            residents.servers[name].restart_seconds - before
            for name, before in lease.restarted_before.items()
            if name in residents.servers
        ]
        residents.times.inference_seconds += max(0.0, time.monotonic() - lease.since - max(down, default=0.0))
        await self._let_go(tuple(lease.urls))
        self._write()

    async def retire(self, model: str) -> None:
        """Stop a model's server that nobody holds; nothing where it is held, or has none."""
        async with self._changed:
            if not self._leases.get(model) and not self._swapping:
                await self._opened.remove(model)

    async def ready(self, model: str) -> str:
        """The URL of a leased model's server once it answers, which may be after a restart.

        Raises:
            ServerError: it was given up.
        """
        server = self.server(model)
        if server is None:
            raise ServerError(f"{model} is not up; acquire it first")
        await server.ready()
        return server.base_url

    # Turns -------------------------------------------------------------------------------------------------------

    async def _turn(self, wanted: tuple[str, ...]) -> bool:
        """Wait for this batch's turn and pin its models; whether a swap must come first."""
        ticket = _Ticket(wanted)
        async with self._changed:
            self._waiting.append(ticket)
            try:
                await self._changed.wait_for(lambda: self._may_go(ticket))
                swap = not self._stays_up(wanted)
                self._swapping = self._swapping or swap
                for name in wanted:
                    self._leases[name] = self._leases.get(name, 0) + 1
            finally:
                self._waiting.remove(ticket)
                self._changed.notify_all()
        if not swap:
            self._met(wanted)
        return swap

    def _may_go(self, ticket: _Ticket) -> bool:
        """Whether a batch can have its models now; nobody who holds models or has waited for long is pushed aside."""
        self._opened  # noqa: B018 (those who wait while the fleet is closed get its error)
        oldest = self._waiting[0]
        if oldest is not ticket and time.monotonic() - oldest.since > PATIENCE_S:
            return False
        if self._stays_up(ticket.models):
            return True
        if self._swapping or self._claims is None:
            return False
        return place(ticket.models, self._claims, self._pinned()) is not None

    def _pinned(self, but_for: Sequence[str] = ()) -> dict[str, tuple[int, ...]]:
        """Models that batches hold, and where; one hold of each model of ``but_for`` does not count."""
        awake = self._opened.awake()
        return {
            name: awake[name] for name, count in self._leases.items() if name in awake and count > (name in but_for)
        }

    def _stays_up(self, models: Sequence[str]) -> bool:
        return self._opened.up(models) and not self._leaving & set(models)

    async def _let_go(self, models: Sequence[str]) -> None:
        async with self._changed:
            for name in models:
                self._leases[name] -= 1
                if self._residents is not None:
                    self._residents.last_use[name] = time.monotonic()
            self._changed.notify_all()

    async def _swap(self, wanted: tuple[str, ...]) -> None:
        assert self._claims is not None
        residents = self._opened
        await residents.remove_broken()
        future = self._expected[1:] if self._expected and set(self._expected[0]) == set(wanted) else self._expected
        pinned = list(self._pinned(but_for=wanted))
        plan = schedule([wanted, *future[:_FORESIGHT]], self._claims, residents.awake(), pinned)
        self._leaving = frozenset(plan.steps[0].drop)
        await residents.take(plan.steps[0])
        self._met(wanted)

    async def _swapped(self) -> None:
        async with self._changed:
            self._swapping, self._leaving = False, frozenset()
            self._changed.notify_all()

    def _met(self, models: tuple[str, ...]) -> None:
        if self._expected and set(self._expected[0]) == set(models):
            self._expected.pop(0)

    async def _admit(self, models: tuple[str, ...]) -> None:
        """Learn what variants need that are asked for the first time; a file opens more of them than are ever used."""
        for name in models:
            if name in self._names or name in self._unfit or base_name(name) not in self._names:
                continue
            try:
                demands, claims = await asyncio.to_thread(plan_memory, self.file, [name])
            except DoesNotFitError as error:
                self._unfit[name] = error
                continue
            known = self._claims
            if known is None or name in self._names:
                continue
            self._claims = Claims(known.devices, {**known.bytes_on, **claims.bytes_on}, {**known.count, **claims.count})
            self._opened.admit(demands, self._claims)
            self._names = (*self._names, name)

    def _check_fit(self, models: tuple[str, ...]) -> None:
        assert self._claims is not None
        for name in models:
            if name in self._unfit:
                raise self._unfit[name]
        unknown = [name for name in models if name not in self._names]
        if unknown:
            raise FleetError(f"{self.file.path} has no model {unknown[0]!r}; there are {', '.join(self._names)}")
        if place(models, self._claims) is None:
            raise refusal(models, self._claims)

    async def _stop_idle(self, limit: float) -> None:
        while True:
            await asyncio.sleep(min(_IDLE_LOOK_S, limit))
            async with self._changed:
                residents, now = self._opened, time.monotonic()
                idle = [n for n in residents.servers if now - residents.last_use.get(n, now) > limit]
                for name in [] if self._swapping else [n for n in idle if not self._leases.get(n)]:
                    await residents.remove(name)

    def _write(self) -> None:
        """Let other processes see how things are."""
        me = ProcessMark.of(os.getpid())
        assert me is not None
        state = FleetState(owner=Process.of(me), kind=self._kind, file=str(self.file.path), updated=time.time())
        if self._residents is not None:
            times = {name: round(value, 3) for name, value in vars(self._residents.times).items()}
            state = state.model_copy(update={**times, "servers": self._residents.states()})
        self._state.write(state)


def _runnable(file: FleetFile, names: Sequence[str]) -> tuple[tuple[str, ...], dict[str, FleetError]]:
    """The models that can run here, and why the others cannot.

    Raises:
        FleetError: none can.
    """
    unfit: dict[str, FleetError] = {}
    for name in names:
        try:
            plan_memory(file, [name])
        except FleetError as error:
            unfit[name] = error
    if len(unfit) == len(names):
        raise next(iter(unfit.values()))
    return tuple(name for name in names if name not in unfit), unfit


def plan_memory(file: FleetFile, names: Sequence[str]) -> tuple[dict[str, Demand], Claims]:
    """What each model needs and what the devices have.

    Raises:
        DoesNotFitError: a model cannot run on these devices at all.
        FleetError: a checkpoint or the devices' memory cannot be read.
    """
    devices = find_devices(file.spec)
    demands = {name: demand_of(name, file.model(name), file.checkpoint(name)) for name in names}
    return demands, claims_of(list(demands.values()), devices)
