"""Draws a study's figures from archive records: the same ones for the live page and the report."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any, Literal

from plotly.graph_objects import Bar, Figure, Scatter

from env.costs import Calibration
from planner.archive.records import KPoint, TrialRecord
from planner.plans.document import PlanDocument
from planner.plans.explanation import PREFIXED, PREFIXES, amount

Theme = Literal["light", "dark"]

CREDIBLE_COVERAGE = 0.8
"""Below this share of the outcomes' probability a point of a curve is drawn hollow: too few draws stand behind it."""

MOST_ERROR_BARS = 200
"""With more trials their error bars hide the trials."""

LEAST_SPAN = 0.1
"""Of a curve's axis of scores."""


@dataclass(frozen=True)
class Colours:
    """Of a figure."""

    ink: str
    faint: str
    grid: str
    series: tuple[str, ...]


_LIGHT = Colours("#1c2330", "#5b6573", "#dde2e9", ("#0072b2", "#d55e00", "#009e73", "#aa4499", "#8a6d00", "#4477aa"))
_DARK = Colours("#e8ecf2", "#a3adba", "#333c49", ("#56b4e9", "#f0a35e", "#2fc99a", "#d78cc3", "#e6c84a", "#9db8e0"))
"""Okabe and Ito's colours, darkened or lightened to a contrast of at least 3:1 against the page."""

_SYMBOLS = ("circle", "square", "diamond", "triangle-up", "cross", "star")
_DASHES = ("solid", "dash", "dot", "dashdot", "longdash", "longdashdot")
_FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif"


def best_so_far(
    trials: Sequence[TrialRecord], theme: Theme = "light", spent_by: Mapping[int, int] | None = None
) -> Figure:
    """Score of every search trial and the best so far, over the draws spent up to its end.

    Args:
        trials: of the search split, in the order they ran; those without a score only add to the draws.
        theme: of the page around it.
        spent_by: new draws up to the end of each trial, by number, where `trials` are only some of them.
    """
    colours = colours_of(theme)
    figure = blank_figure(colours, "new draws spent by the search", "score on the search split")
    spent, best = 0, float("-inf")
    spends: list[int] = []
    bests: list[float] = []
    scored: list[TrialRecord] = []
    for trial in trials:
        spent = spent + trial.spend.new_draws if spent_by is None else spent_by[trial.trial_no]
        if trial.score is not None:
            best = max(best, trial.score)
            scored.append(trial)
            spends.append(spent)
            bests.append(best)
    figure.add_trace(
        Scatter(
            x=spends,
            y=bests,
            name="best so far",
            mode="lines",
            line={"shape": "hv", "width": 3, "color": colours.series[0]},
            hoverinfo="skip",
        )
    )
    figure.add_trace(
        Scatter(
            x=spends,
            y=[t.score for t in scored],
            name="trial, ± 1 standard error",
            mode="markers",
            marker={"size": 8, "symbol": "diamond", "color": colours.series[1]},
            error_y=_errors([t.standard_error for t in scored], colours.series[1])
            if len(scored) <= MOST_ERROR_BARS
            else None,
            text=[_trial_text(t) for t in scored],
            customdata=[t.trial_no for t in scored],
            hovertemplate="%{text}<br>after %{x:,} draws<extra></extra>",
        )
    )
    figure.update_xaxes(rangemode="tozero", tickformat=",")
    return figure


