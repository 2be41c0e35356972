"""Trials on a recorded pool: each search meets the recorded draws in an order of its own and holds what it drew."""

from __future__ import annotations

import random
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from env.allocation import Allocation, StageSetting
from env.strategies import Candidate
from planner.bench.problem import EVERYTHING, Conditions, Outcome
from planner.bench.recorded import PoolProblem, Upstream, chosen
from planner.bench.stopping import Positions, raced
from planner.history import CurveEstimate, TrialView

ORDERS = 8
"""Random orders over which the expected answer of fewer samples is averaged."""

Settings = tuple[tuple[str, StageSetting], ...]
_Key = tuple[str, str, str, Upstream]
"""Stage, model, example and the answers before."""


class PoolTrials:
    """The trials of one search."""

    def __init__(self, problem: PoolProblem, seed: int, conditions: Conditions = EVERYTHING) -> None:
        self._problem = problem
        self._recording = problem.recording
        self._seed = seed
        self._conditions = conditions
        self._sequences: dict[_Key, tuple[Candidate, ...]] = {}
        self._held: dict[_Key, int] = {}
        self._trial = 0
        self._incumbent: NDArray[np.float64] | None = None

    def run(self, allocation: Allocation, trial_no: int, round_: int) -> Outcome:
        """See `Evaluator.run`."""
        if not self._conditions.bank:
            # Without a bank every trial draws anew.
            self._trial = trial_no
            self._sequences.clear()
            self._held.clear()
        problem, settings = self._problem, allocation.settings
        paths = [self._path(settings, example) for example in problem.examples]
        scores = np.array([self._recording.score(p[-1], e) for p, e in zip(paths, problem.examples, strict=True)])
        ran = raced(scores, self._incumbent, self._seed, self._conditions.racing)
        new, tokens = self._take(settings, paths, ran)
        stopped = len(ran) < len(scores)
        shown = scores[ran]
        cost = problem.space.total(allocation)
        error = float(shown.std(ddof=1) / np.sqrt(len(shown))) if len(shown) > 1 else 0.0
        view = TrialView(
            trial_no,
            round_,
            allocation,
            float(shown.mean()),
            error,
            cost,
            cost,
            new,
            self._curves(settings, paths, ran) if self._conditions.bank else {},
            stopped=stopped,
        )
        if not stopped and (self._incumbent is None or scores.mean() > self._incumbent.mean()):
            self._incumbent = scores
        return Outcome(view, tokens)

    def _path(self, settings: Settings, example: str) -> Upstream:
        """The answers that the stages give, in their order."""
        answers: Upstream = ()
        for stage, setting in settings:
            answers = (*answers, self._answer(stage, setting, example, answers))
        return answers

    def _answer(self, stage: str, setting: StageSetting, example: str, upstream: Upstream) -> str | None:
        return chosen(setting, self._sequence((stage, setting.model, example, upstream))[: setting.samples])

    def _sequence(self, key: _Key) -> tuple[Candidate, ...]:
        """The recorded draws in this search's order."""
        if key not in self._sequences:
            held = self._recording.draws(*key)
            # A problem offers only allocations whose every possible path was recorded.
            assert held is not None, key
            order = random.Random(f"{self._problem.name}/{self._seed}/{self._trial}/{key}")
            self._sequences[key] = tuple(order.sample(held.candidates, len(held.candidates)))
        return self._sequences[key]

    def _take(self, settings: Settings, paths: list[Upstream], ran: Positions) -> tuple[int, int]:
        """Hold what the trial draws; the number of new draws and their tokens, those of new prompts included."""
        draws = tokens = 0
        for place in ran:
            example = self._problem.examples[place]
            for i, (stage, setting) in enumerate(settings):
                key = (stage, setting.model, example, paths[place][:i])
                held = self._held.get(key, 0)
                fresh = self._sequence(key)[held : setting.samples]
                if fresh and not held:
                    recorded = self._recording.draws(*key)
                    tokens += recorded.prompt_tokens if recorded else 0
                draws += len(fresh)
                tokens += sum(c.tokens for c in fresh)
                self._held[key] = max(held, setting.samples)
        return draws, tokens

    def _curves(
        self, settings: Settings, paths: list[Upstream], ran: Positions
    ) -> dict[str, tuple[CurveEstimate, ...]]:
        """Expected score with fewer samples at one stage, from the draws held of the examples the trial ran on."""
        curves = {}
        for i, (stage, setting) in enumerate(settings):
            counts = sorted({s.samples for s in self._problem.space.settings[stage] if s.samples <= setting.samples})
            points = []
            for k in counts:
                # One draw is one draw, whatever chooses among several.
                here = StageSetting(setting.model, setting.strategy, k)
                value = mass = 0.0
                for place in ran:
                    v, m = self._expected(settings, i, here, self._problem.examples[place], paths[place][:i])
                    value, mass = value + v, mass + m
                if mass > 0:
                    points.append(CurveEstimate(k, value / mass, mass / len(ran)))
            curves[stage] = tuple(points)
        return curves

    def _expected(
        self, settings: Settings, position: int, here: StageSetting, example: str, upstream: Upstream
    ) -> tuple[float, float]:
        """Sum of probability times score, and of probability, over answers whose later draws are held."""
        value = mass = 0.0
        for answer, probability in self._answers(settings[position], here, example, upstream).items():
            end = self._end(settings, position + 1, example, (*upstream, answer))
            if end is not None:
                value, mass = value + probability * end, mass + probability
        return value, mass

    def _answers(
        self, asked: tuple[str, StageSetting], here: StageSetting, example: str, upstream: Upstream
    ) -> Mapping[str | None, float]:
        stage, setting = asked
        held = self._sequence((stage, setting.model, example, upstream))[: setting.samples]
        if here.samples == len(held):
            return {chosen(here, held): 1.0}
        shuffled = random.Random(f"{self._seed}/{stage}/{example}")
        found: dict[str | None, float] = {}
        for _ in range(ORDERS):
            answer = chosen(here, shuffled.sample(held, here.samples))
            found[answer] = found.get(answer, 0.0) + 1 / ORDERS
        return found

    def _end(self, settings: Settings, position: int, example: str, upstream: Upstream) -> float | None:
        """Score of the path on from here; None where some of its draws are not held."""
        if position == len(settings):
            return self._recording.score(upstream[-1], example)
        stage, setting = settings[position]
        if self._held.get((stage, setting.model, example, upstream), 0) < setting.samples:
            return None
        answer = self._answer(stage, setting, example, upstream)
        return self._end(settings, position + 1, example, (*upstream, answer))
