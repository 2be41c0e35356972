"""What the schedules' pages show: when a schedule fires, how its scores went, and its runs in words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from api.schemas import AlertPublic, RunPublic, SchedulePublic
from planner.archive import Archive, ScheduleRecord
from planner.plans import amount
from planner.plans.document import IntervalPublic

SPARK_RUNS = 30
SPARK_WIDTH, SPARK_HEIGHT, SPARK_EDGE = 120, 32, 3
RUNS_A_PAGE = 20
ALERTS_SHOWN = 20


@dataclass(frozen=True)
class Spark:
    """Scores of the last checks as a small line with its intervals as a band, in SVG coordinates."""

    line: str
    band: str
    last: tuple[float, float]
    label: str


@dataclass(frozen=True)
class ScheduleLine:
    """A schedule in the list."""

    schedule: SchedulePublic
    last: RunPublic | None
    spark: Spark | None
    busy: bool
    """Whether a run is under way or waits."""


@dataclass(frozen=True)
class ScheduleView:
    """Everything the page of one schedule shows."""

    line: ScheduleLine
    runs: Sequence[RunPublic]
    following: int | None
    """Number to page on from; None on the last page."""

    alerts: Sequence[AlertPublic]


def schedule_lines(archive: Archive) -> list[ScheduleLine]:
    """All schedules by name."""
    return [schedule_line(archive, record) for record in archive.schedules.list()]


def schedule_line(archive: Archive, record: ScheduleRecord) -> ScheduleLine:
    """One schedule, with its last run and its scores."""
    runs = [RunPublic.of(run) for run in archive.schedule_runs.list(record.name, SPARK_RUNS)]
    return ScheduleLine(
        SchedulePublic.of(record),
        runs[0] if runs else None,
        spark([found for run in reversed(runs) if (found := fresh_score(run)) is not None]),
        any(run.status != "ended" for run in runs),
    )


def schedule_view(archive: Archive, record: ScheduleRecord, before: int | None) -> ScheduleView:
    """One schedule with a page of its runs."""
    listed = archive.schedule_runs.list(record.name, RUNS_A_PAGE + 1, before)
    shown = [RunPublic.of(run) for run in listed[:RUNS_A_PAGE]]
    return ScheduleView(
        schedule_line(archive, record),
        shown,
        shown[-1].number if len(listed) > RUNS_A_PAGE else None,
        [AlertPublic.of(alert) for alert in archive.alerts.list(record.name, ALERTS_SHOWN)],
    )


def fresh_score(run: RunPublic) -> IntervalPublic | None:
    """What a run found the plan in use to score: on fresh draws, or of a search where there was no plan before."""
    if run.revalidation is not None:
        return run.revalidation.score.after
    return None if run.diff is None else run.diff.score.after


def spark(scores: Sequence[IntervalPublic]) -> Spark | None:
    """The line of at least two scores, oldest first; None of fewer."""
    if len(scores) < 2:
        return None
    low, high = min(s.low for s in scores), max(s.high for s in scores)
    reach = max(high - low, 1e-9)

    def x(place: int) -> float:
        return round(SPARK_EDGE + (SPARK_WIDTH - 2 * SPARK_EDGE) * place / (len(scores) - 1), 1)

    def y(value: float) -> float:
        return round(SPARK_HEIGHT - SPARK_EDGE - (SPARK_HEIGHT - 2 * SPARK_EDGE) * (value - low) / reach, 1)

    upper = [f"{x(i)},{y(s.high)}" for i, s in enumerate(scores)]
    lower = [f"{x(i)},{y(s.low)}" for i, s in enumerate(scores)]
    values = [s.estimate for s in scores]
    return Spark(
        " ".join(f"{x(i)},{y(s.estimate)}" for i, s in enumerate(scores)),
        " ".join([*upper, *reversed(lower)]),
        (x(len(scores) - 1), y(values[-1])),
        f"Scores of the last {len(scores)} checks: from {values[0]:.3f} to {values[-1]:.3f}, "
        f"lowest {min(values):.3f}, highest {max(values):.3f}",
    )


def fires(schedule: SchedulePublic) -> str:
    """What makes a schedule run, in words; its cron expression is shown as it stands."""
    if schedule.at is not None:
        return f"once, {clock(schedule.at)}"
    return f"when {' or '.join(schedule.on_change)} change"


def clock(moment: datetime) -> str:
    """A moment for people."""
    return f"{moment:%Y-%m-%d %H:%M} UTC"


def more(value: float, unit: str) -> str:
    """A difference of costs, with its sign."""
    return f"{'+' if value >= 0 else '-'}{amount(abs(value), unit)}"