def pareto_figure(
    trials: Sequence[TrialRecord],
    front: Collection[int] | None,
    budget: float,
    unit: str,
    chosen: int | None = None,
    theme: Theme = "light",
) -> Figure:
    """Score over predicted cost per query, with the Pareto front and the plan's budget.

    Args:
        trials: of the search split.
        front: numbers of the trials on the front; computed from the scores where None.
        budget: the plan's limit per query, in `unit`.
        unit: of the costs.
        chosen: number of the plan's trial, marked.
        theme: of the page around it.
    """
    colours = colours_of(theme)
    scored = [t for t in trials if t.score is not None]
    on_front = set(pareto_numbers(scored) if front is None else front)
    factor, written = _scale(unit, budget)
    figure = blank_figure(colours, f"predicted cost, {written} per query", "score on the search split")
    groups = (
        ("trial", [t for t in scored if t.trial_no not in on_front], "circle-open", colours.faint, "markers"),
        (
            "Pareto front",
            sorted((t for t in scored if t.trial_no in on_front), key=lambda t: t.predicted_cost),
            "square",
            colours.series[0],
            "lines+markers",
        ),
        ("the plan", [t for t in scored if t.trial_no == chosen], "star", colours.series[1], "markers"),
    )
    for name, members, symbol, colour, mode in groups:
        if members:
            figure.add_trace(_cost_points(name, members, factor, symbol, colour, mode))
    figure.add_vline(
        x=budget / factor,
        line={"dash": "dash", "width": 2, "color": colours.ink},
        annotation={"text": f"budget {amount(budget, unit)}", "textangle": -90, "yanchor": "bottom", "y": 0.02},
        annotation_position="bottom left",
    )
    figure.update_xaxes(rangemode="tozero")
    return figure


def curves_figure(trial: TrialRecord, theme: Theme = "light") -> Figure:
    """Score over the samples of one stage, the other stages as the trial allocates them.

    Args:
        trial: whose k-curves to draw.
        theme: of the page around it.
    """
    colours = colours_of(theme)
    figure = blank_figure(colours, "samples at the stage", "score on the search split")
    ticks: set[int] = set()
    for i, (stage, points) in enumerate(trial.curves.items()):
        known = [p for p in points if p.score is not None]
        ticks.update(p.k for p in known)
        figure.add_trace(_curve(stage, known, i, colours))
    if ticks and max(ticks) > 4:
        figure.update_xaxes(type="log", tickvals=_spread(sorted(ticks)))
    elif ticks:
        figure.update_xaxes(tickvals=sorted(ticks), range=[min(ticks) - 0.3, max(ticks) + 0.3])
    figure.update_yaxes(range=_wide_enough([p.score for q in trial.curves.values() for p in q if p.score is not None]))
    return figure


def allocation_bars(document: PlanDocument, theme: Theme = "light") -> Figure:
    """Which share of the plan's cost each stage takes.

    Args:
        document: the plan.
        theme: of the page around it.
    """
    colours = colours_of(theme)
    figure = blank_figure(
        colours, f"share of the plan's {amount(document.predicted_cost, document.unit)} per query", ""
    )
    total = document.predicted_cost or 1.0
    stages = list(reversed(document.stages))
    figure.add_trace(
        Bar(
            orientation="h",
            y=[escape(s.stage) for s in stages],
            x=[s.predicted_cost / total for s in stages],
            text=[f"{s.predicted_cost / total:.0%}" for s in stages],
            textposition="auto",
            insidetextfont={"color": "#ffffff" if theme == "light" else "#10151c"},
            marker={"color": colours.series[0]},
            customdata=[
                f"{escape(s.model)}, {escape(s.strategy)}, {_count(s.samples, 'sample')}<br>"
                f"{amount(s.predicted_cost, document.unit)} per query"
                for s in stages
            ],
            hovertemplate="%{y}: %{customdata}<extra></extra>",
            showlegend=False,
        )
    )
    figure.update_xaxes(tickformat=".0%", range=[0, 1], dtick=0.25)
    figure.update_layout(height=120 + 56 * len(stages), bargap=0.35)
    figure.update_yaxes(showgrid=False)
    return figure


