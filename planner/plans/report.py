"""Writes a finished study down: plan.yaml, and its report as JSON, Markdown with pictures, and self-contained HTML."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, assert_never, get_args

import yaml
from jinja2 import Environment, PackageLoader, StrictUndefined
from plotly.graph_objects import Figure
from plotly.offline import get_plotlyjs

from env.errors import ApportionError
from planner.archive import Archive
from planner.plans import sections
from planner.plans.document import PlanDocument
from planner.plans.figures import allocation_bars, best_so_far, curves_figure, pareto_figure, prediction_figure
from planner.plans.gathering import GatheredReport, gather_report
from planner.plans.ladders import comparisons
from planner.plans.markdown import Picture, report_markdown
from planner.plans.stage_accounts import with_longest_curves
from planner.plans.svg import figure_svg

ReportFormat = Literal["json", "md", "html"]
FORMATS: tuple[ReportFormat, ...] = get_args(ReportFormat)

PICTURES = "report"
"""Folder of the pictures, beside report.md."""


@dataclass(frozen=True)
class ReportFigure:
    """One figure of a report."""

    slug: str
    """Names its picture's file and its place."""

    title: str
    figure: Figure


def write_report(archive: Archive, study_id: str, out: Path) -> list[Path]:
    """Export a finished study.

    Args:
        archive: where it is.
        study_id: a study with a plan.
        out: folder, made where missing.

    Returns:
        Paths of plan.yaml, report.json, report.md, report.html and the pictures, and of fleet.yaml where a fleet serves
        the plan's models.

    Raises:
        NotFound: the study has no plan.
        ApportionError: the folder cannot be written.
    """
    gathered = gather_report(archive, study_id)
    contents = {
        "plan.yaml": gathered.report.plan.to_yaml(),
        **{f"report.{format}": report_text(gathered, format) for format in FORMATS},
        **{f"{PICTURES}/{f.slug}.svg": figure_svg(f.figure, f.title) for f in report_figures(gathered)},
    }
    contents |= _fleet_file(gathered.report.plan)
    paths: list[Path] = []
    try:
        for name, text in contents.items():
            target = out / name
            target.parent.mkdir(parents=True, exist_ok=True)
            # Written beside and renamed, so that a full disk never leaves half a report.
            scratch = target.parent / f".{target.name}.part"
            scratch.write_bytes(encoded(text))
            os.replace(scratch, target)
            paths.append(target)
    except OSError as error:
        raise ApportionError(
            f"cannot write the report to {out}: {error}; the study is safe in the archive, export it again elsewhere"
        ) from error
    return paths


def _fleet_file(document: PlanDocument) -> dict[str, str]:
    """A fleet file that serves the plan's models with the knobs the search chose.

    Nothing where no fleet is set, or its file no longer has these models: the plan still says what served them.
    """
    if not document.engines:
        return {}
    # Imported here: only studies on a fleet need one.
    from env.fleet.load import FLEET_VARIABLE, configured_fleet
    from env.fleet.variants import plan_file

    if not os.environ.get(FLEET_VARIABLE):
        return {}
    names = list(dict.fromkeys(engine.served for engine in document.engines))
    head = f"# Serves the plan of study {document.provenance.study_id}: apportion fleet up fleet.yaml\n"
    try:
        content = plan_file(configured_fleet(), names)
    except ApportionError:
        return {}
    return {"fleet.yaml": head + yaml.safe_dump(content, sort_keys=False)}


def report_text(gathered: GatheredReport, format: ReportFormat, pictures: bool = True) -> str:
    """A report in one format.

    Args:
        gathered: what to say.
        format: JSON says everything; the others bound their lists.
        pictures: whether Markdown refers to pictures, as `report/SLUG.svg` relative to it.
    """
    match format:
        case "json":
            return gathered.report.model_dump_json(indent=2)
        case "html":
            return report_html(gathered)
        case "md":
            shown = report_figures(gathered) if pictures else ()
            return report_markdown(gathered.report, [Picture(f.title, f"{PICTURES}/{f.slug}.svg") for f in shown])
        case _:  # pragma: no cover
            assert_never(format)


def encoded(text: str) -> bytes:
    """UTF-8; half a surrogate pair, which models do produce, is written as JSON writes it."""
    return text.encode("utf-8", errors="backslashreplace")


def report_html(gathered: GatheredReport) -> str:
    """One HTML file that needs nothing else: tables, figures, plotly's script inside."""
    report, figures = gathered.report, list(report_figures(gathered))
    environment = Environment(
        loader=PackageLoader("planner.plans", "templates"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=StrictUndefined,
    )
    return environment.get_template("report.html.j2").render(
        report=report,
        sections=sections,
        guidelines=sections.guidelines_shown(report),
        figures=figures,
        drawings=_script_data(figures),
        plotly=get_plotlyjs(),
    )


def report_figures(gathered: GatheredReport) -> Iterator[ReportFigure]:
    """The figures of a report, as they are shown."""
    plan, trials, chosen = gathered.report.plan, gathered.trials, gathered.chosen
    yield ReportFigure("best", "Best so far over what the search spent", best_so_far(trials))
    if chosen is not None:
        longest = with_longest_curves(chosen, trials)
        yield ReportFigure("curves", "More samples at one stage", curves_figure(longest))
    front = [point.trial_no for point in plan.pareto]
    number = chosen.trial_no if chosen else None
    pareto = pareto_figure(trials, front, plan.budget, plan.unit, number)
    yield ReportFigure("pareto", "Score over cost, with the budget", pareto)
    yield ReportFigure("allocation", "Where the plan spends", allocation_bars(plan))
    for i, c in enumerate(comparisons(trials, gathered.ladders, plan.unit), 1):
        figure = prediction_figure(c.pairs, c.predicted_unit, c.measured_unit, c.fit)
        yield ReportFigure(f"prediction-{i}", c.title, figure)


def _script_data(figures: Sequence[ReportFigure]) -> str:
    """The figures by slug as a JavaScript value that no name inside can end or leave."""
    values = ",".join(f"{json.dumps(f.slug)}:{f.figure.to_json()}" for f in figures)
    return f"{{{values}}}".replace("<", "\\u003c")
