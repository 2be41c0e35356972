"""Whether a server is worth asking: a circuit breaker that opens after failures in a row and tries one request."""

from __future__ import annotations

from typing import Literal

Admission = Literal["go", "probe", "wait", "refused"]
"""``wait``: a probe is under way and will tell; ``refused``: not before the pause is over."""


class CircuitBreaker:
    """Closed, open for a pause, then half open for one probe; plain state, the caller brings the clock.

    Nothing is decided by errors that are the request's own fault: a server that refuses a request is at work.
    """

    def __init__(self, threshold: int = 8, pause_s: float = 1.0, longest_pause_s: float = 30.0) -> None:
        """Start closed.

        Args:
            threshold: failures in a row that open it; more than one call's attempts, so that one request that breaks
                the server each time does not stop the others.
            pause_s: seconds it stays open at first; doubled by each probe that fails.
            longest_pause_s: at most.
        """
        self._threshold = threshold
        self._first_pause = pause_s
        self._longest_pause = longest_pause_s
        self._pause = pause_s
        self._failures = 0
        self._reason = ""
        self._until: float | None = None
        self._probing = False

    @property
    def state(self) -> Literal["closed", "open", "half-open"]:
        """What it is now; ``open`` until a request asks after the pause."""
        if self._until is None:
            return "closed"
        return "half-open" if self._probing else "open"

    def admit(self, now: float) -> Admission:
        """May a request be sent? ``probe`` makes it the one that decides; tell its outcome, or `abandoned`."""
        if self._until is None:
            return "go"
        if self._probing:
            return "wait"
        if now < self._until:
            return "refused"
        self._probing = True
        return "probe"

    def refusal(self, now: float) -> tuple[str, float] | None:
        """Why requests are refused, for people, and for how many seconds; None while they are not."""
        if self._until is None or self._probing or now >= self._until:
            return None
        left = self._until - now
        times = f"{self._failures} times in a row, last: {self._reason}"
        return f"the server failed {times}; nothing is sent to it for another {left:.1f} s", left

    def succeeded(self) -> None:
        """A request was answered: close, whichever request it was."""
        self._failures = 0
        self._until = None
        self._probing = False
        self._pause = self._first_pause

    def failed(self, now: float, reason: str, probe: bool = False) -> bool:
        """A request failed by the server's fault; whether that opened the breaker (again).

        Args:
            now: seconds of the caller's clock.
            reason: for people; kept for `refusal`.
            probe: the request was the probe. Others that were sent before it opened change nothing any more.
        """
        self._failures += 1
        self._reason = reason
        if probe:
            self._pause = min(self._longest_pause, 2 * self._pause)
        elif self._until is not None or self._failures < self._threshold:
            return False
        self._until = now + self._pause
        self._probing = False
        return True

    def abandoned(self) -> None:
        """The probe was given up by its asker: the next request may be the probe."""
        self._probing = False
