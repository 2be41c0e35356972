"""The report's tables as rows of text, and how long its lists may be: the same for Markdown and HTML."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from planner.plans.explanation import amount
from planner.plans.study_report import SpendLine, StageAccount, Step, StudyReport, TrialLine
from planner.plans.wording import allocation_text, count, score, share, signed

SHOWN_TRIALS = 20
SHOWN_GUIDELINES = 60
SHOWN_REFUSALS = 20

CellKind = Literal["text", "name", "number"]
"""``name`` is what somebody called something (a model, an allocation); both formats set it apart from prose."""


@dataclass(frozen=True)
class Column:
    """One column of a table."""

    title: str
    kind: CellKind = "text"


@dataclass(frozen=True)
class Rows:
    """A table, bounded."""

    columns: tuple[Column, ...]
    rows: tuple[tuple[str, ...], ...]
    left_out: str = ""
    """How many rows are not shown, and where they are; empty where all are."""


def without(table: Rows, title: str) -> Rows:
    """A table less one column, where a page has another place for it."""
    kept = [i for i, column in enumerate(table.columns) if column.title != title]
    rows = tuple(tuple(row[i] for i in kept) for row in table.rows)
    return Rows(tuple(table.columns[i] for i in kept), rows, table.left_out)


def plan_table(report: StudyReport) -> Rows:
    """The plan by stage, with why."""
    unit = report.plan.unit
    columns = (
        Column("Stage", "name"),
        Column("Model", "name"),
        Column("Strategy", "name"),
        Column("k", "number"),
        Column("Cost per query", "number"),
        Column("Share", "number"),
        Column("Why"),
    )
    rows = [
        (s.stage, s.model, _strategy(s), count(s.samples), amount(s.predicted_cost, unit), share(s.share), reasons(s))
        for s in report.stages
    ]
    return Rows(columns, tuple(rows))


def reasons(stage: StageAccount) -> str:
    """Why a stage has its model and samples: the curve's shape, then what the models beside it scored."""
    return "; ".join([stage.curve_words, *(n.words for n in stage.neighbours)]) + "."


def rivals_table(report: StudyReport) -> Rows:
    """What the plan was held against on the sealed split."""
    columns = (
        Column("Rival"),
        Column("Allocation", "name"),
        Column("Test score", "number"),
        Column("Cost per query", "number"),
        Column("Plan minus rival, 95% interval", "number"),
        Column("Verdict"),
    )
    words = {"better": "the plan is better", "worse": "the plan is worse"}
    rows = [
        (
            r.label,
            allocation_text(r.allocation),
            score(r.score.estimate),
            amount(r.predicted_cost, report.plan.unit),
            f"{signed(r.difference.estimate)} ({signed(r.difference.low)} to {signed(r.difference.high)})",
            words.get(r.verdict, r.verdict),
        )
        for r in report.plan.rivals
    ]
    return Rows(columns, tuple(rows))


def front_table(report: StudyReport) -> Rows:
    """The Pareto front on the search split, cheapest first."""
    columns = (
        Column("Trial", "number"),
        Column("Allocation", "name"),
        Column("Cost per query", "number"),
        Column("Search score", "number"),
        Column("Plan"),
    )
    rows = [
        (
            str(p.trial_no),
            allocation_text(p.allocation),
            amount(p.predicted_cost, report.plan.unit),
            score(p.score),
            "yes" if p.allocation == report.plan.allocation else "",
        )
        for p in report.plan.pareto
    ]
    return Rows(columns, tuple(rows))


def steps_table(report: StudyReport) -> Rows:
    """What the next sample up or down at each stage changes."""
    columns = (
        Column("Stage", "name"),
        Column("k", "number"),
        Column("Next k", "number"),
        Column("Change, 95% interval", "number"),
        Column("Cost per query", "number"),
        Column("Score per 1% of the budget", "number"),
        Column("Within budget"),
    )
    rows: list[tuple[str, ...]] = []
    for stage in report.stages:
        steps = [step for step in (stage.up, stage.down) if step is not None]
        rows += [_step(stage, step, report) for step in steps]
    return Rows(columns, tuple(rows))


def _step(stage: StageAccount, step: Step, report: StudyReport) -> tuple[str, ...]:
    d = step.difference
    money = f"{'+' if step.cost >= 0 else '−'}{amount(abs(step.cost), report.plan.unit)}"
    change = f"{signed(d.estimate)} ({signed(d.low)} to {signed(d.high)})"
    worth = "" if step.per_percent is None else f"{round(step.per_percent, 4) + 0.0:+.4f}"
    return stage.stage, count(stage.samples), count(step.samples), change, money, worth, _yes(step.affordable)


def units_table(report: StudyReport) -> Rows:
    """The plan's cost in every unit there is data for."""
    columns = (Column("Unit"), Column("Predicted", "number"), Column("Measured", "number"))
    rows = [(u.unit, _amount(u.predicted, u.written), _amount(u.measured, u.written)) for u in report.units]
    return Rows(columns, tuple(rows))


def trials_table(report: StudyReport, most: int = SHOWN_TRIALS) -> Rows:
    """Trials by score, best first; those without one come last."""
    columns = (
        Column("Trial", "number"),
        Column("Allocation", "name"),
        Column("Score", "number"),
        Column("± SE", "number"),
        Column("Cost per query", "number"),
        Column("Measured", "number"),
        Column("New draws", "number"),
        Column("Failed", "number"),
        Column("Seconds", "number"),
        Column("Loads, s", "number"),
    )
    ranked = sorted(report.trials, key=lambda t: (t.score is None, -(t.score or 0.0), t.predicted_cost, t.trial_no))
    return Rows(columns, tuple(_trial(t) for t in ranked[:most]), _left_out(len(ranked), most, "more trial"))


