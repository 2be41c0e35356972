"""Simulated pipelines: seeded families with per-example difficulty, whose every score is known in closed form."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np
from numpy.typing import NDArray

from env.allocation import Allocation, StageSetting
from env.spec import StudySpec
from planner.bench.problem import EVERYTHING, Conditions, Outcome
from planner.bench.stopping import Positions, raced
from planner.bench.voting import Array, Draws, Kind, draw, expected_outcomes, outcome, success
from planner.history import CurveEstimate, TrialView
from planner.space import SearchSpace

PROMPT_TOKENS, OUTPUT_TOKENS = 256, 64

Bools = NDArray[np.bool_]

SIZES: tuple[tuple[float, ...], ...] = ((7e9, 32e9, 72e9), (3e9, 8e9, 70e9), (0.6e9, 1.7e9, 4e9, 8e9), (8e9, 70e9))
"""Active parameters of candidate models; a stage takes one of these line-ups."""


@dataclass(frozen=True)
class Family:
    """What the pipelines of a family have in common; the seed decides the rest."""

    name: str
    stages: int
    samples: tuple[int, ...]
    """Numbers of samples each stage may draw."""

    examples: int = 200
    turning: float = 0.25
    """Probability that a stage selects, so that its curve turns down, instead of voting."""

    clutter: float = 0.0
    """Most that many samples upstream take from what a stage would get right: interaction."""

    recovery: float = 0.1
    """Chance of being right after a wrong upstream answer, as a share of that after a right one."""

    budget: tuple[float, float] = (0.8, 3.0)
    """Range of the plan budget, in costs of the largest model once in every stage."""

    stage_scores: bool = False
    """Whether a trial shows how often each stage was right."""


FAMILIES: Mapping[str, Family] = {
    f.name: f
    for f in (
        Family("two-stage", 2, (1, 2, 3, 5, 8, 10, 15, 20, 30, 40, 50, 60)),
        Family("two-stage-turning", 2, (1, 2, 3, 5, 8, 10, 15, 20, 30, 40, 50, 60), turning=0.8),
        Family("two-stage-scored", 2, (1, 2, 3, 5, 8, 10, 15, 20, 30, 40, 50, 60), stage_scores=True),
        Family("three-stage", 3, (1, 2, 4, 8, 16, 32)),
        Family("three-stage-interacting", 3, (1, 2, 4, 8, 16, 32), clutter=0.3, recovery=0.4),
        Family("four-stage", 4, (1, 2, 4, 8, 16)),
    )
}


@dataclass(frozen=True)
class _Stage:
    name: str
    kind: Kind
    models: tuple[str, ...]
    right: Mapping[str, Array]
    """By model: probability of a right draw by upstream state (0 wrong, 1 right) and example, shape (2, examples)."""

    lure: Mapping[str, Array]
    clutter: Mapping[str, float]
    """By model: share lost where the stage before draws without limit."""


class SimulatedProblem:
    """One pipeline of a family.

    A draw of a stage is right with probability ``sigmoid(ability - difficulty)``: ability grows with the model's
    size by a slope of the stage's own (some stages hardly care), difficulty is the example's, in part shared between
    stages. Wrong draws fall on one lure with a stage's share, or scatter. A stage votes or selects (`voting`); after
    a wrong answer upstream the next is right with a fraction of its probability. The score is how often the last
    stage is right over the examples, all draws averaged out.
    """

    def __init__(self, family: Family, seed: int) -> None:
        self.family = family
        self.seed = seed
        generator = np.random.default_rng([seed, *hashlib.sha256(family.name.encode()).digest()[:8]])
        shared = generator.normal(size=family.examples)
        line_ups = [SIZES[generator.integers(len(SIZES))] for _ in range(family.stages)]
        self._stages = tuple(self._stage(generator, i, sizes, shared) for i, sizes in enumerate(line_ups))
        spec = self._spec(line_ups, 1e30)
        cost = SearchSpace(spec).total(
            Allocation.of({s.name: StageSetting(s.models[-1], "vote", family.samples[0]) for s in self._stages})
        )
        self._limit = float(cost * np.exp(generator.uniform(*np.log(family.budget))))
        self.spec = self._spec(line_ups, self._limit)
        self.space = SearchSpace(self.spec)

    @property
    def name(self) -> str:
        """See `Problem.name`."""
        return f"{self.family.name}/{self.seed}"

    @property
    def description(self) -> str:
        """See `Problem.description`."""
        return f"A pipeline of {self.family.stages} stages; an answer is right where the last stage's answer is."

    @cached_property
    def optimum(self) -> float:
        """See `Problem.optimum`."""
        return max(self.truths.values())

    @cached_property
    def truths(self) -> dict[Allocation, float]:
        """True score of every allocation."""
        return {a: self.truth(a) for a in self.space.allocations()}

    def truth(self, allocation: Allocation) -> float:
        """See `Problem.truth`."""
        return float(self.probabilities(allocation).mean())

    def probabilities(self, allocation: Allocation) -> Array:
        """Probability of a right last answer by example, all draws averaged out, shape (examples,)."""
        right = np.ones(self.family.examples)
        before = 1
        for stage, (_, setting) in zip(self._stages, allocation.settings, strict=True):
            curve = self._curve(stage.name, setting.model)[self.family.samples.index(setting.samples)]
            kept = self._kept(stage, setting.model, before)
            right = kept * (right * curve[1] + (1 - right) * curve[0])
            before = setting.samples
        return right

    def evaluator(self, seed: int, conditions: Conditions = EVERYTHING) -> SimulatedTrials:
        """See `Problem.evaluator`."""
        return SimulatedTrials(self, seed, conditions)

    def stage(self, name: str) -> _Stage:
        """The simulated stage of that name."""
        return next(s for s in self._stages if s.name == name)

    @cached_property
    def _curves(self) -> dict[tuple[str, str], Array]:
        return {}

    def _curve(self, stage: str, model: str) -> Array:
        """Probability that the stage's answer is right, shape (samples, 2, examples)."""
        if (stage, model) not in self._curves:
            s = self.stage(stage)
            self._curves[stage, model] = success(s.kind, s.right[model], s.lure[model], self.family.samples)
        return self._curves[stage, model]

    @staticmethod
    def _kept(stage: _Stage, model: str, before: int) -> float:
        return float(1 - stage.clutter[model] * (1 - before**-0.5))

    def _stage(self, generator: np.random.Generator, number: int, sizes: tuple[float, ...], shared: Array) -> _Stage:
        family = self.family
        kind: Kind = "select" if generator.random() < family.turning else "vote"
        own = generator.normal(size=family.examples)
        difficulty = generator.uniform(0.8, 2.2) * (0.6 * shared + 0.8 * own)
        base, slope = generator.uniform(0.8, 3.0), generator.uniform(0.0, 0.9)
        share = generator.uniform(0.2, 0.6) if kind == "vote" else generator.uniform(0.01, 0.25)
        recovers = family.recovery * generator.uniform(0.5, 1.5, size=len(sizes)) if number else np.ones(len(sizes))
        names = tuple(_model_name(size) for size in sizes)
        right: dict[str, Array] = {}
        lure: dict[str, Array] = {}
        clutter: dict[str, float] = {}
        for i, (name, size) in enumerate(zip(names, sizes, strict=True)):
            ability = base + slope * np.log(size / sizes[-1]) + generator.normal(0, 0.25)
            p = 1 / (1 + np.exp(difficulty - ability))
            right[name] = np.stack([p * min(1.0, recovers[i]), p])
            lure[name] = share * (1 - right[name])
            clutter[name] = float(family.clutter * generator.random() * (1 if number else 0))
        return _Stage(f"stage{number + 1}", kind, names, right, lure, clutter)

    def _spec(self, line_ups: list[tuple[float, ...]], limit: float) -> StudySpec:
        models = {
            _model_name(size): {
                "backend": "openai",
                "base_url": "http://127.0.0.1:9/v1",
                "model": "simulated",
                "parameters": size,
            }
            for sizes in line_ups
            for size in sizes
        }
        stages = [
            {
                "name": stage.name,
                "prompt": [{"role": "user", "template": "{{ question }}"}],
                "models": list(stage.models),
                "strategies": ["vote"],
                "samples": {
                    "min": min(self.family.samples),
                    "max": max(self.family.samples),
                    "choices": list(self.family.samples),
                },
                "tokens": {"prompt": PROMPT_TOKENS, "output": OUTPUT_TOKENS},
            }
            for stage in self._stages
        ]
        return StudySpec.model_validate(
            {
                "name": "simulated",
                "pipeline": {"name": "simulated", "models": models, "stages": stages},
                "data": {"source": "inline", "rows": [{"question": "1", "answer": "1"}] * 2, "search": 1, "test": 1},
                "budget": {"plan": {"limit": limit, "unit": "flops"}},
            }
        )


