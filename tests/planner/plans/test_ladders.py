"""Trials in every unit, and predicted against measured costs in the report."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from env.costs import Calibration
from env.spec import StudySpec
from planner import run_study
from planner.archive import Archive, open_archive
from planner.plans.figures import prediction_figure
from planner.plans.ladders import NO_LADDERS, comparisons, study_ladders
from planner.plans.report import write_report
from tests.simulated import DiceBackends, simulated_spec


def spec(architecture: str | None = "qwen3-0.6b", **plan: Any) -> StudySpec:
    raw = simulated_spec().model_dump(mode="json")
    raw["budget"]["plan"].update(plan)
    raw["budget"]["search"]["trials"] = 6
    for model in raw["pipeline"]["models"].values():
        model["architecture"] = architecture
        model["parameters"] = None if architecture else model["parameters"]
    return StudySpec.model_validate(raw)


def ran(study: StudySpec, folder: Path) -> tuple[Archive, str]:
    url = f"sqlite:///{folder / 'a.db'}"
    plan = asyncio.run(run_study(study, archive=url, environ={}, backends=DiceBackends()))
    return open_archive(url), plan.provenance.study_id


@pytest.fixture(scope="module")
def timed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Archive, str]:
    return ran(spec(accelerator="l4"), tmp_path_factory.mktemp("timed"))


def test_every_trial_is_priced_in_every_unit_and_timed(timed: tuple[Archive, str]) -> None:
    archive, study = timed
    trials = archive.trials.list(study, "search")
    ladders = study_ladders(archive, study, trials)
    for trial in trials:
        one = ladders.trials[trial.trial_no]
        assert one.predicted["flops"] == pytest.approx(trial.predicted_cost)
        # The dice use exactly the planned tokens; a verifier reads candidates that are word for word the same once.
        if trial.allocation["solve"].strategy == "best_of_n":
            assert one.measured["runtime"] < one.predicted["runtime"]
        else:
            assert one.measured["runtime"] == pytest.approx(one.predicted["runtime"])
        assert one.measured["flops"] == pytest.approx(trial.measured_cost)
        assert one.timed == trial.scored
        assert one.measured["seconds"] > 0
    assert set(ladders.units) >= {"flops", "eflops", "runtime", "joules", "seconds"}


def test_the_report_holds_predictions_against_measurements(timed: tuple[Archive, str], tmp_path: Path) -> None:
    archive, study = timed
    write_report(archive, study, tmp_path)
    data = json.loads((tmp_path / "report.json").read_text())
    assert all(trial["seconds"] >= 0 and trial["load_seconds"] == 0 for trial in data["trials"])
    assert data["calibrations"]["FLOPs -> FLOPs"]["factor"] == pytest.approx(1, abs=0.1)
    assert data["calibrations"]["idealized seconds -> s"]["pairs"] == len(data["trials"])
    assert data["trials"][0]["ladder"]["predicted"]["eflops"] > data["trials"][0]["ladder"]["predicted"]["flops"]
    page = (tmp_path / "report.html").read_text()
    assert "Predicted and measured cost" in page
    assert "Predicted cost and measured seconds" in page
    assert "The plan in every unit there is data for" in page


def test_without_an_accelerator_a_clock_is_held_against_the_plans_own_unit(tmp_path: Path) -> None:
    archive, study = ran(spec(architecture=None), tmp_path)
    trials = archive.trials.list(study, "search")
    found = comparisons(trials, study_ladders(archive, study, trials), "FLOPs")
    assert [(c.predicted_unit, c.measured_unit) for c in found] == [("FLOPs", "FLOPs"), ("FLOPs", "s")]


def test_a_stored_spec_that_cannot_be_read_any_more_leaves_the_stored_costs(timed: tuple[Archive, str]) -> None:
    archive, _ = timed
    archive.studies.create("older", "older", {"version": 0}, seed=0)
    assert study_ladders(archive, "older", []) is NO_LADDERS
    trials = archive.trials.list(timed[1], "search")
    assert [c.measured_unit for c in comparisons(trials, NO_LADDERS, "FLOPs")] == ["FLOPs"]


def test_the_figure_shows_equality_and_the_factor() -> None:
    fit = Calibration(2.0, 1.5, 2.5, 0.9, 2)
    figure = prediction_figure([("trial 1", 1e6, 2e6), ("trial 2", 4e6, 8e6)], "FLOPs", "FLOPs", fit, "dark")
    equality, fitted, points = figure.data
    assert equality.name == "measured = predicted"
    assert list(equality.y) == pytest.approx(list(equality.x))
    assert fitted.name == "factor 2 (1.5 to 2.5)"
    assert list(fitted.y) == pytest.approx([2 * x for x in fitted.x])
    assert list(points.x) == [1, 4]
    assert "MFLOPs" in figure.layout.xaxis.title.text
    assert figure.layout.xaxis.type == "log"


def test_figures_of_different_units_have_no_line_of_equality() -> None:
    figure = prediction_figure([("trial 1", 1e6, 2.0)], "FLOPs", "s", Calibration(2e-6, None, None, None, 1))
    assert [trace.name for trace in figure.data] == ["factor 2e-06", "1 trial"]
    assert len(prediction_figure([], "FLOPs", "FLOPs", None).data) == 2
