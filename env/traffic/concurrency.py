"""How many requests a server takes at once: additive increase, multiplicative decrease below a stated ceiling."""

from __future__ import annotations

_DECREASE = 0.5
_BUSY = 0.5
"""Share of the limit that must be in use before a success says anything about a higher one."""


class AdaptiveLimit:
    """The number of requests that may be in flight; plain arithmetic, no clock and no tasks.

    It starts at the ceiling, since most servers take what their user states, and is halved by each round of overload
    signals: signals of requests sent before the last decrease belong to the same round. It grows by one a round of
    successes, and faster, by one a success, up to half of where it last broke (Chiu and Jain 1989; TCP's slow start).
    """

    def __init__(self, ceiling: int) -> None:
        """Start at the ceiling, at least 1."""
        self._ceiling = max(1, ceiling)
        self._limit = float(self._ceiling)
        self._threshold = 1.0
        self._decreased = float("-inf")

    @property
    def ceiling(self) -> int:
        """The most it ever allows."""
        return self._ceiling

    @property
    def value(self) -> int:
        """Requests that may be in flight now, from 1 to the ceiling."""
        return max(1, int(self._limit))

    def raise_ceiling(self, ceiling: int) -> None:
        """Let the limit grow further; a limit that was never lowered follows at once."""
        if ceiling > self._ceiling:
            if self._limit == self._ceiling:
                self._limit = float(ceiling)
            self._ceiling = ceiling

    def served(self, in_flight: int) -> None:
        """A request was answered in good time while so many were in flight, itself included."""
        if in_flight >= _BUSY * self._limit:
            step = 1.0 if self._limit < self._threshold else 1.0 / self._limit
            self._limit = min(float(self._ceiling), self._limit + step)

    def overloaded(self, sent: float, now: float) -> None:
        """A request sent at ``sent`` (seconds of the caller's clock) was turned away, or answered too late."""
        if sent >= self._decreased:
            self._lower(max(1.0, self._limit * _DECREASE), now)

    def collapse(self, now: float) -> None:
        """The server stopped working: begin again with one request."""
        self._lower(1.0, now)

    def _lower(self, limit: float, now: float) -> None:
        self._threshold = max(1.0, self._limit * _DECREASE)
        self._limit = limit
        self._decreased = now
