"""Gathers what a study's page shows from the archive, however many trials it has."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from plotly.graph_objects import Figure
from pydantic import ValidationError

from api.pages.study_query import SHOWN_TRIALS, StudyQuery
from api.routes.studies import plan_of
from env.allocation import Allocation
from env.costs import cost_model
from env.spec import StudySpec
from planner.archive import Archive, GuidelineRecord, ProposalRecord, StudyRecord, TrialRecord
from planner.archive.browsing import TrialPoint, in_order
from planner.archive.records import KPoint
from planner.archive.statuses import TERMINAL
from planner.plans import PlanDocument
from planner.plans.figures import (
    Theme,
    allocation_bars,
    best_so_far,
    curves_figure,
    pareto_figure,
    prediction_figure,
)
from planner.plans.ladders import Comparison, own_comparison
from planner.plans.timeline import timeline_figure

DRAWN_TRIALS = 300
"""Points of a figure at most; those that decide what it says are always among them."""

SHOWN_ROUNDS = 10
SHOWN_REFUSED = 30


@dataclass(frozen=True)
class StudyView:
    """One study as its page shows it."""

    study: StudyRecord
    spec: StudySpec | None
    """None where the stored spec is of another version."""

    query: StudyQuery
    points: tuple[TrialPoint, ...]
    """All trials on the search split."""

    total: int
    """Trials of both splits that the table leafs through."""

    rows: tuple[TrialRecord, ...]
    """Of the table's page."""

    best: TrialRecord | None
    """The trial with the highest score, the cheapest of them."""

    chosen: TrialRecord | None
    """The trial of the plan."""

    draws: float
    document: PlanDocument | None
    guidelines: tuple[GuidelineRecord, ...]
    """Of the newest rounds."""

    guideline_rounds: int
    refused: tuple[ProposalRecord, ...]
    """The newest."""

    refused_count: int
    last_event: int
    activity: dict[str, Any]
    """The newest progress event; empty before the first and after the end."""

    @property
    def ended(self) -> bool:
        """Whether nothing follows."""
        return self.study.status in TERMINAL

    @property
    def unit(self) -> str:
        """Of the plan's cost."""
        return cost_model(self.spec.budget.plan.unit).unit if self.spec else ""

    @property
    def pages(self) -> int:
        """Of the table."""
        return max(1, math.ceil(self.total / SHOWN_TRIALS))

    @property
    def stages(self) -> list[str]:
        """Names of the stages."""
        return [stage.name for stage in self.spec.pipeline.stages] if self.spec else []

    @property
    def curves(self) -> Mapping[str, tuple[KPoint, ...]]:
        """K-curves of the plan's trial, or of the best until there is a plan; of the stage the address names."""
        trial = self.chosen or self.best
        return _of_stage(trial, self.query.stage).curves if trial else {}

    @cached_property
    def prediction(self) -> Comparison | None:
        """Predicted against measured cost of the trials, in the plan's unit; None before the first measurement.

        From the stored costs alone: pricing trials in other units reads all their evidence, which a page that follows a
        study cannot do each second. The report holds clocks against predictions too.
        """
        values = [(p.trial_no, p.predicted_cost, p.measured_cost) for p in self.points]
        return own_comparison(values, self.unit) if self.spec else None


def study_view(archive: Archive, study: StudyRecord, query: StudyQuery) -> StudyView:
    """Read everything a study's page shows."""
    every = archive.browsing.points(study.id)
    wanted = [p for p in every if not query.status or p.status == query.status]
    last = archive.events.latest(study.id)
    progress = archive.events.latest(study.id, "progress") if study.status == "running" else None
    document = plan_of(archive, study.id)
    points = tuple(p for p in every if p.split == "search")
    best = min((p for p in points if p.score is not None), key=_worth, default=None)
    chosen = _number_of(archive, study.id, document)
    numbers = {n for n in (best.trial_no if best else None, chosen) if n is not None}
    marked = {t.trial_no: t for t in archive.browsing.some(study.id, sorted(numbers), curves=True)}
    page = min(query.page, max(1, math.ceil(len(wanted) / SHOWN_TRIALS)))
    start = (page - 1) * SHOWN_TRIALS
    shown = [p.trial_no for p in in_order(wanted, query.sort, query.order == "down")[start : start + SHOWN_TRIALS]]
    found = {trial.trial_no: trial for trial in archive.browsing.some(study.id, shown)}
    return StudyView(
        study=study,
        spec=_spec(study),
        query=query,
        points=points,
        total=len(wanted),
        rows=tuple(found[number] for number in shown if number in found),
        best=marked.get(best.trial_no) if best else None,
        chosen=marked.get(chosen) if chosen is not None else None,
        draws=archive.ledgers.usage(study.id, "search").settled,
        document=document,
        guidelines=tuple(archive.guidelines.list(study.id, newest=SHOWN_ROUNDS)),
        guideline_rounds=archive.browsing.guideline_rounds(study.id),
        refused=tuple(archive.proposals.newest_refused(study.id, SHOWN_REFUSED)),
        refused_count=archive.browsing.refused(study.id),
        last_event=last.id if last else 0,
        activity=dict(progress.payload) if progress else {},
    )


