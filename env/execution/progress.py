"""Progress of a running batch, as small events."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Progress:
    """How far one stage of a batch has come on one model."""

    stage: str
    model: str
    done: int
    """Requests answered (prompts, each with its draws)."""

    total: int
    draws: int
    """Draws settled so far in this call."""

    seconds: float


ProgressSink = Callable[[Progress], None]
"""Called from the event loop after each stored chunk. Raising stops the batch; what is settled stays settled."""


def no_progress(event: Progress) -> None:
    """Ignore progress."""
