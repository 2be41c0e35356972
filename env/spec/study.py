"""What a study is: a pipeline, a scored data set, budgets, a proposer and a seed."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from env.spec.pipeline import Name, PipelineSpec, Strict

CostUnit = Literal["flops", "agenttts", "tokens"]
ProposerKind = Literal["auto", "agent", "insight", "random"]


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
    unit: CostUnit = "flops"


class SearchBudget(Strict):
    """What the search may spend; whichever ends first."""

    trials: int = Field(24, ge=1, le=100_000)
    draws: int | None = Field(None, ge=1, description="New draws (model generations) of the whole search.")


class ProposerBudget(Strict):
    """What the proposer itself may spend."""

    tokens: int = Field(200_000, ge=0, description="Prompt and completion tokens of the agent's LLM.")


class BudgetSpec(Strict):
    """The three budgets: of the plan per query, of the search, of the proposer."""

    plan: PlanBudget
    search: SearchBudget = SearchBudget()
    proposer: ProposerBudget = ProposerBudget()


class ProposerSpec(Strict):
    """Who suggests allocations."""

    kind: ProposerKind = Field("auto", description="auto: the agent where an LLM is configured, else insight.")
    batch: int = Field(4, ge=1, le=100, description="Allocations a round.")
    model: str | None = Field(None, description="The agent's LLM; else APPORTION_LLM_MODEL.")
    base_url: str | None = Field(None, pattern=r"^https?://", description="Else APPORTION_LLM_BASE_URL.")
    api_key_env: str | None = Field(None, pattern=r"^[A-Za-z_][A-Za-z0-9_]*$", description="Else OPENAI_API_KEY.")
    timeout_s: float = Field(60.0, gt=0, le=3600)


class StudySpec(Strict):
    """One search, complete: everything that decides its result."""

    version: Literal[1] = 1
    name: Name
    description: str = Field("", max_length=4000)
    pipeline: PipelineSpec
    data: DataSpec
    budget: BudgetSpec
    proposer: ProposerSpec = ProposerSpec()
    seed: int = Field(0, ge=0, le=2**31 - 1)