def _trial(trial: TrialLine) -> tuple[str, ...]:
    return (
        str(trial.trial_no),
        trial.text,
        score(trial.score),
        "" if trial.standard_error is None else score(trial.standard_error),
        amount(trial.predicted_cost, trial.unit),
        _amount(trial.measured_cost, trial.unit),
        count(trial.new_draws),
        count(trial.failed) if trial.failed else "",
        f"{trial.seconds:.1f}",
        f"{trial.load_seconds:.1f}" if trial.load_seconds else "",
    )


def refusals_table(report: StudyReport, most: int = SHOWN_REFUSALS) -> Rows:
    """Refused proposals by reason, commonest first."""
    columns = (Column("Times", "number"), Column("Reason"), Column("For instance", "name"))
    rows = tuple((count(g.count), g.reason, g.example) for g in report.refusals[:most])
    return Rows(columns, rows, _left_out(len(report.refusals), most, "more reason"))


def ledgers_table(report: StudyReport) -> Rows:
    """What was spent, ledger by ledger."""
    columns = (Column("Ledger"), Column("What"), Column("Spent", "number"), Column("Limit", "number"))
    rows = [(line.ledger, line.what, _money(line.spent, line.unit), _limit(line)) for line in report.ledgers]
    return Rows(columns, tuple(rows))


def fits_table(report: StudyReport) -> Rows:
    """How measured costs follow predicted ones."""
    columns = (
        Column("Predicted"),
        Column("Measured"),
        Column("Trials", "number"),
        Column("Measured over predicted, 95% interval", "number"),
        Column("Rank correlation", "number"),
    )
    rows: list[tuple[str, ...]] = []
    for fitted in report.fitted:
        fit = fitted.fit
        if fit is None:
            continue
        interval = "" if fit.low is None or fit.high is None else f" ({fit.low:.4g} to {fit.high:.4g})"
        rank = "" if fit.rank_correlation is None else f"{fit.rank_correlation:.3f}"
        rows.append(
            (fitted.predicted_unit, fitted.measured_unit, count(fit.pairs), f"{fit.factor:.4g}{interval}", rank)
        )
    return Rows(columns, tuple(rows))


def agent_words(report: StudyReport) -> str:
    """What the agent's LLM did and cost; empty where none was asked."""
    use = report.plan.provenance.agent
    if use is None:
        return ""
    money = "price not known" if use.dollars is None else f"{use.dollars:,.4f} US dollars"
    words = (
        f"{', '.join(use.models)} was asked {count(use.calls, 'time')} ({use.failed_calls:,} without a usable reply) "
        f"with the prompts {', '.join(use.prompts)}: {count(use.prompt_tokens, 'prompt token')} ({use.cached_tokens:,} "
        f"cached), {count(use.completion_tokens, 'completion token')} ({use.reasoning_tokens:,} of thinking), {money}, "
        f"{count(use.tool_calls, 'tool')} used. Of {count(use.proposed, 'proposal')} {use.refused:,} were refused and "
        f"{use.trials:,} ran; {use.earned:,} of those beat everything before and beside them."
    )
    if use.bias is not None and use.absolute_error is not None:
        words += (
            f" It expected scores {score(use.absolute_error)} off on average; measured minus expected was "
            f"{signed(use.bias)}."
        )
    return words


def provenance_table(report: StudyReport) -> Rows:
    """What decides the result."""
    source = report.plan.provenance
    rows: list[tuple[str, str]] = [
        ("study", source.study_id),
        ("spec, SHA-256", source.spec_sha256),
        ("seed", str(source.seed)),
        ("proposer", source.proposer),
        *([("left out of the method", ", ".join(source.ablated))] if source.ablated else []),
        ("apportion", source.apportion),
    ]
    rows += [(f"weights of {name}", revision or "not stated") for name, revision in source.models.items()]
    rows += [(f"{name} (UTC)", f"{at:%Y-%m-%d %H:%M:%S}") for name, at in _moments(report) if at is not None]
    return Rows((Column("What"), Column("Value", "name")), tuple(rows))


def guidelines_shown(report: StudyReport, most: int = SHOWN_GUIDELINES) -> tuple[list[str], str]:
    """Guidelines as they came, the latest where there are too many; and how many are left out."""
    lines = [f"Round {g.round}: {g.text}" for g in report.guidelines]
    return lines[-most:], _left_out(len(lines), most, "earlier guideline")


def _moments(report: StudyReport) -> list[tuple[str, object]]:
    study = report.study
    return [("created", study.created_at), ("started", study.started_at), ("ended", study.finished_at)]


def _left_out(total: int, shown: int, word: str) -> str:
    return f"{count(total - shown, word)} left out here; report.json has all." if total > shown else ""


def _strategy(stage: StageAccount) -> str:
    knobs = ", ".join(f"{name}={value}" for name, value in stage.knobs.items())
    return f"{stage.strategy} [{knobs}]" if knobs else stage.strategy


def _yes(value: bool) -> str:
    return "yes" if value else "no"


def _amount(value: float | None, unit: str) -> str:
    return "" if value is None else amount(value, unit)


def _limit(line: SpendLine) -> str:
    return "" if line.limit is None else _money(line.limit, line.unit)


def _money(value: float, unit: str) -> str:
    """Whole things with thousands marked, costs as costs."""
    if unit in ("draws", "tokens", "trials", "calls"):
        return count(value, unit.removesuffix("s"))
    return f"{value:,.1f} s" if unit == "s" and value >= 1 else amount(value, unit)
