"""How numbers are written for people: the same in every report."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from planner.plans.document import IntervalPublic

NOT_EVALUATED = "not evaluated"


def score(value: float | None) -> str:
    """A score to three decimals; a missing one is not 0."""
    return NOT_EVALUATED if value is None else f"{value:.3f}"


def signed(value: float) -> str:
    """A difference of scores."""
    return f"{value:+.3f}"


def count(number: float, word: str = "") -> str:
    """A whole number with thousands marked, and its noun."""
    text = f"{number:,.0f}"
    if not word:
        return text
    return f"{text} {word}" if text == "1" else f"{text} {word}s"


def share(value: float) -> str:
    """A share in per cent, with a decimal below one."""
    return f"{100 * value:.1f}%" if 0 < value < 0.01 else f"{100 * value:.0f}%"


def duration(seconds: float) -> str:
    """A time as people say it: ``4.2 s``, ``12 min``, ``3.5 h``."""
    if seconds < 120:
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def difference(interval: IntervalPublic) -> str:
    """A paired difference with its interval."""
    bounds = f"95% interval {signed(interval.low)} to {signed(interval.high)}"
    return f"{signed(interval.estimate)} ({bounds}, {count(interval.examples, 'example')})"


def told_apart(interval: IntervalPublic) -> bool:
    """Whether an interval of a difference leaves 0 out."""
    return interval.low > 0 or interval.high < 0


def allocation_text(allocation: Mapping[str, Mapping[str, Any]]) -> str:
    """An allocation in one line, knobs included."""
    return ", ".join(f"{stage} {setting_text(setting)}" for stage, setting in allocation.items())


def setting_text(setting: Mapping[str, Any]) -> str:
    """A stage's setting as ``model/strategy/samples[knobs]``."""
    text = f"{setting['model']}/{setting['strategy']}/{setting['samples']}"
    knobs = setting.get("knobs") or {}
    return f"{text}[{', '.join(f'{name}={value}' for name, value in knobs.items())}]" if knobs else text