def _model_name(size: float) -> str:
    return f"m{size / 1e9:g}b"


@lru_cache(maxsize=256)
def simulated(family: str, seed: int) -> SimulatedProblem:
    """A problem of a named family; kept, since its closed forms take a while.

    Raises:
        KeyError: no such family.
    """
    return SimulatedProblem(FAMILIES[family], seed)


class SimulatedTrials:
    """Trials on seeded draws: a draw belongs to stage, model, example and upstream state, and is made once."""

    def __init__(self, problem: SimulatedProblem, seed: int, conditions: Conditions = EVERYTHING) -> None:
        self._conditions = conditions
        self._problem = problem
        self._seed = seed
        self._draws: dict[tuple[str, str, int], Draws] = {}
        self._coins: dict[tuple[str, str, int], Array] = {}
        self._held: dict[tuple[str, str, int], Positions] = {}
        self._trial = 0
        self._incumbent: Bools | None = None

    def run(self, allocation: Allocation, trial_no: int, round_: int) -> Outcome:
        """See `Evaluator.run`."""
        problem = self._problem
        state = np.ones(problem.family.examples, dtype=bool)
        states = [state]
        if not self._conditions.bank:
            self._forget(trial_no)
        before = 1
        for name, setting in allocation.settings:
            state = self._answer(name, setting, state, before)
            states.append(state)
            before = setting.samples
        ran = raced(state, self._incumbent, self._seed, self._conditions.racing)
        new = sum(self._take(name, s, states[i], ran) for i, (name, s) in enumerate(allocation.settings))
        right = state[ran]
        stopped = len(ran) < len(state)
        view = TrialView(
            trial_no,
            round_,
            allocation,
            float(right.mean()),
            float(right.std(ddof=1) / np.sqrt(len(right))),
            problem.space.total(allocation),
            problem.space.total(allocation),
            new,
            self._trial_curves(allocation, states, ran) if self._conditions.bank else {},
            {n: float(s[ran].mean()) for n, s in zip(allocation.stages, states[1:], strict=True)}
            if problem.family.stage_scores
            else {},
            stopped=stopped,
        )
        if not stopped and (self._incumbent is None or state.mean() > self._incumbent.mean()):
            self._incumbent = state
        return Outcome(view, new * OUTPUT_TOKENS)

    def _forget(self, trial_no: int) -> None:
        """Without a bank every trial draws anew."""
        self._trial = trial_no
        for kept in (self._draws, self._coins, self._held):
            kept.clear()

    def _sequence(self, stage: str, model: str, upstream: int) -> tuple[Draws, Array]:
        key = (stage, model, upstream)
        if key not in self._draws:
            simulated_stage = self._problem.stage(stage)
            digest = hashlib.sha256(f"{self._problem.name}/{self._seed}/{self._trial}/{key}".encode()).digest()
            generator = np.random.default_rng(list(digest[:16]))
            self._draws[key] = draw(
                generator,
                simulated_stage.right[model][upstream],
                simulated_stage.lure[model][upstream],
                max(self._problem.family.samples),
            )
            self._coins[key] = generator.random((len(self._draws[key]), 2))
        return self._draws[key], self._coins[key]

    def _take(self, stage: str, setting: StageSetting, state: Bools, ran: Positions) -> int:
        """Count the draws that are new, and hold them."""
        new = 0
        for upstream in (0, 1):
            held = self._held.setdefault((stage, setting.model, upstream), np.zeros(len(state), dtype=np.int64))
            mine = ran[state[ran] == bool(upstream)]
            new += int(np.maximum(0, setting.samples - held[mine]).sum())
            held[mine] = np.maximum(held[mine], setting.samples)
        return new

    def _answer(self, stage: str, setting: StageSetting, state: Bools, before: int) -> Bools:
        found = np.zeros(len(state), dtype=bool)
        kept = self._problem._kept(self._problem.stage(stage), setting.model, before)
        for upstream in (0, 1):
            draws, coins = self._sequence(stage, setting.model, upstream)
            right = outcome(self._problem.stage(stage).kind, draws[:, : setting.samples], coins[:, 0])
            found |= (state == bool(upstream)) & right & (coins[:, 1] < kept)
        return found

    def _trial_curves(
        self, allocation: Allocation, states: list[Bools], ran: Positions
    ) -> dict[str, tuple[CurveEstimate, ...]]:
        """Expected score with fewer samples at one stage, from the examples the trial ran on."""
        curves = {}
        settings = allocation.settings
        for i, (name, setting) in enumerate(settings):
            counts = [k for k in self._problem.family.samples if k <= setting.samples]
            generator = np.random.default_rng([self._seed, i])
            before = settings[i - 1][1].samples if i else 1
            kept = self._problem._kept(self._problem.stage(name), setting.model, before)
            draws = np.where(
                states[i][:, None],
                self._sequence(name, setting.model, 1)[0],
                self._sequence(name, setting.model, 0)[0],
            )[:, : setting.samples]
            right = kept * expected_outcomes(self._problem.stage(name).kind, draws, counts, generator)
            values, masses = [], []
            for row, k in enumerate(counts):
                value, mass = np.zeros(len(draws)), np.zeros(len(draws))
                for upstream, share in ((1, right[row]), (0, 1 - right[row])):
                    end, held = self._downstream(settings, i + 1, upstream, k)
                    value += np.where(held, share * end, 0.0)
                    mass += np.where(held, share, 0.0)
                values.append(value[ran].sum())
                masses.append(mass[ran].sum())
            curves[name] = tuple(
                CurveEstimate(k, float(v / m), float(m / len(ran)))
                for k, v, m in zip(counts, values, masses, strict=True)
                if m > 0
            )
        return curves

    def _downstream(
        self, settings: tuple[tuple[str, StageSetting], ...], position: int, upstream: int, before: int
    ) -> tuple[Array, Bools]:
        """Last answer's outcome from a given state at a stage, by example, and whether all its draws are held."""
        examples = self._problem.family.examples
        state = np.full(examples, bool(upstream))
        held = np.ones(examples, dtype=bool)
        for name, setting in settings[position:]:
            for value in (0, 1):
                counts = self._held.get((name, setting.model, value), np.zeros(examples, dtype=np.int64))
                held &= (state != bool(value)) | (counts >= setting.samples)
            state = self._answer(name, setting, state, before)
            before = setting.samples
        return state.astype(np.float64), held
