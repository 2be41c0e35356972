"""Writes the agent's prompts: the study as compact JSON between marks, bounded however long the history."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from env.allocation import Allocation, StageSetting
from env.errors import ApportionError
from env.spec import StageSpec
from env.strategies import STRATEGIES
from planner.history import CurveEstimate, History, RefusedView, TrialView
from planner.proposers.agent.client import clean
from planner.proposers.agent.dialect import Prompt
from planner.space import SearchSpace

MAX_TASK_CHARS = 4000
MAX_NOTE_CHARS = 240
MAX_CURVE_POINTS = 10


class PromptTooLongError(ApportionError):
    """The search space and the task alone exceed the prompt's limit."""


@dataclass(frozen=True)
class _Room:
    """How much of the history a prompt shows."""

    best: int
    recent: int
    refused: int
    guidelines: int
    curves: int


_ROOMS = (_Room(26, 14, 12, 24, 5), _Room(13, 7, 8, 12, 3), _Room(7, 3, 4, 8, 1), _Room(3, 0, 2, 4, 0), _Room(*[0] * 5))
"""Tried in this order until the prompt fits."""


class PromptWriter:
    """Prompts of one study; equal histories give equal prompts.

    Args:
        space: the search space.
        task: what the pipeline is for; shown as data, marks taken out.
        max_chars: hard limit on system card and request together.
    """

    def __init__(self, space: SearchSpace, task: str, max_chars: int) -> None:
        self._space = space
        self._task = unmarked(task[:MAX_TASK_CHARS]).strip()
        self._max_chars = max_chars
        self._scale, self._unit = readable_unit(space.limit, space.unit)

    def reflect(self, history: History) -> Prompt:
        """Asks for guidelines.

        Raises:
            PromptTooLongError: nothing is left to leave out.
        """
        stage = self._space.pipeline.stages[0].name
        return self._fitting("reflect.j2", history, (), {"stage": stage})

    def propose(self, history: History, count: int, refused: Sequence[RefusedView]) -> Prompt:
        """Asks for `count` allocations, and says what was refused.

        Raises:
            PromptTooLongError: nothing is left to leave out.
        """
        stages = [stage.name for stage in self._space.pipeline.stages]
        ask = {"count": count, "stages": stages, "limit": f"{self._space.limit / self._scale:.6g}", "unit": self._unit}
        return self._fitting("propose.j2", history, refused, ask)

    def _fitting(
        self, template: str, history: History, refused: Sequence[RefusedView], ask: Mapping[str, object]
    ) -> Prompt:
        system = _render("system.j2", {})
        size = 0
        for room in _ROOMS:
            study = _render("study.j2", self._study(history, refused, room))
            user = _render(template, {"study": study, "trials_left": history.trials_left, **ask})
            size = len(system) + len(user)
            if size <= self._max_chars:
                return Prompt(system, user)
        raise PromptTooLongError(
            f"the search space alone makes a prompt of {size} characters, {self._max_chars} are allowed; "
            "give the stages fewer models, or raise the limit"
        )

    def _study(self, history: History, refused: Sequence[RefusedView], room: _Room) -> dict[str, object]:
        ranked = sorted(history.trials, key=lambda t: (-t.score if t.score == t.score else math.inf, t.cost))
        shown = ranked[: room.best]
        kept = {t.trial_no for t in shown}
        newest = [t for t in history.trials if t.trial_no not in kept]
        newest = newest[max(0, len(newest) - room.recent) :] if room.recent else []
        kept |= {t.trial_no for t in newest}
        rows = [self._row(t) for t in ranked if t.trial_no in kept]
        head = {"round": history.round, "trials_run": len(ranked), "trials_left": history.trials_left}
        strategies = {s for stage in self._space.pipeline.stages for s in stage.strategies}
        current = dict.fromkeys(refused)
        told = [*(r for r in dict.fromkeys(history.refused) if r not in current), *current]
        return {
            "task": self._task,
            "unit": self._unit,
            "strategies": {name: STRATEGIES[name].meaning for name in sorted(strategies)},
            "space": self._space_json,
            "shown": len(rows),
            "run": len(ranked),
            "history": unmarked(f'{_json(head)[:-1]},"trials":[\n{_lines(rows)}\n]}}'),
            "curves": unmarked(_lines(_curves(t) for t in ranked[: room.curves] if t.curves)),
            "refused": unmarked(
                _lines(_refused(r) for r in told[max(0, len(told) - room.refused) :]) if room.refused else ""
            ),
            "guidelines": self._guidelines(history, room),
        }

    def _guidelines(self, history: History, room: _Room) -> str:
        latest = history.guidelines[max(0, len(history.guidelines) - room.guidelines) :] if room.guidelines else ()
        return unmarked(
            _lines({"round": g.round, "insight": g.insight, "stage": g.stage, "text": _cut(g.text)} for g in latest)
        )

    def _row(self, trial: TrialView) -> dict[str, object]:
        return {
            "no": trial.trial_no,
            "round": trial.round,
            "allocation": _compact(trial.allocation),
            "score": _number(trial.score, 4),
            "se": _number(trial.standard_error, 2),
            "cost": _number(trial.cost / self._scale, 6),
            "budget_share": _number(trial.cost / self._space.limit, 3),
            "new_draws": trial.new_draws,
        }

    @cached_property
    def _space_json(self) -> str:
        stages = [self._stage(stage) for stage in self._space.pipeline.stages]
        head = {"unit": self._unit, "plan_budget": self._space.limit / self._scale}
        return unmarked(f'{_json(head)[:-1]},"stages":[\n{_lines(stages)}\n]}}')

    def _stage(self, stage: StageSpec) -> dict[str, object]:
        samples: dict[str, object] = {"min": stage.samples.min, "max": stage.samples.max}
        if stage.samples.choices:
            samples["choices"] = list(stage.samples.values())
        knobs = {"knobs": {name: list(choices) for name, choices in stage.knobs.items()}} if stage.knobs else {}
        return {
            "stage": stage.name,
            "strategies": list(stage.strategies),
            "samples": samples,
            **knobs,
            "planned_tokens": {"prompt": stage.tokens.prompt, "output": stage.tokens.output},
            "models": [
                {
                    "model": model,
                    "active_parameters": _number(self._space.cost.parameters[model], 4),
                    "costs": self._costs(stage, model),
                }
                for model in stage.models
            ],
        }

    def _costs(self, stage: StageSpec, model: str) -> list[dict[str, object]]:
        """Cost formula per strategy, strategies that cost the same together.

        Every cost model is linear in the samples above its floor at 0, so two points far above it give the line.
        """
        grouped: dict[tuple[float, float, float], list[str]] = {}
        for strategy in stage.strategies:
            one, high, higher = (
                self._space.cost.stage(stage, StageSetting(model, strategy, k)) / self._scale
                for k in (1, 10**6, 2 * 10**6)
            )
            slope = (higher - high) / 10**6
            key = (_figures(one), _figures(high - slope * 10**6), _figures(slope))
            grouped.setdefault(key, []).append(strategy)
        return [
            {"strategies": names, "one_sample": one, "fixed": fixed, "each_further": further}
            for (one, fixed, further), names in grouped.items()
        ]


