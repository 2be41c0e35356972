"""One server's gate: every request of this process passes it, whichever study, backend or event loop it comes from."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import Literal
from weakref import WeakValueDictionary

from env.errors import BackendError
from env.traffic.breaker import CircuitBreaker
from env.traffic.concurrency import AdaptiveLimit
from env.traffic.fairness import FairQueue
from env.traffic.retries import RetryBudget

Clock = Callable[[], float]


class Verdict(Enum):
    """What became of a request, as far as the server's health and load are concerned."""

    SERVED = (True, False)
    """Answered, if only by a refusal that is the request's own fault."""

    BUSY = (True, True)
    """Turned away for load (429), or answered so late that it all but timed out."""

    UNAVAILABLE = (False, True)
    """503, or no answer in time."""

    BROKEN = (False, False)
    """No connection, another 5xx, or a reply that makes no sense."""

    ABANDONED = (None, False)
    """Given up by the asker; says nothing."""

    @property
    def healthy(self) -> bool | None:
        """Whether the server worked; None where the request does not tell."""
        healthy: bool | None = self.value[0]
        return healthy

    @property
    def overloaded(self) -> bool:
        """Whether less should be asked at once."""
        return bool(self.value[1])


class NotAdmittedError(BackendError):
    """The request was not sent; ``retry_s`` is when to ask again, None if that is of no use."""

    def __init__(self, reason: str, retry_s: float | None) -> None:
        super().__init__(reason)
        self.retry_s = retry_s


@dataclass(eq=False)
class Ticket:
    """The right to have one request in flight; give it back with `ServerGate.leave`."""

    tenant: str
    sent: float = 0.0
    probe: bool = False


@dataclass(eq=False)
class _Waiter:
    ticket: Ticket
    loop: asyncio.AbstractEventLoop
    future: asyncio.Future[None]
    granted: bool = False


