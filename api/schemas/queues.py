"""Queues."""

from __future__ import annotations

from pydantic import Field

from api.schemas.base import Public
from planner.durable import QueueState


class QueuePublic(Public):
    """One queue of studies."""

    name: str = Field(description="`studies`, or that of a fleet.")
    waiting: int = Field(description="Studies that wait for a worker.")
    running: int
    per_worker: int | None = Field(description="Studies that one worker runs at a time; null for no limit.")
    total: int | None = Field(description="Studies that all workers together run at a time; null for no limit.")

    @classmethod
    def of(cls, state: QueueState) -> QueuePublic:
        """From the queue's state."""
        return cls(**vars(state))