def study_figures(archive: Archive, study: StudyRecord, query: StudyQuery, theme: Theme) -> dict[str, Figure]:
    """The figures of a study's page, by the id of their place; those without data are left out."""
    figures: dict[str, Figure] = {}
    spec, document = _spec(study), plan_of(archive, study.id)
    points = [p for p in archive.browsing.points(study.id) if p.split == "search"]
    best = min((p for p in points if p.score is not None), key=_worth, default=None)
    if best is None or spec is None:
        return figures
    unit = cost_model(spec.budget.plan.unit).unit
    number = _number_of(archive, study.id, document)
    front = [p.trial_no for p in document.pareto] if document else front_of(points)
    drawn = thinned(points, {*front, *([number] if number is not None else [])})
    trials = archive.browsing.some(study.id, sorted(drawn))
    figures["best"] = best_so_far(trials, theme, _spent_by(points))
    figures["pareto"] = pareto_figure(trials, front, spec.budget.plan.limit, unit, number, theme)
    marked = archive.browsing.some(study.id, [best.trial_no if number is None else number], curves=True)
    if marked and has_curves(of_stage := _of_stage(marked[0], query.stage)):
        figures["curves"] = curves_figure(of_stage, theme)
    prediction = own_comparison([(p.trial_no, p.predicted_cost, p.measured_cost) for p in points], unit)
    if prediction is not None:
        pairs = [pair for pair in prediction.pairs if int(pair[0].removeprefix("trial ")) in drawn]
        figure = prediction_figure(pairs, unit, unit, prediction.fit, theme)
        figure.data[-1].customdata = [int(label.removeprefix("trial ")) for label, _, _ in pairs]
        figures["prediction"] = figure
    if any(p.seconds or p.load_seconds for p in points):
        figures["timeline"] = timeline_figure(points, theme)
    if document is not None:
        figures["allocation"] = allocation_bars(document, theme)
    return figures


def thinned(points: Sequence[TrialPoint], kept: Collection[int], most: int = DRAWN_TRIALS) -> set[int]:
    """Numbers of the scored trials that a figure shows.

    Those that are to be kept, every improvement, and of the others as many as there is room for, evenly spread.
    """
    scored = [p for p in points if p.score is not None]
    if len(scored) <= most:
        return {p.trial_no for p in scored}
    numbers = {p.trial_no for p in scored}
    shown = {number for number in kept if number in numbers} | {scored[-1].trial_no}
    best = -math.inf
    for point in scored:
        if (point.score or 0.0) > best:
            best = point.score or 0.0
            shown.add(point.trial_no)
    others = [p.trial_no for p in scored if p.trial_no not in shown]
    room = max(0, most - len(shown))
    return shown | {others[i * len(others) // room] for i in range(room)} if room else shown


def front_of(points: Sequence[TrialPoint]) -> list[int]:
    """Numbers of the trials that no other beats in score at the same or a lower cost, cheapest first."""
    front: list[int] = []
    best = -math.inf
    for point in sorted((p for p in points if p.score is not None), key=lambda p: (p.predicted_cost, *_worth(p))):
        if (point.score or 0.0) > best:
            best = point.score or 0.0
            front.append(point.trial_no)
    return front


def has_curves(trial: TrialRecord) -> bool:
    """Whether some stage has more than one point; one alone says nothing of more samples."""
    return any(sum(p.score is not None for p in points) > 1 for points in trial.curves.values())


def _worth(point: TrialPoint) -> tuple[float, float, int]:
    return -(point.score or 0.0), point.predicted_cost, point.trial_no


def _spent_by(points: Sequence[TrialPoint]) -> dict[int, int]:
    spent: dict[int, int] = {}
    total = 0
    for point in points:
        total += point.new_draws
        spent[point.trial_no] = total
    return spent


def _number_of(archive: Archive, study_id: str, document: PlanDocument | None) -> int | None:
    if document is None:
        return None
    return archive.browsing.number_of(study_id, str(Allocation.from_json(document.allocation)))


def _of_stage(trial: TrialRecord, stage: str) -> TrialRecord:
    """The trial with the curves of one stage only, where the address names one that it has."""
    return replace(trial, curves={stage: trial.curves[stage]}) if stage in trial.curves else trial


def _spec(study: StudyRecord) -> StudySpec | None:
    try:
        return StudySpec.model_validate(dict(study.spec))
    except ValidationError:
        return None
