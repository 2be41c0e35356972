"""Prints what a study is expected to spend, before it runs."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from rich.console import Console
from rich.table import Table

from planner.forecast import LedgerForecast, StudyForecast
from planner.plans import amount
from planner.space import MAX_ENUMERATED


def print_forecast(console: Console, forecast: StudyForecast) -> None:
    """A table of the ledgers, and what is expected to end the search."""
    more = "more than " if forecast.allocations >= MAX_ENUMERATED else ""
    console.print(
        f"[bold]Forecast[/] {more}{forecast.allocations:,} allocations fit the plan budget; {forecast.initial_trials} "
        f"initial trials, {forecast.trials:,} of at most {forecast.most_trials:,} expected",
        highlight=False,
    )
    table = Table("ledger", "expected", "at most", "limit")
    for line in forecast.ledgers:
        table.add_row(line.ledger, _shown(line.expected, line), _shown(line.worst, line), _shown(line.limit, line))
    if forecast.proposer_tokens is not None:
        table.add_row("proposer", "unknown", *(2 * [f"{forecast.proposer_tokens:,} tokens"]))
    console.print(table)
    console.print(f"Expected to end with: {ending(forecast)}", highlight=False)
    for note in forecast.notes:
        console.print(note, highlight=False)


def ending(forecast: StudyForecast) -> str:
    """What is expected to end the search, for people."""
    if forecast.ends_with == "trials":
        return f"all {forecast.trials:,} trials run"
    if forecast.ends_with == "space":
        return f"every allocation of the space tried, after {forecast.trials:,} trials"
    name = forecast.ends_with.replace("_", " ")
    if not forecast.trials:
        return f"nothing run: budget.search.{forecast.ends_with} does not cover the first trial"
    return f"the limit of {name}, after about {forecast.trials:,} of {forecast.most_trials:,} trials"


def forecast_data(forecast: StudyForecast) -> dict[str, Any]:
    """The forecast as JSON data."""
    return asdict(forecast)


def _shown(value: float | None, line: LedgerForecast) -> str:
    if value is None:
        return "" if line.limit is None or line.expected is not None else "unknown"
    if line.unit in ("draws", "tokens"):
        return f"{value:,.0f} {line.unit}"
    return amount(value, line.unit)
