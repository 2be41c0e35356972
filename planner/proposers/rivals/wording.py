"""How the rivals' prompts tell a study: its task, its space and its trials, as data between marks."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from functools import cached_property
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from env.allocation import Allocation, StageSetting
from env.spec import StageSpec
from env.strategies import STRATEGIES
from planner.history import TrialView
from planner.proposers.agent.fences import unmarked
from planner.proposers.agent.prompting import readable_unit
from planner.space import SearchSpace

MAX_TASK_CHARS = 4000
MAX_TEXT_CHARS = 600

_TEMPLATES = Environment(
    loader=FileSystemLoader(Path(__file__).parent / "prompts"),
    undefined=StrictUndefined,
    autoescape=False,  # prompts are not HTML
    trim_blocks=True,
    lstrip_blocks=True,
)


class Wording:
    """The words of one study; equal histories give equal words."""

    def __init__(self, space: SearchSpace, task: str) -> None:
        self._space = space
        self._scale, self.unit = readable_unit(space.limit, space.unit)
        self.task = unmarked(task[:MAX_TASK_CHARS]).strip()

    @property
    def limit(self) -> str:
        """The plan budget in `unit`."""
        return f"{self._space.limit / self._scale:.6g}"

    @cached_property
    def space(self) -> str:
        """The search space as JSON, one line a stage."""
        return lines(self._stage(stage) for stage in self._space.pipeline.stages)

    @cached_property
    def strategies(self) -> str:
        """What each strategy of the pipeline does."""
        names = sorted({name for stage in self._space.pipeline.stages for name in stage.strategies})
        return "\n".join(f"- {name}: {STRATEGIES[name].meaning}" for name in names)

    def trial(self, trial: TrialView) -> dict[str, object]:
        """A trial by its score and cost alone: no noise, no curves."""
        return {
            "no": trial.trial_no,
            "allocation": short(trial.allocation),
            "score": round(trial.score, 4),
            "cost": float(f"{trial.cost / self._scale:.5g}"),
        }

    def render(self, template: str, values: dict[str, object]) -> str:
        """A template of `prompts`, with the study's own words at hand as `words`."""
        return _TEMPLATES.get_template(template).render(words=self, **values).strip()

    def _stage(self, stage: StageSpec) -> dict[str, object]:
        allowed = stage.samples.values()
        contiguous = len(allowed) > 2 and allowed == tuple(range(allowed[0], allowed[-1] + 1))
        return {
            "stage": stage.name,
            "samples": {"from": allowed[0], "to": allowed[-1]} if contiguous else list(allowed),
            **({"knobs": {name: list(choices) for name, choices in stage.knobs.items()}} if stage.knobs else {}),
            "models": [self._model(stage, model) for model in stage.models],
        }

    def _model(self, stage: StageSpec, model: str) -> dict[str, object]:
        plain = {g: self._line(stage, StageSetting(model, g, 1)) for g in stage.strategies}
        first = stage.strategies[0]
        per_unit: dict[str, list[float]] = {}
        for knob in stage.tokens.per:
            fixed, each = self._line(stage, StageSetting(model, first, 1, ((knob, 1),)))
            per_unit[knob] = [_figures(fixed - plain[first][0]), _figures(each - plain[first][1])]
        return {
            "model": model,
            "parameters": _figures(self._space.cost.parameters[model]),
            "cost": {g: [_figures(part) for part in line] for g, line in plain.items()},
            **({"per_unit": per_unit} if per_unit else {}),
        }

    def _line(self, stage: StageSpec, setting: StageSetting) -> tuple[float, float]:
        """``(fixed, each sample)``; every cost model is linear in the samples above its floor at 0."""
        high, higher = (
            self._space.cost.stage(stage, setting.with_samples(k)) / self._scale for k in (10**6, 2 * 10**6)
        )
        each = (higher - high) / 10**6
        return high - each * 10**6, each


def short(allocation: Allocation) -> dict[str, str]:
    """An allocation as ``{stage: model/strategy/samples}``."""
    return {stage: cut(str(setting)) for stage, setting in allocation.settings[:64]}


def lines(rows: Iterable[object]) -> str:
    """Rows as JSON, one a line, unable to open or close a data block."""
    return unmarked("\n".join(json.dumps(row, separators=(",", ":"), ensure_ascii=False) for row in rows))


def cut(text: str) -> str:
    """A text of bounded length without marks."""
    return unmarked(text if len(text) <= MAX_TEXT_CHARS else text[: MAX_TEXT_CHARS - 1] + "…")


def most_telling(trials: Sequence[TrialView], count: int) -> list[TrialView]:
    """The best half and the most recent of the rest, in the order they ran; all where they are few enough."""
    if len(trials) <= count:
        return list(trials)
    best = sorted(trials, key=lambda t: (-t.score, t.cost, t.trial_no))[: -(-count // 2)]
    kept = {t.trial_no for t in best}
    recent = [t for t in trials if t.trial_no not in kept]
    kept |= {t.trial_no for t in recent[max(0, len(recent) - (count - len(kept))) :]}
    return [t for t in trials if t.trial_no in kept]


def _figures(value: float) -> float:
    # Scaled costs lie near 1; what is left of a difference of equal ones is no cost.
    return float(f"{round(value, 9):.6g}")
