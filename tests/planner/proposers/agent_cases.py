"""A small study for the agent's tests: two stages, three models with stated sizes, no checkpoint."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

from env.allocation import Allocation, StageSetting
from env.spec import OpenAIModel, PipelineSpec, StageSpec, StudySpec
from env.spec.stage import PlannedTokens, PromptMessage, SamplesSpec
from env.spec.study import BudgetSpec, CostUnit, InlineData, PlanBudget, ProposerSpec
from planner.history import CurveEstimate, History, RefusedView, TrialView
from planner.proposers.agent import AgentProposer, LlmSettings
from planner.space import SearchSpace

TASK = "Find the right rows of a ledger, then answer the question about them."
KEY = "sk-secret-0123456789"


def space(stages: int = 2, limit: float = 2.0e13, unit: CostUnit = "flops") -> SearchSpace:
    names = ["retrieve", "answer", *(f"check{i}" for i in range(stages - 2))][:stages]
    sizes = {"small": 3e9, "medium": 8e9, "large": 70e9}
    models = {
        name: OpenAIModel(backend="openai", base_url="http://127.0.0.1:9/v1", model=name, parameters=size)
        for name, size in sizes.items()
    }
    pipeline = PipelineSpec(
        name="ledger",
        models=models,
        stages=tuple(
            StageSpec(
                name=name,
                prompt=(PromptMessage(role="user", template="{{ question }}"),),
                models=tuple(models),
                strategies=("vote", "best_of_n"),
                verifier="small",
                samples=SamplesSpec(min=1, max=16),
                tokens=PlannedTokens(prompt=64, output=32),
            )
            for name in names
        ),
    )
    spec = StudySpec(
        name="study",
        pipeline=pipeline,
        data=InlineData(source="inline", rows=({"question": "1+1", "answer": "2"},)),
        budget=BudgetSpec(plan=PlanBudget(limit=limit, unit=unit)),
        proposer=ProposerSpec(),
    )
    return SearchSpace(spec)


def simulated_score(allocation: Allocation) -> float:
    """Saturating in the samples, stages multiply, `medium` is best for its size."""
    quality = {"small": 0.5, "medium": 0.8, "large": 0.85}
    return math.prod(1 - (1 - quality[s.model]) * math.sqrt(1 / s.samples) for _, s in allocation.settings)


def trial(number: int, allocation: Allocation, over: SearchSpace, score: float | None = None) -> TrialView:
    value = simulated_score(allocation) if score is None else score
    curves = {stage: tuple(_points(allocation, stage)) for stage in allocation.stages}
    cost = over.total(allocation)
    return TrialView(number, number // 4, allocation, value, 0.012, cost, cost, 10, curves)


def _points(allocation: Allocation, stage: str) -> Iterator[CurveEstimate]:
    """What a trial with many draws knows about fewer."""
    setting = allocation[stage]
    for samples in range(1, setting.samples + 1):
        fewer = allocation.replace(stage, StageSetting(setting.model, setting.strategy, samples))
        yield CurveEstimate(samples, simulated_score(fewer), 1.0)


def history(over: SearchSpace, trials: int = 6, refused: tuple[RefusedView, ...] = ()) -> History:
    every = [a for a, _ in zip(over.allocations(), range(trials), strict=False)]
    return History(1, tuple(trial(i, a, over) for i, a in enumerate(every)), refused, trials_left=12)


def allocation(**stages: tuple[str, str, int]) -> Allocation:
    return Allocation.of({name: StageSetting(*setting) for name, setting in stages.items()})


def proposal(**stages: tuple[str, str, int]) -> dict[str, object]:
    written = {n: {"model": m, "strategy": g, "samples": k} for n, (m, g, k) in stages.items()}
    return {"allocation": written, "reason": "because", "expected_score": 0.5}


GOOD_ITEM = proposal(retrieve=("small", "vote", 4), answer=("medium", "vote", 2))
GOOD = {"proposals": [GOOD_ITEM]}
GOOD_ALLOCATION = allocation(retrieve=("small", "vote", 4), answer=("medium", "vote", 2))


def agent(
    base_url: str,
    over: SearchSpace | None = None,
    *,
    task: str = TASK,
    tokens: Callable[[], int] | None = None,
    **settings: object,
) -> AgentProposer:
    fields: dict[str, object] = {"model": "scripted", "api_key": KEY, "timeout_s": 10.0, "backoff_s": 0.01}
    llm = LlmSettings(base_url=base_url, **{**fields, **settings})  # type: ignore[arg-type]
    return AgentProposer(over or space(), llm, task, 7, tokens)
