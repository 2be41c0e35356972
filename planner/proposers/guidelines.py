"""Guidelines by rule: what the trials say about each insight, in words and in structured form."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from heapq import heappush, heappushpop

from env.allocation import Allocation, StageSetting
from planner.history import CurveEstimate, Guideline, History, TrialView
from planner.proposers.ablation import NOTHING, Ablation
from planner.proposers.initial import largest_model
from planner.space import SearchSpace

PLATEAU = 0.005
"""A curve counts as flat where all further samples together gain less than this."""

ALIKE = 0.01
"""Scores this close do not decide between two models; then the smaller is preferred."""

MOST_ALIKE = 10
"""Best trials that must lie so close for scores to say nothing."""


class RuleGuidelines:
    """Writes the guidelines of each round of one study.

    Keeps the best trial with each model of each stage, and with each stage as the dearest, and looks at every trial
    once: a trial's score never changes.

    Args:
        space: of the study.
        ablation: insights to leave out.
    """

    def __init__(self, space: SearchSpace, ablation: Ablation = NOTHING) -> None:
        self._space = space
        self._ablation = ablation
        self._forget()

    def _forget(self) -> None:
        self._seen: list[TrialView] = []
        """The trials looked at."""

        self._by_model: dict[str, dict[str, float]] = {stage.name: {} for stage in self._space.pipeline.stages}
        self._by_main_stage: dict[str, float] = {}
        self._top: list[float] = []
        """The ten highest scores, as a heap."""

    def of(self, history: History) -> list[Guideline]:
        """From the trials so far; none before the first trial, none of an insight left out."""
        best = history.best
        if best is None:
            return []
        self._look_at(history.trials)
        found = [
            *(() if self._ablation.without_insight_1 else self._model_preferences(history)),
            *(() if self._ablation.without_insight_2 else _plateaus(self._space, history, best)),
            *(() if self._ablation.without_insight_3 else self._budget_shifts(history, best)),
        ]
        if len(history.trials) >= 4 and max(self._top) - min(self._top) < ALIKE:
            found.append(
                Guideline(
                    history.round,
                    0,
                    f"The ten best trials lie within {ALIKE:g}: look elsewhere or save cost, scores hardly differ "
                    "here.",
                    structured={"explore": True},
                )
            )
        return found

    def _look_at(self, trials: Sequence[TrialView]) -> None:
        if not self._continues(trials):
            self._forget()
        for trial in trials[len(self._seen) :]:
            self._seen.append(trial)
            for stage, of_model in self._by_model.items():
                model = trial.allocation[stage].model
                of_model[model] = max(of_model.get(model, trial.score), trial.score)
            main = _main_stage(self._space, trial.allocation)
            self._by_main_stage[main] = max(self._by_main_stage.get(main, trial.score), trial.score)
            (heappush if len(self._top) < MOST_ALIKE else heappushpop)(self._top, trial.score)

    def _continues(self, trials: Sequence[TrialView]) -> bool:
        """Whether these trials begin with those looked at; three of them tell."""
        seen = len(self._seen)
        if seen > len(trials):
            return False
        both = [(self._seen[i], trials[i]) for i in {0, seen // 2, seen - 1} if seen]
        return all((a.trial_no, a.allocation, a.score) == (b.trial_no, b.allocation, b.score) for a, b in both)

    def _model_preferences(self, history: History) -> Iterable[Guideline]:
        """Insight 1: per stage, which model did best with the other stages alike; the smaller one among equals."""
        for stage in self._space.pipeline.stages:
            best_of = self._by_model[stage.name]
            if len(best_of) < 2:
                continue
            top = max(best_of.values())
            alike = [m for m, score in best_of.items() if score >= top - ALIKE]
            preferred = min(alike, key=lambda m: self._space.cost.parameters[m])
            listed = ", ".join(f"{m} {best_of[m]:.3f}" for m in sorted(best_of, key=lambda m: -best_of[m]))
            largest = largest_model(self._space, stage)
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
                {"preferred_model": preferred, "best_score_by_model": dict(best_of)},
            )

    def _budget_shifts(self, history: History, best: TrialView) -> Iterable[Guideline]:
        """Insight 3: how the best trial splits the budget, against the best trial that splits it otherwise."""
        space = self._space
        share = {s: space.price(s, best.allocation[s]) / space.limit for s in best.allocation.stages}
        own = _main_stage(space, best.allocation)
        others = {stage: score for stage, score in self._by_main_stage.items() if stage != own}
        split = ", ".join(f"{stage} {part:.0%}" for stage, part in share.items())
        text = f"The best trial spends {split} of the budget"
        structured: dict[str, object] = {"split": share}
        if others:
            main = max(others, key=lambda stage: others[stage])
            text += f"; giving {main} the largest part instead reached {others[main]:.3f} against {best.score:.3f}"
            structured["rival_main_stage"] = main
        yield Guideline(history.round, 3, text + ".", None, structured)


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


def _main_stage(space: SearchSpace, allocation: Allocation) -> str:
    def price(stage: str) -> float:
        setting: StageSetting = allocation[stage]
        return space.price(stage, setting)

    return max(allocation.stages, key=price)
