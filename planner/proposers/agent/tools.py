"""What the LLM may look up before it proposes: costs, forecasts and trials, bounded and checked like any input."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

from pydantic import Field, ValidationError

from env.allocation import Allocation
from env.errors import ApportionError
from env.spec.faults import faults_of
from env.spec.strict import Strict
from planner.history import History, TrialView
from planner.proposers._base import ToolCall
from planner.proposers.ablation import NOTHING, Ablation
from planner.proposers.agent.dialect import Tool
from planner.proposers.agent.fences import fenced
from planner.proposers.agent.forecast import forecasts
from planner.proposers.agent.prompting import readable_unit
from planner.proposers.agent.reading import read_allocation
from planner.proposers.agent.schemas import allocation_schema
from planner.space import SearchSpace

MAX_ALLOCATIONS = 12
MAX_TRIALS = 20
MAX_POINTS = 40
MAX_RESULT_CHARS = 4000


class _Allocations(Strict):
    allocations: list[dict[str, Any]] = Field(min_length=1, max_length=MAX_ALLOCATIONS)


class _Filter(Strict):
    stage: str | None = None
    model: str | None = None
    strategy: str | None = None
    most_samples: int | None = Field(None, ge=1)
    order: Literal["best", "cheapest", "latest"] = "best"
    limit: int = Field(10, ge=1, le=MAX_TRIALS)
    curves_of: int | None = Field(None, description="A trial's number.")


class Toolbox:
    """The tools of one round; answers are data blocks of at most `MAX_RESULT_CHARS` characters.

    Args:
        space: the search space.
        history: what they look up.
        calls: how many may be answered.
        ablation: without insight 2 no curves are shown.
    """

    def __init__(self, space: SearchSpace, history: History, calls: int, ablation: Ablation = NOTHING) -> None:
        self._space = space
        self._history = history
        self._ablation = ablation
        self._scale, self._unit = readable_unit(space.limit, space.unit)
        self.left = calls
        """Calls that will still be answered."""

    @property
    def tools(self) -> tuple[Tool, ...]:
        """What the LLM is offered; a forecast needs a trial."""
        found = (self._cost_tool(), self._forecast_tool(), self._trials_tool())
        return found if self._history.trials else found[:1]

    def answer(self, call: ToolCall) -> str:
        """The answer to one call as a data block; what is wrong with the call, where something is. Never raises."""
        if self.left < 1:
            return _told({"error": "no calls are left: answer now"})
        self.left -= 1
        tools: Mapping[str, Callable[[dict[str, Any]], object]] = {
            "cost": self._cost,
            "forecast": self._forecast,
            "trials": self._trials,
        }
        if call.name not in {tool.name for tool in self.tools}:
            names = ", ".join(tool.name for tool in self.tools)
            return _told({"error": f"no tool {call.name[:60]!r}; there are {names}"})
        try:
            arguments = json.loads(call.arguments or "{}")
            if not isinstance(arguments, dict):
                return _told({"error": "the arguments must be one JSON object"})
            return _told(tools[call.name](arguments))
        except ValidationError as error:
            return _told({"error": "; ".join(map(str, faults_of(error)))[:1000]})
        except (ApportionError, ValueError, RecursionError) as error:
            return _told({"error": str(error)[:1000]})

    # The tools -----------------------------------------------------------------------------------------------------

    def _cost(self, arguments: dict[str, Any]) -> object:
        rows: list[dict[str, object]] = []
        for raw, allocation in self._read(arguments):
            if isinstance(allocation, str):
                rows.append({"allocation": raw, "error": allocation})
                continue
            stages = {name: self._price(name, allocation) for name in allocation.stages}
            cost = sum(stages.values())
            row: dict[str, object] = {
                "cost": _round(cost),
                "budget_share": _round(cost * self._scale / self._space.limit),
            }
            over = self._space.faults(allocation)
            rows.append({**row, "stages": {n: _round(c) for n, c in stages.items()}, "fits": not over})
        return {"unit": self._unit, "plan_budget": self._space.limit / self._scale, "allocations": rows}

    def _forecast(self, arguments: dict[str, Any]) -> object:
        read = self._read(arguments)
        good = [a for _, a in read if not isinstance(a, str)]
        known = {f.allocation: f for f in forecasts(self._space, self._history, good, self._ablation)} if good else {}
        tried = {t.allocation: t for t in self._history.trials}
        rows: list[dict[str, object]] = []
        for raw, allocation in read:
            if isinstance(allocation, str):
                rows.append({"allocation": raw, "error": allocation})
                continue
            f = known[allocation]
            row: dict[str, object] = {"score": _round(f.score), "low": _round(f.low), "high": _round(f.high)}
            if allocation in tried:
                row["measured_in_trial"] = tried[allocation].trial_no
            faults = self._space.faults(allocation)
            rows.append({**row, "fits": not faults})
        return {"meaning": "expected score, one standard deviation below and above", "allocations": rows}

    def _trials(self, arguments: dict[str, Any]) -> object:
        wanted = _Filter.model_validate(arguments)
        if wanted.curves_of is not None:
            return self._curves(wanted.curves_of)
        if wanted.stage is not None and wanted.stage not in [s.name for s in self._space.pipeline.stages]:
            raise ApportionError(f"no stage {wanted.stage[:60]!r}")
        found = [t for t in self._history.trials if _fits(t, wanted)]
        orders: dict[str, Callable[[TrialView], tuple[float, ...]]] = {
            "best": lambda t: (-t.score, t.cost),
            "cheapest": lambda t: (t.cost, -t.score),
            "latest": lambda t: (-t.trial_no,),
        }
        found.sort(key=orders[wanted.order])
        return {"found": len(found), "trials": [self._row(t) for t in found[: wanted.limit]]}

    def _curves(self, number: int) -> object:
        if self._ablation.without_insight_2:
            raise ApportionError("no curves are kept in this study")
        trial = next((t for t in self._history.trials if t.trial_no == number), None)
        if trial is None:
            raise ApportionError(f"no trial {number}")
        curves = {
            stage: [[p.samples, _round(p.score), _round(p.coverage)] for p in points[:MAX_POINTS]]
            for stage, points in trial.curves.items()
        }
        return {**self._row(trial), "curves": curves, "point": "[samples, score, coverage]"}

    # Their parts ---------------------------------------------------------------------------------------------------

    def _read(self, arguments: dict[str, Any]) -> list[tuple[str, Allocation | str]]:
        """Each allocation with its text; what is wrong with it in place of one that cannot be used."""
        read: list[tuple[str, Allocation | str]] = []
        for raw in _Allocations.model_validate(arguments).allocations:
            text = json.dumps(raw)[:200]
            try:
                allocation = read_allocation(raw)
            except ApportionError as error:
                read.append((text, str(error)[:200]))
                continue
            faults = [f for f in self._space.faults(allocation) if not f.startswith("over budget")]
            read.append((text, "; ".join(faults)[:300] if faults else self._space.normal(allocation)))
        return read

    def _price(self, stage: str, allocation: Allocation) -> float:
        return self._space.cost.stage(self._space.pipeline.stage(stage), allocation[stage]) / self._scale

    def _row(self, trial: TrialView) -> dict[str, object]:
        return {
            "no": trial.trial_no,
            "allocation": {stage: str(setting) for stage, setting in trial.allocation.settings},
            "score": _round(trial.score),
            "se": _round(trial.standard_error),
            "cost": _round(trial.cost / self._scale),
        }

    def _cost_tool(self) -> Tool:
        return Tool(
            "cost", "Predicted cost per query of allocations, and whether the plan budget holds them.", self._listed()
        )

    def _forecast_tool(self) -> Tool:
        return Tool("forecast", "What a statistical model of all trials expects allocations to score.", self._listed())

    def _listed(self) -> dict[str, object]:
        items = {"type": "array", "items": allocation_schema(self._space), "maxItems": MAX_ALLOCATIONS}
        return {
            "type": "object",
            "properties": {"allocations": items},
            "required": ["allocations"],
            "additionalProperties": False,
        }

    def _trials_tool(self) -> Tool:
        stages = [s.name for s in self._space.pipeline.stages]
        fields: dict[str, object] = {
            "stage": {"type": "string", "enum": stages, "description": "Where model, strategy and samples must hold."},
            "model": {"type": "string"},
            "strategy": {"type": "string"},
            "most_samples": {"type": "integer"},
            "order": {"type": "string", "enum": ["best", "cheapest", "latest"]},
            "limit": {"type": "integer", "description": f"At most {MAX_TRIALS}."},
            "curves_of": {"type": "integer", "description": "Instead: the k-curves of the trial with this number."},
        }
        schema = {"type": "object", "properties": fields, "required": [], "additionalProperties": False}
        return Tool("trials", "Trials by what a stage was set to, or the k-curves of one trial.", schema)


def _fits(trial: TrialView, wanted: _Filter) -> bool:
    """Whether the stage, or any stage where none is named, is set as wanted."""
    stages: Sequence[str] = trial.allocation.stages if wanted.stage is None else (wanted.stage,)
    return any(
        (wanted.model is None or s.model == wanted.model)
        and (wanted.strategy is None or s.strategy == wanted.strategy)
        and (wanted.most_samples is None or s.samples <= wanted.most_samples)
        for s in (trial.allocation[name] for name in stages)
    )


def _told(value: object) -> str:
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    if len(text) > MAX_RESULT_CHARS:
        text = text[:MAX_RESULT_CHARS] + "… (cut: ask for less)"
    return fenced("tool", text)


def _round(value: float) -> float:
    return float(f"{value:.5g}")
