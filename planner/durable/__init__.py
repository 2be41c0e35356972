"""Makes studies and schedules durable: DBOS workflows, the queues, what fires schedules, heartbeat and takeover."""

from planner.durable.runtime import Runtime

__all__ = ["Runtime"]
