"""Expected scores from the draws held: at the allocation itself and at every smaller k of each stage."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from env.allocation import Allocation, StageSetting
from env.backends.pool import Backends
from env.bank import PromptKey
from env.errors import TemplateError
from env.execution.drawing import key_of
from env.execution.evidence import CurvePoint
from env.spec.pipeline import StageSpec
from env.strategies import STRATEGIES, Candidate, Outcomes
from env.tasks.example import Example, JsonValue
from env.tasks.parsers import from_canonical

if TYPE_CHECKING:
    from env.execution.environment import Environment, Path

LEAST_PROBABILITY = 1e-3
"""Upstream outcomes rarer than this are left out of a curve; their mass is missing from the point's mass."""


NO_KEY: PromptKey = ""
"""Where no prompt can be rendered from the upstream answers."""

Settings = tuple[StageSetting, ...]
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
    ) -> None:
        self._environment = environment
        self._stages = environment.pipeline.stages
        self._candidates = candidates
        self._backends = backends
        # Where two stages ask the same of the same model, their draws are the same too.
        self._sizes = {key: len(held) for (_, key), held in candidates.items()}
        self._values: dict[tuple[str, tuple[str | None, ...], Settings], Value] = {}
        self._keys: dict[tuple[str, tuple[str | None, ...], str], PromptKey] = {}
        self._outcomes: dict[tuple[PromptKey, str, int], Outcomes] = {}
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
                value, mass = self._stage_value(
                    path.example, upstream, path.keys[position], k, settings[0].strategy, settings[1:]
                )
                prompts = self._support(
                    path.example, upstream, path.keys[position], k, settings[0].strategy, settings[1:]
                )
                points.append(CurvePoint(k, value, mass, self._added(path, stage.name, prompts)))
            curves[stage.name] = tuple(points)
            upstream = (*upstream, path.outcomes[position].answer)
        last = self._stages[-1].name
        setting = path.allocation[last]
        score, _ = self._stage_value(path.example, upstream[:-1], path.keys[-1], setting.samples, setting.strategy, ())
        return score, curves

    def _stage_value(
        self,
        example: Example,
        upstream: tuple[str | None, ...],
        key: PromptKey,
        samples: int,
        strategy: str,
        rest: Settings,
    ) -> Value:
        """Value of the stage after `upstream` with that many samples, later stages with the settings `rest`."""
        value = mass = 0.0
        for answer, probability in self._distribution(self._stages[len(upstream)].name, key, strategy, samples).items():
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
            stage, setting = self._stages[len(upstream)], rest[0]
            key = self._key(example, upstream, setting.model)
            candidates = self._candidates.get((stage.name, key), ()) if key else ()
            unscored = STRATEGIES[setting.strategy].needs_scores and any(c.score is None for c in candidates)
            if len(candidates) < setting.samples or unscored:
                self._values[memo] = (0.0, 0.0)
            else:
                self._values[memo] = self._stage_value(
                    example, upstream, key, setting.samples, setting.strategy, rest[1:]
                )
        return self._values[memo]

    def _support(
        self,
        example: Example,
        upstream: tuple[str | None, ...],
        key: PromptKey,
        samples: int,
        strategy: str,
        rest: Settings,
    ) -> frozenset[PromptKey]:
        """The prompts whose draws have weight in `_stage_value`; every draw held of a prompt has, or none.

        Over random subsets all draws of a prompt weigh the same. A stage's draws count only where some outcome of
        theirs leads to a known score.
        """
        if not rest:
            return frozenset((key,))
        found: set[PromptKey] = set()
        for answer, probability in self._distribution(self._stages[len(upstream)].name, key, strategy, samples).items():
            if probability >= LEAST_PROBABILITY:
                found |= self._downstream_support(example, (*upstream, answer), rest)
        return frozenset((key, *found)) if found else frozenset()

    def _downstream_support(
        self, example: Example, upstream: tuple[str | None, ...], rest: Settings
    ) -> frozenset[PromptKey]:
        memo = (example.id, upstream, rest)
        if memo not in self._prompts:
            _, mass = self._downstream(example, upstream, rest)
            key = self._key(example, upstream, rest[0].model)
            self._prompts[memo] = (
                self._support(example, upstream, key, rest[0].samples, rest[0].strategy, rest[1:])
                if mass > 0
                else frozenset()
            )
        return self._prompts[memo]

    def _added(self, path: Path, stage: str, prompts: frozenset[PromptKey]) -> int:
        """Draws held of the prompts that no earlier example of the allocation counts at this stage's curve."""
        added = 0
        for key in prompts:
            owner = self._owners.setdefault((path.allocation, stage, key), path.example.id)
            if owner == path.example.id:
                added += self._sizes[key]
        return added

    def _key(self, example: Example, upstream: tuple[str | None, ...], model: str) -> PromptKey:
        memo = (example.id, upstream, model)
        if memo not in self._keys:
            variables: dict[str, JsonValue] = dict(example.fields)
            for stage, answer in zip(self._stages, upstream, strict=False):
                variables[stage.name] = answer_variable(stage, answer)
            try:
                need = self._environment.need(self._stages[len(upstream)], model, 1, variables)
                self._keys[memo] = key_of(self._backends, need)
            except TemplateError:
                self._keys[memo] = NO_KEY
        return self._keys[memo]

    def _distribution(self, stage: str, key: PromptKey, strategy: str, samples: int) -> Outcomes:
        memo = (key, strategy, samples)
        if memo not in self._outcomes:
            self._outcomes[memo] = STRATEGIES[strategy].outcomes(self._candidates[stage, key], samples)
        return self._outcomes[memo]


def answer_variable(stage: StageSpec, answer: str | None) -> JsonValue:
    """What later prompts see of an answer: no answer is an empty set for ids and an empty text otherwise."""
    if answer is None:
        return [] if stage.parser.kind == "ids" else ""
    return from_canonical(answer)
