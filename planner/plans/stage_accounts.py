"""Gathers why each stage of a plan has its model and samples: curves, neighbouring models, the next sample's worth."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

from env.allocation import Allocation
from env.execution.evidence import ExampleEvidence
from planner.archive import Archive, TrialRecord
from planner.evidence import Contender, compare, contender, paired_difference
from planner.history import CurveEstimate
from planner.plans.document import IntervalPublic, PlanDocument, StagePlan
from planner.plans.explanation import amount
from planner.plans.study_report import CurveValue, Neighbour, StageAccount, Step
from planner.plans.wording import count, difference, score, setting_text, share, told_apart
from planner.proposers.guidelines import PLATEAU, plateau_of
from planner.space import SearchSpace

CREDIBLE_COVERAGE = 0.8
"""Below this share of the outcomes' probability a point of a curve supports no conclusion."""


class TrialEvidence:
    """Evidence of a study's trials, each read once."""

    def __init__(self, archive: Archive, study_id: str) -> None:
        """Nothing is read yet."""
        self._archive = archive
        self._study_id = study_id
        self._held: dict[int, tuple[ExampleEvidence, ...]] = {}

    def of(self, trial: TrialRecord) -> tuple[ExampleEvidence, ...]:
        """All examples of a trial."""
        if trial.trial_no not in self._held:
            self._held[trial.trial_no] = self._archive.trials.evidence(self._study_id, trial.trial_no)
        return self._held[trial.trial_no]

    def contender(self, trial: TrialRecord) -> Contender | None:
        """The trial with its scores by example; None where nothing was scored."""
        return contender(trial.trial_no, trial.allocation, trial.predicted_cost, self.of(trial))


def longest_curve(chosen: TrialRecord, trials: Sequence[TrialRecord], stage: str) -> TrialRecord:
    """The trial whose curve at a stage tells most about the plan's model there.

    That is the one with the most samples of the same model and strategy at the stage, the best scored of several. A
    plan of single samples has no curve of its own, but others show what more samples would have bought.
    """
    setting = chosen.allocation[stage]
    alike = [
        t
        for t in trials
        if t.score is not None
        and t.allocation[stage].model == setting.model
        and (setting.samples == 1 or t.allocation[stage].strategy == setting.strategy)
    ]
    return max(alike, key=lambda t: (t.allocation[stage].samples, t.score or 0.0), default=chosen)


def with_longest_curves(chosen: TrialRecord, trials: Sequence[TrialRecord]) -> TrialRecord:
    """The plan's trial with the longest curve of each stage, see `longest_curve`."""
    stages = chosen.allocation.stages
    curves = {stage: longest_curve(chosen, trials, stage).curves.get(stage, ()) for stage in stages}
    return replace(chosen, curves=curves)


