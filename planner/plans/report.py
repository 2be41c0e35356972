"""Writes a finished study down: plan.yaml, report.json and a self-contained report.html."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import yaml
from jinja2 import Environment, PackageLoader, select_autoescape
from plotly.graph_objects import Figure
from plotly.offline import get_plotlyjs

from env.errors import ApportionError
from planner.archive import Archive, TrialRecord
from planner.plans.document import PlanDocument
from planner.plans.explanation import amount, spent
from planner.plans.figures import allocation_bars, best_so_far, curves_figure, pareto_figure, prediction_figure
from planner.plans.ladders import StudyLadders, comparisons, study_ladders


def write_report(archive: Archive, study_id: str, out: Path) -> list[Path]:
    """Export a finished study.

    Args:
        archive: where it is.
        study_id: a study with a plan.
        out: folder, made where missing.

    Returns:
        Paths of plan.yaml, report.json and report.html, and of fleet.yaml where a fleet serves the plan's models.

    Raises:
        NotFound: the study has no plan.
        ApportionError: the folder cannot be written.
    """
    document = PlanDocument.model_validate(dict(archive.plans.get(study_id).document))
    trials = archive.trials.list(study_id, "search")
    ladders = study_ladders(archive, study_id, trials)
    data = report_data(archive, study_id, document, trials, ladders)
    contents = {
        "plan.yaml": document.to_yaml(),
        "report.json": json.dumps(data, indent=2, ensure_ascii=False),
        "report.html": report_html(archive, study_id, document, trials, ladders),
    }
    contents |= _fleet_file(document)
    paths: list[Path] = []
    try:
        out.mkdir(parents=True, exist_ok=True)
        for name, text in contents.items():
            # Written beside and renamed, so that a full disk never leaves half a report.
            scratch = out / f".{name}.part"
            scratch.write_text(text, encoding="utf-8")
            os.replace(scratch, out / name)
            paths.append(out / name)
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


def report_data(
    archive: Archive, study_id: str, document: PlanDocument, trials: list[TrialRecord], ladders: StudyLadders
) -> dict[str, Any]:
    """Everything a script may want of a study, as JSON data."""
    study = archive.studies.get(study_id)
    return {
        "study": {"id": study.id, "name": study.name, "proposer": study.proposer, "seed": study.seed},
        "plan": document.model_dump(mode="json"),
        "best": dict(archive.plans.get(study_id, "best").document),
        "trials": [
            {
                "trial_no": t.trial_no,
                "round": t.round,
                "allocation": t.allocation.to_json(),
                "score": t.score,
                "standard_error": t.standard_error,
                "predicted_cost": t.predicted_cost,
                "measured_cost": t.measured_cost,
                "unit": t.unit,
                "new_draws": t.spend.new_draws,
                "reused_draws": t.spend.reused_draws,
                "failed": t.failed,
                "seconds": t.spend.seconds,
                "load_seconds": t.spend.load_seconds,
                "ladder": _ladder_data(ladders, t.trial_no),
                "curves": {
                    stage: [{"k": p.k, "score": p.score, "coverage": p.coverage} for p in points]
                    for stage, points in t.curves.items()
                },
            }
            for t in trials
        ],
        "calibrations": {
            f"{c.predicted_unit} -> {c.measured_unit}": None if c.fit is None else asdict(c.fit)
            for c in comparisons(trials, ladders, document.unit)
        },
        "guidelines": [
            {"round": g.round, "insight": g.insight, "stage": g.stage, "text": g.text}
            for g in archive.guidelines.list(study_id)
        ],
        "refused": [
            {"round": p.round, "origin": p.origin, "allocation": p.allocation_key, "reason": p.verdict_reason}
            for p in archive.proposals.list(study_id)
            if p.verdict == "refused" and p.origin != "call"
        ],
        "spec": dict(study.spec),
    }


def report_html(
    archive: Archive, study_id: str, document: PlanDocument, trials: list[TrialRecord], ladders: StudyLadders
) -> str:
    """One HTML file that needs nothing else: tables, figures, plotly's script inside."""
    chosen = next((t for t in trials if t.allocation.to_json() == document.allocation), None)
    front = [point.trial_no for point in document.pareto]
    figures = [
        ("Best so far over what the search spent", best_so_far(trials)),
        (
            "Score over cost, with the budget",
            pareto_figure(trials, front, document.budget, document.unit, chosen.trial_no if chosen else None),
        ),
        ("Where the plan spends", allocation_bars(document)),
    ]
    compared = comparisons(trials, ladders, document.unit)
    figures += [(c.title, prediction_figure(c.pairs, c.predicted_unit, c.measured_unit, c.fit)) for c in compared]
    if chosen is not None:
        figures.insert(1, ("More samples at one stage", curves_figure(with_longest_curves(chosen, trials))))
    environment = Environment(
        loader=PackageLoader("planner.plans", "templates"), autoescape=select_autoescape(default=True)
    )
    environment.globals["amount"] = amount
    environment.globals["spent"] = spent
    return environment.get_template("report.html.j2").render(
        document=document,
        study=archive.studies.get(study_id),
        trials=trials,
        guidelines=archive.guidelines.list(study_id),
        refused=[p for p in archive.proposals.list(study_id) if p.verdict == "refused" and p.origin != "call"],
        comparisons=compared,
        ladders=ladders,
        chosen=chosen,
        figures=[(title, _embedded(figure)) for title, figure in figures],
        plotly=get_plotlyjs(),
    )


def _ladder_data(ladders: StudyLadders, trial_no: int) -> dict[str, Any] | None:
    ladder = ladders.trials.get(trial_no)
    if ladder is None:
        return None
    return {"predicted": dict(ladder.predicted), "measured": dict(ladder.measured), "timed": ladder.timed}


def with_longest_curves(chosen: TrialRecord, trials: Sequence[TrialRecord]) -> TrialRecord:
    """The plan's trial with, for each stage, the curve of the trial that tells most about the plan's model there.

    That is the trial with the most samples of the same model and strategy at the stage, the best scored of several. A
    plan of single samples has no curve of its own, but others show what more samples would have bought.
    """
    curves = dict(chosen.curves)
    for stage, setting in chosen.allocation.settings:
        alike = [
            t
            for t in trials
            if t.score is not None
            and t.allocation[stage].model == setting.model
            and (setting.samples == 1 or t.allocation[stage].strategy == setting.strategy)
        ]
        source = max(alike, key=lambda t: (t.allocation[stage].samples, t.score or 0.0), default=chosen)
        curves[stage] = source.curves.get(stage, ())
    return replace(chosen, curves=curves)


def _embedded(figure: Figure) -> str:
    config = {"displaylogo": False, "responsive": True}
    return str(figure.to_html(full_html=False, include_plotlyjs=False, config=config))
