"""What a spec is expected to do and to spend."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from api.problems import FaultPublic
from api.schemas.base import AllocationPublic, Public


class LedgerEstimate(Public):
    """What one ledger is expected to be charged."""

    ledger: Literal["search", "test"]
    unit: str
    expected: float | None = Field(description="Null where nothing tells.")
    worst: float | None = Field(description="At most; null where nothing tells.")
    limit: float | None
    enough_for: int | None = Field(description="Trials after which this limit is expected to end the search.")


class EstimatePublic(Public):
    """What a study is expected to do and to spend."""

    allocations: int = Field(description="That fit the plan budget, counted up to 300,000.")
    initial_trials: int
    trials: int = Field(description="Expected to run.")
    most_trials: int
    ends_with: str = Field(
        description="`trials`, `space` (every allocation tried), or the limit of `budget.search` expected to end it."
    )
    ledgers: list[LedgerEstimate]
    proposer_tokens: int | None = Field(description="The most the agent's LLM may use; null without an agent.")
    notes: list[str]


class CheapestPublic(Public):
    """The allocation with the lowest predicted cost."""

    allocation: AllocationPublic
    predicted_cost: float = Field(description="Per query, in `unit`.")
    unit: str


class CheckPublic(Public):
    """What is wrong with a spec, and what its cheapest allocation costs."""

    valid: bool
    faults: list[FaultPublic]
    cheapest: CheapestPublic | None = Field(description="Null where the spec's faults leave it unknown.")