class StageAccounts:
    """Accounts for the stages of one plan."""

    def __init__(
        self,
        document: PlanDocument,
        trials: Sequence[TrialRecord],
        evidence: TrialEvidence,
        space: SearchSpace | None,
    ) -> None:
        """Bind to a plan and what was seen.

        Args:
            document: the plan.
            trials: of the search split.
            evidence: of these trials.
            space: what could have been chosen; None where the stored spec cannot be read any more.
        """
        self._document = document
        self._trials = [t for t in trials if t.score is not None]
        self._evidence = evidence
        self._space = space
        self.chosen = next((t for t in trials if t.allocation.to_json() == document.allocation), None)

    def all(self) -> list[StageAccount]:
        """One account a stage, in the plan's order."""
        return [self._account(stage) for stage in self._document.stages]

    def _account(self, plan: StagePlan) -> StageAccount:
        source = longest_curve(self.chosen, self._trials, plan.stage) if self.chosen else None
        points = source.curves.get(plan.stage, ()) if source else ()
        curve = [CurveValue(k=p.k, score=p.score, coverage=p.coverage, standard_error=p.standard_error) for p in points]
        plateau = _plateau(curve)
        up, down = (self._step(plan.stage, source, side) if source else None for side in (1, -1))
        return StageAccount(
            stage=plan.stage,
            model=plan.model,
            strategy=plan.strategy,
            samples=plan.samples,
            knobs=dict(self.chosen.allocation[plan.stage].knobs) if self.chosen else {},
            predicted_cost=plan.predicted_cost,
            share=plan.predicted_cost / (self._document.predicted_cost or 1.0),
            curve=curve,
            curve_trial=source.trial_no if source and curve else None,
            plateau=plateau,
            curve_words=_curve_words(curve, plateau, source),
            neighbours=self._neighbours(plan.stage),
            up=up,
            down=down,
            step_words=self._step_words(plan.stage, up, down),
            why=plan.why,
        )

    # Neighbouring models -----------------------------------------------------------------------------------------

    def _neighbours(self, stage: str) -> list[Neighbour]:
        if self._space is None or self.chosen is None:
            return []
        sizes = self._space.cost.parameters
        models = sorted(self._space.pipeline.stage(stage).models, key=lambda m: (sizes[m], m))
        place = models.index(self.chosen.allocation[stage].model)
        beside: list[tuple[Literal["smaller", "larger"], int]] = [("smaller", place - 1), ("larger", place + 1)]
        return [self._neighbour(stage, side, models[at]) for side, at in beside if 0 <= at < len(models)]

    def _neighbour(self, stage: str, side: Literal["smaller", "larger"], model: str) -> Neighbour:
        assert self.chosen is not None
        tried = [t for t in self._trials if t.allocation[stage].model == model]
        alike = [t for t in tried if _same_elsewhere(t.allocation, self.chosen.allocation, stage)]
        trial = max(alike or tried, key=lambda t: (t.score or 0.0, -t.predicted_cost), default=None)
        if trial is None:
            return Neighbour(side=side, model=model, trial_no=None, words=f"{model} ({side}) was not tried here")
        mine, theirs = self._evidence.contender(self.chosen), self._evidence.contender(trial)
        found = compare(mine, theirs) if mine and theirs else None
        paired = IntervalPublic.of(found.difference) if found else None
        setting = setting_text(trial.allocation.to_json()[stage])
        where = "all else as in the plan" if alike else "other stages differ"
        words = f"with {model} ({side}; {setting}, {where}, trial {trial.trial_no}) {score(trial.score)}"
        if found is not None and paired is not None:
            apart = ", cannot be told apart" if found.verdict == "cannot be told apart" else ""
            words += f", plan minus that {difference(paired)}{apart}"
        return Neighbour(
            side=side,
            model=model,
            trial_no=trial.trial_no,
            allocation=trial.allocation.to_json(),
            same_elsewhere=bool(alike),
            score=trial.score,
            predicted_cost=trial.predicted_cost,
            difference=paired,
            words=words,
        )

    # The next sample ---------------------------------------------------------------------------------------------

    def _step(self, stage: str, source: TrialRecord, side: int) -> Step | None:
        """The next k up (`side` 1) or down (-1) of which the source trial knows enough."""
        if self._space is None or self.chosen is None:
            return None
        here = self.chosen.allocation[stage].samples
        known = [p.k for p in source.curves.get(stage, ()) if p.coverage >= CREDIBLE_COVERAGE]
        beyond = [k for k in known if side * (k - here) > 0]
        if not beyond or here not in known:
            return None
        there = min(beyond, key=lambda k: abs(k - here))
        interval = _paired_step(self._evidence.of(source), stage, here, there)
        try:
            price = self._space.price(stage, source.allocation[stage].with_samples(there))
            cost = price - self._space.price(stage, self.chosen.allocation[stage])
        except KeyError:
            return None
        if interval is None:
            return None
        percent = 100 * cost / self._document.budget
        return Step(
            samples=there,
            difference=interval,
            cost=cost,
            per_percent=interval.estimate / percent if percent else None,
            affordable=self._document.predicted_cost + cost <= self._document.budget * (1 + 1e-12),
        )

    def _step_words(self, stage: str, up: Step | None, down: Step | None) -> str:
        parts: list[str] = []
        if up is not None:
            room = "" if up.affordable else "; the budget has no room for it"
            parts.append(f"{self._change('up', up)}{room}")
        else:
            parts.append(self._why_no_more(stage))
        if down is not None:
            parts.append(self._change("down", down))
        return "; ".join(parts)

    def _change(self, way: str, step: Step) -> str:
        money = amount(abs(step.cost), self._document.unit)
        more = "more" if step.cost >= 0 else "less"
        apart = "" if told_apart(step.difference) else ", which cannot be told from nothing"
        return f"{way} to {count(step.samples, 'sample')}: {difference(step.difference)} for {money} {more}{apart}"

    def _why_no_more(self, stage: str) -> str:
        if self._space is None or self.chosen is None:
            return "what more samples would bring cannot be worked out: the stored study cannot be read by this version"
        setting = self.chosen.allocation[stage]
        more = [k for k in self._space.pipeline.stage(stage).samples.values() if k > setting.samples]
        if not more:
            return f"{count(setting.samples, 'sample')} is the most the stage may draw"
        text = f"no trial drew more than {count(setting.samples, 'sample')} here with this setting"
        try:
            room = self._document.budget - self._document.predicted_cost
            extra = self._space.price(stage, setting.with_samples(more[0])) - self._space.price(stage, setting)
        except KeyError:
            return text
        if extra > room:
            return f"{text}; {more[0]:,} would cost {amount(extra, self._document.unit)} more, over the budget"
        return text


