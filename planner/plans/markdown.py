"""Writes a study's report as Markdown that any mail program, wiki or repository shows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from planner.plans import sections
from planner.plans.escaping import code, prose, table
from planner.plans.study_report import StudyReport


@dataclass(frozen=True)
class Picture:
    """A figure in a file of its own."""

    title: str
    path: str
    """Relative to the report; our own name, never one from a study."""


def report_markdown(report: StudyReport, pictures: Sequence[Picture] = ()) -> str:
    """The report as CommonMark with GitHub's tables.

    Args:
        report: what to say.
        pictures: figures that lie beside it.
    """
    parts: list[str] = [f"# Plan of {prose(report.study.name)}", *(prose(s) for s in report.summary)]
    if report.study.description:
        parts.append(f"The study: {prose(report.study.description)}")
    parts += _section("The plan", [_table(sections.plan_table(report))])
    parts += _section(
        "Can it be told apart from others?", [prose(report.runner_up), _table(sections.rivals_table(report))]
    )
    parts += _section("Score over cost: the Pareto front", [_table(sections.front_table(report))])
    parts += _section("What the next sample is worth", [_steps(report), _table(sections.steps_table(report))])
    parts += _section("The plan in every unit there is data for", [_table(sections.units_table(report))])
    parts += _section("Figures", [f"![{prose(p.title)}]({p.path})" for p in pictures])
    parts += _section("What was tried", [_table(sections.trials_table(report))])
    parts += _section("What was refused, and why", [_table(sections.refusals_table(report)) or _none_refused(report)])
    lines, left_out = sections.guidelines_shown(report)
    parts += _section("Guidelines as they came", [_list(lines), prose(left_out)])
    parts += _section("What it cost", [_table(sections.ledgers_table(report))])
    parts += _section("What the agent did", [prose(sections.agent_words(report))])
    parts += _section("How far predictions can be trusted", [_table(sections.fits_table(report))])
    parts += _section("Limits", [_list(report.limits)])
    parts += _section("Further", [_list([f"{extra.name}: {extra.words}" for extra in report.extras])])
    parts += _section("Provenance", [_table(sections.provenance_table(report))])
    return "\n\n".join(part for part in parts if part) + "\n"


def _section(title: str, parts: Sequence[str]) -> list[str]:
    """A heading and what stands below it; nothing where that is nothing."""
    filled = [part for part in parts if part]
    return [f"## {title}", *filled] if filled else []


def _steps(report: StudyReport) -> str:
    return _list([f"{stage.stage}: {stage.step_words}." for stage in report.stages if stage.up is None])


def _none_refused(report: StudyReport) -> str:
    return "No proposal was refused." if not report.refusals else ""


def _list(lines: Sequence[str]) -> str:
    return "\n".join(f"- {prose(line)}" for line in lines)


def _table(rows: sections.Rows) -> str:
    if not rows.rows:
        return ""
    numbers = {i for i, column in enumerate(rows.columns) if column.kind == "number"}
    cells = [
        [code(cell) if column.kind == "name" else prose(cell) for column, cell in zip(rows.columns, row, strict=True)]
        for row in rows.rows
    ]
    text = table([column.title for column in rows.columns], cells, numbers)
    return f"{text}\n\n{prose(rows.left_out)}" if rows.left_out else text
