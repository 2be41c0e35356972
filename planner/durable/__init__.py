"""Makes studies durable: DBOS workflows, queues, schedules, heartbeat, takeover and fencing."""

from planner.durable.jobs import JobSettings, QueueState
from planner.durable.requests import request_cancel, request_pause
from planner.durable.runtime import Runtime, check_cron

__all__ = ["JobSettings", "QueueState", "Runtime", "check_cron", "request_cancel", "request_pause"]
