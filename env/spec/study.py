"""What a study is: a pipeline, a scored data set, budgets, a proposer and a seed."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from env.spec.architecture import Price
from env.spec.constraints import Constraints
from env.spec.pipeline import PipelineSpec
from env.spec.stage import Name
from env.spec.strict import Strict

CostUnit = Literal[
    "flops",
    "agenttts",
    "tokens",
    "eflops",
    "runtime",
    "accelerator_seconds",
    "dollars",
    "joules",
    "seconds",
]
Precision = Literal["fp32", "tf32", "bf16", "fp8", "int8", "fp4"]
BUILT_IN_PROPOSERS = (
    "auto",
    "agent",
    "insight",
    "random",
    "grid",
    "tpe",
    "gp",
    "evolution",
    "llmselector",
    "zero_shot",
    "agenthpo",
    "mlcopilot",
    "agenttts_paper",
)
"""Proposers that ship with Apportion; others may be registered by entry point (docs/proposers.md)."""

ProposerKind = Annotated[
    str, Field(pattern=r"^[a-z][a-z0-9_.-]{0,63}$", json_schema_extra={"examples": list(BUILT_IN_PROPOSERS)})
]
ReasoningEffort = Literal["minimal", "low", "medium", "high"]
Part = Literal["insight1", "insight2", "insight3"]
"""Parts of the method that a study may leave out."""


class LedgerData(Strict):
    """The embedded ledger task, generated from a seed."""

    source: Literal["ledger"]
    search: int = Field(200, ge=1, le=100_000, description="Examples the search may look at.")
    test: int = Field(400, ge=1, le=100_000, description="Sealed examples, read once at the end.")
    difficulty: str = Field("mixed", description="A named level of the task, or mixed.")
    seed: int = Field(0, ge=0)


class FileData(Strict):
    """A JSONL file below the data root: one object a line with `answer` or `answers` and the prompts' fields."""

    source: Literal["file"]
    path: str = Field(min_length=1, description="Below the data root; .jsonl")
    search: int = Field(50, ge=1, le=100_000)
    test: int = Field(500, ge=1, le=100_000)
    seed: int = Field(0, ge=0, description="Decides which rows are search and which are test.")


class InlineData(Strict):
    """Examples written into the spec itself, for small studies and forms."""

    source: Literal["inline"]
    rows: tuple[dict[str, object], ...] = Field(min_length=1, max_length=2000)
    search: int = Field(50, ge=1, le=2000)
    test: int = Field(50, ge=1, le=2000)
    seed: int = Field(0, ge=0)


class PoolData(Strict):
    """The gold table of a pool of recorded draws: `example`, `answer`, any text fields, and perhaps `split`.

    Prompts may name its columns, `example` (the id) among them. Where there is a column `split`, its rows are `search`
    or `test`; else the seed decides.
    """

    source: Literal["pool"]
    gold: str = Field(min_length=1, description="Below the data root; .parquet or .csv")
    search: int = Field(50, ge=1, le=100_000)
    test: int = Field(500, ge=1, le=100_000)
    seed: int = Field(0, ge=0, description="Decides which rows are search and which are test.")


DataSpec = Annotated[LedgerData | FileData | InlineData | PoolData, Field(discriminator="source")]


class PlanBudget(Strict):
    """What one query of the plan may cost."""

    limit: float = Field(gt=0)
    unit: CostUnit = Field("flops", description="docs/costs.md says what each means and which to take.")
    prompt_shared: bool = Field(
        True, description="A prompt is processed once for all its samples; else once for each sample."
    )
    accelerator: str | None = Field(
        None, description="By name, for instance h100-sxm; runtime, accelerator_seconds, joules and seconds need it."
    )
    precision: Precision | None = Field(
        None,
        description="Of the arithmetic, which decides the peak rate; bf16 where the accelerator has it, else fp32.",
    )
    tensor_parallel: int | None = Field(
        None, ge=1, le=1024, description="Accelerators a model is spread over; as few as hold it where not given."
    )
    batch_size: int | None = Field(
        None,
        ge=1,
        le=65536,
        description="Sequences served together, which share the reading of the weights. Where not given: 1 for the "
        "runtimes, and no weight traffic for eFLOPs, as in the papers.",
    )
    intensity: float | None = Field(
        None, gt=0, description="FLOPs that cost as much as one byte moved, for eFLOPs; the accelerator's, else 562.5."
    )
    prices: str | None = Field(
        None, description="YAML file below the data root with prices by model name, for models that state none."
    )
    power_fraction: float = Field(
        1.0, gt=0, le=1, description="Part of the accelerator's rated power that is drawn, for joules."
    )
    pue: float = Field(1.0, ge=1, le=10, description="Power usage effectiveness of the data centre, for joules.")
    calibration: float | None = Field(
        None, gt=0, description="Measured seconds over idealized ones, as the report fits it; seconds needs it."
    )


