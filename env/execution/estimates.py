"""Expected scores from the draws held: at the allocation itself and at every smaller k of each stage."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from env.allocation import Allocation, KnobValue, StageSetting
from env.backends.pool import Backends
from env.bank import PromptKey
from env.errors import TemplateError
from env.execution.drawing import key_of
from env.execution.evidence import CurvePoint
from env.spec.stage import StageSpec
from env.strategies import STRATEGIES, Candidate, Outcomes, ParallelStrategy, StagePlan, single_outcomes
from env.tasks.example import Example, JsonValue
from env.tasks.parsers import from_canonical

if TYPE_CHECKING:
    from env.execution.environment import Environment, Path

LEAST_PROBABILITY = 1e-3
"""Upstream outcomes rarer than this are left out of a curve; their mass is missing from the point's mass."""


NO_KEY: PromptKey = ""
"""Where no prompt can be rendered from the upstream answers."""

Settings = tuple[StageSetting, ...]
Knobs = tuple[tuple[str, KnobValue], ...]
Realised = dict[tuple[str, str, tuple[str | None, ...], StageSetting], str | None]
"""Answers that strategies gave, by stage, example, upstream answers and setting."""

Value = tuple[float, float]
"""(sum of probability times score, sum of probability) over the outcomes whose value is known."""


