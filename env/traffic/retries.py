"""How many retries a server is sent: a share of its requests, so that one in trouble is not stormed."""

from __future__ import annotations


class RetryBudget:
    """A bucket of retries, filled by first attempts and slowly by time; plain arithmetic, the caller brings the clock.

    With every request failing, a client that tries each five times sends a server that has too much to do five times
    as much. This bounds retries to ``share`` of the first attempts plus ``per_second``, over any longer stretch.
    """

    def __init__(
        self, share: float = 0.2, reserve: int = 32, per_second: float = 10.0, longest_wait_s: float = 30.0
    ) -> None:
        """Start full.

        Args:
            share: retries that a first attempt pays for.
            reserve: most retries that can be saved up.
            per_second: retries that time pays for, so that a few requests are not stuck.
            longest_wait_s: a retry that would have to wait longer is not made.
        """
        self._share = share
        self._reserve = float(reserve)
        self._per_second = per_second
        self._longest_wait = longest_wait_s
        self._balance = self._reserve
        self._filled = float("-inf")

    def first_attempt(self) -> None:
        """A request is sent for the first time."""
        self._balance = min(self._reserve, self._balance + self._share)

    def take(self, now: float) -> float | None:
        """Spend one retry: seconds to wait before it may be sent, 0 for at once; None where it is not to be had."""
        if self._filled > float("-inf"):
            self._balance = min(self._reserve, self._balance + self._per_second * max(0.0, now - self._filled))
        self._filled = now
        wait = max(0.0, 1.0 - self._balance) / self._per_second
        if wait > self._longest_wait:
            return None
        self._balance -= 1.0
        return wait
