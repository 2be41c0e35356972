"""What the archive answers and accepts: frozen, with no tie to the database."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal

from env.allocation import Allocation
from env.execution.evidence import Spend

StudyStatus = Literal["queued", "running", "paused", "done", "failed", "cancelled"]
Split = Literal["search", "test", "revalidation"]
"""Which examples a trial ran on; a re-validation runs on those of the search, with draws of its own."""

SearchLedger = Literal[
    "search", "search_tokens", "search_flops", "search_gpu_seconds", "search_dollars", "search_wall_seconds"
]
"""What the search spends; `search` itself counts draws."""

Ledger = Literal[SearchLedger, "proposer", "proposer_money"]
PlanKind = Literal["chosen", "best"]
Verdict = Literal["accepted", "refused"]
TrialStatus = Literal["done", "failed", "cut"]
Outcome = Literal["right", "partly right", "wrong", "scored", "failed"]
"""What became of an example; ``scored`` where the realised answer has no score of its own, ``failed`` is not wrong."""


@dataclass(frozen=True)
class StudyRecord:
    """One search and how far it is. Times are in UTC."""

    id: str
    name: str
    spec: Mapping[str, Any]
    """The study's specification as JSON."""

    status: StudyStatus
    proposer: str
    """The proposer that runs, once resolved; empty before."""

    seed: int
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    phase: str
    """The node of the loop it is in, for people; empty before the start."""

    round: int
    error: str
    """Why it failed; empty where it did not."""

    cancel_requested: bool
    idempotency_key: str | None
    schedule_name: str | None
    notes: str = ""
    """What people wrote about it."""

    pipeline_digest: str = ""
    """Names its pipeline by content; see `planner.archive.pipelines`. Empty where the spec has none."""

    @property
    def notes_version(self) -> str:
        """Names this text of the notes: equal where the texts are."""
        return hashlib.blake2b(self.notes.encode("utf-8", "surrogatepass"), digest_size=8).hexdigest()


@dataclass(frozen=True)
class KPoint:
    """What all examples of a trial together say about k samples at one stage."""

    k: int
    score: float | None
    """Sum of values over sum of masses; None where no example knows this k."""

    coverage: float
    """Mean mass over the scored examples: how much of the outcomes' probability the held draws answer for."""

    draws: int | None = None
    """Independent draws behind the score; None in trials recorded before they were counted."""

    standard_error: float | None = None
    """Of the score, over examples; None below two that know this k."""


@dataclass(frozen=True)
class TrialRecord:
    """One allocation evaluated on one split, without its per-example evidence."""

    study_id: str
    trial_no: int
    split: Split
    round: int
    allocation: Allocation
    status: TrialStatus
    """``failed``: no example could be scored; ``cut``: the search budget ended within its batch. Neither is a score of
    0."""

    score: float | None
    standard_error: float | None
    """Sample standard deviation over the scored examples / sqrt of their number; None below two of them."""

    scored: int
    failed: int
    predicted_cost: float
    measured_cost: float | None
    unit: str
    """Of the costs, per query."""

    spend: Spend
    curves: Mapping[str, tuple[KPoint, ...]]
    """Stage -> a point for each k known, ascending, the other stages as allocated."""

    created_at: datetime
    draws: int | None = None
    """Independent draws behind the score: distinct ones of the last stage, reused or not, each counted once. None in
    trials recorded before they were counted."""

    stage_scores: Mapping[str, float] = field(default_factory=dict)
    """Mean score of each stage's own answers, for stages that have a metric of their own."""

    examples_planned: int | None = None
    """Examples the trial was to run on; None in trials recorded before they were counted."""

    @property
    def stopped(self) -> bool:
        """Whether racing stopped it before all its examples: its score rests on those it ran on."""
        return self.examples_planned is not None and self.scored + self.failed < self.examples_planned

    @property
    def allocation_key(self) -> str:
        """The allocation as text; equal where the allocations are."""
        return str(self.allocation)


