"""Makes studies durable: DBOS workflows, the queue, schedules, heartbeat and takeover."""

from planner.durable.runtime import Runtime, check_cron

__all__ = ["Runtime", "check_cron"]