class Estimator:
    """Propagates outcome distributions through the stages over the candidates held in memory.

    At a stage, k random samples of the n held give each answer with a known probability; every distinct answer leads
    to its own downstream prompt. Where that prompt's draws are held, its expected score is known; where not, its
    probability is missing from the point's mass, and nothing is invented for it.
    """

    def __init__(
        self,
        environment: Environment,
        candidates: Mapping[tuple[str, PromptKey], tuple[Candidate, ...]],
        backends: Backends,
        realised: Realised | None = None,
    ) -> None:
        self._environment = environment
        self._stages = environment.pipeline.stages
        self._candidates = candidates
        self._backends = backends
        self._realised = realised or {}
        # Where two stages ask the same of the same model, their draws are the same too.
        self._sizes = {key: len(held) for (_, key), held in candidates.items()}
        self._values: dict[tuple[str, tuple[str | None, ...], Settings], Value] = {}
        self._keys: dict[tuple[str, tuple[str | None, ...], str, Knobs], PromptKey] = {}
        self._outcomes: dict[tuple[PromptKey, StageSetting], Outcomes | None] = {}
        self._prompts: dict[tuple[str, tuple[str | None, ...], Settings], frozenset[PromptKey]] = {}
        self._owners: dict[tuple[Allocation, str, PromptKey], str] = {}

    def example(self, path: Path) -> tuple[float, dict[str, tuple[CurvePoint, ...]]]:
        """Expected score of one allocation on one example, and its curve at each stage.

        The score keeps the upstream outcomes as realised and takes the expectation over the last stage's draws; each
        curve varies k at one stage, with everything upstream of it as realised and downstream as allocated.

        Each point carries the independent draws this example adds to it. A prompt belongs to the first example of the
        allocation that used it at that stage's curve, at whatever k: counts summed over examples are never too high.
        """
        curves: dict[str, tuple[CurvePoint, ...]] = {}
        upstream: tuple[str | None, ...] = ()
        for position, stage in enumerate(self._stages):
            settings = tuple(path.allocation[s.name] for s in self._stages[position:])
            points: list[CurvePoint] = []
            for k in [k for k in stage.samples.values() if k <= settings[0].samples]:
                here = (path.example, upstream, path.keys[position], settings[0].with_samples(k), settings[1:])
                value, mass = self._stage_value(*here)
                prompts = self._support(*here) if mass > 0 else frozenset[PromptKey]()
                points.append(CurvePoint(k, value, mass, self._added(path, stage.name, prompts)))
            curves[stage.name] = tuple(points)
            upstream = (*upstream, path.outcomes[position].answer)
        return self.score(path), curves

    def score(self, path: Path) -> float:
        """Expected score of one allocation on one example: upstream as realised, over the last stage's draws."""
        setting = path.allocation[self._stages[-1].name]
        score, _ = self._stage_value(path.example, path.upstream[:-1], path.keys[-1], setting, ())
        return score

    def _stage_value(
        self,
        example: Example,
        upstream: tuple[str | None, ...],
        key: PromptKey,
        setting: StageSetting,
        rest: Settings,
    ) -> Value:
        """Value of the stage after `upstream` with a setting, later stages with the settings `rest`."""
        value = mass = 0.0
        for answer, probability in self._distribution(example, upstream, key, setting).items():
            if not rest:
                value += probability * self._environment.score_answer(answer, example)
                mass += probability
            elif probability >= LEAST_PROBABILITY:
                inner_value, inner_mass = self._downstream(example, (*upstream, answer), rest)
                value += probability * inner_value
                mass += probability * inner_mass
        return value, mass

    def _downstream(self, example: Example, upstream: tuple[str | None, ...], rest: Settings) -> Value:
        memo = (example.id, upstream, rest)
        if memo not in self._values:
            key = self._key(example, upstream, rest[0])
            self._values[memo] = (
                self._stage_value(example, upstream, key, rest[0], rest[1:]) if key != NO_KEY else (0.0, 0.0)
            )
        return self._values[memo]

    def _support(
        self,
        example: Example,
        upstream: tuple[str | None, ...],
        key: PromptKey,
        setting: StageSetting,
        rest: Settings,
    ) -> frozenset[PromptKey]:
        """The prompts whose draws have weight in `_stage_value`; every draw held of a prompt has, or none.

        Over random subsets all draws of a prompt weigh the same. A stage's draws count only where some outcome of
        theirs leads to a known score.
        """
        if not rest:
            return frozenset((key,))
        found: set[PromptKey] = set()
        for answer, probability in self._distribution(example, upstream, key, setting).items():
            if probability >= LEAST_PROBABILITY:
                found |= self._downstream_support(example, (*upstream, answer), rest)
        return frozenset((key, *found)) if found else frozenset()

    def _downstream_support(
        self, example: Example, upstream: tuple[str | None, ...], rest: Settings
    ) -> frozenset[PromptKey]:
        memo = (example.id, upstream, rest)
        if memo not in self._prompts:
            _, mass = self._downstream(example, upstream, rest)
            key = self._key(example, upstream, rest[0])
            self._prompts[memo] = self._support(example, upstream, key, rest[0], rest[1:]) if mass > 0 else frozenset()
        return self._prompts[memo]

    def _added(self, path: Path, stage: str, prompts: frozenset[PromptKey]) -> int:
        """Draws held of the prompts that no earlier example of the allocation counts at this stage's curve."""
        added = 0
        for key in prompts:
            owner = self._owners.setdefault((path.allocation, stage, key), path.example.id)
            if owner == path.example.id:
                added += self._sizes.get(key, 0)
        return added

    def _key(self, example: Example, upstream: tuple[str | None, ...], setting: StageSetting) -> PromptKey:
        memo = (example.id, upstream, setting.model, setting.knobs)
        if memo not in self._keys:
            variables: dict[str, JsonValue] = dict(example.fields)
            for stage, answer in zip(self._stages, upstream, strict=False):
                variables[stage.name] = answer_variable(stage, answer)
            try:
                need = self._environment.need(self._stages[len(upstream)], setting, 1, variables)
                self._keys[memo] = key_of(self._backends, need)
            except TemplateError:
                self._keys[memo] = NO_KEY
        return self._keys[memo]

    def _distribution(
        self, example: Example, upstream: tuple[str | None, ...], key: PromptKey, setting: StageSetting
    ) -> Outcomes:
        """Answers of a stage with their probabilities; none where nothing is known of it.

        From the draws held where the strategy's answer is a function of a set of them; else the answer that it gave,
        which is one realisation.
        """
        stage = self._stages[len(upstream)]
        memo = (key, setting)
        if memo not in self._outcomes:
            self._outcomes[memo] = self._from_draws(stage, key, setting)
        known = self._outcomes[memo]
        if known is not None:
            return known
        place = (stage.name, example.id, upstream, setting)
        return {self._realised[place]: 1.0} if place in self._realised else {}

    def _from_draws(self, stage: StageSpec, key: PromptKey, setting: StageSetting) -> Outcomes | None:
        strategy, candidates = STRATEGIES[setting.strategy], self._candidates.get((stage.name, key), ())
        if isinstance(strategy, ParallelStrategy) and strategy.scored and setting.samples > 1:
            candidates = tuple(c for c in candidates if c.score is not None)
        if len(candidates) < setting.samples:
            return None
        if setting.samples == 1:
            return single_outcomes(candidates)
        return strategy.outcomes(StagePlan(stage, setting), candidates, setting.samples)


def answer_variable(stage: StageSpec, answer: str | None) -> JsonValue:
    """What later prompts see of an answer: no answer is an empty set for ids and an empty text otherwise."""
    if answer is None:
        return [] if stage.parser.kind == "ids" else ""
    return from_canonical(answer)