@dataclass(frozen=True)
class ProposalRecord:
    """One allocation somebody suggested, and what review said."""

    study_id: str
    round: int
    attempt: int
    """0 for the first batch of a round; counts up as refusals go back to the proposer."""

    position: int
    allocation: Allocation | None
    """None where the suggestion could not be read as an allocation."""

    origin: str
    """Who: initial, agent, insight, random, fill..."""

    verdict: Verdict
    verdict_reason: str = ""
    reason: str = ""
    """Why the proposer suggests it."""

    expected_score: float | None = None
    prompt: str | None = None
    reply: str | None = None
    llm_model: str | None = None
    tokens_in: int = 0
    tokens_out: int = 0
    call: Mapping[str, Any] = field(default_factory=dict)
    """What else is known of an LLM call: its prompts' version, the request's hash, cached and reasoning tokens,
    dollars, seconds, tool calls. Of a proposal: the version of the prompts that it answers."""

    created_at: datetime | None = None
    """Set by the archive; ignored when recording."""

    @property
    def allocation_key(self) -> str:
        """The allocation as text; empty where there is none."""
        return "" if self.allocation is None else str(self.allocation)


@dataclass(frozen=True)
class GuidelineRecord:
    """What a round taught."""

    study_id: str
    round: int
    position: int
    insight: int
    """Which of the paper's insights it follows, 1-3; 0 for none of them."""

    stage: str | None
    text: str
    structured: Mapping[str, Any] = field(default_factory=dict)
    created_at: datetime | None = None
    """Set by the archive; ignored when recording."""


@dataclass(frozen=True)
class PlanRecord:
    """What a study ended with."""

    study_id: str
    kind: PlanKind
    """``chosen``: the cheapest within one standard error of the best; ``best``: the best."""

    allocation: Allocation
    document: Mapping[str, Any]
    """The full plan document as JSON."""

    created_at: datetime

    @property
    def id(self) -> str:
        """What names this plan: the study's id, with ``:best`` behind it where it is not the chosen one."""
        return self.study_id if self.kind == "chosen" else f"{self.study_id}:{self.kind}"


@dataclass(frozen=True)
class PromotionRecord:
    """One moment at which a name was given to a plan."""

    name: str
    study_id: str
    kind: PlanKind
    promoted_at: datetime
    promoted_by: str
    """Who did it, as far as known."""

    @property
    def plan_id(self) -> str:
        """See `PlanRecord.id`."""
        return self.study_id if self.kind == "chosen" else f"{self.study_id}:{self.kind}"


@dataclass(frozen=True)
class LedgerEntry:
    """One reservation, and what it came to."""

    key: str
    reserved: float
    settled: float | None
    """None while it is open."""


@dataclass(frozen=True)
class LedgerUsage:
    """Where a ledger stands."""

    settled: float
    reserved: float
    """Open reservations only."""

    unit: str
    """Empty while the ledger has no entry."""

    @property
    def total(self) -> float:
        """Settled and openly reserved."""
        return self.settled + self.reserved


@dataclass(frozen=True)
class Claim:
    """What an entry wants to set aside in one ledger."""

    ledger: Ledger
    unit: str
    amount: float
    limit: float | None = None
    """What settled and reserved amounts of the ledger together may reach; None for no limit."""


@dataclass(frozen=True)
class SettledShare:
    """How settled entries of a ledger compare with what was reserved for them."""

    reserved: float
    settled: float


@dataclass(frozen=True)
class EventRecord:
    """One thing that happened in a study."""

    id: int
    """Grows with every event of a study, in the order readers can see them."""

    study_id: str
    kind: str
    payload: Mapping[str, Any]
    created_at: datetime


@dataclass(frozen=True)
class WorkerRecord:
    """One process that runs studies."""

    executor_id: str
    host: str
    pid: int
    started_at: datetime
    last_beat: datetime
