"""Runs batches of allocations on examples and turns draws into per-example evidence."""

from env.execution.allowance import Allowance, AllowanceSpent, Quota
from env.execution.environment import Environment
from env.execution.evidence import ExampleEvidence, Spend, StageOutcome, TrialResult
from env.execution.live import LiveAnswer, LivePipeline, StageAnswer, StageFailed, Wishes
from env.execution.progress import Progress, ProgressSink

__all__ = [
    "Allowance",
    "AllowanceSpent",
    "Environment",
    "ExampleEvidence",
    "LiveAnswer",
    "LivePipeline",
    "Progress",
    "ProgressSink",
    "Quota",
    "Spend",
    "StageAnswer",
    "StageFailed",
    "StageOutcome",
    "TrialResult",
    "Wishes",
]