def prediction_figure(
    pairs: Sequence[tuple[str, float, float]],
    predicted_unit: str,
    measured_unit: str,
    calibration: Calibration | None,
    theme: Theme = "light",
) -> Figure:
    """Measured over predicted cost per query, on logarithmic axes, with the fitted factor.

    Args:
        pairs: for each trial what it is, its predicted and its measured cost, both above 0.
        predicted_unit: of the predictions.
        measured_unit: of the measurements; where it is the same unit, the line of equality is drawn.
        calibration: the fit over the pairs.
        theme: of the page around it.
    """
    colours = colours_of(theme)
    across, x_unit = _scale(predicted_unit, max((p for _, p, _ in pairs), default=1.0))
    up, y_unit = (across, x_unit) if measured_unit == predicted_unit else (1.0, measured_unit)
    figure = blank_figure(colours, f"predicted cost, {x_unit} per query", f"measured, {y_unit} per query")
    low, high = min((p for _, p, _ in pairs), default=1.0) * 0.8, max((p for _, p, _ in pairs), default=1.0) * 1.25
    if measured_unit == predicted_unit:
        figure.add_trace(_line("measured = predicted", low, high, 1.0, (across, up), "dash", colours.ink))
    if calibration is not None:
        name = f"factor {_with_interval(calibration)}"
        figure.add_trace(_line(name, low, high, calibration.factor, (across, up), "solid", colours.series[1]))
    figure.add_trace(
        Scatter(
            x=[p / across for _, p, _ in pairs],
            y=[m / up for _, _, m in pairs],
            name=_count(len(pairs), "trial"),
            mode="markers",
            marker={"size": 9, "symbol": "circle-open", "color": colours.series[0], "line": {"width": 2}},
            text=[
                f"{label}<br>predicted {amount(p, predicted_unit)}<br>measured {amount(m, measured_unit)}"
                for label, p, m in pairs
            ],
            hovertemplate="%{text}<extra></extra>",
        )
    )
    figure.update_xaxes(type="log", tickvals=_log_ticks(low / across, high / across))
    drawn = [v for trace in figure.data for v in trace.y]
    figure.update_yaxes(type="log", tickvals=_log_ticks(min(drawn), max(drawn)))
    return figure


def _line(
    name: str, low: float, high: float, factor: float, scales: tuple[float, float], dash: str, colour: str
) -> Scatter:
    """The line ``measured = factor x predicted``."""
    return Scatter(
        x=[low / scales[0], high / scales[0]],
        y=[factor * low / scales[1], factor * high / scales[1]],
        name=name,
        mode="lines",
        line={"dash": dash, "width": 2, "color": colour},
        hoverinfo="skip",
    )


def _with_interval(calibration: Calibration) -> str:
    if calibration.low is None or calibration.high is None:
        return f"{calibration.factor:.3g}"
    return f"{calibration.factor:.3g} ({calibration.low:.3g} to {calibration.high:.3g})"


def pareto_numbers(trials: Sequence[TrialRecord]) -> list[int]:
    """Numbers of the trials that no other beats in score at the same or a lower cost, cheapest first."""
    front: list[int] = []
    best = float("-inf")
    scored = [(t.predicted_cost, -t.score, t.trial_no) for t in trials if t.score is not None]
    for _, negative, number in sorted(scored):
        if -negative > best:
            best = -negative
            front.append(number)
    return front


def colours_of(theme: Theme) -> Colours:
    """Those of a theme."""
    return _DARK if theme == "dark" else _LIGHT


def blank_figure(colours: Colours, x_title: str, y_title: str) -> Figure:
    """A figure without data, as all of them look."""
    axis = {
        "gridcolor": colours.grid,
        "linecolor": colours.faint,
        "zeroline": False,
        "ticks": "outside",
        "tickcolor": colours.faint,
        "automargin": True,
    }
    figure = Figure()
    figure.update_layout(
        template="none",
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        font={"family": _FONT, "size": 14, "color": colours.ink},
        colorway=list(colours.series),
        margin={"l": 64, "r": 16, "t": 12, "b": 56},
        height=360,
        hovermode="closest",
        legend={"orientation": "h", "x": 0, "y": 1.02, "yanchor": "bottom", "bgcolor": "rgba(0,0,0,0)"},
        xaxis={**axis, "title": {"text": x_title, "standoff": 10}},
        yaxis={**axis, "title": {"text": y_title, "standoff": 10}},
        uirevision="keep",
    )
    return figure


