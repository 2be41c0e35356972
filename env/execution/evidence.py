"""What a trial leaves behind: per-example evidence, k-curves and what was spent."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from env.allocation import Allocation
from env.calls import Call


class CurvePoint(NamedTuple):
    """What one example says about k samples at one stage; value / mass is the expected score."""

    k: int
    value: float
    """Sum of probability times score over the outcomes whose downstream draws are held."""

    mass: float
    """Probability of those outcomes."""

    draws: int = 0
    """Independent draws that this example adds to the estimate: distinct (prompt, index) with positive weight, at the
    stage and after it. Draws that an earlier example of the trial counts already (examples may share prompts) are left
    out, so that the sum over examples never counts a draw twice. What lies before the stage is given, not averaged
    over, and not counted."""


@dataclass(frozen=True)
class StageOutcome:
    """What one stage delivered on one example, along the realised path."""

    stage: str
    answer: str | None
    """Canonical JSON of the aggregated answer; None where no draw could be parsed."""

    prompt_key: str
    """Content key of the stage's draws in the bank."""

    samples: int
    held: int
    """Independent draws held behind this outcome (at least `samples`)."""

    prompt_tokens: int
    output_tokens: int
    """Tokens of everything the strategy asked models to draw, whether new or reused."""

    calls: tuple[Call, ...] = ()
    """What the strategy asked for, verifier and critic included."""

    other_keys: tuple[str, ...] = ()
    """Content keys of other prompts that it had draws of: the critic's, continued answers, another model's."""

    seconds: float | None = field(default=None, compare=False)
    """Measured time of these draws (and of the verifier on them), as if all were new; None where some were drawn by
    another process. A measurement and no part of the result: it differs between runs."""


@dataclass(frozen=True)
class ExampleEvidence:
    """One allocation on one example."""

    example_id: str
    status: Literal["scored", "failed"]
    """``failed``: a model call failed, so the example was not evaluated. It is not a score of 0."""

    score: float | None
    """Expected metric given all held draws of the last stage, upstream as realised; None where failed."""

    realised: float | None
    """Metric of the answer that the first `samples` draws give."""

    reason: str = ""
    stages: tuple[StageOutcome, ...] = ()
    curves: Mapping[str, tuple[CurvePoint, ...]] = field(default_factory=dict)
    """Stage -> a point for each allowed k up to the allocated one, the other stages as allocated."""

    cost: float = 0.0
    """Measured cost of this query in the plan's unit, as if every draw were new."""

    @property
    def calls(self) -> dict[str, tuple[Call, ...]]:
        """What each stage asked for, by its name."""
        return {stage.stage: stage.calls for stage in self.stages}

    @property
    def seconds(self) -> float | None:
        """Measured time of this query, stage after stage; None where a stage was not timed."""
        known = [s.seconds for s in self.stages if s.seconds is not None]
        return sum(known) if known and len(known) == len(self.stages) else None


@dataclass(frozen=True)
class Spend:
    """What a batch or a trial really used: reused draws cost nothing."""

    new_draws: int = 0
    reused_draws: int = 0
    prompt_tokens: int = 0
    output_tokens: int = 0
    cost: float = 0.0
    """Of the new draws, in the plan's unit."""

    seconds: float = 0.0
    """An equal share of the batch's clock time, without the time in which it only waited for servers."""

    load_seconds: float | None = 0.0
    """Waits for starts, wakes and restarts of servers that this trial's models caused; a model's are shared by the
    trials of the batch that asked it. Never part of `seconds`. None in trials of before they were kept apart."""


@dataclass(frozen=True)
class TrialResult:
    """One allocation evaluated on a set of examples."""

    allocation: Allocation
    evidence: tuple[ExampleEvidence, ...]
    predicted_cost: float
    measured_cost: float | None
    """Mean measured cost per query over the scored examples; None where none was scored."""

    spend: Spend
    """The part of the batch's new draws first asked for by this allocation."""

    @property
    def score(self) -> float | None:
        """Mean score over the scored examples; None where none was."""
        scored = [e.score for e in self.evidence if e.score is not None]
        return sum(scored) / len(scored) if scored else None

    @property
    def failed(self) -> int:
        """Examples that could not be evaluated."""
        return sum(e.status == "failed" for e in self.evidence)
