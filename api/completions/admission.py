"""Lets a bounded number of queries run at a time and a bounded number wait a bounded time."""

from __future__ import annotations

import asyncio

from api.completions.errors import CompletionError


class Admission:
    """Used from one event loop."""

    def __init__(self, at_once: int, waiting: int, wait_s: float) -> None:
        """State the limits.

        Args:
            at_once: queries that run.
            waiting: queries that wait for a place.
            wait_s: how long each waits at most.
        """
        self._slots = asyncio.Semaphore(at_once)
        self._most_waiting = waiting
        self._wait_s = wait_s
        self.waiting = 0
        self.running = 0
        """Queries that hold a place."""

    async def enter(self) -> None:
        """Take a place; give it back with `leave`.

        Raises:
            CompletionError: 429 where too many wait already, 503 where none became free in time.
        """
        if self._slots.locked() and self.waiting >= self._most_waiting:
            raise CompletionError(
                429, f"{self.waiting} queries wait already; try again later", code="queue_full", retry_s=self._wait_s
            )
        self.waiting += 1
        try:
            async with asyncio.timeout(self._wait_s):
                await self._slots.acquire()
        except TimeoutError:
            raise CompletionError(
                503, f"no place became free within {self._wait_s:g} s", code="queue_timeout", retry_s=self._wait_s
            ) from None
        finally:
            self.waiting -= 1
        self.running += 1

    def leave(self) -> None:
        """Give a place back."""
        self.running -= 1
        self._slots.release()
