"""What becomes due in a schedule at a moment, and what its policies make of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from planner.archive import Advance, NewRun, RunRecord, ScheduleRecord
from planner.archive.schedule_records import RunCause, SchedulePlan
from planner.schedules.fingerprint import changes
from planner.schedules.firing import MOST_COUNTED, Cron

GRACE = timedelta(seconds=60)
"""A firing found later than this after it was due was missed, though somebody may have been there: asleep, or stuck."""

MOST_WAITING = 10
"""Runs of a schedule that wait while another is under way; a schedule that fires faster than it runs needs no more."""


@dataclass(frozen=True)
class Look:
    """Somebody looks at the schedules."""

    now: datetime
    since: datetime
    """From when on they have been looking: what was due before was missed, unless another one saw it."""


@dataclass(frozen=True)
class _Due:
    """What a clock makes due: the firing to run, and what was missed before it."""

    fires: datetime | None
    late: bool = False
    missed: int = 0
    first_missed: datetime | None = None
    last_missed: datetime | None = None


def next_firing(plan: SchedulePlan, after: datetime) -> datetime | None:
    """When a schedule fires next by the clock; None where only changes fire it, or it has fired once for all."""
    if plan.cron is not None:
        return Cron(plan.cron, plan.timezone).next(after)
    if plan.at is not None and plan.at > after:
        return plan.at
    return None


def decide(
    schedule: ScheduleRecord, unfinished: Sequence[RunRecord], look: Look, found: Mapping[str, Any] | None = None
) -> Advance | None:
    """What to enter for a schedule; None where nothing is due.

    Args:
        schedule: as it stands.
        unfinished: its runs that have not ended, oldest first.
        look: who looks, and when.
        found: data and candidates as they are now; for schedules that changes fire.
    """
    if schedule.paused:
        return None
    if schedule.plan.on_change:
        return _on_change(schedule, unfinished, look, found)
    due = _by_clock(schedule, look)
    if due is None:
        return None
    cause: RunCause = "cron" if schedule.plan.cron is not None else "once"
    runs = [] if due.last_missed is None else [NewRun(due.last_missed, cause, _missed_words(due), "missed")]
    cancel: Sequence[str] = ()
    if due.fires is not None:
        reason = f"late: it was due at {_clock(due.fires)}, when nobody was there to run it" if due.late else ""
        run, cancel = admit(schedule.plan, NewRun(due.fires, cause, reason), unfinished)
        runs.append(run)
    considered = max(moment for moment in (due.fires, due.last_missed) if moment is not None)
    return Advance(considered, runs, cancel, fired_at=due.fires)


def admit(plan: SchedulePlan, run: NewRun, unfinished: Sequence[RunRecord]) -> tuple[NewRun, Sequence[str]]:
    """What the overlap policy makes of a run that is due.

    Returns:
        The run, perhaps skipped, and the ids of those that it cancels.
    """
    if not unfinished:
        return run, ()
    under_way = f"run {unfinished[0].number} was still under way"
    match plan.overlap:
        case "skip":
            return NewRun(run.due, run.cause, under_way, "skipped"), ()
        case "cancel":
            return run, [other.id for other in unfinished]
        case "queue":
            if len(unfinished) > MOST_WAITING:
                words = f"{under_way}, and {len(unfinished) - 1} waited already"
                return NewRun(run.due, run.cause, words, "skipped"), ()
            return run, ()


def _on_change(
    schedule: ScheduleRecord, unfinished: Sequence[RunRecord], look: Look, found: Mapping[str, Any] | None
) -> Advance | None:
    if found is None:
        return None
    if schedule.observed is None:
        # The first look only remembers: nobody knows what it was before.
        return Advance(look.now, observed=found)
    words = changes(schedule.observed, found, schedule.plan.on_change)
    if not words:
        return None
    if unfinished and schedule.plan.overlap == "skip":
        # A change is there to stay: it is taken up when that run has ended.
        return None
    run, cancel = admit(schedule.plan, NewRun(look.now, "change", "; ".join(words)), unfinished)
    if run.outcome is not None:
        return None
    return Advance(look.now, [run], cancel, observed=found, fired_at=look.now)


def _by_clock(schedule: ScheduleRecord, look: Look) -> _Due | None:
    after, plan = schedule.considered_until, schedule.plan
    if plan.at is not None:
        if not after < plan.at <= look.now:
            return None
        if _seen(plan.at, look) or plan.missed == "latest":
            return _Due(plan.at, late=not _seen(plan.at, look))
        return _Due(None, False, 1, plan.at, plan.at)
    if plan.cron is None:
        return None
    cron = Cron(plan.cron, plan.timezone)
    first = cron.next(after)
    if first > look.now:
        return None
    latest = cron.latest(after, look.now) or first
    seen = _seen(latest, look)
    fires = latest if seen or plan.missed == "latest" else None
    last_missed = latest if fires is None else _before(cron, after, latest)
    if last_missed is None:
        return _Due(fires, late=not seen)
    return _Due(fires, not seen and fires is not None, cron.count(after, last_missed), first, last_missed)


def _before(cron: Cron, after: datetime, firing: datetime) -> datetime | None:
    return cron.latest(after, firing - timedelta(seconds=1))


def _seen(firing: datetime, look: Look) -> bool:
    return firing > look.since and look.now - firing <= GRACE


def _missed_words(due: _Due) -> str:
    assert due.first_missed is not None
    assert due.last_missed is not None
    if due.missed == 1:
        return f"the firing of {_clock(due.last_missed)} was missed: nobody was there to run it"
    count = f"{MOST_COUNTED} or more" if due.missed >= MOST_COUNTED else str(due.missed)
    between = f"{_clock(due.first_missed)} to {_clock(due.last_missed)}"
    return f"{count} firings from {between} were missed: nobody was there to run them"


def _clock(moment: datetime) -> str:
    return f"{moment:%Y-%m-%d %H:%M:%S} UTC"
