"""Draws the figures of `planner.plans.figures` as static SVG, for documents that run no script.

It reads the same Plotly figures that the pages show, so that a picture never differs from them, and knows what those
use: lines, points with error bars, horizontal bars, linear and logarithmic axes, a vertical line. Nothing else is
drawn: a kind of trace it does not know is an error, not a gap.
"""

from __future__ import annotations

import html
import math
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any
from xml.sax.saxutils import escape, quoteattr

from plotly.graph_objects import Bar, Figure, Scatter

from planner.plans.axes import Axis, axis_of
from planner.plans.escaping import plain_line

WIDTH, HEIGHT = 720, 400
LEFT, RIGHT, BOTTOM = 74, 20, 58
LEGEND_LINE = 22
_FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, Arial, sans-serif"
_DASHES = {
    "solid": "",
    "dash": "9 6",
    "dot": "2 5",
    "dashdot": "9 5 2 5",
    "longdash": "15 7",
    "longdashdot": "15 6 2 6",
}


@dataclass(frozen=True)
class _Frame:
    """Where values lie on the picture."""

    x: Axis
    y: Axis
    top: float
    height: float

    def at(self, x: float, y: float) -> tuple[float, float]:
        """Pixels of a point."""
        return (
            LEFT + self.x.place(x) * (WIDTH - LEFT - RIGHT),
            self.top + (1 - self.y.place(y)) * (self.height - self.top - BOTTOM),
        )


def figure_svg(figure: Figure, title: str) -> str:
    """A figure as an SVG document.

    Args:
        figure: one of `planner.plans.figures`, in the light theme.
        title: what it shows, for those who cannot see it.

    Raises:
        ValueError: the figure has a trace that is neither `Scatter` nor a horizontal `Bar`.
    """
    for trace in figure.data:
        if not isinstance(trace, Scatter) and not (isinstance(trace, Bar) and trace.orientation == "h"):
            raise ValueError(f"no static picture of a {type(trace).__name__} can be drawn")
    names = [_plain(t.name) for t in figure.data if t.name and t.showlegend is not False]
    legend = list(_legend_places(names))
    height = float(figure.layout.height or HEIGHT)
    top = 14 + LEGEND_LINE * (legend[-1][1] + 1 if legend else 0)
    frame = _Frame(axis_of(figure, "x"), axis_of(figure, "y"), top, height)
    ink, grid = figure.layout.font.color, figure.layout.xaxis.gridcolor
    body = [*_axes(frame, figure, ink, grid)]
    for trace in figure.data:
        body += _bars(frame, trace, ink) if isinstance(trace, Bar) else _scatter(frame, trace)
    body += _vertical_lines(frame, figure, ink)
    shown = [t for t in figure.data if t.name and t.showlegend is not False]
    for trace, (x, line) in zip(shown, legend, strict=True):
        body += _legend(trace, x, 14 + LEGEND_LINE * line, ink)
    title = plain_line(title)
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height:g}" width="{WIDTH}" height="{height:g}" '
        f'role="img" aria-label={quoteattr(title)} font-family="{_FONT}" font-size="13">'
    )
    ground = f'<rect width="{WIDTH}" height="{height:g}" fill="#ffffff"/>'
    return "\n".join([head, f"<title>{escape(title)}</title>", ground, *body, "</svg>"]) + "\n"


def _axes(frame: _Frame, figure: Figure, ink: str, grid: str) -> Iterator[str]:
    left, bottom = frame.at(frame.x.low, frame.y.low)
    right, top = frame.at(frame.x.high, frame.y.high)
    for value, label in frame.x.ticks:
        x = frame.at(value, frame.y.low)[0]
        yield _line(x, top, x, bottom, grid, 1)
        yield _text(x, bottom + 18, label, ink, "middle")
    for value, label in frame.y.ticks:
        y = frame.at(frame.x.low, value)[1]
        if not frame.y.names:
            yield _line(left, y, right, y, grid, 1)
        yield _text(left - 8, y + 4.5, label, ink, "end")
    yield _line(left, bottom, right, bottom, ink, 1)
    yield _line(left, top, left, bottom, ink, 1)
    yield _text((left + right) / 2, bottom + 44, _plain(figure.layout.xaxis.title.text), ink, "middle")
    title = _plain(figure.layout.yaxis.title.text)
    if title:
        yield _text(18, (top + bottom) / 2, title, ink, "middle", f"rotate(-90 18 {(top + bottom) / 2:.1f})")


def _scatter(frame: _Frame, trace: Scatter) -> Iterator[str]:
    points = [(float(x), float(y)) for x, y in zip(trace.x or (), trace.y or (), strict=True)]
    places = [frame.at(x, y) for x, y in points]
    if "lines" in trace.mode and len(places) > 1:
        yield _path(_stepped(places) if trace.line.shape == "hv" else places, trace)
    errors = trace.error_y.array
    if errors is not None:
        for (x, y), error in zip(points, errors, strict=True):
            low, high = (frame.at(x, min(max(v, frame.y.low), frame.y.high)) for v in (y - error, y + error))
            yield _line(low[0], low[1], high[0], high[1], trace.error_y.color, 1)
    if "markers" in trace.mode:
        symbols = trace.marker.symbol
        for i, (x, y) in enumerate(places):
            symbol = symbols if isinstance(symbols, str) else symbols[i]
            yield _marker(x, y, symbol, float(trace.marker.size), trace.marker.color)


