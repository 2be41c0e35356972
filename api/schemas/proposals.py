"""Proposals and guidelines."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from api.schemas.base import AllocationPublic, Public
from planner.archive import (
    GuidelineRecord,
    ProposalRecord,
)


class ProposalPublic(Public):
    """One suggested allocation and what review said."""

    round: int
    attempt: int
    position: int
    origin: str = Field(description="Who suggested it; `call` marks a call of the agent's LLM itself.")
    allocation: AllocationPublic | None = Field(description="Null where the suggestion could not be read.")
    verdict: Literal["accepted", "refused"]
    verdict_reason: str
    reason: str
    expected_score: float | None
    llm_model: str | None
    prompt: str | None
    reply: str | None
    tokens_in: int
    tokens_out: int

    @classmethod
    def of(cls, record: ProposalRecord) -> ProposalPublic:
        """From the archive's record."""
        allocation = record.allocation.to_json() if record.allocation else None
        names = [name for name in cls.model_fields if name != "allocation"]
        return cls(allocation=allocation, **{name: getattr(record, name) for name in names})


class LedgerPublic(Public):
    """Where one ledger of a study stands."""

    ledger: str
    unit: str
    settled: float
    reserved: float = Field(description="Set aside and not settled yet.")


class LedgerEntryPublic(Public):
    """One reservation against a budget, and what it came to."""

    ledger: str
    unit: str
    key: str
    reserved: float
    settled: float | None = Field(description="Null while it is open.")


class GuidelinePublic(Public):
    """What a round taught."""

    round: int
    position: int
    insight: int = Field(description="Which of the three insights it follows; 0 for none.")
    stage: str | None
    text: str
    structured: dict[str, Any]

    @classmethod
    def of(cls, record: GuidelineRecord) -> GuidelinePublic:
        """From the archive's record."""
        values = {name: getattr(record, name) for name in cls.model_fields if name != "structured"}
        return cls(**values, structured=dict(record.structured))
