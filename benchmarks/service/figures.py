"""Percentiles of times, and what else ran on the machine."""

from __future__ import annotations

import math
import os
import platform
import sqlite3
from collections.abc import Sequence
from typing import Any


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest value that at least this share of them do not exceed (nearest rank)."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


def summary(milliseconds: Sequence[float]) -> dict[str, float | int]:
    """Count, median, 99th percentile and maximum, in milliseconds."""
    if not milliseconds:
        return {"count": 0}
    return {
        "count": len(milliseconds),
        "p50_ms": round(percentile(milliseconds, 0.5), 1),
        "p99_ms": round(percentile(milliseconds, 0.99), 1),
        "max_ms": round(max(milliseconds), 1),
    }


def machine() -> dict[str, Any]:
    """Where this is measured, and how busy others keep it."""
    return {
        "cores": len(os.sched_getaffinity(0)),
        "load_average_1m": round(os.getloadavg()[0], 1),
        "python": platform.python_version(),
        "sqlite": sqlite3.sqlite_version,
    }
