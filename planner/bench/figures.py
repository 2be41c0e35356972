"""The search benchmark as a page: how many searches had come close after so many trials, and the regret by trial."""

from __future__ import annotations

import html
from typing import Any

import plotly.graph_objects as go
from plotly.offline import get_plotlyjs

from planner.bench.measures import simple_regret, trials_to_reach
from planner.bench.rehearsal import Rehearsal
from planner.bench.suite import BenchResult

COLOURS = ("#0b5fa5", "#d1495b", "#66a182", "#edae49", "#7d5ba6", "#00798c", "#8d6a4f", "#5c6b73", "#b5179e", "#2d3142")


def search_page(result: BenchResult) -> str:
    """One HTML page with two figures for each group of problems; needs no network."""
    groups = list(dict.fromkeys(s.group for s in result.summaries))
    searches = {
        group: [s for g, s in result.searches if g == group or group not in {x for x, _ in result.searches}]
        for group in groups
    }
    parts = [
        "<!doctype html><html lang='en'><meta charset='utf-8'><title>Search benchmark</title>",
        "<style>body{font:16px/1.5 system-ui,sans-serif;max-width:1100px;margin:2rem auto;padding:0 1rem}</style>",
        f"<script>{get_plotlyjs()}</script><h1>Search benchmark</h1>",
        f"<p>{result.bench.seeds} seeds, at most {result.bench.trials} trials, {result.bench.batch} a round. Found "
        f"means within {result.bench.tolerance:g} of the known optimum.</p>",
    ]
    for group in groups:
        parts.append(f"<h2>{html.escape(group)}</h2>")
        for figure in (found_figure(result, searches[group]), regret_figure(result, searches[group])):
            parts.append(figure.to_html(full_html=False, include_plotlyjs=False))
    return "".join(parts) + "</html>\n"


def found_figure(result: BenchResult, searches: list[Rehearsal]) -> Any:
    """Share of the searches that had come within the tolerance, by trials."""
    figure = go.Figure()
    for colour, entrant in zip(COLOURS * 10, result.bench.entrants, strict=False):
        reached = sorted(trials_to_reach(s, result.bench.tolerance) for s in searches if s.proposer == entrant)
        shares = [sum(r <= t for r in reached) / len(reached) for t in range(result.bench.trials + 1)]
        figure.add_scatter(y=shares, name=entrant, line={"shape": "hv", "color": colour})
    figure.update_layout(
        title="Share of searches that have found it", xaxis_title="trials", yaxis={"range": [0, 1], "tickformat": ".0%"}
    )
    return _styled(figure)


def regret_figure(result: BenchResult, searches: list[Rehearsal]) -> Any:
    """Mean simple regret by trials."""
    figure = go.Figure()
    for colour, entrant in zip(COLOURS * 10, result.bench.entrants, strict=False):
        mine = [s for s in searches if s.proposer == entrant]
        longest = max(len(s.steps) for s in mine)
        # A search that ended early had nothing left to try: its regret stays.
        means = [sum(simple_regret(s, t) for s in mine) / len(mine) for t in range(1, longest + 1)]
        figure.add_scatter(x=list(range(1, longest + 1)), y=means, name=entrant, line={"color": colour})
    figure.update_layout(
        title="Mean regret of the best seen", xaxis_title="trials", yaxis_title="score below the optimum"
    )
    return _styled(figure)


def _styled(figure: Any) -> Any:
    return figure.update_layout(template="plotly_white", height=380, margin={"l": 60, "r": 20, "t": 50, "b": 50})
