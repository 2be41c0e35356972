"""Optuna's samplers over allocations: what is told, what is asked, and how a study is rebuilt from its history."""

from __future__ import annotations

import asyncio
import hashlib
import random
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from env.allocation import Allocation, KnobValue, StageSetting
from env.spec import StageSpec
from env.strategies.settings import knob_names
from planner.history import History, RefusedView
from planner.proposers._base import Proposal, Suggestions
from planner.proposers.registry import ProposerSetup
from planner.proposers.rivals.rival import Rival, call_seed, known_allocations

if TYPE_CHECKING:
    from optuna import Study, Trial
    from optuna.distributions import BaseDistribution
    from optuna.samplers import BaseSampler

Value = int | float | str

STARTUP = 10
"""Trials drawn at random before the sampler's model is asked; Optuna's own default for both samplers."""

CONSTRAINT = "over_budget"
"""Part of the plan budget that an allocation costs, less 1: above 0 where it is over budget."""


class OptunaProposer(Rival):
    """Asks one of Optuna's samplers, with the plan budget told as a constraint.

    The space is flat: per stage a categorical model and strategy, the place of the number of samples among those
    allowed (an ordered whole number) and each knob; what has one value only is left out. Knobs that mean nothing to a
    setting are told at their first choice. A suggestion over budget is told to the sampler as infeasible, with its
    constraint value and the mean of the scores so far (which the samplers need and which says nothing), and the
    sampler is asked again. Nothing is moved to an allocation nearby. A suggestion that has no score yet, or is known
    already, stays open or is told a score (`lies`), either of which sends the sampler elsewhere. After `max_asks`
    useless answers chance takes what is left of the batch and says so.

    A study is built anew for every call, from the history alone: a search resumed after a crash goes on as if nothing
    had happened. What was infeasible in an earlier call is therefore forgotten, and learnt again from trials near the
    budget.
    """

    lies = False
    """Whether allocations without a score are told the mean score ("constant liar", Ginsbourger et al. 2010), for
    samplers that are slow with open trials."""

    max_asks = 60
    """Useless answers in one call before chance takes over; each costs a fit of the sampler's model."""

    def __init__(self, setup: ProposerSetup) -> None:
        import optuna

        super().__init__(setup)
        # A study of Optuna's is a scratch pad here; its log of every created study and trial is noise.
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self._parameters = _parameters(self._space.pipeline.stages)

    @abstractmethod
    def _sampler(self, seed: int) -> BaseSampler:
        """The sampler, once there are `STARTUP` trials."""

    async def propose(self, history: History, count: int, refused: Sequence[RefusedView]) -> Suggestions:
        """See `Proposer.propose`."""
        # In a thread: a fit may take a second, and the worker's heartbeat must go on.
        return await asyncio.to_thread(self._propose, history, count, refused)

    def _propose(self, history: History, count: int, refused: Sequence[RefusedView]) -> Suggestions:
        known = known_allocations(history, refused)
        scores = {t.allocation: t.score for t in history.trials}
        neutral = _neutral(history)
        proposals: list[Proposal] = []
        useless = 0
        if self._parameters:
            study = self._study(history, refused)
            while len(proposals) < count and useless < self.max_asks:
                trial, allocation = self._ask(study)
                over = bool(self._space.faults(allocation))
                if over or self.lies:
                    trial.set_constraint(CONSTRAINT, self._excess(allocation))
                    study.tell(trial, scores.get(allocation, neutral))
                if over or allocation in known:
                    useless += 1
                else:
                    known.add(allocation)
                    proposals.append(Proposal(allocation, self.kind, self._reason(history)))
        generator = random.Random(call_seed(self._seed, self.kind, history, refused))
        reason = f"drawn at random: {useless} suggestions of the sampler were over budget or known"
        return Suggestions((*proposals, *self._at_random(generator, known, count - len(proposals), reason)))

    def _study(self, history: History, refused: Sequence[RefusedView]) -> Study:
        import optuna
        from optuna.samplers import RandomSampler
        from optuna.trial import TrialState, create_trial

        digest = hashlib.sha256(call_seed(self._seed, self.kind, history, refused).encode()).digest()
        seed = int.from_bytes(digest[:4], "big")
        started = len(history.trials) >= STARTUP
        study = optuna.create_study(
            direction="maximize", sampler=self._sampler(seed) if started else RandomSampler(seed=seed)
        )
        tried = [(t.allocation, t.score) for t in history.trials]
        refusals = [r.allocation for r in history.refused if r.allocation is not None]
        without = [a for a in dict.fromkeys(refusals) if self._is_over_budget(a)]
        without += [view.allocation for view in history.pending] if self.lies else []
        tried += [(a, _neutral(history)) for a in without]
        for allocation, score in tried:
            study.add_trial(
                create_trial(
                    params=self._values(allocation),
                    distributions=self._parameters,
                    value=score,
                    constraints={CONSTRAINT: self._excess(allocation)},
                )
            )
        for view in () if self.lies else history.pending:
            study.add_trial(
                create_trial(
                    state=TrialState.RUNNING, params=self._values(view.allocation), distributions=self._parameters
                )
            )
        return study

    def _excess(self, allocation: Allocation) -> float:
        return self._space.total(allocation) / self._space.limit - 1

    def _is_over_budget(self, allocation: Allocation) -> bool:
        faults = self._space.faults(allocation)
        return len(faults) == 1 and faults[0].startswith("over budget")

    def _ask(self, study: Study) -> tuple[Trial, Allocation]:
        trial = study.ask(self._parameters)
        settings = {s.name: _setting(s, trial.params) for s in self._space.pipeline.stages}
        return trial, self._space.normal(Allocation.of(settings))

    def _values(self, allocation: Allocation) -> dict[str, Value]:
        values: dict[str, Value] = {}
        for stage in self._space.pipeline.stages:
            setting = allocation[stage.name]
            values[f"{stage.name}.model"] = setting.model
            values[f"{stage.name}.strategy"] = setting.strategy
            values[f"{stage.name}.samples"] = stage.samples.values().index(setting.samples)
            for name, choices in stage.knobs.items():
                chosen = setting.knob(name)
                values[f"{stage.name}.knobs.{name}"] = 0 if chosen is None else _ordered(choices).index(chosen)
        return {name: values[name] for name in self._parameters}

    def _reason(self, history: History) -> str:
        if len(history.trials) < STARTUP:
            return f"drawn at random by the sampler: it models the scores from {STARTUP} trials on"
        return f"suggested by Optuna's {self.kind.upper()} sampler from {len(history.trials)} trials"


