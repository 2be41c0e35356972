"""Gathers what the study pages show from the archive."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from plotly.graph_objects import Figure
from pydantic import ValidationError

from api.routes.studies import plan_of
from env.costs import cost_model
from env.execution.evidence import ExampleEvidence
from env.spec import StudySpec
from planner.archive import Archive, GuidelineRecord, ProposalRecord, StudyRecord, TrialRecord
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
from planner.plans.ladders import NO_LADDERS, Comparison, comparisons

SHOWN_EXAMPLES = 200

Show = Literal["all", "failed", "wrong"]


@dataclass(frozen=True)
class StudyView:
    """One study as its page shows it."""

    study: StudyRecord
    spec: StudySpec | None
    """None where the stored spec is of another version."""

    trials: tuple[TrialRecord, ...]
    """On the search split."""

    tests: tuple[TrialRecord, ...]
    draws: float
    document: PlanDocument | None
    guidelines: tuple[GuidelineRecord, ...]
    refused: tuple[ProposalRecord, ...]
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
    def best(self) -> TrialRecord | None:
        """The trial with the highest score, the cheapest of them."""
        scored = [t for t in self.trials if t.score is not None]
        return min(scored, key=lambda t: (-(t.score or 0.0), t.predicted_cost), default=None)

    @property
    def chosen(self) -> TrialRecord | None:
        """The trial of the plan."""
        if self.document is None:
            return None
        allocation = self.document.allocation
        return next((t for t in self.trials if t.allocation.to_json() == allocation), None)

    @property
    def prediction(self) -> Comparison | None:
        """Predicted against measured cost of the trials, in the plan's unit; None before the first measurement.

        From the stored costs alone: pricing trials in other units reads all their evidence, which a page that follows a
        study cannot do each second. The report holds clocks against predictions too.
        """
        found = comparisons(self.trials, NO_LADDERS, self.unit) if self.spec else []
        return found[0] if found else None


def study_view(archive: Archive, study: StudyRecord) -> StudyView:
    """Read everything a study's page shows."""
    trials = archive.trials.list(study.id)
    last = archive.events.latest(study.id)
    progress = archive.events.latest(study.id, "progress") if study.status == "running" else None
    refused = [p for p in archive.proposals.list(study.id) if p.verdict == "refused" and p.origin != "call"]
    return StudyView(
        study=study,
        spec=_spec(study),
        trials=tuple(t for t in trials if t.split == "search"),
        tests=tuple(t for t in trials if t.split == "test"),
        draws=archive.ledgers.usage(study.id, "search").settled,
        document=plan_of(archive, study.id),
        guidelines=tuple(archive.guidelines.list(study.id)),
        refused=tuple(refused),
        last_event=last.id if last else 0,
        activity=dict(progress.payload) if progress else {},
    )


def study_figures(view: StudyView, theme: Theme) -> dict[str, Figure]:
    """The figures of a study's page, by the id of their place; those without data are left out."""
    figures: dict[str, Figure] = {}
    if view.best is None or view.spec is None:
        return figures
    chosen = view.chosen
    front = [p.trial_no for p in view.document.pareto] if view.document else None
    limit = view.spec.budget.plan.limit
    number = chosen.trial_no if chosen else None
    figures["best"] = best_so_far(view.trials, theme)
    figures["pareto"] = pareto_figure(view.trials, front, limit, view.unit, number, theme)
    if has_curves(chosen or view.best):
        figures["curves"] = curves_figure(chosen or view.best, theme)
    prediction = view.prediction
    if prediction is not None:
        figures["prediction"] = prediction_figure(
            prediction.pairs, prediction.predicted_unit, prediction.measured_unit, prediction.fit, theme
        )
    if view.document is not None:
        figures["allocation"] = allocation_bars(view.document, theme)
    return figures


def has_curves(trial: TrialRecord) -> bool:
    """Whether some stage has more than one point; one alone says nothing of more samples."""
    return any(sum(p.score is not None for p in points) > 1 for points in trial.curves.values())


def word_for(example: ExampleEvidence) -> str:
    """What became of an example; a failed one was not evaluated and is not wrong."""
    if example.status == "failed":
        return "failed"
    if example.realised is None:
        return "scored"
    if example.realised >= 1:
        return "right"
    return "wrong" if example.realised <= 0 else "partly right"


def shown_examples(evidence: tuple[ExampleEvidence, ...], show: Show) -> list[tuple[str, ExampleEvidence]]:
    """The first examples of a trial with the word for what became of them, of one sort where asked."""
    worded = [(word_for(example), example) for example in evidence]
    return [pair for pair in worded if show == "all" or pair[0] == show][:SHOWN_EXAMPLES]


def _spec(study: StudyRecord) -> StudySpec | None:
    try:
        return StudySpec.model_validate(dict(study.spec))
    except ValidationError:
        return None