class ServerGate:
    """Bounds what is in flight on a server: adaptive limit, circuit breaker, retry budget, tenants in turn.

    Safe for several event loops in several threads.
    """

    def __init__(
        self,
        ceiling: int,
        clock: Clock = time.monotonic,
        breaker: CircuitBreaker | None = None,
        retries: RetryBudget | None = None,
    ) -> None:
        """Open, with nothing in flight.

        Args:
            ceiling: most requests in flight.
            clock: seconds, monotonic.
            breaker: its state, thresholds and pauses; the usual ones by default.
            retries: the usual budget by default.
        """
        self._clock = clock
        self._limit = AdaptiveLimit(ceiling)
        self._breaker = breaker or CircuitBreaker()
        self._retries = retries or RetryBudget()
        self._waiting: FairQueue[_Waiter] = FairQueue()
        self._in_flight = 0
        self._lock = threading.Lock()

    @property
    def limit(self) -> int:
        """Requests that may be in flight now."""
        return self._limit.value

    @property
    def in_flight(self) -> int:
        """Requests on their way."""
        return self._in_flight

    def raise_ceiling(self, ceiling: int) -> None:
        """Allow more in flight: the most generous of those who share the server decides."""
        with self._lock:
            self._limit.raise_ceiling(ceiling)
            self._dispatch()

    async def enter(self, tenant: str, retry: bool = False) -> Ticket:
        """Wait for a place.

        Args:
            tenant: whose request it is; tenants are served in turn.
            retry: the request was sent before.

        Raises:
            NotAdmittedError: the circuit is open, or there have been too many retries.
        """
        await self._pay(retry)
        with self._lock:
            self._require_closed()
            ticket = Ticket(tenant)
            waiter: _Waiter | None = None
            if self._waiting or not self._place(ticket):
                loop = asyncio.get_running_loop()
                waiter = _Waiter(ticket, loop, loop.create_future())
                self._waiting.push(tenant, waiter)
        if waiter is not None:
            await self._turn(waiter)
        return ticket

    def leave(self, ticket: Ticket, verdict: Verdict, reason: str = "") -> None:
        """Give the place back and say what became of the request; the reason is shown while the circuit is open."""
        with self._lock:
            now = self._clock()
            if verdict.overloaded:
                self._limit.overloaded(ticket.sent, now)
            elif verdict.healthy:
                self._limit.served(self._in_flight)
            if verdict.healthy:
                self._breaker.succeeded()
            elif verdict.healthy is None:
                if ticket.probe:
                    self._breaker.abandoned()
            elif self._breaker.failed(now, reason, ticket.probe):
                self._limit.collapse(now)
            self._in_flight -= 1
            self._dispatch()

    def restarted(self) -> None:
        """Somebody who watches the server knows that it is back: close the circuit without waiting for a probe."""
        with self._lock:
            self._breaker.succeeded()
            self._dispatch()

    async def _pay(self, retry: bool) -> None:
        """First attempts pay into the budget; a retry waits until it can be afforded."""
        with self._lock:
            if not retry:
                self._retries.first_attempt()
                return
            self._require_closed()
            # While the circuit is half open only a probe is sent, and the rest waits for it: that is bound enough.
            wait = self._retries.take(self._clock()) if self._breaker.state == "closed" else 0.0
        if wait is None:
            raise NotAdmittedError("the server fails so often that it is sent no more retries for now", None)
        if wait > 0:
            await asyncio.sleep(wait)

    async def _turn(self, waiter: _Waiter) -> None:
        try:
            await waiter.future
        except BaseException:
            with self._lock:
                if waiter.granted:
                    if waiter.ticket.probe:
                        self._breaker.abandoned()
                    self._in_flight -= 1
                    self._dispatch()
                else:
                    self._waiting.discard(waiter.ticket.tenant, waiter)
            raise

    def _require_closed(self) -> None:
        refusal = self._breaker.refusal(self._clock())
        if refusal is not None:
            raise NotAdmittedError(*refusal)

    def _place(self, ticket: Ticket) -> bool:
        """Let a request go if there is a place for it."""
        admission = self._admission()
        if admission is None:
            return False
        ticket.sent, ticket.probe = self._clock(), admission == "probe"
        self._in_flight += 1
        return True

    def _admission(self) -> Literal["go", "probe"] | None:
        """How one more request would go now; whoever is told ``probe`` must send it."""
        if self._in_flight >= self._limit.value:
            return None
        admission = self._breaker.admit(self._clock())
        return admission if admission in ("go", "probe") else None

    def _dispatch(self) -> None:
        """Let go whoever may; turn away everybody once the circuit is open."""
        refusal = self._breaker.refusal(self._clock())
        if refusal is not None:
            for waiter in self._waiting.drain():
                _wake(waiter, NotAdmittedError(*refusal))
            return
        while self._waiting:
            admission = self._admission()
            if admission is None:
                return
            waiter = self._waiting.pop()
            waiter.granted = _wake(waiter, None)
            if waiter.granted:
                waiter.ticket.sent, waiter.ticket.probe = self._clock(), admission == "probe"
                self._in_flight += 1
            elif admission == "probe":
                # The waiter's event loop is gone, and with it whoever waited.
                self._breaker.abandoned()


def _wake(waiter: _Waiter, error: NotAdmittedError | None) -> bool:
    """Let a waiter's task go on, in its own event loop; False if that loop is closed."""

    def settle() -> None:
        if waiter.future.done():
            return
        if error is None:
            waiter.future.set_result(None)
        else:
            waiter.future.set_exception(error)

    try:
        here: asyncio.AbstractEventLoop | None = asyncio.get_running_loop()
    except RuntimeError:
        here = None
    if here is waiter.loop:
        settle()
        return True
    try:
        waiter.loop.call_soon_threadsafe(settle)
    except RuntimeError:
        return False
    return True


_gates: WeakValueDictionary[str, ServerGate] = WeakValueDictionary()
_registry = threading.Lock()


def gate_of(server: str, ceiling: int) -> ServerGate:
    """The gate of a server (its URL without credentials), shared by all of this process that hold it.

    Args:
        server: what tells servers apart.
        ceiling: most requests in flight; the largest that anybody states counts.
    """
    with _registry:
        gate = _gates.get(server)
        if gate is None:
            gate = _gates[server] = ServerGate(ceiling)
    gate.raise_ceiling(ceiling)
    return gate
