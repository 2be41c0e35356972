"""Finds the range and the ticks of a static figure's axes."""

from __future__ import annotations

import html
import math
from collections.abc import Iterator
from dataclasses import dataclass

from plotly.graph_objects import Bar, Figure


@dataclass(frozen=True)
class Axis:
    """One axis."""

    low: float
    high: float
    log: bool
    ticks: tuple[tuple[float, str], ...]
    names: bool = False
    """Whether it counts off names instead of a quantity."""

    def place(self, value: float) -> float:
        """Where a value lies, 0 at the low and 1 at the high end."""
        low, high, here = (math.log10(v) if self.log else v for v in (self.low, self.high, value))
        return (here - low) / (high - low)


def axis_of(figure: Figure, letter: str) -> Axis:
    """The axis ``x`` or ``y`` of a figure, with room around its values as the layout asks for."""
    layout = figure.layout[f"{letter}axis"]
    if letter == "y" and any(isinstance(t, Bar) for t in figure.data):
        names = [html.unescape(str(name)) for t in figure.data for name in t.y]
        return Axis(-0.5, len(names) - 0.5, False, tuple((float(i), n) for i, n in enumerate(names)), names=True)
    log = layout.type == "log"
    low, high = _range(figure, letter, log)
    chosen = [float(v) for v in layout.tickvals or ()] or list(_nice(low, high, log))
    percent = (layout.tickformat or "").endswith("%")
    ticks = tuple((v, f"{100 * v:.0f}%" if percent else _label(v)) for v in chosen if low <= v <= high * (1 + 1e-12))
    return Axis(low, high, log, ticks)


def _range(figure: Figure, letter: str, log: bool) -> tuple[float, float]:
    layout = figure.layout[f"{letter}axis"]
    if layout.range is not None and not log:
        return float(layout.range[0]), float(layout.range[1])
    values = list(_values(figure, letter, log)) or [1.0]
    low, high = min(values), max(values)
    if log:
        room = max((high / low) ** 0.05, 1.05)
        return low / room, high * room
    room = 0.06 * ((high - low) or abs(high) or 1.0)
    return (0.0 if layout.rangemode == "tozero" and low >= 0 else low - room), high + room


def _values(figure: Figure, letter: str, log: bool) -> Iterator[float]:
    """Everything that has to be seen: points, error bars, vertical lines."""
    for trace in figure.data:
        numbers = [float(v) for v in trace[letter] or ()]
        yield from (v for v in numbers if v > 0 or not log)
        errors = getattr(trace, "error_y", None)
        if letter == "y" and errors is not None and errors.array is not None:
            for value, error in zip(numbers, errors.array, strict=True):
                yield from (value - float(error), value + float(error))
    if letter == "x":
        yield from (float(shape.x0) for shape in figure.layout.shapes)


def _nice(low: float, high: float, log: bool) -> Iterator[float]:
    """Four to eight round ticks; decades on a logarithmic axis."""
    if log:
        yield from (10.0**d for d in range(math.ceil(math.log10(low)), math.floor(math.log10(high)) + 1))
        return
    raw = (high - low) / 6
    size = 10.0 ** math.floor(math.log10(raw))
    step = next(m * size for m in (1, 2, 5, 10) if raw <= m * size * (1 + 1e-9))
    for i in range(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1):
        yield i * step


def _label(value: float) -> str:
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.3g}" if abs(value) > 1e-12 else "0"
