"""Whom the end of a run is told, in what words, and how a receiver knows that they are ours."""

from __future__ import annotations

import hashlib
import hmac
import json
from typing import Any

from planner.archive import RunRecord
from planner.archive.schedule_records import AlertTarget
from planner.schedules.diff import stored_diff

SIGNATURE = "Apportion-Signature"
TIMESTAMP = "Apportion-Timestamp"
DELIVERY = "Apportion-Delivery"
"""Names a run: who has seen it once need not act on it twice."""


def wanted(target: AlertTarget | None, run: RunRecord) -> bool:
    """Whether the end of a run is to be told.

    A run that failed or was missed is told under ``change`` too: nobody knows whether anything changed. One that its
    overlap policy skipped, or somebody cancelled, is told under ``always`` only.
    """
    if target is None:
        return False
    failed = run.outcome in ("failed", "missed")
    match target.when:
        case "always":
            return True
        case "failure":
            return failed
        case "change":
            return failed or run.outcome == "searched"


def body(run: RunRecord, study_name: str) -> str:
    """The JSON of an alert. Links are paths on the service that sends it."""
    diff = stored_diff(run.diff)
    value: dict[str, Any] = {
        "version": 1,
        "event": "schedule.run",
        "schedule": run.schedule_name,
        "study_name": study_name,
        "run": run.id,
        "number": run.number,
        "cause": run.cause,
        "due": run.due.isoformat(),
        "ended_at": None if run.ended_at is None else run.ended_at.isoformat(),
        "outcome": run.outcome,
        "reason": run.reason,
        "plan_changed": diff is not None and diff.plan.changed,
        "incumbent_study": run.incumbent_study,
        "new_study": run.new_study,
        "diff": None if diff is None else diff.model_dump(mode="json"),
        "links": {
            "run": f"/api/v1/schedules/{run.schedule_name}/runs/{run.id}",
            "page": f"/schedules/{run.schedule_name}",
        },
    }
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def signature(secret: str, timestamp: int, content: bytes) -> str:
    """``v1=`` and the hex HMAC-SHA256, under the shared secret, of the timestamp, a dot and the body.

    The timestamp is part of it, so that nobody can send an old alert again as a new one.
    """
    message = str(timestamp).encode() + b"." + content
    return "v1=" + hmac.new(secret.encode(), message, hashlib.sha256).hexdigest()
