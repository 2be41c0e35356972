"""The plan document: the allocation, what it scores and costs, what it beat, and where that comes from."""

from __future__ import annotations

from typing import Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field

from planner.evidence import Interval, VerdictWord

AllocationJson = dict[str, dict[str, str | int | dict[str, int | float | str]]]
"""``{stage: {model, strategy, samples}}``, with ``knobs`` where a stage opens any."""


class _Document(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class IntervalPublic(_Document):
    """An estimate with its 95% interval."""

    estimate: float
    low: float
    high: float
    standard_error: float | None
    examples: int
    method: str

    @classmethod
    def of(cls, interval: Interval) -> IntervalPublic:
        """From the statistics' own type."""
        error = interval.standard_error
        return cls(
            estimate=interval.estimate,
            low=interval.low,
            high=interval.high,
            standard_error=error if error == error else None,
            examples=interval.examples,
            method=interval.method,
        )


class StagePlan(_Document):
    """What one stage does for a query."""

    stage: str
    model: str
    strategy: str
    samples: int
    predicted_cost: float
    why: str


class EngineLine(_Document):
    """How the fleet serves a model of the plan."""

    model: str
    served: str
    """The fleet's model or variant; its name states the knobs that the search chose."""

    knobs: dict[str, int | bool | str | None]
    tokens_per_second: dict[str, float]
    """Medians of the variants that answer alike, which were compared by speed; empty where none were open."""

    not_told_apart: list[str]
    """Variants whose measured range overlaps the chosen one's."""

    command: str
    """How its server was started, but for the port and the devices, which the fleet gives when it starts one."""


class Rival(_Document):
    """Something the plan was compared with on the sealed test split, example by example."""

    label: str
    allocation: AllocationJson
    predicted_cost: float
    score: IntervalPublic
    difference: IntervalPublic
    """Plan minus rival, paired over the test examples."""

    verdict: VerdictWord
    p_value: float | None = None
    """Two-sided, of the paired test; None in plans written before there was one."""

    test: str = ""
    words: str = ""
    """The verdict as a sentence."""


class FrontPoint(_Document):
    """One point of the Pareto front on the search split."""

    trial_no: int
    allocation: AllocationJson
    predicted_cost: float
    score: float


class ConstraintLine(_Document):
    """One constraint besides the budget, and what the plan has."""

    subject: str
    """The field below constraints."""

    limit: float
    unit: str
    value: float | None
    basis: Literal["predicted", "measured"]
    met: bool
    interval: IntervalPublic | None = None
    """Of a stage's quality on the search split, where the plan was chosen."""

    on_test: IntervalPublic | None = None
    """The same on the sealed test split."""

    words: str


class StageScore(_Document):
    """How good a stage's own answers are, on the sealed test split."""

    stage: str
    metric: str
    score: IntervalPublic


class MarginalLine(_Document):
    """What the next step of samples at one stage would buy, all else as in the plan."""

    stage: str
    samples: int
    """As in the plan."""

    next_samples: int
    gain: float
    """Expected change of the score on the search split; below 0 where more samples hurt."""

    low: float
    high: float
    """95% interval of the gain, paired over examples."""

    examples: int
    cost: float
    """Further predicted cost per query."""

    per_unit: float
    """Gain for a cost of one hundredth of the plan budget."""

    within_budget: bool
    source: int
    """Number of the trial whose k-curve this is read from."""


class GuidelineLine(_Document):
    """One guideline of the last round."""

    insight: int
    stage: str | None
    text: str


class LedgerLine(_Document):
    """What a ledger was charged."""

    ledger: str
    spent: float
    unit: str
    limit: float | None


class AgentUse(_Document):
    """What the agent's LLM did in the study, and what that cost."""

    models: list[str]
    """Names under which it was asked."""

    prompts: list[str]
    """Name, version and start of the hash of the prompt templates; several where the program was upgraded meanwhile."""

    calls: int
    failed_calls: int
    """Without a usable reply."""

    tool_calls: int
    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int
    """Of the prompt tokens, as far as the server says."""

    reasoning_tokens: int
    """Of the completion tokens, as far as the server says."""

    dollars: float | None
    """None where the LLM's price is not known."""

    proposed: int
    refused: int
    trials: int
    earned: int
    """Trials that beat everything before them and whatever else was proposed beside them."""

    bias: float | None
    """Mean of measured minus expected score; None where it expected nothing."""

    absolute_error: float | None


class Provenance(_Document):
    """What decides the result, so that somebody else can get it again."""

    study_id: str
    study: str
    spec_sha256: str
    seed: int
    proposer: str
    models: dict[str, str]
    """Revision of the weights by model name; empty where a remote model states none."""

    apportion: str
    ablated: list[str] = Field(default_factory=list)
    """Parts of the method that the study left out."""

    agent: AgentUse | None = None
    """None where no LLM was asked."""


class PlanDocument(_Document):
    """The plan with its evidence."""

    version: Literal[1] = 1
    kind: Literal["chosen", "best"]
    """``chosen``: the cheapest within one standard error of the best; ``best``: the best score on the search split."""

    allocation: AllocationJson
    stages: list[StagePlan]
    unit: str
    predicted_cost: float
    measured_cost: float | None
    """Mean over the test examples, per query."""

    budget: float
    search_score: float
    search_examples: int
    search_estimate: float | None = None
    """The raw search score: what the plan was chosen for, and too high on average."""

    corrected_estimate: IntervalPublic | None = None
    """The search score corrected for the choice (docs/statistics.md); its interval is for the plan's true score."""

    chosen_again: float | None = None
    """Share of resampled searches in which the same allocation is chosen."""

    test_score: IntervalPublic | None
    """None where the test split could not be evaluated; `remarks` says why."""

    test_failed: int = 0
    """Test examples whose model calls failed; they are in no score."""

    engines: list[EngineLine] = Field(default_factory=list)
    """Of the plan's models that a fleet serves."""

    rivals: list[Rival]
    pareto: list[FrontPoint]
    constraints: list[ConstraintLine] = Field(default_factory=list)
    stage_scores: list[StageScore] = Field(default_factory=list)
    marginal: list[MarginalLine] = Field(default_factory=list)
    guidelines: list[GuidelineLine]
    ledgers: list[LedgerLine]
    stopped: str = ""
    """What ended the search, with what was left; empty in plans of older versions."""

    trials: int
    refused: int
    explanation: str
    remarks: list[str] = Field(default_factory=list)
    provenance: Provenance

    def to_yaml(self) -> str:
        """The document as YAML."""
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False, allow_unicode=True, width=110)