class SearchBudget(Strict):
    """What the search may spend; whichever ends first. The sealed test at the end is not part of it."""

    trials: int = Field(24, ge=1, le=100_000)
    draws: int | None = Field(None, ge=1, description="New draws (model generations) of the whole search.")
    tokens: int | None = Field(
        None, ge=1, description="Tokens that the pipeline's models read and write anew, the verifiers' included."
    )
    gpu_seconds: float | None = Field(
        None, gt=0, description="Seconds in which models answer requests, times the accelerators each is spread over."
    )
    dollars: float | None = Field(None, gt=0, description="By the models' prices; see budget.plan.prices.")
    wall_seconds: float | None = Field(
        None, gt=0, description="From the study's first start on; time in which no worker runs it counts too."
    )
    min_gain: float | None = Field(
        None,
        ge=0,
        description="End the search where, over a whole round, no allocation that is left is expected to gain as much "
        "score over the best one. Off where not given: what gain is worth a trial, only you know.",
    )
    racing: Literal["off", "exact", "betting"] = Field(
        "betting",
        description="Trials run on a growing part of the examples. exact: one stops when not even a perfect rest lets "
        "it become the plan. betting: also when that is excluded with an error of at most 1%. off: all run on all.",
    )


class ProposerBudget(Strict):
    """What the proposer itself may spend."""

    tokens: int = Field(200_000, ge=0, description="Prompt and completion tokens of the agent's LLM.")
    dollars: float | None = Field(
        None, ge=0, description="What they may cost, in US dollars; needs proposer.price or proposer.prices."
    )


class BudgetSpec(Strict):
    """The three budgets: of the plan per query, of the search, of the proposer."""

    plan: PlanBudget
    search: SearchBudget = SearchBudget()
    proposer: ProposerBudget = ProposerBudget()


class ProposerSpec(Strict):
    """Who suggests allocations."""

    kind: ProposerKind = Field(
        "auto",
        description="auto: the agent where an LLM is configured, else insight. docs/proposers.md lists the others; "
        "an installed package may register more.",
    )
    batch: int = Field(4, ge=1, le=100, description="Allocations a round.")
    model: str | None = Field(None, description="The agent's LLM; else APPORTION_LLM_MODEL.")
    base_url: str | None = Field(None, pattern=r"^https?://", description="Else APPORTION_LLM_BASE_URL.")
    api_key_env: str | None = Field(None, pattern=r"^[A-Za-z_][A-Za-z0-9_]*$", description="Else OPENAI_API_KEY.")
    timeout_s: float = Field(60.0, gt=0, le=3600)
    max_prompt_chars: int = Field(
        60_000, ge=4000, le=2_000_000, description="Hard limit on a call's prompt; about four characters a token."
    )
    max_completion_tokens: int = Field(
        4096, ge=64, le=200_000, description="Of one reply, thinking included where the LLM thinks."
    )
    reasoning_effort: ReasoningEffort | None = Field(
        None, description="For LLMs that think before they answer; left out where the server refuses it."
    )
    tools: bool = Field(True, description="Whether the LLM may calculate and look up before it proposes.")
    max_tool_calls: int = Field(6, ge=0, le=64, description="In one round.")
    price: Price | None = Field(None, description="Of the agent's LLM.")
    prices: str | None = Field(
        None, description="YAML file below the data root with prices by model name, as for budget.plan.prices."
    )
    ablate: tuple[Part, ...] = Field(
        (), description="Parts of the method to leave out, to measure what they are worth; for agent and insight."
    )
    warm_start: bool = Field(
        True,
        description="Whether earlier studies of the archive with the same stages and models count as evidence, as far "
        "as they agree with this one.",
    )


class StudySpec(Strict):
    """One search, complete: everything that decides its result."""

    version: Literal[1] = 1
    name: Name
    description: str = Field("", max_length=4000)
    pipeline: PipelineSpec
    data: DataSpec
    budget: BudgetSpec
    proposer: ProposerSpec = ProposerSpec()
    constraints: Constraints = Constraints()
    seed: int = Field(0, ge=0, le=2**31 - 1)