def readable_unit(limit: float, unit: str) -> tuple[float, str]:
    """A power of 1000 that brings the budget near 1..1000, and the unit's name in it: LLMs add small numbers better."""
    power = 3 * math.floor(math.log10(limit) / 3)
    return (1.0, unit) if power in (0, 3) else (10.0**power, f"10^{power} {unit}")


def unmarked(text: str) -> str:
    """Text that cannot open or close a data block: runs of three and more angle brackets become a space."""
    return re.sub(r"<{3,}|>{3,}", " ", clean(text))


def _render(template: str, values: Mapping[str, object]) -> str:
    return _TEMPLATES.get_template(template).render(**values).strip()


_TEMPLATES = Environment(
    loader=FileSystemLoader(Path(__file__).parent / "prompts"),
    undefined=StrictUndefined,
    autoescape=False,  # prompts are not HTML
    trim_blocks=True,
    lstrip_blocks=True,
)


def _curves(trial: TrialView) -> dict[str, object]:
    curves = {
        stage: [[p.samples, _number(p.score, 4), _number(p.coverage, 2)] for p in _thinned(points)]
        for stage, points in trial.curves.items()
    }
    return {"no": trial.trial_no, "curves": curves}


def _thinned(points: Sequence[CurveEstimate]) -> list[CurveEstimate]:
    """First, last, and about geometrically spaced points between, where a curve's change is."""
    if len(points) <= MAX_CURVE_POINTS:
        return list(points)
    last = len(points) - 1
    picks = {round(last ** (i / (MAX_CURVE_POINTS - 1))) for i in range(MAX_CURVE_POINTS)} | {0, last}
    return [points[i] for i in sorted(picks)][-MAX_CURVE_POINTS:]


def _refused(refused: RefusedView) -> dict[str, object]:
    if refused.allocation is not None:
        return {"round": refused.round, "allocation": _compact(refused.allocation), "reason": _cut(refused.reason)}
    return {"round": refused.round, "unreadable": _cut(refused.raw), "reason": _cut(refused.reason)}


def _compact(allocation: Allocation) -> dict[str, str]:
    return {_cut(stage): _cut(str(setting)) for stage, setting in allocation.settings[:64]}


def _lines(rows: Iterable[object]) -> str:
    return ",\n".join(_json(row) for row in rows)


def _json(value: object) -> str:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)


def _cut(text: str) -> str:
    return text if len(text) <= MAX_NOTE_CHARS else text[: MAX_NOTE_CHARS - 1] + "…"


def _figures(value: float) -> float:
    return float(f"{value:.9g}")


def _number(value: float, figures: int) -> float | None:
    """A number short enough to read; None where it is not one."""
    return float(f"{value:.{figures}g}") if math.isfinite(value) else None