def _bars(frame: _Frame, trace: Bar, ink: str) -> Iterator[str]:
    thick = 0.65 * (frame.height - frame.top - BOTTOM) / max(1, len(trace.y))
    for i, (value, label) in enumerate(zip(trace.x, trace.text, strict=True)):
        (x0, y), (x1, _) = frame.at(0.0, float(i)), frame.at(float(value), float(i))
        yield (
            f'<rect x="{x0:.1f}" y="{y - thick / 2:.1f}" width="{x1 - x0:.1f}" height="{thick:.1f}" '
            f"fill={quoteattr(trace.marker.color)}/>"
        )
        yield _text(x1 + 6, y + 4.5, label, ink, "start")


def _vertical_lines(frame: _Frame, figure: Figure, ink: str) -> Iterator[str]:
    for shape in figure.layout.shapes:
        x, bottom = frame.at(float(shape.x0), frame.y.low)
        yield _line(x, frame.at(float(shape.x0), frame.y.high)[1], x, bottom, shape.line.color, 2, _DASHES["dash"])
    for note in figure.layout.annotations:
        x, bottom = frame.at(float(note.x), frame.y.low)
        yield _text(x - 6, bottom - 8, _plain(note.text), ink, "start", f"rotate(-90 {x - 6:.1f} {bottom - 8:.1f})")


def _legend_places(names: Sequence[str]) -> Iterator[tuple[float, int]]:
    """(x, line) of each entry: side by side while they fit, by the width of their letters."""
    x, line = float(LEFT), 0
    for name in names:
        wide = 46 + 7.2 * len(name)
        if x > LEFT and x + wide > WIDTH - RIGHT:
            x, line = float(LEFT), line + 1
        yield x, line
        x += wide


def _legend(trace: Any, x: float, y: float, ink: str) -> Iterator[str]:
    if "lines" in trace.mode:
        yield _line(x, y, x + 26, y, trace.line.color, trace.line.width or 2, _DASHES[trace.line.dash or "solid"])
    if "markers" in trace.mode:
        symbols = trace.marker.symbol
        symbol = symbols if isinstance(symbols, str) else symbols[-1] if len(symbols) else "circle"
        yield _marker(
            x + 13, y, symbol.removesuffix("-open") if "lines" in trace.mode else symbol, 9, trace.marker.color
        )
    yield _text(x + 32, y + 4.5, _plain(trace.name), ink, "start")


def _stepped(places: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """First across, then up, as a value that holds until the next."""
    steps = [places[0]]
    for x, y in places[1:]:
        steps += [(x, steps[-1][1]), (x, y)]
    return steps


def _path(places: Sequence[tuple[float, float]], trace: Scatter) -> str:
    points = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
    dash = _DASHES[trace.line.dash or "solid"]
    dashed = f' stroke-dasharray="{dash}"' if dash else ""
    stroke = f'stroke={quoteattr(trace.line.color)} stroke-width="{trace.line.width or 2:g}"{dashed}'
    return f'<polyline points="{points}" fill="none" {stroke}/>'


def _line(x0: float, y0: float, x1: float, y1: float, colour: str, width: float, dash: str = "") -> str:
    dashed = f' stroke-dasharray="{dash}"' if dash else ""
    return (
        f'<line x1="{x0:.1f}" y1="{y0:.1f}" x2="{x1:.1f}" y2="{y1:.1f}" stroke={quoteattr(colour)} '
        f'stroke-width="{width:g}"{dashed}/>'
    )


def _text(x: float, y: float, text: str, colour: str, anchor: str, transform: str = "") -> str:
    turned = f' transform="{transform}"' if transform else ""
    # A white edge keeps letters readable where they lie over points.
    edge = 'stroke="#ffffff" stroke-width="3" paint-order="stroke"'
    place = f'x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" {edge}{turned}'
    return f"<text {place} fill={quoteattr(colour)}>{escape(plain_line(text))}</text>"


def _marker(x: float, y: float, symbol: str, size: float, colour: str) -> str:
    name = symbol.removesuffix("-open")
    fill = "none" if symbol.endswith("-open") else colour
    style = f'fill={quoteattr(fill)} stroke={quoteattr(colour)} stroke-width="1.5"'
    if name == "circle":
        return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{size / 2:.1f}" {style}/>'
    corners = _CORNERS[name](size / 2)
    points = " ".join(f"{x + dx:.1f},{y + dy:.1f}" for dx, dy in corners)
    return f'<polygon points="{points}" {style}/>'


def _star(r: float) -> list[tuple[float, float]]:
    turns = [(r if i % 2 == 0 else 0.4 * r, math.pi * (i / 5 - 0.5)) for i in range(10)]
    return [(a * math.cos(t), a * math.sin(t)) for a, t in turns]


_CORNERS: dict[str, Callable[[float], list[tuple[float, float]]]] = {
    "square": lambda r: [(-r, -r), (r, -r), (r, r), (-r, r)],
    "diamond": lambda r: [(0, -1.2 * r), (1.2 * r, 0), (0, 1.2 * r), (-1.2 * r, 0)],
    "triangle-up": lambda r: [(0, -r), (r, 0.8 * r), (-r, 0.8 * r)],
    "cross": lambda r: [
        (-r, -r / 3),
        (-r / 3, -r / 3),
        (-r / 3, -r),
        (r / 3, -r),
        (r / 3, -r / 3),
        (r, -r / 3),
        (r, r / 3),
        (r / 3, r / 3),
        (r / 3, r),
        (-r / 3, r),
        (-r / 3, r / 3),
        (-r, r / 3),
    ],
    "star": _star,
}


def _plain(text: str | None) -> str:
    """Plotly's texts are a little HTML, in which names are escaped."""
    return html.unescape(re.sub(r"<br>", " ", text or ""))