def _errors(values: Sequence[float | None], colour: str) -> dict[str, Any]:
    return {"type": "data", "array": [v or 0.0 for v in values], "thickness": 1, "width": 3, "color": colour}


def _cost_points(
    name: str, members: Sequence[TrialRecord], factor: float, symbol: str, colour: str, mode: str
) -> Scatter:
    big = symbol == "star"
    return Scatter(
        x=[t.predicted_cost / factor for t in members],
        y=[t.score for t in members],
        name=name,
        mode=mode,
        line={"width": 2, "color": colour, "shape": "hv"},
        marker={"size": 17 if big else 9, "symbol": symbol, "color": colour, "line": {"width": 1.5, "color": colour}},
        text=[_trial_text(t) for t in members],
        customdata=[t.trial_no for t in members],
        hovertemplate="%{text}<extra></extra>",
    )


def _curve(stage: str, points: Sequence[KPoint], position: int, colours: Colours) -> Scatter:
    colour = colours.series[position % len(colours.series)]
    symbol = _SYMBOLS[position % len(_SYMBOLS)]
    return Scatter(
        x=[p.k for p in points],
        y=[p.score for p in points],
        name=escape(stage),
        mode="lines+markers",
        line={"width": 2.5, "color": colour, "dash": _DASHES[position % len(_DASHES)]},
        marker={
            "size": 9,
            "color": colour,
            "symbol": [symbol if p.coverage >= CREDIBLE_COVERAGE else f"{symbol}-open" for p in points],
        },
        text=[
            f"{escape(stage)}: {_count(p.k, 'sample')}<br>score {p.score:.3f}<br>"
            f"the draws held answer for {p.coverage:.0%} of the outcomes"
            + (f"<br>{_count(p.draws, 'independent draw')}" if p.draws is not None else "")
            for p in points
        ],
        hovertemplate="%{text}<extra></extra>",
    )


def _wide_enough(scores: Sequence[float]) -> list[float] | None:
    """A range of scores of at least `LEAST_SPAN`, so that chance never fills the figure; None where there are none."""
    if not scores:
        return None
    middle, span = (min(scores) + max(scores)) / 2, max(1.15 * (max(scores) - min(scores)), LEAST_SPAN)
    return [middle - span / 2, middle + span / 2]


def _spread(ticks: Sequence[int]) -> list[int]:
    """Ticks of a logarithmic axis that do not run into each other."""
    kept: list[int] = []
    for tick in ticks:
        if not kept or tick >= 1.35 * kept[-1]:
            kept.append(tick)
    return kept


def _log_ticks(low: float, high: float) -> list[float] | None:
    """Ticks of a logarithmic axis: 1, 2 and 5 of each decade, every digit where it is short; None where too short."""
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    digits = range(1, 10) if high / low < 5 else (1, 2, 5) if high / low < 1000 else (1,)
    ticks = [tick for d in decades for n in digits if low <= (tick := float(f"{n}e{d}")) <= high]
    return ticks if len(ticks) > 1 else None


def _trial_text(trial: TrialRecord) -> str:
    error = "" if trial.standard_error is None else f" ± {trial.standard_error:.3f}"
    stages = "<br>".join(
        f"{escape(stage)}: {escape(s.model)}, {escape(s.strategy)}, {_count(s.samples, 'sample')}"
        for stage, s in trial.allocation.settings
    )
    cost = amount(trial.predicted_cost, trial.unit)
    return f"trial {trial.trial_no}: score {trial.score:.3f}{error}<br>{cost} per query<br>{stages}"


def _count(number: int, word: str) -> str:
    return f"{number} {word}" if number == 1 else f"{number} {word}s"


def _scale(unit: str, largest: float) -> tuple[float, str]:
    """A factor that gives readable ticks, and the unit it leaves."""
    if unit in PREFIXED:
        for size, prefix in PREFIXES:
            if largest >= size:
                return size, prefix + unit
    return 1.0, unit
