"""Guidelines by rule: what the trials say about each insight, in words and in structured form."""

from __future__ import annotations

from collections.abc import Iterable

from env.allocation import Allocation, StageSetting
from planner.history import CurveEstimate, Guideline, History, TrialView
from planner.proposers.ablation import NOTHING, Ablation
from planner.proposers.initial import largest_model
from planner.space import SearchSpace

PLATEAU = 0.005
"""A curve counts as flat where all further samples together gain less than this."""

ALIKE = 0.01
"""Scores this close do not decide between two models; then the smaller is preferred."""


def insight_guidelines(space: SearchSpace, history: History, ablation: Ablation = NOTHING) -> list[Guideline]:
    """Guidelines of one round, from the trials so far; none before the first trial, none of an insight left out."""
    best = history.best
    if best is None:
        return []
    found = [
        *(() if ablation.without_insight_1 else _model_preferences(space, history)),
        *(() if ablation.without_insight_2 else _plateaus(space, history, best)),
        *(() if ablation.without_insight_3 else _budget_shifts(space, history, best)),
    ]
    ranked = sorted((t.score for t in history.trials), reverse=True)
    if len(ranked) >= 4 and ranked[0] - ranked[min(len(ranked) - 1, 9)] < ALIKE:
        found.append(
            Guideline(
                history.round,
                0,
                f"The ten best trials lie within {ALIKE:g}: look elsewhere or save cost, scores hardly differ here.",
                structured={"explore": True},
            )
        )
    return found


def _model_preferences(space: SearchSpace, history: History) -> Iterable[Guideline]:
    """Insight 1: per stage, which model did best with the other stages alike; the smaller one among equals."""
    for stage in space.pipeline.stages:
        best_of: dict[str, TrialView] = {}
        for trial in history.trials:
            model = trial.allocation[stage.name].model
            if model not in best_of or trial.score > best_of[model].score:
                best_of[model] = trial
        if len(best_of) < 2:
            continue
        top = max(trial.score for trial in best_of.values())
        alike = [m for m, trial in best_of.items() if trial.score >= top - ALIKE]
        preferred = min(alike, key=lambda m: space.cost.parameters[m])
        listed = ", ".join(f"{m} {best_of[m].score:.3f}" for m in sorted(best_of, key=lambda m: -best_of[m].score))
        largest = largest_model(space, stage)
        why = (
            "the largest is clearly better here"
            if preferred == largest
            else f"sampled often it keeps up with {largest} at no more cost"
        )
        yield Guideline(
            history.round,
            1,
            f"{stage.name}: pursue {preferred} ({why}). Best score with each model: {listed}.",
            stage.name,
            {"preferred_model": preferred, "best_score_by_model": {m: best_of[m].score for m in best_of}},
        )


def _plateaus(space: SearchSpace, history: History, best: TrialView) -> Iterable[Guideline]:
    """Insight 2: where the best trial's k-curve went flat, turned down, or still rises."""
    for stage in space.pipeline.stages:
        points = [p for p in best.curves.get(stage.name, ()) if p.coverage >= 0.8]
        if len(points) < 2:
            continue
        plateau = plateau_of(points)
        last = points[-1].samples
        setting = best.allocation[stage.name]
        if plateau < last:
            text = f"{stage.name}: {setting.model} is flat from {plateau} samples (tried {last}); do not pay past it."
            direction = "down"
        else:
            text = f"{stage.name}: {setting.model} still gains at {last} samples; try more if the budget has room."
            direction = "up"
        yield Guideline(
            history.round, 2, text, stage.name, {"model": setting.model, "plateau": plateau, "direction": direction}
        )


def plateau_of(points: list[CurveEstimate]) -> int:
    """Fewest samples whose expected score is within `PLATEAU` of the best at any k."""
    top = max(p.expected for p in points)
    return next(p.samples for p in points if p.expected >= top - PLATEAU)


def _budget_shifts(space: SearchSpace, history: History, best: TrialView) -> Iterable[Guideline]:
    """Insight 3: how the best trial splits the budget, against the best trial that splits it otherwise."""
    share = {s: space.price(s, best.allocation[s]) / space.limit for s in best.allocation.stages}
    others = [t for t in history.trials if _main_stage(space, t.allocation) != _main_stage(space, best.allocation)]
    rival = max(others, key=lambda t: t.score, default=None)
    split = ", ".join(f"{stage} {part:.0%}" for stage, part in share.items())
    text = f"The best trial spends {split} of the budget"
    structured: dict[str, object] = {"split": share}
    if rival is not None:
        main = _main_stage(space, rival.allocation)
        text += f"; giving {main} the largest part instead reached {rival.score:.3f} against {best.score:.3f}"
        structured["rival_main_stage"] = main
    yield Guideline(history.round, 3, text + ".", None, structured)


def _main_stage(space: SearchSpace, allocation: Allocation) -> str:
    def price(stage: str) -> float:
        setting: StageSetting = allocation[stage]
        return space.price(stage, setting)

    return max(allocation.stages, key=price)
