"""Figures from archive records."""

from __future__ import annotations

import json
from typing import Any

import pytest

from api.pages.study_query import StudyQuery
from api.pages.study_view import study_figures, study_view
from env.costs import Calibration
from planner.plans import PlanDocument
from planner.plans.figures import allocation_bars, best_so_far, curves_figure, pareto_figure, pareto_numbers
from planner.plans.ladders import Comparison, comparisons, study_ladders
from tests.api.service import Service


def test_a_finished_study_has_every_figure_with_units(service: Service, finished: str) -> None:
    archive = service.runtime.archive
    trials = archive.trials.list(finished, "search")
    document = PlanDocument.model_validate(dict(archive.plans.get(finished).document))
    best = best_so_far(trials)
    assert list(best.data[0].y) == sorted(best.data[0].y)
    assert best.data[0].x[-1] == sum(t.spend.new_draws for t in trials)
    pareto = pareto_figure(trials, None, document.budget, document.unit, document.pareto[0].trial_no, "dark")
    assert "MFLOPs per query" in pareto.layout.xaxis.title.text
    assert [trace.name for trace in pareto.data][-1] == "the plan"
    assert {trace.name for trace in curves_figure(trials[-1]).data} == {"find", "solve"}
    assert sum(allocation_bars(document).data[0].x) == pytest.approx(1)


def test_the_front_is_the_one_the_plan_states(service: Service, finished: str) -> None:
    archive = service.runtime.archive
    document = PlanDocument.model_validate(dict(archive.plans.get(finished).document))
    assert pareto_numbers(archive.trials.list(finished, "search")) == [p.trial_no for p in document.pareto]


def test_figures_without_a_trial_are_empty_and_valid() -> None:
    for figure in (best_so_far([]), pareto_figure([], None, 1e9, "FLOPs")):
        assert json.loads(figure.to_json())["layout"]["xaxis"]["title"]["text"]


def test_predictions_against_measurements_are_those_of_the_report(service: Service, finished: str) -> None:
    archive = service.runtime.archive
    trials = archive.trials.list(finished, "search")
    study = archive.studies.get(finished)
    view = study_view(archive, study, StudyQuery())
    assert view.prediction is not None
    points = study_figures(archive, study, StudyQuery(), "light")["prediction"].data[-1]
    assert list(points.y) == pytest.approx([t.measured_cost / 1e6 for t in trials if t.measured_cost])
    ladders = study_ladders(archive, finished, trials)
    (reported,) = [c for c in comparisons(trials, ladders, view.unit) if c.measured_unit == view.unit]
    assert view.prediction == reported
    page = service.http.get(f"/studies/{finished}/live").text
    assert f"Over {len(trials)} trials, measured cost is {reported.fit.factor:.4g} times the predicted cost" in page


@pytest.mark.parametrize(
    ("fit", "unit", "words"),
    [
        (None, "FLOPs", "1 trial; no fit."),
        (Calibration(2, None, None, None, 1), "FLOPs", "Over 1 trial, measured cost is 2 times the predicted cost."),
        (
            Calibration(0.5, 0.25, 1, 0.8, 1),
            "s",
            "Over 1 trial, one FLOPs predicted became 0.5 s measured (95% interval 0.25 to 1). "
            "Rank correlation 0.800: predictions mostly order the trials as measurements do.",
        ),
    ],
)
def test_the_fit_is_put_into_words(fit: Calibration | None, unit: str, words: str) -> None:
    assert Comparison("a title", "FLOPs", unit, [("trial 1", 1e6, 5e5)], fit).words == words


def test_the_page_gets_the_figures_in_its_theme(service: Service, finished: str) -> None:
    def ink(theme: str) -> Any:
        answer = service.http.get(f"/studies/{finished}/figures.json", params={"theme": theme}).json()
        assert set(answer) == {"best", "pareto", "curves", "allocation", "prediction", "timeline"}
        return answer["best"]["layout"]["font"]["color"]

    assert ink("light") != ink("dark")
