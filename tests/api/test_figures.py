"""Figures from archive records."""

from __future__ import annotations

import json
from typing import Any

import pytest

from planner.plans import PlanDocument
from planner.plans.figures import allocation_bars, best_so_far, curves_figure, pareto_figure, pareto_numbers
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


def test_the_page_gets_the_figures_in_its_theme(service: Service, finished: str) -> None:
    def ink(theme: str) -> Any:
        answer = service.http.get(f"/studies/{finished}/figures.json", params={"theme": theme}).json()
        assert set(answer) == {"best", "pareto", "curves", "allocation"}
        return answer["best"]["layout"]["font"]["color"]

    assert ink("light") != ink("dark")