def _same_elsewhere(one: Allocation, other: Allocation, stage: str) -> bool:
    return all(one[name] == other[name] for name in other.stages if name != stage)


def _plateau(curve: Sequence[CurveValue]) -> int | None:
    """Fewest samples within `PLATEAU` of the best, outcomes without draws counted as `CurveEstimate` counts them."""
    known = [
        CurveEstimate(p.k, p.score, p.coverage)
        for p in curve
        if p.score is not None and p.coverage >= CREDIBLE_COVERAGE
    ]
    return plateau_of(known) if len(known) > 1 else None


def _curve_words(curve: Sequence[CurveValue], plateau: int | None, source: TrialRecord | None) -> str:
    known = [p for p in curve if p.score is not None and p.coverage >= CREDIBLE_COVERAGE]
    if plateau is None or source is None:
        if len(curve) > 1:
            return "too few draws stand behind other numbers of samples to show a plateau"
        return "only one number of samples was seen with this model and strategy"
    listed = ", ".join(
        f"{score(p.score)} at {p.k}" + ("" if p.coverage >= 0.995 else f" (over {share(p.coverage)} of the outcomes)")
        for p in known
    )
    last = known[-1]
    listed = f"score in trial {source.trial_no}: {listed}"
    if plateau < last.k:
        return f"{listed}; flat from {plateau}, further samples gain less than {PLATEAU:g}"
    if max(p.score or 0.0 for p in known) - (last.score or 0.0) < 1e-9:
        return f"{listed}; still rising at {last.k}"
    return f"{listed}; no plateau below {last.k} that the draws held could show"


def _paired_step(evidence: Sequence[ExampleEvidence], stage: str, here: int, there: int) -> IntervalPublic | None:
    """Score at `there` minus score at `here` over the examples that know both well enough."""
    before: list[float] = []
    after: list[float] = []
    for example in evidence:
        points = {p.k: p for p in example.curves.get(stage, ()) if p.mass >= CREDIBLE_COVERAGE}
        if here in points and there in points:
            before.append(points[here].value / points[here].mass)
            after.append(points[there].value / points[there].mass)
    return IntervalPublic.of(paired_difference(after, before)) if len(before) > 1 else None
