"""How many requests a caller may send: token buckets, one for each token, or address where there is none."""

from __future__ import annotations

import math
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

_MOST_CALLERS = 10_000


@dataclass(frozen=True)
class Rate:
    """A steady rate with room for a burst."""

    per_minute: float
    burst: int


@dataclass
class _Bucket:
    left: float
    at: float


class RateLimiter:
    """Token buckets by caller; not for several threads.

    Args of the constructor:
        rate: of each caller; None: no limit.
        clock: seconds that never go back.
    """

    def __init__(self, rate: Rate | None, clock: Callable[[], float] = time.monotonic) -> None:
        self._rate = rate
        self._clock = clock
        self._buckets: OrderedDict[str, _Bucket] = OrderedDict()

    def wait_for(self, caller: str) -> float:
        """Take one request of a caller's; 0 where there was one left, else the seconds until there is."""
        if self._rate is None:
            return 0.0
        now, rate = self._clock(), self._rate.per_minute / 60.0
        bucket = self._buckets.pop(caller, None) or _Bucket(self._rate.burst, now)
        # Last used, last forgotten: a caller who sends much cannot have itself forgotten by it.
        self._buckets[caller] = bucket
        if len(self._buckets) > _MOST_CALLERS:
            self._buckets.popitem(last=False)
        bucket.left = min(self._rate.burst, bucket.left + (now - bucket.at) * rate)
        bucket.at = now
        if bucket.left >= 1.0:
            bucket.left -= 1.0
            return 0.0
        return (1.0 - bucket.left) / rate


class OpenStreams:
    """Counts event streams that stay open, of each caller and of all."""

    def __init__(self, most: int, most_each: int) -> None:
        """None is open.

        Args:
            most: open at once, of all callers.
            most_each: of one caller.
        """
        self._most = most
        self._most_each = most_each
        self._open: dict[str, int] = {}

    def enter(self, caller: str) -> bool:
        """Open one more; False where there are too many already."""
        held = self._open.get(caller, 0)
        if held >= self._most_each or sum(self._open.values()) >= self._most:
            return False
        self._open[caller] = held + 1
        return True

    def leave(self, caller: str) -> None:
        """One has ended."""
        held = self._open[caller] - 1
        if held:
            self._open[caller] = held
        else:
            del self._open[caller]


def retry_after(seconds: float) -> str:
    """The value of Retry-After."""
    return str(max(1, math.ceil(seconds)))
