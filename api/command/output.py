"""Prints results: tables for people, JSON for scripts, errors that say what to do."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, is_dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import typer
from pydantic import BaseModel
from rich.console import Console
from rich.table import Table

from api.schemas import StudyPublic, TrialPublic
from env.allocation import Allocation
from env.errors import ApportionError
from env.spec import SpecError
from planner.plans import PlanDocument, amount, spent

out = Console()
err = Console(stderr=True)


def print_json(value: Any) -> None:
    """One JSON document on standard output."""
    sys.stdout.write(json.dumps(plain(value), indent=2, ensure_ascii=False) + "\n")


def write_json(path: Path, value: Any) -> None:
    """One JSON document as a file; its folder is made.

    Raises:
        ApportionError: it cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(plain(value), indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    except OSError as error:
        raise ApportionError(f"cannot write {path}: {error.strerror or error}") from error


def plain(value: Any) -> Any:
    """Records as JSON data."""
    if isinstance(value, Allocation):
        return value.to_json()
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json")
    if is_dataclass(value) and not isinstance(value, type):
        return plain(
            {k: getattr(value, k) for k in value.__dataclass_fields__}
            if any(isinstance(getattr(value, k), Allocation) for k in value.__dataclass_fields__)
            else asdict(value)
        )
    if isinstance(value, dict):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [plain(v) for v in value]
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, Path):
        return str(value)
    return value


@contextmanager
def explained_errors() -> Iterator[None]:
    """Turn our errors into a message and exit code 2; a traceback would tell a user nothing."""
    try:
        yield
    except SpecError as error:
        err.print(f"[bold red]The spec has {len(error.faults)} fault(s); nothing was queued.[/]")
        for fault in error.faults:
            err.print(f"  [yellow]{fault.path or 'spec'}[/]: {fault.message}", highlight=False)
        raise typer.Exit(2) from None
    except ApportionError as error:
        err.print(f"[bold red]Error:[/] {error}", highlight=False)
        raise typer.Exit(2) from None


def studies_table(studies: Sequence[StudyPublic]) -> Table:
    """Studies, newest first."""
    table = Table("id", "name", "status", "phase", "proposer", "created (UTC)")
    for s in studies:
        table.add_row(s.id, s.name, s.status, s.phase, s.proposer, f"{s.created_at:%Y-%m-%d %H:%M:%S}")
    return table


def trials_table(trials: Sequence[TrialPublic]) -> Table:
    """Trials with score, error and cost."""
    table = Table(
        "no", "split", "allocation", "score", "± SE", "cost per query", "new draws", "failed", "seconds", "loads"
    )
    for t in trials:
        table.add_row(
            str(t.trial_no),
            t.split,
            str(Allocation.from_json(t.allocation)),
            "not evaluated" if t.score is None else f"{t.score:.3f}",
            "" if t.standard_error is None else f"{t.standard_error:.3f}",
            amount(t.predicted_cost, t.unit),
            f"{t.new_draws:,}",
            str(t.failed) if t.failed else "",
            f"{t.seconds:.1f} s",
            f"{t.load_seconds:.1f} s" if t.load_seconds else "",
        )
    return table


def print_plan(plan: PlanDocument) -> None:
    """The plan, its cost and score, what it beat and the guidelines."""
    table = Table("stage", "model", "strategy", "samples", "cost per query", title="The plan")
    for stage in plan.stages:
        table.add_row(
            stage.stage, stage.model, stage.strategy, str(stage.samples), amount(stage.predicted_cost, plan.unit)
        )
    out.print(table)
    measured = "" if plan.measured_cost is None else f" (measured {amount(plan.measured_cost, plan.unit)})"
    out.print(
        f"[bold]Cost[/] {amount(plan.predicted_cost, plan.unit)} per query{measured} "
        f"of {amount(plan.budget, plan.unit)}",
        highlight=False,
    )
    if plan.test_score is not None:
        t = plan.test_score
        out.print(
            f"[bold]Test score[/] {t.estimate:.3f}, 95% interval {t.low:.3f} to {t.high:.3f} "
            f"({t.examples} sealed examples, {t.method})",
            highlight=False,
        )
    if plan.corrected_estimate is not None:
        c = plan.corrected_estimate
        out.print(
            f"[bold]Search score[/] {plan.search_score:.3f}; corrected for having been chosen {c.estimate:.3f}, "
            f"95% interval {c.low:.3f} to {c.high:.3f}",
            highlight=False,
        )
    for rival in plan.rivals:
        d = rival.difference
        verb = {"better": "beats", "worse": "loses to", "cannot be told apart": "cannot be told apart from"}
        out.print(
            f"[bold]{verb[rival.verdict].capitalize()}[/] {rival.label} ({rival.score.estimate:.3f} at "
            f"{amount(rival.predicted_cost, plan.unit)}): {d.estimate:+.3f}, "
            f"95% interval {d.low:+.3f} to {d.high:+.3f}",
            highlight=False,
        )
    if plan.stopped:
        out.print(f"[bold]Search ended[/] {plan.stopped}", highlight=False)
    out.print("[bold]Guidelines[/]")
    for guideline in plan.guidelines:
        out.print(f"  - {guideline.text}", highlight=False)
    ledgers = "; ".join(f"{line.ledger} {spent(line)}" for line in plan.ledgers)
    out.print(f"[bold]Spent[/] {ledgers}; {plan.trials} trials, {plan.refused} proposals refused", highlight=False)
    agent = plan.provenance.agent
    if agent is not None:
        money = "price not known" if agent.dollars is None else f"{agent.dollars:,.4f} dollars"
        out.print(
            f"[bold]Agent[/] {', '.join(agent.models)}: {agent.calls} calls, {agent.prompt_tokens:,} prompt and "
            f"{agent.completion_tokens:,} completion tokens, {money}; prompts {', '.join(agent.prompts)}; "
            f"{agent.earned} of its {agent.trials} trials earned their place",
            highlight=False,
        )
