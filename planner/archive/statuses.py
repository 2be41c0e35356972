"""Which status of a study may follow which."""

from __future__ import annotations

from typing import get_args

from planner.archive.records import StudyStatus

STATUSES: tuple[StudyStatus, ...] = get_args(StudyStatus)
TERMINAL: frozenset[StudyStatus] = frozenset({"done", "failed", "cancelled"})
"""Nothing follows these."""

_MOVES: frozenset[tuple[StudyStatus, StudyStatus]] = frozenset(
    {
        ("queued", "running"),
        ("queued", "paused"),
        ("queued", "failed"),
        ("queued", "cancelled"),
        ("running", "queued"),  # its worker died, another one takes it
        ("running", "paused"),
        ("running", "done"),
        ("running", "failed"),
        ("running", "cancelled"),
        ("paused", "queued"),
        ("paused", "running"),
        ("paused", "failed"),
        ("paused", "cancelled"),
    }
)

ALLOWED = _MOVES | {(status, status) for status in STATUSES}
"""Pairs (before, after); a status may always be set again, as workflow steps are re-run."""


def may_follow(before: StudyStatus, after: StudyStatus) -> bool:
    """Whether a study in `before` may be set to `after`."""
    return (before, after) in ALLOWED
