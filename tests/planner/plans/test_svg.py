"""Static pictures of the figures: well formed, true to the figure's values, safe with any name."""

from __future__ import annotations

import math
import re
import xml.etree.ElementTree as ET
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from plotly.graph_objects import Figure, Pie, Scatter

from env.costs import Calibration
from planner.archive.records import KPoint
from planner.plans.axes import Axis, axis_of
from planner.plans.figures import best_so_far, curves_figure, pareto_figure, prediction_figure
from planner.plans.svg import HEIGHT, WIDTH, figure_svg
from tests.planner.plans.records import a_trial

SVG = "{http://www.w3.org/2000/svg}"


def drawn(figure: Figure, title: str = "a figure") -> ET.Element:
    return ET.fromstring(figure_svg(figure, title))


def texts(root: ET.Element) -> list[str]:
    return [e.text or "" for e in root.iter(f"{SVG}text")]


def centres(root: ET.Element) -> list[tuple[float, float]]:
    """Middles of the diamonds, the trials of `best_so_far`, without the legend's."""
    found = []
    for polygon in root.iter(f"{SVG}polygon"):
        points = [tuple(map(float, p.split(","))) for p in polygon.get("points", "").split()]
        found.append((sum(x for x, _ in points) / len(points), sum(y for _, y in points) / len(points)))
    return found[:-1]


def test_points_lie_where_their_values_are() -> None:
    trials = [a_trial(n, score) for n, score in ((1, 0.2), (2, 0.6), (3, 0.4))]
    figure = best_so_far(trials)
    root = drawn(figure)
    places = centres(root)
    across, up = axis_of(figure, "x"), axis_of(figure, "y")
    for (x, y), draws, trial in zip(places, (10, 20, 30), trials, strict=True):
        left, right, top, bottom = 74, WIDTH - 20, 36, float(HEIGHT if figure.layout.height is None else 360) - 58
        assert x == pytest.approx(left + across.place(draws) * (right - left), abs=0.2)
        assert y == pytest.approx(bottom - up.place(trial.score or 0) * (bottom - top), abs=0.2)
    assert {"best so far", "trial, ± 1 standard error", "new draws spent by the search"} <= set(texts(root))


def test_everything_drawn_lies_on_the_picture() -> None:
    trials = [a_trial(n, n / 40, cost=1e6 * n) for n in range(1, 40)]
    pairs = [(f"trial {t.trial_no}", t.predicted_cost, 3e-9 * t.predicted_cost**1.1) for t in trials]
    figures = [
        best_so_far(trials),
        pareto_figure(trials, None, 4.5e7, "FLOPs", chosen=7),
        curves_figure(trials[-1]),
        prediction_figure(pairs, "FLOPs", "s", Calibration(3e-9, None, None, None, 39)),
    ]
    for figure in figures:
        root = drawn(figure)
        height = float(root.get("height", "0"))
        for element in root.iter():
            for name, most in (("x1", WIDTH), ("x2", WIDTH), ("cx", WIDTH), ("y1", height), ("cy", height)):
                if element.get(name) is not None:
                    assert -1 <= float(element.get(name, "")) <= most + 1
            for x, y in re.findall(r"(-?[\d.]+),(-?[\d.]+)", element.get("points", "")):
                assert -1 <= float(x) <= WIDTH + 1
                assert -1 <= float(y) <= height + 1


def test_the_budget_and_the_plan_are_marked() -> None:
    trials = [a_trial(1, 0.5, cost=2e6), a_trial(2, 0.7, cost=3e6)]
    root = drawn(pareto_figure(trials, None, 4e6, "FLOPs", chosen=2))
    assert "budget 4 MFLOPs" in texts(root)
    assert "the plan" in texts(root)
    assert any(line.get("stroke-dasharray") for line in root.iter(f"{SVG}line"))


def test_hollow_points_rest_on_few_draws_in_pictures_too() -> None:
    curve = (KPoint(1, 0.5, 1.0), KPoint(2, 0.6, 0.5))
    root = drawn(curves_figure(replace(a_trial(1, 0.5), curves={"solve": curve})))
    assert [c.get("fill") == "none" for c in root.iter(f"{SVG}circle")] == [False, True, False]


@settings(deadline=None)
@given(st.text(min_size=1, max_size=30))
def test_names_are_shown_and_never_markup(name: str) -> None:
    trial = replace(a_trial(1, 0.5), curves={f"{name}<script>&": (KPoint(1, 0.5, 1.0), KPoint(2, 0.6, 1.0))})
    root = drawn(curves_figure(trial), f"{name}\x00<title>")
    assert not list(root.iter(f"{SVG}script"))
    assert any(t.endswith("<script>&") for t in texts(root))


def test_a_kind_of_trace_nobody_draws_is_an_error() -> None:
    with pytest.raises(ValueError, match="Pie"):
        figure_svg(Figure([Pie(values=[1, 2])]), "a pie")


def test_a_figure_without_points_is_still_a_picture() -> None:
    assert texts(drawn(best_so_far([])))
    assert texts(drawn(prediction_figure([], "FLOPs", "FLOPs", None)))


@settings(deadline=None)
@given(st.floats(-1e9, 1e9), st.floats(1e-6, 1e9))
def test_linear_axes_have_round_ticks_inside_their_range(low: float, span: float) -> None:
    figure = best_so_far([])
    figure.add_trace(Scatter(x=[low, low + span], y=[0, 1]))
    figure.update_xaxes(rangemode="normal")
    axis = axis_of(figure, "x")
    assert axis.low < axis.high
    assert all(axis.low <= v <= axis.high + abs(axis.high) * 1e-9 for v, _ in axis.ticks)
    assert len(axis.ticks) <= 10


def test_a_logarithmic_axis_places_by_ratio() -> None:
    axis = Axis(1.0, 100.0, True, ())
    assert axis.place(10.0) == pytest.approx(0.5)
    assert math.isclose(Axis(0.0, 4.0, False, ()).place(1.0), 0.25)
