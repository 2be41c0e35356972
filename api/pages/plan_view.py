"""Gathers what a plan's page shows."""

from __future__ import annotations

import json
from dataclasses import dataclass

from plotly.graph_objects import Figure
from pydantic import ValidationError

from api.completions.desk import Desk
from api.routes.plans import names_of
from env.execution.live import input_fields
from env.spec import StudySpec
from planner.archive import Archive, PlanRecord, PromotionRecord, StudyRecord
from planner.plans import PlanDocument
from planner.plans.document import FrontPoint
from planner.plans.figures import Theme, allocation_bars, pareto_figure
from planner.serving import PlanReference, point_within
from planner.serving.reference import budget_text

OTHERS = 50
"""Plans offered for a comparison, the newest."""


@dataclass(frozen=True)
class PlanView:
    """One plan as its page shows it."""

    record: PlanRecord
    study: StudyRecord
    document: PlanDocument
    names: tuple[str, ...]
    """That stand for it now."""

    history: tuple[PromotionRecord, ...]
    """Of those names, newest first."""

    fields: tuple[str, ...]
    """The pipeline's input; empty where the study's spec is of another version."""

    usable: bool
    """Whether this version can open the study's spec."""

    open: bool
    """Whether its models are open in this process."""

    others: tuple[tuple[str, str], ...]
    """(id, study) of plans to compare with."""

    @property
    def model(self) -> str:
        """What clients ask."""
        return f"plan:{self.names[0] if self.names else self.record.id}"

    @property
    def points(self) -> list[tuple[FrontPoint, str]]:
        """Points of the front, each with the budget that asks for it."""
        return [(point, self._budget(point)) for point in self.document.pareto]

    def _budget(self, point: FrontPoint) -> str:
        short = budget_text(point.predicted_cost)
        budget = PlanReference.parse(f"x@{short}").budget
        # Two points may cost so nearly the same that the short form buys the next one.
        same = point_within(self.document, budget).trial_no == point.trial_no
        return short if same else f"{point.predicted_cost * (1 + 1e-9):.12g}"

    @property
    def example(self) -> str:
        """A user message that this pipeline takes."""
        if len(self.fields) <= 1:
            return json.dumps(f"your {self.fields[0] if self.fields else 'question'}")
        return "json.dumps({" + ", ".join(f'"{name}": ...' for name in self.fields) + "})"


def plan_view(archive: Archive, record: PlanRecord, desk: Desk) -> PlanView:
    """Read everything a plan's page shows."""
    study = archive.studies.get(record.study_id)
    names = tuple(names_of(archive).get(record.id, ()))
    try:
        spec = StudySpec.model_validate(dict(study.spec))
    except ValidationError:
        spec = None
    listed = archive.plans.page(OTHERS)
    return PlanView(
        record=record,
        study=study,
        document=PlanDocument.model_validate(dict(record.document)),
        names=names,
        history=tuple(line for name in names for line in archive.promotions.history(name, 20)),
        fields=() if spec is None else input_fields(spec.pipeline, record.allocation),
        usable=spec is not None,
        open=record.study_id in desk.open_studies,
        others=tuple((other.id, name) for other, name in listed if other.id != record.id),
    )


def plan_figures(archive: Archive, record: PlanRecord, theme: Theme) -> dict[str, Figure]:
    """The figures of a plan's page, by the id of their place."""
    document = PlanDocument.model_validate(dict(record.document))
    trials = archive.trials.list(record.study_id, "search", curves=False)
    front = [point.trial_no for point in document.pareto]
    number = next((t.trial_no for t in trials if t.allocation == record.allocation), None)
    figures = {"allocation": allocation_bars(document, theme)} if document.stages else {}
    if trials:
        figures["pareto"] = pareto_figure(trials, front, document.budget, document.unit, number, theme)
    return figures
