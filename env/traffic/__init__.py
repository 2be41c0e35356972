"""Decides how much of what waits for a model server may be sent to it now, and whose turn it is."""

from env.traffic.breaker import CircuitBreaker
from env.traffic.concurrency import AdaptiveLimit
from env.traffic.fairness import FairQueue
from env.traffic.gate import NotAdmittedError, ServerGate, Verdict, gate_of
from env.traffic.retries import RetryBudget

__all__ = [
    "AdaptiveLimit",
    "CircuitBreaker",
    "FairQueue",
    "NotAdmittedError",
    "RetryBudget",
    "ServerGate",
    "Verdict",
    "gate_of",
]
