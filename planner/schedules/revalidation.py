"""Checks the incumbent plan on fresh draws: whether what its study found of it still holds."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from env.allocation import Allocation
from env.backends.pool import BackendPool
from env.costs import CostOptions
from env.errors import ApportionError
from env.execution import Environment, Progress
from env.execution.evidence import ExampleEvidence
from env.spec import StudySpec
from env.tasks.data import load_splits
from planner.archive import Archive, NotFound, RunRecord, TrialRecord
from planner.evidence import Interval, mean_interval, paired_difference
from planner.evidence.choice import MIN_SHARE
from planner.plans import PlanDocument
from planner.space import SearchSpace

REVALIDATIONS = 2_000_001
"""Trials that re-validate a study's plan are numbered from here, apart from its search and its test."""


@dataclass(frozen=True)
class Held:
    """A plan, and a trial that tells of it, example by example."""

    study_id: str
    document: PlanDocument
    trial: TrialRecord
    evidence: tuple[ExampleEvidence, ...]

    @property
    def allocation(self) -> Allocation:
        """Of the plan."""
        return self.trial.allocation

    @cached_property
    def scores(self) -> Mapping[str, float]:
        """Score by example, of those that could be evaluated."""
        return {e.example_id: e.score for e in self.evidence if e.score is not None}

    @cached_property
    def costs(self) -> Mapping[str, float]:
        """Measured cost per query by example, of those that could be evaluated."""
        return {e.example_id: e.cost for e in self.evidence if e.score is not None}

    @property
    def optimism(self) -> float:
        """How far the score lies above what can be expected, as it was chosen for being high; 0 for fresh draws."""
        corrected = self.document.corrected_estimate
        if self.trial.split != "search" or corrected is None:
            return 0.0
        return (self.trial.score or 0.0) - corrected.estimate

    @property
    def score(self) -> Interval | None:
        """Its score on the search split, corrected for having been chosen; None where nothing was evaluated."""
        if not self.scores:
            return None
        values = list(self.scores.values())
        return mean_interval(values, centre=sum(values) / len(values) - self.optimism)


def held_plan(archive: Archive, study_id: str) -> Held:
    """The chosen plan of a study with the search trial it rests on.

    Raises:
        NotFound: the study, its plan or that trial are not there.
    """
    plan = archive.plans.get(study_id)
    trial = archive.trials.by_allocation(study_id, "search").get(plan.allocation)
    if trial is None:
        raise NotFound(f"study {study_id} holds no trial of its plan; search again")
    document = PlanDocument.model_validate(dict(plan.document))
    return Held(study_id, document, trial, archive.trials.evidence(study_id, trial.trial_no))


def next_number(archive: Archive, study_id: str) -> int:
    """The number of a study's next re-validation."""
    trials = archive.trials.list(study_id, "revalidation", curves=False)
    return max((trial.trial_no for trial in trials), default=REVALIDATIONS - 1) + 1


def misfit(spec: StudySpec, allocation: Allocation) -> str:
    """Why a plan may not run as a schedule's spec stands; empty where it may."""
    return "; ".join(SearchSpace(spec).faults(allocation))


async def revalidate(
    archive: Archive, run: RunRecord, spec: StudySpec, held: Held, progress: Callable[[Progress], None]
) -> Held:
    """Run the plan once more on the search split, with the run's own seed, so that no draw of the bank is used.

    The trial stays in the archive, with the incumbent's study. Run again after a crash, what is settled of this very
    run is not drawn twice.

    Raises:
        ApportionError: data or models cannot be opened, a call was stopped, or too few examples could be evaluated.
    """
    number = run.trial_no
    assert number is not None
    known = {t.trial_no: t for t in archive.trials.list(held.study_id, "revalidation", curves=False)}
    if number not in known:
        pool = open_backends(spec, run.id)
        for line in held.document.engines:
            pool.serve_as(line.model, line.served)
        try:
            unit, budget = spec.budget.plan.unit, spec.budget.plan
            environment = Environment(spec.pipeline, unit, archive.bank, pool, run.seed, CostOptions.of(budget))
            (result,) = await environment.run_batch(
                [held.allocation], load_splits(spec.data).search, origin(run), progress
            )
        finally:
            await pool.close()
        archive.trials.record(held.study_id, number, "revalidation", 0, result, environment.cost.unit)
    trial = archive.trials.get(held.study_id, number)
    fresh = replace(held, trial=trial, evidence=archive.trials.evidence(held.study_id, number))
    _refuse_few(fresh)
    return fresh


def open_backends(spec: StudySpec, tenant: str) -> BackendPool:
    """The backends of a spec's models."""
    return BackendPool(spec.pipeline.models, tenant=tenant)


def origin(run: RunRecord) -> str:
    """What the bank calls the draws of a run's re-validation."""
    return f"schedule-run/{run.id}"


def drawn_before(archive: Archive, run: RunRecord, fresh: Held) -> int:
    """Draws of a re-validation that the bank held before its run; 0, as no other run has its seed.

    Counted by what the bank says of every draw, not taken from the seed. Draws that examples with one prompt share
    within the run are none of them.
    """
    keys = {key for e in fresh.evidence for stage in e.stages for key in (stage.prompt_key, *stage.other_keys)}
    held = archive.bank.held(sorted(keys))
    return sum(draw.origin != origin(run) for draws in held.values() for draw in draws)


def difference(before: Held, after: Held) -> Interval | None:
    """How much more the later one scores, paired over the examples both have; None where they share none.

    What the scores owe to having been chosen is taken off both sides first. Without that, every plan would seem to
    have become worse: it was chosen for the luck of its draws too, and fresh ones have none of it.
    """
    shared = sorted(before.scores.keys() & after.scores.keys())
    if not shared:
        return None
    found = paired_difference([after.scores[i] for i in shared], [before.scores[i] for i in shared])
    shift = before.optimism - after.optimism
    return replace(found, estimate=found.estimate + shift, low=found.low + shift, high=found.high + shift)


def moved(found: Interval | None) -> bool:
    """Whether a difference is more than its error explains."""
    return found is not None and (found.low > 0 or found.high < 0)


def score_words(found: Interval) -> str:
    """A difference of scores in words."""
    return f"{found.estimate:+.3f}, 95% interval {found.low:+.3f} to {found.high:+.3f}"


def _refuse_few(fresh: Held) -> None:
    asked, scored = len(fresh.evidence), len(fresh.scores)
    if scored >= max(1, MIN_SHARE * asked):
        return
    reasons: dict[str, int] = {}
    for example in fresh.evidence:
        if example.reason:
            reasons[example.reason] = reasons.get(example.reason, 0) + 1
    listed: Sequence[tuple[str, int]] = sorted(reasons.items(), key=lambda pair: -pair[1])
    why = f": {listed[0][0]}" if listed else ""
    raise ApportionError(
        f"only {scored} of {asked} examples could be evaluated, too few to say anything of the plan{why}"
    )
