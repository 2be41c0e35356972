"""Draws when a study's trials ran, and how long model servers were loaded for them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from plotly.graph_objects import Bar, Figure

from planner.archive.browsing import TrialPoint
from planner.plans.figures import Theme, blank_figure, colours_of
from planner.plans.wording import duration

MOST_BARS = 200


@dataclass(frozen=True)
class Span:
    """Trials that ran one after the other, and their clock time."""

    first: int
    last: int
    begin_s: float
    """Clock time that the search had taken before."""

    load_s: float
    run_s: float

    @property
    def label(self) -> str:
        """Which trials."""
        return f"trial {self.first}" if self.first == self.last else f"trials {self.first} to {self.last}"


def spans(trials: Sequence[TrialPoint], most: int = MOST_BARS) -> list[Span]:
    """Trials by number, several put together where there are more than `most`.

    Trials of a batch run together; each has its share of the batch's time, so that the sum is what a clock showed.
    """
    size = max(1, -(-len(trials) // most))
    found: list[Span] = []
    begin = 0.0
    for start in range(0, len(trials), size):
        part = trials[start : start + size]
        load, run = sum(t.load_seconds for t in part), sum(t.seconds for t in part)
        found.append(Span(part[0].trial_no, part[-1].trial_no, begin, load, run))
        begin += load + run
    return found


def timeline_figure(trials: Sequence[TrialPoint], theme: Theme = "light") -> Figure:
    """A bar for each trial over the search's clock time: loading model servers first, then running.

    Args:
        trials: of the search split by number.
        theme: of the page around it.
    """
    colours = colours_of(theme)
    figure = blank_figure(colours, "clock time of the search, seconds", "trial")
    found = spans(trials)
    parts = (
        ("loading model servers", [s.begin_s for s in found], [s.load_s for s in found], colours.series[1], "/"),
        ("running", [s.begin_s + s.load_s for s in found], [s.run_s for s in found], colours.series[0], ""),
    )
    for name, bases, widths, colour, pattern in parts:
        if not any(widths):
            continue
        figure.add_trace(
            Bar(
                orientation="h",
                name=name,
                y=[s.first for s in found],
                x=widths,
                base=bases,
                width=[max(1, s.last - s.first + 1) * 0.8 for s in found],
                marker={"color": colour, "pattern": {"shape": pattern}},
                text=[f"{s.label}: {name} {duration(w)}" for s, w in zip(found, widths, strict=True)],
                textposition="none",
                customdata=[s.first for s in found],
                hovertemplate="%{text}<extra></extra>",
            )
        )
    figure.update_layout(barmode="overlay")
    figure.update_xaxes(rangemode="tozero")
    figure.update_yaxes(autorange="reversed", tickformat=",d")
    return figure
