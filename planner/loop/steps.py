"""How the loop runs a named step: in process here, durably in `planner.durable`."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Protocol, TypeVar

Result = TypeVar("Result")


class Steps(Protocol):
    """Runs steps. A step's effects must be idempotent: after a crash the one in flight is run again."""

    async def run(self, name: str, step: Callable[..., Awaitable[Result]], *args: object) -> Result:
        """Run a step once; a durable implementation answers a finished one from its record.

        Args:
            name: unique within the study, the same in every run of it.
            step: the work; its result must be plain JSON data.
            args: its arguments.
        """
        ...


class InProcessSteps:
    """Runs each step at once, with no record: for library use and fast tests."""

    async def run(self, name: str, step: Callable[..., Awaitable[Result]], *args: object) -> Result:
        """See `Steps.run`."""
        return await step(*args)
