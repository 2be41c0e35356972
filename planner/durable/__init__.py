"""Makes studies and schedules durable: workflows, queues, what fires schedules, heartbeat, takeover and fencing."""

from planner.durable.jobs import JobSettings, QueueState
from planner.durable.requests import request_cancel, request_pause
from planner.durable.runtime import Runtime

__all__ = ["JobSettings", "QueueState", "Runtime", "request_cancel", "request_pause"]
