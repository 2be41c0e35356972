"""Writes the agent's prompts: the study as compact JSON between marks, bounded however long the history."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TypeVar

from env.allocation import Allocation, StageSetting
from env.errors import ApportionError
from env.spec import StageSpec
from env.strategies import STRATEGIES
from planner.history import CurveEstimate, Difference, Guideline, History, PendingView, RefusedView, TrialView
from planner.proposers._base import Proposal
from planner.proposers.ablation import NOTHING, Ablation
from planner.proposers.agent.dialect import Prompt
from planner.proposers.agent.fences import fenced
from planner.proposers.agent.prompt_set import prompt_set
from planner.proposers.agent.trust import ORIGIN
from planner.proposers.digest import Marginal, Step, alike, calibration, marginals
from planner.space import SearchSpace

MAX_TASK_CHARS = 4000
MAX_NOTE_CHARS = 240
MAX_CURVE_POINTS = 10


Row = TypeVar("Row")


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
    forecast: int
    pending: int


_ROOMS = (
    _Room(26, 14, 12, 24, 5, 12, 12),
    _Room(13, 7, 8, 12, 3, 8, 8),
    _Room(7, 3, 4, 8, 1, 4, 4),
    _Room(3, 0, 2, 4, 0, 4, 2),
    _Room(*[0] * 7),
)
"""Tried in this order until the prompt fits."""


class PromptWriter:
    """Prompts of one study; equal histories give equal prompts.

    Args:
        space: the search space.
        task: what the pipeline is for; shown as data, marks taken out.
        max_chars: hard limit on system card and request together.
        ablation: insights left out are not told, and neither is what they rest on.
    """

    def __init__(self, space: SearchSpace, task: str, max_chars: int, ablation: Ablation = NOTHING) -> None:
        self._space = space
        self._task = task[:MAX_TASK_CHARS].strip() or "(no description)"
        self._max_chars = max_chars
        self._ablation = ablation
        self._scale, self._unit = readable_unit(space.limit, space.unit)

    def reflect(self, history: History) -> Prompt:
        """Asks for guidelines.

        Raises:
            PromptTooLongError: nothing is left to leave out.
        """
        return self._fitting("reflect.j2", history, (), (), {"shape": fenced("shape", _json(self._guideline_shape()))})

    def propose(
        self,
        history: History,
        count: int,
        refused: Sequence[RefusedView],
        advice: Sequence[Proposal] = (),
    ) -> Prompt:
        """Asks for `count` allocations, and says what was refused.

        Args:
            history: the study so far.
            count: how many are wanted.
            refused: in this round.
            advice: what a policy without an LLM would propose.

        Raises:
            PromptTooLongError: nothing is left to leave out.
        """
        setting: dict[str, object] = {"model": "...", "strategy": "...", "samples": 1}
        allocation = {stage.name: setting for stage in self._space.pipeline.stages}
        shape = {"proposals": [{"allocation": allocation, "reason": "...", "expected_score": 0.5}]}
        ask = {"count": count, "shape": fenced("shape", _json(shape))}
        return self._fitting("propose.j2", history, refused, advice, ask)

    def _guideline_shape(self) -> dict[str, object]:
        fields = ("preferred_model", "direction", "plateau", "shift_budget_from", "shift_budget_to")
        structured = {**dict.fromkeys(fields), "direction": "up"}
        stage = self._space.pipeline.stages[0].name
        return {"guidelines": [{"insight": 2, "stage": stage, "text": "...", "structured": structured}]}

    def _fitting(
        self,
        template: str,
        history: History,
        refused: Sequence[RefusedView],
        advice: Sequence[Proposal],
        ask: Mapping[str, object],
    ) -> Prompt:
        render = prompt_set().render
        insights = [i for i in (1, 2, 3) if self._ablation.keeps(i)]
        system = render("system.j2", {"insights": insights})
        size = 0
        for room in _ROOMS:
            study = render("study.j2", self._study(history, refused, room))
            values = {
                "study": study,
                "trials_left": history.trials_left,
                "insights": insights,
                "alike": alike(history),
                "forecast": _block("forecast", (self._advised(p) for p in advice[: room.forecast])),
                **ask,
            }
            user = render(template, values)
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
        rows = [self._row(t, history.differences.get(t.trial_no)) for t in ranked if t.trial_no in kept]
        head = {"round": history.round, "trials_run": len(ranked), "trials_left": history.trials_left}
        strategies = {s for stage in self._space.pipeline.stages for s in stage.strategies}
        current = dict.fromkeys(refused)
        told = [*(r for r in dict.fromkeys(history.refused) if r not in current), *current]
        return {
            "task": fenced("task", self._task),
            "strategies": {name: STRATEGIES[name].meaning for name in sorted(strategies)},
            "space": fenced("search_space", self._space_json),
            "shown": len(rows),
            "run": len(ranked),
            "history": fenced("history", f'{_json(head)[:-1]},"trials":[\n{_lines(rows)}\n]}}'),
            **self._curve_blocks(history, ranked, room),
            "pending": _block("pending", map(_pending, _latest(history.pending, room.pending))),
            "refused": _block("refused", map(_refused, _latest(told, room.refused))),
            "guidelines": _block("guidelines", map(_guideline, self._kept(history, room))),
            "calibration": _block("calibration", self._calibration(history)),
        }

    def _curve_blocks(self, history: History, ranked: Sequence[TrialView], room: _Room) -> dict[str, str]:
        if self._ablation.without_insight_2:
            return {"curves": "", "marginal": ""}
        shown = marginals(self._space, history) if room.best else ()
        return {
            "curves": _block("curves", (_curves(t) for t in ranked[: room.curves] if t.curves)),
            "marginal": _block("marginal", map(_marginal, shown)),
        }

    def _kept(self, history: History, room: _Room) -> Sequence[Guideline]:
        return _latest([g for g in history.guidelines if self._ablation.keeps(g.insight)], room.guidelines)

    def _calibration(self, history: History) -> list[dict[str, object]]:
        own = calibration(history.trials, ORIGIN)
        if own is None:
            return []
        bias, absolute = _number(own.bias, 2), _number(own.absolute, 2)
        return [{"trials": own.trials, "bias": bias, "absolute": absolute, "earned": own.earned}]

    def _advised(self, proposal: Proposal) -> dict[str, object]:
        assert proposal.allocation is not None
        expected = proposal.expected_score
        return {
            "allocation": _compact(proposal.allocation),
            "expected_score": None if expected is None else _number(expected, 4),
            "budget_share": _number(self._space.total(proposal.allocation) / self._space.limit, 3),
        }

    def _row(self, trial: TrialView, difference: Difference | None) -> dict[str, object]:
        told: dict[str, object] = {}
        if difference is not None:
            told["to_best"] = [_number(difference.mean, 3), _number(difference.standard_error, 2)]
        if trial.origin:
            told["by"] = trial.origin
        if trial.expected_score is not None:
            told["expected"] = _number(trial.expected_score, 3)
        return {
            "no": trial.trial_no,
            "round": trial.round,
            "allocation": _compact(trial.allocation),
            "score": _number(trial.score, 4),
            "se": _number(trial.standard_error, 2),
            "cost": _number(trial.cost / self._scale, 6),
            "budget_share": _number(trial.cost / self._space.limit, 3),
            "new_draws": trial.new_draws,
            **told,
        }

    @cached_property
    def _space_json(self) -> str:
        stages = [self._stage(stage) for stage in self._space.pipeline.stages]
        head = {"unit": self._unit, "plan_budget": self._space.limit / self._scale}
        return f'{_json(head)[:-1]},"stages":[\n{_lines(stages)}\n]}}'

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


def _block(name: str, rows: Iterable[object]) -> str:
    """A data block with a row a line; empty where there are none."""
    text = _lines(rows)
    return fenced(name, text) if text else ""


def _latest(rows: Sequence[Row], count: int) -> Sequence[Row]:
    return rows[max(0, len(rows) - count) :] if count else ()


def _marginal(marginal: Marginal) -> dict[str, object]:
    told: dict[str, object] = {"stage": marginal.stage, "samples": marginal.samples}
    for name, step in (("fewer", marginal.fewer), ("more", marginal.more)):
        if step is not None:
            told[name] = _step(step)
    return told


def _step(step: Step) -> dict[str, object]:
    return {
        "samples": step.samples,
        "score": _number(step.score, 3),
        "budget_share": _number(step.budget_share, 3),
        "score_per_percent": _number(step.score_per_percent, 2),
    }


def _pending(pending: PendingView) -> dict[str, object]:
    told: dict[str, object] = {"allocation": _compact(pending.allocation)}
    return {**told, "problem": _cut(pending.problem)} if pending.problem else told


def _guideline(guideline: Guideline) -> dict[str, object]:
    told: dict[str, object] = {
        "round": guideline.round,
        "insight": guideline.insight,
        "stage": guideline.stage,
        "text": _cut(guideline.text),
    }
    kept = {name: v for name, v in guideline.structured.items() if isinstance(v, str | int | float | bool)}
    return {**told, "structured": {n: _cut(v) if isinstance(v, str) else v for n, v in kept.items()}} if kept else told


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
