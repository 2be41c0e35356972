"""Progress of a running batch, as small events."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

Mark = tuple[float, int]
"""(seconds since the start, requests answered by then)."""

MARKS = 16
"""Marks that an event carries, the newest last: the recent past, which tells more about the rest than the start."""


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
    marks: tuple[Mark, ...] = ()
    """Where it was at the last few events, this one included; the first events begin with (0, 0)."""

    @property
    def draw_rate(self) -> float:
        """Draws settled a second since the start; 0 before any time has passed."""
        return self.draws / self.seconds if self.seconds > 0 else 0.0

    @property
    def rate(self) -> float:
        """Requests answered a second of late; 0 while nothing is.

        The weighted median of the speeds between marks, each weighted by its time: a stall or a burst shorter than
        half of the marks' span does not move it (a robust slope, in the manner of Theil and Sen). Answers come in
        chunks, so that the mean since the first mark is used where the median says that nothing moves.
        """
        spans = [(after[0] - before[0], after[1] - before[1]) for before, after in pairwise(self.marks)]
        spans = [(time, answered) for time, answered in spans if time > 0]
        if not spans:
            return self.done / self.seconds if self.seconds > 0 else 0.0
        median = _weighted_median([(answered / time, time) for time, answered in spans])
        return median or sum(answered for _, answered in spans) / sum(time for time, _ in spans)

    @property
    def remaining_seconds(self) -> float | None:
        """Estimated time until the last request of this stage and model is answered; None while nothing tells."""
        if self.done >= self.total:
            return 0.0
        return (self.total - self.done) / self.rate if self.rate > 0 else None


def _weighted_median(values: list[tuple[float, float]]) -> float:
    """The value at which half of the weight is reached; ``values`` are (value, weight) pairs."""
    half = sum(weight for _, weight in values) / 2
    reached = 0.0
    for value, weight in sorted(values):
        reached += weight
        if reached >= half:
            return value
    return 0.0


ProgressSink = Callable[[Progress], None]
"""Called from the event loop after each stored chunk. Raising stops the batch; what is settled stays settled."""


def no_progress(event: Progress) -> None:
    """Ignore progress."""