def _parameters(stages: Sequence[StageSpec]) -> dict[str, BaseDistribution]:
    """The parameters that can differ, by name, in a fixed order."""
    from optuna.distributions import CategoricalDistribution, IntDistribution

    found: dict[str, BaseDistribution] = {}
    for stage in stages:
        found[f"{stage.name}.model"] = CategoricalDistribution(stage.models)
        found[f"{stage.name}.strategy"] = CategoricalDistribution(stage.strategies)
        found[f"{stage.name}.samples"] = IntDistribution(0, len(stage.samples.values()) - 1)
        for name, choices in stage.knobs.items():
            places = len(_ordered(choices))
            texts = any(isinstance(choice, str) for choice in choices)
            found[f"{stage.name}.knobs.{name}"] = (
                CategoricalDistribution(range(places)) if texts else IntDistribution(0, places - 1)
            )
    return {name: distribution for name, distribution in found.items() if not distribution.single()}


def _setting(stage: StageSpec, values: Mapping[str, Value]) -> StageSetting:
    def place(name: str) -> int:
        return int(values.get(f"{stage.name}.{name}", 0))

    strategy = str(values.get(f"{stage.name}.strategy", stage.strategies[0]))
    samples = stage.samples.values()[place("samples")]
    knobs = tuple(
        (name, _ordered(stage.knobs[name])[place(f"knobs.{name}")]) for name in knob_names(stage, strategy, samples)
    )
    return StageSetting(str(values.get(f"{stage.name}.model", stage.models[0])), strategy, samples, knobs)


def _ordered(choices: Sequence[KnobValue]) -> list[KnobValue]:
    """Each choice once: numbers ascending, texts as they stand."""
    distinct = list(dict.fromkeys(choices))
    numbers = [choice for choice in distinct if not isinstance(choice, str)]
    return [*sorted(numbers)] if len(numbers) == len(distinct) else distinct


def _neutral(history: History) -> float:
    scores = [t.score for t in history.trials]
    return sum(scores) / len(scores) if scores else 0.5
